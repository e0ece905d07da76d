/* table.c - the twins of this level and storage type, filled from the list. */
#include "kernels/cpu/tile.h"
#include "kernels/cpu/twin.h"

#if defined TILE_PAIRS
#define ROUNDS true
#else
#define ROUNDS false
#endif

/* A compiler that announces its instructions by another macro would build this level from those of
 * a lower one. */
#define IS_AMX_amx 1
#define IS_AMX_JOIN(level) IS_AMX_##level
#define IS_AMX(level) IS_AMX_JOIN(level)
#if IS_AMX(TWIN_LEVEL) && defined TWIN_bf16 && !defined TILE_AMX
#error "level amx without AMX: tile.h asks for other macros than this compiler has"
#endif

#define X(op) .op = TWIN(op),
const Ops TWIN(table) = {
    .name = "cpu " TWIN_LEVEL_NAME " " TWIN_DTYPE_NAME, .rounds = ROUNDS, SAILS_TABLE(X)};
#undef X
