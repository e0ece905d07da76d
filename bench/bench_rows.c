/* bench_rows.c - ops on rows and on elements at the shapes of Gemma-2 2B: bound by memory. */
#include "bench/bench_ops.h"

/* Bytes of n elements in storage. */
static double stored(double n) {
    return n * (double)dtype_size(bench_ex.dtype);
}

static void embedding(void) {
    if (!bench_chosen("embed_fwd") && !bench_chosen("gather_rows")) return;
    enum { V = 32000 };
    int32_t token[N];
    for (int i = 0; i < N; i++) token[i] = (int32_t)((int64_t)i * 7919 % V);
    store *table = bench_store((size_t)V * D, 1), *y = bench_blank_store((size_t)N * D);
    int32_t *ids = bench_copy(token, sizeof token);
    bench_ex.op->embed_fwd(&bench_ex, y, table, ids, N, D, V, 48);
    bench_expect_store("embed_fwd", y, (size_t)N * D);
    if (bench_chosen("embed_fwd"))
        BENCH_OP("embed_fwd", "1024x2304", stored(2.0 * N * D), 1.0 * N * D,
                 bench_ex.op->embed_fwd(&bench_ex, y, table, ids, N, D, V, 48));
    if (bench_chosen("gather_rows"))
        BENCH_OP("gather_rows", "1024x2304", stored(2.0 * N * D), 0,
                 bench_ex.op->gather_rows(&bench_ex, y, table, ids, N, D));
    if (bench_chosen("scatter_rows"))
        BENCH_OP("scatter_rows", "1024x2304", stored(2.0 * N * D), 0,
                 bench_ex.op->scatter_rows(&bench_ex, table, y, ids, N, D));
    BENCH_FREE(table, y, ids);
}

static void norms(void) {
    if (!bench_chosen("norm")) return;
    size_t n = (size_t)N * D;
    const Ops *op = bench_ex.op;
    store *x = bench_store(n, 1), *p = bench_store(n, 1), *w = bench_store(D, 1);
    store *dx = bench_store(n, 1), *y = bench_blank_store(n), *x2 = bench_blank_store(n);
    float *r = bench_blank(N * sizeof *r), *r2 = bench_blank(N * sizeof *r2);
    op->rmsnorm_fwd(&bench_ex, y, r, x, w, N, D, 1e-6f);
    bench_expect_store("rmsnorm_fwd", y, n);
    op->residual_norm_fwd(&bench_ex, x2, y, r, r2, x, p, w, w, N, D, 1e-6f);
    bench_expect_store("residual_norm_fwd", x2, n);
    BENCH_OP("rmsnorm_fwd", "1024x2304", stored(2.0 * N * D), 4.0 * N * D,
             op->rmsnorm_fwd(&bench_ex, y, r, x, w, N, D, 1e-6f));
    BENCH_OP("rmsnorm_bwd", "1024x2304", stored(4.0 * N * D), 8.0 * N * D,
             op->rmsnorm_bwd(&bench_ex, dx, y, x, w, r, N, D));
    BENCH_OP("residual_norm_fwd", "1024x2304", stored(4.0 * N * D), 9.0 * N * D,
             op->residual_norm_fwd(&bench_ex, x2, y, r, r2, x, p, w, w, N, D, 1e-6f));
    BENCH_OP("residual_norm_bwd", "1024x2304", stored(6.0 * N * D), 16.0 * N * D,
             op->residual_norm_bwd(&bench_ex, dx, y, p, x2, x, w, w, r, r2, N, D));
    BENCH_FREE(x, p, w, dx, y, x2, r, r2);
}

static void rope(void) {
    if (!bench_chosen("rope")) return;
    enum { P = 4096 };
    size_t n = (size_t)N * H * E;
    int32_t pos[N];
    for (int i = 0; i < N; i++) pos[i] = i;
    store *x = bench_store(n, 1);
    float *cos = bench_blank((size_t)P * E / 2 * 4), *sin = bench_blank((size_t)P * E / 2 * 4);
    int32_t *positions = bench_copy(pos, sizeof pos);
    bench_ex.op->rope_table(&bench_ex, cos, sin, P, E, 10000);
    bench_expect("rope_table", cos, (size_t)P * E / 2, DTYPE_F32);
    BENCH_OP("rope_fwd", "1024x8x256", stored(2.0 * (double)n) + 4.0 * N * E, 3.0 * (double)n,
             bench_ex.op->rope_fwd(&bench_ex, x, cos, sin, positions, N, H, E));
    BENCH_OP("rope_bwd", "1024x8x256", stored(2.0 * (double)n) + 4.0 * N * E, 3.0 * (double)n,
             bench_ex.op->rope_bwd(&bench_ex, x, cos, sin, positions, N, H, E));
    BENCH_FREE(x, cos, sin, positions);
}

static void geglu(void) {
    if (!bench_chosen("geglu")) return;
    size_t n = (size_t)N * F;
    store *gate = bench_store(n, 2), *up = bench_store(n, 1), *dy = bench_store(n, 1);
    store *y = bench_blank_store(n), *dgate = bench_blank_store(n), *dup = bench_blank_store(n);
    bench_ex.op->geglu_fwd(&bench_ex, y, gate, up, n);
    bench_expect_store("geglu_fwd", y, n);
    BENCH_OP("geglu_fwd", "1024x9216", stored(3.0 * (double)n), 10.0 * (double)n,
             bench_ex.op->geglu_fwd(&bench_ex, y, gate, up, n));
    BENCH_OP("geglu_bwd", "1024x9216", stored(5.0 * (double)n), 20.0 * (double)n,
             bench_ex.op->geglu_bwd(&bench_ex, dgate, dup, dy, gate, up, n));
    BENCH_FREE(gate, up, dy, y, dgate, dup);
}

static void elements(void) {
    enum { SIZE = 1 << 24 };
    const Ops *op = bench_ex.op;
    float *x = bench_f32(SIZE, 1), *m = bench_f32(SIZE, 0), *v = bench_f32(SIZE, 0);
    float *g = bench_f32(SIZE, 1);
    store *y = bench_blank_store(SIZE);
    double *sum = bench_copy(&(double){0}, sizeof *sum);
    AdamW adamw = {.lr = 1e-4f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .step = 1};
    op->cast(&bench_ex, y, x, SIZE);
    bench_expect_store("cast", y, SIZE);
    if (bench_chosen("cast"))
        BENCH_OP("cast", "16M", stored(SIZE) + 4.0 * SIZE, 0, op->cast(&bench_ex, y, x, SIZE));
    if (bench_chosen("uncast"))
        BENCH_OP("uncast", "16M", stored(SIZE) + 4.0 * SIZE, 0, op->uncast(&bench_ex, g, y, SIZE));
    if (bench_chosen("add"))
        BENCH_OP("add", "16M", 12.0 * SIZE, 2.0 * SIZE, op->add(&bench_ex, x, g, SIZE, 1e-6f));
    if (bench_chosen("sumsq"))
        BENCH_OP("sumsq", "16M", 4.0 * SIZE, 2.0 * SIZE, op->sumsq(&bench_ex, sum, x, SIZE));
    if (bench_chosen("adamw"))
        BENCH_OP("adamw", "16M", 28.0 * SIZE, 15.0 * SIZE,
                 op->adamw(&bench_ex, x, m, v, g, SIZE, 1, adamw));
    if (bench_chosen("find_bad"))
        BENCH_OP("find_bad", "16M", stored(SIZE), 0,
                 op->find_bad(&bench_ex, (int64_t *)sum, y, SIZE));
    BENCH_FREE(x, m, v, g, y, sum);
}

void bench_rows(void) {
    embedding();
    norms();
    rope();
    geglu();
    elements();
}
