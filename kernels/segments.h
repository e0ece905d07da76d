/* segments.h - what the twins of attention share: checks of AttnShape and Segment, and where keys
 * lie. */
#ifndef SAILS_SEGMENTS_H
#define SAILS_SEGMENTS_H

#include <limits.h>

#include "kernels/check.h"
#include "kernels/ops.h"

enum { ATTN_E_MAX = 256 };

static inline void attn_shape_check(AttnShape a) {
    CHECK(a.K > 0 && a.H > 0 && a.H % a.K == 0 && a.E % 8 == 0 && a.E >= 8 && a.E <= ATTN_E_MAX &&
              a.window >= 0 && a.cap >= 0,
          "H=%d K=%d E=%d window=%d cap=%g", a.H, a.K, a.E, a.window, (double)a.cap);
}

/* Dies unless shape and segments keep the contract of op_attn_fwd. */
static inline void segments_check(AttnShape a, const Segment *seg, int nseg, int N) {
    attn_shape_check(a);
    CHECK(N >= 0 && nseg >= 0, "N=%d nseg=%d", N, nseg);
    int row = 0;
    for (int j = 0; j < nseg; row += seg[j++].len) {
        Segment s = seg[j];
        CHECK(s.row == row && s.len >= 0 && s.len <= N - row && s.prefix_len >= 0,
              "segment %d: row %d len %d prefix %d, of %d rows, after row %d", j, s.row, s.len,
              s.prefix_len, N, row);
        CHECK(s.prefix_len == 0 || (s.prefix_row >= 0 && s.prefix_len <= row - s.prefix_row),
              "segment %d: expected its prefix before row %d, got %d rows from %d", j, row,
              s.prefix_len, s.prefix_row);
    }
    CHECK(row == N, "expected segments to cover %d rows, they cover %d", N, row);
}

/* The row of the key at position p of a segment. */
static inline SAILS_HD int key_row(Segment s, int p) {
    return p < s.prefix_len ? s.prefix_row + p : s.row + p - s.prefix_len;
}

#endif
