/* gemm.c - matrix products by oneDNN. Contracts: ops.h.
 *
 * Every product is one matmul primitive described by shape and strides, so nothing is packed or
 * transposed by hand. Making a primitive costs 0.3 ms; the last CACHE_SIZE ones are kept. */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <string.h>

#include "kernels/cpu/twin.h"

enum { CACHE_SIZE = 64, GRAD_CHUNK = 1024 };

/* What a primitive is made from. Compared by memcmp: always zeroed first. */
typedef struct Key {
    dnnl_dims_t dims_a, dims_b, dims_c, strides_a, strides_b, strides_c;
    dnnl_data_type_t type_in, type_out;
    float alpha;
    int threads;
    bool accumulate;
} Key;

typedef struct Entry {
    Key key;
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c;
    uint64_t used; /* clock of the last use; 0: free */
} Entry;

static struct {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    Entry entry[CACHE_SIZE];
    uint64_t clock;
} lib;

#define DNNL(call)                                                       \
    do {                                                                 \
        dnnl_status_t status_ = (call);                                  \
        CHECK(status_ == dnnl_success, "%s failed: %d", #call, status_); \
    } while (0)

static dnnl_memory_t describe(dnnl_memory_desc_t *d, const dnnl_dims_t dims,
                              const dnnl_dims_t strides, dnnl_data_type_t type) {
    dnnl_memory_t m;
    DNNL(dnnl_memory_desc_init_by_strides(d, 2, dims, type, strides));
    DNNL(dnnl_memory_create(&m, d, lib.engine, DNNL_MEMORY_NONE));
    return m;
}

static dnnl_primitive_attr_t attributes(const Key *k) {
    dnnl_primitive_attr_t attr;
    DNNL(dnnl_primitive_attr_create(&attr));
    if (k->alpha != 1) DNNL(dnnl_primitive_attr_set_output_scales(attr, 1, 0, &k->alpha));
    if (k->accumulate) {
        dnnl_post_ops_t ops;
        DNNL(dnnl_post_ops_create(&ops));
        DNNL(dnnl_post_ops_append_sum(ops, 1.0f));
        DNNL(dnnl_primitive_attr_set_post_ops(attr, ops));
        DNNL(dnnl_post_ops_destroy(ops));
    }
    return attr;
}

static void entry_free(Entry *e) {
    if (!e->used) return;
    DNNL(dnnl_primitive_destroy(e->primitive));
    DNNL(dnnl_memory_destroy(e->a));
    DNNL(dnnl_memory_destroy(e->b));
    DNNL(dnnl_memory_destroy(e->c));
    e->used = 0;
}

static void entry_make(Entry *e, const Key *k) {
    if (!lib.engine) {
        DNNL(dnnl_engine_create(&lib.engine, dnnl_cpu, 0));
        DNNL(dnnl_stream_create(&lib.stream, lib.engine, dnnl_stream_default_flags));
    }
    dnnl_memory_desc_t a, b, c;
    e->key = *k;
    e->a = describe(&a, k->dims_a, k->strides_a, k->type_in);
    e->b = describe(&b, k->dims_b, k->strides_b, k->type_in);
    e->c = describe(&c, k->dims_c, k->strides_c, k->type_out);
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_attr_t attr = attributes(k);
    DNNL(dnnl_matmul_desc_init(&matmul, &a, &b, NULL, &c));
    DNNL(dnnl_primitive_desc_create(&pd, &matmul, attr, lib.engine, NULL));
    DNNL(dnnl_primitive_create(&e->primitive, pd));
    DNNL(dnnl_primitive_desc_destroy(pd));
    DNNL(dnnl_primitive_attr_destroy(attr));
}

static Entry *entry_find(const Key *k) {
    Entry *oldest = lib.entry;
    for (Entry *e = lib.entry; e < lib.entry + CACHE_SIZE; e++) {
        if (e->used && memcmp(&e->key, k, sizeof *k) == 0) {
            e->used = ++lib.clock;
            return e;
        }
        if (e->used < oldest->used) oldest = e;
    }
    entry_free(oldest);
    entry_make(oldest, k);
    oldest->used = ++lib.clock;
    return oldest;
}

/* C (M,N) = alpha A (M,K) B (K,N) [+ C]; a and b hold the strides of a row and of a column. */
static void multiply(void *C, int ldc, bool c_is_f32, const elem *A, int a_row, int a_col,
                     const elem *B, int b_row, int b_col, int M, int N, int K, float alpha,
                     bool accumulate) {
    Key k;
    memset(&k, 0, sizeof k);
    k.dims_a[0] = M, k.dims_a[1] = K, k.strides_a[0] = a_row, k.strides_a[1] = a_col;
    k.dims_b[0] = K, k.dims_b[1] = N, k.strides_b[0] = b_row, k.strides_b[1] = b_col;
    k.dims_c[0] = M, k.dims_c[1] = N, k.strides_c[0] = ldc, k.strides_c[1] = 1;
    k.type_in = TWIN_DTYPE == DTYPE_F32 ? dnnl_f32 : dnnl_bf16;
    k.type_out = c_is_f32 ? dnnl_f32 : k.type_in;
    k.alpha = alpha;
    k.threads = omp_get_max_threads();
    k.accumulate = accumulate;
    Entry *e = entry_find(&k);
    DNNL(dnnl_memory_set_data_handle(e->a, (void *)(uintptr_t)A));
    DNNL(dnnl_memory_set_data_handle(e->b, (void *)(uintptr_t)B));
    DNNL(dnnl_memory_set_data_handle(e->c, C));
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, e->a}, {DNNL_ARG_WEIGHTS, e->b}, {DNNL_ARG_DST, e->c}};
    DNNL(dnnl_primitive_execute(e->primitive, lib.stream, 3, args));
}

static void forms(void *C, int ldc, bool c_is_f32, const store *A, int lda, const store *B, int ldb,
                  int M, int N, int K, enum GemmForm form, float alpha, float beta) {
    CHECK(M >= 0 && N > 0 && K > 0 && ldc >= N && lda >= K && ldb >= (form == GEMM_NT ? K : N),
          "M=%d N=%d K=%d ldc=%d lda=%d ldb=%d form=%d", M, N, K, ldc, lda, ldb, form);
    CHECK(beta == 0 || beta == 1, "expected beta 0 or 1, got %g", beta);
    if (M == 0) return;
    int b_row = form == GEMM_NT ? 1 : ldb, b_col = form == GEMM_NT ? ldb : 1;
    multiply(C, ldc, c_is_f32, elems_const(A), lda, 1, elems_const(B), b_row, b_col, M, N, K, alpha,
             beta == 1);
}

void TWIN(gemm)(Exec *ex, store *C, int ldc, const store *A, int lda, const store *B, int ldb,
                int M, int N, int K, enum GemmForm form, float alpha, float beta) {
    OP_GATE(ex);
    forms(C, ldc, false, A, lda, B, ldb, M, N, K, form, alpha, beta);
}

void TWIN(gemm_f32)(Exec *ex, float *C, int ldc, const store *A, int lda, const store *B, int ldb,
                    int M, int N, int K, enum GemmForm form, float alpha, float beta) {
    OP_GATE(ex);
    forms(C, ldc, true, A, lda, B, ldb, M, N, K, form, alpha, beta);
}

void TWIN(gemm_grad)(Exec *ex, float *C, const store *A, int lda, const store *B, int ldb, int T,
                     int M, int N, float alpha) {
    OP_GATE(ex);
    CHECK(T >= 0 && M > 0 && N > 0 && lda >= M && ldb >= N, "T=%d M=%d N=%d lda=%d ldb=%d", T, M, N,
          lda, ldb);
    for (int t = 0; t < T; t += GRAD_CHUNK) {
        int rows = T - t < GRAD_CHUNK ? T - t : GRAD_CHUNK;
        multiply(C, N, true, elems_const(A) + (size_t)t * lda, 1, lda,
                 elems_const(B) + (size_t)t * ldb, ldb, 1, M, N, rows, alpha, true);
    }
}
