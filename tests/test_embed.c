/* Embedding and its gradient, gather and scatter: rows go where the index says, and nowhere else.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/test.h"

static void test_embed(Exec *ex, int N, int D, int V, float scale) {
    double *t = test_noise_array(1, (size_t)V * D, 3), *y = malloc(((size_t)N * D + 1) * sizeof *y);
    store *table = test_store(ex, t, (size_t)V * D);
    store *out = test_alloc(ex, (size_t)N * D * dtype_size(ex->dtype));
    int32_t *id = malloc(((size_t)N + 1) * sizeof *id);
    for (int n = 0; n < N; n++) id[n] = n == 0 ? V - 1 : n == 1 ? 0 : n * 7 % V;
    for (int n = 0; n < N; n++)
        for (int i = 0; i < D; i++) y[n * D + i] = t[id[n] * D + i] * scale;
    int32_t *token = test_i32(ex, id, (size_t)N);

    ex->op->embed_fwd(ex, out, table, token, N, D, V, scale);
    double *got = test_get_store(ex, out, (size_t)N * D);
    char what[96];
    snprintf(what, sizeof what, "%s embed_fwd N=%d D=%d", ex->op->name, N, D);
    /* The product is rounded to f32 and then to storage. */
    double tol = test_roundoff(ex->dtype) * (1 + ldexp(1, -15));
    test_close(what, got, y, (size_t)N * D, 0, tol);
    if (N > 1) {
        got[(size_t)N * D - 1] = t[D - 1] * scale; /* the last row's end, from token 0 */
        TEST_DETECTS(test_close(what, got, y, (size_t)N * D, 0, tol));
        for (int i = 0; i < D; i++) got[i] = y[i] / scale;
        TEST_DETECTS(test_close(what, got, y, (size_t)D, 0, tol));
    }
    test_free(ex, table), test_free(ex, out), test_free(ex, token);
    free(t), free(y), free(got), free(id);
}

/* The rows 0 .. N-1 by their tokens; those of one token from the last to the first, which shows
 * that the sum follows `row`. */
static void order(int32_t *row, const int32_t *id, int N, int V) {
    for (int v = 0, i = 0; v < V; v++)
        for (int n = N - 1; n >= 0; n--)
            if (id[n] == v) row[i++] = n;
}

/* What one token's sum of k rows may lose in f32, and its product and sum with the old contents. */
static void ref_bwd(double *dt, double *tol, const double *dx, const int32_t *id, int N, int D,
                    int V, double scale) {
    double *size = test_noise_array(9, (size_t)V * D, 0);
    for (int n = 0; n < N; n++)
        for (int i = 0; i < D; i++) {
            size_t to = (size_t)id[n] * D + i;
            dt[to] += scale * dx[(size_t)n * D + i];
            size[to] += scale * fabs(dx[(size_t)n * D + i]);
        }
    for (int v = 0; v < V; v++) {
        int k = 0;
        for (int n = 0; n < N; n++) k += id[n] == v;
        for (int i = 0; i < D; i++) {
            size_t to = (size_t)v * D + i;
            tol[to] = 0x1p-24 * (k ? (k + 2) * size[to] + fabs(dt[to]) : 0);
        }
    }
    free(size);
}

/* Half of the rows have token 3; some tokens none, which keep their bits. */
static void test_embed_bwd(Exec *ex, int N, int D, int V, float scale) {
    size_t n = (size_t)N * D, all = (size_t)V * D;
    double *DX = test_noise_array(3, n, 1), *DT = test_noise_array(4, all, 3);
    double *tol = test_noise_array(5, all, 1);
    int32_t *id = malloc(((size_t)N + 1) * sizeof *id), *r = malloc(((size_t)N + 1) * sizeof *r);
    for (int i = 0; i < N; i++) id[i] = i == 0 ? V - 1 : i % 2 ? 3 : i * 7 % (V - 2);
    order(r, id, N, V);
    store *dx = test_store(ex, DX, n);
    float *dt = test_f32(ex, DT, all);
    double *old = test_get_f32(ex, dt, all);
    int32_t *token = test_i32(ex, id, (size_t)N), *row = test_i32(ex, r, (size_t)N);
    ex->op->embed_bwd(ex, dt, dx, token, row, N, D, V, scale);
    ref_bwd(DT, tol, DX, id, N, D, V, scale);
    double *got = test_get_f32(ex, dt, all);
    char what[96];
    snprintf(what, sizeof what, "%s embed_bwd N=%d D=%d", ex->op->name, N, D);
    test_close_each(what, got, DT, tol, all);
    if (N > 2) {
        size_t at = 3 * (size_t)D + D - 1; /* the last row of token 3 forgotten; the old contents */
        int last = N % 2 ? N - 2 : N - 1;
        double keep = got[at];
        got[at] -= scale * DX[(size_t)last * D + D - 1];
        TEST_DETECTS(test_close_each(what, got, DT, tol, all));
        got[at] = keep - old[at];
        TEST_DETECTS(test_close_each(what, got, DT, tol, all));
    }
    test_free(ex, dx), test_free(ex, dt), test_free(ex, token), test_free(ex, row);
    free(DX), free(DT), free(tol), free(id), free(r), free(old), free(got);
}

/* The sum is in the order of `row`, whatever the threads: 2^24 + 1 + 1 in f32, and 1 + 1 + 2^24. */
static void test_bwd_order(Exec *ex) {
    enum { N = 3, D = 33 };
    static const int32_t one[N] = {1, 1, 1}, falls[N] = {0, 1, 2}, rises[N] = {1, 2, 0};
    double DX[N * D], zero[2 * D] = {0};
    for (int i = 0; i < N * D; i++) DX[i] = i < D ? 0x1p24 : 1;
    store *dx = test_store(ex, DX, N * D);
    int32_t *token = test_i32(ex, one, N);
    for (int k = 0; k < 2; k++) {
        float *dt = test_f32(ex, zero, 2 * D);
        int32_t *row = test_i32(ex, k ? rises : falls, N);
        ex->op->embed_bwd(ex, dt, dx, token, row, N, D, 2, 1);
        double *got = test_get_f32(ex, dt, 2 * D);
        for (int i = 0; i < D; i++)
            EXPECT(got[D + i] == 0x1p24 + 2 * k, "order %d: %.9g", k, got[D + i]);
        test_free(ex, dt), test_free(ex, row);
        free(got);
    }
    test_free(ex, dx), test_free(ex, token);
}

/* y is filled with one value, so that what scatter must not touch is seen. */
static void test_gather_scatter(Exec *ex, int N, int D) {
    int rows = 3 * N + 2;
    size_t n = (size_t)N * D, all = (size_t)rows * D;
    double *x = test_noise_array(2, all, 5), *want = malloc((n + 1) * sizeof *want);
    double *kept = malloc(all * sizeof *kept);
    int32_t *r = malloc(((size_t)N + 1) * sizeof *r);
    for (int i = 0; i < N; i++) r[i] = rows - 1 - 3 * i; /* falling, gaps, the last row too */
    for (size_t i = 0; i < all; i++) kept[i] = 0.5;
    store *from = test_store(ex, x, all), *to = test_store(ex, kept, all);
    store *out = test_alloc(ex, n * dtype_size(ex->dtype));
    int32_t *row = test_i32(ex, r, (size_t)N);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < D; j++) {
            want[i * D + j] = x[r[i] * D + j];
            kept[r[i] * D + j] = x[r[i] * D + j];
        }
    ex->op->gather_rows(ex, out, from, row, N, D);
    ex->op->scatter_rows(ex, to, out, row, N, D);
    double *gathered = test_get_store(ex, out, n), *scattered = test_get_store(ex, to, all);
    char what[96];
    snprintf(what, sizeof what, "%s gather/scatter N=%d D=%d", ex->op->name, N, D);
    test_close(what, gathered, want, n, 0, 0);
    test_close(what, scattered, kept, all, 0, 0);
    scattered[0] = x[0];
    TEST_DETECTS(test_close(what, scattered, kept, all, 0, 0));
    test_free(ex, from), test_free(ex, to), test_free(ex, out), test_free(ex, row);
    free(x), free(want), free(kept), free(r), free(gathered), free(scattered);
}

static void test_ranges(Exec *ex) {
    double v[8] = {0};
    int32_t bad[3][1] = {{-1}, {4}, {INT32_MIN}};
    store *x = test_store(ex, v, 8), *y = test_store(ex, v, 8);
    int32_t *zero = test_i32(ex, (int32_t[]){0}, 1);
    for (int i = 0; i < 3; i++) {
        int32_t *index = test_i32(ex, bad[i], 1);
        TEST_DIES(ex, ex->op->embed_fwd(ex, y, x, index, 1, 2, 4, 1));
        if (bad[i][0] < 0) {
            TEST_DIES(ex, ex->op->gather_rows(ex, y, x, index, 1, 2));
            TEST_DIES(ex, ex->op->scatter_rows(ex, y, x, index, 1, 2));
        }
        float *f = test_f32(ex, v, 8);
        TEST_DIES(ex, ex->op->embed_bwd(ex, f, x, index, zero, 1, 2, 4, 1));
        TEST_DIES(ex, ex->op->embed_bwd(ex, f, x, zero, index, 1, 2, 4, 1));
        test_free(ex, f);
        test_free(ex, index);
    }
    test_free(ex, x), test_free(ex, y), test_free(ex, zero);
}

static void body(Exec *ex) {
    static const int shape[][2] = {{0, 8}, {1, 1}, {1, 8}, {3, 33}, {7, 256}, {40, 2304}};
    for (size_t s = 0; s < sizeof shape / sizeof shape[0]; s++) {
        test_embed(ex, shape[s][0], shape[s][1], 11, 59.75f);
        test_embed_bwd(ex, shape[s][0], shape[s][1], 11, 59.75f);
        test_gather_scatter(ex, shape[s][0], shape[s][1]);
    }
    test_bwd_order(ex);
    test_ranges(ex);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_embed");
}
