/* rmsnorm.c - RMSNorm, alone and fused with the residual add. Contracts: ops.h.
 *
 * Math, per row of length D:
 *   forward   r = (mean(x^2) + eps)^-1/2,  y = x r (1 + w)
 *   backward  g = dy (1 + w). Two paths, the direct one (r g) and the one through r, whose
 *             derivative is -x r^3 / D:  dx += r g - x r^3 mean(g x)
 *             dw += sum over rows of dy x r */
#include <math.h>

#include "kernels/cpu/twin.h"

static float row_rstd(const elem *x, int D, float eps) {
    float ss = 0;
#pragma omp simd reduction(+ : ss)
    for (int i = 0; i < D; i++) ss += elem_get(x[i]) * elem_get(x[i]);
    return 1 / sqrtf(ss / (float)D + eps);
}

static void row_scale(elem *y, const elem *x, const elem *w, float r, int D) {
#pragma omp simd
    for (int i = 0; i < D; i++) y[i] = elem_put(elem_get(x[i]) * r * (1 + elem_get(w[i])));
}

/* The coefficient of x in the backward: r^3 mean(g x). */
static float row_through_rstd(const elem *dy, const elem *x, const elem *w, float r, int D) {
    float gx = 0;
#pragma omp simd reduction(+ : gx)
    for (int i = 0; i < D; i++) gx += elem_get(dy[i]) * (1 + elem_get(w[i])) * elem_get(x[i]);
    return gx / (float)D * r * r * r;
}

static void row_bwd_add(elem *dx, const elem *dy, const elem *x, const elem *w, float r, int D) {
    float c = row_through_rstd(dy, x, w, r, D);
#pragma omp simd
    for (int i = 0; i < D; i++)
        dx[i] = elem_put(elem_get(dx[i]) + r * (elem_get(dy[i]) * (1 + elem_get(w[i]))) -
                         c * elem_get(x[i]));
}

static void row_bwd_set(elem *dx, const elem *dy, const elem *x, const elem *w, float r, int D) {
    float c = row_through_rstd(dy, x, w, r, D);
#pragma omp simd
    for (int i = 0; i < D; i++)
        dx[i] = elem_put(r * (elem_get(dy[i]) * (1 + elem_get(w[i]))) - c * elem_get(x[i]));
}

void TWIN(rmsnorm_fwd)(Exec *ex, store *y, float *rstd, const store *x, const store *w, int N,
                       int D, float eps) {
    OP_BEGIN(ex, rmsnorm_fwd, N, D, eps);
#pragma omp parallel for if ((size_t)N * D > OP_SMALL)
    for (int n = 0; n < N; n++) {
        const elem *row = elems_const(x) + (size_t)n * D;
        rstd[n] = row_rstd(row, D, eps);
        row_scale(elems(y) + (size_t)n * D, row, elems_const(w), rstd[n], D);
    }
}

void TWIN(rmsnorm_bwd)(Exec *ex, store *dx, const store *dy, const store *x, const store *w,
                       const float *rstd, int N, int D) {
    OP_BEGIN(ex, rmsnorm_bwd, N, D);
#pragma omp parallel for if ((size_t)N * D > OP_SMALL)
    for (int n = 0; n < N; n++) {
        size_t at = (size_t)n * D;
        row_bwd_add(elems(dx) + at, elems_const(dy) + at, elems_const(x) + at, elems_const(w),
                    rstd[n], D);
    }
}

size_t TWIN(rmsnorm_grad_scratch)(Exec *ex, int N, int D) {
    (void)ex, (void)N, (void)D;
    return 0;
}

enum { COLUMNS = 64 }; /* whose sums stay in registers, or nearly */

/* dw += that of one chunk of rows, in n columns. */
static void chunk_grad(float *dw, const elem *dy, const elem *x, const float *rstd, int rows, int D,
                       int n) {
    float sum[COLUMNS] = {0};
    for (int r = 0; r < rows; r++) {
        const elem *dyr = dy + (size_t)r * D, *xr = x + (size_t)r * D;
#pragma omp simd
        for (int i = 0; i < n; i++) sum[i] += elem_get(dyr[i]) * (elem_get(xr[i]) * rstd[r]);
    }
    for (int i = 0; i < n; i++) dw[i] += sum[i];
}

void TWIN(rmsnorm_grad)(Exec *ex, float *dw, const store *dy, const store *x, const float *rstd,
                        int N, int D) {
    OP_BEGIN(ex, rmsnorm_grad, N, D);
#pragma omp parallel for if ((size_t)N * D > OP_SMALL)
    for (int c = 0; c < D; c += COLUMNS)
        for (int r = 0; r < N; r += NORM_CHUNK) {
            size_t at = (size_t)r * D + (size_t)c;
            chunk_grad(dw + c, elems_const(dy) + at, elems_const(x) + at, rstd + r,
                       N - r < NORM_CHUNK ? N - r : NORM_CHUNK, D,
                       D - c < COLUMNS ? D - c : COLUMNS);
        }
}

void TWIN(residual_norm_fwd)(Exec *ex, store *x2, store *y, float *rp, float *ry, const store *x,
                             const store *p, const store *wp, const store *wy, int N, int D,
                             float eps) {
    OP_BEGIN(ex, residual_norm_fwd, N, D, eps);
    const elem *w = elems_const(wp);
#pragma omp parallel for if ((size_t)N * D > OP_SMALL)
    for (int n = 0; n < N; n++) {
        size_t at = (size_t)n * D;
        const elem *xr = elems_const(x) + at, *pr = elems_const(p) + at;
        elem *x2r = elems(x2) + at;
        float r = row_rstd(pr, D, eps);
#pragma omp simd
        for (int i = 0; i < D; i++)
            x2r[i] = elem_put(elem_get(xr[i]) + elem_get(pr[i]) * r * (1 + elem_get(w[i])));
        rp[n] = r;
        ry[n] = row_rstd(x2r, D, eps);
        row_scale(elems(y) + at, x2r, elems_const(wy), ry[n], D);
    }
}

void TWIN(residual_norm_bwd)(Exec *ex, store *dx, store *dp, const store *dy, const store *x2,
                             const store *p, const store *wp, const store *wy, const float *rp,
                             const float *ry, int N, int D) {
    OP_BEGIN(ex, residual_norm_bwd, N, D);
#pragma omp parallel for if ((size_t)N * D > OP_SMALL)
    for (int n = 0; n < N; n++) {
        size_t at = (size_t)n * D;
        elem *dxr = elems(dx) + at;
        row_bwd_add(dxr, elems_const(dy) + at, elems_const(x2) + at, elems_const(wy), ry[n], D);
        row_bwd_set(elems(dp) + at, dxr, elems_const(p) + at, elems_const(wp), rp[n], D);
    }
}
