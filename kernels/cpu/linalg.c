/* linalg.c - small dense factorisations in double, by LAPACK. Contracts: ops.h.
 *
 * Matrices here are row major, LAPACK's are column major: what we call A it sees as A^T. So nothing
 * is transposed: a row-major A = U s Vt is a column-major A^T = V s U^T, the SVD with its factors
 * swapped, and A = Q R is A^T = R^T Q^T, an LQ. */
#include <stdlib.h>

#include "kernels/cpu/twin.h"
#include "kernels/lapack.h"

/* What LAPACK asked for, in front of what else a call needs. */
static double *workspace(Exec *ex, double wanted, size_t others, int *lwork) {
    CHECK(wanted <= INT32_MAX, "a workspace of %g numbers", wanted);
    *lwork = (int)wanted;
    return exec_scratch(ex, ((size_t)*lwork + others) * sizeof(double));
}

void TWIN(svd)(Exec *ex, double *U, double *s, double *Vt, double *A, int M, int N) {
    OP_BEGIN(ex, svd, M, N);
    int m = M < N ? M : N, lwork = -1, info, ignored;
    double wanted;
    dgesdd_("S", &N, &M, A, &N, s, Vt, &N, U, &m, &wanted, &lwork, &ignored, &info, 1);
    double *work = workspace(ex, wanted, 8 * (size_t)m, &lwork);
    dgesdd_("S", &N, &M, A, &N, s, Vt, &N, U, &m, work, &lwork, (int *)(work + lwork), &info, 1);
    CHECK(info == 0, "dgesdd of %d x %d: %d", M, N, info);
}

void TWIN(qr)(Exec *ex, double *A, int M, int N) {
    OP_BEGIN(ex, qr, M, N);
    int lwork = -1, info;
    double wanted[2], none = 0;
    dgelqf_(&N, &M, A, &N, &none, &wanted[0], &lwork, &info);
    dorglq_(&N, &M, &N, A, &N, &none, &wanted[1], &lwork, &info);
    double *work = workspace(ex, wanted[0] > wanted[1] ? wanted[0] : wanted[1], (size_t)N, &lwork);
    double *tau = work + lwork;
    dgelqf_(&N, &M, A, &N, tau, work, &lwork, &info);
    CHECK(info == 0, "dgelqf of %d x %d: %d", M, N, info);
    dorglq_(&N, &M, &N, A, &N, tau, work, &lwork, &info);
    CHECK(info == 0, "dorglq of %d x %d: %d", M, N, info);
}
