/* gemm.c - matrix products: tiles of our own, or oneDNN where it knows better instructions.
 *
 * A oneDNN product is one matmul primitive described by shape and strides, so nothing is packed or
 * transposed by hand. Making one costs 0.3 ms; the last CACHE_SIZE are kept. */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/gemm_tiles.h"

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

/* Our tiles are faster with the instructions that this file was compiled for. oneDNN finds out at
 * run time what there is: it is better on processors with AMX, and in a build for any processor.
 * SAILS_GEMM=onednn (tests) takes it wherever it can be taken. */
static bool onednn_is_better(int isa) {
    const char *wanted = getenv("SAILS_GEMM");
    if (wanted && strcmp(wanted, "onednn") == 0) return true;
#if defined __AVX512BF16__ || (defined TWIN_f32 && defined __AVX512F__)
    int amx = dnnl_cpu_isa_avx512_core_amx;
    return TWIN_DTYPE == DTYPE_BF16 && (isa & amx) == amx;
#else
    (void)isa;
    return true;
#endif
}

/* Where oneDNN's sums keep the order that ops.h promises: in its brgemm kernels, which want
 * AVX-512 (for bf16 with the bf16 instructions) and matrices without gaps between rows. Its other
 * kernels split K by the number of threads and choose another order for few rows. */
static bool onednn_fits(const Product *p) {
    static int isa = -1, better;
    if (isa < 0) better = onednn_is_better(isa = (int)dnnl_get_effective_cpu_isa());
    if (!better) return false;
    int need = TWIN_DTYPE == DTYPE_F32 ? dnnl_cpu_isa_avx512_core : dnnl_cpu_isa_avx512_core_bf16;
    bool dense_a = p->a_col == 1 ? p->a_row == (size_t)p->K : p->a_col == (size_t)p->M;
    bool dense_b = p->b_col == 1 ? p->b_row == (size_t)p->N : p->b_col == (size_t)p->K;
    bool dense_c = p->c_col == 1 && p->c_row == (size_t)p->N;
    return (isa & need) == need && dense_a && dense_b && dense_c;
}

static void multiply(Exec *ex, const Product *p) {
    if (p->M == 0) return;
    if (!onednn_fits(p)) {
        TWIN(gemm_tiles)(ex, p);
        return;
    }
    Key k;
    memset(&k, 0, sizeof k);
    k.dims_a[0] = p->M, k.dims_a[1] = p->K;
    k.dims_b[0] = p->K, k.dims_b[1] = p->N;
    k.dims_c[0] = p->M, k.dims_c[1] = p->N;
    k.strides_a[0] = (dnnl_dim_t)p->a_row, k.strides_a[1] = (dnnl_dim_t)p->a_col;
    k.strides_b[0] = (dnnl_dim_t)p->b_row, k.strides_b[1] = (dnnl_dim_t)p->b_col;
    k.strides_c[0] = (dnnl_dim_t)p->c_row, k.strides_c[1] = 1;
    k.type_in = TWIN_DTYPE == DTYPE_F32 ? dnnl_f32 : dnnl_bf16;
    k.type_out = p->c_is_f32 ? dnnl_f32 : k.type_in;
    k.alpha = p->alpha;
    k.accumulate = p->accumulate;
    k.threads = omp_get_max_threads();
    Entry *e = entry_find(&k);
    DNNL(dnnl_memory_set_data_handle(e->a, (void *)(uintptr_t)p->A));
    DNNL(dnnl_memory_set_data_handle(e->b, (void *)(uintptr_t)p->B));
    DNNL(dnnl_memory_set_data_handle(e->c, p->C));
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, e->a}, {DNNL_ARG_WEIGHTS, e->b}, {DNNL_ARG_DST, e->c}};
    DNNL(dnnl_primitive_execute(e->primitive, lib.stream, 3, args));
}

static void forms(Exec *ex, void *C, int ldc, bool c_is_f32, const store *A, int lda,
                  const store *B, int ldb, int M, int N, int K, enum GemmForm form, float alpha,
                  float beta) {
    CHECK(M >= 0 && N > 0 && K > 0 && ldc >= N && lda >= K && ldb >= (form == GEMM_NN ? N : K),
          "M=%d N=%d K=%d ldc=%d lda=%d ldb=%d form=%d", M, N, K, ldc, lda, ldb, form);
    CHECK(beta == 0 || beta == 1, "expected beta 0 or 1, got %g", (double)beta);
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
    if (form == GEMM_NT_FEW)
        TWIN(gemm_few)(ex, &p);
    else
        multiply(ex, &p);
}

void TWIN(gemm)(Exec *ex, store *C, int ldc, const store *A, int lda, const store *B, int ldb,
                int M, int N, int K, enum GemmForm form, float alpha, float beta) {
    OP_GATE(ex);
    forms(ex, C, ldc, false, A, lda, B, ldb, M, N, K, form, alpha, beta);
}

void TWIN(gemm_f32)(Exec *ex, float *C, int ldc, const store *A, int lda, const store *B, int ldb,
                    int M, int N, int K, enum GemmForm form, float alpha, float beta) {
    OP_GATE(ex);
    forms(ex, C, ldc, true, A, lda, B, ldb, M, N, K, form, alpha, beta);
}

/* The same product as C^T = B^T A^T. Of two operands that both must be packed, the right one is
 * packed a panel at a time, the left one as a whole: that should be the narrower. */
static Product transposed(Product p) {
    Product t = p;
    t.A = p.B, t.a_row = p.b_col, t.a_col = p.b_row;
    t.B = p.A, t.b_row = p.a_col, t.b_col = p.a_row;
    t.c_row = p.c_col, t.c_col = p.c_row;
    t.M = p.N, t.N = p.M;
    return t;
}

void TWIN(gemm_grad)(Exec *ex, float *C, const store *A, int lda, const store *B, int ldb, int T,
                     int M, int N, float alpha) {
    OP_GATE(ex);
    CHECK(T >= 0 && M > 0 && N > 0 && lda >= M && ldb >= N, "T=%d M=%d N=%d lda=%d ldb=%d", T, M, N,
          lda, ldb);
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
                     .K = T - t < GRAD_CHUNK ? T - t : GRAD_CHUNK,
                     .alpha = alpha,
                     .accumulate = true};
        if (M > N && !onednn_fits(&p)) p = transposed(p);
        multiply(ex, &p);
    }
}
