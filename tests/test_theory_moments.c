/* The recovery experiment's second moments: PCA of pairs and the contrast of covariances have no
 * floor, their errors are those of sampling; and loud nuisance comes before a signal. */
#include <math.h>
#include <omp.h>

#include "data/base/mem.h"
#include "host/theory/closed.h"
#include "model/subspace.h"
#include "tests/theory.h"

static double dot(const double *a, const double *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* The variance of x along a direction v: sum v_j (d_j v)^2 + sigma^2, and its error by the fourth
 * cumulant. Of pairs: differences that share all but the task have but that and noise. */
static void test_moments(void) {
    enum { N = 6000, H = 24 };
    WorldShape s = {.H = H,
                    .n = 60,
                    .r = 4,
                    .p0 = 0.1,
                    .delta = 0.3,
                    .sigma = 0.2,
                    .loud = 3,
                    .loudness = 2,
                    .seed = 5};
    World w = world_of(s, 0);
    for (int source = 0; source < 3; source++)
        for (int k = 0; k < 6; k++) {
            Moments m;
            moments_init(&m, &w);
            double shared = source == OF_PAIRS ? k / 5.0 : 0;
            if (k == 0 || source == OF_PAIRS) moments_extend(&m, &w, source, shared, N);
            const double *v = w.d + k * H; /* of the task, and others */
            double C = 0, k4 = 0, along = 0, square = 0;
            for (int j = 0; j < s.n; j++) {
                double c = dot(w.d + j * H, v, H), gap = j < 4 ? 0.3 : 0,
                       keep = j < 4 ? 1 : 1 - shared;
                double a = world_variance(&s, ALIGNED, j), b = world_variance(&s, UNALIGNED, j);
                double z = source == OF_PAIRS ? keep * (a + b) : source == OF_ALIGNED ? a : b;
                C += z * c * c;
                k4 +=
                    (world_cumulant(&s, ALIGNED, j) + world_cumulant(&s, UNALIGNED, j)) * pow(c, 4);
                along += gap * c;
            }
            C += s.sigma * s.sigma * (source == OF_PAIRS ? 2 : 1);
            if (m.documents) {
                for (int i = 0; i < H; i++)
                    for (int j = 0; j < H; j++) square += v[i] * v[j] * m.square[i * H + j] / N;
                double mu = dot(m.sum, v, H) / N, se = sqrt((2 * C * C + k4) / N);
                EXPECT(fabs(square - mu * mu - C) <= 5 * se, "source %d, direction %d: %g, not %g",
                       source, k, square - mu * mu, C);
                if (source == OF_PAIRS)
                    EXPECT(fabs(mu - along) <= 5 * sqrt(C / N), "mean of pairs: %g, not %g", mu,
                           along);
            }
            moments_free(&m);
        }
    world_free(&w);
}

/* Nested corpora share their documents, and threads change no bit. */
static void test_same_bits(void) {
    WorldShape s = {.H = 19, .n = 40, .r = 3, .p0 = 0.1, .delta = 0.3, .sigma = 0.2, .seed = 5};
    World w = world_of(s, 2);
    Moments a, b;
    int threads = omp_get_max_threads();
    moments_init(&a, &w), moments_init(&b, &w);
    omp_set_num_threads(1);
    moments_extend(&a, &w, OF_PAIRS, 0.5, 1300);
    omp_set_num_threads(3);
    moments_extend(&b, &w, OF_PAIRS, 0.5, 7);
    moments_extend(&b, &w, OF_PAIRS, 0.5, 1300);
    omp_set_num_threads(threads);
    EXPECT(memcmp(a.square, b.square, sizeof *a.square * 19 * 19) == 0 &&
               memcmp(a.sum, b.sum, sizeof *a.sum * 19) == 0,
           "moments differ");
    World other = world_of(s, 3);
    EXPECT(memcmp(w.d, other.d, sizeof *w.d * 19 * 40) != 0, "draws do not differ");
    moments_free(&a), moments_free(&b);
    world_free(&w), world_free(&other);
}

/* -------------------------------------------------------------------- (f) pairs, and the contrast
 * -- */

static Stat pair_errors(WorldShape s, double shared, int documents, int repeats, double *closed) {
    Stat found = {0};
    *closed = 0;
    for (int i = 0; i < repeats; i++) {
        World w = world_of(s, i);
        Moments m;
        moments_init(&m, &w);
        moments_extend(&m, &w, OF_PAIRS, shared, documents);
        add(&found, estimate_pairs(&ex, &w, &m).error);
        *closed += closed_matched(&w, documents) / repeats;
        moments_free(&m);
        world_free(&w);
    }
    return found;
}

static const WorldShape SMALL = {
    .H = 24, .n = 40, .r = 3, .p0 = 0.05, .delta = 0.5, .sigma = 0.1, .loudness = 3, .seed = 9};

/* No floor: by the formula, four times the documents halve the error. The second order of an error
 * E is E^2 of it. */
static void test_pairs(void) {
    double closed;
    for (int documents = 500; documents <= 8000; documents *= 4)
        for (int k = 0; k < 2; k++) {
            WorldShape s = SMALL;
            s.coherence = 0.4 * k;
            Stat found = pair_errors(s, 1, documents, 16, &closed);
            is_closed("matched pairs", &found, closed, closed * closed);
            TEST_DETECTS(is_closed("", &found, 1.2 * closed, closed * closed));
        }
    static const double shared[] = {0, 0.5, 0.9, 1};
    static const double there[2][4] = {{3.34, 2.16, 0.42, 0.066}, {3.71, 3.53, 0.97, 0.066}};
    for (int loud = 0; loud < 2; loud++)
        for (int i = 0; i < 4; i++) {
            WorldShape s = USUAL;
            s.loud = 16 * loud;
            Stat found = pair_errors(s, shared[i], 8000, 3, &closed);
            is_found("pairs", &found, there[loud][i], i < 3 ? 2 : 3);
        }
}

/* q nuisance directions, all orthogonal and loud, come before the signal: sqrt(2 min(q,r)). */
static void test_loud_limit(void) {
    for (int q = 1; q <= 13; q += 4) {
        WorldShape s = USUAL;
        s.loud = q, s.loudness = 100, s.n = s.r + q;
        World w = world_of(s, 0);
        double *all = mem_array((size_t)s.H * (size_t)s.n, sizeof *all);
        for (int h = 0; h < s.H; h++)
            for (int j = 0; j < s.n; j++) all[h * s.n + j] = w.d[j * s.H + h];
        basis_orthonormalise(&ex, all, s.H, s.n);
        for (int h = 0; h < s.H; h++)
            for (int j = s.r; j < s.n; j++) w.d[j * s.H + h] = all[h * s.n + j];
        EXPECT(fabs(closed_pairs(&ex, &w, 0).error - sqrt(2 * fmin(q, 8))) <= 1e-9, "q %d: %g", q,
               closed_pairs(&ex, &w, 0).error);
        EXPECT(closed_pairs(&ex, &w, 1).error <= 1e-9, "all shared: %g",
               closed_pairs(&ex, &w, 1).error);
        free(all);
        world_free(&w);
    }
}

static void contrast_errors(Stat *contrast, Stat *pooled, WorldShape s, int documents, int repeats,
                            double *closed) {
    *contrast = *pooled = (Stat){0};
    *closed = 0;
    for (int i = 0; i < repeats; i++) {
        World w = world_of(s, i);
        Moments m[2];
        for (int c = 0; c < 2; c++) {
            moments_init(&m[c], &w);
            moments_extend(&m[c], &w, (enum Source)c, 0, documents);
        }
        add(contrast, estimate_contrast(&ex, &w, &m[0], &m[1]).error);
        add(pooled, estimate_pooled(&ex, &w, &m[0], &m[1]).error);
        *closed += closed_contrast(&w, documents) / repeats;
        moments_free(&m[0]), moments_free(&m[1]);
        world_free(&w);
    }
}

/* One loud feature beside the task's, and not orthogonal to them: the formula's term of fourth
 * cumulants is here six times the others. */
static void test_contrast_terms(void) {
    WorldShape s = {.H = 8,
                    .n = 4,
                    .r = 3,
                    .p0 = 0.05,
                    .delta = 0.5,
                    .sigma = 0.1,
                    .loud = 1,
                    .loudness = 3,
                    .seed = 4};
    Stat squares = {0};
    double expected = 0;
    enum { N = 3000, REPEATS = 200 };
    World w = world_of(s, 0); /* one world, many corpora: their documents are others' numbers */
    for (int i = 0; i < REPEATS; i++) {
        Moments m[2];
        w.s.draw = i;
        for (int c = 0; c < 2; c++) {
            moments_init(&m[c], &w);
            moments_extend(&m[c], &w, (enum Source)c, 0, N);
        }
        double e = estimate_contrast(&ex, &w, &m[0], &m[1]).error;
        add(&squares, e * e);
        moments_free(&m[0]), moments_free(&m[1]);
    }
    expected = pow(closed_contrast(&w, N), 2);
    is_closed("terms of the contrast", &squares, expected, 2 * expected);
    TEST_DETECTS(is_closed("", &squares, 1.5 * expected, 2 * expected));
    world_free(&w);
}

static void test_contrast(void) {
    Stat contrast, pooled;
    double closed;
    for (int documents = 4000; documents <= 16000; documents *= 4)
        for (int k = 0; k < 2; k++) {
            WorldShape s = SMALL;
            s.coherence = 0.4 * k;
            contrast_errors(&contrast, &pooled, s, documents, 12, &closed);
            is_closed("contrast", &contrast, closed, closed * closed);
        }
    TEST_DETECTS(is_closed("", &contrast, 1.2 * closed, closed * closed));
    static const double there[] = {3.34, 2.64, 1.33};
    for (int i = 0; i < 3; i++) {
        WorldShape s = USUAL;
        s.loud = 16;
        contrast_errors(&contrast, &pooled, s, 1000 << 2 * i, 3, &closed);
        is_found("contrast, loud", &contrast, there[i], 2);
        EXPECT(mean(&pooled) >= 3.4 && mean(&pooled) <= 4, "pooled: %g", mean(&pooled));
    }
}

int main(void) {
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no cpu");
    test_moments();
    test_same_bits();
    test_pairs();
    test_loud_limit();
    test_contrast();
    test_contrast_terms();
    exec_close(&ex);
    return test_done("theory moments");
}
