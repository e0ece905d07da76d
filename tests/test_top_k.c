/* The k largest of n values against a sort, with ties and infinities. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/test.h"

static const double *sorted_by;

static int by_rank(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (sorted_by[x] != sorted_by[y]) return sorted_by[x] > sorted_by[y] ? -1 : 1;
    return x - y;
}

static int compare(const int32_t *got, const int32_t *want, int n, int k) {
    for (int j = 0; j < k; j++)
        if (got[j] != want[j]) {
            if (!test_quiet)
                printf("FAIL top_k n=%d k=%d: place %d is %d, want %d\n", n, k, j, got[j], want[j]),
                    test_fail();
            return 0;
        }
    return 1;
}

/* Values on a grid of `levels` (0: all differ), some of them infinite. */
static void check(Exec *ex, int n, int k, double levels) {
    double *value = test_noise_array(n, n, 1);
    int32_t *want = malloc((size_t)n * sizeof *want), *got = malloc((size_t)k * sizeof *got);
    for (int i = 0; i < n && levels > 0; i++) value[i] = round(value[i] * levels) / levels;
    for (int i = 3; i < n; i += 7) value[i] = i % 2 ? -INFINITY : INFINITY;
    for (int i = 0; i < n; i++) want[i] = i;
    sorted_by = value;
    qsort(want, (size_t)n, sizeof *want, by_rank);
    double *x = test_alloc(ex, (size_t)n * sizeof *x);
    int32_t *index = test_alloc(ex, (size_t)k * sizeof *index);
    exec_copy_in(ex, x, value, (size_t)n * sizeof *x);
    ex->op->top_k(ex, index, x, n, k);
    exec_copy_out(ex, got, index, (size_t)k * sizeof *index);
    compare(got, want, n, k);
    got[k - 1]++;
    TEST_DETECTS(compare(got, want, n, k));
    test_free(ex, x), test_free(ex, index);
    free(value), free(want), free(got);
}

static void body(Exec *ex) {
    static const int n[] = {1, 2, 31, 255, 256, 257, 2047, 2048, 2049, 5000};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++)
        for (int levels = 0; levels <= 3; levels += 3) { /* with 3 levels hardly any differ */
            check(ex, n[i], 1, levels);
            check(ex, n[i], n[i] < 20 ? n[i] : 20, levels);
            check(ex, n[i], n[i], levels);
        }
    double two[2] = {0, 0};
    int32_t *index = test_alloc(ex, sizeof *index);
    double *x = test_alloc(ex, sizeof two);
    exec_copy_in(ex, x, two, sizeof two);
    TEST_DIES(ex, ex->op->top_k(ex, index, x, 2, 3));
    TEST_DIES(ex, ex->op->top_k(ex, index, x, 2, 0));
    test_free(ex, x), test_free(ex, index);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_top_k");
}
