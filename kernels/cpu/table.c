/* table.c - the twins of this level and storage type, filled from the list. */
#include "kernels/cpu/tile.h"
#include "kernels/cpu/twin.h"

#if defined TILE_PAIRS
#define ROUNDS true
#else
#define ROUNDS false
#endif

#define X(op) .op = TWIN(op),
const Ops TWIN(table) = {
    .name = "cpu " TWIN_LEVEL_NAME " " TWIN_DTYPE_NAME, .rounds = ROUNDS, SAILS_TABLE(X)};
#undef X
