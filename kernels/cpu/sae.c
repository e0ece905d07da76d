/* sae.c - SAE encoder and its streaming statistics. Contracts: ops.h.
 *
 * Activations exist only as blocks of rows by a panel of features, which is filled in the cache
 * (sae_tiles.h, sae_amx.h) and reduced at once. A thread owns whole panels, so rows are added in
 * order by construction. A pre-activation is summed in runs of dimensions: its bits depend on its
 * row and its feature alone, whatever the row's neighbours and the block's size. Weights come from
 * memory and into a panel once per block of rows. TopK needs whole rows of pre-activations before
 * any is known, so there a block is as many rows as all S features leave room for. */
#include <omp.h>

#include "kernels/cpu/tile.h"

/* ROW_BLOCK: a multiple of a tile's rows. A thread takes TURN panels at a time: which one comes
 * next is then known. */
enum { ROW_BLOCK = 512, TOPK_BLOCK = 128, TURN = 4 };

#if defined TILE_AMX
#include "kernels/cpu/sae_amx.h"
#else
#include "kernels/cpu/sae_tiles.h"
#endif

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
    Tiles *tiles; /* (threads) */
    cell *x;      /* a block of rows, as load_rows leaves them */
    float *act;   /* TopK: (TOPK_BLOCK,S) */
    int32_t *row; /* (N) */
} Buffers;

static size_t topk_room(const SaeEncoder *e) {
    return e->act == SAE_TOPK ? (size_t)TOPK_BLOCK * e->S : 0;
}

size_t TWIN(sae_stats_scratch)(Exec *ex, const SaeEncoder *e, int N) {
    (void)ex;
    return (size_t)omp_get_max_threads() * sizeof(Tiles) + rows_cells(e->D) * sizeof(cell) +
           topk_room(e) * sizeof(float) + (size_t)N * sizeof(int32_t);
}
size_t TWIN(sae_encode_scratch)(Exec *ex, const SaeEncoder *e, int N) {
    return TWIN(sae_stats_scratch)(ex, e, N);
}

static Buffers buffers(Exec *ex, const SaeEncoder *e, int N) {
    Buffers b;
    b.tiles = exec_scratch(ex, TWIN(sae_stats_scratch)(ex, e, N));
    b.x = (cell *)(b.tiles + omp_get_max_threads());
    b.act = (float *)(b.x + rows_cells(e->D));
    b.row = (int32_t *)(b.act + topk_room(e));
    return b;
}

static int tile_of(int at, int total, int tile) {
    return total - at < tile ? total - at : tile;
}

/* t->act (n,PANEL): pre-activations of the rows of x for features f0 .. f0+nf-1. */
static void pre_panel(Tiles *t, const cell *x, int n, const SaeEncoder *e, int f0, int nf) {
    panel_products(t, x, n, e, f0, nf);
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
