/* bench_others.c - loss, sampling, SAEs, choices and factorisations. */
#include "host/base/mem.h"
#include "host/bench_ops.h"

enum { FEATURES_CHOSEN = 20 }; /* of a layer */

static int head_rows(const OpsBench *o) {
    return o->N < HEAD_ROWS ? o->N : HEAD_ROWS;
}

static void loss(OpsBench *o) {
    int N = head_rows(o), V = o->c->V;
    size_t n = (size_t)N * (size_t)V;
    int32_t target[HEAD_ROWS];
    float u[HEAD_ROWS];
    for (int i = 0; i < N; i++) {
        target[i] = (int32_t)((int64_t)i * V / N);
        u[i] = (float)i / (float)N;
    }
    float *logits = bench_f32(o, n, 20), *nll = bench_blank(o, (size_t)N * sizeof *nll);
    float *quantile = bench_copy(o, u, (size_t)N * sizeof *u);
    store *dlogits = bench_blank_store(o, n);
    int32_t *ids = bench_copy(o, target, (size_t)N * sizeof *target);
    const Sampling greedy = {0, 1, 0}, nucleus = {0.7f, 0.9f, 0};
    float cap = o->c->final_cap;
    BENCH_OP(o, xent, OUT_STORE(dlogits, n), dlogits, nll, logits, ids, N, V, cap, 1);
    BENCH_OP(o, sample, OUT_F32(logits, n), ids, logits, NULL, N, V, cap, greedy);
    BENCH_OP(o, sample, OUT_F32(logits, n), ids, logits, quantile, N, V, cap, nucleus);
    BENCH_FREE(o, logits, nll, quantile, dlogits, ids);
}

static void sae(OpsBench *o) {
    int N = head_rows(o), D = o->c->D, S = FEATURES;
    float *w = bench_f32(o, (size_t)D * (size_t)S, 0.02), *b = bench_f32(o, (size_t)S, 0.1);
    float *threshold = bench_f32(o, (size_t)S, 0.5);
    SaeEncoder encoder = {
        .w = w, .b = b, .threshold = threshold, .D = D, .S = S, .act = SAE_JUMPRELU};
    int32_t bin[HEAD_ROWS];
    float one[HEAD_ROWS];
    for (int i = 0; i < N; i++) bin[i] = i % 2, one[i] = 1;
    size_t n = (size_t)N * (size_t)S, stats = 2 * (size_t)S * sizeof(double);
    store *x = bench_store(o, (size_t)N * (size_t)D, 1);
    float *a = bench_blank(o, n * sizeof *a);
    float *weight = bench_copy(o, one, (size_t)N * sizeof *one);
    int32_t *bins = bench_copy(o, bin, (size_t)N * sizeof *bin);
    void *sum[4]; /* sums, sums of squares, firing counts, maxima */
    for (int i = 0; i < 4; i++) {
        sum[i] = exec_alloc(o->ex, stats, "bench");
        exec_zero(o->ex, sum[i], stats);
    }
    BENCH_OP(o, sae_encode, OUT_F32(a, n), a, x, encoder, N);
    BENCH_OP(o, sae_stats, OUT_F32(sum[3], 2 * (size_t)S), sum[0], sum[1], sum[2], sum[3], x, bins,
             weight, encoder, N, 1);
    SaeEncoder fast = encoder;
    fast.products = SAE_FAST;
    BENCH_OP(o, sae_stats, OUT_F32(sum[3], 2 * (size_t)S), sum[0], sum[1], sum[2], sum[3], x, bins,
             weight, fast, N, 1);
    int32_t *chosen = bench_blank(o, FEATURES_CHOSEN * sizeof *chosen);
    BENCH_OP(o, top_k, OUT_OTHER, chosen, (double *)sum[0], S, FEATURES_CHOSEN);
    BENCH_FREE(o, w, b, threshold, x, a, weight, bins, chosen, sum[0], sum[1], sum[2], sum[3]);
}

/* The decoder directions of a layer's best features. */
static void factorisations(OpsBench *o) {
    int M = o->c->D, N = FEATURES_CHOSEN;
    size_t n = (size_t)M * (size_t)N, square = (size_t)N * (size_t)N;
    double *host = mem_array(n, sizeof *host);
    for (size_t i = 0; i < n; i++) host[i] = (double)(i * 7919 % 1009) / 1009 - 0.5;
    double *a = bench_copy(o, host, n * sizeof *a), *u = bench_copy(o, host, n * sizeof *u);
    double *s = bench_blank(o, (size_t)N * sizeof *s), *vt = bench_blank(o, square * sizeof *vt);
    free(host);
    BENCH_OP(o, qr, OUT_OTHER, u, M, N);
    BENCH_OP(o, svd, OUT_OTHER, u, s, vt, a, M, N);
    BENCH_FREE(o, a, u, s, vt);
}

const OpsCase bench_others[] = {{"xent sample", loss},
                                {"sae_encode sae_stats top_k", sae},
                                {"qr svd", factorisations},
                                {NULL, NULL}};
