/* attention.c - attention over packed documents, forward. Contracts: ops.h.
 *
 * Math, per column (query row and head): over blocks of keys, with m the running maximum,
 *   m' = max(m, max s);  p = exp(s - m');  l = l exp(m - m') + sum p;  o = o exp(m - m') + p v
 * and at the end o / l, lse = m + log l.
 * Work split: blocks of query rows, each with all the heads of one kv head. */
#include <float.h>
#include <omp.h>

#include "kernels/cpu/attention_tile.h"

/* One thread's tiles. `top`, `sum`: the running maximum and denominator of each column. */
typedef struct Tiles {
    _Alignas(64) elem rows[COLS * E_MAX]; /* of queries, then of keys, then of values */
    unit queries[COLS * E_MAX / UNIT], values[KEYS * E_MAX / UNIT];
    cell keys[CELLS_AS_THEY_LIE ? 1 : KEYS * E_MAX];
    Scores scores;
    _Alignas(64) unit pairs[PAIRS];
    _Alignas(64) float out[COLS * E_MAX];
    float top[COLS], sum[COLS], shrink[COLS];
} Tiles;

/* Scores of a panel become weights relative to the new maximum; the old sums follow it. */
static void soften(Tiles *w, const Block *b, int c0, int n) {
    float next[PANEL], *scores = w->scores.f + c0 * KEYS;
    float *top = w->top + c0, *sum = w->sum + c0, *shrink = w->shrink + c0;
    int lanes = lanes_of(b, c0);
    memcpy(next, top, sizeof next);
    for (int i = 0; i < n; i++) {
        const float *s = scores + i * PANEL;
#pragma omp simd
        for (int l = 0; l < lanes; l++) next[l] = s[l] > next[l] ? s[l] : next[l];
    }
#pragma omp simd
    for (int l = 0; l < lanes; l++) {
        shrink[l] = scalar_exp(top[l] - next[l]);
        sum[l] *= shrink[l];
        top[l] = next[l];
    }
    for (int i = 0; i < n; i++) {
        float *s = scores + i * PANEL;
#pragma omp simd
        for (int l = 0; l < lanes; l++) {
            s[l] = scalar_exp(s[l] - next[l]);
            sum[l] += s[l];
        }
    }
}

static void add_values(Tiles *w, const Attention *t, const Block *b, Panels values, int n) {
    round_scores(&w->scores, b, n);
    for (int c0 = 0; c0 < b->cols; c0 += PANEL) {
        int rows = b->cols - c0 < PANEL ? b->cols - c0 : PANEL;
        float *out = w->out + c0 * PANEL;
        for (int c = 0; c < rows; c++) {
            float shrink = w->shrink[c0 + c];
            if (shrink == 1) continue;
            for (int e = 0; e < t->a.E; e += PANEL)
                for (int l = 0; l < PANEL; l++) out[e * COLS + c * PANEL + l] *= shrink;
        }
        multiply(out, COLS, rows_of_columns(w->pairs, &w->scores, c0, n), values, rows, t->a.E,
                 units(n), TILE_ADD);
    }
}

static void block_fwd(Tiles *w, elem *o, float *lse, const elem *q, const elem *k, const elem *v,
                      const Attention *t, Block b) {
    Panels queries = across(w->queries, t), values = along(w->values, KEYS);
    load_columns(w->rows, q, t, &b);
    pack_transposed(queries, w->rows, t, b.wide);
    for (int c = 0; c < COLS; c++) w->top[c] = -FLT_MAX, w->sum[c] = 0;
    memset(w->out, 0, (size_t)tile_pad(t->a.E, PANEL) * COLS * sizeof *w->out);
    for (int p = b.first, n; p <= b.last; p += n) {
        n = keys_from(p, b.last + 1);
        load_keys(w->rows, k, t, &b, p, n);
        tile_scores(w->scores.f, left_rows(w->keys, w->rows, t, n), queries, t, &b, p, n);
        load_keys(w->rows, v, t, &b, p, n);
        pack_straight(values, w->rows, t, n);
        for (int c0 = 0; c0 < b.wide; c0 += PANEL) soften(w, &b, c0, n);
        add_values(w, t, &b, values, n);
    }
    for (int c = 0; c < b.cols; c++) {
        size_t at = column_at(t, &b, c);
        lse[at / t->a.E] = w->top[c] + logf(w->sum[c]);
        put_row(o + at, w->out + c * PANEL, t, 1 / w->sum[c]);
    }
}

static size_t tiles_bytes(void) {
    return aligned_bytes(sizeof(Tiles)) * (size_t)omp_get_max_threads();
}

size_t TWIN(attn_fwd_scratch)(Exec *ex, int nseg, int N, AttnShape a) {
    (void)ex;
    return tiles_bytes() + starts_bytes(a, nseg, N);
}

void TWIN(attn_fwd)(Exec *ex, store *o, float *lse, const store *q, const store *k, const store *v,
                    const Segment *seg, const Segment *host_seg, int nseg, int N, AttnShape a) {
    OP_BEGIN(ex, attn_fwd, host_seg, nseg, N, a);
    (void)seg;
    Attention t = attention_of(a, host_seg, nseg, N);
    char *scratch = exec_scratch(ex, TWIN(attn_fwd_scratch)(ex, nseg, N, a));
    BlockStart *start = (BlockStart *)(scratch + tiles_bytes());
    int nblocks = list_blocks(start, &t);
#pragma omp parallel for schedule(dynamic)
    for (int i = nblocks * t.groups - 1; i >= 0; i--) { /* late blocks see the most keys */
        BlockStart s = start[i / t.groups];
        block_fwd((Tiles *)scratch + omp_get_thread_num(), elems(o), lse, elems_const(q),
                  elems_const(k), elems_const(v), &t, block_of(&t, s.seg, s.row, i % t.groups));
    }
}
