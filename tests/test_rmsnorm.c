/* RMSNorm alone and fused with the residual, against double references written from the contract.
 * Gradients: the reference is itself held against central differences, so no derivative is
 * believed twice. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/test.h"

static const double E32 = 0x1p-24; /* one rounding in f32 */

/* A sum of D terms in f32, in any order: roundings are a random walk of at most D steps of half an
 * ulp, of which four sigma are allowed. */
static double tol_sum(int D) {
    return (4 + 2 * sqrt(D)) * E32;
}

static void ref_fwd(double *y, double *r, const double *x, const double *w, int N, int D,
                    double eps) {
    for (int n = 0; n < N; n++) {
        double ss = 0;
        for (int i = 0; i < D; i++) ss += x[n * D + i] * x[n * D + i];
        r[n] = 1 / sqrt(ss / D + eps);
        for (int i = 0; i < D; i++) y[n * D + i] = x[n * D + i] * r[n] * (1 + w[i]);
    }
}

/* dx = gradient of the norm alone; tol: what f32 may lose on each element. */
static void ref_bwd(double *dx, double *tol, const double *dy, const double *x, const double *w,
                    const double *r, int N, int D) {
    for (int n = 0; n < N; n++) {
        double gx = 0, size = 0, r3 = r[n] * r[n] * r[n];
        for (int i = 0; i < D; i++) {
            double t = dy[n * D + i] * (1 + w[i]) * x[n * D + i];
            gx += t / D, size += fabs(t) / D;
        }
        for (int i = 0; i < D; i++) {
            double g = dy[n * D + i] * (1 + w[i]), xi = x[n * D + i];
            dx[n * D + i] = r[n] * g - xi * r3 * gx;
            tol[n * D + i] =
                4 * E32 * fabs(r[n] * g) + (tol_sum(D) + 8 * E32) * fabs(xi) * r3 * size;
        }
    }
}

/* dw = gradient of the weight. tol: each of its N terms is rounded three times, a chunk's sum and
 * that of the chunks as sums are. */
static void ref_grad(double *dw, double *tol, const double *dy, const double *x, const double *r,
                     int N, int D) {
    for (int i = 0; i < D; i++) {
        dw[i] = tol[i] = 0;
        for (int n = 0; n < N; n++) {
            double t = dy[(size_t)n * D + i] * x[(size_t)n * D + i] * r[n];
            dw[i] += t, tol[i] += (tol_sum(N) + 3 * E32) * fabs(t);
        }
    }
}

/* Central differences of sum(dy * norm(x)) by x and by w must agree with ref_bwd and ref_grad. */
static double weighted(double *y, double *r, const double *dy, const double *x, const double *w,
                       int N, int D, double eps) {
    double f = 0;
    ref_fwd(y, r, x, w, N, D, eps);
    for (int j = 0; j < N * D; j++) f += dy[j] * y[j];
    return f;
}

static void test_reference(int N, int D) {
    size_t n = (size_t)N * D;
    double eps = 1e-2, h = 1e-5, *x = test_noise_array(1, n, 1), *w = test_noise_array(2, D, 1);
    double *dy = test_noise_array(3, n, 1), *y = test_noise_array(4, n, 1);
    double *r = test_noise_array(5, N, 1), *dx = test_noise_array(6, n, 1);
    double *tol = test_noise_array(7, n, 1), *slope = test_noise_array(8, n + D, 1);
    for (size_t i = 0; i < n + (size_t)D; i++) {
        double f[2], *at = i < n ? &x[i] : &w[i - n], old = *at;
        for (int s = 0; s < 2; s++) {
            *at = old + (s ? h : -h);
            f[s] = weighted(y, r, dy, x, w, N, D, eps);
        }
        *at = old;
        slope[i] = (f[1] - f[0]) / (2 * h);
    }
    ref_fwd(y, r, x, w, N, D, eps);
    ref_bwd(dx, tol, dy, x, w, r, N, D);
    test_close("reference of rmsnorm_bwd", dx, slope, n, 1e-8, 1e-8);
    ref_grad(dx, tol, dy, x, r, N, D);
    test_close("reference of rmsnorm_grad", dx, slope + n, (size_t)D, 1e-8, 1e-8);
    free(x), free(w), free(dy), free(y), free(r), free(dx), free(tol), free(slope);
}

static void test_fwd(Exec *ex, int N, int D, double scale, double eps) {
    size_t n = (size_t)N * D, bytes = n * dtype_size(ex->dtype);
    double *X = test_noise_array(10, n, scale), *W = test_noise_array(11, D, 1);
    double *Y = test_noise_array(12, n, 1), *R = test_noise_array(13, N, 1);
    store *x = test_store(ex, X, n), *w = test_store(ex, W, D), *y = test_alloc(ex, bytes);
    float *r = test_alloc(ex, N * 4);
    ref_fwd(Y, R, X, W, N, D, (float)eps);
    ex->op->rmsnorm_fwd(ex, y, r, x, w, N, D, (float)eps);

    char what[96];
    snprintf(what, sizeof what, "%s rmsnorm_fwd N=%d D=%d", ex->op->name, N, D);
    double *gy = test_get_store(ex, y, n), *gr = test_get_f32(ex, r, N);
    double tol = test_roundoff(ex->dtype) + tol_sum(D) + 4 * E32;
    test_close(what, gy, Y, n, 0, tol);
    test_close(what, gr, R, N, 0, tol_sum(D));
    if (N > 0) {
        double keep = gy[n - 1];
        gy[n - 1] *= 1 + 3 * tol;
        TEST_DETECTS(test_close(what, gy, Y, n, 0, tol));
        gy[n - 1] = NAN;
        TEST_DETECTS(test_close(what, gy, Y, n, 0, tol));
        gy[n - 1] = keep;
        ref_fwd(Y, R, X, W, N, D, 0); /* eps must be seen in the result */
        TEST_DETECTS(test_close(what, gr, R, N, 0, tol_sum(D)));
    }
    ex->op->rmsnorm_fwd(ex, x, r, x, w, N, D, (float)eps); /* in place */
    test_same(what, ex, x, y, bytes);
    test_free(ex, x), test_free(ex, w), test_free(ex, y), test_free(ex, r);
    free(X), free(W), free(Y), free(R), free(gy), free(gr);
}

static void test_bwd(Exec *ex, int N, int D) {
    size_t n = (size_t)N * D;
    double *X = test_noise_array(20, n, 1), *W = test_noise_array(21, D, 1);
    double *DY = test_noise_array(22, n, 1), *DX = test_noise_array(23, n, 1);
    double *Y = test_noise_array(24, n, 1), *R = test_noise_array(25, N, 1);
    double *want = test_noise_array(26, n, 1), *tol = test_noise_array(27, n, 1);
    store *x = test_store(ex, X, n), *w = test_store(ex, W, D), *dy = test_store(ex, DY, n);
    store *dx = test_store(ex, DX, n); /* +=: starts from something */
    ref_fwd(Y, R, X, W, N, D, 1e-2);
    float *r = test_f32(ex, R, N);
    ref_bwd(want, tol, DY, X, W, R, N, D);
    for (size_t i = 0; i < n; i++) {
        want[i] += DX[i];
        tol[i] += (test_roundoff(ex->dtype) + 4 * E32) * fabs(want[i]) + 2 * E32 * fabs(DX[i]);
    }
    ex->op->rmsnorm_bwd(ex, dx, dy, x, w, r, N, D);
    char what[96];
    snprintf(what, sizeof what, "%s rmsnorm_bwd N=%d D=%d", ex->op->name, N, D);
    double *got = test_get_store(ex, dx, n);
    test_close_each(what, got, want, tol, n);
    if (N > 0) {
        got[n / 2] -= DX[n / 2];
        TEST_DETECTS(test_close_each(what, got, want, tol, n));
    }
    test_free(ex, x), test_free(ex, w), test_free(ex, dy), test_free(ex, dx), test_free(ex, r);
    free(X), free(W), free(DY), free(DX), free(Y), free(R), free(want), free(tol), free(got);
}

/* dw starts from something, and the workspace from NaN. */
static void test_grad(Exec *ex, int N, int D) {
    size_t n = (size_t)N * D;
    double *X = test_noise_array(60, n, 1), *DY = test_noise_array(61, n, 1);
    double *R = test_noise_array(62, N, 1), *DW = test_noise_array(63, D, 1);
    double *want = test_noise_array(64, D, 1), *tol = test_noise_array(65, D, 1);
    for (int i = 0; i < N; i++) R[i] += 2;
    store *x = test_store(ex, X, n), *dy = test_store(ex, DY, n);
    float *r = test_f32(ex, R, N), *dw = test_f32(ex, DW, D); /* +=: starts from something */
    ref_grad(want, tol, DY, X, R, N, D);
    for (int i = 0; i < D; i++) {
        want[i] += DW[i];
        tol[i] += N ? 2 * E32 * (fabs(want[i]) + fabs(DW[i])) : 0;
    }
    test_spoil_scratch(ex);
    ex->op->rmsnorm_grad(ex, dw, dy, x, r, N, D);
    char what[96];
    snprintf(what, sizeof what, "%s rmsnorm_grad N=%d D=%d", ex->op->name, N, D);
    double *got = test_get_f32(ex, dw, D);
    test_close_each(what, got, want, tol, D);
    if (N > 0) {
        got[D - 1] -= DY[n - 1] * X[n - 1] * R[N - 1]; /* the last row forgotten */
        TEST_DETECTS(test_close_each(what, got, want, tol, D));
        got[D - 1] = want[D - 1] - DW[D - 1];
        TEST_DETECTS(test_close_each(what, got, want, tol, D));
    }
    test_free(ex, x), test_free(ex, dy), test_free(ex, r), test_free(ex, dw);
    free(X), free(DY), free(R), free(DW), free(want), free(tol), free(got);
}

/* A chunk's rows are added up before they meet those of others: with 2^24 in the first chunk and a
 * 1 in each row of the next, none of which could move it alone, nothing is lost. */
static void test_grad_chunks(Exec *ex) {
    enum { N = 2 * NORM_CHUNK + 1, D = 9 };
    double X[N * D], ONE[N * D], R[N], zero[D] = {0};
    for (int n = 0; n < N; n++) {
        R[n] = 1;
        for (int i = 0; i < D; i++)
            X[n * D + i] = n == 0 ? 0x1p24 : n >= NORM_CHUNK, ONE[n * D + i] = 1;
    }
    store *x = test_store(ex, X, N * D), *one = test_store(ex, ONE, N * D);
    float *r = test_f32(ex, R, N);
    for (int threads = 1; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        float *dw = test_f32(ex, zero, D);
        ex->op->rmsnorm_grad(ex, dw, one, x, r, N, D);
        double *got = test_get_f32(ex, dw, D);
        for (int i = 0; i < D; i++)
            EXPECT(got[i] == 0x1p24 + NORM_CHUNK, "column %d: %.9g", i, got[i]);
        test_free(ex, dw);
        free(got);
    }
    test_free(ex, x), test_free(ex, one), test_free(ex, r);
}

/* y is held against x2 as the op left it, the rounding of x2 being part of the contract. */
static void test_residual_fwd(Exec *ex, int N, int D) {
    size_t n = (size_t)N * D, bytes = n * dtype_size(ex->dtype);
    double eps = (float)1e-2, *X = test_noise_array(30, n, 2), *P = test_noise_array(31, n, 1);
    double *WP = test_noise_array(32, D, 1), *WY = test_noise_array(33, D, 1);
    double *X2 = test_noise_array(34, n, 1), *Y = test_noise_array(35, n, 1);
    double *RP = test_noise_array(36, N, 1), *RY = test_noise_array(37, N, 1);
    double *tol = test_noise_array(38, n, 1), ts = tol_sum(D);
    store *x = test_store(ex, X, n), *p = test_store(ex, P, n);
    store *wp = test_store(ex, WP, D), *wy = test_store(ex, WY, D);
    store *x2 = test_alloc(ex, bytes), *y = test_alloc(ex, bytes), *y2 = test_alloc(ex, bytes);
    float *rp = test_alloc(ex, N * 4), *ry = test_alloc(ex, N * 4);
    ex->op->residual_norm_fwd(ex, x2, y, rp, ry, x, p, wp, wy, N, D, (float)eps);

    ref_fwd(X2, RP, P, WP, N, D, eps);
    for (size_t i = 0; i < n; i++) {
        tol[i] = (ts + 4 * E32) * fabs(X2[i]);
        X2[i] += X[i];
        tol[i] += (test_roundoff(ex->dtype) + E32) * fabs(X2[i]);
    }
    double *gx2 = test_get_store(ex, x2, n), *gy = test_get_store(ex, y, n);
    double *grp = test_get_f32(ex, rp, N), *gry = test_get_f32(ex, ry, N);
    ref_fwd(Y, RY, gx2, WY, N, D, eps);
    char what[96];
    snprintf(what, sizeof what, "%s residual_norm_fwd N=%d D=%d", ex->op->name, N, D);
    test_close_each(what, gx2, X2, tol, n);
    test_close(what, gy, Y, n, 0, test_roundoff(ex->dtype) + ts + 4 * E32);
    test_close(what, grp, RP, N, 0, ts);
    test_close(what, gry, RY, N, 0, ts);
    if (N > 0) {
        ref_fwd(Y, RY, X, WY, N, D, eps); /* the norm of x instead of x2 */
        TEST_DETECTS(test_close(what, gry, RY, N, 0, ts));
        TEST_DETECTS(test_close_each(what, gx2, X, tol, n));
    }
    ex->op->residual_norm_fwd(ex, x, y2, rp, ry, x, p, wp, wy, N, D, (float)eps); /* in place */
    test_same(what, ex, x, x2, bytes);
    test_same(what, ex, y2, y, bytes);
    test_free(ex, x), test_free(ex, p), test_free(ex, wp), test_free(ex, wy), test_free(ex, x2);
    test_free(ex, y), test_free(ex, y2), test_free(ex, rp), test_free(ex, ry);
    free(X), free(P), free(WP), free(WY), free(X2), free(Y), free(RP), free(RY), free(tol);
    free(gx2), free(gy), free(grp), free(gry);
}

/* dp is held against dx as the op left it. */
static void test_residual_bwd(Exec *ex, int N, int D) {
    size_t n = (size_t)N * D;
    double *X2 = test_noise_array(40, n, 2), *P = test_noise_array(41, n, 1);
    double *WP = test_noise_array(42, D, 1), *WY = test_noise_array(43, D, 1);
    double *DX = test_noise_array(44, n, 1), *DY = test_noise_array(45, n, 1);
    double *RP = test_noise_array(46, N, 1), *RY = test_noise_array(47, N, 1);
    double *want = test_noise_array(48, n, 1), *tol = test_noise_array(49, n, 1);
    double u = test_roundoff(ex->dtype);
    store *x2 = test_store(ex, X2, n), *p = test_store(ex, P, n), *dx = test_store(ex, DX, n);
    store *dy = test_store(ex, DY, n), *wp = test_store(ex, WP, D), *wy = test_store(ex, WY, D);
    store *dp = test_alloc(ex, n * dtype_size(ex->dtype));
    ref_fwd(want, RP, P, WP, N, D, 1e-2);
    ref_fwd(want, RY, X2, WY, N, D, 1e-2);
    float *rp = test_f32(ex, RP, N), *ry = test_f32(ex, RY, N);
    ex->op->residual_norm_bwd(ex, dx, dp, dy, x2, p, wp, wy, rp, ry, N, D);

    char what[96];
    snprintf(what, sizeof what, "%s residual_norm_bwd N=%d D=%d", ex->op->name, N, D);
    double *gdx = test_get_store(ex, dx, n), *gdp = test_get_store(ex, dp, n);
    ref_bwd(want, tol, DY, X2, WY, RY, N, D);
    for (size_t i = 0; i < n; i++) {
        want[i] += DX[i];
        tol[i] += (u + 4 * E32) * fabs(want[i]) + 2 * E32 * fabs(DX[i]);
    }
    test_close_each(what, gdx, want, tol, n);
    ref_bwd(want, tol, gdx, P, WP, RP, N, D);
    for (size_t i = 0; i < n; i++) tol[i] += (u + 2 * E32) * fabs(want[i]);
    test_close_each(what, gdp, want, tol, n);
    if (N > 0) {
        ref_bwd(want, tol, DX, P, WP, RP, N, D); /* dp from dx as it came in */
        TEST_DETECTS(test_close_each(what, gdp, want, tol, n));
    }
    test_free(ex, x2), test_free(ex, p), test_free(ex, dx), test_free(ex, dy), test_free(ex, wp);
    test_free(ex, wy), test_free(ex, dp), test_free(ex, rp), test_free(ex, ry);
    free(X2), free(P), free(WP), free(WY), free(DX), free(DY), free(RP), free(RY);
    free(want), free(tol), free(gdx), free(gdp);
}

/* Rows do not know of each other, nor of the threads: the same row, alone or among others. */
static void test_bits(Exec *ex) {
    enum { N = 40, D = 2304 };
    size_t row = D * dtype_size(ex->dtype);
    double *X = test_noise_array(50, (size_t)N * D, 1), *W = test_noise_array(51, D, 1);
    store *x = test_store(ex, X, (size_t)N * D), *w = test_store(ex, W, D);
    store *y = test_alloc(ex, N * row), *one = test_alloc(ex, row);
    float *r = test_alloc(ex, N * 4);
    for (int threads = 1; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        ex->op->rmsnorm_fwd(ex, y, r, x, w, N, D, 1e-6f);
        for (int n = 0; n < N; n += N - 1) {
            size_t at = (size_t)n * D;
            ex->op->rmsnorm_fwd(ex, one, r, store_at(ex->dtype, x, at), w, 1, D, 1e-6f);
            test_same("rmsnorm_fwd, row alone", ex, one, store_at(ex->dtype, y, at), row);
        }
    }
    test_free(ex, x), test_free(ex, w), test_free(ex, y), test_free(ex, one), test_free(ex, r);
    free(X), free(W);
}

static void test_contract(Exec *ex) {
    double v[8] = {0};
    store *x = test_store(ex, v, 8);
    float *r = test_f32(ex, v, 1);
    TEST_DIES(ex, ex->op->rmsnorm_fwd(ex, x, r, x, x, 1, 8, 0));
    TEST_DIES(ex, ex->op->rmsnorm_fwd(ex, x, r, x, x, -1, 8, 1));
    TEST_DIES(ex, ex->op->rmsnorm_bwd(ex, x, x, x, x, r, 0, 8193));
    TEST_DIES(ex, ex->op->rmsnorm_grad(ex, r, x, x, r, -1, 8));
    TEST_DIES(ex, ex->op->residual_norm_fwd(ex, x, x, r, r, x, x, x, x, 1, 0, 1));
    TEST_DIES(ex, ex->op->residual_norm_bwd(ex, x, x, x, x, x, x, x, r, r, 1, 8193));
    test_free(ex, x), test_free(ex, r);
}

static void body(Exec *ex) {
    static const int shape[][2] = {{0, 8},     {1, 1},    {1, 8},   {3, 24},   {4, 30},
                                   {7, 31},    {8, 128},  {9, 256}, {2, 2303}, {5, 2304},
                                   {17, 3584}, {1, 8191}, {2, 8192}};
    for (size_t s = 0; s < sizeof shape / sizeof shape[0]; s++) {
        test_fwd(ex, shape[s][0], shape[s][1], 0.1, 1e-3);
        test_bwd(ex, shape[s][0], shape[s][1]);
        test_grad(ex, shape[s][0], shape[s][1]);
    }
    for (int N = NORM_CHUNK - 1; N <= NORM_CHUNK + 1; N++) test_grad(ex, N, 63 + N % 2);
    test_grad(ex, 3 * NORM_CHUNK + 5, 1032); /* columns of more than one block */
    test_grad_chunks(ex);
    for (size_t s = 0; s < sizeof shape / sizeof shape[0]; s++) {
        test_residual_fwd(ex, shape[s][0], shape[s][1]);
        test_residual_bwd(ex, shape[s][0], shape[s][1]);
    }
    test_bits(ex);
    test_contract(ex);
}

int main(void) {
    test_reference(3, 24);
    test_reference(1, 1);
    test_each_exec(body);
    return test_done("test_rmsnorm");
}
