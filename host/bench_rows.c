/* bench_rows.c - ops on rows and on elements, bound by memory. */
#include "host/base/mem.h"
#include "host/bench_ops.h"

static int32_t *row_numbers(OpsBench *o, int stride, int below) {
    int32_t *host = mem_array((size_t)o->N, sizeof *host);
    for (int i = 0; i < o->N; i++) host[i] = (int32_t)((int64_t)i * stride % below);
    int32_t *p = bench_copy(o, host, (size_t)o->N * sizeof *host);
    free(host);
    return p;
}

static void embedding(OpsBench *o) {
    enum { PRIME = 7919, ROWS = 32000 }; /* scattered rows; a table larger than caches */
    int N = o->N, D = o->c->D, V = o->c->V < ROWS ? o->c->V : ROWS;
    size_t n = (size_t)N * (size_t)D;
    store *table = bench_store(o, (size_t)V * (size_t)D, 1), *y = bench_blank_store(o, n);
    store *to = bench_store(o, n, 1);
    int32_t *ids = row_numbers(o, PRIME, V), *rows = row_numbers(o, 1, N);
    BENCH_OP(o, embed_fwd, OUT_STORE(y, n), y, table, ids, N, D, V, 48);
    BENCH_OP(o, gather_rows, OUT_STORE(y, n), y, table, ids, N, D);
    BENCH_OP(o, scatter_rows, OUT_STORE(to, n), to, y, rows, N, D);
    BENCH_FREE(o, table, y, to, ids, rows);
}

static void norms(OpsBench *o) {
    int N = o->N, D = o->c->D;
    size_t n = (size_t)N * (size_t)D, rows = (size_t)N * sizeof(float);
    store *x = bench_store(o, n, 1), *p = bench_store(o, n, 1), *w = bench_store(o, (size_t)D, 1);
    store *dx = bench_store(o, n, 1), *y = bench_blank_store(o, n), *x2 = bench_blank_store(o, n);
    float *r = bench_blank(o, rows), *r2 = bench_blank(o, rows), eps = o->c->eps;
    BENCH_OP(o, rmsnorm_fwd, OUT_STORE(y, n), y, r, x, w, N, D, eps);
    BENCH_OP(o, residual_norm_fwd, OUT_STORE(x2, n), x2, y, r, r2, x, p, w, w, N, D, eps);
    o->ex->op->residual_norm_fwd(o->ex, x2, y, r, r2, x, p, w, w, N, D, eps); /* if not wanted */
    BENCH_OP(o, rmsnorm_bwd, OUT_STORE(dx, n), dx, y, p, w, r, N, D);
    BENCH_OP(o, residual_norm_bwd, OUT_STORE(dx, n), dx, y, p, x2, x, w, w, r, r2, N, D);
    BENCH_FREE(o, x, p, w, dx, y, x2, r, r2);
}

static void rope(OpsBench *o) {
    int N = o->N, H = o->c->H, E = o->c->E, P = 4 * N;
    size_t n = (size_t)N * (size_t)(H * E), angles = (size_t)P * (size_t)(E / 2);
    store *x = bench_store(o, n, 1);
    float *cos = bench_blank(o, angles * sizeof *cos), *sin = bench_blank(o, angles * sizeof *sin);
    int32_t *pos = row_numbers(o, 1, N);
    BENCH_OP(o, rope_table, OUT_F32(cos, angles), cos, sin, P, E, o->c->rope_theta);
    o->ex->op->rope_table(o->ex, cos, sin, P, E, o->c->rope_theta);
    BENCH_OP(o, rope_fwd, OUT_STORE(x, n), x, cos, sin, pos, N, H, E);
    BENCH_OP(o, rope_bwd, OUT_STORE(x, n), x, cos, sin, pos, N, H, E);
    BENCH_FREE(o, x, cos, sin, pos);
}

static void geglu(OpsBench *o) {
    size_t n = (size_t)o->N * (size_t)o->c->F;
    store *gate = bench_store(o, n, 2), *up = bench_store(o, n, 1), *dy = bench_store(o, n, 1);
    store *y = bench_blank_store(o, n), *dup = bench_blank_store(o, n);
    BENCH_OP(o, geglu_fwd, OUT_STORE(y, n), y, gate, up, n);
    BENCH_OP(o, geglu_bwd, OUT_STORE(dup, n), y, dup, dy, gate, up, n);
    BENCH_FREE(o, gate, up, dy, y, dup);
}

/* As many elements as adapters of 9B have, at 1024 rows. */
static void elements(OpsBench *o) {
    size_t n = (size_t)o->N << 14;
    float *x = bench_f32(o, n, 1), *m = bench_f32(o, n, 0), *v = bench_f32(o, n, 0);
    float *g = bench_f32(o, n, 1);
    store *y = bench_blank_store(o, n);
    double *sum = bench_copy(o, &(double){0}, sizeof *sum);
    int64_t *index = bench_blank(o, sizeof *index);
    AdamW adamw = {.lr = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .step = 1};
    BENCH_OP(o, cast, OUT_STORE(y, n), y, x, n);
    o->ex->op->cast(o->ex, y, x, n);
    BENCH_OP(o, find_bad, OUT_OTHER, index, y, n);
    BENCH_OP(o, find_bad_f32, OUT_OTHER, index, x, n);
    BENCH_OP(o, add, OUT_F32(x, n), x, g, n, 1e-6f);
    BENCH_OP(o, sumsq, OUT_OTHER, sum, x, n);
    BENCH_OP(o, adamw, OUT_F32(x, n), x, m, v, g, n, 1, adamw);
    BENCH_OP(o, uncast, OUT_F32(g, n), g, y, n);
    BENCH_FREE(o, x, m, v, g, y, sum, index);
}

const OpsCase bench_rows[] = {
    {"embed_fwd gather_rows scatter_rows", embedding},
    {"rmsnorm_fwd rmsnorm_bwd residual_norm_fwd residual_norm_bwd", norms},
    {"rope_table rope_fwd rope_bwd", rope},
    {"geglu_fwd geglu_bwd", geglu},
    {"cast uncast add sumsq adamw find_bad find_bad_f32", elements},
    {NULL, NULL}};
