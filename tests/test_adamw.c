/* AdamW: twenty steps beside a double reference of torch.optim.AdamW's formula, and references
 * with one setting changed, which the comparison must tell apart. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/test.h"

enum { STEPS = 20 };

static void ref_step(double *p, double *m, double *v, const double *g, size_t n, double gscale,
                     AdamW a) {
    for (size_t i = 0; i < n; i++) {
        double gi = gscale * g[i];
        p[i] -= a.lr * a.weight_decay * p[i];
        m[i] = a.beta1 * m[i] + (1 - a.beta1) * gi;
        v[i] = a.beta2 * v[i] + (1 - a.beta2) * gi * gi;
        double mh = m[i] / (1 - pow(a.beta1, a.step)), vh = v[i] / (1 - pow(a.beta2, a.step));
        p[i] -= a.lr * mh / (sqrt(vh) + a.eps);
    }
}

/* Gradients of very different sizes, zeros among them, and some small enough for eps to matter. */
static double *gradients(size_t n, int step) {
    double *g = test_noise_array(100 + step, n, 1);
    for (size_t i = 0; i < n; i++) g[i] *= i % 4 == 0 ? 1e-8 : i % 4 == 1 ? 1e-3 : i % 4 == 2;
    return g;
}

/* Runs the reference with settings `a` and returns p after the last step. */
static double *ref_run(size_t n, double gscale, AdamW a, int first, double *m, double *v) {
    double *p = test_noise_array(1, n, 1);
    for (size_t i = 0; i < n; i++) p[i] = (float)p[i], m[i] = 0, v[i] = 0;
    for (int s = 0; s < STEPS; s++) {
        double *g = gradients(n, s);
        for (size_t i = 0; i < n; i++) g[i] = (float)g[i];
        a.step = s + first;
        ref_step(p, m, v, g, n, gscale, a);
        free(g);
    }
    return p;
}

/* A device tensor of n elements that is a slice: it begins `at` elements into its memory. */
static float *slice(Exec *ex, double *values, size_t n, size_t at) {
    double *all = test_noise_array(7, n + at, 1);
    for (size_t i = 0; i < n; i++) all[at + i] = values[i];
    float *p = test_f32(ex, all, n + at) + at;
    for (size_t i = 0; i < n; i++) values[i] = all[at + i];
    free(all);
    return p;
}

static void test_run(Exec *ex, size_t n, size_t at) {
    AdamW a = {.lr = 5e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1};
    double *P = test_noise_array(1, n, 1), *M = test_noise_array(2, n, 0);
    double *V = test_noise_array(3, n, 0), *wm = test_noise_array(4, n, 0);
    double *wv = test_noise_array(5, n, 0), *tol = test_noise_array(6, n, 0);
    float *p = slice(ex, P, n, at), *m = slice(ex, M, n, at), *v = slice(ex, V, n, at);
    for (int s = 0; s < STEPS; s++) {
        double *G = gradients(n, s);
        float *g = slice(ex, G, n, at);
        a.step = s + 1;
        ex->op->adamw(ex, p, m, v, g, n, 0.5f, a);
        test_free(ex, g - at);
        free(G);
    }
    double *want = ref_run(n, 0.5, a, 1, wm, wv), *gp = test_get_f32(ex, p, n);
    double *gm = test_get_f32(ex, m, n), *gv = test_get_f32(ex, v, n);
    char what[96];
    snprintf(what, sizeof what, "%s adamw n=%zu at %zu", ex->op->name, n, at);
    /* Per step p is rounded twice, and moves by about lr with a dozen roundings in the update. */
    for (size_t i = 0; i < n; i++) tol[i] = STEPS * 0x1p-24 * (2 * fabs(want[i]) + 12 * a.lr);
    test_close_each(what, gp, want, tol, n);
    test_close(what, gv, wv, n, 0x1p-149 * STEPS, 4 * STEPS * 0x1p-24);
    for (size_t i = 0; i < n; i++) /* m may cancel: relative to the largest gradient it has seen */
        tol[i] = 4 * STEPS * 0x1p-24 * 0.5 * (i % 4 == 0 ? 1e-8 : i % 4 == 1 ? 1e-3 : i % 4 == 2);
    test_close_each(what, gm, wm, tol, n);

    for (size_t i = 0; i < n; i++) tol[i] = STEPS * 0x1p-24 * (2 * fabs(want[i]) + 12 * a.lr);
    AdamW wrong[5] = {a, a, a, a, a};
    wrong[0].beta1 = 0.899, wrong[1].beta2 = 0.9991, wrong[2].eps = 1.1e-8;
    wrong[3].weight_decay = 0.0999, wrong[4].lr = 5.001e-3;
    for (int k = 0; k < 6 && n > 8; k++) { /* the last: step counted from 2 */
        double *other = ref_run(n, 0.5, wrong[k % 5], k == 5 ? 2 : 1, wm, wv);
        TEST_DETECTS(test_close_each(what, gp, other, tol, n));
        free(other);
    }
    test_free(ex, p - at), test_free(ex, m - at), test_free(ex, v - at);
    free(P), free(M), free(V), free(wm), free(wv), free(tol), free(want), free(gp), free(gm);
    free(gv);
}

static void test_contract(Exec *ex) {
    double z[1] = {0};
    float *p = test_f32(ex, z, 1);
    AdamW a = {.lr = 1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .step = 0};
    TEST_DIES(ex, ex->op->adamw(ex, p, p, p, p, 1, 1, a));
    test_free(ex, p);
}

static void body(Exec *ex) {
    static const size_t size[] = {0, 1, 15, 4097, 40000};
    for (size_t s = 0; s < sizeof size / sizeof size[0]; s++) test_run(ex, size[s], 0);
    test_run(ex, 4097, 1);
    test_run(ex, 18, 2);
    test_contract(ex);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_adamw");
}
