/* segments.h - where the keys of a segment lie, and how many pairs of rows see each other. */
#ifndef SAILS_SEGMENTS_H
#define SAILS_SEGMENTS_H

#include "kernels/bf16.h"
#include "kernels/ops.h"

enum { ATTN_E_MAX = 256 };

/* The row of the key at position p of a segment. */
static inline SAILS_HD int key_row(Segment s, int p) {
    return p < s.prefix_len ? s.prefix_row + p : s.row + p - s.prefix_len;
}

/* Pairs of positions that see each other in these segments; window 0: none. */
static inline double segments_pairs(const Segment *seg, int nseg, int window) {
    double pairs = 0;
    for (const Segment *s = seg; s < seg + nseg; s++)
        for (int i = 0; i < s->len; i++) { /* row i sees its prefix and itself, in the window */
            int seen = s->prefix_len + i + 1;
            pairs += window && seen > window ? window : seen;
        }
    return pairs;
}

#endif
