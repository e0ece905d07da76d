/* contracts.h - what each op checks of its arguments, and what a call of it costs.
 *
 * contract_<op> takes what its checks and its cost need, in the order of ops.h. It dies where the
 * contract in ops.h is broken in a way that the host can see: both twins begin with it (OP_BEGIN).
 * What one twin alone can check stays there: indices where the host reads them, alignment, sizes of
 * a launch. A cost is worked out only where somebody watches the Exec; what OpCall says of it
 * holds: the least there is to move and to compute. `size`: bytes of a storage element. */
#ifndef SAILS_CONTRACTS_H
#define SAILS_CONTRACTS_H

#include <stdlib.h>

#include "kernels/check.h"
#include "kernels/op_scope.h"
#include "kernels/ops.h"
#include "kernels/segments.h"

/* -------------------------------------------------------------------- rows and embedding -- */

static inline void contract_embed_fwd(OpScope *s, int N, int D, int V) {
    CHECK(N >= 0 && D > 0 && V > 0, "N=%d D=%d V=%d", N, D, V);
    OP_COST(s, 2.0 * N * D * size, 1.0 * N * D, UNIT_VECTOR, "%dx%d", N, D);
}

/* As if no two rows had one token: the device alone knows. */
static inline void contract_embed_bwd(OpScope *s, int N, int D, int V) {
    CHECK(N >= 0 && D > 0 && V > 0, "N=%d D=%d V=%d", N, D, V);
    OP_COST(s, (8 + size) * (double)N * D, 2.0 * N * D, UNIT_VECTOR, "%dx%d", N, D);
}

static inline void contract_gather_rows(OpScope *s, int N, int D) {
    CHECK(N >= 0 && D > 0, "N=%d D=%d", N, D);
    OP_COST(s, 2.0 * N * D * size, 0, UNIT_VECTOR, "%dx%d", N, D);
}

static inline void contract_scatter_rows(OpScope *s, int N, int D) {
    contract_gather_rows(s, N, D);
}

/* -------------------------------------------------------------------------------- norms -- */

enum { NORM_D_MAX = 8192 };

static inline void norm_check(const OpScope *s, int N, int D) {
    CHECK(N >= 0 && D > 0 && D <= NORM_D_MAX, "%s: expected N >= 0 and 0 < D <= %d, got N=%d D=%d",
          s->op, NORM_D_MAX, N, D);
}
static inline void eps_check(const OpScope *s, float eps) {
    CHECK(eps > 0, "%s: expected eps > 0, got %g", s->op, (double)eps);
}

/* 1 + w is the same in every row, and counts nothing. */
static inline void contract_rmsnorm_fwd(OpScope *s, int N, int D, float eps) {
    norm_check(s, N, D);
    eps_check(s, eps);
    OP_COST(s, 2.0 * N * D * size, 4.0 * N * D, UNIT_VECTOR, "%dx%d", N, D);
}

static inline void contract_rmsnorm_bwd(OpScope *s, int N, int D) {
    norm_check(s, N, D);
    OP_COST(s, 4.0 * N * D * size, 7.0 * N * D, UNIT_VECTOR, "%dx%d", N, D);
}

static inline void contract_rmsnorm_grad(OpScope *s, int N, int D) {
    norm_check(s, N, D);
    OP_COST(s, 2.0 * N * D * size, 3.0 * N * D, UNIT_VECTOR, "%dx%d", N, D);
}

static inline void contract_residual_norm_fwd(OpScope *s, int N, int D, float eps) {
    norm_check(s, N, D);
    eps_check(s, eps);
    OP_COST(s, 4.0 * N * D * size, 9.0 * N * D, UNIT_VECTOR, "%dx%d", N, D);
}

static inline void contract_residual_norm_bwd(OpScope *s, int N, int D) {
    norm_check(s, N, D);
    OP_COST(s, 6.0 * N * D * size, 13.0 * N * D, UNIT_VECTOR, "%dx%d", N, D);
}

/* ----------------------------------------------------------------------------- attention -- */

/* The table's angles are made in double; what that costs is nobody's bound. */
static inline void contract_rope_table(OpScope *s, int P, int E, double theta) {
    CHECK(P >= 0 && E > 0 && E % 2 == 0 && theta > 0, "P=%d E=%d theta=%g", P, E, theta);
    OP_COST(s, 4.0 * P * E, 0, UNIT_VECTOR, "%dx%d", P, E);
}

/* Two elements are rotated in 6 operations; a row's angles serve all its heads. */
static inline void contract_rope_fwd(OpScope *s, int N, int H, int E) {
    CHECK(N >= 0 && H > 0 && E > 0 && E % 2 == 0, "N=%d H=%d E=%d", N, H, E);
    OP_COST(s, 2.0 * N * H * E * size + 4.0 * N * E, 3.0 * N * H * E, UNIT_VECTOR, "%dx%dx%d", N, H,
            E);
}

static inline void contract_rope_bwd(OpScope *s, int N, int H, int E) {
    contract_rope_fwd(s, N, H, E);
}

static inline void attn_shape_check(AttnShape a) {
    CHECK(a.K > 0 && a.H > 0 && a.H % a.K == 0 && a.E % 8 == 0 && a.E >= 8 && a.E <= ATTN_E_MAX &&
              a.window >= 0 && a.cap >= 0,
          "H=%d K=%d E=%d window=%d cap=%g", a.H, a.K, a.E, a.window, (double)a.cap);
}

static inline void attn_check(const Segment *seg, int nseg, int N, AttnShape a) {
    attn_shape_check(a);
    CHECK(N >= 0 && nseg >= 0, "N=%d nseg=%d", N, nseg);
    int row = 0;
    for (int j = 0; j < nseg; row += seg[j++].len) {
        Segment s = seg[j];
        CHECK(s.row == row && s.len >= 0 && s.len <= N - row && s.prefix_len >= 0,
              "segment %d: row %d len %d prefix %d, of %d rows, after row %d", j, s.row, s.len,
              s.prefix_len, N, row);
        CHECK(s.prefix_len == 0 || (s.prefix_row >= 0 && s.prefix_len <= row - s.prefix_row),
              "segment %d: expected its prefix before row %d, got %d rows from %d", j, row,
              s.prefix_len, s.prefix_row);
    }
    CHECK(row == N, "expected segments to cover %d rows, they cover %d", N, row);
}

/* Per visible pair and query head: two products of E forward; backward the scores again, and a
 * product for each of dv, dw, dq and dk. */
static inline void contract_attn_fwd(OpScope *s, const Segment *host_seg, int nseg, int N,
                                     AttnShape a) {
    attn_check(host_seg, nseg, N, a);
    OP_COST(s, 2.0 * N * (a.H + a.K) * a.E * size,
            4.0 * a.E * a.H * segments_pairs(host_seg, nseg, a.window), UNIT_PRODUCT,
            "%d in %d rows H%d K%d E%d window %d", nseg, N, a.H, a.K, a.E, a.window);
}

static inline void contract_attn_bwd(OpScope *s, const Segment *host_seg, int nseg, int N,
                                     AttnShape a) {
    attn_check(host_seg, nseg, N, a);
    OP_COST(s, 4.0 * N * (a.H + a.K) * a.E * size,
            10.0 * a.E * a.H * segments_pairs(host_seg, nseg, a.window), UNIT_PRODUCT,
            "%d in %d rows H%d K%d E%d window %d", nseg, N, a.H, a.K, a.E, a.window);
}

static inline void contract_kv_put(OpScope *s, int N, int T, int W) {
    CHECK(N >= 0 && T > 0 && W > 0, "N=%d T=%d W=%d", N, T, W);
    OP_COST(s, 4.0 * N * W * size, 0, UNIT_VECTOR, "%d rows of %d", N, W);
}

/* Keys that the rows see, all together. Their lengths are known to the device alone. */
static inline double keys_seen(Exec *ex, const int32_t *len, int N, int window) {
    int32_t *host = (int32_t *)malloc((size_t)N * sizeof *host + 1);
    double keys = 0;
    CHECK(host, "out of memory");
    exec_copy_out(ex, host, len, (size_t)N * sizeof *host);
    for (int i = 0; i < N; i++) keys += window && host[i] > window ? window : host[i];
    free(host);
    return keys;
}

static inline void contract_attn_decode(OpScope *s, const int32_t *len, int N, int T, AttnShape a) {
    attn_shape_check(a);
    CHECK(N >= 0 && T > 0, "N=%d T=%d", N, T);
    double keys = s->watched ? keys_seen(s->ex, len, N, a.window) : 0;
    OP_COST(s, (2.0 * a.K * keys + 2.0 * N * a.H) * a.E * size, 4.0 * a.H * a.E * keys,
            UNIT_PRODUCT, "%d rows of %d keys", N, T);
}

/* ---------------------------------------------------------------------------------- ffn -- */

/* An exponential is some 20 operations, here and in the head. */
static inline void contract_geglu_fwd(OpScope *s, size_t n) {
    OP_COST(s, 3.0 * (double)n * size, 30.0 * (double)n, UNIT_VECTOR, "%zu", n);
}

static inline void contract_geglu_bwd(OpScope *s, size_t n) {
    OP_COST(s, 5.0 * (double)n * size, 40.0 * (double)n, UNIT_VECTOR, "%zu", n);
}

/* ------------------------------------------------------------------------------- matmul -- */

/* Both of gemm and gemm_f32; c_size: bytes of an element of C. */
static inline void gemm_contract(OpScope *s, double c_size, int ldc, int lda, int ldb, int M, int N,
                                 int K, enum GemmForm form, float beta) {
    static const char *const form_name[] = {"NT", "NN", "NT few"}; /* in GemmForm's order */
    CHECK(M >= 0 && N > 0 && K > 0 && ldc >= N && lda >= K && ldb >= (form == GEMM_NN ? N : K),
          "%s: M=%d N=%d K=%d ldc=%d lda=%d ldb=%d form=%d", s->op, M, N, K, ldc, lda, ldb, form);
    CHECK(beta == 0 || beta == 1, "%s: expected beta 0 or 1, got %g", s->op, (double)beta);
    OP_COST(s, ((double)M * K + (double)N * K) * size + (1.0 + beta) * M * N * c_size,
            2.0 * M * N * K, UNIT_PRODUCT, "%s %dx%dx%d%s", form_name[form], M, N, K,
            beta == 0 ? "" : " +=");
}

static inline void contract_gemm(OpScope *s, int ldc, int lda, int ldb, int M, int N, int K,
                                 enum GemmForm form, float beta) {
    gemm_contract(s, (double)dtype_size(s->ex->dtype), ldc, lda, ldb, M, N, K, form, beta);
}

static inline void contract_gemm_f32(OpScope *s, int ldc, int lda, int ldb, int M, int N, int K,
                                     enum GemmForm form, float beta) {
    gemm_contract(s, sizeof(float), ldc, lda, ldb, M, N, K, form, beta);
}

static inline void contract_gemm_grad(OpScope *s, int lda, int ldb, int T, int M, int N) {
    CHECK(T >= 0 && M > 0 && N > 0 && lda >= M && ldb >= N, "T=%d M=%d N=%d lda=%d ldb=%d", T, M, N,
          lda, ldb);
    OP_COST(s, (double)T * (M + N) * size + 8.0 * M * N, 2.0 * T * M * N, UNIT_PRODUCT,
            "TN %dx%dx%d +=", M, N, T);
}

/* ---------------------------------------------------------------------- head and sampling -- */

/* A softcap, an exponential and their derivatives, or sums: some 40 operations. Sampling needs a
 * softcap, and an exponential only where something is drawn. */
static inline void contract_xent(OpScope *s, const store *dlogits, int N, int V, float cap) {
    CHECK(N >= 0 && V > 0 && cap >= 0, "N=%d V=%d cap=%g", N, V, (double)cap);
    OP_COST(s, (4 + (dlogits ? size : 0)) * (double)N * V, 40.0 * N * V, UNIT_VECTOR, "%dx%d%s", N,
            V, dlogits ? "" : " forward");
}

static inline void contract_logit_facts(OpScope *s, int N, int V, float cap) {
    CHECK(N >= 0 && V > 0 && cap >= 0, "N=%d V=%d cap=%g", N, V, (double)cap);
    OP_COST(s, 4.0 * N * V, 40.0 * N * V, UNIT_VECTOR, "%dx%d", N, V);
}

enum { SAMPLE_V_MAX = 1 << 23 }; /* so that the sum of all weights stays below 2^63 */

static inline void contract_sample(OpScope *s, const float *u, int N, int V, float cap,
                                   Sampling how) {
    CHECK(N >= 0 && V > 0 && V <= SAMPLE_V_MAX && cap >= 0 && how.temperature >= 0 &&
              how.top_k >= 0 && how.top_p > 0 && how.top_p <= 1,
          "N=%d V=%d cap=%g temperature=%g top_k=%d top_p=%g", N, V, (double)cap,
          (double)how.temperature, how.top_k, (double)how.top_p);
    CHECK(u || how.temperature == 0, "expected quantiles, got NULL");
    OP_COST(s, 8.0 * N * V, (how.temperature == 0 ? 20.0 : 40.0) * N * V, UNIT_VECTOR, "%dx%d%s", N,
            V, how.temperature == 0 ? " greedy" : "");
}

/* ------------------------------------------------------------------------------ training -- */

static inline void contract_cast(OpScope *s, size_t n) {
    OP_COST(s, (4 + size) * (double)n, 0, UNIT_VECTOR, "%zu", n);
}

static inline void contract_uncast(OpScope *s, size_t n) {
    OP_COST(s, (4 + size) * (double)n, 0, UNIT_VECTOR, "%zu", n);
}

static inline void contract_add(OpScope *s, size_t n) {
    OP_COST(s, 12.0 * (double)n, 2.0 * (double)n, UNIT_VECTOR, "%zu", n);
}

static inline void contract_sumsq(OpScope *s, size_t n) {
    OP_COST(s, 4.0 * (double)n, 2.0 * (double)n, UNIT_VECTOR, "%zu", n);
}

static inline void contract_adamw(OpScope *s, size_t n, AdamW a) {
    CHECK(a.step >= 1 && a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1 && a.eps >= 0,
          "step=%d beta1=%g beta2=%g eps=%g", a.step, a.beta1, a.beta2, a.eps);
    OP_COST(s, 28.0 * (double)n, 15.0 * (double)n, UNIT_VECTOR, "%zu", n);
}

/* A split master has 4 bytes in either table. */
static inline void contract_split(OpScope *s, size_t n) {
    OP_COST(s, 8.0 * (double)n, 0, UNIT_VECTOR, "%zu", n);
}

static inline void contract_join(OpScope *s, size_t n) {
    contract_split(s, n);
}

static inline void contract_adamw_split(OpScope *s, size_t n, AdamW a) {
    contract_adamw(s, n, a);
}

/* x is read twice: for what it has of the directions, and to take that off. */
static inline void contract_project_out(OpScope *s, int n, int R, int k) {
    CHECK(n > 0 && R > 0 && k > 0 && k <= n && k <= 4096, "n=%d R=%d k=%d", n, R, k);
    OP_COST(s, 12.0 * n * R + 8.0 * n * k, 4.0 * n * R * k, UNIT_VECTOR, "%dx%dx%d", n, R, k);
}

static inline void contract_find_bad(OpScope *s, size_t n) {
    OP_COST(s, (double)n * size, 0, UNIT_VECTOR, "%zu", n);
}

static inline void contract_find_bad_f32(OpScope *s, size_t n) {
    OP_COST(s, 4.0 * (double)n, 0, UNIT_VECTOR, "%zu", n);
}

/* ---------------------------------------------------------------------------------- SAE -- */

static inline void sae_check(const SaeEncoder *e, int N) {
    CHECK(N >= 0 && e->D > 0 && e->S > 0 && e->w && e->b, "N=%d D=%d S=%d", N, e->D, e->S);
    CHECK((e->act == SAE_JUMPRELU) == (e->threshold != NULL),
          "expected thresholds with JumpReLU alone, activation %d", e->act);
    CHECK(e->act != SAE_TOPK || (e->topk > 0 && e->topk <= e->S), "topk %d of %d", e->topk, e->S);
}

/* The twin knows its unit: a CPU's are f32 products in both tables. */
static inline void contract_sae_encode(OpScope *s, enum OpUnit unit, const SaeEncoder *sae, int N) {
    sae_check(sae, N);
    OP_COST(s, (double)N * sae->D * size + 4.0 * sae->D * sae->S + 4.0 * N * sae->S,
            2.0 * N * sae->D * sae->S, unit, "%dx%dx%d%s", N, sae->S, sae->D,
            sae->products == SAE_FAST ? " fast" : "");
}

static inline void contract_sae_stats(OpScope *s, enum OpUnit unit, const SaeEncoder *sae, int N,
                                      int G) {
    sae_check(sae, N);
    CHECK(G > 0, "G=%d", G);
    OP_COST(s, (double)N * sae->D * size + 4.0 * sae->D * sae->S, 2.0 * N * sae->D * sae->S, unit,
            "%dx%dx%d%s", N, sae->S, sae->D, sae->products == SAE_FAST ? " fast" : "");
}

/* ------------------------------------------------------------ choices and factorisations -- */

static inline void contract_top_k(OpScope *s, int n, int k) {
    CHECK(k > 0 && k <= n && n <= 1 << 24, "expected 0 < k <= n <= 2^24, got n=%d k=%d", n, k);
    OP_COST(s, 8.0 * n + 4.0 * k, n, UNIT_VECTOR, "%d of %d", k, n);
}

/* An iterative SVD counts as a QR and what turns its R into factors. */
static inline double small_square(double M, double N) {
    return 2.0 * M * N * (M < N ? M : N);
}

static inline void contract_svd(OpScope *s, int M, int N) {
    double smaller = M < N ? M : N;
    CHECK(M > 0 && N > 0, "M=%d N=%d", M, N);
    OP_COST(s, 8.0 * (M * (double)N + (M + (double)N) * smaller), 3 * small_square(M, N),
            UNIT_VECTOR, "%dx%d", M, N);
}

static inline void contract_qr(OpScope *s, int M, int N) {
    CHECK(M >= N && N > 0, "expected M >= N > 0, got M=%d N=%d", M, N);
    OP_COST(s, 16.0 * M * N, 2 * small_square(M, N), UNIT_VECTOR, "%dx%d", M, N);
}

#endif
