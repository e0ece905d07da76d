/* ids.h - a growing array of token ids: zero-initialise, ids_free at the end. */
#ifndef SAILS_IDS_H
#define SAILS_IDS_H

#include <stddef.h>
#include <stdint.h>

typedef struct Ids {
    int32_t *id;
    size_t n, capacity;
} Ids;

void ids_add(Ids *ids, int32_t id);
void ids_free(Ids *ids);

#endif
