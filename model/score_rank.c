/* score_rank.c - ranking, standard errors and stability from the grouped sums. */
#include <math.h>

#include "data/base/mem.h"
#include "data/base/rng.h"
#include "data/base/statistics.h"
#include "model/score.h"

/* One view of a layer: its groups, each taken times[g] times. */
typedef struct View {
    const Scores *s;
    const ScoreLayer *l;
    int times[SCORE_GROUPS];
    double W[2][SCORE_GROUPS], total[2];
    int n;           /* groups drawn that hold anything */
    double rounding; /* relative, of a sum: e of the header */
} View;

/* Vectors over the features. */
typedef struct Columns {
    double *mean[2], *var; /* var: squared standard error of mean0 - mean1 */
} Columns;

static void view_init(View *v, const Scores *s, int i) {
    *v = (View){.s = s, .l = &s->layer[i]};
    double tokens = 0;
    for (int g = 0; g < SCORE_GROUPS; g++) {
        v->times[g] = 1;
        tokens += (double)s->tokens[0][g] + (double)s->tokens[1][g];
    }
    v->rounding = 0x1p-23 + tokens * 0x1p-53;
}

static void view_weigh(View *v) {
    v->n = 0;
    v->total[0] = v->total[1] = 0;
    for (int g = 0; g < SCORE_GROUPS; g++) {
        for (int c = 0; c < 2; c++) {
            const Scores *s = v->s;
            v->W[c][g] = (double)(s->pool == POOL_TOKEN ? s->tokens[c][g] : s->documents[c][g]);
            v->total[c] += v->times[g] * v->W[c][g];
        }
        if (v->W[0][g] > 0 || v->W[1][g] > 0) v->n += v->times[g];
    }
}

static const double *group_sum(const View *v, int c, int g) {
    return v->l->sum + ((size_t)c * SCORE_GROUPS + (size_t)g) * (size_t)v->l->S;
}

/* A corpus of which the view holds nothing has mean 0. */
static void means(const Columns *k, const View *v) {
    int S = v->l->S;
    for (int c = 0; c < 2; c++) {
        double *mean = k->mean[c], scale = v->total[c] > 0 ? 1 / v->total[c] : 0;
        memset(mean, 0, (size_t)S * sizeof *mean);
        for (int g = 0; g < SCORE_GROUPS; g++) {
            const double *sum = group_sum(v, c, g);
            double times = v->times[g];
            if (v->times[g] == 0) continue;
#pragma omp simd
            for (int i = 0; i < S; i++) mean[i] += times * sum[i];
        }
#pragma omp simd
        for (int i = 0; i < S; i++) mean[i] *= scale;
    }
}

static void variances(const Columns *k, const View *v) {
    int S = v->l->S;
    double n = v->n, *var = k->var;
    const double *m0 = k->mean[0], *m1 = k->mean[1];
    double scale0 = v->total[0] > 0 ? n / v->total[0] : 0;
    double scale1 = v->total[1] > 0 ? n / v->total[1] : 0;
    memset(var, 0, (size_t)S * sizeof *var);
    for (int g = 0; g < SCORE_GROUPS; g++) {
        const double *s0 = group_sum(v, 0, g), *s1 = group_sum(v, 1, g);
        double W0 = v->W[0][g], W1 = v->W[1][g], times = v->times[g];
        if (v->times[g] == 0) continue;
#pragma omp simd
        for (int i = 0; i < S; i++) {
            double u = scale0 * (s0[i] - m0[i] * W0) - scale1 * (s1[i] - m1[i] * W1);
            var[i] += times * u * u;
        }
    }
    double scale = 1 / (n * (n - 1)), rounding = 4 * v->rounding * v->rounding * n / (n - 1);
#pragma omp simd
    for (int i = 0; i < S; i++) {
        double means = m0[i] + m1[i], least = rounding * means * means;
        double found = var[i] * scale;
        var[i] = v->n > 1 ? (found > least ? found : least) : INFINITY;
    }
}

/* se is 0 only where nothing fired. */
static double t_of(double diff, double se) {
    return se > 0 ? diff / se : 0;
}

/* value[i]: what features are ranked by; -infinity for those that never fired or have no number. */
static void values(double *value, const Columns *k, const View *v, enum ScoreKind kind,
                   uint64_t seed) {
    int S = v->l->S;
    uint64_t drawn = 1ull << 32 | (uint64_t)v->l->layer; /* resamples have the stream `layer` */
    const int64_t *fires = v->l->fires;
    means(k, v);
    if (kind == SCORE_T) variances(k, v);
    double largest = 0;
    for (int i = 0; i < S; i++) largest = fmax(largest, k->mean[1][i]);
    for (int i = 0; i < S; i++) {
        double diff = k->mean[0][i] - k->mean[1][i];
        if (fires[i] == 0 && fires[S + i] == 0)
            value[i] = -INFINITY;
        else if (kind == SCORE_DELTA)
            value[i] = fabs(diff);
        else if (kind == SCORE_T)
            value[i] = fabs(t_of(diff, sqrt(k->var[i])));
        else if (kind == SCORE_RANDOM)
            value[i] = rng_uniform(seed, drawn, (uint64_t)i);
        else
            value[i] = kind == SCORE_SIGNED ? diff : largest > 0 ? diff / largest : diff;
        if (isnan(value[i])) value[i] = -INFINITY; /* sums so large that they overflow */
    }
}

/* Where values are ranked: S of them and k indices in device memory. */
typedef struct Choice {
    Exec *ex;
    double *value;
    int32_t *index;
    int k;
} Choice;

static Choice choice_open(Exec *ex, int S, int k) {
    k = k < S ? k : S;
    return (Choice){ex, exec_alloc(ex, (size_t)S * sizeof(double), "scores of features"),
                    exec_alloc(ex, (size_t)k * sizeof(int32_t), "best features"), k};
}

static void choice_close(Choice *c) {
    exec_free(c->ex, c->value);
    exec_free(c->ex, c->index);
}

/* The best first; returns how many have a score. */
static int top_of(const Choice *c, int32_t *top, const double *value, int S) {
    int n = 0;
    exec_copy_in(c->ex, c->value, value, (size_t)S * sizeof *value);
    c->ex->op->top_k(c->ex, c->index, c->value, S, c->k);
    exec_copy_out(c->ex, top, c->index, (size_t)c->k * sizeof *top);
    while (n < c->k && value[top[n]] > -INFINITY) n++;
    return n;
}

/* Draws as many groups as the layer has, with replacement, from those that hold anything. */
static void resample(View *v, uint64_t seed, int draw) {
    int held[SCORE_GROUPS], n = 0;
    for (int g = 0; g < SCORE_GROUPS; g++)
        if (v->W[0][g] > 0 || v->W[1][g] > 0) held[n++] = g;
    memset(v->times, 0, sizeof v->times);
    for (int j = 0; j < n; j++) {
        uint64_t index = (uint64_t)draw * SCORE_GROUPS + (uint64_t)j;
        v->times[held[rng_below(seed, (uint64_t)v->l->layer, index, (uint64_t)n)]]++;
    }
    view_weigh(v);
}

static void stabilities(FeatureStat *top, int n, View v, const Columns *k, double *value,
                        enum ScoreKind kind, const Choice *c, uint64_t seed, int resamples) {
    int32_t *drawn = mem_array((size_t)c->k, sizeof *drawn);
    int *hits = mem_array((size_t)v.l->S, sizeof *hits);
    for (int r = 0; r < resamples; r++) {
        resample(&v, seed, r);
        values(value, k, &v, kind, seed);
        int m = top_of(c, drawn, value, v.l->S);
        for (int j = 0; j < m; j++) hits[drawn[j]]++;
    }
    for (int j = 0; j < n; j++)
        top[j].stability = resamples ? (double)hits[top[j].feature] / resamples : 1;
    free(drawn), free(hits);
}

static void describe(FeatureStat *f, const View *v, const Columns *k, double quantile) {
    int i = f->feature, S = v->l->S;
    for (int c = 0; c < 2; c++) {
        double tokens = 0;
        for (int g = 0; g < SCORE_GROUPS; g++) tokens += (double)v->s->tokens[c][g];
        f->mean[c] = k->mean[c][i];
        f->max[c] = v->l->max[(size_t)c * S + i];
        f->rate[c] = tokens > 0 ? (double)v->l->fires[(size_t)c * S + i] / tokens : 0;
    }
    f->diff = f->mean[0] - f->mean[1];
    f->se = sqrt(k->var[i]);
    f->t = t_of(f->diff, f->se);
    f->low = f->diff - quantile * f->se;
    f->high = f->diff + quantile * f->se;
}

int score_top(Exec *ex, FeatureStat *top, const Scores *s, int i, enum ScoreKind kind, int k,
              uint64_t seed, int resamples) {
    CHECK(i >= 0 && i < s->n && k > 0 && resamples >= 0, "layer %d of %d, k=%d", i, s->n, k);
    View v;
    view_init(&v, s, i);
    view_weigh(&v);
    size_t S = (size_t)v.l->S;
    double *value = mem_array(S, sizeof *value);
    Columns columns = {.mean = {mem_array(S, 8), mem_array(S, 8)}, .var = mem_array(S, 8)};
    int32_t *best = mem_array((size_t)k, sizeof *best);
    values(value, &columns, &v, kind, seed);
    variances(&columns, &v);
    Choice choice = choice_open(ex, v.l->S, k);
    int n = top_of(&choice, best, value, v.l->S);
    double quantile = v.n > 1 ? statistics_student_bound(v.n - 1) : INFINITY;
    for (int j = 0; j < n; j++) {
        top[j] = (FeatureStat){.feature = best[j], .score = value[best[j]]};
        describe(&top[j], &v, &columns, quantile);
    }
    stabilities(top, n, v, &columns, value, kind, &choice, seed, resamples);
    choice_close(&choice);
    free(value), free(columns.mean[0]), free(columns.mean[1]), free(columns.var), free(best);
    return n;
}
