/* firing_facts.c - sums over the tokens on which a feature fires, and places among them. */
#include "host/stage/firing_facts.h"

#include <math.h>
#include <string.h>

#include "data/base/mem.h"

static float act_at(const Firings *all, int column, const LookedDoc *d, int t) {
    return all->act[(d->at + (size_t)t) * (size_t)all->K + (size_t)column];
}

/* ---------------------------------------------------------------------------------- sums -- */

/* Means, rates and largest of each corpus; density. */
static void sum_corpora(FiringFacts *f, const Firings *all, int column) {
    double sum[LOOKED_COUNT] = {0}, max[LOOKED_COUNT] = {0};
    int64_t fires[LOOKED_COUNT] = {0}, tokens = 0;
    for (size_t i = 0; i < all->docs->n; i++) {
        const LookedDoc *d = &all->docs->doc[i];
        for (int t = 0; t < d->n; t++) {
            if (!d->counted[t]) continue;
            double a = act_at(all, column, d, t);
            sum[d->corpus] += a, fires[d->corpus] += a > 0;
            max[d->corpus] = fmax(max[d->corpus], a);
        }
    }
    for (int c = 0; c < LOOKED_COUNT; c++) {
        double n = (double)all->docs->tokens[c];
        f->mean[c] = n > 0 ? sum[c] / n : NAN;
        f->rate[c] = n > 0 ? (double)fires[c] / n : NAN;
        f->max[c] = n > 0 ? max[c] : NAN;
        if (looked_scored((enum LookedCorpus)c))
            f->fires += fires[c], tokens += (int64_t)all->docs->tokens[c];
    }
    f->density = tokens ? (double)f->fires / (double)tokens : NAN;
}

/* Every token of the scored corpora that counts, by id. */
typedef struct Tally {
    int32_t token;
    float a;
} Tally;

static int by_token(const void *x, const void *y) {
    const Tally *a = x, *b = y;
    if (a->token != b->token) return a->token < b->token ? -1 : 1;
    return (a->a > b->a) - (a->a < b->a);
}

static Tally *tally(size_t *n, const Firings *all, int column) {
    const Looked *l = all->docs;
    Tally *to = mem_array(l->rows, sizeof *to);
    *n = 0;
    for (size_t i = 0; i < l->n; i++) {
        const LookedDoc *d = &l->doc[i];
        for (int t = 0; t < d->n && looked_scored(d->corpus); t++)
            if (d->counted[t]) to[(*n)++] = (Tally){d->token[t], act_at(all, column, d, t)};
    }
    qsort(to, *n, sizeof *to, by_token);
    return to;
}

static void histogram(FiringFacts *f, const Tally *x, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, x[i].a);
    for (int b = 0; b <= FIRING_BINS; b++) f->edge[b] = most * b / FIRING_BINS;
    for (size_t i = 0; i < n; i++) {
        if (!(x[i].a > 0)) continue;
        int b = (int)(x[i].a / most * FIRING_BINS);
        f->count[b < FIRING_BINS ? b : FIRING_BINS - 1]++;
    }
}

/* Which token it is about. */
static void find_token(FiringFacts *f, const Tally *x, size_t n) {
    double all = 0, best = -INFINITY;
    f->token = -1;
    for (size_t i = 0; i < n; i++) all += x[i].a;
    for (size_t i = 0, end; i < n; i = end) {
        int64_t fires = 0, of = 0;
        double sum = 0;
        for (end = i; end < n && x[end].token == x[i].token; end++, of++)
            fires += x[end].a > 0, sum += x[end].a;
        if (all > 0) f->token_share = fmax(f->token_share, sum / all);
        if (fires < 2 || 50 * fires < f->fires) continue;
        double pmi = log2((double)fires / (double)of / f->density);
        if (pmi > best || (pmi == best && fires > f->token_fires)) {
            best = f->pmi = pmi;
            f->token = x[i].token, f->token_fires = fires, f->token_of = of;
        }
    }
}

/* Each document's largest activation; category NULL: of all. */
static double *maxima(size_t *n, const Firings *all, int column, enum LookedCorpus corpus,
                      const char *category) {
    const Looked *l = all->docs;
    double *to = mem_array(l->docs[corpus], sizeof *to);
    *n = 0;
    for (size_t i = 0; i < l->n; i++) {
        const LookedDoc *d = &l->doc[i];
        if (d->corpus != corpus || (category && strcmp(d->category, category) != 0)) continue;
        double most = 0;
        for (int t = 0; t < d->n; t++)
            if (d->counted[t]) most = fmax(most, act_at(all, column, d, t));
        to[(*n)++] = most;
    }
    return to;
}

Interval firing_auc(size_t *harmful, const Firings *all, int column, const char *category) {
    size_t benign;
    double *a = maxima(harmful, all, column, LOOKED_HARMFUL, category);
    double *b = maxima(&benign, all, column, LOOKED_BENIGN, NULL);
    Interval auc = statistics_auc(a, *harmful, b, benign);
    free(a), free(b);
    return auc;
}

void firing_facts(FiringFacts *f, const Firings *all, int column) {
    size_t n;
    *f = (FiringFacts){0};
    sum_corpora(f, all, column);
    Tally *x = tally(&n, all, column);
    histogram(f, x, n);
    find_token(f, x, n);
    free(x);
}

/* -------------------------------------------------------------------------------- places -- */

static int by_activation(const void *x, const void *y) {
    const FiringPlace *a = x, *b = y;
    if (a->a != b->a) return a->a > b->a ? -1 : 1;
    if (a->doc != b->doc) return a->doc < b->doc ? -1 : 1;
    return (a->t > b->t) - (a->t < b->t);
}

/* All places on which it fires, in order. */
static FiringPlace *places(size_t *n, const Firings *all, int column, bool benign) {
    const Looked *l = all->docs;
    FiringPlace *to = mem_array(l->rows, sizeof *to);
    *n = 0;
    for (size_t i = 0; i < l->n; i++) {
        const LookedDoc *d = &l->doc[i];
        bool taken = benign ? d->corpus == LOOKED_BENIGN : looked_scored(d->corpus);
        for (int t = 0; t < d->n && taken; t++) {
            float a = act_at(all, column, d, t);
            if (d->counted[t] && a > 0) to[(*n)++] = (FiringPlace){d, t, a};
        }
    }
    qsort(to, *n, sizeof *to, by_activation);
    return to;
}

static bool same_window(const FiringPlace *a, const FiringPlace *b, int window) {
    for (int k = -window; k <= window; k++) {
        int s = a->t + k, t = b->t + k;
        bool in = s >= 0 && s < a->doc->n, too = t >= 0 && t < b->doc->n;
        if (in != too || (in && a->doc->token[s] != b->doc->token[t])) return false;
    }
    return true;
}

static bool is_new(const FiringPlace *p, const FiringPlace *have, int n, int window, bool apart) {
    for (int i = 0; i < n; i++) {
        bool near = p->doc == have[i].doc && abs(p->t - have[i].t) <= window;
        if ((apart && near) || same_window(p, &have[i], window)) return false;
    }
    return true;
}

int firing_top(FiringPlace *to, const Firings *all, int column, bool benign, int most, int window) {
    size_t n;
    int have = 0;
    FiringPlace *x = places(&n, all, column, benign);
    for (size_t i = 0; i < n && have < most; i++)
        if (is_new(&x[i], to, have, window, true)) to[have++] = x[i];
    free(x);
    return have;
}

int firing_quantiles(FiringPlace *to, int *stratum, const Firings *all, int column, int each,
                     int window) {
    size_t n;
    int have = 0;
    FiringPlace *x = places(&n, all, column, false);
    for (int s = 0; s < FIRING_STRATA; s++)
        for (int k = 0; k < each; k++) { /* the lowest are last */
            double share = (s + (k + 0.5) / each) / FIRING_STRATA;
            size_t at = (size_t)((1 - share) * (double)n);
            if (at >= n || !is_new(&x[at], to, have, window, false)) continue;
            stratum[have] = s;
            to[have++] = x[at];
        }
    free(x);
    return have;
}
