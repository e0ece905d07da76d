/* gemm_cuda.c - matrix products by cuBLASLt. Contracts: ops.h.
 *
 * cuBLASLt works on column-major matrices, where a row-major C is C^T. So every product is computed
 * as C^T (N,M) = op(B) (N,K) op(A) (K,M): B comes first, the row length is the leading dimension.
 *
 * Bits: the library's first heuristic answer is taken, never a timed choice, with one workspace
 * size and without split-K. For gemm the heuristic is asked with a fixed number of rows and its
 * answer serves every M, so that a row's result does not depend on how many rows come with it. The
 * library may decline to use it for some M; only such an M gets an algorithm of its own.
 *
 * Alignment: the library is told to which bytes the rows of each matrix begin at multiples of, and
 * picks a kernel that reads so many at once, down to one element. That is what every row of the
 * matrix has in common (row_alignment), so that it too says nothing about which rows were asked
 * for. Only odd shapes have less than 16 bytes: LoRA ranks that are no multiple of 8, say. Their
 * columns are not padded to it: it would put a second layout into every place that knows of ranks,
 * to speed up products that wait for memory.
 *
 * Limits: f32 products are true f32 (no TF32): the parity mode. */
#include <cublasLt.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda.h"

enum { REF_ROWS = 1024, FEW_ROWS = 16, CACHE_SIZE = 128 };
enum { MOST_ALIGNED = 16 }; /* bytes: the widest access */

#define BLAS_CHECK(call)                                         \
    do {                                                         \
        cublasStatus_t status_ = (call);                         \
        CHECK(status_ == CUBLAS_STATUS_SUCCESS, "%s: %s", #call, \
              cublasLtGetStatusString(status_));                 \
    } while (0)

/* What an algorithm is chosen by. Compared by memcmp, so it has no padding. */
typedef struct Key {
    int rows; /* of C, when the heuristic is asked */
    int N, K, lda, ldb, ldc;
    int align_a, align_b, align_c;  /* row_alignment */
    int a_by_columns, b_by_columns; /* A stored (K,M); B stored (N,K) */
    cudaDataType_t type_in, type_out;
} Key;
_Static_assert(sizeof(Key) == 13 * sizeof(int), "padding in Key");

typedef struct Plan {
    Key key;
    cublasLtMatmulDesc_t desc;
    cublasLtMatmulAlgo_t algo;
    uint64_t used; /* clock of the last use; 0: free */
} Plan;

typedef struct MatmulState {
    cublasLtHandle_t handle;
    void *workspace;
    Plan plan[CACHE_SIZE];
    uint64_t clock;
} MatmulState;

const char *matmul_open(CudaState *s) {
    MatmulState *m = calloc(1, sizeof *m);
    CHECK(m, "out of memory");
    s->blas = m;
    if (cublasLtCreate(&m->handle) != CUBLAS_STATUS_SUCCESS) return "cuBLASLt does not start";
    if (cudaMalloc(&m->workspace, MATMUL_BYTES) != cudaSuccess)
        return "no device memory for cuBLASLt's workspace";
    return NULL;
}

void matmul_close(CudaState *s) {
    MatmulState *m = s->blas;
    for (int i = 0; i < CACHE_SIZE; i++)
        if (m->plan[i].used) BLAS_CHECK(cublasLtMatmulDescDestroy(m->plan[i].desc));
    CUDA_CHECK(cudaFree(m->workspace));
    BLAS_CHECK(cublasLtDestroy(m->handle));
    free(m);
}

/* The three matrices as cuBLASLt sees them, for a product with M rows. */
typedef struct Layouts {
    cublasLtMatrixLayoutOpaque_t b, a, c;
} Layouts;

static Layouts layouts(const Key *k, int M) {
    Layouts l;
    uint64_t N = (uint64_t)k->N, K = (uint64_t)k->K, rows = (uint64_t)M;
    BLAS_CHECK(cublasLtMatrixLayoutInit(&l.b, k->type_in, k->b_by_columns ? K : N,
                                        k->b_by_columns ? N : K, k->ldb));
    BLAS_CHECK(cublasLtMatrixLayoutInit(&l.a, k->type_in, k->a_by_columns ? rows : K,
                                        k->a_by_columns ? K : rows, k->lda));
    BLAS_CHECK(cublasLtMatrixLayoutInit(&l.c, k->type_out, N, rows, k->ldc));
    return l;
}

static void prefer(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t what,
                   const void *value, size_t bytes) {
    BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(p, what, value, bytes));
}

/* The heuristic's first answer. */
static void choose(MatmulState *m, Plan *p) {
    const Key *k = &p->key;
    Layouts l = layouts(k, k->rows);
    cublasLtMatmulPreference_t pref;
    BLAS_CHECK(cublasLtMatmulPreferenceCreate(&pref));
    uint32_t no_split = CUBLASLT_REDUCTION_SCHEME_NONE;
    size_t workspace = MATMUL_BYTES;
    prefer(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &no_split, sizeof no_split);
    prefer(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    uint32_t a = (uint32_t)k->align_a, b = (uint32_t)k->align_b, c = (uint32_t)k->align_c;
    prefer(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &b, sizeof b); /* B comes first */
    prefer(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &a, sizeof a);
    prefer(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c, sizeof c);
    prefer(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &c, sizeof c);
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(m->handle, p->desc, &l.b, &l.a, &l.c,
                                                           &l.c, pref, 1, &found, &count);
    CHECK(status == CUBLAS_STATUS_SUCCESS && count == 1,
          "cuBLASLt has no algorithm for N=%d K=%d lda=%d ldb=%d ldc=%d, rows at multiples of "
          "%d %d %d bytes: %s",
          k->N, k->K, k->lda, k->ldb, k->ldc, k->align_a, k->align_b, k->align_c,
          cublasLtGetStatusString(status));
    p->algo = found.algo;
    BLAS_CHECK(cublasLtMatmulPreferenceDestroy(pref));
}

static void make_plan(MatmulState *m, Plan *p, const Key *k) {
    p->key = *k;
    BLAS_CHECK(cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    int32_t op_b = k->b_by_columns ? CUBLAS_OP_T : CUBLAS_OP_N;
    int32_t op_a = k->a_by_columns ? CUBLAS_OP_T : CUBLAS_OP_N;
    BLAS_CHECK(
        cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &op_b, sizeof op_b));
    BLAS_CHECK(
        cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, &op_a, sizeof op_a));
    choose(m, p);
}

/* The plan for a product; the one unused longest makes room. */
static Plan *find_plan(MatmulState *m, const Key *k) {
    Plan *oldest = m->plan;
    for (Plan *p = m->plan; p < m->plan + CACHE_SIZE; p++) {
        if (p->used && memcmp(&p->key, k, sizeof *k) == 0) {
            p->used = ++m->clock;
            return p;
        }
        if (p->used < oldest->used) oldest = p;
    }
    if (oldest->used) BLAS_CHECK(cublasLtMatmulDescDestroy(oldest->desc));
    make_plan(m, oldest, k);
    oldest->used = ++m->clock;
    return oldest;
}

static cublasStatus_t run(CudaState *s, const Key *k, void *C, const void *A, const void *B, int M,
                          float alpha, float beta) {
    MatmulState *m = s->blas;
    Plan *p = find_plan(m, k);
    Layouts l = layouts(k, M);
    return cublasLtMatmul(m->handle, p->desc, &alpha, B, &l.b, A, &l.a, &beta, C, &l.c, C, &l.c,
                          &p->algo, m->workspace, MATMUL_BYTES, s->stream);
}

/* The largest power of two, up to MOST_ALIGNED, that every row's address is a multiple of. Rows
 * further down give the same: their distance is a multiple of the leading dimension. */
static int row_alignment(const void *p, int ld, cudaDataType_t type) {
    uintptr_t bits = (uintptr_t)p | (uintptr_t)ld * (type == CUDA_R_32F ? 4 : 2) | MOST_ALIGNED;
    return (int)(bits & -bits);
}

static void multiply(Exec *ex, Key k, void *C, const void *A, const void *B, int M, float alpha,
                     float beta) {
    CudaState *s = cuda_state(ex);
    k.type_in = ex->dtype == DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
    k.align_a = row_alignment(A, k.lda, k.type_in);
    k.align_b = row_alignment(B, k.ldb, k.type_in);
    k.align_c = row_alignment(C, k.ldc, k.type_out);
    cublasStatus_t status = run(s, &k, C, A, B, M, alpha, beta);
    /* The library has two names for an algorithm that this M does not suit: INVALID_VALUE also says
     * that it would need more workspace. */
    bool unsuited = status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE;
    if (unsuited && k.rows != M) {
        k.rows = M;
        status = run(s, &k, C, A, B, M, alpha, beta);
    }
    CHECK(status == CUBLAS_STATUS_SUCCESS, "cublasLtMatmul of M=%d N=%d K=%d: %s", M, k.N, k.K,
          cublasLtGetStatusString(status));
    cuda_launched(ex, cudaSuccess, "cublasLtMatmul");
}

static void forms(Exec *ex, cudaDataType_t type_out, void *C, int ldc, const store *A, int lda,
                  const store *B, int ldb, int M, int N, int K, enum GemmForm form, float alpha,
                  float beta) {
    if (M == 0) return;
    Key k = {.N = N, .K = K, .lda = lda, .ldb = ldb, .ldc = ldc};
    k.rows = form == GEMM_NT_FEW ? FEW_ROWS : REF_ROWS;
    k.type_out = type_out;
    k.b_by_columns = form != GEMM_NN;
    multiply(ex, k, C, A, B, M, alpha, beta);
}

static void gemm(Exec *ex, store *C, int ldc, const store *A, int lda, const store *B, int ldb,
                 int M, int N, int K, enum GemmForm form, float alpha, float beta) {
    OP_BEGIN(ex, gemm, ldc, lda, ldb, M, N, K, form, beta);
    cudaDataType_t type = ex->dtype == DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
    forms(ex, type, C, ldc, A, lda, B, ldb, M, N, K, form, alpha, beta);
}

static void gemm_f32(Exec *ex, float *C, int ldc, const store *A, int lda, const store *B, int ldb,
                     int M, int N, int K, enum GemmForm form, float alpha, float beta) {
    OP_BEGIN(ex, gemm_f32, ldc, lda, ldb, M, N, K, form, beta);
    forms(ex, CUDA_R_32F, C, ldc, A, lda, B, ldb, M, N, K, form, alpha, beta);
}

static void gemm_grad(Exec *ex, float *C, const store *A, int lda, const store *B, int ldb, int T,
                      int M, int N, float alpha) {
    OP_BEGIN(ex, gemm_grad, lda, ldb, T, M, N);
    for (int t = 0; t < T; t += GRAD_CHUNK) {
        Key k = {.rows = M, .N = N, .lda = lda, .ldb = ldb, .ldc = N, .type_out = CUDA_R_32F};
        k.K = T - t < GRAD_CHUNK ? T - t : GRAD_CHUNK;
        k.a_by_columns = true;
        multiply(ex, k, C, store_at_const(ex->dtype, A, (size_t)t * (size_t)lda),
                 store_at_const(ex->dtype, B, (size_t)t * (size_t)ldb), M, alpha, 1);
    }
}

/* The library has a workspace of its own. */
static size_t gemm_scratch(Exec *ex, int M, int K, enum GemmForm form) {
    (void)ex, (void)M, (void)K, (void)form;
    return 0;
}
static size_t gemm_grad_scratch(Exec *ex, int T, int M, int N) {
    (void)ex, (void)T, (void)M, (void)N;
    return 0;
}

/* One function serves both storage types: they differ only in what the library is told. */
op_gemm *const cuda_gemm[DTYPE_COUNT] = {gemm, gemm};
op_gemm_f32 *const cuda_gemm_f32[DTYPE_COUNT] = {gemm_f32, gemm_f32};
op_gemm_grad *const cuda_gemm_grad[DTYPE_COUNT] = {gemm_grad, gemm_grad};
op_gemm_scratch *const cuda_gemm_scratch[DTYPE_COUNT] = {gemm_scratch, gemm_scratch};
op_gemm_grad_scratch *const cuda_gemm_grad_scratch[DTYPE_COUNT] = {gemm_grad_scratch,
                                                                   gemm_grad_scratch};
