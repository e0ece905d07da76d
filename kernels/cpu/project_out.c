/* project_out.c - what is left of columns beside given directions. Contract: ops.h.
 *
 * First t (k,R) = v x, a row of it by one thread, then y = x - v^T t row by row: which thread takes
 * what changes no sum. */
#include "kernels/cpu/twin.h"

enum { COLUMNS = 16 }; /* that are summed at a time, in registers */

size_t TWIN(project_out_scratch)(Exec *ex, int R, int k) {
    (void)ex;
    return (size_t)R * (size_t)k * sizeof(double);
}

/* Row t (R) of v x, for one direction v (n). */
static void row_of_t(double *t, const float *v, const float *x, int n, int R) {
    for (int c = 0; c < R; c++) t[c] = 0;
    for (int i = 0; i < n; i++)
#pragma omp simd
        for (int c = 0; c < R; c++) t[c] += (double)v[i] * (double)x[(size_t)i * R + c];
}

/* Row i of y. */
static void row_of_y(float *y, const float *x, const float *v, const double *t, int n, int R, int k,
                     int i) {
    for (int c0 = 0; c0 < R; c0 += COLUMNS) {
        int some = R - c0 < COLUMNS ? R - c0 : COLUMNS;
        double left[COLUMNS];
        for (int c = 0; c < some; c++) left[c] = x[(size_t)i * R + c0 + c];
        for (int j = 0; j < k; j++) {
            double share = v[(size_t)j * n + i];
            for (int c = 0; c < some; c++) left[c] -= share * t[(size_t)j * R + c0 + c];
        }
        for (int c = 0; c < some; c++) y[(size_t)i * R + c0 + c] = (float)left[c];
    }
}

void TWIN(project_out)(Exec *ex, float *y, const float *x, const float *v, int n, int R, int k) {
    OP_BEGIN(ex, project_out, n, R, k);
    double *t = exec_scratch(ex, TWIN(project_out_scratch)(ex, R, k));
    bool several = (size_t)n * (size_t)R * (size_t)k > OP_SMALL;
#pragma omp parallel for if (several)
    for (int j = 0; j < k; j++) row_of_t(t + (size_t)j * R, v + (size_t)j * n, x, n, R);
#pragma omp parallel for if (several)
    for (int i = 0; i < n; i++) row_of_y(y, x, v, t, n, R, k, i);
}
