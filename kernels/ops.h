/* ops.h - the op interface: every numerical step of sails, declared once.
 *
 * Each op has one twin per device: a C twin (kernels/cpu/<op>.c, compiled once per level of
 * processors and storage type) and a CUDA kernel (kernels/<op>.cu). The code above calls ops
 * through ex->op and never knows which twin runs. What both check of a call, and what it costs:
 * contracts.h.
 *
 * What holds for every op, so that the contracts below state only what differs:
 *   arguments   Exec, outputs, inputs, dims, scalars - in that order.
 *   store       the storage type, f32 or bf16, of the table that the op was taken from. Reading
 *               is exact, computing and reducing is f32 (double where stated), writing rounds once.
 *   shapes      row major, last dim contiguous; base addresses 16-byte aligned, unless slices may
 *               begin at any element. In device memory, all of them: index arrays and structs too.
 *               (CPU twins need an element's alignment only, so that weights can stay in files that
 *               pad to 8 bytes.)
 *   out =       fully overwritten: the old contents are never read, not even as NaN.
 *   out +=      added to the old contents.
 *   in/out      read and overwritten.
 *   dims        N >= 0 rows; N = 0 does nothing. Other dims are positive.
 *   aliasing    forbidden unless the contract allows it.
 *   bits        equal inputs give equal bits, for any number of threads.
 *   failure     an op cannot fail in a way that the caller can repair. A broken contract or a
 *               machine error stops the process through die() with op, file and line.
 *
 * Letters: N rows (packed tokens), D model width, F ffn width, V vocabulary, H query heads,
 * K key/value heads, E head width, R LoRA rank, S SAE features. */
#ifndef SAILS_OPS_H
#define SAILS_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/choices.h"
#include "kernels/exec.h"
#include "kernels/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* -------------------------------------------------------------------- rows and embedding -- */

/* y[n] = round(table[token[n]] * scale): Gemma multiplies embeddings by sqrt(D), where the caller
 * has rounded `scale` to the storage type first.
 *   y (N,D) store out =;  table (V,D) store in;  token (N) i32 in, 0 <= token < V. */
typedef void op_embed_fwd(Exec *ex, store *y, const store *table, const int32_t *token, int N,
                          int D, int V, float scale);

/* Gradient of embed_fwd into the table:  dtable[v] += scale (sum of dx[n] over the rows n whose
 * token is v), a sum in the order in which `row` names them. dtable (V,D) f32 out +=;  dx (N,D)
 * store in;  token (N) i32 in, 0 <= token < V; row (N) i32 in: the rows 0 .. N-1, those of one
 * token one behind another. */
typedef void op_embed_bwd(Exec *ex, float *dtable, const store *dx, const int32_t *token,
                          const int32_t *row, int N, int D, int V, float scale);

/* y[n] = x[row[n]].   y (N,D) store out =;  x (any,D) store in;  row (N) i32 in, >= 0. */
typedef void op_gather_rows(Exec *ex, store *y, const store *x, const int32_t *row, int N, int D);

/* y[row[n]] = x[n]; rows of y that are not named keep their contents. Rows must be distinct. */
typedef void op_scatter_rows(Exec *ex, store *y, const store *x, const int32_t *row, int N, int D);

/* -------------------------------------------------------------------------------- norms -- */

/* D <= 8192: a GPU keeps a row on one of its processors.
 *
 * RMSNorm, Gemma's form:  y = x rstd (1 + w),  rstd = 1/sqrt(mean(x^2) + eps), per row.
 *   y (N,D) store out =, may alias x;  rstd (N) f32 out =, kept for the backward;
 *   x (N,D) store in;  w (D) store in: an offset, all zeros means scale one.  eps > 0. */
typedef void op_rmsnorm_fwd(Exec *ex, store *y, float *rstd, const store *x, const store *w, int N,
                            int D, float eps);

/* Backward of rmsnorm_fwd into x:  g = dy (1 + w);
 *   dx += rstd g - x rstd^3 mean(g x)
 *   dx (N,D) store out +=;  dy (N,D) store in;  x, w, rstd as given to and left by rmsnorm_fwd. */
typedef void op_rmsnorm_bwd(Exec *ex, store *dx, const store *dy, const store *x, const store *w,
                            const float *rstd, int N, int D);

/* Backward of rmsnorm_fwd into w:  dw += sum over rows of dy x rstd, done in chunks of NORM_CHUNK
 * rows that are added in order.   dw (D) f32 out +=;  dy, x (N,D) store in;  rstd (N) f32 in. */
enum { NORM_CHUNK = 64 };
typedef void op_rmsnorm_grad(Exec *ex, float *dw, const store *dy, const store *x,
                             const float *rstd, int N, int D);

/* The step between two sub-layers:  x2 = x + norm(p; wp),  y = norm(x2; wy).
 *   x2, y (N,D) store out =;  rp, ry (N) f32 out =: rstd of p and of x2;
 *   x residual stream, p sub-layer output (N,D) store in;  wp, wy (D) store in.
 *   x2 may alias x. y is computed from x2 as rounded to the storage type. */
typedef void op_residual_norm_fwd(Exec *ex, store *x2, store *y, float *rp, float *ry,
                                  const store *x, const store *p, const store *wp, const store *wy,
                                  int N, int D, float eps);

/* Backward of residual_norm_fwd. On entry dx holds d(x2) as it comes down the residual stream:
 *   dx += norm_bwd(dy; x2, wy, ry);   dp = norm_bwd(dx; p, wp, rp)
 * where the second takes dx as rounded by the first; dx is then also the gradient of x.
 *   dx (N,D) store in/out;  dp (N,D) store out =;  dy, x2, p (N,D) store in. */
typedef void op_residual_norm_bwd(Exec *ex, store *dx, store *dp, const store *dy, const store *x2,
                                  const store *p, const store *wp, const store *wy, const float *rp,
                                  const float *ry, int N, int D);

/* ----------------------------------------------------------------------------- attention -- */

/* cos and sin of position * theta^(-2i/E) for i < E/2, rounded to the storage type and kept as
 * f32. Exponent, frequency and angle are each rounded to f32, as transformers does it: at position
 * 8000 the angle is then up to 5e-4 rad away from the exact one, so a table made in double would
 * be better and yet differ from every model trained so far.  Cosine and sine of the rounded angle
 * are computed in double.   cos, sin (P,E/2) f32 out =. E even. */
typedef void op_rope_table(Exec *ex, float *cos, float *sin, int P, int E, double theta);

/* Rotary embedding in place, halves layout: with (a, b) = (x[i], x[i + E/2]) of each head,
 *   a' = a cos - b sin,  b' = b cos + a sin.
 *   x (N,H*E) store in/out;  cos, sin (P,E/2) f32 in;  pos (N) i32 in, 0 <= pos < P. */
typedef void op_rope_fwd(Exec *ex, store *x, const float *cos, const float *sin, const int32_t *pos,
                         int N, int H, int E);

/* The inverse rotation, which is the backward of rope_fwd:  dx in/out like x above. */
typedef void op_rope_bwd(Exec *ex, store *dx, const float *cos, const float *sin,
                         const int32_t *pos, int N, int H, int E);

/* A run of consecutive rows that attend causally to themselves and, before that, to the first
 * prefix_len rows that start at row prefix_row. A document is a segment without a prefix; two
 * replies to one prompt are the prompt's segment and two segments that name it as prefix. Row i
 * of a segment has position prefix_len + i. Segments cover all N rows, in order, without overlap;
 * a prefix lies within one earlier segment that has no prefix itself. */
typedef struct Segment {
    int32_t row, len, prefix_row, prefix_len;
} Segment;

/* Shape and rule of one attention layer. Query head h reads key/value head h / (H/K). */
typedef struct AttnShape {
    int H, K, E; /* H % K == 0, E % 8 == 0, 8 <= E <= 256 */
    int window;  /* keys with position distance >= window are hidden; 0: no window */
    float scale; /* on q.k */
    float cap;   /* s = cap tanh(s / cap) before the mask; 0: none */
} AttnShape;

/* s = scale q.k;  s = cap tanh(s/cap);  masked by segment and window;  o = softmax(s) v.
 *   o (N,H*E) store out =;  lse (N,H) f32 out =: log of the softmax denominator;
 *   q (N,H*E), k, v (N,K*E) store in;  seg (nseg) in device memory, host_seg the same on the host.
 * No (N,N) buffer: memory beyond the tensors is linear in N. A document's results, and its
 * gradients, do not depend on what else is in the pack nor on its place there, in bits. In a bf16
 * table, on a GPU and on processors that multiply pairs of bf16, products take bf16 alone: the
 * weights, not yet divided by their sum, are rounded before they multiply v, and in the backward
 * they and the gradients of the scores are rounded. */
typedef void op_attn_fwd(Exec *ex, store *o, float *lse, const store *q, const store *k,
                         const store *v, const Segment *seg, const Segment *host_seg, int nseg,
                         int N, AttnShape a);

/* Backward of attn_fwd.   dq (N,H*E), dk, dv (N,K*E) store out =;  d_o (N,H*E) store in;
 * q, k, v, o, lse, segments as given to and left by attn_fwd. */
typedef void op_attn_bwd(Exec *ex, store *dq, store *dk, store *dv, const store *d_o,
                         const store *q, const store *k, const store *v, const store *o,
                         const float *lse, const Segment *seg, const Segment *host_seg, int nseg,
                         int N, AttnShape a);

/* cache[slot[n]][pos[n]] = x[n] for keys and values.
 *   kcache, vcache (slots,T,K*E) store, other entries kept;  k, v (N,K*E) store in;
 *   slot, pos (N) i32 in, 0 <= pos < T; (slot, pos) pairs distinct.  W = K*E. */
typedef void op_kv_put(Exec *ex, store *kcache, store *vcache, const store *k, const store *v,
                       const int32_t *slot, const int32_t *pos, int N, int T, int W);

/* Attention of one new token per sequence over its cache, same rule as attn_fwd:
 * row n is at position len[n] - 1 and sees cache[slot[n]][0 .. len[n]-1] within the window.
 *   o, q (N,H*E) store out = / in;  caches (slots,T,K*E) store in;  slot, len (N) i32 in,
 *   1 <= len <= T. */
typedef void op_attn_decode(Exec *ex, store *o, const store *q, const store *kcache,
                            const store *vcache, const int32_t *slot, const int32_t *len, int N,
                            int T, AttnShape a);

/* ---------------------------------------------------------------------------------- ffn -- */

/* y = gelu(gate) up, gelu in its tanh form 0.5 g (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3))).
 *   y (n) store out =, may alias gate or up;  gate, up (n) store in. */
typedef void op_geglu_fwd(Exec *ex, store *y, const store *gate, const store *up, size_t n);

/* Backward:  dgate = dy up gelu'(gate),  dup = dy gelu(gate).
 *   dgate, dup (n) store out =, may alias gate and up in this order;  dy, gate, up (n) store in. */
typedef void op_geglu_bwd(Exec *ex, store *dgate, store *dup, const store *dy, const store *gate,
                          const store *up, size_t n);

/* ------------------------------------------------------------------------------- matmul -- */

/* NT:  C = alpha A B^T + beta C,  A (M,K), B (N,K): a linear layer, B the weight as stored.
 * NN:  C = alpha A B   + beta C,  A (M,K), B (K,N): its backward into the input.
 * NT_FEW is NT for the few rows of decoding, where reading B is what costs. */
enum GemmForm { GEMM_NT, GEMM_NN, GEMM_NT_FEW };

/* C (M,N) store, ldc elements from row to row; A, B store with lda, ldb. beta is 0 (C is then only
 * written) or 1. ld >= the row length. Each matrix may begin at any element, as slices of columns
 * do. Every element of C is a sum over K whose order depends on the form, not on M, on the row or
 * on threads; on a GPU also on the alignment that all rows of a matrix share, which 16 bytes make
 * the fastest. M = 0 does nothing. */
typedef void op_gemm(Exec *ex, store *C, int ldc, const store *A, int lda, const store *B, int ldb,
                     int M, int N, int K, enum GemmForm form, float alpha, float beta);

/* The same with an f32 result: the head's logits. */
typedef void op_gemm_f32(Exec *ex, float *C, int ldc, const store *A, int lda, const store *B,
                         int ldb, int M, int N, int K, enum GemmForm form, float alpha, float beta);

/* A weight gradient:  C += alpha A^T B, a sum over T rows (tokens), done in chunks of GRAD_CHUNK
 * rows that are added in order.   C (M,N) f32 out +=, contiguous;  A (T,M), B (T,N) store with lda,
 * ldb. All may begin at any element. */
enum { GRAD_CHUNK = 1024 };
typedef void op_gemm_grad(Exec *ex, float *C, const store *A, int lda, const store *B, int ldb,
                          int T, int M, int N, float alpha);

/* ---------------------------------------------------------------------- head and sampling -- */

/* Softcap, cross entropy and its gradient. With z = cap tanh(logits / cap) (cap 0: z = logits):
 *   nll[n] = log sum exp z[n] - z[n][target[n]]
 *   dlogits[n] = weight[n] (softmax(z) - onehot(target)) (1 - (z/cap)^2)
 *   dlogits (N,V) store out =, NULL: not wanted; in an f32 table it may alias logits;
 *   nll (N) f32 out =;  logits (N,V) f32 in;  target (N) i32 in, 0 <= target < V;
 *   weight (N) f32 in, not read without dlogits. */
typedef void op_xent(Exec *ex, store *dlogits, float *nll, const float *logits,
                     const int32_t *target, const float *weight, int N, int V, float cap);

/* What a row of logits says by itself. With z as for xent and p = softmax(z[n]),
 *   entropy[n] = -sum of p log p;   mean[n] = sum of z[n] / V;
 *   hit[n] = 1 where target[n] is the first of the row's largest logits, else 0
 *   entropy, mean, hit (N) f32 out =;  logits (N,V) f32 in;  target (N) i32 in, 0 <= target < V. */
typedef void op_logit_facts(Exec *ex, float *entropy, float *mean, float *hit, const float *logits,
                            const int32_t *target, int N, int V, float cap);

/* How the next token is drawn. temperature 0: the largest logit, lowest index on ties. Else from
 * softmax(z / temperature) restricted to the top_k largest (0: all), then to the smallest set
 * whose probability, among those, reaches top_p (1: all). Falling order; ties in index order. */
typedef struct Sampling {
    float temperature, top_p;
    int top_k;
} Sampling;

/* token[n] = draw from row n, at the quantile u[n] of the cumulative distribution taken in order
 * of falling probability. Weights are whole multiples of 2^-40 of the row's largest, so that sums
 * are exact and no order of summation can move a draw; rarer tokens are never drawn. A row that,
 * capped, holds NaN or +infinity, or nothing above -infinity, gives -1.
 *   token (N) i32 out =;  logits (N,V) f32 in/out (left capped; cap 0: none);
 *   u (N) f32 in, 0 <= u < 1; NULL when temperature is 0.  V <= 2^23. */
typedef void op_sample(Exec *ex, int32_t *token, float *logits, const float *u, int N, int V,
                       float cap, Sampling how);

/* ------------------------------------------------------------------------------ training -- */

/* y = round(x).   y (n) store out =;  x (n) f32 in. */
typedef void op_cast(Exec *ex, store *y, const float *x, size_t n);

/* y = x, exact.   y (n) f32 out =;  x (n) store in. */
typedef void op_uncast(Exec *ex, float *y, const store *x, size_t n);

/* y += a x.   y, x (n) f32 in/out, in. */
typedef void op_add(Exec *ex, float *y, const float *x, size_t n, float a);

/* Elements at, at + 1, ... at + n - 1 of a tensor. */
typedef struct Span {
    size_t at, n;
} Span;

/* sum[i] = sum of x^2 over span[i], in double, in an order that its n alone decides.
 *   sum (spans) f64 out =;  x f32 in;  span (spans) in: they may begin at any element.
 *   n: elements of all spans together. */
typedef void op_sumsq(Exec *ex, double *sum, const float *x, const Span *span, int spans, size_t n);

typedef struct AdamW {
    double lr, beta1, beta2, eps, weight_decay; /* double: 1 - 0.999f is off by 1e-5 */
    int step; /* 1 at the first update; corrects the bias of m and v */
} AdamW;

/* One AdamW update with decoupled decay, as torch.optim.AdamW:  g' = gscale g;
 *   p -= lr wd p;  m = b1 m + (1-b1) g';  v = b2 v + (1-b2) g'^2;
 *   p -= lr / (1-b1^step) m / (sqrt(v) / sqrt(1-b2^step) + eps)
 *   p, m, v (n) f32 in/out;  g (n) f32 in. What does not depend on the element is computed in
 * double and rounded to f32 once. Slices may begin at any element. */
typedef void op_adamw(Exec *ex, float *p, float *m, float *v, const float *g, size_t n,
                      float gscale, AdamW a);

/* An f32 master as products read it, and what that lacks: in a table of bf16 `high` is x rounded to
 * the nearest, ties away from zero, and `low` the difference of their bits (halves.h); in a table
 * of f32 high is x and low is not touched, NULL as a rule. join gives the bits of every number
 * back; NaN stays NaN, in high too.
 *   high (n) store, low (n) i16 out =, in;  x (n) f32 in, out =. Slices may begin anywhere. */
typedef void op_split(Exec *ex, store *high, int16_t *low, const float *x, size_t n);
typedef void op_join(Exec *ex, float *x, const store *high, const int16_t *low, size_t n);

/* The same update as adamw's of the masters p = join(high, low), which are split again.
 *   high (n) store, low (n) i16 in/out;  m, v, g as for adamw. */
typedef void op_adamw_split(Exec *ex, store *high, int16_t *low, float *m, float *v, const float *g,
                            size_t n, float gscale, AdamW a);

/* y = x - v^T (v x): what is left of each column of x beside k directions. Sums in double, in an
 * order that n alone decides; rounded once.
 *   y (n,R) f32 out =, may be x;  x (n,R) f32 in;  v (k,n) f32 in, rows orthonormal;
 *   n, R > 0;  0 < k <= n;  k <= 4096. */
typedef void op_project_out(Exec *ex, float *y, const float *x, const float *v, int n, int R,
                            int k);

/* index[0] = the first i with x[i] NaN or infinite, or -1.   index (1) i64 out =;  x (n) in: a
 * slice may begin at any element. */
typedef void op_find_bad(Exec *ex, int64_t *index, const store *x, size_t n);
typedef void op_find_bad_f32(Exec *ex, int64_t *index, const float *x, size_t n);

/* ---------------------------------------------------------------------------------- SAE -- */

enum SaeAct { SAE_RELU, SAE_JUMPRELU, SAE_TOPK };

/* EXACT: products as f32 has them.  FAST: of x and w rounded to bf16, summed in f32: a GPU
 * then has a third of the work, in a table of f32 a sixth, and a CPU with AMX in a table of bf16 a
 * third; it saves other CPUs nothing. What is infinite in x may make either NaN. */
#define SAE_PRODUCTS(X) X(SAE_EXACT, "exact") X(SAE_FAST, "fast")
enum SaeProducts { SAE_PRODUCTS(CHOICE_ENUM) };

/* An SAE encoder as ops see it.   w (D,S), b (S), threshold (S; NULL unless JumpReLU) f32.
 *   pre = x w + b;   ReLU: a = max(pre, 0);   JumpReLU: a = pre (pre > threshold);
 *   TopK: the `topk` largest pre of the row, then ReLU; ties go to the lower index. */
typedef struct SaeEncoder {
    const float *w, *b, *threshold;
    int D, S;
    enum SaeAct act;
    int topk;
    enum SaeProducts products;
} SaeEncoder;

/* a (N,S) f32 out =: the activations themselves, for few rows;  x (N,D) store in. */
typedef void op_sae_encode(Exec *ex, float *a, const store *x, SaeEncoder sae, int N);

/* Streaming statistics over two corpora without ever writing the activations. bin[n] is
 * corpus * G + group, corpus 0 or 1, or -1: the row does not count. For c, g of row n's bin:
 *   sum[c][g][s] += weight[n] a;   sumsq[c][s] += weight[n] a^2;
 *   fires[c][s] += a > 0;          max[c][s] = max(max[c][s], a)
 *   sum (2,G,S) f64, sumsq (2,S) f64, fires (2,S) i64 out +=;  max (2,S) f32 in/out;
 *   x (N,D) store in;  bin (N) i32 in;  weight (N) f32 in, > 0.
 * Rows are added in order, in double. */
typedef void op_sae_stats(Exec *ex, double *sum, double *sumsq, int64_t *fires, float *max,
                          const store *x, const int32_t *bin, const float *weight, SaeEncoder sae,
                          int N, int G);

/* --------------------------------------------------------- choices and factorisations -- */

/* The k largest of n values, the largest first, equal ones by index.   index (k) i32 out =;
 * value (n) f64 in, no NaN;  0 < k <= n <= 2^24. */
typedef void op_top_k(Exec *ex, int32_t *index, const double *value, int n, int k);

/* Thin SVD in double:  A = U diag(s) Vt, s falling.   A (M,N) in, destroyed; U (M,m) out =;
 * s (m) out =;  Vt (m,N) out =;  m = min(M,N). Signs of factor pairs are not fixed. */
typedef void op_svd(Exec *ex, double *U, double *s, double *Vt, double *A, int M, int N);

/* Thin QR in double, M >= N: A (M,N) in/out becomes Q with orthonormal columns that span the same
 * nested spaces. Signs of columns are not fixed. */
typedef void op_qr(Exec *ex, double *A, int M, int N);

/* ---------------------------------------------------------------------------- workspace -- */

/* <op>_scratch: the bytes that the op takes of exec_scratch for a call of these sizes, with as many
 * threads as there are now; 0 where this twin needs none. Nothing is checked. */
typedef size_t op_rmsnorm_grad_scratch(Exec *ex, int N, int D);
typedef size_t op_rope_table_scratch(Exec *ex, int E);
typedef size_t op_attn_fwd_scratch(Exec *ex, int nseg, int N, AttnShape a);
typedef size_t op_attn_bwd_scratch(Exec *ex, int nseg, int N, AttnShape a);
typedef size_t op_attn_decode_scratch(Exec *ex, int N, int T, AttnShape a);
typedef size_t op_gemm_scratch(Exec *ex, int M, int K, enum GemmForm form); /* of gemm_f32, too */
typedef size_t op_gemm_grad_scratch(Exec *ex, int T, int M, int N);
typedef size_t op_xent_scratch(Exec *ex, int N, int V);
typedef size_t op_sample_scratch(Exec *ex, int N, int V, Sampling how);
typedef size_t op_project_out_scratch(Exec *ex, int R, int k);
typedef size_t op_sae_encode_scratch(Exec *ex, const SaeEncoder *sae, int N);
typedef size_t op_sae_stats_scratch(Exec *ex, const SaeEncoder *sae, int N);
typedef size_t op_top_k_scratch(Exec *ex, int n);
typedef size_t op_svd_scratch(Exec *ex, int M, int N);
typedef size_t op_qr_scratch(Exec *ex, int M, int N);

/* The one list of ops, and that of what they say of their workspace. Everything below follows from
 * them: a twin that is missing is a link error, a twin with another signature is a compile error.
 */
/* clang-format off */
#define SAILS_OPS(X) \
    X(embed_fwd) X(embed_bwd) X(gather_rows) X(scatter_rows) \
    X(rmsnorm_fwd) X(rmsnorm_bwd) X(rmsnorm_grad) X(residual_norm_fwd) X(residual_norm_bwd) \
    X(rope_table) X(rope_fwd) X(rope_bwd) X(attn_fwd) X(attn_bwd) X(kv_put) X(attn_decode) \
    X(geglu_fwd) X(geglu_bwd) X(gemm) X(gemm_f32) X(gemm_grad) X(xent) X(logit_facts) X(sample) \
    X(cast) X(uncast) X(add) X(sumsq) X(adamw) X(split) X(join) X(adamw_split) \
    X(project_out) X(find_bad) X(find_bad_f32) \
    X(sae_encode) X(sae_stats) X(top_k) X(svd) X(qr)
#define SAILS_SCRATCHES(X) \
    X(rmsnorm_grad_scratch) X(rope_table_scratch) X(attn_fwd_scratch) X(attn_bwd_scratch) \
    X(attn_decode_scratch) X(gemm_scratch) X(gemm_grad_scratch) X(xent_scratch) X(sample_scratch) \
    X(project_out_scratch) X(sae_encode_scratch) X(sae_stats_scratch) X(top_k_scratch) \
    X(svd_scratch) X(qr_scratch)
#define SAILS_TABLE(X) SAILS_OPS(X) SAILS_SCRATCHES(X)
/* clang-format on */

typedef struct Ops {
    const char *name; /* "cpu avx512 f32", "cuda bf16": what bits depend on beside the build; those
                       * of svd and qr depend on the processor, too (cpu_level.h) */
    bool rounds;      /* products take operands in the storage type alone: attention rounds its
                       * weights to it, and the gradients of its scores */
#define X(op) op_##op *op;
    SAILS_TABLE(X)
#undef X
} Ops;

#ifdef __cplusplus
}
#endif
#endif
