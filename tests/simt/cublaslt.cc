/* cublaslt.cc - the part of cuBLASLt that kernels/gemm_cuda.c uses, over plain loops.
 *
 * Only what is listed is allowed: types, operations, attributes, and of the reduction schemes NONE,
 * since the others add up in an order of their own. An algorithm remembers what it was asked for,
 * and a product that does not fit its algorithm, its layouts or the promised alignment is refused;
 * so are operands that overlap the result. Algorithms found for many columns of C do not support a
 * single one, and those found for few take more workspace for many than they were asked with, as a
 * library may have it; with SIMT_BLAS=empty none is found for anything. Sums run over k in order,
 * in f32; but for operands of which less than 16 bytes of alignment are promised, even k come first
 * and then the odd ones, since a library has other kernels for them. The workspace is left full of
 * NaN. */
#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/bf16.h"
#include "tests/simt/simt.h"

using namespace simt;

namespace {

enum : uint64_t { HANDLE = 0x73696d745f6c74, ALGO = 0x73696d745f616c };
enum { NEEDED_WORKSPACE = 4 << 20, WORKSPACE_ALIGNMENT = 256, MANY_COLUMNS = 64, ALIGNED = 16 };
enum { CODE_BYTES = 2 << 20 };

/* Of the table of types in the documentation of cublasLtMatmul(): what a product of regular
 * column-major matrices may have. */
const struct {
    cublasComputeType_t compute;
    cudaDataType_t scale, in, out;
} allowed[] = {
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_16BF},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_16BF, CUDA_R_32F},
    {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F},
};

/* What the opaque structs hold here. */
struct Desc {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    int32_t op_a, op_b;
};
struct Layout {
    uint64_t type; /* cudaDataType_t */
    uint64_t rows, cols;
    int64_t ld;
};
struct Preference {
    uint64_t workspace;
    uint32_t alignment[4]; /* of A, B, C, D */
};
struct Algo {
    uint64_t magic;
    int32_t op_a, op_b;
    uint32_t type_in, type_out, m, k, ld_a, ld_b, ld_c; /* the columns of C are left free */
    uint32_t alignment[4];
    uint32_t many_columns; /* it was asked for that many */
};
/* Compared by memcmp. */
static_assert(std::has_unique_object_representations_v<Layout>);
static_assert(std::has_unique_object_representations_v<Algo>);
static_assert(sizeof(Desc) <= sizeof(cublasLtMatmulDescOpaque_t));
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t));
static_assert(sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t));
static_assert(sizeof(Algo) <= sizeof(cublasLtMatmulAlgo_t));

template <class T, class Opaque>
T load(const Opaque *o) {
    T t;
    memcpy(&t, o, sizeof t);
    return t;
}
template <class T, class Opaque>
void save(Opaque *o, const T &t) {
    memset((void *)o, 0, sizeof *o);
    memcpy((void *)o, &t, sizeof t);
}

size_t element(uint64_t t) {
    return t == CUDA_R_32F ? 4 : 2;
}
bool types_allowed(const Desc &d, const Layout &a, const Layout &b, const Layout &c) {
    for (const auto &t : allowed)
        if (d.compute == t.compute && d.scale == t.scale && a.type == t.in && b.type == t.in &&
            c.type == t.out)
            return true;
    return false;
}

struct Shape {
    uint64_t m, n, k;
};

/* False if the matrices do not make a product. */
bool shape_of(Shape *s, const Desc &d, const Layout &a, const Layout &b, const Layout &c) {
    bool ta = d.op_a == CUBLAS_OP_T, tb = d.op_b == CUBLAS_OP_T;
    s->m = ta ? a.cols : a.rows, s->k = ta ? a.rows : a.cols, s->n = tb ? b.rows : b.cols;
    return s->k == (tb ? b.cols : b.rows) && c.rows == s->m && c.cols == s->n &&
           types_allowed(d, a, b, c);
}

Algo algo_for(const Desc &d, const Layout &a, const Layout &b, const Layout &c, const Shape &s) {
    Algo g = {};
    g.magic = ALGO;
    g.op_a = d.op_a, g.op_b = d.op_b;
    g.type_in = (uint32_t)a.type, g.type_out = (uint32_t)c.type;
    g.m = (uint32_t)s.m, g.k = (uint32_t)s.k;
    g.ld_a = (uint32_t)a.ld, g.ld_b = (uint32_t)b.ld, g.ld_c = (uint32_t)c.ld;
    return g;
}

/* A column-major operand as floats, with the index that op() makes its first one contiguous and
 * padded with zeros to whole Strips. */
enum { STRIP = 16, COLUMNS = 4 };
typedef float Strip __attribute__((vector_size(STRIP * sizeof(float))));

uint64_t padded(uint64_t n) {
    return (n + STRIP - 1) / STRIP * STRIP;
}

std::vector<float> unpack(const void *p, const Layout &l, bool transposed) {
    uint64_t outer = transposed ? l.rows : l.cols, inner = padded(transposed ? l.cols : l.rows);
    std::vector<float> v(outer * inner);
    for (uint64_t col = 0; col < l.cols; col++)
        for (uint64_t row = 0; row < l.rows; row++) {
            uint64_t from = col * l.ld + row;
            uint64_t to = transposed ? row * inner + col : col * inner + row;
            v[to] = l.type == CUDA_R_32F ? ((const float *)p)[from]
                                         : bf16_to_f32(((const bf16 *)p)[from]);
        }
    return v;
}

/* One strip of rows and COLUMNS columns of the product: sums over k in order, or over each `step`th
 * in turn, kept in registers. Of copies that fit: a sanitizer would take most of the time here and
 * see nothing. */
struct Sums {
    Strip column[COLUMNS];
};
__attribute__((no_sanitize("address"), no_sanitize("undefined"))) Sums sum_block(
    const float *a, uint64_t a_step, const float *const b[COLUMNS], uint64_t K, uint64_t step) {
    Sums s = {};
    for (uint64_t first = 0; first < step; first++)
        for (uint64_t k = first; k < K; k += step) {
            Strip v;
            memcpy(&v, a + k * a_step, sizeof v);
            for (int j = 0; j < COLUMNS; j++) s.column[j] += v * b[j][k];
        }
    return s;
}

void store_element(void *C, const Layout &l, uint64_t at, float sum, float alpha, float beta) {
    float *f = (float *)C + at;
    bf16 *h = (bf16 *)C + at;
    bool f32 = l.type == CUDA_R_32F;
    float old = beta == 0 ? 0 : f32 ? *f : bf16_to_f32(*h), v = alpha * sum + beta * old;
    if (f32)
        *f = v;
    else
        *h = bf16_from_f32(v);
}

void product(const Desc &d, const Shape &s, float alpha, const void *A, const Layout &la,
             const void *B, const Layout &lb, float beta, void *C, const Layout &lc,
             uint64_t step) {
    std::vector<float> a = unpack(A, la, d.op_a == CUBLAS_OP_T); /* [k][m] */
    std::vector<float> b = unpack(B, lb, d.op_b == CUBLAS_OP_T); /* [n][k] */
    for (uint64_t j = 0; j < s.n; j += COLUMNS) {
        uint64_t columns = s.n - j < COLUMNS ? s.n - j : (uint64_t)COLUMNS;
        const float *x[COLUMNS]; /* past the last column, the first one again, for nothing */
        for (uint64_t c = 0; c < COLUMNS; c++) x[c] = &b[(c < columns ? j + c : j) * padded(s.k)];
        for (uint64_t i = 0; i < s.m; i += STRIP) {
            Sums sums = sum_block(&a[i], padded(s.m), x, s.k, step);
            for (uint64_t c = 0; c < columns; c++)
                for (uint64_t r = 0; r < STRIP && i + r < s.m; r++)
                    store_element(C, lc, (j + c) * lc.ld + i + r, sums.column[c][r], alpha, beta);
        }
    }
}

bool aligned(const void *p, size_t to) {
    return (uintptr_t)p % to == 0;
}
size_t span(const Layout &l) {
    return ((l.cols - 1) * l.ld + l.rows) * element(l.type);
}
bool apart(const void *p, size_t bytes, const void *q, size_t others) {
    return (const char *)p + bytes <= (const char *)q ||
           (const char *)q + others <= (const char *)p;
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) {
    *h = (cublasLtHandle_t) new uint64_t(HANDLE);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
    drain_all();
    delete (uint64_t *)h;
    return CUBLAS_STATUS_SUCCESS;
}
const char *cublasLtGetStatusString(cublasStatus_t s) {
    return s == CUBLAS_STATUS_SUCCESS ? "success" : "refused by the simulated device";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    *d = new cublasLtMatmulDescOpaque_t;
    save(*d, Desc{compute, scale, CUBLAS_OP_N, CUBLAS_OP_N});
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
    delete d;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                              cublasLtMatmulDescAttributes_t what,
                                              const void *value, size_t bytes) {
    Desc desc = load<Desc>(d);
    int32_t op;
    if (bytes != sizeof op) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&op, value, bytes);
    if (op != CUBLAS_OP_N && op != CUBLAS_OP_T) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (what == CUBLASLT_MATMUL_DESC_TRANSA)
        desc.op_a = op;
    else if (what == CUBLASLT_MATMUL_DESC_TRANSB)
        desc.op_b = op;
    else
        return CUBLAS_STATUS_NOT_SUPPORTED;
    save(d, desc);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t l, size_t,
                                                 cudaDataType type, uint64_t rows, uint64_t cols,
                                                 int64_t ld) {
    if (!rows || !cols || ld < (int64_t)rows) return CUBLAS_STATUS_INVALID_VALUE;
    save(l, Layout{(uint64_t)type, rows, cols, ld});
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) {
    *p = new cublasLtMatmulPreferenceOpaque_t;
    save(*p, Preference{0, {256, 256, 256, 256}});
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t what,
                                                    const void *value, size_t bytes) {
    Preference pref = load<Preference>(p);
    int operand = (int)what - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
    uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_MASK;
    if (what == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK && bytes == sizeof scheme)
        memcpy(&scheme, value, bytes);
    if (what == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && bytes == sizeof pref.workspace)
        memcpy(&pref.workspace, value, bytes);
    else if (operand >= 0 && operand < 4 && bytes == sizeof pref.alignment[0]) {
        memcpy(&pref.alignment[operand], value, bytes);
        uint32_t given = pref.alignment[operand];
        if (given == 0 || (given & (given - 1))) return CUBLAS_STATUS_INVALID_VALUE;
    } else if (scheme != CUBLASLT_REDUCTION_SCHEME_NONE)
        return CUBLAS_STATUS_INVALID_VALUE;
    save(p, pref);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t A, cublasLtMatrixLayout_t B,
                                              cublasLtMatrixLayout_t C, cublasLtMatrixLayout_t D,
                                              cublasLtMatmulPreference_t p, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results,
                                              int *found) {
    Desc d = load<Desc>(desc);
    Layout a = load<Layout>(A), b = load<Layout>(B), c = load<Layout>(C), dl = load<Layout>(D);
    Preference pref = load<Preference>(p);
    Shape s;
    *found = 0;
    if (*(uint64_t *)h != HANDLE || wanted < 1 || memcmp(&c, &dl, sizeof c) != 0 ||
        !shape_of(&s, d, a, b, c))
        return CUBLAS_STATUS_INVALID_VALUE;
    const char *mode = getenv("SIMT_BLAS");
    if (pref.workspace < NEEDED_WORKSPACE || (mode && strcmp(mode, "empty") == 0))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    Algo g = algo_for(d, a, b, c, s);
    g.many_columns = s.n >= MANY_COLUMNS;
    memcpy(g.alignment, pref.alignment, sizeof g.alignment);
    memset((void *)results, 0, sizeof *results);
    save(&results->algo, g);
    results->workspaceSize = NEEDED_WORKSPACE;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *A, cublasLtMatrixLayout_t Adesc, const void *B,
                              cublasLtMatrixLayout_t Bdesc, const void *beta, const void *C,
                              cublasLtMatrixLayout_t Cdesc, void *D, cublasLtMatrixLayout_t Ddesc,
                              const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
    Desc d = load<Desc>(desc);
    Layout a = load<Layout>(Adesc), b = load<Layout>(Bdesc), c = load<Layout>(Cdesc);
    Layout dl = load<Layout>(Ddesc);
    Shape s;
    if (*(uint64_t *)h != HANDLE || C != D || memcmp(&c, &dl, sizeof c) != 0 ||
        !shape_of(&s, d, a, b, c))
        return CUBLAS_STATUS_INVALID_VALUE;
    Algo given = load<Algo>(algo), needed = algo_for(d, a, b, c, s);
    memcpy(needed.alignment, given.alignment, sizeof needed.alignment);
    needed.many_columns = given.many_columns;
    if (memcmp(&given, &needed, sizeof given) != 0 || (given.many_columns && s.n == 1))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!given.many_columns && s.n >= MANY_COLUMNS) return CUBLAS_STATUS_INVALID_VALUE;
    if (!aligned(A, given.alignment[0]) || !aligned(B, given.alignment[1]) ||
        !aligned(C, given.alignment[2]) || !aligned(D, given.alignment[3]) ||
        !aligned(workspace, WORKSPACE_ALIGNMENT))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!live_range(A, span(a)) || !live_range(B, span(b)) || !live_range(C, span(c)) ||
        !apart(C, span(c), A, span(a)) || !apart(C, span(c), B, span(b)) ||
        workspace_bytes < NEEDED_WORKSPACE || !live_range(workspace, workspace_bytes))
        return CUBLAS_STATUS_INVALID_VALUE;
    float al = *(const float *)alpha,
          be = *(const float *)beta;     /* host scalars: read at the call */
    static std::set<std::string> loaded; /* a kernel for every algorithm, in a page of its own */
    if (loaded.insert(std::string((const char *)&given, sizeof given)).second &&
        !memory_take(CODE_BYTES))
        return CUBLAS_STATUS_ALLOC_FAILED;
    uint64_t step = given.alignment[0] < ALIGNED || given.alignment[1] < ALIGNED ? 2 : 1;
    enqueue(stream, [=] {
        product(d, s, al, A, a, B, b, be, D, c, step);
        memset(workspace, 0xff, NEEDED_WORKSPACE);
    });
    return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
