/* SAE twins against a double-precision reference written from ops.h.
 *
 * Inputs are small multiples of powers of two, so that every product and sum is exact in f32 and in
 * double: results must EQUAL the reference, ties and thresholds are hit on purpose, and no
 * tolerance can hide a wrong feature. A second pass on noise bounds the rounding. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "tests/test.h"

enum Fault { NONE, THRESHOLD_INCLUDED, TIES_TO_LAST, UNWEIGHTED, IGNORED_COUNTED, GROUP_SHIFTED };

typedef struct Case {
    int N, D, S, G;
    enum SaeAct act;
    enum SaeProducts products;
    int topk;
    double *x, *w, *b, *threshold, *weight;
    int32_t *bin;
} Case;

static double snap(double v, double unit) {
    return rint(v / unit) * unit;
}

static Case make(int N, int D, int S, int G, enum SaeAct act, int topk, int exact) {
    Case c = {.N = N, .D = D, .S = S, .G = G, .act = act, .topk = topk};
    c.x = test_noise_array(1, (size_t)N * D, 1);
    c.w = test_noise_array(2, (size_t)D * S, 1);
    c.b = test_noise_array(3, (size_t)S, 1);
    c.threshold = test_noise_array(4, (size_t)S, 2);
    c.weight = test_noise_array(5, (size_t)N, 1);
    c.bin = malloc(((size_t)N + 1) * sizeof *c.bin);
    CHECK(c.bin, "out of memory");
    for (int n = 0; n < N; n++) {
        c.bin[n] = (int32_t)((test_noise(6, (uint64_t)n) + 1) / 2 * (2 * G + 1)) - 1;
        c.weight[n] = snap(1 + c.weight[n] * 0.75, 0.25);
    }
    if (!exact) return c;
    for (int i = 0; i < N * D; i++) c.x[i] = snap(c.x[i], 0.25);
    for (int i = 0; i < D * S; i++) c.w[i] = snap(c.w[i], 0.25);
    for (int s = 0; s < S; s++) {
        c.b[s] = snap(c.b[s], 0.0625);
        c.threshold[s] = snap(c.threshold[s], 0.0625);
    }
    return c;
}

static Case fast(Case c) {
    c.products = SAE_FAST;
    return c;
}

static void release(Case *c) {
    free(c->x), free(c->w), free(c->b), free(c->threshold), free(c->weight), free(c->bin);
}

/* Activations of row n in double; `pre` gets the pre-activations. */
static void ref_row(double *a, double *pre, const Case *c, int n, enum Fault fault) {
    for (int s = 0; s < c->S; s++) {
        pre[s] = c->b[s];
        for (int d = 0; d < c->D; d++)
            pre[s] += c->x[(size_t)n * c->D + d] * c->w[(size_t)d * c->S + s];
    }
    for (int s = 0; s < c->S; s++) {
        int on = pre[s] > 0;
        if (c->act == SAE_JUMPRELU) {
            on = fault == THRESHOLD_INCLUDED ? pre[s] >= c->threshold[s] : pre[s] > c->threshold[s];
        } else if (c->act == SAE_TOPK) {
            int before = 0; /* features that come first in the order of the contract */
            for (int t = 0; t < c->S; t++)
                before += pre[t] > pre[s] ||
                          (pre[t] == pre[s] && (fault == TIES_TO_LAST ? t > s : t < s));
            on = on && before < c->topk;
        }
        a[s] = on ? pre[s] : 0;
    }
}

static double *zeros(size_t n) {
    double *p = calloc(n + 1, sizeof *p);
    CHECK(p, "out of memory");
    return p;
}

static void ref_encode(double *a, double *pre, const Case *c, enum Fault fault) {
    for (int n = 0; n < c->N; n++)
        ref_row(a + (size_t)n * c->S, pre + (size_t)n * c->S, c, n, fault);
}

typedef struct Stats {
    double *sum, *sumsq, *fires, *max;
} Stats;

static Stats stats_start(const Case *c) {
    size_t S = (size_t)c->S, groups = 2 * (size_t)c->G;
    Stats r = {zeros(groups * S), zeros(2 * S), zeros(2 * S), zeros(2 * S)};
    for (size_t i = 0; i < groups * S; i++) r.sum[i] = (double)(i % 7);
    for (size_t i = 0; i < 2 * S; i++) {
        r.sumsq[i] = (double)(i % 5);
        r.fires[i] = (double)(i % 3);
        r.max[i] = (double)(i % 4);
    }
    return r;
}

static void stats_free(Stats *r) {
    free(r->sum), free(r->sumsq), free(r->fires), free(r->max);
}

static void ref_stats(Stats *r, const Case *c, const double *a, enum Fault fault) {
    for (int n = 0; n < c->N; n++) {
        int bin = c->bin[n];
        if (bin < 0 && fault != IGNORED_COUNTED) continue;
        if (bin < 0) bin = 0;
        int corpus = bin / c->G;
        if (fault == GROUP_SHIFTED) bin = corpus * c->G + (bin + 1) % c->G;
        double weight = fault == UNWEIGHTED ? 1 : c->weight[n];
        for (int s = 0; s < c->S; s++) {
            double v = a[(size_t)n * c->S + s];
            size_t at = (size_t)corpus * c->S + s;
            r->sum[(size_t)bin * c->S + s] += weight * v;
            r->sumsq[at] += weight * v * v;
            r->fires[at] += v > 0;
            if (v > r->max[at]) r->max[at] = v;
        }
    }
}

/* The case in device memory. */
typedef struct Device {
    store *x;
    float *w, *b, *threshold, *weight;
    int32_t *bin;
    SaeEncoder sae;
} Device;

static Device upload(Exec *ex, Case *c) {
    Device d;
    d.x = test_store(ex, c->x, (size_t)c->N * c->D);
    d.w = test_f32(ex, c->w, (size_t)c->D * c->S);
    d.b = test_f32(ex, c->b, (size_t)c->S);
    d.threshold = test_f32(ex, c->threshold, (size_t)c->S);
    d.weight = test_f32(ex, c->weight, (size_t)c->N);
    d.bin = test_i32(ex, c->bin, (size_t)c->N);
    d.sae = (SaeEncoder){.w = d.w,
                         .b = d.b,
                         .threshold = c->act == SAE_JUMPRELU ? d.threshold : NULL,
                         .D = c->D,
                         .S = c->S,
                         .act = c->act,
                         .topk = c->topk,
                         .products = c->products};
    return d;
}

static void unload(Exec *ex, Device *d) {
    test_free(ex, d->x), test_free(ex, d->w), test_free(ex, d->b), test_free(ex, d->threshold);
    test_free(ex, d->weight), test_free(ex, d->bin);
}

static double *copy_i64(Exec *ex, const int64_t *p, size_t n) {
    double *d = test_get_f64(ex, (const double *)p, n); /* bytes; converted in place */
    for (size_t i = 0; i < n; i++) {
        int64_t v;
        memcpy(&v, d + i, sizeof v);
        d[i] = (double)v;
    }
    return d;
}

/* Runs the op over rows [0,cut) and then [cut,N) on top of `start`. */
static Stats run_stats(Exec *ex, const Case *c, const Device *d, const Stats *start, int cut) {
    size_t S = (size_t)c->S, groups = 2 * (size_t)c->G;
    double *sum = test_alloc(ex, groups * S * 8), *sumsq = test_alloc(ex, 2 * S * 8);
    int64_t *fires = test_alloc(ex, 2 * S * 8), *count = malloc(2 * S * 8 + 8);
    float *max = test_f32(ex, start->max, 2 * S);
    CHECK(count, "out of memory");
    for (size_t i = 0; i < 2 * S; i++) count[i] = (int64_t)start->fires[i];
    exec_copy_in(ex, sum, start->sum, groups * S * 8);
    exec_copy_in(ex, sumsq, start->sumsq, 2 * S * 8);
    exec_copy_in(ex, fires, count, 2 * S * 8);
    ex->op->sae_stats(ex, sum, sumsq, fires, max, d->x, d->bin, d->weight, d->sae, cut, c->G);
    ex->op->sae_stats(ex, sum, sumsq, fires, max, store_at(ex->dtype, d->x, (size_t)cut * c->D),
                      d->bin + cut, d->weight + cut, d->sae, c->N - cut, c->G);
    Stats r = {test_get_f64(ex, sum, groups * S), test_get_f64(ex, sumsq, 2 * S),
               copy_i64(ex, fires, 2 * S), test_get_f32(ex, max, 2 * S)};
    test_free(ex, sum), test_free(ex, sumsq), test_free(ex, fires), test_free(ex, max);
    free(count);
    return r;
}

static int same_stats(const char *what, const Case *c, const Stats *got, const Stats *ref) {
    size_t S = (size_t)c->S;
    char name[200];
    int ok = 1;
    const double *g[] = {got->sum, got->sumsq, got->fires, got->max};
    const double *r[] = {ref->sum, ref->sumsq, ref->fires, ref->max};
    static const char *const part[] = {"sum", "sumsq", "fires", "max"};
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s %s", what, part[i]);
        ok &= test_close(name, g[i], r[i], i ? 2 * S : 2 * (size_t)c->G * S, 0, 0);
    }
    return ok;
}

/* A fault that cannot show in this case (no ties, no bin of -1 ...) leaves the reference as it is.
 */
static void expect_detects(const char *what, const Case *c, const Stats *got, const Stats *ref,
                           enum Fault fault) {
    double *a = zeros((size_t)c->N * c->S), *unused = zeros((size_t)c->N * c->S);
    Stats bad = stats_start(c);
    ref_encode(a, unused, c, fault);
    ref_stats(&bad, c, a, fault);
    test_quiet = 1;
    int differs = !same_stats("", c, &bad, ref);
    test_quiet = 0;
    if (differs) TEST_DETECTS(same_stats(what, c, got, &bad));
    EXPECT(differs || c->N < 60, "%s: fault %d does not show in this case", what, fault);
    stats_free(&bad);
    free(a), free(unused);
}

static void test_exact(Exec *ex, Case c, const char *name) {
    char what[160];
    snprintf(what, sizeof what, "%s sae %s N=%d D=%d S=%d G=%d k=%d", ex->op->name, name, c.N, c.D,
             c.S, c.G, c.topk);
    size_t n = (size_t)c.N * c.S;
    double *a = zeros(n), *pre = zeros(n);
    Device d = upload(ex, &c);
    ref_encode(a, pre, &c, NONE);
    float *out = test_alloc(ex, n * sizeof *out);
    ex->op->sae_encode(ex, out, d.x, d.sae, c.N);
    double *got = test_get_f32(ex, out, n);
    test_close(what, got, a, n, 0, 0);
    if (n > 0) {
        got[n - 1] = NAN;
        TEST_DETECTS(test_close(what, got, a, n, 0, 0));
    }
    Stats start = stats_start(&c), ref = stats_start(&c);
    ref_stats(&ref, &c, a, NONE);
    Stats all = run_stats(ex, &c, &d, &start, c.N), parts = run_stats(ex, &c, &d, &start, c.N / 3);
    same_stats(what, &c, &all, &ref);
    same_stats(what, &c, &parts, &ref);
    if (c.act == SAE_JUMPRELU) expect_detects(what, &c, &all, &ref, THRESHOLD_INCLUDED);
    if (c.act == SAE_TOPK && c.topk < c.S / 2) expect_detects(what, &c, &all, &ref, TIES_TO_LAST);
    expect_detects(what, &c, &all, &ref, UNWEIGHTED);
    expect_detects(what, &c, &all, &ref, IGNORED_COUNTED);
    if (c.G > 1) expect_detects(what, &c, &all, &ref, GROUP_SHIFTED);
    stats_free(&start), stats_free(&ref), stats_free(&all), stats_free(&parts);
    test_free(ex, out);
    unload(ex, &d);
    free(a), free(pre), free(got);
    release(&c);
}

/* A sum of D products in f32, in any order and with or without FMA, is off by at most D u times
 * the sum of their magnitudes; adding b costs one more rounding. Tensor cores miss up to 60 u
 * however short the sum: each of the 12 products of matrices that make one of sae.cu's chunks costs
 * 4 u (ptx.h), what cutting drops 8 u, the rest is rounding. An activation may also switch when its
 * threshold is that near. */
static int beyond(const char *what, const Case *c, const double *got) {
    size_t n = (size_t)c->N * c->S;
    double *a = zeros(n), *pre = zeros(n), worst = 0;
    int bad = 0, near = 0;
    ref_encode(a, pre, c, NONE);
    for (int r = 0; r < c->N; r++)
        for (int s = 0; s < c->S; s++) {
            double size = fabs(c->b[s]);
            for (int i = 0; i < c->D; i++)
                size += fabs(c->x[(size_t)r * c->D + i] * c->w[(size_t)i * c->S + s]);
            double tol = fmax(c->D + 1, 60) * ldexp(1, -24) * size, p = pre[(size_t)r * c->S + s];
            double e = fabs(got[(size_t)r * c->S + s] - a[(size_t)r * c->S + s]);
            double level = c->act == SAE_JUMPRELU ? c->threshold[s] : 0;
            int close = fabs(p - level) <= tol;
            near += close;
            if (close) e = fmin(e, fabs(fabs(p) - e)); /* switched: off by the activation itself */
            if (!(e <= tol)) bad++;
            if (e / tol > worst) worst = e / tol;
        }
    if (!test_quiet) {
        EXPECT(bad == 0, "%s: %d of %zu beyond the bound, worst %.3g", what, bad, n, worst);
        EXPECT(near < (int)(n / 20 + 2), "%s: %d of %zu are near their threshold", what, near, n);
    }
    free(a), free(pre);
    return bad == 0;
}

static void round_to_bf16(double *v, size_t n) {
    for (size_t i = 0; i < n; i++) v[i] = bf16_to_f32(bf16_from_f32((float)v[i]));
}

static void test_rounding(Exec *ex, Case c, const char *name) {
    size_t n = (size_t)c.N * c.S;
    char what[160];
    snprintf(what, sizeof what, "%s sae %s D=%d", ex->op->name, name, c.D);
    Device d = upload(ex, &c);
    float *out = test_alloc(ex, n * sizeof *out);
    ex->op->sae_encode(ex, out, d.x, d.sae, c.N);
    double *got = test_get_f32(ex, out, n);
    if (c.products == SAE_FAST) {
        TEST_DETECTS(beyond(what, &c, got));
        round_to_bf16(c.x, (size_t)c.N * c.D);
        round_to_bf16(c.w, (size_t)c.D * c.S);
    }
    beyond(what, &c, got);
    test_free(ex, out);
    unload(ex, &d);
    free(got);
    release(&c);
}

/* Noise, so that another order of summation would show, over several blocks of rows and runs of
 * dimensions; less of it on a simulated device, which is slow. */
static Case noise(Exec *ex, enum SaeAct act, int S) {
    bool cpu = strncmp(ex->op->name, "cpu", 3) == 0;
    return make(cpu ? 600 : 150, cpu ? 1100 : 40, S, 3, act, 9, 0);
}

/* A row's activations do not depend on its neighbours, its place or the number of threads. */
static void test_rows(Exec *ex, Case c) {
    const int counts[] = {1, 7, 64, c.N};
    int before = omp_get_max_threads();
    size_t S = (size_t)c.S;
    Device d = upload(ex, &c);
    float *out = test_alloc(ex, (size_t)c.N * S * sizeof *out);
    ex->op->sae_encode(ex, out, d.x, d.sae, c.N);
    double *all = test_get_f32(ex, out, (size_t)c.N * S);
    for (int threads = 1; threads <= 4; threads *= 2)
        for (int m = 0; m < 4; m++) {
            int rows = counts[m], row = (c.N - rows) / 3;
            omp_set_num_threads(threads);
            ex->op->sae_encode(ex, out, store_at(ex->dtype, d.x, (size_t)row * c.D), d.sae, rows);
            double *got = test_get_f32(ex, out, (size_t)rows * S);
            EXPECT(memcmp(got, all + (size_t)row * S, (size_t)rows * S * 8) == 0,
                   "%s sae %d, products %d: rows %d..+%d with %d threads", ex->op->name, c.act,
                   c.products, row, rows, threads);
            free(got);
        }
    omp_set_num_threads(before);
    free(all);
    test_free(ex, out);
    unload(ex, &d);
    release(&c);
}

/* Same bits of the statistics for every thread count and for every cut of the rows. */
static void test_bits(Exec *ex, Case c) {
    Device d = upload(ex, &c);
    Stats start = stats_start(&c), first = run_stats(ex, &c, &d, &start, c.N);
    int threads = omp_get_max_threads();
    for (int t = 1; t <= 4; t++) {
        omp_set_num_threads(t);
        for (int cut = 0; cut <= c.N; cut += c.N / 4 - 1) {
            Stats again = run_stats(ex, &c, &d, &start, cut);
            same_stats("bits", &c, &again, &first);
            stats_free(&again);
        }
    }
    omp_set_num_threads(threads);
    stats_free(&start), stats_free(&first);
    unload(ex, &d);
    release(&c);
}

/* A NaN row must show if it counts, and must not if it does not; its neighbours stay clean. */
static void test_nan(Exec *ex, enum SaeAct act) {
    Case c = make(5, 8, 20, 1, act, 3, 1);
    for (int n = 0; n < 5; n++) c.bin[n] = n % 2;
    for (int i = 0; i < c.D; i++) c.x[c.D + i] = NAN; /* row 1, corpus 1 */
    Device d = upload(ex, &c);
    Stats start = stats_start(&c), r = run_stats(ex, &c, &d, &start, c.N);
    int nan[2] = {0, 0};
    for (int i = 0; i < 2 * c.S; i++) nan[i / c.S] += isnan(r.sum[i]);
    EXPECT(nan[0] == 0, "%d sums of the clean corpus are NaN", nan[0]);
    EXPECT(nan[1] >= (act == SAE_TOPK ? 3 : c.S), "%d sums show the NaN, act %d", nan[1], act);
    stats_free(&r);
    unload(ex, &d);
    c.bin[1] = -1;
    d = upload(ex, &c);
    r = run_stats(ex, &c, &d, &start, c.N);
    for (int i = 0; i < 2 * c.S; i++) EXPECT(isfinite(r.sum[i]), "a row that does not count");
    stats_free(&start), stats_free(&r);
    unload(ex, &d);
    release(&c);
}

/* A bin beyond the last would be another tensor's memory. */
static void test_bad_bin(Exec *ex, enum SaeAct act, int bin) {
    Case c = make(5, 8, 20, 2, act, 3, 1);
    for (int n = 0; n < c.N; n++) c.bin[n] = n == 3 ? bin : 0;
    Device d = upload(ex, &c);
    Stats start = stats_start(&c);
    TEST_DIES(ex, run_stats(ex, &c, &d, &start, c.N));
    stats_free(&start);
    unload(ex, &d);
    release(&c);
}

static void body(Exec *ex) {
    static const int shape[][4] = {{0, 8, 5, 2},      {1, 1, 1, 1},    {2, 3, 9, 4},
                                   {63, 5, 64, 2},    {64, 16, 65, 3}, {65, 24, 130, 2},
                                   {300, 136, 72, 2}, {513, 4, 66, 64}};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i += test_brief() ? 2 : 1) {
        int N = shape[i][0], D = shape[i][1], S = shape[i][2], G = shape[i][3];
        test_exact(ex, make(N, D, S, G, SAE_RELU, 0, 1), "relu");
        test_exact(ex, make(N, D, S, G, SAE_JUMPRELU, 0, 1), "jumprelu");
        test_exact(ex, make(N, D, S, G, SAE_TOPK, 1, 1), "topk");
        test_exact(ex, make(N, D, S, G, SAE_TOPK, (S + 3) / 4, 1), "topk");
        test_exact(ex, make(N, D, S, G, SAE_TOPK, S, 1), "topk");
    }
    test_exact(ex, fast(make(300, 136, 72, 2, SAE_JUMPRELU, 0, 1)), "fast jumprelu");
    test_exact(ex, fast(make(65, 24, 130, 2, SAE_TOPK, 9, 1)), "fast topk");
    test_exact(ex, make(66, 3, 8300, 2, SAE_JUMPRELU, 0, 1), "wide");
    test_exact(ex, make(2, 3, 8300, 1, SAE_TOPK, 100, 1), "wide topk");
    test_rounding(ex, make(3, 2304, 70, 1, SAE_RELU, 0, 0), "relu");
    test_rounding(ex, make(3, 2501, 70, 1, SAE_JUMPRELU, 0, 0), "jumprelu");
    test_rounding(ex, make(40, 2501, 70, 1, SAE_RELU, 0, 0), "strips");
    test_rounding(ex, make(3, 64, 70, 1, SAE_TOPK, 70, 0), "topk");
    test_rounding(ex, make(3, 1, 70, 1, SAE_RELU, 0, 0), "relu");
    test_rounding(ex, fast(make(3, 64, 70, 1, SAE_JUMPRELU, 0, 0)), "fast jumprelu");
    test_rounding(ex, fast(make(3, 136, 70, 1, SAE_TOPK, 70, 0)), "fast topk");
    if (!test_brief()) {
        test_bits(ex, noise(ex, SAE_JUMPRELU, 300));
        test_bits(ex, noise(ex, SAE_TOPK, 300));
    }
    test_rows(ex, noise(ex, SAE_RELU, 100));
    test_rows(ex, noise(ex, SAE_TOPK, 100));
    test_rows(ex, fast(noise(ex, SAE_JUMPRELU, 100)));
    for (int act = SAE_RELU; act <= SAE_TOPK; act++) {
        test_nan(ex, (enum SaeAct)act);
        test_bad_bin(ex, (enum SaeAct)act, 4);
        test_bad_bin(ex, (enum SaeAct)act, -2);
    }
}

int main(void) {
    test_each_exec(body);
    return test_done("test_sae");
}
