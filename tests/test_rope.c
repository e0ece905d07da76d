/* Rotary embedding: the table step by step as its contract rounds it, the rotation against its
 * formula, the backward as the transpose of the forward. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/test.h"

/* The table before the last rounding, with the angle in f32 (as the contract has it) or exact. */
static void ref_table(double *c, double *s, int P, int E, double theta, int exact) {
    for (int p = 0; p < P; p++)
        for (int i = 0; i < E / 2; i++) {
            float exponent = (float)(2 * i) / (float)E;
            float frequency = 1 / (float)pow(theta, exponent);
            float angle = frequency * (float)p;
            double a = exact ? p * pow(theta, -2.0 * i / E) : angle;
            c[p * (E / 2) + i] = cos(a);
            s[p * (E / 2) + i] = sin(a);
        }
}

static void test_table(Exec *ex, int P, int E) {
    size_t n = (size_t)P * (E / 2);
    double *C = test_noise_array(1, n, 1), *S = test_noise_array(2, n, 1);
    float *c = test_alloc(ex, n * 4), *s = test_alloc(ex, n * 4);
    ex->op->rope_table(ex, c, s, P, E, 10000);
    double *gc = test_get_f32(ex, c, n), *gs = test_get_f32(ex, s, n);
    char what[96];
    snprintf(what, sizeof what, "%s rope_table P=%d E=%d", ex->op->name, P, E);
    ref_table(C, S, P, E, 10000, 0);
    double tol =
        test_roundoff(ex->dtype) * 1.001; /* rounded once; the f32 step adds nothing more */
    test_close(what, gc, C, n, 0, tol);
    test_close(what, gs, S, n, 0, tol);
    if (P > 8000) {
        ref_table(C, S, P, E, 10000, 1);
        TEST_DETECTS(test_close(what, gc, C, n, 0, tol));
        TEST_DETECTS(test_close(what, gs, S, n, 0, tol));
    }
    /* Values are storage values: rounding them again changes nothing. */
    store *again = test_store(ex, gc, n);
    double *rounded = test_get_store(ex, again, n), *raw = test_get_f32(ex, c, n);
    test_close(what, raw, rounded, n, 0, 0);
    test_free(ex, c), test_free(ex, s), test_free(ex, again);
    free(C), free(S), free(gc), free(gs), free(rounded), free(raw);
}

static void ref_rotate(double *y, const double *x, const double *c, const double *s,
                       const int32_t *pos, int N, int H, int E) {
    int half = E / 2;
    for (int n = 0; n < N; n++)
        for (int h = 0; h < H; h++)
            for (int i = 0; i < half; i++) {
                size_t at = ((size_t)n * H + h) * E + i;
                double co = c[pos[n] * half + i], si = s[pos[n] * half + i];
                y[at] = x[at] * co - x[at + half] * si;
                y[at + half] = x[at + half] * co + x[at] * si;
            }
}

/* Differences of a linear function are its matrix; its transpose times dy is the backward. */
static void ref_backward(double *dx, const double *dy, const double *c, const double *s,
                         const int32_t *pos, int N, int H, int E) {
    size_t n = (size_t)N * H * E;
    double *unit = calloc(n + 1, sizeof *unit), *column = calloc(n + 1, sizeof *column);
    for (size_t i = 0; i < n; i++) {
        unit[i] = 1;
        ref_rotate(column, unit, c, s, pos, N, H, E);
        unit[i] = 0;
        dx[i] = 0;
        for (size_t j = 0; j < n; j++) dx[i] += column[j] * dy[j];
    }
    free(unit), free(column);
}

static void test_rotation(Exec *ex, int N, int H, int E, int backward) {
    enum { P = 50 };
    size_t n = (size_t)N * H * E, table = (size_t)P * (E / 2);
    double *X = test_noise_array(11, n, 4), *Y = test_noise_array(12, n, 1);
    double *C = test_noise_array(13, table, 1), *S = test_noise_array(14, table, 1);
    int32_t *where = malloc(((size_t)N + 1) * sizeof *where);
    for (int i = 0; i < N; i++) where[i] = i == 0 ? P - 1 : (i * 13) % P; /* no order, repeats */
    ref_table(C, S, P, E, 100, 0);
    store *x = test_store(ex, X, n);
    float *c = test_f32(ex, C, table), *s = test_f32(ex, S, table);
    int32_t *pos = test_i32(ex, where, (size_t)N);
    if (backward) {
        ref_backward(Y, X, C, S, where, N, H, E);
        ex->op->rope_bwd(ex, x, c, s, pos, N, H, E);
    } else {
        ref_rotate(Y, X, C, S, where, N, H, E);
        ex->op->rope_fwd(ex, x, c, s, pos, N, H, E);
    }
    double *got = test_get_store(ex, x, n);
    char what[96];
    snprintf(what, sizeof what, "%s rope_%s N=%d H=%d E=%d", ex->op->name, backward ? "bwd" : "fwd",
             N, H, E);
    double atol = 3 * 0x1p-24 * 4, rtol = test_roundoff(ex->dtype); /* two products of at most 4 */
    test_close(what, got, Y, n, atol, rtol);
    if (N > 0) {
        got[n - 1] = -got[n - 1];
        TEST_DETECTS(test_close(what, got, Y, n, atol, rtol));
        TEST_DETECTS(test_close(what, X, Y, n, atol, rtol));
    }
    test_free(ex, x), test_free(ex, c), test_free(ex, s), test_free(ex, pos);
    free(X), free(Y), free(C), free(S), free(where), free(got);
}

static void test_contract(Exec *ex) {
    double v[8] = {0};
    int32_t negative = -1;
    store *x = test_store(ex, v, 8);
    float *t = test_f32(ex, v, 8);
    int32_t *pos = test_i32(ex, &negative, 1);
    TEST_DIES(ex, ex->op->rope_fwd(ex, x, t, t, pos, 1, 1, 8));
    TEST_DIES(ex, ex->op->rope_table(ex, t, t, 1, 7, 10000));
    test_free(ex, x), test_free(ex, t), test_free(ex, pos);
}

static void body(Exec *ex) {
    static const int shape[][3] = {{0, 2, 8},  {1, 1, 2},  {1, 1, 8},  {3, 2, 6},
                                   {5, 4, 32}, {2, 1, 64}, {1, 2, 256}};
    test_table(ex, 0, 8);
    test_table(ex, 1, 2);
    test_table(ex, 37, 24);
    test_table(ex, 8192, 64);
    test_table(ex, 300, 256);
    for (size_t s = 0; s < sizeof shape / sizeof shape[0]; s++) {
        test_rotation(ex, shape[s][0], shape[s][1], shape[s][2], 0);
        test_rotation(ex, shape[s][0], shape[s][1], shape[s][2], 1);
    }
    test_rotation(ex, 70, 8, 256, 0); /* enough for several threads */
    test_contract(ex);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_rope");
}
