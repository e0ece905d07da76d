/* gemm.c - matrix products: what the ops' forms mean to the engines of gemm_tiles.h. */
#include "kernels/cpu/gemm_tiles.h"

static void forms(Exec *ex, void *C, int ldc, bool c_is_f32, const store *A, int lda,
                  const store *B, int ldb, int M, int N, int K, enum GemmForm form, float alpha,
                  float beta) {
    Product p = {.C = C,
                 .c_row = (size_t)ldc,
                 .c_col = 1,
                 .c_is_f32 = c_is_f32,
                 .A = elems_const(A),
                 .a_row = (size_t)lda,
                 .a_col = 1,
                 .B = elems_const(B),
                 .b_row = form == GEMM_NN ? (size_t)ldb : 1,
                 .b_col = form == GEMM_NN ? 1 : (size_t)ldb,
                 .M = M,
                 .N = N,
                 .K = K,
                 .alpha = alpha,
                 .accumulate = beta == 1};
    (form == GEMM_NT_FEW ? TWIN(gemm_few) : TWIN(gemm_tiles))(ex, &p);
}

size_t TWIN(gemm_scratch)(Exec *ex, int M, int K, enum GemmForm form) {
    (void)ex;
    return form == GEMM_NT_FEW ? TWIN(gemm_few_scratch)(M, K)
                               : TWIN(gemm_tiles_scratch)(M, K, true);
}

void TWIN(gemm)(Exec *ex, store *C, int ldc, const store *A, int lda, const store *B, int ldb,
                int M, int N, int K, enum GemmForm form, float alpha, float beta) {
    OP_BEGIN(ex, gemm, ldc, lda, ldb, M, N, K, form, beta);
    forms(ex, C, ldc, false, A, lda, B, ldb, M, N, K, form, alpha, beta);
}

void TWIN(gemm_f32)(Exec *ex, float *C, int ldc, const store *A, int lda, const store *B, int ldb,
                    int M, int N, int K, enum GemmForm form, float alpha, float beta) {
    OP_BEGIN(ex, gemm_f32, ldc, lda, ldb, M, N, K, form, beta);
    forms(ex, C, ldc, true, A, lda, B, ldb, M, N, K, form, alpha, beta);
}

static int grad_chunk(int T) {
    return T < GRAD_CHUNK ? T : GRAD_CHUNK;
}

size_t TWIN(gemm_grad_scratch)(Exec *ex, int T, int M, int N) {
    (void)ex;
    return TWIN(gemm_tiles_scratch)(M < N ? M : N, grad_chunk(T), false);
}

void TWIN(gemm_grad)(Exec *ex, float *C, const store *A, int lda, const store *B, int ldb, int T,
                     int M, int N, float alpha) {
    OP_BEGIN(ex, gemm_grad, lda, ldb, T, M, N);
    for (int t = 0; t < T; t += GRAD_CHUNK) {
        Product p = {.C = C,
                     .c_row = (size_t)N,
                     .c_col = 1,
                     .c_is_f32 = true,
                     .A = elems_const(A) + (size_t)t * lda,
                     .a_row = 1,
                     .a_col = (size_t)lda,
                     .B = elems_const(B) + (size_t)t * ldb,
                     .b_row = (size_t)ldb,
                     .b_col = 1,
                     .M = M,
                     .N = N,
                     .K = grad_chunk(T - t),
                     .alpha = alpha,
                     .accumulate = true};
        /* Of two operands that both must be packed, the right one is packed a part at a time, the
         * left one as a whole: that should be the narrower. */
        if (M > N) p = product_transposed(&p);
        TWIN(gemm_tiles)(ex, &p);
    }
}
