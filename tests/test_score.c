/* Score statistics: ranking, errors and stability against formulas written out here in plain form;
 * the file and merging. The pass that fills them: test_score_run. */
#include "model/score.h"

#include <math.h>

#include "data/base/mem.h"
#include "data/base/safetensors.h"
#include "tests/files.h"

enum { S = 12, LAYER = 5 };

static Exec ex;

/* One layer; features differ in how their two corpora compare. Uneven groups, one of them empty. */
static Scores planted(int even) {
    Scores s;
    int layer = LAYER, width = S;
    scores_init(&s, 1, &layer, &width);
    ScoreLayer *l = &s.layer[0];
    for (int c = 0; c < 2; c++)
        for (int g = 0; g < SCORE_GROUPS; g++) {
            double r = (test_noise(3, (uint64_t)(g * 2 + c)) + 1) / 2;
            s.tokens[c][g] = even ? 40 : g == 7 ? 0 : 20 + (int)(r * 40);
            s.documents[c][g] = s.tokens[c][g] ? 3 + g % 2 : 0;
            for (int i = 0; i < S; i++) {
                double level = i == 4 ? 0 : 1 + (i % 5) * (c ? 0.2 : 0.5);
                double noise = 0.3 * test_noise(9, (uint64_t)((g * S + i) * 2 + c));
                double a = i == 4 ? 0 : level + noise;
                l->sum[(size_t)(c * SCORE_GROUPS + g) * S + i] = a * (double)s.tokens[c][g];
                l->fires[c * S + i] += a > 0 ? s.tokens[c][g] / 2 : 0;
            }
        }
    for (int i = 0; i < 2 * S; i++) l->max[i] = (float)i;
    for (int c = 0; c < 2; c++) /* feature 11 is feature 2: a tie */
        for (int g = 0; g < SCORE_GROUPS; g++) {
            size_t at = (size_t)(c * SCORE_GROUPS + g) * S;
            l->sum[at + 11] = l->sum[at + 2];
        }
    scores_text(&l->sae, "a/b.npz");
    scores_text(&l->sha256, "abc");
    scores_text(&s.counted, "reply");
    return s;
}

typedef struct Ref {
    double mean[2], diff, se;
} Ref;

static Ref reference(const Scores *s, int i) {
    const ScoreLayer *l = &s->layer[0];
    double sum[2] = {0}, W[2] = {0}, n = 0, squares = 0;
    Ref r;
    for (int c = 0; c < 2; c++) {
        for (int g = 0; g < SCORE_GROUPS; g++) {
            sum[c] += l->sum[(size_t)(c * SCORE_GROUPS + g) * S + i];
            W[c] += (double)(s->pool == POOL_TOKEN ? s->tokens[c][g] : s->documents[c][g]);
        }
        r.mean[c] = sum[c] / W[c];
    }
    for (int g = 0; g < SCORE_GROUPS; g++) n += s->tokens[0][g] > 0 || s->tokens[1][g] > 0;
    for (int g = 0; g < SCORE_GROUPS; g++) {
        double u = 0;
        for (int c = 0; c < 2; c++) {
            double w = (double)(s->pool == POOL_TOKEN ? s->tokens[c][g] : s->documents[c][g]);
            double v = n * (l->sum[(size_t)(c * SCORE_GROUPS + g) * S + i] - r.mean[c] * w) / W[c];
            u += c ? -v : v;
        }
        squares += u * u;
    }
    r.diff = r.mean[0] - r.mean[1];
    r.se = sqrt(squares / (n * (n - 1)));
    return r;
}

static int near(double a, double b, double rtol) {
    return fabs(a - b) <= rtol * fabs(b) + 1e-15;
}

/* Sums of 64 terms of one size: a relative error of 1e-12 leaves a wide margin over 64 u. */
static void test_statistics(enum ScorePool pool, int even) {
    Scores s = planted(even);
    s.pool = pool;
    FeatureStat top[S];
    int n = score_top(&ex, top, &s, 0, SCORE_DELTA, S, 1, 0);
    EXPECT(n == S - 1, "%d features fire", n);
    for (int j = 0; j < n; j++) {
        const FeatureStat *f = &top[j];
        Ref r = reference(&s, f->feature);
        EXPECT(f->feature != 4, "a dead feature was chosen");
        for (int c = 0; c < 2; c++) EXPECT(near(f->mean[c], r.mean[c], 1e-12), "mean");
        EXPECT(near(f->diff, r.diff, 1e-10) && near(f->se, r.se, 1e-10), "feature %d: %g %g, %g %g",
               f->feature, f->diff, r.diff, f->se, r.se);
        EXPECT(!near(f->se, r.se * (1 + 1e-6), 1e-10), "the comparison is blind");
        EXPECT(near(f->t, r.diff / r.se, 1e-9), "t");
        EXPECT(near(f->score, fabs(r.diff), 1e-10) && f->stability == 1, "score");
        double quantile = even || pool == POOL_TOKEN ? (even ? 1.9983405 : 1.9989715) : 1.9989715;
        EXPECT(near(f->high - f->diff, quantile * r.se, 1e-6), "interval %.8g",
               (f->high - f->diff) / r.se);
        EXPECT(near(f->high + f->low, 2 * f->diff, 1e-9), "interval is not around diff");
        EXPECT(f->max[1] == S + f->feature, "max");
        if (j) EXPECT(top[j - 1].score >= f->score, "order");
        if (j && top[j - 1].score == f->score)
            EXPECT(top[j - 1].feature < f->feature, "ties go to the lower index");
    }
    scores_free(&s);
}

/* With equal groups the standard error is the paired t test's. */
static void test_paired(void) {
    Scores s = planted(1);
    FeatureStat top[S];
    int n = score_top(&ex, top, &s, 0, SCORE_T, 3, 1, 0);
    EXPECT(n == 3, "%d", n);
    for (int j = 0; j < n; j++) {
        double d[SCORE_GROUPS], mean = 0, ss = 0;
        for (int g = 0; g < SCORE_GROUPS; g++) {
            const double *sum = s.layer[0].sum + (size_t)g * S + top[j].feature;
            d[g] = (sum[0] - sum[(size_t)SCORE_GROUPS * S]) / 40;
            mean += d[g] / SCORE_GROUPS;
        }
        for (int g = 0; g < SCORE_GROUPS; g++) ss += (d[g] - mean) * (d[g] - mean);
        double t = mean / sqrt(ss / (SCORE_GROUPS - 1) / SCORE_GROUPS);
        EXPECT(near(top[j].t, t, 1e-9) && near(top[j].score, fabs(t), 1e-9), "%g %g", top[j].t, t);
        if (j) EXPECT(top[j - 1].score >= top[j].score, "order");
    }
    scores_free(&s);
}

/* The least standard error, from the formula of the header. */
static double se_floor(const Scores *s, double means) {
    double n = 0, tokens = 0;
    for (int g = 0; g < SCORE_GROUPS; g++) {
        n += s->tokens[0][g] > 0 || s->tokens[1][g] > 0;
        tokens += (double)(s->tokens[0][g] + s->tokens[1][g]);
    }
    return 2 * (0x1p-23 + tokens * 0x1p-53) * means * sqrt(n / (n - 1));
}

static void test_kinds(void) {
    Scores s = planted(1);
    ScoreLayer *l = &s.layer[0];
    for (int g = 0; g < SCORE_GROUPS; g++) { /* feature 0: strong, but on the unaligned side */
        l->sum[(size_t)g * S] = 40 * 0.125;
        l->sum[(size_t)(SCORE_GROUPS + g) * S] = 40 * 9;
    }
    FeatureStat top[S];
    score_top(&ex, top, &s, 0, SCORE_DELTA, 1, 1, 0);
    EXPECT(top[0].feature == 0 && near(top[0].score, 8.875, 1e-12), "delta: %d", top[0].feature);
    score_top(&ex, top, &s, 0, SCORE_SIGNED, S, 1, 0);
    EXPECT(top[0].feature != 0 && top[S - 2].feature == 0, "signed: %d last", top[S - 2].feature);
    EXPECT(near(top[S - 2].score, -8.875, 1e-12), "signed score");
    double best = top[0].score;
    score_top(&ex, top, &s, 0, SCORE_RELATIVE, S, 1, 0);
    EXPECT(near(top[0].score, best / 9, 1e-12), "relative to the largest unaligned mean");
    score_top(&ex, top, &s, 0, SCORE_T, 1, 1, 0);
    EXPECT(top[0].feature == 0 && top[0].t < 0, "no spread at all: feature %d", top[0].feature);
    EXPECT(near(top[0].se, se_floor(&s, 0.125 + 9), 1e-12), "se %g", top[0].se);
    scores_free(&s);
}

/* Groups that agree but for the rounding of their sums: t says how far the means lie apart in units
 * of that rounding, not what the noise of the noise happens to be. */
static void test_rounding(enum ScorePool pool) {
    enum { DIFFERS, SAME, SPREAD };
    Scores s = planted(0);
    ScoreLayer *l = &s.layer[0];
    s.pool = pool;
    for (int c = 0; c < 2; c++)
        for (int g = 0; g < SCORE_GROUPS; g++) {
            double *sum = l->sum + (size_t)(c * SCORE_GROUPS + g) * S;
            float w = pool == POOL_TOKEN ? 1 : (float)s.documents[c][g] / (float)s.tokens[c][g];
            memset(sum, 0, S * sizeof *sum);
            for (int t = 0; t < s.tokens[c][g]; t++) {
                sum[DIFFERS] += (double)w * (c ? 0.3f : 0.1f);
                sum[SAME] += (double)w * 0.7f;
                sum[SPREAD] += (double)w * (c ? 0.3f : 0.1f + 0.01f * (float)(g % 2));
            }
        }
    FeatureStat top[S];
    score_top(&ex, top, &s, 0, SCORE_T, S, 1, 0);
    for (int j = 0; j < S - 1; j++) {
        double floor = se_floor(&s, top[j].mean[0] + top[j].mean[1]);
        if (top[j].feature == DIFFERS)
            EXPECT(near(top[j].se, floor, 1e-12) && top[j].t < -4e5, "%g %g", top[j].se, top[j].t);
        if (top[j].feature == SAME) EXPECT(fabs(top[j].t) <= 1, "equal means: t %g", top[j].t);
        if (top[j].feature == SPREAD) EXPECT(top[j].se > 100 * floor, "spread %g", top[j].se);
    }
    scores_free(&s);
}

/* A feature that is far ahead in every group is always among the top; a resample is a function of
 * the seed; among close features stability lies between 0 and 1 and adds up to k. */
static void test_stability(void) {
    Scores s = planted(0);
    for (int g = 0; g < SCORE_GROUPS; g++) s.layer[0].sum[(size_t)g * S + 9] *= 5;
    FeatureStat a[S], b[S], c[S];
    score_top(&ex, a, &s, 0, SCORE_DELTA, 2, 7, 200);
    score_top(&ex, b, &s, 0, SCORE_DELTA, 2, 7, 200);
    score_top(&ex, c, &s, 0, SCORE_DELTA, S, 8, 200);
    EXPECT(memcmp(a, b, 2 * sizeof *a) == 0, "the seed decides");
    EXPECT(a[0].feature == 9 && a[0].stability == 1, "feature %d %g", a[0].feature, a[0].stability);
    EXPECT(a[1].stability > 0.05 && a[1].stability < 1, "a close call: %g", a[1].stability);
    for (int j = 0; j < S - 1; j++) EXPECT(c[j].stability == 1, "all are among the top of all");
    scores_free(&s);
}

/* RANDOM: only features that fired, another order for each seed and layer whatever the sums are,
 * and none of them preferred: of 4000 draws of 2 of S - 1 each has its share, to 5 standard errors.
 */
static void test_drawn(void) {
    enum { DRAWS = 4000, K = 2 };
    Scores s = planted(0), other = planted(0);
    FeatureStat top[S], again[S];
    int hits[S] = {0};
    for (int g = 0; g < SCORE_GROUPS; g++) other.layer[0].sum[(size_t)g * S + 9] *= 5;
    for (int seed = 0; seed < DRAWS; seed++) {
        EXPECT(score_top(&ex, top, &s, 0, SCORE_RANDOM, K, (uint64_t)seed, 0) == K, "too few");
        for (int j = 0; j < K; j++) hits[top[j].feature]++;
        if (seed % 400) continue;
        score_top(&ex, again, &other, 0, SCORE_RANDOM, K, (uint64_t)seed, 0);
        EXPECT(top[0].feature == again[0].feature && top[1].feature == again[1].feature,
               "the sums decide");
    }
    double p = (double)K / (S - 1), se = sqrt(DRAWS * p * (1 - p));
    int silent = 0;
    for (int i = 0; i < S; i++) {
        silent += hits[i] == 0;
        EXPECT(hits[i] == 0 || fabs(hits[i] - DRAWS * p) <= 5 * se, "%d: %d draws", i, hits[i]);
    }
    EXPECT(silent == 1, "%d features were never drawn; one never fires", silent);
    int same = 0;
    other.layer[0].layer++;
    for (int seed = 0; seed < 100; seed++) {
        score_top(&ex, top, &s, 0, SCORE_RANDOM, 1, (uint64_t)seed, 0);
        score_top(&ex, again, &other, 0, SCORE_RANDOM, 1, (uint64_t)seed, 0);
        same += top[0].feature == again[0].feature;
    }
    EXPECT(same < 50, "two layers draw the same, %d of 100 times", same);
    scores_free(&s), scores_free(&other);
}

static void test_few(void) {
    Scores s;
    int layer = 0, width = 2;
    FeatureStat top[4];
    scores_init(&s, 1, &layer, &width);
    EXPECT(score_top(&ex, top, &s, 0, SCORE_DELTA, 4, 1, 10) == 0, "nothing fired");
    s.tokens[0][3] = s.tokens[1][3] = 2;
    s.layer[0].sum[3 * 2 + 1] = 4;
    s.layer[0].fires[1] = 2;
    EXPECT(score_top(&ex, top, &s, 0, SCORE_T, 4, 1, 10) == 1, "one fired");
    EXPECT(top[0].feature == 1 && top[0].diff == 2 && isinf(top[0].se) && top[0].t == 0,
           "one group");
    EXPECT(isinf(top[0].low) && isinf(top[0].high) && top[0].rate[0] == 1, "no interval");
    s.layer[0].fires[0] = 1; /* of the other feature, sums that add up to infinity in both */
    for (int i = 0; i < 2 * SCORE_GROUPS; i++) s.layer[0].sum[2 * i] = 1.7e308;
    EXPECT(score_top(&ex, top, &s, 0, SCORE_SIGNED, 1, 1, 10) == 1 && top[0].feature == 1,
           "inf - inf is no score");
    scores_free(&s);
}

static void test_group(void) {
    int32_t a[] = {2, 5, 6, 7}, seen[SCORE_GROUPS] = {0};
    EXPECT(score_group(a, 2, a + 2, 2) != score_group(a, 3, a + 3, 1), "the cut counts");
    for (int i = 0; i < 6400; i++) {
        a[1] = i;
        int g = score_group(a, 4, a, 4);
        EXPECT(g >= 0 && g < SCORE_GROUPS && g == score_group(a, 4, a, 4), "group %d", g);
        seen[g]++;
    }
    for (int g = 0; g < SCORE_GROUPS; g++) /* 100 expected; 5 standard deviations are 50 */
        EXPECT(seen[g] > 50 && seen[g] < 150, "group %d has %d of 6400", g, seen[g]);
}

static int same(const Scores *a, const Scores *b) {
    int ok = a->n == b->n && a->pool == b->pool && !strcmp(a->counted, b->counted);
    ok = ok && a->products == b->products;
    ok = ok && !memcmp(a->tokens, b->tokens, sizeof a->tokens);
    ok = ok && !memcmp(a->documents, b->documents, sizeof a->documents);
    for (int i = 0; ok && i < a->n; i++) {
        const ScoreLayer *x = &a->layer[i], *y = &b->layer[i];
        size_t w = (size_t)x->S;
        ok = x->layer == y->layer && x->S == y->S && !strcmp(x->sae, y->sae) &&
             !strcmp(x->sha256, y->sha256) && !strcmp(x->id, y->id) &&
             !memcmp(x->sum, y->sum, 2 * SCORE_GROUPS * w * 8) &&
             !memcmp(x->sumsq, y->sumsq, 2 * w * 8) && !memcmp(x->fires, y->fires, 2 * w * 8) &&
             !memcmp(x->max, y->max, 2 * w * 4);
    }
    return ok;
}

static void test_saved(void) {
    Scores s = planted(0), back, broken;
    Err err;
    const char *path = test_path("scores");
    s.pool = POOL_DOCUMENT, s.products = SAE_FAST;
    CHECK(scores_save(&s, path, &err), "%s", err.text);
    EXPECT(scores_load(&back, path, &err), "%s", err.text);
    EXPECT(same(&s, &back), "changed on the way through a file");
    back.layer[0].max[0]++;
    EXPECT(!same(&s, &back), "the comparison is blind");

    EXPECT_REFUSED(scores_load(&broken, test_path("none"), &err), err, EXIT_INPUT, "cannot open");
    static const double bad[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        back.layer[0].sum[5] = bad[i];
        CHECK(scores_save(&back, path, &err), "%s", err.text);
        EXPECT_REFUSED(scores_load(&broken, path, &err), err, EXIT_INPUT,
                       "layer 5: expected finite");
    }
    back.layer[0].sum[5] = 0;
    back.layer[0].fires[1] = -1;
    CHECK(scores_save(&back, path, &err), "%s", err.text);
    EXPECT_REFUSED(scores_load(&broken, path, &err), err, EXIT_INPUT, "counts >= 0");
    back.layer[0].fires[1] = 1;
    back.documents[1][63] = -1;
    CHECK(scores_save(&back, path, &err), "%s", err.text);
    EXPECT_REFUSED(scores_load(&broken, path, &err), err, EXIT_INPUT, "counts >= 0 in tokens");
    scores_free(&s), scores_free(&back);
}

static void test_hostile(void) {
    static const char *const META[][4] = {
        /* format, pool, layers, products if any -> a file without any tensor */
        {"other", "token", "5"},
        {"sails scores 1", "token", ""},
        {"sails scores 1", "token", "x"},
        {"sails scores 1", "token", "5,5"},
        {"sails scores 1", "token", "5,"},
        {"sails scores 1", "token", "-1"},
        {"sails scores 1", "token", "5"},
        {"sails scores 1", "none", "5"},
        {"sails scores 1", "token", "5", "slow"},
    };
    static const char *const MESSAGE[] = {
        "written by sails score",
        "\"layers\"",
        "\"layers\"",
        "\"layers\"",
        "\"layers\"",
        "\"layers\"",
        "layer.5.max",
        "token or document",
        "exact or fast",
    };
    Scores s;
    Err err;
    StWriter *w;
    for (int i = 0; i < 9; i++) {
        size_t one = 1;
        CHECK(st_writer_open(&w, test_path("hostile"), &err), "%s", err.text);
        st_writer_meta(w, "format", META[i][0]);
        st_writer_meta(w, "pool", META[i][1]);
        st_writer_meta(w, "layers", META[i][2]);
        if (META[i][3]) st_writer_meta(w, "products", META[i][3]);
        st_writer_tensor(w, "x", ST_U8, 1, &one);
        st_writer_tensor(w, "y", ST_U8, 1, &one);
        st_writer_tensor(w, "z", ST_U8, 1, &one);
        CHECK(st_writer_data(w, "xyz", 3, &err) && st_writer_finish(w, &err), "%s", err.text);
        EXPECT_REFUSED(scores_load(&s, test_path("hostile"), &err), err, EXIT_INPUT, MESSAGE[i]);
        EXPECT(s.n == 0 && !s.layer, "something was left behind");
    }
}

static void test_merge(void) {
    Scores a = planted(0), b = planted(1), sum = planted(0);
    Err err;
    a.layer[0].max[3] = 99;
    EXPECT(scores_merge(&sum, &b, &err) && scores_merge(&sum, &a, &err), "%s", err.text);
    for (size_t j = 0; j < 2 * SCORE_GROUPS * S; j++)
        EXPECT(near(sum.layer[0].sum[j], 2 * a.layer[0].sum[j] + b.layer[0].sum[j], 1e-15), "sum");
    for (int i = 0; i < 2 * S; i++)
        EXPECT(sum.layer[0].fires[i] == 2 * a.layer[0].fires[i] + b.layer[0].fires[i], "fires");
    EXPECT(sum.layer[0].max[3] == 99 && sum.layer[0].max[4] == 4, "max");
    EXPECT(sum.tokens[1][9] == 2 * a.tokens[1][9] + 40, "tokens");
    scores_text(&b.layer[0].sha256, "other");
    EXPECT_REFUSED(scores_merge(&a, &b, &err), err, EXIT_INPUT, "other SAEs");
    scores_text(&b.counted, "all");
    EXPECT_REFUSED(scores_merge(&a, &b, &err), err, EXIT_INPUT, "other counted tokens");
    scores_text(&b.layer[0].sha256, "abc");
    EXPECT_REFUSED(scores_merge(&a, &b, &err), err, EXIT_INPUT, "other counted tokens");
    b.products = SAE_FAST;
    EXPECT_REFUSED(scores_merge(&a, &b, &err), err, EXIT_INPUT, "other products");
    b.pool = POOL_DOCUMENT;
    EXPECT_REFUSED(scores_merge(&a, &b, &err), err, EXIT_INPUT, "other pooling");
    scores_free(&a), scores_free(&b), scores_free(&sum);
}

int main(void) {
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no device");
    test_statistics(POOL_TOKEN, 1);
    test_statistics(POOL_TOKEN, 0);
    test_statistics(POOL_DOCUMENT, 0);
    test_paired();
    test_kinds();
    test_rounding(POOL_TOKEN);
    test_rounding(POOL_DOCUMENT);
    test_stability();
    test_few();
    test_drawn();
    test_group();
    test_saved();
    test_hostile();
    test_merge();
    exec_close(&ex);
    return test_done("test_score");
}
