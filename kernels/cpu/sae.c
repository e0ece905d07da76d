/* sae.c - SAE encoder and its streaming statistics. Contracts: ops.h.
 *
 * Activations exist only as tiles of ROW_TILE rows by some features: a GEMM fills a tile in cache
 * and it is reduced at once. A thread owns whole feature tiles, so rows are added in order by
 * construction. GEMMs always have ROW_TILE rows, short tiles padded with zeros: oneDNN may choose
 * another order of summation for another row count, and a row's bits must not depend on its
 * neighbours (statistics of two halves add up to those of the whole). Rows are taken in blocks so
 * that the weights come from memory once per block. TopK needs whole rows of pre-activations
 * before any is known, so there a block is one tile of rows with all S features. Fast products are
 * exact ones of rounded operands: nothing is gained here but a GPU's numbers. */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include "kernels/cpu/twin.h"

enum { ROW_TILE = 64, ROW_BLOCK = 512, FEATURE_TILE = 512, FEATURE_TILE_SMALL = 64 };

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

/* Scratch of one call. */
typedef struct Buffers {
    int32_t *row; /* (N) */
    float *x;     /* (ROW_BLOCK,D): a block of rows, padded with zeros to a whole tile */
    float *act;   /* TopK: (ROW_TILE,S); else (threads,ROW_TILE,tile) */
    float *w;     /* (threads,D,tile): rounded weights of fast products */
    int tile;     /* features per tile: from the encoder alone: bits do not depend on threads */
} Buffers;

static size_t round64(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static Buffers buffers(Exec *ex, const SaeEncoder *e, int N) {
    Buffers b;
    bool wide = e->S >= 16 * FEATURE_TILE && e->products == SAE_EXACT;
    b.tile = wide ? FEATURE_TILE : FEATURE_TILE_SMALL;
    size_t row = round64((size_t)N * sizeof *b.row), x = (size_t)ROW_BLOCK * e->D * sizeof *b.x;
    size_t tiles = (size_t)omp_get_max_threads() * b.tile;
    size_t act = round64(ROW_TILE * (e->act == SAE_TOPK ? (size_t)e->S : tiles) * sizeof *b.act);
    size_t w = e->products == SAE_FAST ? tiles * e->D * sizeof *b.w : 0;
    char *p = exec_scratch(ex, row + x + act + w);
    b.row = (int32_t *)p;
    b.x = (float *)(p + row);
    b.act = (float *)(p + row + x);
    b.w = (float *)(p + row + x + act);
    return b;
}

static float to_bf16(float v) {
    return bf16_to_f32(bf16_from_f32(v));
}

static void load_rows(float *to, const store *x, const int32_t *row, int first, int n,
                      const SaeEncoder *e) {
    int D = e->D, fast = e->products == SAE_FAST;
    int padded = (n + ROW_TILE - 1) / ROW_TILE * ROW_TILE;
#pragma omp parallel for
    for (int i = 0; i < padded; i++) {
        float *r = to + (size_t)i * D;
        size_t from = i >= n ? 0 : row ? (size_t)row[first + i] : (size_t)(first + i);
        const elem *src = elems_const(x) + from * D;
#pragma omp simd
        for (int d = 0; d < D; d++) r[d] = i < n ? elem_get(src[d]) : 0;
        if (!fast) continue;
#pragma omp simd
        for (int d = 0; d < D; d++) r[d] = to_bf16(r[d]);
    }
}

/* Weights of features f0 .. f0+nf-1 as products take them: (D,nf) with row length ld. */
typedef struct Weights {
    const float *w;
    int ld;
} Weights;

static Weights weights(const Buffers *b, const SaeEncoder *e, int f0, int nf) {
    if (e->products == SAE_EXACT) return (Weights){e->w + f0, e->S};
    float *mine = b->w + (size_t)omp_get_thread_num() * e->D * b->tile;
    for (int d = 0; d < e->D; d++) {
        const float *from = e->w + (size_t)d * e->S + f0;
        float *to = mine + (size_t)d * nf;
#pragma omp simd
        for (int s = 0; s < nf; s++) to[s] = to_bf16(from[s]);
    }
    return (Weights){mine, nf};
}

/* act (ROW_TILE,nf) with row length ld: pre-activations of features f0 .. f0+nf-1. Within a
 * parallel region oneDNN stays on the calling thread. */
static void pre_tile(float *act, int ld, const float *x, Weights w, const SaeEncoder *e, int f0,
                     int nf) {
    dnnl_status_t status =
        dnnl_sgemm('N', 'N', ROW_TILE, nf, e->D, 1, x, e->D, w.w, w.ld, 0, act, ld);
    CHECK(status == dnnl_success, "sgemm of %d x %d x %d: %d", ROW_TILE, nf, e->D, status);
    for (int i = 0; i < ROW_TILE; i++) {
        float *r = act + (size_t)i * ld;
#pragma omp simd
        for (int s = 0; s < nf; s++) r[s] += e->b[f0 + s];
    }
}

/* Written as "below: zero" so that NaN stays and shows in the sums. */
static void gate_tile(float *act, int ld, const SaeEncoder *e, int f0, int nf) {
    for (int i = 0; i < ROW_TILE; i++) {
        float *r = act + (size_t)i * ld;
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

/* Takes n rows of a tile, the first being counted row number n0. */
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

static int tile_of(int at, int total, int tile) {
    return total - at < tile ? total - at : tile;
}

/* One block of at most ROW_BLOCK rows, feature tile by feature tile. */
static void dense_block(const Sink *sink, const Buffers *b, const SaeEncoder *e, int first, int n) {
#pragma omp parallel for schedule(dynamic, 1)
    for (int f0 = 0; f0 < e->S; f0 += b->tile) {
        int nf = tile_of(f0, e->S, b->tile);
        float *act = b->act + (size_t)omp_get_thread_num() * ROW_TILE * b->tile;
        Weights w = weights(b, e, f0, nf);
        for (int i = 0; i < n; i += ROW_TILE) {
            pre_tile(act, nf, b->x + (size_t)i * e->D, w, e, f0, nf);
            gate_tile(act, nf, e, f0, nf);
            drain(sink, act, nf, first + i, tile_of(i, n, ROW_TILE), f0, nf);
        }
    }
}

/* One tile of rows: all pre-activations, then the selection, then the features' owners. */
static void topk_block(const Sink *sink, const Buffers *b, const SaeEncoder *e, int first, int n) {
    int S = e->S;
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 1)
        for (int f0 = 0; f0 < S; f0 += b->tile) {
            int nf = tile_of(f0, S, b->tile);
            pre_tile(b->act + f0, S, b->x, weights(b, e, f0, nf), e, f0, nf);
        }
#pragma omp for schedule(dynamic, 1)
        for (int i = 0; i < n; i++) keep_topk(b->act + (size_t)i * S, S, e->topk);
#pragma omp for
        for (int f0 = 0; f0 < S; f0 += b->tile)
            drain(sink, b->act + f0, S, first, n, f0, tile_of(f0, S, b->tile));
    }
}

static void check_encoder(const SaeEncoder *e, int N) {
    CHECK(N >= 0 && e->D > 0 && e->S > 0 && e->w && e->b, "N=%d D=%d S=%d", N, e->D, e->S);
    CHECK((e->act == SAE_JUMPRELU) == (e->threshold != NULL),
          "expected thresholds with JumpReLU alone, activation %d", e->act);
    CHECK(e->act != SAE_TOPK || (e->topk > 0 && e->topk <= e->S), "topk %d of %d", e->topk, e->S);
}

static void run(const Sink *sink, const Buffers *b, const store *x, const SaeEncoder *e, int N) {
    int block = e->act == SAE_TOPK ? ROW_TILE : ROW_BLOCK;
    for (int first = 0; first < N; first += block) {
        int n = tile_of(first, N, block);
        load_rows(b->x, x, sink->row, first, n, e);
        (e->act == SAE_TOPK ? topk_block : dense_block)(sink, b, e, first, n);
    }
}

void TWIN(sae_encode)(Exec *ex, float *a, const store *x, SaeEncoder sae, int N) {
    OP_GATE(ex);
    check_encoder(&sae, N);
    Buffers b = buffers(ex, &sae, N);
    Sink sink = {.a = a, .S = sae.S};
    run(&sink, &b, x, &sae, N);
}

void TWIN(sae_stats)(Exec *ex, double *sum, double *sumsq, int64_t *fires, float *max,
                     const store *x, const int32_t *bin, const float *weight, SaeEncoder sae, int N,
                     int G) {
    OP_GATE(ex);
    check_encoder(&sae, N);
    CHECK(G > 0, "G=%d", G);
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
