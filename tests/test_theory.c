/* The recovery experiment: what is drawn against what the model says, estimators against their
 * closed forms, and against values that an independent program found. */
#include <math.h>

#include "data/base/mem.h"
#include "data/base/rng.h"
#include "host/theory/closed.h"
#include "model/subspace.h"
#include "tests/theory.h"

/* ----------------------------------------------------------------------------- what is drawn -- */

static double dot(const double *a, const double *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void test_directions(double coherence) {
    WorldShape s = USUAL;
    s.coherence = coherence;
    World w = world_of(s, 0);
    double worst = 0, row[128], far = 0;
    for (int i = 0; i < s.n; i++)
        for (int j = 0; j <= i; j++) {
            double c = dot(w.d + i * 128, w.d + j * 128, 128);
            if (i == j || i < s.r) worst = fmax(worst, fabs(c - (i == j ? 1 : coherence)));
            if (i != j && i >= s.r) far = fmax(far, fabs(c));
        }
    EXPECT(worst <= 1e-14, "coherence %g: off by %g", coherence, worst);
    EXPECT(far > 0.2 && far < 0.6, "others: cosines up to %g",
           far); /* sqrt(2 ln(n^2/2) / H) = .43 */
    EXPECT(recovery_of(&w, w.V, s.r).captured > 1 - 1e-14, "V is not orthonormal");
    for (int j = 0; j < s.r; j++) { /* and spans the task's directions */
        Recovery one = recovery_of(&w, w.d + j * 128, 1);
        EXPECT(fabs(one.precision - 1) <= 1e-14, "direction %d outside V: %g", j, one.precision);
    }
    for (int kind = 0; kind < 2; kind++) {
        world_row(row, &w, 3, 0.75, (enum RowError)kind);
        EXPECT(fabs(dot(row, row, 128) - 1) <= 1e-14 &&
                   fabs(dot(row, w.d + 3 * 128, 128) - 0.8) <= 1e-14,
               "the angle of a row, kind %d", kind);
    }
    for (int j = 0; j < s.n;
         j++) { /* whichever was chosen, also where it would be its own partner */
        world_row(row, &w, j, 0.75, ERROR_MIXED);
        EXPECT(fabs(dot(row, w.d + j * 128, 128) - 0.8) <= 1e-14, "the angle of mixed row %d", j);
    }
    world_row(row, &w, 3, 1, ERROR_MIXED); /* 45 degrees: halfway to the part of its partner */
    double with = dot(w.d + 3 * 128, w.d + 11 * 128, 128), out = sqrt(1 - with * with);
    EXPECT(fabs(dot(row, w.d + 11 * 128, 128) - (with + out) / sqrt(2)) <= 1e-14, "a mixed row");
    world_free(&w);
}

/* Means and variances of z, by the fourth moment's error; loud features are as loud as was said. */
static void test_codes(void) {
    enum { N = 20000 };
    WorldShape s = USUAL;
    s.loud = 4;
    World w = {.s = s};
    for (int c = 0; c < 2; c++)
        for (int j = 0; j < 16; j += 5) { /* of the task: 0 5; loud: 10; else 15 */
            double scale = j == 10 ? 3 : 1, p = c == ALIGNED && j < 8 ? 0.2 : 0.05;
            double v = scale * scale * (1.25 * p - p * p);
            EXPECT(fabs(world_rate(&s, c, j) - p) <= 1e-15, "rate of %d", j);
            EXPECT(fabs(world_variance(&s, c, j) - v) <= 1e-15 * scale * scale, "variance of %d",
                   j);
        }
    Tally t;
    tally_init(&t, &w);
    tally_extend(&t, &w, N);
    for (int c = 0; c < 2; c++) {
        Stat off = {0};
        for (int j = 0; j < s.n; j++) {
            double e = t.code[c][j] / N - (j >= 8 && j < 12 ? 3 : 1) * world_rate(&s, c, j);
            double se = sqrt(world_variance(&s, c, j) / N);
            EXPECT(fabs(e) <= 5.5 * se, "mean of %d in %d: off by %g errors", j, c, e / se);
            add(&off, e * e / (se * se)); /* chi square of one degree: 1, with a variance of 2 */
        }
        EXPECT(fabs(mean(&off) - 1) <= 5 * sqrt(2.0 / s.n), "variances in %d: %g of what they are",
               c, mean(&off));
    }
    tally_free(&t);
}

/* The noise of both means, of corpora that grew in steps: a chi square of H in each draw. */
static void test_noise_of_means(void) {
    enum { N = 10, DRAWS = 32 };
    double noise = 0;
    for (int i = 0; i < DRAWS; i++) {
        World w = {.s = USUAL};
        Tally t;
        w.s.draw = i;
        tally_init(&t, &w);
        tally_extend(&t, &w, 3);
        tally_extend(&t, &w, N);
        noise += dot(t.noise, t.noise, w.s.H) / (2 * N * w.s.sigma * w.s.sigma * w.s.H * DRAWS);
        tally_free(&t);
    }
    EXPECT(fabs(noise - 1) <= 5 * sqrt(2.0 / (128 * DRAWS)), "noise: %g of what it is", noise);
}

/* --------------------------------------------------------------------------------- the error -- */

static void test_recovery(void) {
    World w = world_of(USUAL, 0);
    int H = 128, r = 8;
    double *all = mem_array((size_t)H * 20, sizeof *all), *U = mem_array((size_t)H * 20, sizeof *U);
    for (int h = 0; h < H; h++)
        for (int j = 0; j < 20; j++)
            all[h * 20 + j] = j < r ? w.V[h * r + j] : rng_normal(3, 4, (uint64_t)(h * 20 + j));
    basis_orthonormalise(&ex, all, H, 20); /* V's span, then what is orthogonal to it */
    static const double angle[] = {0, 1e-12, 1e-7, 0.3, 1.5, M_PI / 2};
    for (int i = 0; i < 6; i++) { /* two of the directions turned by it */
        for (int h = 0; h < H; h++)
            for (int j = 0; j < r; j++)
                U[h * r + j] =
                    j < 2 ? cos(angle[i]) * all[h * 20 + j] + sin(angle[i]) * all[h * 20 + 10 + j]
                          : all[h * 20 + j];
        Recovery found = recovery_of(&w, U, r);
        double c = cos(angle[i]), expected = 2 * sin(angle[i]);
        EXPECT(fabs(found.error - expected) <= 1e-14 + 1e-3 * 1e-12, "angle %g: %g, not %g",
               angle[i], found.error, expected);
        EXPECT(fabs(found.captured - (6 + 2 * c * c) / 8) <= 1e-14, "captured %g", found.captured);
    }
    for (int m = 1; m <= 20; m++) { /* fewer columns, and more */
        for (int h = 0; h < H; h++)
            for (int j = 0; j < m; j++) U[h * m + j] = all[h * 20 + j];
        Recovery found = recovery_of(&w, U, m);
        EXPECT(found.m == m && fabs(found.error - closed_other_k(m, r)) <= 1e-13, "%d columns: %g",
               m, found.error);
        EXPECT(fabs(found.captured - fmin(m, r) / r) <= 1e-14 &&
                   fabs(found.precision - fmin(m, r) / m) <= 1e-14,
               "%d columns: captured %g, precision %g", m, found.captured, found.precision);
    }
    free(all), free(U);
    world_free(&w);
}

/* ---------------------------------------------------------------------------------- SAE: (b) ..
 * (e) -- */

static Stat sae(WorldShape s, double eps, enum RowError error, int repeats) {
    Stat found = {0};
    int32_t feature[64];
    for (int j = 0; j < s.r; j++) feature[j] = j;
    for (int i = 0; i < repeats; i++) {
        World w = world_of(s, i);
        add(&found, estimate_sae(&ex, &w, feature, s.r, eps, error, 1).error);
        world_free(&w);
    }
    return found;
}

/* It goes to 0 with eps, by the formula: to second order in eps, which G^-1 magnifies. */
static void test_sae(void) {
    WorldShape s = USUAL;
    s.n = 24;
    Stat none = sae(s, 0, ERROR_RANDOM, 5);
    EXPECT(mean(&none) <= 1e-13, "eps 0: %g", mean(&none));
    static const double small[] = {1e-8, 1e-4, 1e-2, 0.1};
    for (int i = 0; i < 4; i++) {
        double eps = small[i];
        Stat found = sae(s, eps, ERROR_RANDOM, 60), mixed = sae(s, eps, ERROR_MIXED, 60);
        is_closed("SAE", &found, closed_sae(&s, eps), eps * eps);
        is_closed("SAE of mixed rows", &mixed, closed_sae(&s, eps), eps * eps);
        TEST_DETECTS(
            is_closed("", &found, (1.01 + 2 * eps * eps) * closed_sae(&s, eps), eps * eps));
    }
    static const double eps[] = {0.001, 0.01, 0.1, 0.5, 1, 3};
    static const double there[] = {0.0039, 0.0391, 0.390, 1.76, 2.78, 3.70};
    static const int decimals[] = {4, 4, 3, 2, 2, 2};
    for (int i = 0; i < 6; i++) {
        Stat found = sae(s, eps[i], ERROR_RANDOM, 30);
        is_found("SAE", &found, there[i], decimals[i]);
    }
    static const double degrees[] = {10, 20, 30, 45}, mixed[] = {0.675, 1.33, 1.94, 2.75};
    for (int i = 0; i < 4; i++) {
        Stat found = sae(s, tan(degrees[i] * M_PI / 180), ERROR_MIXED, 30);
        is_found("mixed rows", &found, mixed[i], i ? 2 : 3);
    }
}

static void test_coherence(void) {
    static const double c[] = {0, 0.3, 0.6, 0.9}, there[] = {0.194, 0.220, 0.288, 0.568};
    static const double formula[] = {0.194, 0.220, 0.288, 0.573}; /* eps sqrt(2 (1-r/H) tr G^-1) */
    for (int i = 0; i < 4; i++) {
        WorldShape s = USUAL;
        s.n = 24, s.coherence = c[i];
        Stat found = sae(s, 0.05, ERROR_RANDOM, 60);
        is_found("coherent", &found, there[i], 3);
        double closed = closed_sae(&s, 0.05);
        is_closed("coherent", &found, closed, 0.05 * 0.05 / (1 - c[i]));
        double as_there = closed * sqrt((1 - 8.0 / 128) * 127 / 120) / cos(atan(0.05));
        EXPECT(fabs(as_there - formula[i]) <= 0.0005, "coherence %g: %g", c[i], as_there);
    }
}

static void test_small_forms(void) {
    for (int r = 2; r <= 32; r *= 2) { /* (d): there sqrt(2r) sin phi is the floor */
        double phi = atan(closed_crossover(r));
        EXPECT(fabs(sqrt(2 * r) * sin(phi) - closed_floor(r)) <= 1e-13, "crossover of %d", r);
        EXPECT(fabs(cos(phi) * cos(phi) - (r + 1.0) / (2 * r)) <= 1e-15, "crossover of %d", r);
    }
    EXPECT(fabs(closed_captured(8, 2) - 0.75) <= 1e-15, "captured");
    for (int k = 3; k <= 20; k++) { /* (e), of rows without an error, through basis_build */
        World w = world_of(USUAL, k);
        int32_t feature[20];
        for (int j = 0; j < k; j++) feature[j] = j;
        Recovery found = estimate_sae(&ex, &w, feature, k, 0, ERROR_RANDOM, 1);
        EXPECT(fabs(found.error - sqrt(abs(k - 8))) <= 1e-12, "k %d: %g", k, found.error);
        world_free(&w);
    }
}

/* ---------------------------------------------------------------------------------- (a) mean -- */

static Stat mean_errors(const WorldShape *shape, int documents, int repeats, double *closed) {
    Stat found = {0};
    *closed = 0;
    for (int i = 0; i < repeats; i++) {
        World w = world_of(*shape, i);
        Tally t;
        tally_init(&t, &w);
        tally_extend(&t, &w, documents);
        Recovery one = estimate_mean(&w, &t);
        EXPECT(one.m == 1 && one.error >= closed_floor(shape->r) - 1e-12, "below the floor: %g",
               one.error);
        add(&found, one.error);
        *closed += closed_mean(&w, documents) / repeats;
        tally_free(&t);
        world_free(&w);
    }
    return found;
}

/* The floor is attained, and is the rank's. The closed form divides means: it may be off in what is
 * above the floor, which is small at many documents, by as much again as its denominator's noise,
 * T against the signal. */
static void test_mean(void) {
    static const int documents[] = {100, 400, 1000, 4000, 20000};
    static const double there[] = {2.896, 2.800, 2.733, 2.677, 2.652};
    static const double formula[] = {2.900, 2.801, 2.733, 2.673, 2.652};
    double closed;
    for (int i = 0; i < 5; i++) {
        Stat found = mean_errors(&USUAL, documents[i], i < 4 ? 24 : 4, &closed);
        is_found("mean", &found, there[i], 3);
        /* of random directions: |(I-P) d|^2 of 504 of them is .9375 +- .0013, E +- .0003 */
        EXPECT(fabs(closed - formula[i]) <= 5 * 0.0003 + 0.0005, "formula at %d: %g", documents[i],
               closed);
        if (documents[i] < 4000) continue;
        is_closed("mean", &found, closed,
                  (closed - closed_floor(8)) / closed * 360.0 / documents[i]);
    }
    World w = world_of(USUAL, 0);
    Tally none;
    tally_init(&none, &w);
    Recovery nothing = estimate_mean(&w, &none); /* of means that are equal */
    EXPECT(nothing.m == 0 && nothing.error == sqrt(8) && nothing.captured == 0, "no vector: %g",
           nothing.error);
    tally_free(&none);
    EXPECT(closed_mean(&w, 1000000000) - closed_floor(8) <= 1e-6, "the floor is not attained");
    world_free(&w);
    static const double by_rank[] = {1.054, 1.748, 2.651, 3.875, 5.568};
    for (int i = 0; i < 5; i++) {
        WorldShape s = USUAL;
        s.r = 2 << i;
        Stat found = mean_errors(&s, 20000, 3, &closed);
        is_found("mean, by rank", &found, by_rank[i], 3);
    }
}

/* ----------------------------------------------------------------------------- (c) selection -- */

/* Found right, in so many draws. */
static int all_right(WorldShape s, int documents, int draws) {
    int right = 0;
    int32_t feature[64];
    for (int i = 0; i < draws; i++) {
        World w = {.s = s}; /* directions are not needed */
        Tally t;
        w.s.draw = i;
        tally_init(&t, &w);
        tally_extend(&t, &w, documents);
        estimate_choose(feature, &ex, &w, &t, s.r);
        right += estimate_right(&w, feature, s.r) == s.r;
        tally_free(&t);
    }
    return right;
}

/* Two shares of draws may differ by five errors of both, of the share that they have together; by
 * that of two draws more, of them one right, where it would be 0. */
static int shares_agree(const char *what, double a, int na, double b, int nb) {
    double p = (a + b + 1) / (na + nb + 2), tol = 5 * sqrt(p * (1 - p) * (1.0 / na + 1.0 / nb));
    int ok = fabs(a / na - b / nb) <= tol;
    if (!test_quiet) EXPECT(ok, "%s: %g of %d, %g of %d", what, a, na, b, nb);
    return ok;
}

/* The probability again, by drawing Gaussian means. */
static int gaussian_right(const WorldShape *s, int documents, int draws) {
    int right = 0;
    double other = sqrt(2 * world_variance(s, UNALIGNED, s->r) / documents);
    double task =
        sqrt((world_variance(s, ALIGNED, 0) + world_variance(s, UNALIGNED, 0)) / documents);
    for (int i = 0; i < draws; i++) {
        double least = INFINITY, most = 0;
        for (int j = 0; j < s->n; j++) {
            double x = rng_normal(77, (uint64_t)i, (uint64_t)j);
            double scale = j < s->r + s->loud ? s->loudness : 1;
            if (j < s->r)
                least = fmin(least, fabs(s->delta + task * x));
            else
                most = fmax(most, fabs(other / s->loudness * scale * x));
        }
        right += least > most;
    }
    return right;
}

static void test_selection(void) {
    enum { DRAWS = 100, GAUSSIAN = 1500 };
    static const int documents[] = {120, 180, 230, 300, 400};
    static const double there[] = {0.30 * 30, 0.63 * 30, 0.87 * 30, 0.93 * 30, 30};
    EXPECT(fabs(closed_documents(&USUAL) - 232) <= 0.5, "documents: %g", closed_documents(&USUAL));
    for (int i = 0; i < 5; i++)
        shares_agree("right", all_right(USUAL, documents[i], DRAWS), DRAWS, there[i], 30);
    int few = all_right(USUAL, 60, DRAWS), twice = all_right(USUAL, 464, DRAWS);
    EXPECT(few <= DRAWS / 10 && twice >= DRAWS - 2, "%d and %d of %d draws right", few, twice,
           DRAWS);
    TEST_DETECTS(shares_agree("", few, DRAWS, twice, DRAWS));
    for (int loud = 0; loud <= 16; loud += 16) {
        WorldShape s = USUAL;
        s.loud = loud, s.n = 200;
        if (!loud) s.loudness = 1;
        for (int N = 100; N <= 1600; N *= 2)
            shares_agree("Gaussian", gaussian_right(&s, N, GAUSSIAN), GAUSSIAN,
                         closed_selection(&s, N) * 1e6, 1000000);
    }
}

/* ----------------------------------------------------------------------------- the product's step
 * -- */

static Stat pipeline(WorldShape s, int k, double variance, bool random) {
    Stat found = {0};
    int32_t feature[32];
    for (int i = 0; i < 3; i++) {
        World w = world_of(s, i);
        Tally t;
        tally_init(&t, &w);
        tally_extend(&t, &w, 1500);
        estimate_choose(feature, &ex, &w, &t, k);
        if (random) estimate_random(feature, &ex, &w, k);
        add(&found, estimate_sae(&ex, &w, feature, k, 0.05, ERROR_RANDOM, variance).captured);
        tally_free(&t);
        world_free(&w);
    }
    return found;
}

static void test_pipeline(void) {
    static const int r[] = {2, 4, 8, 12, 16, 20};
    static const double part[] = {0.77, 0.83, 0.85, 0.87, 0.86, 0.80};
    for (int i = 0; i < 6; i++) {
        WorldShape s = USUAL;
        s.H = 256, s.n = 1024, s.r = r[i];
        Stat found = pipeline(s, 20, 0.8, false);
        is_found("k 20, variance 0.8", &found, part[i], 2);
        found = pipeline(s, 16, 1, false);
        is_found("k 16, variance 1", &found, r[i] == 20 ? 0.80 : 0.998, r[i] == 20 ? 2 : 3);
        found = pipeline(s, 16, 1, true);
        is_found("random", &found, 0.06, 2);
    }
    World w = world_of(USUAL, 0);
    int32_t feature[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (double tau = 0.1; tau <= 1.01; tau += 0.1) { /* orthogonal rows: m of k, whichever */
        Recovery found = estimate_sae(&ex, &w, feature, 8, 0, ERROR_RANDOM, fmin(tau, 1));
        EXPECT(fabs(found.captured - closed_kept(8, 8, fmin(tau, 1))) <= 1e-12, "variance %g: %g",
               tau, found.captured);
    }
    world_free(&w);
}

/* Captured, and in *m columns. */
static Stat weighted(WorldShape s, int documents, int k, double variance, double eps, Stat *m) {
    Stat found = {0};
    *m = (Stat){0};
    for (int i = 0; i < 3; i++) {
        int32_t feature[32];
        World w = world_of(s, i);
        Tally t;
        tally_init(&t, &w);
        tally_extend(&t, &w, documents);
        estimate_choose(feature, &ex, &w, &t, k);
        Recovery one = estimate_weighted(&ex, &w, &t, feature, k, eps, variance);
        add(&found, one.captured), add(m, one.m);
        tally_free(&t);
        world_free(&w);
    }
    return found;
}

/* Rows that differ by chance alone are short: where they are too short to be of the 1 % that may be
 * lost, the task's are left, whole, and their number is its rank. */
static void test_weighted(void) {
    static const int r[] = {2, 4, 8, 12, 16};
    Stat m, found;
    for (int i = 0; i < 5; i++) {
        WorldShape s = USUAL;
        s.H = 256, s.n = 1024, s.r = r[i];
        found = weighted(s, 20000, 16, 0.99, 0.05, &m);
        is_found("weighted, k 16, variance 0.99", &found, 0.998, 3);
        if (r[i] >= 8) /* of fewer it depends on the draw how many others the 1 % leave */
            is_found("columns of that", &m, r[i], 0);
    }
    /* All 12 others at five deviations of a difference have this share of what the 8 have. */
    enum { MANY = 60000 };
    double v = world_variance(&USUAL, UNALIGNED, USUAL.r);
    double lost = 12 * 25 * (2 * v / MANY) / (8 * USUAL.delta * USUAL.delta);
    CHECK(lost < 0.01, "%g is not lost", lost);
    found = weighted(USUAL, MANY, 20, 0.99, 0, &m);
    EXPECT(mean(&m) == 8, "%g columns", mean(&m));
    EXPECT(mean(&found) >= 1 - lost, "captured %g, lost at most %g", mean(&found), lost);
}

int main(void) {
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no cpu");
    test_directions(0), test_directions(0.5);
    test_codes();
    test_noise_of_means();
    test_recovery();
    test_sae();
    test_coherence();
    test_small_forms();
    test_mean();
    test_selection();
    test_pipeline();
    test_weighted();
    exec_close(&ex);
    return test_done("theory");
}
