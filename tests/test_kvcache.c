/* The key/value cache: what is put is found, and a decoded row is attention over its cache. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "tests/test.h"

enum { ROWS = 8 }; /* of the largest batch, see all_kvcache */

static double *zeros(size_t n) {
    double *a = calloc(n + 1, sizeof *a);
    CHECK(a, "out of memory");
    return a;
}

static void expect_caches(Exec *ex, const store *K, const store *V, const double *k,
                          const double *v, size_t n) {
    double *got_k = test_get_store(ex, K, n), *got_v = test_get_store(ex, V, n);
    test_close("kv_put keys", got_k, k, n, 0, 0);
    test_close("kv_put values", got_v, v, n, 0, 0);
    got_k[n - 1] = NAN;
    TEST_DETECTS(test_close("kv_put keys", got_k, k, n, 0, 0));
    free(got_k), free(got_v);
}

static void put(Exec *ex) {
    enum { SLOTS = 3, T = 7, W = 24, N = 5 };
    static const int32_t slot[N] = {2, 0, 2, 1, 0}, pos[N] = {6, 0, 0, 3, 6};
    size_t size = (size_t)SLOTS * T * W;
    double *kc = test_noise_array(1, size, 1), *vc = test_noise_array(2, size, 1);
    double *k = test_noise_array(3, N * W, 1), *v = test_noise_array(4, N * W, 1);
    store *KC = test_store(ex, kc, size), *VC = test_store(ex, vc, size);
    store *K = test_store(ex, k, N * W), *V = test_store(ex, v, N * W);
    int32_t *slots = test_i32(ex, slot, N), *positions = test_i32(ex, pos, N);
    ex->op->kv_put(ex, KC, VC, K, V, slots, positions, 0, T, W);
    expect_caches(ex, KC, VC, kc, vc, size); /* N = 0: nothing has changed */
    ex->op->kv_put(ex, KC, VC, K, V, slots, positions, N, T, W);
    for (int i = 0; i < N; i++) {
        size_t to = ((size_t)slot[i] * T + (size_t)pos[i]) * W;
        memcpy(kc + to, k + i * W, W * sizeof *k);
        memcpy(vc + to, v + i * W, W * sizeof *v);
    }
    expect_caches(ex, KC, VC, kc, vc, size);
    free(kc), free(vc), free(k), free(v);
    test_free(ex, KC), test_free(ex, VC), test_free(ex, K), test_free(ex, V);
    test_free(ex, slots), test_free(ex, positions);
}

/* One batch to decode: caches are noise in every entry, also beyond each sequence's length. */
typedef struct Batch {
    AttnShape a;
    int N, T, slots;
    const int32_t *slot, *len;
    double *q, *kc, *vc;
} Batch;

static Batch batch_new(AttnShape a, int N, int T, const int32_t *slot, const int32_t *len) {
    Batch b = {.a = a, .N = N, .T = T, .slots = 1, .slot = slot, .len = len};
    for (int n = 0; n < N; n++)
        if (slot[n] >= b.slots) b.slots = slot[n] + 1;
    size_t cache = (size_t)b.slots * T * a.K * a.E;
    b.q = test_noise_array(11, (size_t)N * a.H * a.E, 2.5);
    b.kc = test_noise_array(12, cache, 2.5);
    b.vc = test_noise_array(13, cache, 1);
    return b;
}

static void batch_free(Batch *b) {
    free(b->q), free(b->kc), free(b->vc);
}

static double *run(Exec *ex, Batch *b, AttnShape a) {
    size_t nq = (size_t)b->N * a.H * a.E, cache = (size_t)b->slots * b->T * a.K * a.E;
    store *Q = test_store(ex, b->q, nq), *KC = test_store(ex, b->kc, cache);
    store *VC = test_store(ex, b->vc, cache), *O = test_alloc(ex, nq * dtype_size(ex->dtype));
    int32_t *slot = test_i32(ex, b->slot, (size_t)b->N), *len = test_i32(ex, b->len, (size_t)b->N);
    ex->op->attn_decode(ex, O, Q, KC, VC, slot, len, b->N, b->T, a);
    double *got = test_get_store(ex, O, nq);
    test_free(ex, Q), test_free(ex, KC), test_free(ex, VC), test_free(ex, O);
    test_free(ex, slot), test_free(ex, len);
    return got;
}

/* One head: o and its allowance. f32 sums of n terms lose at most 6 sqrt(n) 2^-24 of the sum of
 * magnitudes, taken as independent; an error of the scores is a relative error of the weights. */
static void reference(const Batch *b, int n, int h, double *o, double *err) {
    AttnShape a = b->a;
    double u = ldexp(1, -24), s[1024], top = -INFINITY, sum = 0, ds = 0;
    const double *q = b->q + ((size_t)n * a.H + h) * a.E;
    size_t width = (size_t)a.K * a.E, base = (size_t)b->slot[n] * b->T * width;
    int len = b->len[n], first = a.window > 0 && len > a.window ? len - a.window : 0;
    base += (size_t)(h / (a.H / a.K)) * a.E;
    for (int t = first; t < len; t++) {
        double dot = 0, dot_abs = 0;
        for (int e = 0; e < a.E; e++) {
            double p = q[e] * b->kc[base + t * width + e];
            dot += p, dot_abs += fabs(p);
        }
        s[t] = a.scale * dot;
        if (a.cap > 0) s[t] = a.cap * tanh(s[t] / a.cap);
        ds = fmax(ds, 6 * sqrt(a.E) * u * a.scale * dot_abs + 12 * u * fabs(s[t]));
        top = fmax(top, s[t]);
    }
    for (int t = first; t < len; t++) sum += exp(s[t] - top);
    for (int e = 0; e < a.E; e++) {
        double o_abs = 0;
        o[e] = 0;
        for (int t = first; t < len; t++) {
            double w = exp(s[t] - top) / sum, v = b->vc[base + t * width + e];
            o[e] += w * v, o_abs += w * fabs(v);
        }
        err[e] = (2 * ds + 12 * sqrt(len - first) * u + 8 * u) * o_abs;
    }
}

static int close_to(const char *what, const double *got, const double *want, const double *err,
                    size_t n, double roundoff) {
    double *over = zeros(n), *zero = zeros(n);
    for (size_t i = 0; i < n; i++)
        over[i] = (got[i] - want[i]) / (err[i] + roundoff * fabs(want[i]) + 1e-30);
    int ok = test_close(what, over, zero, n, 1, 0);
    free(over), free(zero);
    return ok;
}

static void decode_batch(Exec *ex, Batch *b) {
    char what[128];
    AttnShape a = b->a;
    snprintf(what, sizeof what, "%s attn_decode N=%d H=%d K=%d E=%d window %d cap %g", ex->op->name,
             b->N, a.H, a.K, a.E, a.window, (double)a.cap);
    double *got = run(ex, b, a), u = test_roundoff(ex->dtype);
    size_t n = (size_t)b->N * a.H * a.E;
    double *want = zeros(n), *err = zeros(n);
    for (int i = 0; i < b->N; i++)
        for (int h = 0; h < a.H; h++) {
            size_t at = ((size_t)i * a.H + h) * a.E;
            reference(b, i, h, want + at, err + at);
        }
    close_to(what, got, want, err, n, u);
    if (a.window > 1 && b->N == ROWS) { /* the long sequences reach beyond the window */
        AttnShape wrong = a;
        wrong.window--;
        double *shorter = run(ex, b, wrong);
        TEST_DETECTS(close_to(what, shorter, want, err, n, u));
        free(shorter);
    }
    if (n > 0) {
        got[n - 1] = NAN;
        TEST_DETECTS(close_to(what, got, want, err, n, u));
    }
    free(got), free(want), free(err);
}

static void decode(Exec *ex, AttnShape a, int N, int T, const int32_t *slot, const int32_t *len) {
    Batch b = batch_new(a, N, T, slot, len);
    decode_batch(ex, &b);
    batch_free(&b);
}

/* Scores all near -500, then all near 500: exp of either is out of range, of their differences not.
 */
static void far_scores(Exec *ex) {
    static const int32_t slot[] = {0, 1}, len[] = {150, 3};
    AttnShape a = {.H = 4, .K = 2, .E = 32, .window = 0, .scale = 1};
    for (int sign = -1; sign <= 1; sign += 2) {
        Batch b = batch_new(a, 2, 150, slot, len);
        for (int i = 0; i < 2 * a.H * a.E; i++) b.q[i] = 4 + 0.05 * b.q[i];
        for (int i = 0; i < 2 * 150 * a.K * a.E; i++) b.kc[i] = sign * (4 + 0.05 * b.kc[i]);
        decode_batch(ex, &b);
        batch_free(&b);
    }
}

/* Entries at and past the length, and other slots, may hold anything. Bits do not depend on
 * threads nor on who else is decoded. */
static void isolation(Exec *ex) {
    enum { T = 600 };
    static const int32_t slot[] = {1, 0, 2}, len[] = {520, 600, 1};
    AttnShape a = {.H = 4, .K = 2, .E = 32, .window = 0, .scale = 0.2f, .cap = 50};
    size_t width = (size_t)a.K * a.E, row = (size_t)a.H * a.E;
    Batch b = batch_new(a, 3, T, slot, len);
    double *before = run(ex, &b, a);
    for (size_t i = 0; i < 2 * T * width; i++)
        if (i < T * width || i >= (T + 520) * width) b.kc[i] = b.vc[i] = NAN;
    double *after = run(ex, &b, a);
    EXPECT(memcmp(before, after, row * sizeof *before) == 0, "row 0 sees beyond its length");
    EXPECT(memcmp(before + 2 * row, after + 2 * row, row * sizeof *before) == 0, "row 2");
    int threads = omp_get_max_threads();
    for (int t = 1; t <= 4; t *= 2) {
        omp_set_num_threads(t);
        b.N = 1;
        double *alone = run(ex, &b, a);
        EXPECT(memcmp(before, alone, row * sizeof *before) == 0, "alone, %d threads", t);
        free(alone);
    }
    omp_set_num_threads(threads);
    free(before), free(after), batch_free(&b);
}

/* A slot, place or length out of range, which on a GPU only the kernel sees, and a head too wide.
 */
static void refusals(Exec *ex) {
    static const int32_t indices[] = {0, -1, 1, 8, 9};
    enum { T = 8, W = 8 };
    AttnShape a = {.H = 1, .K = 1, .E = W, .scale = 1}, wide = a;
    double values[T * W] = {0};
    store *cache = test_store(ex, values, T * W), *x = test_store(ex, values, W);
    const int32_t *zero = test_i32(ex, indices, 5), *below = zero + 1, *one = zero + 2;
    const int32_t *most = zero + 3, *over = zero + 4;
    const Ops *op = ex->op;
    wide.E = 264;
    TEST_DIES(ex, op->kv_put(ex, cache, cache, x, x, below, zero, 1, T, W));
    TEST_DIES(ex, op->kv_put(ex, cache, cache, x, x, zero, most, 1, T, W));
    TEST_DIES(ex, op->kv_put(ex, cache, cache, x, x, zero, below, 1, T, W));
    TEST_DIES(ex, op->attn_decode(ex, x, x, cache, cache, below, one, 1, T, a));
    TEST_DIES(ex, op->attn_decode(ex, x, x, cache, cache, zero, zero, 1, T, a));
    TEST_DIES(ex, op->attn_decode(ex, x, x, cache, cache, zero, over, 1, T, a));
    TEST_DIES(ex, op->attn_decode(ex, x, x, cache, cache, zero, most, 1, T, wide));
    test_free(ex, cache), test_free(ex, x), test_free(ex, (void *)zero);
}

static void all_kvcache(Exec *ex) {
    static const int32_t slot[ROWS] = {3, 0, 1, 7, 4, 2, 6, 5};
    static const int32_t len[ROWS] = {1, 2, 65, 128, 300, 64, 299, 129};
    static const AttnShape shapes[] = {
        {1, 1, 8, 0, 0.35f, 0},    {4, 2, 32, 3, 0.17f, 5},  {8, 4, 256, 64, 0.06f, 50},
        {4, 1, 24, 65, 0.2f, 2},   {3, 3, 64, 0, 0.12f, 50}, {8, 1, 40, 100, 0.15f, 0},
        {6, 2, 128, 130, 0.1f, 0}, {5, 1, 16, 257, 0.2f, 3},
    };
    put(ex);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int n = 0; n <= ROWS; n += 4) decode(ex, shapes[i], n, 300, slot, len);
    far_scores(ex);
    isolation(ex);
    refusals(ex);
}

int main(void) {
    test_each_exec(all_kvcache);
    return test_done("kvcache");
}
