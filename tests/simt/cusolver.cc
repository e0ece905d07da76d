/* cusolver.cc - the part of cuSOLVER that kernels/linalg.cu uses, over LAPACK.
 *
 * Refuses what the documentation does not promise: an SVD of fewer rows than columns, other jobs
 * than 'S', too small a leading dimension or workspace, memory that is not live or overlaps. Work
 * is queued on the handle's stream, which must have been set. Signs of factors are mixed, by
 * position alone, so that equal inputs still give equal bits; workspaces, and inputs that a call
 * destroys, are left full of NaN. */
#include <cusolverDn.h>
#include <string.h>

#include <initializer_list>
#include <vector>

#include "kernels/lapack.h"
#include "tests/simt/simt.h"

struct cusolverDnContext { /* the library's name for what a handle points to */
    cudaStream_t stream;
    bool has_stream;
};

namespace simt {

namespace {

struct Range {
    const void *p;
    size_t bytes;
};

bool live_and_apart(std::initializer_list<Range> ranges) {
    for (const Range &a : ranges) {
        if (!live_range(a.p, a.bytes)) return false;
        for (const Range &b : ranges)
            if (&a != &b && (const char *)a.p < (const char *)b.p + b.bytes &&
                (const char *)b.p < (const char *)a.p + a.bytes)
                return false;
    }
    return true;
}

/* Bytes of a column-major matrix, of a vector. */
size_t span(int rows, int cols, int ld) {
    return ((size_t)(cols - 1) * ld + rows) * sizeof(double);
}
size_t span(int n) {
    return (size_t)n * sizeof(double);
}

/* More than any of the calls needs, and another number for each shape. */
int workspace(int m, int n) {
    return 64 * (m + n) + n * n + 7;
}

double sign(int i) {
    uint64_t z = ((uint64_t)i + 1) * 0x9e3779b97f4a7c15u;
    return (z ^ (z >> 29)) * 0xbf58476d1ce4e5b9u >> 63 ? -1 : 1;
}

void poison(void *p, size_t bytes) {
    memset(p, 0xff, bytes);
}

bool ready(cusolverDnHandle_t h) {
    return h && h->has_stream;
}

/* Calls a function of LAPACK twice: for the size of its workspace, and with one. */
template <class F>
void with_workspace(F call) {
    double wanted;
    int lwork = -1;
    call(&wanted, &lwork);
    std::vector<double> work((size_t)wanted);
    lwork = (int)wanted;
    call(work.data(), &lwork);
}

void compute_svd(int m, int n, double *A, int lda, double *S, double *U, int ldu, double *VT,
                 int ldvt, int *info) {
    with_workspace([&](double *work, const int *lwork) {
        dgesvd_("S", "S", &m, &n, A, &lda, S, U, &ldu, VT, &ldvt, work, lwork, info, 1, 1);
    });
    for (int i = 0; i < n; i++) {
        for (int row = 0; row < m; row++) U[(size_t)i * ldu + row] *= sign(i);
        for (int col = 0; col < n; col++) VT[(size_t)col * ldvt + i] *= sign(i);
    }
    for (int col = 0; col < n; col++) poison(A + (size_t)col * lda, span(m));
}

/* Another sign of a column of Q belongs to other reflectors, with the same span. */
void compute_q(int m, int n, int k, double *A, int lda, const double *tau, int *info) {
    with_workspace([&](double *work, const int *lwork) {
        dorgqr_(&m, &n, &k, A, &lda, tau, work, lwork, info);
    });
    for (int col = 0; col < n; col++)
        for (int row = 0; row < m; row++) A[(size_t)col * lda + row] *= sign(col);
}

}  // namespace

}  // namespace simt

using namespace simt;

extern "C" {

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t *h) {
    *h = new cusolverDnContext{nullptr, false};
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t h) {
    drain_all();
    delete h;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t h, cudaStream_t stream) {
    h->stream = stream, h->has_stream = true;
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDgesvd_bufferSize(cusolverDnHandle_t h, int m, int n, int *lwork) {
    if (!ready(h) || m < n || n < 1) return CUSOLVER_STATUS_INVALID_VALUE;
    *lwork = workspace(m, n);
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDgesvd(cusolverDnHandle_t h, signed char jobu, signed char jobvt, int m,
                                  int n, double *A, int lda, double *S, double *U, int ldu,
                                  double *VT, int ldvt, double *work, int lwork, double *rwork,
                                  int *info) {
    if (!ready(h) || jobu != 'S' || jobvt != 'S' || m < n || n < 1 || lda < m || ldu < m ||
        ldvt < n || lwork < workspace(m, n) || rwork)
        return CUSOLVER_STATUS_INVALID_VALUE;
    if (!live_and_apart({{A, span(m, n, lda)},
                         {S, span(n)},
                         {U, span(m, n, ldu)},
                         {VT, span(n, n, ldvt)},
                         {work, span(lwork)},
                         {info, sizeof *info}}))
        return CUSOLVER_STATUS_INVALID_VALUE;
    enqueue(h->stream, [=] {
        compute_svd(m, n, A, lda, S, U, ldu, VT, ldvt, info);
        poison(work, span(lwork));
    });
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDgeqrf_bufferSize(cusolverDnHandle_t h, int m, int n, double *, int lda,
                                             int *lwork) {
    if (!ready(h) || m < 1 || n < 1 || lda < m) return CUSOLVER_STATUS_INVALID_VALUE;
    *lwork = workspace(m, n);
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDgeqrf(cusolverDnHandle_t h, int m, int n, double *A, int lda,
                                  double *tau, double *work, int lwork, int *info) {
    if (!ready(h) || m < n || n < 1 || lda < m || lwork < workspace(m, n))
        return CUSOLVER_STATUS_INVALID_VALUE;
    if (!live_and_apart(
            {{A, span(m, n, lda)}, {tau, span(n)}, {work, span(lwork)}, {info, sizeof *info}}))
        return CUSOLVER_STATUS_INVALID_VALUE;
    enqueue(h->stream, [=] {
        with_workspace([&](double *mine, const int *size) {
            dgeqrf_(&m, &n, A, &lda, tau, mine, size, info);
        });
        poison(work, span(lwork));
    });
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDorgqr_bufferSize(cusolverDnHandle_t h, int m, int n, int k,
                                             const double *, int lda, const double *, int *lwork) {
    if (!ready(h) || m < n || n < k || k < 1 || lda < m) return CUSOLVER_STATUS_INVALID_VALUE;
    *lwork = workspace(m, n) + 1;
    return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDorgqr(cusolverDnHandle_t h, int m, int n, int k, double *A, int lda,
                                  const double *tau, double *work, int lwork, int *info) {
    if (!ready(h) || m < n || n < k || k < 1 || lda < m || lwork < workspace(m, n) + 1)
        return CUSOLVER_STATUS_INVALID_VALUE;
    if (!live_and_apart(
            {{A, span(m, n, lda)}, {tau, span(k)}, {work, span(lwork)}, {info, sizeof *info}}))
        return CUSOLVER_STATUS_INVALID_VALUE;
    enqueue(h->stream, [=] {
        compute_q(m, n, k, A, lda, tau, info);
        poison(work, span(lwork));
    });
    return CUSOLVER_STATUS_SUCCESS;
}

}  // extern "C"
