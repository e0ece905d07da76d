/* bench_others.c - loss, sampling, SAEs, choices and factorisations. */
#include "data/base/mem.h"
#include "host/bench/bench_ops.h"

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
    float *logits, *nll, *quantile, *weight, *entropy, *mean, *hit;
    store *dlogits;
    int32_t *ids;
    bench_f32(o, &logits, n, 20);
    bench_blank(o, &nll, (size_t)N * sizeof *nll);
    bench_copy(o, &quantile, u, (size_t)N * sizeof *u);
    bench_f32(o, &weight, (size_t)N, 1);
    bench_blank(o, &entropy, (size_t)N * sizeof *entropy);
    bench_blank(o, &mean, (size_t)N * sizeof *mean);
    bench_blank(o, &hit, (size_t)N * sizeof *hit);
    bench_blank_store(o, &dlogits, n);
    bench_copy(o, &ids, target, (size_t)N * sizeof *target);
    const Sampling greedy = {0, 1, 0}, nucleus = {0.7f, 0.9f, 0};
    float cap = o->c->final_cap;
    BENCH_OP(o, xent, OUT_STORE(dlogits, n), dlogits, nll, logits, ids, weight, N, V, cap);
    BENCH_OP(o, logit_facts, OUT_F32(entropy, (size_t)N), entropy, mean, hit, logits, ids, N, V,
             cap);
    BENCH_OP(o, sample, OUT_F32(logits, n), ids, logits, NULL, N, V, cap, greedy);
    BENCH_OP(o, sample, OUT_F32(logits, n), ids, logits, quantile, N, V, cap, nucleus);
    bench_free(o);
}

static void sae(OpsBench *o) {
    int N = head_rows(o), D = o->c->D, S = FEATURES;
    SaeEncoder encoder = {.D = D, .S = S, .act = SAE_JUMPRELU};
    bench_f32(o, &encoder.w, (size_t)D * (size_t)S, 0.02);
    bench_f32(o, &encoder.b, (size_t)S, 0.1);
    bench_f32(o, &encoder.threshold, (size_t)S, 0.5);
    int32_t bin[HEAD_ROWS];
    float one[HEAD_ROWS];
    for (int i = 0; i < N; i++) bin[i] = i % 2, one[i] = 1;
    size_t n = (size_t)N * (size_t)S, stats = 2 * (size_t)S * sizeof(double);
    store *x;
    float *a, *weight;
    int32_t *bins, *chosen;
    bench_store(o, &x, (size_t)N * (size_t)D, 1);
    bench_blank(o, &a, n * sizeof *a);
    bench_copy(o, &weight, one, (size_t)N * sizeof *one);
    bench_copy(o, &bins, bin, (size_t)N * sizeof *bin);
    bench_blank(o, &chosen, FEATURES_CHOSEN * sizeof *chosen);
    double *sum, *sumsq;
    int64_t *fires;
    float *max;
    bench_zero(o, &sum, stats);
    bench_zero(o, &sumsq, stats);
    bench_zero(o, &fires, stats);
    bench_zero(o, &max, stats);
    BENCH_OP(o, sae_encode, OUT_F32(a, n), a, x, encoder, N);
    for (int fast = 0; fast < 2; fast++) {
        encoder.products = fast ? SAE_FAST : SAE_EXACT;
        BENCH_OP(o, sae_stats, OUT_F32(max, 2 * (size_t)S), sum, sumsq, fires, max, x, bins, weight,
                 encoder, N, 1);
    }
    BENCH_OP(o, top_k, OUT_OTHER, chosen, sum, S, FEATURES_CHOSEN);
    bench_free(o);
}

/* The decoder directions of a layer's best features. */
static void factorisations(OpsBench *o) {
    int M = o->c->D, N = FEATURES_CHOSEN;
    size_t n = (size_t)M * (size_t)N, square = (size_t)N * (size_t)N;
    double *host = mem_array(n, sizeof *host);
    for (size_t i = 0; i < n; i++) host[i] = (double)(i * 7919 % 1009) / 1009 - 0.5;
    double *a, *u, *s, *vt;
    bench_copy(o, &a, host, n * sizeof *a);
    bench_copy(o, &u, host, n * sizeof *u);
    bench_blank(o, &s, (size_t)N * sizeof *s);
    bench_blank(o, &vt, square * sizeof *vt);
    free(host);
    BENCH_OP(o, qr, OUT_OTHER, u, M, N);
    BENCH_OP(o, svd, OUT_OTHER, u, s, vt, a, M, N);
    bench_free(o);
}

/* The gradient of one factor B, which is to leave the outputs along some directions alone. */
static void projection(OpsBench *o) {
    enum { DIRECTIONS = 32 };
    int n = o->c->D;
    size_t all = (size_t)n * RANK;
    float *y, *x, *v;
    bench_blank(o, &y, all * sizeof *y);
    bench_f32(o, &x, all, 1);
    bench_f32(o, &v, (size_t)n * DIRECTIONS, 0.02);
    BENCH_OP(o, project_out, OUT_F32(y, all), y, x, v, n, RANK, DIRECTIONS);
    bench_free(o);
}

const OpsCase bench_others[] = {{"xent logit_facts sample", loss},
                                {"sae_encode sae_stats top_k", sae},
                                {"qr svd", factorisations},
                                {"project_out", projection},
                                {NULL, NULL}};
