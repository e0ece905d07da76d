/* linear.h - y = x W^T and its derivatives, over rows that may be columns of a wider matrix.
 *
 *   linear     y  = scale x W^T,   or y += it
 *   linear_dx  dx = scale dy W,    or dx += it
 *   linear_dw  dW += scale dy^T x
 *
 * All of the storage type but dW, which is f32. The products' contracts: ops.h, gemm, gemm_grad. */
#ifndef SAILS_LINEAR_H
#define SAILS_LINEAR_H

#include "kernels/ops.h"

/* N rows, one every ld elements, that are written, and that are only read. */
typedef struct Rows {
    store *p;
    int ld;
} Rows;
typedef struct RowsIn {
    const store *p;
    int ld;
} RowsIn;

typedef struct Linear {
    const store *w; /* (out,in) */
    int in, out;
} Linear;

enum Sum { SUM_SET, SUM_ADD }; /* = or += */

/* form: GEMM_NT, or GEMM_NT_FEW for few rows. */
static inline void linear(Exec *ex, Rows y, RowsIn x, Linear l, int N, enum GemmForm form,
                          float scale, enum Sum sum) {
    ex->op->gemm(ex, y.p, y.ld, x.p, x.ld, l.w, l.in, N, l.out, l.in, form, scale, sum == SUM_ADD);
}

static inline void linear_dx(Exec *ex, Rows dx, RowsIn dy, Linear l, int N, float scale,
                             enum Sum sum) {
    ex->op->gemm(ex, dx.p, dx.ld, dy.p, dy.ld, l.w, l.in, N, l.in, l.out, GEMM_NN, scale,
                 sum == SUM_ADD);
}

/* dW (out,in) f32 out +=. */
static inline void linear_dw(Exec *ex, float *dW, RowsIn dy, RowsIn x, int N, int out, int in,
                             float scale) {
    ex->op->gemm_grad(ex, dW, dy.p, dy.ld, x.p, x.ld, N, out, in, scale);
}

#endif
