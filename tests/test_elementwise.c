/* Casts, scaled addition, sum of squares and the search for bad numbers. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

/* Sizes around a span of the CPU twin, a vector and a thread's share. */
static const size_t sizes[] = {0, 1, 7, 16, 33, 4095, 4096, 4097, 100003};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

/* The neighbour of x in storage that lies nearer, found by distance alone; ties to even bits. */
static double ref_round(double x, enum Dtype t) {
    if (t == DTYPE_F32) return (float)x;
    float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, 4);
    bf16 lo = {(uint16_t)(u >> 16)}, hi = {(uint16_t)((u >> 16) + 1)}; /* towards, away from 0 */
    double a = fabs(x - bf16_to_f32(lo)), b = fabs(bf16_to_f32(hi) - x);
    return bf16_to_f32(a < b ? lo : b < a ? hi : lo.bits % 2 ? hi : lo);
}

static void test_cast(Exec *ex, size_t n) {
    double *X = test_noise_array(1, n, 100), *want = test_noise_array(2, n, 1);
    for (size_t i = 0; i < n; i += 3) X[i] = 1 + (double)(i % 257) / 256; /* ties in bf16 */
    float *x = test_f32(ex, X, n), *back = test_alloc(ex, n * 4);
    store *y = test_alloc(ex, n * dtype_size(ex->dtype));
    for (size_t i = 0; i < n; i++) want[i] = ref_round(X[i], ex->dtype);
    ex->op->cast(ex, y, x, n);
    ex->op->uncast(ex, back, y, n);
    double *stored = test_get_store(ex, y, n), *got = test_get_f32(ex, back, n);
    char what[96];
    snprintf(what, sizeof what, "%s cast n=%zu", ex->op->name, n);
    test_close(what, stored, want, n, 0, 0);
    test_close(what, got, want, n, 0, 0);
    if (n > 16) {
        TEST_DETECTS(ex->dtype == DTYPE_BF16 && test_close(what, X, want, n, 0, 0));
        got[n - 1] = nextafter(got[n - 1], 0);
        TEST_DETECTS(test_close(what, got, want, n, 0, 0));
    }
    test_free(ex, x), test_free(ex, back), test_free(ex, y);
    free(X), free(want), free(stored), free(got);
}

static void test_add(Exec *ex, size_t n) {
    double *X = test_noise_array(3, n, 2), *Y = test_noise_array(4, n, 3);
    double *tol = test_noise_array(5, n, 1);
    float *x = test_f32(ex, X, n), *y = test_f32(ex, Y, n), a = -0.37f;
    for (size_t i = 0; i < n; i++) {
        tol[i] = 0x1p-24 * fabs(a * X[i]);
        Y[i] += a * X[i];
        tol[i] += 0x1.01p-24 * fabs(Y[i]);
    }
    ex->op->add(ex, y, x, n, a);
    double *got = test_get_f32(ex, y, n);
    char what[96];
    snprintf(what, sizeof what, "%s add n=%zu", ex->op->name, n);
    test_close_each(what, got, Y, tol, n);
    if (n > 0) {
        for (size_t i = 0; i < n; i++) got[i] -= a * X[i];
        TEST_DETECTS(test_close_each(what, got, Y, tol, n));
    }
    test_free(ex, x), test_free(ex, y);
    free(X), free(Y), free(tol), free(got);
}

/* Three spans of one tensor, NaN between them: n elements from `at` on, none, and the same n
 * elements elsewhere, whose sum has the same bits. */
static void test_sumsq(Exec *ex, size_t n, size_t at) {
    size_t second = at + n + 3;
    double *all = test_noise_array(6, second + n, 1), *X = all + at, want[3] = {0};
    if (n > 1)
        X[n - 1] = 1e18; /* beyond f32 when squared: 1e36 fits, its sum does in double only */
    if (n > 2) X[1] = 1e-30;
    memcpy(all + second, X, n * sizeof *X);
    for (size_t i = 0; i < second; i++) all[i] = i < at || i >= at + n ? NAN : all[i];
    float *x = test_f32(ex, all, second + n);
    for (size_t i = 0; i < n; i++) want[0] += X[i] * X[i];
    want[2] = want[0];
    Span host[] = {{at, n}, {at, 0}, {second, n}}, *span = test_alloc(ex, sizeof host);
    exec_copy_in(ex, span, host, sizeof host);
    double *sum = test_alloc(ex, sizeof want), *again = test_alloc(ex, sizeof want);
    char what[96];
    snprintf(what, sizeof what, "%s sumsq n=%zu at %zu", ex->op->name, n, at);
    for (int threads = 1; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        ex->op->sumsq(ex, threads == 1 ? sum : again, x, span, 3, 2 * n);
        if (threads > 1) test_same(what, ex, sum, again, sizeof want);
    }
    double *got = test_get_f64(ex, sum, 3), rtol = ((double)n + 1) * 0x1p-53;
    test_close(what, got, want, 3, 0, rtol);
    EXPECT(got[0] == got[2], "%s: %.17g and %.17g of equal spans", what, got[0], got[2]);
    got[2] = got[2] * (1 + 1e-9) + 1e-300;
    TEST_DETECTS(test_close(what, got, want, 3, 0, rtol));
    test_free(ex, x), test_free(ex, span), test_free(ex, sum), test_free(ex, again);
    free(all), free(got);
}

/* The sums must see each element; with a common size, so that none hides in rounding. */
static void test_sumsq_all(Exec *ex) {
    enum { EACH = 1 << 16, LAST = 9001, SPANS = 6, N = (SPANS - 1) * EACH + LAST };
    double *X = test_noise_array(7, N, 0), want[SPANS] = {0};
    Span host[SPANS], *span = test_alloc(ex, sizeof host);
    for (int i = 0; i < N; i++) X[i] = 1 + i % 7, want[i / EACH] += X[i] * X[i];
    for (size_t i = 0; i < SPANS; i++) host[i] = (Span){i * EACH, i < SPANS - 1 ? EACH : LAST};
    exec_copy_in(ex, span, host, sizeof host);
    float *x = test_f32(ex, X, N);
    double *sum = test_alloc(ex, sizeof want);
    ex->op->sumsq(ex, sum, x, span, SPANS, N);
    double *got = test_get_f64(ex, sum, SPANS);
    for (int i = 0; i < SPANS; i++)
        EXPECT(got[i] == want[i], "span %d: %.17g, want %.17g", i, got[i], want[i]);
    test_free(ex, x), test_free(ex, span), test_free(ex, sum);
    free(X), free(got);
}

/* Index of the first bad number that both searches report; they must agree, and it must not matter
 * where a slice begins: `at` elements into its memory, behind infinities. */
static int64_t find(Exec *ex, const double *values, size_t n, size_t at) {
    double *v = malloc((n + at + 1) * sizeof *v);
    for (size_t i = 0; i < n + at; i++) v[i] = i < at ? INFINITY : values[i - at];
    store *s = test_store(ex, v, n + at);
    float *f = test_f32(ex, v, n + at);
    int64_t *index = test_alloc(ex, sizeof *index), a, b;
    ex->op->find_bad(ex, index, store_at(ex->dtype, s, at), n);
    exec_copy_out(ex, &a, index, sizeof a);
    ex->op->find_bad_f32(ex, index, f + at, n);
    exec_copy_out(ex, &b, index, sizeof b);
    EXPECT(a == b, "find_bad says %lld, find_bad_f32 %lld", (long long)a, (long long)b);
    test_free(ex, s), test_free(ex, f), test_free(ex, index);
    free(v);
    return a;
}

static void test_find(Exec *ex, size_t n) {
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    double *x = test_noise_array(8, n, 1);
    for (size_t i = 0; i < n; i++) /* large and small, but numbers */
        x[i] = i % 4 == 0 ? x[i] : i % 4 == 1 ? 3.3e38 : i % 4 == 2 ? -1e-40 : 0;
    for (size_t first = 0; first < 4; first++) EXPECT(find(ex, x, n, first) == -1, "n=%zu", n);
    size_t at[] = {0, n / 2, n - 1, 4095, 4096};
    for (int k = 0; k < 5 && n > 0; k++) {
        size_t i = at[k] < n ? at[k] : n - 1;
        double keep = x[i], last = x[n - 1];
        x[n - 1] = NAN; /* one more behind it must not matter */
        x[i] = bad[k % 3];
        int64_t got = find(ex, x, n, k % 4);
        EXPECT(got == (int64_t)i, "n=%zu: found %lld, want %zu", n, (long long)got, i);
        x[n - 1] = last;
        x[i] = keep;
    }
    free(x);
}

static void body(Exec *ex) {
    for (int s = 0; s < SIZES; s++) {
        test_cast(ex, sizes[s]);
        test_add(ex, sizes[s]);
        test_sumsq(ex, sizes[s], 0);
        test_sumsq(ex, sizes[s], 1 + s % 3);
        test_find(ex, sizes[s]);
    }
    test_sumsq_all(ex);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_elementwise");
}
