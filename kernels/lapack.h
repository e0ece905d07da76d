/* lapack.h - what is used of OpenBLAS: LAPACK's Fortran interface, column major.
 *
 * The library is built without threads (Debian: libopenblas-serial-dev). Another would start some
 * as it is loaded, which look for work on every processor for a tenth of a second, and its bits
 * would depend on their number.
 *
 * lwork -1: only work[0] is set, to the workspace wanted. info 0: it worked. The last arguments are
 * the lengths of the strings, as gfortran passes them. */
#ifndef SAILS_LAPACK_H
#define SAILS_LAPACK_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A = U diag(s) VT, by divide and conquer; iwork (8 min(m,n)). */
void dgesdd_(const char *jobz, const int *m, const int *n, double *A, const int *lda, double *s,
             double *U, const int *ldu, double *VT, const int *ldvt, double *work, const int *lwork,
             int *iwork, int *info, size_t jobz_len);
/* The same by QR iterations. */
void dgesvd_(const char *jobu, const char *jobvt, const int *m, const int *n, double *A,
             const int *lda, double *s, double *U, const int *ldu, double *VT, const int *ldvt,
             double *work, const int *lwork, int *info, size_t jobu_len, size_t jobvt_len);

/* A = L Q, as reflectors of which dorglq makes the first m rows of Q. */
void dgelqf_(const int *m, const int *n, double *A, const int *lda, double *tau, double *work,
             const int *lwork, int *info);
void dorglq_(const int *m, const int *n, const int *k, double *A, const int *lda, const double *tau,
             double *work, const int *lwork, int *info);

/* A = Q R, as reflectors of which dorgqr makes the first n columns of Q. */
void dgeqrf_(const int *m, const int *n, double *A, const int *lda, double *tau, double *work,
             const int *lwork, int *info);
void dorgqr_(const int *m, const int *n, const int *k, double *A, const int *lda, const double *tau,
             double *work, const int *lwork, int *info);

/* Version and build, static storage; 0: without threads. */
char *openblas_get_config(void);
int openblas_get_parallel(void);

#ifdef __cplusplus
}
#endif
#endif
