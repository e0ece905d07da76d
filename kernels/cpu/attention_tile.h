/* attention_tile.h - what forward and backward attention share: how work is cut and one tile of
 * scores.
 *
 * A tile has the keys of one kv head as its rows and (query row, query head) pairs as its columns,
 * so that all heads that read a key share its tile, and the softmax runs along vectors: maxima,
 * exponentials and sums of a column are never reduced across lanes. Every product is one of
 * gemm_kernel.h's: rows by panels of columns. Where its units are pairs of bf16, weights and
 * gradients of scores are rounded to bf16 before they are multiplied.
 *
 * Key blocks lie on a grid of positions, not of rows, and a column's results depend on no other
 * column: a row has the same bits whether its prefix is its own or another segment's. */
#ifndef SAILS_ATTENTION_TILE_H
#define SAILS_ATTENTION_TILE_H

#include <math.h>
#include <string.h>

#include "kernels/cpu/gemm_pack.h"
#include "kernels/scalar.h"
#include "kernels/segments.h"

/* Products add up runs of RUN units, shorter than a GEMM's: they round less. */
enum { COLS = 128, KEYS = 64, RUN = 64, E_MAX = ATTN_E_MAX };

/* One op call. Rows of tiles are `pad` elements long, panels of transposed rows `deep` units. */
typedef struct Attention {
    AttnShape a;
    const Segment *seg;
    int nseg, N, pad, deep;
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
    int shared = a.H / a.K, heads = shared < COLS ? shared : COLS;
    return (Attention){.a = a,
                       .seg = seg,
                       .nseg = nseg,
                       .N = N,
                       .pad = tile_pad(a.E, TILE_VEC),
                       .deep = tile_pad(units(a.E), TILE_VEC),
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
    b.first -= b.first % KEYS; /* the first tile, too, begins on the grid */
    b.last = position + b.rows - 1;
    for (int c = 0; c < COLS; c++) b.position[c] = c < b.cols ? position + c / b.heads : b.last;
    return b;
}

/* Where column c begins in a tensor (N,H*E). */
static inline size_t column_at(const Attention *t, const Block *b, int c) {
    size_t row = (size_t)(b->seg.row + b->row + c / b->heads);
    return (row * t->a.H + b->head + c % b->heads) * t->a.E;
}

/* The block's columns of a tensor (N,H*E) as rows of a tile; zeros up to wide. */
static inline void load_columns(elem *to, const elem *from, const Attention *t, const Block *b) {
    memset(to, 0, (size_t)b->wide * t->pad * sizeof *to);
    for (int c = 0; c < b->cols; c++)
        memcpy(to + c * t->pad, from + column_at(t, b, c), (size_t)t->a.E * sizeof *to);
}

/* n keys or values from position p on as rows of a tile. */
static inline void load_keys(elem *to, const elem *from, const Attention *t, const Block *b, int p,
                             int n) {
    for (int i = 0; i < n; i++) {
        size_t at = ((size_t)key_row(b->seg, p + i) * t->a.K + b->kv) * t->a.E;
        memcpy(to + i * t->pad, from + at, (size_t)t->a.E * sizeof *to);
    }
}

/* How many keys the block of the grid that holds position p has from p on, up to `end`. */
static inline int keys_from(int p, int end) {
    int next = (p / KEYS + 1) * KEYS;
    return (next < end ? next : end) - p;
}

/* ------------------------------------------------------------------------------- products -- */

/* Right operands: panels of at most PANEL columns, `step` units apart. */
typedef struct Panels {
    unit *p;
    size_t step;
} Panels;

/* Panels at p: of transposed rows, and of `rows` rows as they lie. */
static inline Panels across(unit *p, const Attention *t) {
    return (Panels){p, (size_t)t->deep * PANEL};
}
static inline Panels along(unit *p, int rows) {
    return (Panels){p, (size_t)rows / UNIT * PANEL};
}

/* The n rows of a tile as columns, units along E. */
static inline void pack_transposed(Panels to, const elem *rows, const Attention *t, int n) {
    Source s = {rows, 1, (size_t)t->pad};
    for (int c = 0; c < n; c += PANEL, to.p += to.step)
        pack_panel(to.p, s, c, n - c < PANEL ? n - c : PANEL, 0, t->a.E);
}

/* The tile as it lies, E columns, units along its n rows. */
static inline void pack_straight(Panels to, const elem *rows, const Attention *t, int n) {
    Source s = {rows, (size_t)t->pad, 1};
    for (int e = 0; e < t->a.E; e += PANEL, to.p += to.step)
        pack_panel(to.p, s, e, t->a.E - e < PANEL ? t->a.E - e : PANEL, 0, n);
}

/* Rows of a tile as a left operand, units along E; in `room` if they must be converted. */
static inline Left left_rows(cell *room, const elem *rows, const Attention *t, int n) {
    if (CELLS_AS_THEY_LIE) return (Left){(const cell *)rows, (size_t)t->pad, UNIT};
    for (int i = 0; i < n; i++) to_cells(room + i * t->pad, rows + i * t->pad, t->a.E);
    return (Left){room, (size_t)t->pad, UNIT};
}

/* C (rows, cols) = or += left right, `depth` units deep. C is in panels of PANEL columns, c_rows
 * rows each. */
static void multiply(float *c, int c_rows, Left left, Panels right, int rows, int cols, int depth,
                     enum TileOut out) {
    for (int j = 0; j < cols; j += PANEL, c += c_rows * PANEL, right.p += right.step) {
        int vecs = cols - j < PANEL ? (cols - j + TILE_VEC - 1) / TILE_VEC : VECS;
        for (int k = 0; k < depth; k += RUN) {
            int run = depth - k < RUN ? depth - k : RUN;
            for (int r = 0, n; r < rows; r += n) {
                Left at = {left.p + r * left.row_step + k * left.k_step, left.row_step,
                           left.k_step};
                n = tile_rows(c + r * PANEL, at, right.p + (size_t)k * PANEL, run,
                              k ? TILE_ADD : out, soon_none(right.p), rows - r, vecs);
            }
        }
    }
}

/* A row of sums in panels of COLS rows, times `factor`, as a row of a tensor. */
static inline void put_row(elem *to, const float *sums, const Attention *t, float factor) {
    for (int e = 0; e < t->a.E; e += PANEL, sums += COLS * PANEL) {
        int width = t->a.E - e < PANEL ? t->a.E - e : PANEL;
        for (int l = 0; l < width; l++) to[e + l] = elem_put(factor * sums[l]);
    }
}

/* --------------------------------------------------------------------------------- scores -- */

/* A tile of scores, or of what becomes of them: panels of columns, KEYS rows each. `cells` are its
 * cells, unused where those are the floats themselves. */
typedef struct Scores {
    _Alignas(64) float f[KEYS * COLS];
    elem cells[UNIT == 1 ? 1 : KEYS * COLS];
} Scores;

/* Room for such a tile in units that join keys. */
enum { PAIRS = UNIT == 1 ? 1 : KEYS * COLS / UNIT };

/* Columns of the panel that begins at column c0. */
static inline int lanes_of(const Block *b, int c0) {
    return b->wide - c0 < PANEL ? b->wide - c0 : PANEL;
}

/* The cells of the first n rows. */
static inline void round_scores(Scores *s, const Block *b, int n) {
    if (UNIT == 1) return;
    for (int c = 0; c < b->wide; c += PANEL)
        for (int i = 0; i < n; i++) {
            const float *from = s->f + c * KEYS + i * PANEL;
            elem *to = s->cells + c * KEYS + i * PANEL;
#pragma omp simd
            for (int l = 0; l < lanes_of(b, c); l++) to[l] = elem_put(from[l]);
        }
}

/* The panel from column c0 on as a left operand, after round_scores: a row for each key, units
 * along the columns. */
static inline Left rows_of_keys(const Scores *s, int c0) {
    const cell *p = UNIT == 1 ? (const cell *)s->f : (const cell *)s->cells;
    return (Left){p + c0 * KEYS, PANEL, UNIT};
}

/* The same with a row for each column, units along the n keys, which `pairs` is room for; a last
 * one is completed with zeros. */
static inline Left rows_of_columns(unit *pairs, const Scores *s, int c0, int n) {
    if (UNIT == 1) return (Left){(const cell *)s->f + c0 * KEYS, UNIT, PANEL};
#if defined UNITS_FOR_AMX
    Source from = {(const cell *)s->cells + c0 * KEYS, PANEL, 1};
    cell *rows = (cell *)(pairs + c0 * KEYS / UNIT);
    pack_left_rows(rows, KEYS, from, PANEL, n);
    return (Left){rows, KEYS, UNIT};
#else
    static const cell none[PANEL];
    const cell *row = (const cell *)s->cells + c0 * KEYS;
    unit *to = pairs + c0 * KEYS / UNIT;
    for (int i = 0; i < n; i += UNIT)
        for (int l = 0; l < PANEL; l += TILE_VEC)
            pack_row(to + i / UNIT * PANEL + l, row + i * PANEL + l,
                     i + 1 < n ? row + (i + 1) * PANEL + l : none);
    return (Left){(const cell *)to, UNIT, PANEL * UNIT};
#endif
}

/* Products of keys and queries become capped scores, hidden ones -infinity. */
static inline __attribute__((always_inline)) void cap_and_mask(float *scores, const Attention *t,
                                                               const Block *b, int c0, int p, int n,
                                                               bool capped, bool masked) {
    unsigned reach = t->a.window > 0 ? (unsigned)t->a.window : 1u << 31;
    float scale = t->a.scale, cap = t->a.cap, factor = capped ? scale / cap : scale;
    const int *position = b->position + c0;
    int lanes = lanes_of(b, c0);
    for (int i = 0; i < n; i++) {
        float *s = scores + i * PANEL;
#pragma omp simd
        for (int l = 0; l < lanes; l++) {
            float x = s[l] * factor;
            if (capped) x = cap * scalar_tanh(x);
            bool seen = (unsigned)(position[l] - p - i) < reach;
            s[l] = masked && !seen ? -INFINITY : x;
        }
    }
}

static inline void tile_scores(float *scores, Left keys, Panels queries, const Attention *t,
                               const Block *b, int p, int n) {
    multiply(scores, KEYS, keys, queries, n, b->wide, units(t->a.E), TILE_SET);
    unsigned reach = t->a.window > 0 ? (unsigned)t->a.window : 1u << 31;
    bool masked = p + n - 1 > b->position[0] || (unsigned)(b->last - p) >= reach;
    for (int c = 0; c < b->wide; c += PANEL, scores += KEYS * PANEL)
        if (t->a.cap > 0 && masked)
            cap_and_mask(scores, t, b, c, p, n, true, true);
        else if (t->a.cap > 0)
            cap_and_mask(scores, t, b, c, p, n, true, false);
        else if (masked)
            cap_and_mask(scores, t, b, c, p, n, false, true);
        else
            cap_and_mask(scores, t, b, c, p, n, false, false);
}

/* ------------------------------------------------------------------------------------ work -- */

/* The blocks of query rows of all segments, in order. Returns how many; list NULL only counts. */
typedef struct BlockStart {
    int seg, row;
} BlockStart;

static int list_blocks(BlockStart *list, const Attention *t) {
    int n = 0;
    for (int j = 0; j < t->nseg; j++)
        for (int row = 0; row < t->seg[j].len; row += t->rows) list[n++] = (BlockStart){j, row};
    return n;
}

/* Room for any such list: a segment has one block at most that is not full. */
static size_t starts_bytes(AttnShape a, int nseg, int N) {
    Attention t = attention_of(a, NULL, nseg, N);
    return (size_t)(N / t.rows + nseg) * sizeof(BlockStart);
}

/* Bytes rounded so that what follows stays aligned. */
static inline size_t aligned_bytes(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

#endif
