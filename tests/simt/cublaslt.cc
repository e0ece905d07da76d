/* cublaslt.cc - the part of cuBLASLt that kernels/gemm_cuda.c uses, over plain loops.
 *
 * An algorithm remembers what it was asked for, and a product that does not fit its algorithm,
 * its layouts or the promised alignment is refused. Sums run over k in order, in f32. */
#include <cublasLt.h>
#include <string.h>

#include <type_traits>
#include <vector>

#include "kernels/bf16.h"
#include "tests/simt/simt.h"

using namespace simt;

namespace {

enum : uint64_t { HANDLE = 0x73696d745f6c74, ALGO = 0x73696d745f616c };
enum { NEEDED_WORKSPACE = 4 << 20, WORKSPACE_ALIGNMENT = 256 };

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
    uint32_t unused;
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
bool known(uint64_t t) {
    return t == CUDA_R_32F || t == CUDA_R_16BF;
}

struct Shape {
    uint64_t m, n, k;
};

/* False if the matrices do not make a product. */
bool shape_of(Shape *s, const Desc &d, const Layout &a, const Layout &b, const Layout &c) {
    bool ta = d.op_a == CUBLAS_OP_T, tb = d.op_b == CUBLAS_OP_T;
    s->m = ta ? a.cols : a.rows, s->k = ta ? a.rows : a.cols, s->n = tb ? b.rows : b.cols;
    return s->k == (tb ? b.cols : b.rows) && c.rows == s->m && c.cols == s->n && s->m && s->n &&
           s->k && a.ld >= (int64_t)a.rows && b.ld >= (int64_t)b.rows && c.ld >= (int64_t)c.rows &&
           a.type == b.type && known(a.type) && (c.type == a.type || c.type == CUDA_R_32F) &&
           d.compute == CUBLAS_COMPUTE_32F && d.scale == CUDA_R_32F;
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

/* A column-major operand as floats, with the index that op() makes its first one contiguous. */
std::vector<float> unpack(const void *p, const Layout &l, bool transposed) {
    std::vector<float> v(l.rows * l.cols);
    for (uint64_t col = 0; col < l.cols; col++)
        for (uint64_t row = 0; row < l.rows; row++) {
            uint64_t from = col * l.ld + row,
                     to = transposed ? row * l.cols + col : col * l.rows + row;
            v[to] = l.type == CUDA_R_32F ? ((const float *)p)[from]
                                         : bf16_to_f32(((const bf16 *)p)[from]);
        }
    return v;
}

void product(const Desc &d, const Shape &s, float alpha, const void *A, const Layout &la,
             const void *B, const Layout &lb, float beta, void *C, const Layout &lc) {
    std::vector<float> a = unpack(A, la, d.op_a == CUBLAS_OP_T); /* [k][m] */
    std::vector<float> b = unpack(B, lb, d.op_b == CUBLAS_OP_T); /* [n][k] */
    std::vector<float> sum(s.m);
    for (uint64_t j = 0; j < s.n; j++) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (uint64_t k = 0; k < s.k; k++) {
            const float *column = &a[k * s.m], factor = b[j * s.k + k];
            for (uint64_t i = 0; i < s.m; i++) sum[i] += column[i] * factor;
        }
        for (uint64_t i = 0; i < s.m; i++) {
            uint64_t at = j * lc.ld + i;
            float *f = (float *)C + at;
            bf16 *h = (bf16 *)C + at;
            float old = beta == 0 ? 0 : lc.type == CUDA_R_32F ? *f : bf16_to_f32(*h);
            float v = alpha * sum[i] + beta * old;
            if (lc.type == CUDA_R_32F)
                *f = v;
            else
                *h = bf16_from_f32(v);
        }
    }
}

bool aligned(const void *p, size_t to) {
    return (uintptr_t)p % to == 0;
}
bool holds(const void *p, const Layout &l) {
    return live_range(p, ((l.cols - 1) * l.ld + l.rows) * element(l.type));
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
    if (bytes != sizeof desc.op_a) return CUBLAS_STATUS_INVALID_VALUE;
    if (what == CUBLASLT_MATMUL_DESC_TRANSA)
        memcpy(&desc.op_a, value, bytes);
    else if (what == CUBLASLT_MATMUL_DESC_TRANSB)
        memcpy(&desc.op_b, value, bytes);
    else
        return CUBLAS_STATUS_NOT_SUPPORTED;
    save(d, desc);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t l, size_t,
                                                 cudaDataType type, uint64_t rows, uint64_t cols,
                                                 int64_t ld) {
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
    if (what == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && bytes == sizeof pref.workspace)
        memcpy(&pref.workspace, value, bytes);
    else if (operand >= 0 && operand < 4 && bytes == sizeof pref.alignment[0])
        memcpy(&pref.alignment[operand], value, bytes);
    else if (what != CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK || bytes != sizeof(uint32_t))
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
    if (pref.workspace < NEEDED_WORKSPACE) return CUBLAS_STATUS_NOT_SUPPORTED;
    Algo g = algo_for(d, a, b, c, s);
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
    if (memcmp(&given, &needed, sizeof given) != 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!aligned(A, given.alignment[0]) || !aligned(B, given.alignment[1]) ||
        !aligned(C, given.alignment[2]) || !aligned(D, given.alignment[3]) ||
        !aligned(workspace, WORKSPACE_ALIGNMENT))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!holds(A, a) || !holds(B, b) || !holds(C, c) || workspace_bytes < NEEDED_WORKSPACE ||
        !live_range(workspace, workspace_bytes))
        return CUBLAS_STATUS_INVALID_VALUE;
    float al = *(const float *)alpha,
          be = *(const float *)beta; /* host scalars: read at the call */
    enqueue(stream, [=] { product(d, s, al, A, a, B, b, be, D, c); });
    return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
