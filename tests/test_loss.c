/* Softcap and cross entropy: loss and gradient against a double reference, whose gradient is held
 * against central differences of its loss. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

static const double E32 = 0x1p-24;

static double ref_cap(double x, double cap) {
    return cap > 0 ? cap * tanh(x / cap) : x;
}

/* One row. The sum leaves the target out, so that a loss near 0 keeps its digits. */
static double ref_nll(const double *x, int target, int V, double cap) {
    double others = 0, zt = ref_cap(x[target], cap);
    for (int i = 0; i < V; i++)
        if (i != target) others += exp(ref_cap(x[i], cap) - zt);
    return log1p(others);
}

/* Gradient of one row, and what f32 may lose on each element: p by the roundings of z (three, on a
 * value of up to zmax) and of exp; 1 - (z/cap)^2 by those of z/cap; the rest are products. p - 1 of
 * the target is -(others / sum), which loses no more where p is close to 1. */
static void ref_grad(double *d, double *tol, const double *x, int target, int V, double cap,
                     double weight, double round) {
    double nll = ref_nll(x, target, V, cap), zt = ref_cap(x[target], cap), zmax = 0;
    for (int i = 0; i < V; i++) zmax = fmax(zmax, fabs(ref_cap(x[i], cap)));
    for (int i = 0; i < V; i++) {
        double z = ref_cap(x[i], cap), p = exp(z - zt - nll), u = cap > 0 ? z / cap : 0;
        double miss = i == target ? -expm1(-nll) : p; /* |p - onehot| */
        double slope = 1 - u * u, lost = (8 * zmax + 8) * E32;
        d[i] = weight * (i == target ? -miss : miss) * slope;
        tol[i] =
            round * fabs(d[i]) + fabs(weight) * (lost * (i == target ? fmin(p, miss) : p) * slope +
                                                 miss * (cap > 0 ? 8 * E32 : 0) + 4 * E32 * miss);
        tol[i] += 0x1p-126; /* f32 keeps no more of a denormal */
    }
}

static void test_reference(int V, int target, double cap) {
    double *x = test_noise_array(1, V, 20), *d = test_noise_array(2, V, 1), h = 1e-5;
    double *tol = test_noise_array(3, V, 1), *slope = test_noise_array(4, V, 1);
    ref_grad(d, tol, x, target, V, cap, 3, 0);
    for (int i = 0; i < V; i++) {
        double x0 = x[i];
        x[i] = x0 + h;
        double up = ref_nll(x, target, V, cap);
        x[i] = x0 - h;
        slope[i] = 3 * (up - ref_nll(x, target, V, cap)) / (2 * h);
        x[i] = x0;
    }
    test_close("reference of xent", d, slope, V, 1e-8, 1e-8);
    free(x), free(d), free(tol), free(slope);
}

typedef struct Case {
    int N, V;
    double cap, scale, weight; /* of rows 0, 2, ..; the others have -3 times it */
    double peak;               /* added to the target's logit: how sure the model is */
} Case;

static void test_xent(Exec *ex, Case c) {
    int N = c.N, V = c.V;
    size_t n = (size_t)N * V, bytes = n * dtype_size(ex->dtype);
    double *X = test_noise_array(11, n, c.scale), *D = test_noise_array(12, n, 1);
    double *tol = test_noise_array(13, n, 1), *L = test_noise_array(14, N, 1);
    double *tl = test_noise_array(15, N, 1);
    int32_t *t = malloc(((size_t)N + 1) * sizeof *t);
    for (int i = 0; i < N; i++) t[i] = i == 0 ? V - 1 : i == 1 ? 0 : (i * 7919) % V;
    for (int i = 0; i < N; i++) X[(size_t)i * V + t[i]] += c.peak;
    float *x = test_f32(ex, X, n), *nll = test_alloc(ex, N * 4), *nll2 = test_alloc(ex, N * 4);
    store *d = test_alloc(ex, bytes);
    int32_t *target = test_i32(ex, t, (size_t)N);
    double *W = test_noise_array(16, N, 0);
    for (int i = 0; i < N; i++) W[i] = (float)(i % 2 ? -3 * c.weight : c.weight);
    float *weight = test_f32(ex, W, N);
    for (int i = 0; i < N; i++) {
        const double *row = X + (size_t)i * V;
        ref_grad(D + (size_t)i * V, tol + (size_t)i * V, row, t[i], V, c.cap, W[i],
                 test_roundoff(ex->dtype));
        L[i] = ref_nll(row, t[i], V, c.cap);
        double zmax = 0;
        for (int j = 0; j < V; j++) zmax = fmax(zmax, fabs(ref_cap(row[j], c.cap)));
        tl[i] = -expm1(-L[i]) * (8 * zmax + 8) * E32 + 2 * E32 * L[i];
    }
    ex->op->xent(ex, d, nll, x, target, weight, N, V, (float)c.cap);
    double *gd = test_get_store(ex, d, n), *gl = test_get_f32(ex, nll, N);
    char what[128];
    snprintf(what, sizeof what, "%s xent N=%d V=%d cap=%g peak=%g", ex->op->name, N, V, c.cap,
             c.peak);
    test_close_each(what, gl, L, tl, N);
    test_close_each(what, gd, D, tol, n);
    ex->op->xent(ex, NULL, nll2, x, target, NULL, N, V, (float)c.cap);
    test_same(what, ex, nll, nll2, N * 4);
    if (N > 0 && V > 1) {
        gl[N - 1] *= 1 + 1e-4;
        TEST_DETECTS(test_close_each(what, gl, L, tl, N));
        gd[t[0]] += W[0]; /* the onehot forgotten */
        TEST_DETECTS(test_close_each(what, gd, D, tol, n));
    }
    if (ex->dtype == DTYPE_F32) {
        ex->op->xent(ex, (store *)x, nll2, x, target, weight, N, V, (float)c.cap);
        test_same(what, ex, nll, nll2, N * 4);
        test_same(what, ex, x, d, bytes);
    }
    test_free(ex, x), test_free(ex, nll), test_free(ex, nll2), test_free(ex, d);
    test_free(ex, target), test_free(ex, weight);
    free(X), free(D), free(tol), free(L), free(tl), free(t), free(gd), free(gl), free(W);
}

/* A row's bits do not depend on the other rows, nor on the number of threads. */
static void test_bits(Exec *ex, int N, int V) {
    size_t n = (size_t)N * V, row = V * dtype_size(ex->dtype);
    double *X = test_noise_array(21, n, 30);
    int32_t *t = calloc(N, sizeof *t);
    float *x = test_f32(ex, X, n), *nll = test_alloc(ex, N * 4), *one = test_alloc(ex, N * 4);
    int32_t *target = test_i32(ex, t, N);
    store *d = test_alloc(ex, n * dtype_size(ex->dtype)), *d1 = test_alloc(ex, row);
    double *W = test_noise_array(22, N, 1);
    float *weight = test_f32(ex, W, N);
    for (int threads = 1; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        ex->op->xent(ex, d, nll, x, target, weight, N, V, 30);
        for (int i = 0; i < N; i += N - 1) {
            ex->op->xent(ex, d1, one, x + (size_t)i * V, target, weight + i, 1, V, 30);
            test_same("xent, nll of a row alone", ex, one, nll + i, 4);
            test_same("xent, a row alone", ex, d1, store_at(ex->dtype, d, (size_t)i * V), row);
        }
    }
    test_free(ex, x), test_free(ex, nll), test_free(ex, one), test_free(ex, target);
    test_free(ex, d), test_free(ex, d1), test_free(ex, weight);
    free(X), free(t), free(W);
}

static void test_contract(Exec *ex) {
    double v[4] = {0};
    int32_t ids[2] = {4, -1};
    float *x = test_f32(ex, v, 4), *nll = test_f32(ex, v, 1);
    int32_t *target = test_i32(ex, ids, 2);
    TEST_DIES(ex, ex->op->xent(ex, NULL, nll, x, target, NULL, 1, 4, 30));
    TEST_DIES(ex, ex->op->xent(ex, NULL, nll, x, target + 1, NULL, 1, 4, 30));
    test_free(ex, x), test_free(ex, nll), test_free(ex, target);
}

static void body(Exec *ex) {
    static const Case cases[] = {
        {0, 16, 30, 1, 1, 0},      {1, 1, 30, 5, 1, 0},          {3, 2, 30, 40, 0.25, 0},
        {5, 257, 0, 10, 1, 0},     {5, 257, 30, 60, -2, 0},      {2, 8191, 30, 3, 0.5, 0},
        {3, 8192, 30, 3, 0.5, 12}, {3, 8193, 0, 5, 0.5, 25},     {40, 512, 30, 8, 1e-3, 4},
        {2, 20000, 5, 4, 1, 3},    {2, 256000, 30, 8, 0.125, 0}, {9, 300, 30, 200, 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) test_xent(ex, cases[i]);
    test_bits(ex, 9, 20001);
    test_bits(ex, 300, 700);
    test_contract(ex);
}

int main(void) {
    test_reference(40, 7, 30);
    test_reference(40, 0, 0);
    test_each_exec(body);
    return test_done("test_loss");
}
