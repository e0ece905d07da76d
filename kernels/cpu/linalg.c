/* linalg.c - small dense factorisations in double, by LAPACK. Contracts: ops.h.
 *
 * Matrices here are row major, LAPACK's are column major: what we call A it sees as A^T. A
 * row-major A = U s Vt is a column-major A^T = V s U^T, so the SVD needs no transposition, only the
 * factors swapped. */
#include <cblas.h>
#include <lapacke.h>
#include <stdlib.h>

#include "kernels/cpu/twin.h"

void TWIN(svd)(Exec *ex, double *U, double *s, double *Vt, double *A, int M, int N) {
    OP_GATE(ex);
    CHECK(M > 0 && N > 0, "M=%d N=%d", M, N);
    int m = M < N ? M : N;
    openblas_set_num_threads(1); /* equal bits for any thread count */
    int info = LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', N, M, A, N, s, Vt, N, U, m);
    CHECK(info == 0, "dgesdd of %d x %d: %d", M, N, info);
}

void TWIN(qr)(Exec *ex, double *A, int M, int N) {
    OP_GATE(ex);
    CHECK(M >= N && N > 0, "expected M >= N > 0, got M=%d N=%d", M, N);
    double *tau = malloc((size_t)N * sizeof *tau);
    CHECK(tau, "out of memory");
    openblas_set_num_threads(1);
    int info = LAPACKE_dgeqrf(LAPACK_ROW_MAJOR, M, N, A, N, tau);
    CHECK(info == 0, "dgeqrf of %d x %d: %d", M, N, info);
    info = LAPACKE_dorgqr(LAPACK_ROW_MAJOR, M, N, N, A, N, tau);
    CHECK(info == 0, "dorgqr of %d x %d: %d", M, N, info);
    free(tau);
}
