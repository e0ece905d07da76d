/* linalg.c - small dense factorisations in double, by LAPACK. Contracts: ops.h.
 *
 * Matrices here are row major, LAPACK's are column major: what we call A it sees as A^T. So nothing
 * is transposed: a row-major A = U s Vt is a column-major A^T = V s U^T, the SVD with its factors
 * swapped, and A = Q R is A^T = R^T Q^T, an LQ. */
#include <stdlib.h>

#include "kernels/cpu/twin.h"
#include "kernels/lapack.h"

/* Numbers that LAPACK asks for; asked so, it looks at sizes alone. */
static int svd_work(int M, int N) {
    int m = M < N ? M : N, ask = -1, info, ignored;
    double wanted, none = 0;
    dgesdd_("S", &N, &M, &none, &N, &none, &none, &N, &none, &m, &wanted, &ask, &ignored, &info, 1);
    CHECK(wanted <= INT32_MAX, "a workspace of %g numbers", wanted);
    return (int)wanted;
}
static int qr_work(int M, int N) {
    int ask = -1, info;
    double wanted[2], none = 0;
    dgelqf_(&N, &M, &none, &N, &none, &wanted[0], &ask, &info);
    dorglq_(&N, &M, &N, &none, &N, &none, &wanted[1], &ask, &info);
    double most = wanted[0] > wanted[1] ? wanted[0] : wanted[1];
    CHECK(most <= INT32_MAX, "a workspace of %g numbers", most);
    return (int)most;
}

/* That, and the integers of an SVD or the scales of a QR's reflectors. */
size_t TWIN(svd_scratch)(Exec *ex, int M, int N) {
    size_t m = (size_t)(M < N ? M : N);
    (void)ex;
    return ((size_t)svd_work(M, N) + 8 * m) * sizeof(double);
}
size_t TWIN(qr_scratch)(Exec *ex, int M, int N) {
    (void)ex;
    return ((size_t)qr_work(M, N) + (size_t)N) * sizeof(double);
}

void TWIN(svd)(Exec *ex, double *U, double *s, double *Vt, double *A, int M, int N) {
    OP_BEGIN(ex, svd, M, N);
    int m = M < N ? M : N, lwork = svd_work(M, N), info;
    double *work = exec_scratch(ex, TWIN(svd_scratch)(ex, M, N));
    dgesdd_("S", &N, &M, A, &N, s, Vt, &N, U, &m, work, &lwork, (int *)(work + lwork), &info, 1);
    CHECK(info == 0, "dgesdd of %d x %d: %d", M, N, info);
}

void TWIN(qr)(Exec *ex, double *A, int M, int N) {
    OP_BEGIN(ex, qr, M, N);
    int lwork = qr_work(M, N), info;
    double *work = exec_scratch(ex, TWIN(qr_scratch)(ex, M, N));
    double *tau = work + lwork;
    dgelqf_(&N, &M, A, &N, tau, work, &lwork, &info);
    CHECK(info == 0, "dgelqf of %d x %d: %d", M, N, info);
    dorglq_(&N, &M, &N, A, &N, tau, work, &lwork, &info);
    CHECK(info == 0, "dorglq of %d x %d: %d", M, N, info);
}
