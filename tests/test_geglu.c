/* gelu(gate) up against libm's tanh in double; the backward against central differences. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/test.h"

static const double E32 = 0x1p-24;

static double argument(double g) {
    return 1.5957691216057308 * (g + 0.044715 * g * g * g); /* 2 sqrt(2/pi) */
}
/* 0.5 (1 + tanh(a/2)), in the form that does not cancel. */
static double sigmoid(double a) {
    return 1 / (1 + exp(-a));
}
static double gelu(double g) {
    return g * sigmoid(argument(g));
}

/* Roundings of gelu (scalar.h), relative: more where its exp has a large argument. */
static double tol_gelu(double g) {
    double a = argument(g);
    return (9 + 4 * fabs(a) * sigmoid(-a)) * E32;
}

/* Gates up to +-14, where gelu has long arrived at 0 or g, and 0 itself. */
static double *gates(size_t n) {
    double *g = test_noise_array(1, n, 6);
    for (size_t i = 0; i < n; i += 5) g[i] = i % 10 ? 14 * g[i] / 6 : g[i] / 1000;
    if (n > 2) g[2] = 0;
    return g;
}

static void test_fwd(Exec *ex, size_t n) {
    size_t bytes = n * dtype_size(ex->dtype);
    double *G = gates(n), *U = test_noise_array(2, n, 3), *Y = test_noise_array(3, n, 1);
    double *tol = test_noise_array(4, n, 1);
    store *g = test_store(ex, G, n), *u = test_store(ex, U, n), *y = test_alloc(ex, bytes);
    for (size_t i = 0; i < n; i++) {
        Y[i] = gelu(G[i]) * U[i];
        tol[i] = (test_roundoff(ex->dtype) + E32 + tol_gelu(G[i])) * fabs(Y[i]) + 0x1p-120;
    }
    ex->op->geglu_fwd(ex, y, g, u, n);
    char what[96];
    snprintf(what, sizeof what, "%s geglu_fwd n=%zu", ex->op->name, n);
    double *got = test_get_store(ex, y, n);
    test_close_each(what, got, Y, tol, n);
    for (size_t i = n; i-- > 0 && n > 8;) /* the other gelu, by erf */
        got[i] = 0.5 * G[i] * (1 + erf(G[i] / sqrt(2))) * U[i];
    if (n > 8) TEST_DETECTS(test_close_each(what, got, Y, tol, n));
    store *a = test_store(ex, G, n), *b = test_store(ex, U, n);
    ex->op->geglu_fwd(ex, a, a, u, n);
    test_same(what, ex, a, y, bytes);
    ex->op->geglu_fwd(ex, b, g, b, n);
    test_same(what, ex, b, y, bytes);
    test_free(ex, g), test_free(ex, u), test_free(ex, y), test_free(ex, a), test_free(ex, b);
    free(G), free(U), free(Y), free(tol), free(got);
}

static void test_bwd(Exec *ex, size_t n) {
    size_t bytes = n * dtype_size(ex->dtype);
    double *G = gates(n), *U = test_noise_array(2, n, 3), *DY = test_noise_array(5, n, 2);
    double *DG = test_noise_array(6, n, 1), *DU = test_noise_array(7, n, 1);
    double *tg = test_noise_array(8, n, 1), *tu = test_noise_array(9, n, 1);
    double h = 1e-5, round = test_roundoff(ex->dtype);
    store *g = test_store(ex, G, n), *u = test_store(ex, U, n), *dy = test_store(ex, DY, n);
    store *dg = test_alloc(ex, bytes), *du = test_alloc(ex, bytes);
    for (size_t i = 0; i < n; i++) {
        double slope = (gelu(G[i] + h) - gelu(G[i] - h)) / (2 * h), a = argument(G[i]);
        DG[i] = DY[i] * U[i] * slope;
        DU[i] = DY[i] * gelu(G[i]);
        /* gelu' has a term with and one without the factor g; both vanish like sigmoid(a). */
        double size = sigmoid(a) * (1 + fabs(G[i] * 1.6 * (1 + 0.135 * G[i] * G[i])) * sigmoid(-a));
        tg[i] = round * fabs(DG[i]) + fabs(DY[i] * U[i]) * ((14 + 4 * fabs(a)) * E32 * size + 1e-9);
        tu[i] = (round + E32 + tol_gelu(G[i])) * fabs(DU[i]) + 0x1p-120;
    }
    ex->op->geglu_bwd(ex, dg, du, dy, g, u, n);
    char what[96];
    snprintf(what, sizeof what, "%s geglu_bwd n=%zu", ex->op->name, n);
    double *gg = test_get_store(ex, dg, n), *gu = test_get_store(ex, du, n);
    test_close_each(what, gg, DG, tg, n);
    test_close_each(what, gu, DU, tu, n);
    if (n > 8) {
        TEST_DETECTS(test_close_each(what, gu, DG, tg, n));
        gg[2] = DY[2] * U[2]; /* at 0 the slope is 1/2 */
        TEST_DETECTS(test_close_each(what, gg, DG, tg, n));
    }
    ex->op->geglu_bwd(ex, g, u, dy, g, u, n); /* both in place */
    test_same(what, ex, g, dg, bytes);
    test_same(what, ex, u, du, bytes);
    test_free(ex, g), test_free(ex, u), test_free(ex, dy), test_free(ex, dg), test_free(ex, du);
    free(G), free(U), free(DY), free(DG), free(DU), free(tg), free(tu), free(gg), free(gu);
}

/* A GPU moves 16 bytes at a time; a CPU takes any element's address. */
static void test_contract(Exec *ex) {
    double v[16] = {0};
    store *x = test_store(ex, v, 16), *off = store_at(ex->dtype, x, 1);
    if (!test_on_cpu(ex)) {
        TEST_DIES(ex, ex->op->geglu_fwd(ex, x, off, x, 8));
        TEST_DIES(ex, ex->op->geglu_bwd(ex, off, x, x, x, x, 8));
    }
    test_free(ex, x);
}

static void body(Exec *ex) {
    static const size_t size[] = {0, 1, 7, 16, 33, 4096, 4097, 9216 * 5 + 3};
    for (size_t s = 0; s < sizeof size / sizeof size[0]; s++) {
        test_fwd(ex, size[s]);
        test_bwd(ex, size[s]);
    }
    test_contract(ex);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_geglu");
}
