/* Split masters: no f32 is lost by splitting, its upper half is the nearest bf16, and AdamW of
 * split masters is AdamW of whole ones. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/halves.h"
#include "tests/test.h"

/* ------------------------------------------------------------------------------- one f32 -- */

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}
static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* The finite bf16 nearest to x by distance alone, the larger one in size of two that are equally
 * near. */
static double nearest(float x) {
    double low = float_of(bits_of(x) & 0xffff0000u);
    double high = float_of((bits_of(x) & 0xffff0000u) + 0x10000u), a = fabs(x - low);
    return a < fabs(high - x) ? low : high;
}

/* All upper halves with lower halves around the tie and at the ends; every lower half of a few. */
static void test_every(void) {
    static const uint32_t lower[] = {0, 1, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff};
    uint32_t lost = 0, far = 0;
    for (uint32_t upper = 0; upper < 1u << 16; upper++)
        for (uint32_t i = 0; i < (upper % 4099 == 0 ? 1u << 16 : 8); i++) {
            uint32_t u = upper << 16 | (upper % 4099 == 0 ? i : lower[i]);
            float x = float_of(u);
            bf16 high = halves_high(x);
            float joined = halves_join(high, halves_low(x));
            lost += isnan(x) ? !isnan(joined) || !isnan(bf16_to_f32(high)) : bits_of(joined) != u;
            if (fabsf(x) < 3.38e38f)
                far += bf16_to_f32(high) != nearest(x); /* the next is finite */
        }
    EXPECT(lost == 0, "%u of all are lost", lost);
    EXPECT(far == 0, "the upper halves of %u are not the nearest", far);
    EXPECT(halves_high(float_of(0x3f808000)).bits == 0x3f81, "a tie goes away from zero");
    EXPECT(halves_high(float_of(0xbf808000)).bits == 0xbf81, "a tie goes away from zero");
}

/* -------------------------------------------------------------------------------- the ops -- */

/* n elements `at` elements into their memory: split masters of the values, which are f32. */
typedef struct Masters {
    store *high, *all_high;
    int16_t *low, *all_low; /* NULL in f32 */
} Masters;

static Masters masters(Exec *ex, size_t n, size_t at) {
    Masters s = {.all_high = test_alloc(ex, (n + at) * dtype_size(ex->dtype))};
    s.high = store_at(ex->dtype, s.all_high, at);
    if (ex->dtype == DTYPE_F32) return s;
    s.all_low = test_alloc(ex, (n + at) * sizeof *s.low);
    s.low = s.all_low + at;
    return s;
}

static void masters_free(Exec *ex, Masters *s) {
    test_free(ex, s->all_high);
    if (s->all_low) test_free(ex, s->all_low);
}

static void test_split(Exec *ex, size_t n, size_t at) {
    double *X = test_noise_array(1, n + at, 1);
    for (size_t i = 0; i < n + at; i += 5) X[i] = ldexp(X[i], (int)(i % 200) - 100);
    for (size_t i = 3; i < n + at; i += 7) X[i] = 1 + (double)(i % 257) / 256; /* ties in bf16 */
    float *x = test_f32(ex, X, n + at), *back = test_alloc(ex, (n + at) * sizeof *back);
    Masters s = masters(ex, n, at);
    ex->op->split(ex, s.high, s.low, x + at, n);
    ex->op->join(ex, back + at, s.high, s.low, n);
    double *high = test_get_store(ex, s.high, n), *want = test_noise_array(2, n, 1);
    for (size_t i = 0; i < n; i++)
        want[i] = ex->dtype == DTYPE_F32 ? X[at + i] : nearest((float)X[at + i]);
    char what[96];
    snprintf(what, sizeof what, "%s split n=%zu at %zu", ex->op->name, n, at);
    test_close(what, high, want, n, 0, 0);
    test_same(what, ex, back + at, x + at, n * sizeof *x);
    if (n > 16 && ex->dtype == DTYPE_BF16) TEST_DETECTS(test_close(what, X + at, want, n, 0, 0));
    masters_free(ex, &s);
    test_free(ex, x), test_free(ex, back);
    free(X), free(high), free(want);
}

enum { STEPS = 20 };

/* The masters of either form after some steps from the same start, with rates that leave most of
 * them in the same bf16. Each form rounds an update's dozen operations by itself: the compiler may
 * fuse others. So twice what test_adamw allows. */
static void test_adamw(Exec *ex, size_t n, size_t at) {
    AdamW a = {.lr = 1e-5, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1};
    double *X = test_noise_array(3, n + at, 1), *zero = test_noise_array(4, n + at, 0);
    double *tol = test_noise_array(5, n, 1);
    float *p = test_f32(ex, X, n + at), *x = test_alloc(ex, (n + at) * sizeof *x);
    float *m[2], *v[2];
    for (int i = 0; i < 2; i++)
        m[i] = test_f32(ex, zero, n + at), v[i] = test_f32(ex, zero, n + at);
    Masters s = masters(ex, n, at);
    ex->op->split(ex, s.high, s.low, p + at, n);
    double *start = test_get_store(ex, s.high, n);
    for (int step = 1; step <= STEPS; step++) {
        double *G = test_noise_array((uint64_t)(100 + step), n + at, 1);
        float *g = test_f32(ex, G, n + at);
        a.step = step;
        ex->op->adamw(ex, p + at, m[0] + at, v[0] + at, g + at, n, 0.5f, a);
        ex->op->adamw_split(ex, s.high, s.low, m[1] + at, v[1] + at, g + at, n, 0.5f, a);
        test_free(ex, g);
        free(G);
    }
    ex->op->join(ex, x + at, s.high, s.low, n);
    double *want = test_get_f32(ex, p + at, n), *got = test_get_f32(ex, x + at, n);
    double *wm = test_get_f32(ex, m[0] + at, n), *gm = test_get_f32(ex, m[1] + at, n);
    double *wv = test_get_f32(ex, v[0] + at, n), *gv = test_get_f32(ex, v[1] + at, n);
    double *high = test_get_store(ex, s.high, n);
    char what[96];
    snprintf(what, sizeof what, "%s adamw_split n=%zu at %zu", ex->op->name, n, at);
    for (size_t i = 0; i < n; i++) tol[i] = 2 * STEPS * 0x1p-24 * (2 * fabs(want[i]) + 12 * a.lr);
    test_close_each(what, got, want, tol, n);
    test_close(what, gm, wm, n, 8 * STEPS * 0x1p-24 * 0.5, 0);
    test_close(what, gv, wv, n, 0x1p-149 * STEPS, 8 * STEPS * 0x1p-24);
    if (n > 16) {
        TEST_DETECTS(test_close_each(what, X + at, want, tol, n)); /* it moves at all */
        if (ex->dtype == DTYPE_BF16) TEST_DETECTS(test_close_each(what, high, want, tol, n));
        TEST_DETECTS(test_close_each(what, start, want, tol, n));
    }
    masters_free(ex, &s);
    for (int i = 0; i < 2; i++) test_free(ex, m[i]), test_free(ex, v[i]);
    test_free(ex, p), test_free(ex, x);
    free(X), free(zero), free(tol), free(start), free(want), free(got), free(wm), free(gm);
    free(wv), free(gv), free(high);
}

static void body(Exec *ex) {
    static const size_t size[] = {0, 1, 15, 16, 17, 4097, 140000};
    for (size_t s = 0; s < sizeof size / sizeof *size; s++) {
        test_split(ex, size[s], 0);
        test_adamw(ex, size[s] < 40000 ? size[s] : 40000, 0);
    }
    for (size_t at = 1; at < 9; at += 3) {
        test_split(ex, 4097, at);
        test_adamw(ex, 999, at);
    }
}

int main(void) {
    test_every();
    test_each_exec(body);
    return test_done("test_halves");
}
