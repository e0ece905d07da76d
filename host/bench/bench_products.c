/* bench_products.c - matrix products and attention. */
#include "data/base/mem.h"
#include "host/bench/bench_ops.h"

static int least(int x, int y) {
    return x < y ? x : y;
}

/* ------------------------------------------------------------------------------ matrices -- */

/* C (rows,cols) = A B, or += with beta 1; A has rows of `stride` elements, 0: of `depth`. */
typedef struct Shape {
    int rows, cols, depth, stride;
    enum GemmForm form;
    float beta;
} Shape;

static void one_gemm(OpsBench *o, Shape s) {
    int lda = s.stride ? s.stride : s.depth, ldb = s.form == GEMM_NN ? s.cols : s.depth;
    size_t a = (size_t)s.rows * (size_t)lda, b = (size_t)s.cols * (size_t)s.depth;
    size_t c = (size_t)s.rows * (size_t)s.cols;
    store *A, *B, *C;
    bench_store(o, &A, a, 1);
    bench_store(o, &B, b, 1);
    if (s.beta == 0)
        bench_blank_store(o, &C, c);
    else
        bench_store(o, &C, c, 1);
    BENCH_OP(o, gemm, OUT_STORE(C, c), C, s.cols, A, lda, B, ldb, s.rows, s.cols, s.depth, s.form,
             1e-3f, s.beta);
    bench_free(o);
}

static void gemm(OpsBench *o) {
    const Config *c = o->c;
    int N = o->N, D = c->D, F = c->F, Q = c->H * c->E, KV = c->K * c->E, R = RANK;
    const Shape shape[] = {
        {N, Q, D, 0, GEMM_NT, 0},
        {N, KV, D, 0, GEMM_NT, 0},
        {N, D, Q, 0, GEMM_NT, 0},
        {N, F, D, 0, GEMM_NT, 0},
        {N, D, F, 0, GEMM_NT, 0},
        {N, D, Q, 0, GEMM_NN, 0},
        {N, D, F, 0, GEMM_NN, 1},
        {N, F, D, 0, GEMM_NN, 0},
        {N, 3 * R, D, 0, GEMM_NT, 0},
        {N, Q, R, 3 * R, GEMM_NT, 1},
        {N, R, F, 0, GEMM_NT, 0},
        {N, D, R, 0, GEMM_NT, 1},
        {N, R, D, 0, GEMM_NN, 0},
        {1, F, D, 0, GEMM_NT_FEW, 0},
        {8, F, D, 0, GEMM_NT_FEW, 0},
        {16, F, D, 0, GEMM_NT_FEW, 0},
        {8, D, F, 0, GEMM_NT_FEW, 0},
        {8, F, D, 0, GEMM_NT, 0},
        {least(N, 160), Q, D, 0, GEMM_NT, 0},
    };
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) one_gemm(o, shape[i]);
    const int chunk[] = {least(N, HEAD_ROWS), 1024, 2048}; /* the head's backward */
    for (size_t i = 0; i < sizeof chunk / sizeof *chunk && chunk[i] <= N; i++)
        one_gemm(o, (Shape){chunk[i], D, c->V, 0, GEMM_NN, 0});
}

static void one_head(OpsBench *o, int rows, enum GemmForm form) {
    int D = o->c->D, V = o->c->V;
    size_t c = (size_t)rows * (size_t)V;
    store *A, *B;
    float *C;
    bench_store(o, &A, (size_t)rows * (size_t)D, 1);
    bench_store(o, &B, (size_t)V * (size_t)D, 1);
    bench_blank(o, &C, c * sizeof *C);
    BENCH_OP(o, gemm_f32, OUT_F32(C, c), C, V, A, D, B, D, rows, V, D, form, 1, 0);
    bench_free(o);
}

static void head(OpsBench *o) {
    one_head(o, least(o->N, HEAD_ROWS), GEMM_NT);
    one_head(o, 8, GEMM_NT_FEW);
}

static void one_grad(OpsBench *o, int m, int n) {
    size_t a = (size_t)o->N * (size_t)m, b = (size_t)o->N * (size_t)n, c = (size_t)m * (size_t)n;
    store *A, *B;
    float *C;
    bench_store(o, &A, a, 1);
    bench_store(o, &B, b, 1);
    bench_f32(o, &C, c, 1);
    BENCH_OP(o, gemm_grad, OUT_F32(C, c), C, A, m, B, n, o->N, m, n, 1e-3f);
    bench_free(o);
}

static void grad(OpsBench *o) {
    one_grad(o, 3 * RANK, o->c->D);
    one_grad(o, o->c->F, RANK);
    one_grad(o, o->c->D, o->c->D);
}

/* ----------------------------------------------------------------------------- attention -- */

/* `docs` documents of T tokens. */
static void one_attention(OpsBench *o, int docs, int T, int window) {
    AttnShape a = config_attn(o->c, 0);
    a.window = window;
    int N = docs * T;
    Segment *host = mem_array((size_t)docs, sizeof *host);
    for (int j = 0; j < docs; j++) host[j] = (Segment){.row = j * T, .len = T};
    size_t nq = (size_t)N * (size_t)(a.H * a.E), nk = (size_t)N * (size_t)(a.K * a.E);
    store *q, *k, *v, *d_o, *out, *dq, *dk, *dv;
    float *lse;
    Segment *seg;
    bench_store(o, &q, nq, 3);
    bench_store(o, &k, nk, 3);
    bench_store(o, &v, nk, 1);
    bench_store(o, &d_o, nq, 1);
    bench_blank_store(o, &out, nq);
    bench_blank_store(o, &dq, nq);
    bench_blank_store(o, &dk, nk);
    bench_blank_store(o, &dv, nk);
    bench_blank(o, &lse, (size_t)N * (size_t)a.H * sizeof *lse);
    bench_copy(o, &seg, host, (size_t)docs * sizeof *seg);
    BENCH_OP(o, attn_fwd, OUT_STORE(out, nq), out, lse, q, k, v, seg, host, docs, N, a);
    if (!bench_wants(o, "attn_fwd"))
        o->ex->op->attn_fwd(o->ex, out, lse, q, k, v, seg, host, docs, N, a);
    BENCH_OP(o, attn_bwd, OUT_STORE(dq, nq), dq, dk, dv, d_o, q, k, v, out, lse, seg, host, docs, N,
             a);
    free(host);
    bench_free(o);
}

static void attention(OpsBench *o) {
    int N = o->N, T = least(N, 160);
    one_attention(o, N / T, T, o->c->window);
    one_attention(o, 1, N, 0);
    one_attention(o, 1, 4 * N, 0);
    one_attention(o, 1, 4 * N, N);
}

/* New tokens of `rows` texts that are T long. */
static void one_decode(OpsBench *o, int rows, int T) {
    enum { ROWS = 16 };
    AttnShape a = config_attn(o->c, 0);
    a.window = 0;
    int W = a.K * a.E;
    size_t cache = (size_t)rows * (size_t)T * (size_t)W;
    size_t nq = (size_t)rows * (size_t)(a.H * a.E), nk = (size_t)rows * (size_t)W;
    int32_t host_slot[ROWS], host_len[ROWS], host_pos[ROWS];
    CHECK(rows <= ROWS, "%d rows", rows);
    for (int i = 0; i < rows; i++) host_slot[i] = i, host_len[i] = T, host_pos[i] = T - 1;
    store *q, *kc, *vc, *out, *k, *v;
    int32_t *slot, *len, *pos;
    bench_store(o, &q, nq, 3);
    bench_store(o, &kc, cache, 3);
    bench_store(o, &vc, cache, 1);
    bench_blank_store(o, &out, nq);
    bench_store(o, &k, nk, 1);
    bench_store(o, &v, nk, 1);
    bench_copy(o, &slot, host_slot, sizeof host_slot);
    bench_copy(o, &len, host_len, sizeof host_len);
    bench_copy(o, &pos, host_pos, sizeof host_pos);
    BENCH_OP(o, attn_decode, OUT_STORE(out, nq), out, q, kc, vc, slot, len, rows, T, a);
    BENCH_OP(o, kv_put, OUT_STORE(kc, cache), kc, vc, k, v, slot, pos, rows, T, W);
    bench_free(o);
}

static void decode(OpsBench *o) {
    one_decode(o, 1, 4 * o->N);
    one_decode(o, 16, o->N / 2);
}

const OpsCase bench_products[] = {{"gemm", gemm},
                                  {"gemm_f32", head},
                                  {"gemm_grad", grad},
                                  {"attn_fwd attn_bwd", attention},
                                  {"attn_decode kv_put", decode},
                                  {NULL, NULL}};
