/* pair_pack.c - what two documents share, and their rows in a pack. */
#include "model/pair_pack.h"

static int counted_length(const PairItem *item, int c) {
    int n = item->n[c];
    while (n > 0 && !item->counted[c][n - 1]) n--;
    return n;
}

int pair_trim(PairItem *item, int max_rows) {
    int shared = 0;
    for (int c = 0; c < 2; c++) item->n[c] = counted_length(item, c);
    int shorter = item->n[0] < item->n[1] ? item->n[0] : item->n[1];
    while (shared + 1 < shorter && item->token[0][shared] == item->token[1][shared]) shared++;
    return pair_rows(item, shared) > max_rows ? 0 : shared;
}

void pair_add(Pack *p, PairPlace place[2], const PairItem *item, int shared) {
    int prefix = p->nseg, prefix_row = p->N;
    pack_add(p, item->token[0], NULL, shared, 0);
    for (int c = 0; c < 2; c++) {
        place[c] = (PairPlace){prefix_row, shared, p->N};
        pack_add_branch(p, prefix, shared, item->token[c] + shared, NULL, item->n[c] - shared, 0);
    }
}

PairPlace pair_add_alone(Pack *p, const PairItem *item, int c) {
    PairPlace place = {.row = p->N};
    pack_add(p, item->token[c], NULL, item->n[c], 0);
    return place;
}
