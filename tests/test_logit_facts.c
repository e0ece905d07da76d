/* Entropy, mean and best guess of rows of logits, against a double reference. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/test.h"

static const double E32 = 0x1p-24;

typedef struct Case {
    int N, V;
    double cap, scale;
    double peak; /* added to a row's largest logit: how sure the model is */
} Case;

/* Numbers of a row, and what f32 may lose of them: exp(z - zmax) by the roundings of z and of exp,
 * as in xent; the entropy's two terms by that and by z's own, in proportion to it; the mean by z's
 * and by those of a few additions. */
typedef struct Facts {
    double entropy, mean, hit, entropy_tol, mean_tol;
} Facts;

static Facts ref_facts(const double *x, int target, int V, double cap) {
    double zmax = -INFINITY, most = 0, size = 0, e = 0, ed = 0;
    Facts f = {.hit = 1};
    for (int i = 0; i < V; i++) {
        double z = cap > 0 ? cap * tanh(x[i] / cap) : x[i];
        zmax = fmax(zmax, z), most = fmax(most, fabs(z));
        f.mean += z / V, size += fabs(z) / V;
        if (x[i] > x[target] || (x[i] == x[target] && i < target)) f.hit = 0;
    }
    for (int i = 0; i < V; i++) {
        double d = (cap > 0 ? cap * tanh(x[i] / cap) : x[i]) - zmax;
        e += exp(d), ed += d * exp(d);
    }
    f.entropy = log(e) - ed / e;
    f.entropy_tol = (8 * most + 8) * E32 * (2 + 2 * f.entropy) + 2 * E32 * f.entropy;
    f.mean_tol = 8 * E32 * size;
    return f;
}

static int largest(const double *x, int V) {
    int best = 0;
    for (int i = 1; i < V; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* Rows in turn: the target is the best; it is not; it shares the place with an earlier one; with a
 * later one. */
static int place_target(double *x, int V, int row, double peak) {
    int best = largest(x, V), other = best ? best - 1 : V - 1;
    x[best] += peak;
    if (row % 4 == 0 || V == 1) return best;
    if (row % 4 == 1) return other;
    x[other] = x[best];
    return (row % 4 == 2) == (other < best) ? best : other;
}

static void test_facts(Exec *ex, Case c) {
    int N = c.N, V = c.V;
    size_t n = (size_t)N * V, rows = (size_t)N;
    double *X = test_noise_array(11, n, c.scale), *want[3], *tol[2];
    for (int k = 0; k < 3; k++) want[k] = test_noise_array(12, rows, 0);
    for (int k = 0; k < 2; k++) tol[k] = test_noise_array(12, rows, 0);
    int32_t *t = malloc((rows + 1) * sizeof *t);
    for (int i = 0; i < N; i++) t[i] = place_target(X + (size_t)i * V, V, i, c.peak);
    float *x = test_f32(ex, X, n), *out[3]; /* X is what the op sees from here on */
    for (int k = 0; k < 3; k++) out[k] = test_alloc(ex, rows * 4);
    int32_t *target = test_i32(ex, t, rows);
    for (int i = 0; i < N; i++) {
        Facts f = ref_facts(X + (size_t)i * V, t[i], V, c.cap);
        want[0][i] = f.entropy, want[1][i] = f.mean, want[2][i] = f.hit;
        tol[0][i] = f.entropy_tol, tol[1][i] = f.mean_tol;
        if (V > 1) EXPECT(f.hit == (i % 4 == 0 || i % 4 == 3), "row %d has no hit as it should", i);
    }
    ex->op->logit_facts(ex, out[0], out[1], out[2], x, target, N, V, (float)c.cap);
    char what[128];
    snprintf(what, sizeof what, "%s logit_facts N=%d V=%d cap=%g peak=%g", ex->op->name, N, V,
             c.cap, c.peak);
    double *got[3];
    for (int k = 0; k < 3; k++) got[k] = test_get_f32(ex, out[k], rows);
    test_close_each(what, got[0], want[0], tol[0], rows);
    test_close_each(what, got[1], want[1], tol[1], rows);
    test_close(what, got[2], want[2], rows, 0, 0);
    if (N > 0 && V > 1) {
        got[0][N - 1] = got[0][N - 1] * 1.001 + 0.001;
        TEST_DETECTS(test_close_each(what, got[0], want[0], tol[0], rows));
        got[1][0] += 1e-3 * c.scale;
        TEST_DETECTS(test_close_each(what, got[1], want[1], tol[1], rows));
        got[2][0] = 0;
        TEST_DETECTS(test_close(what, got[2], want[2], rows, 0, 0));
    }
    for (int k = 0; k < 3; k++) test_free(ex, out[k]), free(got[k]), free(want[k]);
    for (int k = 0; k < 2; k++) free(tol[k]);
    test_free(ex, x), test_free(ex, target);
    free(X), free(t);
}

/* A row's bits do not depend on the other rows, nor on the number of threads. */
static void test_bits(Exec *ex, int N, int V) {
    double *X = test_noise_array(21, (size_t)N * V, 30);
    int32_t *t = calloc((size_t)N, sizeof *t);
    float *x = test_f32(ex, X, (size_t)N * V), *out[3], *one[3];
    int32_t *target = test_i32(ex, t, (size_t)N);
    for (int k = 0; k < 3; k++) out[k] = test_alloc(ex, (size_t)N * 4), one[k] = test_alloc(ex, 4);
    for (int threads = 1; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        ex->op->logit_facts(ex, out[0], out[1], out[2], x, target, N, V, 30);
        for (int i = 0; i < N; i += N - 1) {
            ex->op->logit_facts(ex, one[0], one[1], one[2], x + (size_t)i * V, target, 1, V, 30);
            for (int k = 0; k < 3; k++)
                test_same("logit_facts of a row alone", ex, one[k], out[k] + i, 4);
        }
    }
    for (int k = 0; k < 3; k++) test_free(ex, out[k]), test_free(ex, one[k]);
    test_free(ex, x), test_free(ex, target);
    free(X), free(t);
}

/* What cannot be: logits of no token that is there; and a token that is impossible is no trouble.
 */
static void test_ends(Exec *ex) {
    double v[4] = {0, -INFINITY, 0, -INFINITY};
    int32_t ids[3] = {2, 4, -1};
    float *x = test_f32(ex, v, 4), *out = test_alloc(ex, 12);
    int32_t *target = test_i32(ex, ids, 3);
    ex->op->logit_facts(ex, out, out + 1, out + 2, x, target, 1, 4, 0);
    double *got = test_get_f32(ex, out, 3);
    EXPECT(fabs(got[0] - log(2)) <= 4 * E32 && got[2] == 0, "entropy %g, hit %g", got[0], got[2]);
    TEST_DIES(ex, ex->op->logit_facts(ex, out, out + 1, out + 2, x, target + 1, 1, 4, 30));
    TEST_DIES(ex, ex->op->logit_facts(ex, out, out + 1, out + 2, x, target + 2, 1, 4, 30));
    free(got);
    test_free(ex, x), test_free(ex, out), test_free(ex, target);
}

static void body(Exec *ex) {
    static const Case cases[] = {
        {0, 16, 30, 1, 0},   {1, 1, 30, 5, 0},      {4, 2, 30, 40, 0},     {5, 257, 0, 10, 1},
        {5, 257, 30, 60, 2}, {4, 8191, 30, 3, 0.5}, {4, 8192, 30, 3, 12},  {4, 8193, 0, 5, 25},
        {40, 512, 30, 8, 4}, {4, 20000, 5, 4, 3},   {2, 256000, 30, 8, 1}, {9, 300, 30, 200, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) test_facts(ex, cases[i]);
    test_bits(ex, 9, 20001);
    test_bits(ex, 300, 700);
    test_ends(ex);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_logit_facts");
}
