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
    _Alignas(64) float queries[COLS * E_MAX], queries_t[E_MAX * COLS];
    float keys[KEYS * E_MAX], values[KEYS * E_MAX], out[COLS * E_MAX];
    float scores[KEYS * COLS], top[COLS], sum[COLS], shrink[COLS];
} Tiles;

/* Scores become weights relative to the new maximum; the old sums follow it. */
static void soften(Tiles *w, int n, int wide) {
    float next[COLS];
    memcpy(next, w->top, sizeof next);
    for (int i = 0; i < n; i++) {
        const float *s = w->scores + i * COLS;
#pragma omp simd
        for (int c = 0; c < wide; c++) next[c] = s[c] > next[c] ? s[c] : next[c];
    }
#pragma omp simd
    for (int c = 0; c < wide; c++) {
        w->shrink[c] = scalar_exp(w->top[c] - next[c]);
        w->sum[c] *= w->shrink[c];
        w->top[c] = next[c];
    }
    for (int i = 0; i < n; i++) {
        float *s = w->scores + i * COLS;
#pragma omp simd
        for (int c = 0; c < wide; c++) {
            s[c] = scalar_exp(s[c] - next[c]);
            w->sum[c] += s[c];
        }
    }
}

static void add_values(Tiles *w, const Attention *t, const Block *b, int n) {
    for (int c = 0; c < b->cols; c++) {
        if (w->shrink[c] == 1) continue;
        float *o = w->out + c * t->pad;
        for (int e = 0; e < t->pad; e++) o[e] *= w->shrink[c];
    }
    TileLeft weights = {w->scores, 1, COLS};
    tile_mul(w->out, (size_t)t->pad, weights, w->values, (size_t)t->pad, b->wide, t->pad, n,
             TILE_ADD);
}

static void block_fwd(Tiles *w, elem *o, float *lse, const elem *q, const elem *k, const elem *v,
                      const Attention *t, Block b) {
    load_columns(w->queries, q, t, &b, t->a.scale);
    tile_transpose(w->queries_t, COLS, w->queries, (size_t)t->pad, b.wide, t->a.E);
    for (int c = 0; c < b.wide; c++) w->top[c] = -FLT_MAX, w->sum[c] = 0;
    memset(w->out, 0, (size_t)b.wide * t->pad * sizeof *w->out);
    for (int p = b.first, n; p <= b.last; p += n) {
        n = keys_from(p, b.last + 1);
        load_keys(w->keys, k, t, &b, p, n);
        load_keys(w->values, v, t, &b, p, n);
        tile_scores(w->scores, w->keys, w->queries_t, t, &b, p, n);
        soften(w, n, b.wide);
        add_values(w, t, &b, n);
    }
    for (int c = 0; c < b.cols; c++) {
        size_t at = column_at(t, &b, c);
        lse[at / t->a.E] = w->top[c] + logf(w->sum[c]);
        for (int e = 0; e < t->a.E; e++) o[at + e] = elem_put(w->out[c * t->pad + e] / w->sum[c]);
    }
}

void TWIN(attn_fwd)(Exec *ex, store *o, float *lse, const store *q, const store *k, const store *v,
                    const Segment *seg, const Segment *host_seg, int nseg, int N, AttnShape a) {
    OP_GATE(ex);
    (void)seg;
    Attention t = attention_of(a, host_seg, nseg, N);
    int nblocks = list_blocks(NULL, &t), threads = omp_get_max_threads();
    size_t tiles = aligned_bytes(sizeof(Tiles)) * (size_t)threads;
    char *scratch = exec_scratch(ex, tiles + (size_t)nblocks * sizeof(BlockStart));
    BlockStart *start = (BlockStart *)(scratch + tiles);
    list_blocks(start, &t);
#pragma omp parallel for schedule(dynamic)
    for (int i = nblocks * t.groups - 1; i >= 0; i--) { /* late blocks see the most keys */
        BlockStart s = start[i / t.groups];
        block_fwd((Tiles *)scratch + omp_get_thread_num(), elems(o), lse, elems_const(q),
                  elems_const(k), elems_const(v), &t, block_of(&t, s.seg, s.row, i % t.groups));
    }
}
