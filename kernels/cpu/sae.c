/* sae.c - SAE encoder and its streaming statistics. Contracts: ops.h.
 *
 * Activations exist only as blocks of rows by a panel of features: f32 tiles (gemm_kernel.h) fill a
 * block in the cache and it is reduced at once. A thread owns whole panels, so rows are added in
 * order by construction. A pre-activation is summed in runs of DEPTH dimensions: its bits depend on
 * its row and its feature alone, whatever the row's neighbours and the block's size. Weights come
 * from memory and into a panel once per block of rows. TopK needs whole rows of pre-activations
 * before any is known, so there a block is as many rows as all S features leave room for. Fast
 * products are f32 ones of rounded operands, which are exact: nothing is gained here but a GPU's
 * numbers. */
#include <omp.h>

#define TILES_OF_F32
#include "kernels/cpu/gemm_pack.h"

/* A thread takes TURN panels at a time: which one comes next is then known. */
enum { ROW_BLOCK = 512, TOPK_BLOCK = 128, TURN = 4 };

/* Where activations go: to `a` as they are, or into the statistics. */
typedef struct Sink {
    float *a;
    double *sum, *sumsq;
    int64_t *fires;
    float *max;
    const int32_t *bin, *row; /* row: the counted rows, in order; NULL: all */
    const float *weight;
    int G, S;
} Sink;

/* What one thread needs. */
typedef struct Tiles {
    _Alignas(64) float w[DEPTH * PANEL]; /* weights of a panel, one run */
    float act[ROW_BLOCK * PANEL];
} Tiles;

/* Scratch of one call. */
typedef struct Buffers {
    Tiles *tiles; /* (threads) */
    float *x;     /* (ROW_BLOCK,D): a block of rows */
    float *act;   /* TopK: (TOPK_BLOCK,S) */
    int32_t *row; /* (N) */
} Buffers;

static size_t topk_room(const SaeEncoder *e) {
    return e->act == SAE_TOPK ? (size_t)TOPK_BLOCK * e->S : 0;
}

size_t TWIN(sae_stats_scratch)(Exec *ex, const SaeEncoder *e, int N) {
    size_t floats = (size_t)ROW_BLOCK * e->D + topk_room(e);
    (void)ex;
    return (size_t)omp_get_max_threads() * sizeof(Tiles) + floats * sizeof(float) +
           (size_t)N * sizeof(int32_t);
}
size_t TWIN(sae_encode_scratch)(Exec *ex, const SaeEncoder *e, int N) {
    return TWIN(sae_stats_scratch)(ex, e, N);
}

static Buffers buffers(Exec *ex, const SaeEncoder *e, int N) {
    Buffers b;
    b.tiles = exec_scratch(ex, TWIN(sae_stats_scratch)(ex, e, N));
    b.x = (float *)(b.tiles + omp_get_max_threads());
    b.act = b.x + (size_t)ROW_BLOCK * e->D;
    b.row = (int32_t *)(b.act + topk_room(e));
    return b;
}

static float to_bf16(float v) {
    return bf16_to_f32(bf16_from_f32(v));
}

static void load_rows(float *to, const store *x, const int32_t *row, int first, int n,
                      const SaeEncoder *e) {
    int D = e->D, fast = e->products == SAE_FAST;
#pragma omp parallel for
    for (int i = 0; i < n; i++) {
        float *r = to + (size_t)i * D;
        size_t from = row ? (size_t)row[first + i] : (size_t)(first + i);
        const elem *src = elems_const(x) + from * D;
#pragma omp simd
        for (int d = 0; d < D; d++) r[d] = elem_get(src[d]);
        if (!fast) continue;
#pragma omp simd
        for (int d = 0; d < D; d++) r[d] = to_bf16(r[d]);
    }
}

static int tile_of(int at, int total, int tile) {
    return total - at < tile ? total - at : tile;
}

/* One run of all rows. Meanwhile the memory is asked for the rows of w from `next` on, which are
 * packed after it: no processor foresees them, so far apart. NULL: unknown. */
static void run_rows(Tiles *t, const float *x, int n, const SaeEncoder *e, int depth,
                     enum TileOut out, int vecs, const float *next) {
    size_t step = (size_t)e->S * sizeof *next;
    int asked = 0;
    for (int i = 0, rows; i < n; i += rows) {
        Left left = {x + (size_t)i * e->D, (size_t)e->D, 1};
        Soon soon = soon_none(t->w);
        if (next && asked < DEPTH) soon = (Soon){(const char *)next + asked * step, step};
        asked += tile_pad(depth, LINE) / LINE * SOON_ROWS;
        rows = tile_rows(t->act + i * PANEL, left, t->w, depth, out, soon, n - i, vecs);
    }
}

/* t->act (n,PANEL): pre-activations of the rows of x for features f0 .. f0+nf-1. */
static void pre_panel(Tiles *t, const float *x, int n, const SaeEncoder *e, int f0, int nf) {
    Source w = {e->w, (size_t)e->S, 1};
    int vecs = (nf + TILE_VEC - 1) / TILE_VEC;
    for (int d = 0, depth; d < e->D; d += depth) {
        depth = tile_of(d, e->D, DEPTH);
        pack_panel(t->w, w, f0, nf, d, depth);
        if (e->products == SAE_FAST) {
#pragma omp simd
            for (int i = 0; i < depth * PANEL; i++) t->w[i] = to_bf16(t->w[i]);
        }
        const float *next = f0 + PANEL < e->S ? e->w + f0 + PANEL : NULL;
        if (d + depth < e->D) next = e->w + (size_t)(d + depth) * e->S + f0;
        run_rows(t, x + d, n, e, depth, d ? TILE_ADD : TILE_SET, vecs, next);
    }
    for (int i = 0; i < n; i++) {
        float *r = t->act + i * PANEL;
#pragma omp simd
        for (int s = 0; s < nf; s++) r[s] += e->b[f0 + s];
    }
}

/* Written as "below: zero" so that NaN stays and shows in the sums. */
static void gate(float *act, int n, const SaeEncoder *e, int f0, int nf) {
    for (int i = 0; i < n; i++) {
        float *r = act + i * PANEL;
        if (e->act == SAE_JUMPRELU) {
            const float *threshold = e->threshold + f0;
#pragma omp simd
            for (int s = 0; s < nf; s++) r[s] = r[s] <= threshold[s] ? 0 : r[s];
        } else {
#pragma omp simd
            for (int s = 0; s < nf; s++) r[s] = r[s] <= 0 ? 0 : r[s];
        }
    }
}

/* The bits of a positive float order as the float does; NaN of either sign comes last. */
static uint32_t order_key(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u & 0x7fffffffu;
}

/* Keeps the k largest of a row's positive values, ties by index, and zeroes the rest. The k-th
 * largest is found by its bits, from the highest byte down: each pass counts the next byte among
 * the values that share the bytes already known. */
static void keep_topk(float *r, int S, int k) {
    uint32_t known = 0;
    int left = k; /* wanted among the values that share `known` */
    for (int shift = 24; shift >= 0; shift -= 8) {
        int count[256] = {0}, positive = 0;
        uint32_t mask = shift == 24 ? 0 : ~0u << (shift + 8);
        for (int s = 0; s < S; s++) {
            uint32_t u = order_key(r[s]);
            int in = !(r[s] <= 0) && (u & mask) == known;
            count[u >> shift & 255] += in;
            positive += in;
        }
        if (shift == 24 && positive <= k) left = positive;
        if (left == 0) break;
        int byte = 255;
        while (count[byte] < left) left -= count[byte--];
        known |= (uint32_t)byte << shift;
    }
    for (int s = 0; s < S; s++) {
        uint32_t u = order_key(r[s]);
        int keep = !(r[s] <= 0) && (u > known || (u == known && left > 0));
        if (keep && u == known) left--;
        if (!keep) r[s] = 0;
    }
}

/* Takes n rows of a block, the first being counted row number n0. */
static void drain(const Sink *k, const float *act, int ld, int n0, int n, int f0, int nf) {
    for (int i = 0; i < n; i++) {
        const float *r = act + (size_t)i * ld;
        size_t row = k->row ? (size_t)k->row[n0 + i] : (size_t)(n0 + i);
        if (k->a) {
            memcpy(k->a + row * k->S + f0, r, (size_t)nf * sizeof *r);
            continue;
        }
        size_t corpus = (size_t)(k->bin[row] / k->G) * k->S + f0;
        double *sum = k->sum + (size_t)k->bin[row] * k->S + f0, *sumsq = k->sumsq + corpus;
        int64_t *fires = k->fires + corpus;
        float *max = k->max + corpus;
        double weight = k->weight[row];
#pragma omp simd
        for (int s = 0; s < nf; s++) {
            double wa = weight * r[s];
            sum[s] += wa;
            sumsq[s] += wa * r[s];
            fires[s] += r[s] > 0;
            max[s] = r[s] > max[s] ? r[s] : max[s];
        }
    }
}

/* One block of at most ROW_BLOCK rows, panel by panel. */
static void dense_block(const Sink *sink, const Buffers *b, const SaeEncoder *e, int first, int n) {
#pragma omp parallel for schedule(dynamic, TURN)
    for (int f0 = 0; f0 < e->S; f0 += PANEL) {
        Tiles *t = b->tiles + omp_get_thread_num();
        int nf = tile_of(f0, e->S, PANEL);
        pre_panel(t, b->x, n, e, f0, nf);
        gate(t->act, n, e, f0, nf);
        drain(sink, t->act, PANEL, first, n, f0, nf);
    }
}

/* At most TOPK_BLOCK rows: all pre-activations, then the selection, then the features' owners. */
static void topk_block(const Sink *sink, const Buffers *b, const SaeEncoder *e, int first, int n) {
    int S = e->S;
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, TURN)
        for (int f0 = 0; f0 < S; f0 += PANEL) {
            Tiles *t = b->tiles + omp_get_thread_num();
            int nf = tile_of(f0, S, PANEL);
            pre_panel(t, b->x, n, e, f0, nf);
            for (int i = 0; i < n; i++)
                memcpy(b->act + (size_t)i * S + f0, t->act + i * PANEL,
                       (size_t)nf * sizeof *t->act);
        }
#pragma omp for schedule(dynamic, 1)
        for (int i = 0; i < n; i++) keep_topk(b->act + (size_t)i * S, S, e->topk);
#pragma omp for
        for (int f0 = 0; f0 < S; f0 += PANEL)
            drain(sink, b->act + f0, S, first, n, f0, tile_of(f0, S, PANEL));
    }
}

static void run(const Sink *sink, const Buffers *b, const store *x, const SaeEncoder *e, int N) {
    int block = e->act == SAE_TOPK ? TOPK_BLOCK : ROW_BLOCK;
    for (int first = 0; first < N; first += block) {
        int n = tile_of(first, N, block);
        load_rows(b->x, x, sink->row, first, n, e);
        (e->act == SAE_TOPK ? topk_block : dense_block)(sink, b, e, first, n);
    }
}

void TWIN(sae_encode)(Exec *ex, float *a, const store *x, SaeEncoder sae, int N) {
    OP_BEGIN(ex, sae_encode, UNIT_VECTOR, &sae, N);
    Buffers b = buffers(ex, &sae, N);
    Sink sink = {.a = a, .S = sae.S};
    run(&sink, &b, x, &sae, N);
}

void TWIN(sae_stats)(Exec *ex, double *sum, double *sumsq, int64_t *fires, float *max,
                     const store *x, const int32_t *bin, const float *weight, SaeEncoder sae, int N,
                     int G) {
    OP_BEGIN(ex, sae_stats, UNIT_VECTOR, &sae, N, G);
    Buffers b = buffers(ex, &sae, N);
    int counted = 0;
    for (int n = 0; n < N; n++) {
        CHECK(bin[n] >= -1 && bin[n] < 2 * G, "expected a bin in [-1,%d), bin[%d] is %d", 2 * G, n,
              bin[n]);
        if (bin[n] >= 0) b.row[counted++] = n;
    }
    Sink sink = {.sum = sum,
                 .sumsq = sumsq,
                 .fires = fires,
                 .max = max,
                 .bin = bin,
                 .row = b.row,
                 .weight = weight,
                 .G = G,
                 .S = sae.S};
    run(&sink, &b, x, &sae, counted);
}
