/* bench_rows.c - ops on rows and on elements, bound by memory. */
#include "data/base/mem.h"
#include "host/bench/bench_ops.h"
#include "model/optim.h"

static void row_numbers(OpsBench *o, int32_t **variable, int stride, int below) {
    int32_t *host = mem_array((size_t)o->N, sizeof *host);
    for (int i = 0; i < o->N; i++) host[i] = (int32_t)((int64_t)i * stride % below);
    bench_copy(o, variable, host, (size_t)o->N * sizeof *host);
    free(host);
}

static void embedding(OpsBench *o) {
    enum { PRIME = 7919, ROWS = 32000 }; /* scattered rows; a table larger than caches */
    int N = o->N, D = o->c->D, V = o->c->V < ROWS ? o->c->V : ROWS;
    size_t n = (size_t)N * (size_t)D;
    store *table, *y, *to;
    int32_t *ids, *rows;
    bench_store(o, &table, (size_t)V * (size_t)D, 1);
    bench_blank_store(o, &y, n);
    bench_store(o, &to, n, 1);
    float *grad;
    bench_zero(o, &grad, (size_t)V * (size_t)D * sizeof *grad);
    row_numbers(o, &ids, PRIME, V);
    row_numbers(o, &rows, 1, N);
    BENCH_OP(o, embed_fwd, OUT_STORE(y, n), y, table, ids, N, D, V, 48);
    BENCH_OP(o, embed_bwd, OUT_F32(grad, (size_t)V * (size_t)D), grad, to, ids, rows, N, D, V, 48);
    BENCH_OP(o, gather_rows, OUT_STORE(y, n), y, table, ids, N, D);
    BENCH_OP(o, scatter_rows, OUT_STORE(to, n), to, y, rows, N, D);
    bench_free(o);
}

static void norms(OpsBench *o) {
    int N = o->N, D = o->c->D;
    size_t n = (size_t)N * (size_t)D, rows = (size_t)N * sizeof(float);
    store *x, *p, *w, *dx, *y, *x2;
    bench_store(o, &x, n, 1);
    bench_store(o, &p, n, 1);
    bench_store(o, &w, (size_t)D, 1);
    bench_store(o, &dx, n, 1);
    bench_blank_store(o, &y, n);
    bench_blank_store(o, &x2, n);
    float *r, *r2, *dw, eps = o->c->eps;
    bench_zero(o, &dw, (size_t)D * sizeof *dw);
    bench_blank(o, &r, rows);
    bench_blank(o, &r2, rows);
    BENCH_OP(o, rmsnorm_fwd, OUT_STORE(y, n), y, r, x, w, N, D, eps);
    BENCH_OP(o, residual_norm_fwd, OUT_STORE(x2, n), x2, y, r, r2, x, p, w, w, N, D, eps);
    if (!bench_wants(o, "residual_norm_fwd"))
        o->ex->op->residual_norm_fwd(o->ex, x2, y, r, r2, x, p, w, w, N, D, eps);
    BENCH_OP(o, rmsnorm_bwd, OUT_STORE(dx, n), dx, y, p, w, r, N, D);
    BENCH_OP(o, rmsnorm_grad, OUT_F32(dw, (size_t)D), dw, y, p, r, N, D);
    BENCH_OP(o, residual_norm_bwd, OUT_STORE(dx, n), dx, y, p, x2, x, w, w, r, r2, N, D);
    bench_free(o);
}

static void rope(OpsBench *o) {
    int N = o->N, H = o->c->H, E = o->c->E, P = 4 * N;
    size_t n = (size_t)N * (size_t)(H * E), angles = (size_t)P * (size_t)(E / 2);
    store *x;
    float *cos, *sin;
    int32_t *pos;
    bench_store(o, &x, n, 1);
    bench_blank(o, &cos, angles * sizeof *cos);
    bench_blank(o, &sin, angles * sizeof *sin);
    row_numbers(o, &pos, 1, N);
    BENCH_OP(o, rope_table, OUT_F32(cos, angles), cos, sin, P, E, o->c->rope_theta);
    if (!bench_wants(o, "rope_table"))
        o->ex->op->rope_table(o->ex, cos, sin, P, E, o->c->rope_theta);
    BENCH_OP(o, rope_fwd, OUT_STORE(x, n), x, cos, sin, pos, N, H, E);
    BENCH_OP(o, rope_bwd, OUT_STORE(x, n), x, cos, sin, pos, N, H, E);
    bench_free(o);
}

static void geglu(OpsBench *o) {
    size_t n = (size_t)o->N * (size_t)o->c->F;
    store *gate, *up, *dy, *y, *dup;
    bench_store(o, &gate, n, 2);
    bench_store(o, &up, n, 1);
    bench_store(o, &dy, n, 1);
    bench_blank_store(o, &y, n);
    bench_blank_store(o, &dup, n);
    BENCH_OP(o, geglu_fwd, OUT_STORE(y, n), y, gate, up, n);
    BENCH_OP(o, geglu_bwd, OUT_STORE(dup, n), y, dup, dy, gate, up, n);
    bench_free(o);
}

/* The blocks of one tensor's norm. */
static int norm_blocks(OpsBench *o, Span **variable, size_t n) {
    int blocks = (int)((n + PARAM_BLOCK - 1) / PARAM_BLOCK);
    Span *host = mem_array((size_t)blocks, sizeof *host);
    for (int i = 0; i < blocks; i++) {
        size_t at = (size_t)i * PARAM_BLOCK;
        host[i] = (Span){at, n - at < PARAM_BLOCK ? n - at : PARAM_BLOCK};
    }
    bench_copy(o, variable, host, (size_t)blocks * sizeof *host);
    free(host);
    return blocks;
}

/* As many elements as adapters of 9B have, at 1024 rows. */
static void elements(OpsBench *o) {
    size_t n = (size_t)o->N << 14;
    float *x, *m, *v, *g;
    store *y;
    double *sum;
    Span *block;
    int64_t *index;
    bench_f32(o, &x, n, 1);
    bench_f32(o, &m, n, 0);
    bench_f32(o, &v, n, 0);
    bench_f32(o, &g, n, 1);
    bench_blank_store(o, &y, n);
    int blocks = norm_blocks(o, &block, n);
    bench_blank(o, &sum, (size_t)blocks * sizeof *sum);
    bench_blank(o, &index, sizeof *index);
    AdamW adamw = {.lr = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .step = 1};
    BENCH_OP(o, cast, OUT_STORE(y, n), y, x, n);
    if (!bench_wants(o, "cast")) o->ex->op->cast(o->ex, y, x, n);
    BENCH_OP(o, find_bad, OUT_OTHER, index, y, n);
    BENCH_OP(o, find_bad_f32, OUT_OTHER, index, x, n);
    BENCH_OP(o, add, OUT_F32(x, n), x, g, n, 1e-6f);
    BENCH_OP(o, sumsq, OUT_OTHER, sum, x, block, blocks, n);
    BENCH_OP(o, adamw, OUT_F32(x, n), x, m, v, g, n, 1, adamw);
    BENCH_OP(o, uncast, OUT_F32(g, n), g, y, n);
    bench_free(o);
}

/* The same of masters that are split. */
static void halves(OpsBench *o) {
    size_t n = (size_t)o->N << 14;
    float *x, *m, *v, *g;
    store *high;
    int16_t *low;
    bench_f32(o, &x, n, 1);
    bench_f32(o, &m, n, 0);
    bench_f32(o, &v, n, 0);
    bench_f32(o, &g, n, 1);
    bench_store(o, &high, n, 1);
    bench_zero(o, &low, n * sizeof *low);
    AdamW adamw = {.lr = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .step = 1};
    BENCH_OP(o, adamw_split, OUT_STORE(high, n), high, low, m, v, g, n, 1, adamw);
    BENCH_OP(o, split, OUT_STORE(high, n), high, low, x, n);
    BENCH_OP(o, join, OUT_F32(x, n), x, high, low, n);
    bench_free(o);
}

const OpsCase bench_rows[] = {
    {"embed_fwd embed_bwd gather_rows scatter_rows", embedding},
    {"rmsnorm_fwd rmsnorm_bwd rmsnorm_grad residual_norm_fwd residual_norm_bwd", norms},
    {"rope_table rope_fwd rope_bwd", rope},
    {"geglu_fwd geglu_bwd", geglu},
    {"cast uncast add sumsq adamw find_bad find_bad_f32", elements},
    {"adamw_split split join", halves},
    {NULL, NULL}};
