/* op_cost.c - a table of ops that prices each call before the device's own does the work. */
#include "host/bench/op_cost.h"

#include <stdio.h>

#include "data/base/mem.h"
#include "host/stage/flops.h"
#include "host/cli/print.h"
#include "kernels/device.h"

static op_sink *sink;
static void *sink_context;

static const Ops *real_ops(const Exec *ex) {
    return ex->device->ops[ex->dtype];
}

/* The twin of an op that watches. Its cost may use the arguments and `size`, of a storage element;
 * what follows the unit is the shape, as for printf. */
#define WATCHED(name, PARAMETERS, ARGUMENTS, BYTES, FLOPS, UNIT, ...)                  \
    static void watched_##name PARAMETERS {                                            \
        const double size = (double)dtype_size(ex->dtype);                             \
        const Ops *real = real_ops(ex);                                                \
        OpCall call = {.op = #name, .bytes = (BYTES), .flops = (FLOPS), .unit = UNIT}; \
        (void)size;                                                                    \
        snprintf(call.shape, sizeof call.shape, __VA_ARGS__);                          \
        double start = clock_seconds();                                                \
        if (real) real->name ARGUMENTS;                                                \
        exec_sync(ex);                                                                 \
        call.seconds = clock_seconds() - start;                                        \
        sink(sink_context, &call);                                                     \
    }

/* -------------------------------------------------------------------- rows and embedding -- */

WATCHED(embed_fwd,
        (Exec * ex, store *y, const store *table, const int32_t *token, int N, int D, int V,
         float scale),
        (ex, y, table, token, N, D, V, scale), 2.0 * N * D * size, 1.0 * N * D, UNIT_VECTOR,
        "%dx%d", N, D)
WATCHED(gather_rows, (Exec * ex, store *y, const store *x, const int32_t *row, int N, int D),
        (ex, y, x, row, N, D), 2.0 * N * D * size, 0, UNIT_VECTOR, "%dx%d", N, D)
WATCHED(scatter_rows, (Exec * ex, store *y, const store *x, const int32_t *row, int N, int D),
        (ex, y, x, row, N, D), 2.0 * N * D * size, 0, UNIT_VECTOR, "%dx%d", N, D)

/* -------------------------------------------------------------------------------- norms -- */

/* 1 + w is the same in every row, and counts nothing. */
WATCHED(rmsnorm_fwd,
        (Exec * ex, store *y, float *rstd, const store *x, const store *w, int N, int D, float eps),
        (ex, y, rstd, x, w, N, D, eps), 2.0 * N * D * size, 4.0 * N * D, UNIT_VECTOR, "%dx%d", N, D)
WATCHED(rmsnorm_bwd,
        (Exec * ex, store *dx, const store *dy, const store *x, const store *w, const float *rstd,
         int N, int D),
        (ex, dx, dy, x, w, rstd, N, D), 4.0 * N * D * size, 7.0 * N * D, UNIT_VECTOR, "%dx%d", N, D)
WATCHED(residual_norm_fwd,
        (Exec * ex, store *x2, store *y, float *rp, float *ry, const store *x, const store *p,
         const store *wp, const store *wy, int N, int D, float eps),
        (ex, x2, y, rp, ry, x, p, wp, wy, N, D, eps), 4.0 * N * D * size, 9.0 * N * D, UNIT_VECTOR,
        "%dx%d", N, D)
WATCHED(residual_norm_bwd,
        (Exec * ex, store *dx, store *dp, const store *dy, const store *x2, const store *p,
         const store *wp, const store *wy, const float *rp, const float *ry, int N, int D),
        (ex, dx, dp, dy, x2, p, wp, wy, rp, ry, N, D), 6.0 * N * D * size, 13.0 * N * D,
        UNIT_VECTOR, "%dx%d", N, D)

/* ----------------------------------------------------------------------------- attention -- */

/* The table's angles are made in double; what that costs is nobody's bound. */
WATCHED(rope_table, (Exec * ex, float *cos, float *sin, int P, int E, double theta),
        (ex, cos, sin, P, E, theta), 4.0 * P * E, 0, UNIT_VECTOR, "%dx%d", P, E)

/* Two elements are rotated in 6 operations; a row's angles serve all its heads. */
WATCHED(rope_fwd,
        (Exec * ex, store *x, const float *cos, const float *sin, const int32_t *pos, int N, int H,
         int E),
        (ex, x, cos, sin, pos, N, H, E), 2.0 * N * H * E * size + 4.0 * N * E, 3.0 * N * H * E,
        UNIT_VECTOR, "%dx%dx%d", N, H, E)
WATCHED(rope_bwd,
        (Exec * ex, store *dx, const float *cos, const float *sin, const int32_t *pos, int N, int H,
         int E),
        (ex, dx, cos, sin, pos, N, H, E), 2.0 * N * H * E * size + 4.0 * N * E, 3.0 * N * H * E,
        UNIT_VECTOR, "%dx%dx%d", N, H, E)

/* Per visible pair and query head: two products of E forward; backward the scores again, and a
 * product for each of dv, dw, dq and dk. */
WATCHED(attn_fwd,
        (Exec * ex, store *o, float *lse, const store *q, const store *k, const store *v,
         const Segment *seg, const Segment *host_seg, int nseg, int N, AttnShape a),
        (ex, o, lse, q, k, v, seg, host_seg, nseg, N, a), 2.0 * N * (a.H + a.K) * a.E * size,
        4.0 * a.E * a.H * flops_pairs(host_seg, nseg, a.window), UNIT_PRODUCT,
        "%d in %d rows H%d K%d E%d window %d", nseg, N, a.H, a.K, a.E, a.window)
WATCHED(attn_bwd,
        (Exec * ex, store *dq, store *dk, store *dv, const store *d_o, const store *q,
         const store *k, const store *v, const store *o, const float *lse, const Segment *seg,
         const Segment *host_seg, int nseg, int N, AttnShape a),
        (ex, dq, dk, dv, d_o, q, k, v, o, lse, seg, host_seg, nseg, N, a),
        4.0 * N * (a.H + a.K) * a.E * size,
        10.0 * a.E * a.H * flops_pairs(host_seg, nseg, a.window), UNIT_PRODUCT,
        "%d in %d rows H%d K%d E%d window %d", nseg, N, a.H, a.K, a.E, a.window)
WATCHED(kv_put,
        (Exec * ex, store *kcache, store *vcache, const store *k, const store *v,
         const int32_t *slot, const int32_t *pos, int N, int T, int W),
        (ex, kcache, vcache, k, v, slot, pos, N, T, W), 4.0 * N * W * size, 0, UNIT_VECTOR,
        "%d rows of %d", N, W)

/* Keys that the rows see, all together. Their lengths are known to the device alone. */
static double keys_seen(Exec *ex, const int32_t *len, int N, int window) {
    int32_t *host = mem_array((size_t)N, sizeof *host);
    double keys = 0;
    exec_copy_out(ex, host, len, (size_t)N * sizeof *host);
    for (int i = 0; i < N; i++) keys += window && host[i] > window ? window : host[i];
    free(host);
    return keys;
}

WATCHED(attn_decode,
        (Exec * ex, store *o, const store *q, const store *kcache, const store *vcache,
         const int32_t *slot, const int32_t *len, int N, int T, AttnShape a),
        (ex, o, q, kcache, vcache, slot, len, N, T, a),
        (2.0 * a.K * keys_seen(ex, len, N, a.window) + 2.0 * N * a.H) * a.E * size,
        4.0 * a.H * a.E * keys_seen(ex, len, N, a.window), UNIT_PRODUCT, "%d rows of %d keys", N, T)

/* ---------------------------------------------------------------------------------- ffn -- */

/* An exponential is some 20 operations, here and in the head. */
WATCHED(geglu_fwd, (Exec * ex, store *y, const store *gate, const store *up, size_t n),
        (ex, y, gate, up, n), 3.0 * (double)n * size, 30.0 * (double)n, UNIT_VECTOR, "%zu", n)
WATCHED(geglu_bwd,
        (Exec * ex, store *dgate, store *dup, const store *dy, const store *gate, const store *up,
         size_t n),
        (ex, dgate, dup, dy, gate, up, n), 5.0 * (double)n * size, 40.0 * (double)n, UNIT_VECTOR,
        "%zu", n)

/* ------------------------------------------------------------------------------- matmul -- */

static const char *const form_name[] = {
    [GEMM_NT] = "NT", [GEMM_NN] = "NN", [GEMM_NT_FEW] = "NT few"};

WATCHED(gemm,
        (Exec * ex, store *C, int ldc, const store *A, int lda, const store *B, int ldb, int M,
         int N, int K, enum GemmForm form, float alpha, float beta),
        (ex, C, ldc, A, lda, B, ldb, M, N, K, form, alpha, beta),
        ((double)M * K + (double)N * K + (1.0 + beta) * M * N) * size, 2.0 * M * N * K,
        UNIT_PRODUCT, "%s %dx%dx%d%s", form_name[form], M, N, K, beta == 0 ? "" : " +=")
WATCHED(gemm_f32,
        (Exec * ex, float *C, int ldc, const store *A, int lda, const store *B, int ldb, int M,
         int N, int K, enum GemmForm form, float alpha, float beta),
        (ex, C, ldc, A, lda, B, ldb, M, N, K, form, alpha, beta),
        ((double)M * K + (double)N * K) * size + (1.0 + beta) * M * N * 4, 2.0 * M * N * K,
        UNIT_PRODUCT, "%s %dx%dx%d%s", form_name[form], M, N, K, beta == 0 ? "" : " +=")
WATCHED(gemm_grad,
        (Exec * ex, float *C, const store *A, int lda, const store *B, int ldb, int T, int M, int N,
         float alpha),
        (ex, C, A, lda, B, ldb, T, M, N, alpha), (double)T *(M + N) * size + 8.0 * M * N,
        2.0 * T * M * N, UNIT_PRODUCT, "TN %dx%dx%d +=", M, N, T)

/* ---------------------------------------------------------------------- head and sampling -- */

/* A softcap, an exponential and their derivatives: some 40 operations. Sampling needs a softcap,
 * and an exponential only where something is drawn. */
WATCHED(xent,
        (Exec * ex, store *dlogits, float *nll, const float *logits, const int32_t *target,
         const float *weight, int N, int V, float cap),
        (ex, dlogits, nll, logits, target, weight, N, V, cap),
        (4 + (dlogits ? size : 0)) * (double)N * V, 40.0 * N * V, UNIT_VECTOR, "%dx%d%s", N, V,
        dlogits ? "" : " forward")
WATCHED(sample,
        (Exec * ex, int32_t *token, float *logits, const float *u, int N, int V, float cap,
         Sampling how),
        (ex, token, logits, u, N, V, cap, how), 8.0 * N * V,
        (how.temperature == 0 ? 20.0 : 40.0) * N * V, UNIT_VECTOR, "%dx%d%s", N, V,
        how.temperature == 0 ? " greedy" : "")

/* ------------------------------------------------------------------------------ training -- */

WATCHED(cast, (Exec * ex, store *y, const float *x, size_t n), (ex, y, x, n),
        (4 + size) * (double)n, 0, UNIT_VECTOR, "%zu", n)
WATCHED(uncast, (Exec * ex, float *y, const store *x, size_t n), (ex, y, x, n),
        (4 + size) * (double)n, 0, UNIT_VECTOR, "%zu", n)
WATCHED(add, (Exec * ex, float *y, const float *x, size_t n, float a), (ex, y, x, n, a),
        12.0 * (double)n, 2.0 * (double)n, UNIT_VECTOR, "%zu", n)
WATCHED(sumsq, (Exec * ex, double *sum, const float *x, const Span *span, int spans, size_t n),
        (ex, sum, x, span, spans, n), 4.0 * (double)n, 2.0 * (double)n, UNIT_VECTOR, "%zu", n)
WATCHED(adamw,
        (Exec * ex, float *p, float *m, float *v, const float *g, size_t n, float gscale, AdamW a),
        (ex, p, m, v, g, n, gscale, a), 28.0 * (double)n, 15.0 * (double)n, UNIT_VECTOR, "%zu", n)
WATCHED(find_bad, (Exec * ex, int64_t *index, const store *x, size_t n), (ex, index, x, n),
        (double)n *size, 0, UNIT_VECTOR, "%zu", n)
WATCHED(find_bad_f32, (Exec * ex, int64_t *index, const float *x, size_t n), (ex, index, x, n),
        4.0 * (double)n, 0, UNIT_VECTOR, "%zu", n)

/* ---------------------------------------------------------------------------------- SAE -- */

/* A CPU's are f32 products in both tables. */
static enum OpUnit sae_unit(const Exec *ex) {
    return ex->device == &device_cpu ? UNIT_VECTOR : UNIT_PRODUCT;
}
WATCHED(sae_encode, (Exec * ex, float *a, const store *x, SaeEncoder sae, int N),
        (ex, a, x, sae, N), (double)N *sae.D *size + 4.0 * sae.D * sae.S + 4.0 * N * sae.S,
        2.0 * N * sae.D * sae.S, sae_unit(ex), "%dx%dx%d%s", N, sae.S, sae.D,
        sae.products == SAE_FAST ? " fast" : "")
WATCHED(sae_stats,
        (Exec * ex, double *sum, double *sumsq, int64_t *fires, float *max, const store *x,
         const int32_t *bin, const float *weight, SaeEncoder sae, int N, int G),
        (ex, sum, sumsq, fires, max, x, bin, weight, sae, N, G),
        (double)N *sae.D *size + 4.0 * sae.D * sae.S, 2.0 * N * sae.D * sae.S, sae_unit(ex),
        "%dx%dx%d%s", N, sae.S, sae.D, sae.products == SAE_FAST ? " fast" : "")

/* ------------------------------------------------------------ choices and factorisations -- */

WATCHED(top_k, (Exec * ex, int32_t *index, const double *value, int n, int k),
        (ex, index, value, n, k), 8.0 * n + 4.0 * k, n, UNIT_VECTOR, "%d of %d", k, n)

static double smaller(int M, int N) {
    return M < N ? M : N;
}

/* An iterative SVD counts as a QR and what turns its R into factors. */
static double small_square(int M, int N) {
    return 2.0 * M * N * smaller(M, N);
}
WATCHED(svd, (Exec * ex, double *U, double *s, double *Vt, double *A, int M, int N),
        (ex, U, s, Vt, A, M, N), 8.0 * (M * (double)N + (M + (double)N) * smaller(M, N)),
        3 * small_square(M, N), UNIT_VECTOR, "%dx%d", M, N)
WATCHED(qr, (Exec * ex, double *A, int M, int N), (ex, A, M, N), 16.0 * M * N,
        2 * small_square(M, N), UNIT_VECTOR, "%dx%d", M, N)

static Ops watched = {
#define X(op) .op = watched_##op,
    SAILS_OPS(X)
#undef X
};

void op_cost_begin(Exec *ex, op_sink *to, void *context) {
    sink = to;
    sink_context = context;
    const Ops *real = real_ops(ex);
    watched.name = real ? real->name : ex->device->name;
    ex->op = &watched;
}

void op_cost_end(Exec *ex) {
    ex->op = real_ops(ex);
}
