/* Columns without their part along given directions: each twin against double, and nothing is left
 * along them. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "tests/test.h"

/* k rows of length n, orthonormal by Gram and Schmidt twice over, then rounded to f32. */
static double *directions(int k, int n, uint64_t seed) {
    double *v = test_noise_array(seed, (size_t)k * n, 1);
    for (int j = 0; j < k; j++) {
        double *a = v + (size_t)j * n, norm = 0;
        for (int turn = 0; turn < 2; turn++)
            for (int b = 0; b < j; b++) {
                double dot = 0;
                for (int i = 0; i < n; i++) dot += a[i] * v[(size_t)b * n + i];
                for (int i = 0; i < n; i++) a[i] -= dot * v[(size_t)b * n + i];
            }
        for (int i = 0; i < n; i++) norm += a[i] * a[i];
        for (int i = 0; i < n; i++) a[i] /= sqrt(norm);
    }
    for (size_t i = 0; i < (size_t)k * n; i++) v[i] = (float)v[i];
    return v;
}

/* y in double, and what each element may be off by: half a unit of its last place in f32, and the
 * roundings of n + k terms in double, each at most |x| + sum |v||t|. */
static void reference(double *y, double *tol, const double *x, const double *v, int n, int R,
                      int k) {
    double *t = calloc((size_t)k, sizeof *t), *size = calloc((size_t)k, sizeof *size);
    CHECK(t && size, "out of memory");
    for (int c = 0; c < R; c++) {
        for (int j = 0; j < k; j++) {
            t[j] = size[j] = 0;
            for (int i = 0; i < n; i++) {
                double term = v[(size_t)j * n + i] * x[(size_t)i * R + c];
                t[j] += term, size[j] += fabs(term);
            }
        }
        for (int i = 0; i < n; i++) {
            double left = x[(size_t)i * R + c], all = fabs(left);
            for (int j = 0; j < k; j++) {
                double share = v[(size_t)j * n + i];
                left -= share * t[j], all += fabs(share) * size[j];
            }
            y[(size_t)i * R + c] = left;
            tol[(size_t)i * R + c] = 0x1p-24 * fabs(left) + 2 * (n + k) * 0x1p-53 * all + 0x1p-149;
        }
    }
    free(t), free(size);
}

/* v y = 0: rounding moves each row of v by 2^-24 of its length, so that products of two are off by
 * twice that, and with each of the k of them what x has of it comes back; y is rounded once. */
static int nothing_along(const double *y, const double *x, const double *v, int n, int R, int k) {
    for (int c = 0; c < R; c++) {
        double norm = 0, most = 0;
        for (int i = 0; i < n; i++) norm += x[(size_t)i * R + c] * x[(size_t)i * R + c];
        for (int j = 0; j < k; j++) {
            double dot = 0;
            for (int i = 0; i < n; i++) dot += v[(size_t)j * n + i] * y[(size_t)i * R + c];
            most = fmax(most, fabs(dot));
        }
        if (!(most <= (2 * k + 1) * 0x1p-24 * sqrt(norm))) {
            EXPECT(test_quiet, "column %d has %g along a direction, of length %g", c, most,
                   sqrt(norm));
            return 0;
        }
    }
    return 1;
}

static void check(Exec *ex, int n, int R, int k, bool alias) {
    char what[96];
    size_t all = (size_t)n * R;
    snprintf(what, sizeof what, "%s project_out n=%d R=%d k=%d%s", ex->op->name, n, R, k,
             alias ? " in place" : "");
    double *x = test_noise_array((uint64_t)(n + R), all, 3), *v = directions(k, n, 7);
    for (size_t i = 0; i < all; i++) x[i] = (float)x[i];
    double *want = calloc(all, sizeof *want), *tol = calloc(all, sizeof *tol);
    CHECK(want && tol, "out of memory");
    reference(want, tol, x, v, n, R, k);
    float *dx = test_f32(ex, x, all), *dv = test_f32(ex, v, (size_t)k * n);
    float *y = alias ? dx : test_alloc(ex, all * sizeof *y);
    ex->op->project_out(ex, y, dx, dv, n, R, k);
    double *got = test_get_f32(ex, y, all);
    test_close_each(what, got, want, tol, all);
    nothing_along(got, x, v, n, R, k);
    if (n > k) {
        got[all - 1] += 1e-3;
        TEST_DETECTS(test_close_each(what, got, want, tol, all));
        TEST_DETECTS(nothing_along(x, x, v, n, R, k));
    }
    if (!alias) test_free(ex, y);
    test_free(ex, dx), test_free(ex, dv);
    free(x), free(v), free(want), free(tol), free(got);
}

/* The same bits on any number of threads. */
static void thread_bits(Exec *ex) {
    enum { N = 700, COLUMNS = 16, K = 20, ALL = N * COLUMNS };
    int before = omp_get_max_threads();
    double *x = test_noise_array(1, ALL, 1), *v = directions(K, N, 2), *first = NULL;
    float *dx = test_f32(ex, x, ALL), *dv = test_f32(ex, v, K * N);
    float *y = test_alloc(ex, ALL * sizeof *y);
    for (int threads = 1; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        ex->op->project_out(ex, y, dx, dv, N, COLUMNS, K);
        double *got = test_get_f32(ex, y, ALL);
        EXPECT(!first || !memcmp(first, got, ALL * sizeof *got), "%d threads", threads);
        if (first)
            free(got);
        else
            first = got;
    }
    omp_set_num_threads(before);
    test_free(ex, y), test_free(ex, dx), test_free(ex, dv);
    free(x), free(v), free(first);
}

static void body(Exec *ex) {
    static const int shape[][3] = {{1, 1, 1},   {2, 3, 1},    {31, 1, 31}, {32, 16, 8},
                                   {33, 17, 9}, {257, 40, 5}, {300, 2, 33}};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (int alias = 0; alias < 2; alias++)
            check(ex, shape[i][0], shape[i][1], shape[i][2], alias);
    if (test_on_cpu(ex)) thread_bits(ex);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_project_out");
}
