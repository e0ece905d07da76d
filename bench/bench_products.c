/* bench_products.c - matrix products and attention at the shapes of Gemma-2 2B. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench_ops.h"
#include "kernels/check.h"

/* -------------------------------------------------------------------------------- matmul -- */

static const char *const form_name[] = {
    [GEMM_NT] = "NT", [GEMM_NN] = "NN", [GEMM_NT_FEW] = "NT_FEW"};

typedef struct Shape {
    const char *what;
    int rows, cols, depth, stride; /* stride: of A; 0: dense */
    enum GemmForm form;
    float beta;
} Shape;

static void bench_gemm(Shape s) {
    if (!bench_chosen("gemm")) return;
    char shape[96];
    int lda = s.stride ? s.stride : s.depth;
    size_t a = (size_t)s.rows * lda, b = (size_t)s.cols * s.depth, c = (size_t)s.rows * s.cols;
    double size = (double)dtype_size(bench_ex.dtype), flops = 2.0 * s.rows * s.cols * s.depth;
    double bytes = size * ((double)s.rows * s.depth + (double)b + (1 + s.beta) * (double)c);
    snprintf(shape, sizeof shape, "%s %s %dx%dx%d", s.what, form_name[s.form], s.rows, s.cols,
             s.depth);
    store *A = bench_store(a, 1), *B = bench_store(b, 1),
          *C = s.beta == 0 ? bench_blank_store(c) : bench_store(c, 1);
    int ldb = s.form == GEMM_NN ? s.cols : s.depth;
    bench_ex.op->gemm(&bench_ex, C, s.cols, A, lda, B, ldb, s.rows, s.cols, s.depth, s.form, 1,
                      s.beta);
    bench_expect_store("gemm", C, c);
    BENCH_PRODUCT("gemm", shape, bytes, flops,
                  bench_ex.op->gemm(&bench_ex, C, s.cols, A, lda, B, ldb, s.rows, s.cols, s.depth,
                                    s.form, 1e-3f, s.beta));
    BENCH_FREE(A, B, C);
}

static void bench_grad(const char *what, int rows, int m, int n) {
    if (!bench_chosen("gemm_grad")) return;
    char shape[96];
    size_t a = (size_t)rows * m, b = (size_t)rows * n, c = (size_t)m * n;
    snprintf(shape, sizeof shape, "%s TN %dx%dx%d", what, m, n, rows);
    store *A = bench_store(a, 1), *B = bench_store(b, 1);
    float *C = bench_f32(c, 1);
    bench_ex.op->gemm_grad(&bench_ex, C, A, m, B, n, rows, m, n, 1);
    bench_expect("gemm_grad", C, c, DTYPE_F32);
    BENCH_PRODUCT(
        "gemm_grad", shape, (double)dtype_size(bench_ex.dtype) * (double)(a + b) + 8.0 * (double)c,
        2.0 * rows * m * n, bench_ex.op->gemm_grad(&bench_ex, C, A, m, B, n, rows, m, n, 1e-3f));
    BENCH_FREE(A, B, C);
}

static void bench_head(int rows, int vocab, enum GemmForm form) {
    if (!bench_chosen("gemm_f32")) return;
    char shape[96];
    size_t c = (size_t)rows * vocab;
    snprintf(shape, sizeof shape, "head %s %dx%dx%d", form_name[form], rows, vocab, D);
    store *A = bench_store((size_t)rows * D, 1), *B = bench_store((size_t)vocab * D, 1);
    float *C = bench_blank(c * sizeof *C);
    bench_ex.op->gemm_f32(&bench_ex, C, vocab, A, D, B, D, rows, vocab, D, form, 1, 0);
    bench_expect("gemm_f32", C, c, DTYPE_F32);
    BENCH_PRODUCT(
        "gemm_f32", shape,
        (double)dtype_size(bench_ex.dtype) * D * (rows + vocab) + 4.0 * (double)c,
        2.0 * (double)c * D,
        bench_ex.op->gemm_f32(&bench_ex, C, vocab, A, D, B, D, rows, vocab, D, form, 1, 0));
    BENCH_FREE(A, B, C);
}

void bench_matmuls(void) {
    static const Shape shapes[] = {
        {"q", N, H * E, D, 0, GEMM_NT, 0},          {"gate", N, F, D, 0, GEMM_NT, 0},
        {"down", N, D, F, 0, GEMM_NT, 0},           {"d(gate)", N, D, F, 0, GEMM_NN, 1},
        {"d(down)", N, F, D, 0, GEMM_NN, 0},        {"q", 160, H * E, D, 0, GEMM_NT, 0},
        {"gate", 1, F, D, 0, GEMM_NT_FEW, 0},       {"gate", 8, F, D, 0, GEMM_NT_FEW, 0},
        {"gate", 16, F, D, 0, GEMM_NT_FEW, 0},      {"down", 8, D, F, 0, GEMM_NT_FEW, 0},
        {"gate", 8, F, D, 0, GEMM_NT, 0},           {"LoRA A", N, 3 * R, D, 0, GEMM_NT, 0},
        {"LoRA B", N, H * E, R, 3 * R, GEMM_NT, 1}, {"LoRA A", N, R, F, 0, GEMM_NT, 0},
        {"LoRA B", N, D, R, 0, GEMM_NT, 1},         {"d(LoRA B)", N, R, D, 0, GEMM_NN, 0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) bench_gemm(shapes[i]);
    bench_head(64, 32000, GEMM_NT);
    bench_head(8, VOCAB, GEMM_NT_FEW);
    bench_grad("LoRA A", N, R, D);
    bench_grad("LoRA B", N, F, R);
    bench_grad("full", N, D, D);
}

/* ----------------------------------------------------------------------------- attention -- */

/* `docs` documents of T tokens each; pairs: (query, key) that see each other, per head. */
static void bench_attention(int docs, int T, int kv_heads, int window) {
    if (!bench_chosen("attn_fwd") && !bench_chosen("attn_bwd")) return;
    AttnShape a = {
        .H = 2 * kv_heads, .K = kv_heads, .E = E, .window = window, .scale = 1 / 16.0f, .cap = 50};
    int rows = docs * T;
    Segment *host = malloc((size_t)docs * sizeof *host);
    CHECK(host, "out of memory");
    for (int j = 0; j < docs; j++) host[j] = (Segment){.row = j * T, .len = T};
    double pairs = 0, size = (double)dtype_size(bench_ex.dtype);
    for (int i = 0; i < T; i++) pairs += docs * (window > 0 && i >= window ? window : i + 1.0);
    size_t nq = (size_t)rows * a.H * E, nk = (size_t)rows * a.K * E;
    store *q = bench_store(nq, 3), *k = bench_store(nk, 3), *v = bench_store(nk, 1),
          *d_o = bench_store(nq, 1);
    store *o = bench_blank_store(nq), *dq = bench_blank_store(nq), *dk = bench_blank_store(nk),
          *dv = bench_blank_store(nk);
    float *lse = bench_blank((size_t)rows * a.H * sizeof *lse);
    Segment *seg = bench_copy(host, (size_t)docs * sizeof *seg);
    char shape[96];
    snprintf(shape, sizeof shape, "%d x T=%d H=%d K=%d E=%d window %d", docs, T, a.H, a.K, E,
             window);
    bench_ex.op->attn_fwd(&bench_ex, o, lse, q, k, v, seg, host, docs, rows, a);
    bench_ex.op->attn_bwd(&bench_ex, dq, dk, dv, d_o, q, k, v, o, lse, seg, host, docs, rows, a);
    bench_expect_store("attn_fwd", o, nq);
    bench_expect_store("attn_bwd", dq, nq);
    bench_expect_store("attn_bwd", dk, nk);
    bench_expect_store("attn_bwd", dv, nk);
    if (bench_chosen("attn_fwd"))
        BENCH_OP("attn_fwd", shape, size * 2 * (double)(nq + nk), 4.0 * E * a.H * pairs,
                 bench_ex.op->attn_fwd(&bench_ex, o, lse, q, k, v, seg, host, docs, rows, a));
    if (bench_chosen("attn_bwd"))
        BENCH_OP("attn_bwd", shape, size * 4 * (double)(nq + nk), 10.0 * E * a.H * pairs,
                 bench_ex.op->attn_bwd(&bench_ex, dq, dk, dv, d_o, q, k, v, o, lse, seg, host, docs,
                                       rows, a));
    free(host);
    BENCH_FREE(q, k, v, d_o, o, dq, dk, dv, lse, seg);
}

static void bench_decode(int rows, int T) {
    if (!bench_chosen("attn_decode") && !bench_chosen("kv_put")) return;
    AttnShape a = {.H = H, .K = K, .E = E, .window = 4096, .scale = 1 / 16.0f, .cap = 50};
    size_t cache = (size_t)rows * T * K * E, nq = (size_t)rows * H * E, nk = (size_t)rows * K * E;
    int32_t slot[64], len[64], pos[64];
    CHECK(rows <= 64, "rows %d", rows);
    for (int i = 0; i < rows; i++) slot[i] = i, len[i] = T, pos[i] = T - 1;
    store *q = bench_store(nq, 3), *kc = bench_store(cache, 3), *vc = bench_store(cache, 1),
          *o = bench_blank_store(nq);
    store *k = bench_store(nk, 1), *v = bench_store(nk, 1);
    int32_t *slots = bench_copy(slot, sizeof slot), *lens = bench_copy(len, sizeof len);
    int32_t *positions = bench_copy(pos, sizeof pos);
    double size = (double)dtype_size(bench_ex.dtype);
    char shape[96];
    snprintf(shape, sizeof shape, "%d rows over %d", rows, T);
    bench_ex.op->attn_decode(&bench_ex, o, q, kc, vc, slots, lens, rows, T, a);
    bench_expect_store("attn_decode", o, nq);
    if (bench_chosen("attn_decode"))
        BENCH_OP("attn_decode", shape, size * 2 * (double)(cache + nq), 4.0 * (double)nq * T,
                 bench_ex.op->attn_decode(&bench_ex, o, q, kc, vc, slots, lens, rows, T, a));
    if (bench_chosen("kv_put"))
        BENCH_OP("kv_put", shape, size * 4 * (double)nk, 0,
                 bench_ex.op->kv_put(&bench_ex, kc, vc, k, v, slots, positions, rows, T, K * E));
    BENCH_FREE(q, kc, vc, o, k, v, slots, lens, positions);
}

void bench_attentions(void) {
    bench_attention(8, 160, K, 4096);
    bench_attention(1, 1024, K, 0);
    bench_attention(1, 4096, K, 0);
    bench_attention(1, 4096, K, 1024);
    bench_attention(1, 4096, 1, 0);
    bench_decode(1, 4096);
    bench_decode(16, 512);
}
