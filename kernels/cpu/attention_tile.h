/* attention_tile.h - what forward and backward attention share: how work is cut and one tile of
 * scores.
 *
 * A tile has the keys of one kv head as its rows and (query row, query head) pairs as its columns,
 * so that all heads that read a key share its tile, and the softmax runs along vectors: maxima,
 * exponentials and sums of a column are never reduced across lanes. Every product of forward and
 * backward then reads its operands as they lie; only the queries are transposed, once per block.
 *
 * Key blocks lie on a grid of positions, not of rows, and a column's results depend on no other
 * column: a row has the same bits whether its prefix is its own or another segment's. */
#ifndef SAILS_ATTENTION_TILE_H
#define SAILS_ATTENTION_TILE_H

#include <math.h>
#include <string.h>

#include "kernels/cpu/tile.h"
#include "kernels/cpu/twin.h"
#include "kernels/scalar.h"
#include "kernels/segments.h"

enum { COLS = 128, KEYS = 64, E_MAX = ATTN_E_MAX };

/* One op call. Rows of f32 tiles are `pad` long: E rounded up to whole vectors. */
typedef struct Attention {
    AttnShape a;
    const Segment *seg;
    int nseg, N, pad;
    int heads;  /* query heads in a block: all that share a kv head, or COLS of them */
    int groups; /* blocks over all heads: K times the blocks of one kv head */
    int rows;   /* query rows in a block */
} Attention;

/* Consecutive query rows of one segment, for `heads` heads of one kv head. Column c is row
 * c / heads, head c % heads. `wide` is cols in whole vectors; the columns beyond are zeros. */
typedef struct Block {
    Segment seg;
    int row, rows;       /* within the segment */
    int kv, head, heads; /* head: the first query head */
    int cols, wide;
    int first, last; /* positions of the first and last key: no row sees beyond them */
    int position[COLS];
} Block;

static Attention attention_of(AttnShape a, const Segment *seg, int nseg, int N) {
    segments_check(a, seg, nseg, N);
    int shared = a.H / a.K, heads = shared < COLS ? shared : COLS;
    return (Attention){.a = a,
                       .seg = seg,
                       .nseg = nseg,
                       .N = N,
                       .pad = tile_pad(a.E, TILE_VEC),
                       .heads = heads,
                       .groups = a.K * ((shared + heads - 1) / heads),
                       .rows = COLS / heads};
}

/* The block of segment j that starts at `row`, for group g of the heads. */
static inline Block block_of(const Attention *t, int j, int row, int g) {
    int per_kv = t->groups / t->a.K, shared = t->a.H / t->a.K, skipped = g % per_kv * t->heads;
    Block b = {.seg = t->seg[j], .row = row, .kv = g / per_kv};
    b.rows = b.seg.len - row < t->rows ? b.seg.len - row : t->rows;
    b.head = b.kv * shared + skipped;
    b.heads = shared - skipped < t->heads ? shared - skipped : t->heads;
    b.cols = b.rows * b.heads;
    b.wide = tile_pad(b.cols, TILE_VEC);
    int position = b.seg.prefix_len + row;
    b.first = t->a.window > 0 && position >= t->a.window ? position - t->a.window + 1 : 0;
    b.first -= b.first % TILE_RUN; /* runs of the sum over keys begin on the grid, too */
    b.last = position + b.rows - 1;
    for (int c = 0; c < COLS; c++) b.position[c] = c < b.cols ? position + c / b.heads : b.last;
    return b;
}

/* Where column c begins in a tensor (N,H*E). */
static inline size_t column_at(const Attention *t, const Block *b, int c) {
    size_t row = (size_t)(b->seg.row + b->row + c / b->heads);
    return (row * t->a.H + b->head + c % b->heads) * t->a.E;
}

static inline void row_to_f32(float *to, const elem *from, int n, int pad, float factor) {
    for (int i = 0; i < n; i++) to[i] = factor * elem_get(from[i]);
    for (int i = n; i < pad; i++) to[i] = 0;
}

/* The block's columns of a tensor (N,H*E) as rows of a tile, times `factor`; zeros up to wide. */
static inline void load_columns(float *to, const elem *from, const Attention *t, const Block *b,
                                float factor) {
    for (int c = 0; c < b->cols; c++)
        row_to_f32(to + c * t->pad, from + column_at(t, b, c), t->a.E, t->pad, factor);
    memset(to + b->cols * t->pad, 0, (size_t)(b->wide - b->cols) * t->pad * sizeof *to);
}

/* n keys or values from position p on as rows of a tile. */
static inline void load_keys(float *to, const elem *from, const Attention *t, const Block *b, int p,
                             int n) {
    for (int i = 0; i < n; i++) {
        size_t at = ((size_t)key_row(b->seg, p + i) * t->a.K + b->kv) * t->a.E;
        row_to_f32(to + i * t->pad, from + at, t->a.E, t->pad, 1);
    }
}

/* How many keys the block of the grid that holds position p has from p on, up to `end`. */
static inline int keys_from(int p, int end) {
    int next = (p / KEYS + 1) * KEYS;
    return (next < end ? next : end) - p;
}

/* scores[key][column] = capped keys . queries^T, hidden ones -infinity. */
static inline __attribute__((always_inline)) void cap_and_mask(float *scores, const Block *b, int p,
                                                               int n, unsigned reach, float cap,
                                                               bool capped, bool masked) {
    for (int i = 0; i < n; i++) {
        float *s = scores + i * COLS;
#pragma omp simd
        for (int c = 0; c < b->wide; c++) {
            float x = s[c];
            if (capped) x = cap * scalar_tanh(x / cap);
            bool seen = (unsigned)(b->position[c] - p - i) < reach;
            s[c] = masked && !seen ? -INFINITY : x;
        }
    }
}

static inline void tile_scores(float *scores, const float *keys, const float *queries_t,
                               const Attention *t, const Block *b, int p, int n) {
    TileLeft left = {keys, (size_t)t->pad, 1};
    tile_mul(scores, COLS, left, queries_t, COLS, n, b->wide, t->a.E, TILE_SET);
    unsigned reach = t->a.window > 0 ? (unsigned)t->a.window : 1u << 31;
    bool masked = p + n - 1 > b->position[0] || (unsigned)(b->last - p) >= reach;
    float cap = t->a.cap;
    if (cap > 0 && masked)
        cap_and_mask(scores, b, p, n, reach, cap, true, true);
    else if (cap > 0)
        cap_and_mask(scores, b, p, n, reach, cap, true, false);
    else if (masked)
        cap_and_mask(scores, b, p, n, reach, cap, false, true);
}

/* The blocks of query rows of all segments, in order. Returns how many; list NULL only counts. */
typedef struct BlockStart {
    int seg, row;
} BlockStart;

static int list_blocks(BlockStart *list, const Attention *t) {
    int n = 0;
    for (int j = 0; j < t->nseg; j++)
        for (int row = 0; row < t->seg[j].len; row += t->rows, n++)
            if (list) list[n] = (BlockStart){j, row};
    return n;
}

/* Bytes rounded so that what follows stays aligned. */
static inline size_t aligned_bytes(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

#endif
