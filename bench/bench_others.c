/* bench_others.c - loss, sampling, SAE and factorisations at the shapes of Gemma-2 2B. */
#include <stdlib.h>

#include "bench/bench_ops.h"
#include "kernels/check.h"

static void loss(void) {
    enum { ROWS = 32 };
    size_t n = (size_t)ROWS * VOCAB;
    const Ops *op = bench_ex.op;
    int32_t target[ROWS];
    float u[ROWS];
    for (int i = 0; i < ROWS; i++) target[i] = 8000 * i, u[i] = (float)i / ROWS;
    float *logits = bench_f32(n, 20), *nll = bench_blank(sizeof u),
          *quantile = bench_copy(u, sizeof u);
    store *dlogits = bench_blank_store(n);
    int32_t *ids = bench_copy(target, sizeof target);
    if (bench_chosen("xent")) {
        op->xent(&bench_ex, dlogits, nll, logits, ids, ROWS, VOCAB, 30, 1);
        bench_expect_store("xent", dlogits, n);
        BENCH_OP("xent", "32x256000", (4.0 + (double)dtype_size(bench_ex.dtype)) * (double)n,
                 40.0 * (double)n,
                 op->xent(&bench_ex, dlogits, nll, logits, ids, ROWS, VOCAB, 30, 1));
    }
    if (bench_chosen("sample")) {
        BENCH_OP("sample", "32x256000 greedy", 8.0 * (double)n, 20.0 * (double)n,
                 op->sample(&bench_ex, ids, logits, NULL, ROWS, VOCAB, 30, (Sampling){0, 1, 0}));
        BENCH_OP("sample", "32x256000 top-p 0.9", 8.0 * (double)n, 20.0 * (double)n,
                 op->sample(&bench_ex, ids, logits, quantile, ROWS, VOCAB, 30,
                            (Sampling){0.7f, 0.9f, 0}));
    }
    BENCH_FREE(logits, nll, quantile, dlogits, ids);
}

static void sae(void) {
    if (!bench_chosen("sae")) return;
    enum { S = 16384, ROWS = 256 };
    const Ops *op = bench_ex.op;
    float *w = bench_f32((size_t)D * S, 0.02), *b = bench_f32(S, 0.1);
    float *threshold = bench_f32(S, 0.5);
    SaeEncoder encoder = {
        .w = w, .b = b, .threshold = threshold, .D = D, .S = S, .act = SAE_JUMPRELU};
    int32_t bin[ROWS];
    for (int i = 0; i < ROWS; i++) bin[i] = i % 2;
    store *x = bench_store((size_t)ROWS * D, 1);
    float *a = bench_blank((size_t)ROWS * S * 4), *weight = bench_f32(ROWS, 0), *max;
    int32_t *bins = bench_copy(bin, sizeof bin);
    size_t stats = (size_t)2 * S * 8;
    double *sum = exec_alloc(&bench_ex, stats, "bench"),
           *sumsq = exec_alloc(&bench_ex, stats, "bench");
    int64_t *fires = exec_alloc(&bench_ex, stats, "bench");
    max = exec_alloc(&bench_ex, stats, "bench");
    exec_zero(&bench_ex, sum, stats), exec_zero(&bench_ex, sumsq, stats);
    exec_zero(&bench_ex, fires, stats), exec_zero(&bench_ex, max, stats);
    op->sae_encode(&bench_ex, a, x, encoder, ROWS);
    bench_expect("sae_encode", a, (size_t)ROWS * S, DTYPE_F32);
    double flops = 2.0 * ROWS * D * S, bytes = 4.0 * D * S;
    BENCH_OP("sae_encode", "256x2304x16384", bytes + 4.0 * ROWS * S, flops,
             op->sae_encode(&bench_ex, a, x, encoder, ROWS));
    BENCH_OP("sae_stats", "256x2304x16384", bytes, flops,
             op->sae_stats(&bench_ex, sum, sumsq, fires, max, x, bins, weight, encoder, ROWS, 1));
    BENCH_FREE(w, b, threshold, x, a, weight, bins, sum, sumsq, fires, max);
}

static void factorisations(void) {
    enum { ROWS = 2304, RANK = 20 };
    size_t n = (size_t)ROWS * RANK;
    double *host = malloc(n * sizeof *host);
    CHECK(host, "out of memory");
    for (size_t i = 0; i < n; i++) host[i] = (double)(i * 7919 % 1009) / 1009 - 0.5;
    double *a = bench_copy(host, n * sizeof *a), *u = bench_copy(host, n * sizeof *u);
    double *s = bench_blank(RANK * sizeof *s), *vt = bench_blank(RANK * RANK * sizeof *vt);
    free(host);
    double work = 2.0 * ROWS * RANK * RANK;
    if (bench_chosen("svd"))
        BENCH_OP("svd", "2304x20", 16.0 * (double)n, 3 * work,
                 bench_ex.op->svd(&bench_ex, u, s, vt, a, ROWS, RANK));
    if (bench_chosen("qr"))
        BENCH_OP("qr", "2304x20", 16.0 * (double)n, 2 * work,
                 bench_ex.op->qr(&bench_ex, u, ROWS, RANK));
    BENCH_FREE(a, u, s, vt);
}

void bench_others(void) {
    loss();
    sae();
    factorisations();
}
