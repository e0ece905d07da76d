/* pair_pack.h - two documents that are compared, in a pack: a prefix that both share is computed
 * once, tokens behind the last one that counts not at all. */
#ifndef SAILS_PAIR_PACK_H
#define SAILS_PAIR_PACK_H

#include "data/base/pack.h"

/* A pair of whole documents, the first of corpus 0, the second of corpus 1; or one document alone
 * (the other n is 0). counted[c][t] != 0: token t counts. */
typedef struct PairItem {
    const int32_t *token[2];
    const uint8_t *counted[2];
    int n[2];
} PairItem;

/* Leaves of each document the tokens up to the last one that counts, none where none does. Returns
 * how many first tokens both have: at least one of each is not among them. 0: each goes alone; so
 * they must where together they take more than max_rows rows. */
int pair_trim(PairItem *item, int max_rows);

/* Where a document lies: token t in row prefix + t while t < split, then in row + t - split. */
typedef struct PairPlace {
    int prefix, split, row;
} PairPlace;
static inline int pair_row(const PairPlace *p, int t) {
    return t < p->split ? p->prefix + t : p->row + t - p->split;
}

/* Rows that both take together. */
static inline int pair_rows(const PairItem *item, int shared) {
    return item->n[0] + item->n[1] - shared;
}

/* Both as branches of the `shared` > 0 tokens; or one of them, alone. */
void pair_add(Pack *p, PairPlace place[2], const PairItem *item, int shared);
PairPlace pair_add_alone(Pack *p, const PairItem *item, int c);

#endif
