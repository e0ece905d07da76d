/* ids.c - a growing array of token ids. */
#include "data/ids.h"

#include "data/base/mem.h"

void ids_add(Ids *ids, int32_t id) {
    if (ids->n == ids->capacity)
        ids->id = mem_grow(ids->id, &ids->capacity, ids->n + 1, sizeof *ids->id);
    ids->id[ids->n++] = id;
}

void ids_free(Ids *ids) {
    free(ids->id);
    *ids = (Ids){0};
}
