/* pair_loss.c - losses of preference pairs, and the weights that they give to labels. */
#include "model/pair_loss.h"

#include <math.h>

#include "kernels/check.h"

static double sigmoid(double x) {
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

/* log(1 + exp x), which is -log s(-x). */
static double softplus(double x) {
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

/* A loss as a function of one number: of z or d. */
typedef struct Curve {
    double loss, slope;
} Curve;

static Curve curve_sigmoid(double z) {
    return (Curve){softplus(-z), -sigmoid(-z)};
}

static Curve curve_robust(double z, double e) {
    double norm = 1 - 2 * e;
    return (Curve){((1 - e) * softplus(-z) - e * softplus(z)) / norm,
                   (-(1 - e) * sigmoid(-z) - e * sigmoid(z)) / norm};
}

static Curve curve_exo(double z, double e) {
    double won = sigmoid(z), lost = sigmoid(-z);
    double loss = won * (-softplus(-z) - log1p(-e)) + lost * (-softplus(z) - log(e));
    return (Curve){loss, won * lost * (z - log1p(-e) + log(e))};
}

static Curve curve_ipo(double d, double beta) {
    double miss = d - 1 / (2 * beta);
    return (Curve){miss * miss, 2 * miss};
}

/* Is it the mean over labels that counts, or the sum? */
static bool by_label(const PairLoss *l) {
    return l->kind == PAIR_IPO || l->kind == PAIR_NORM;
}

static double gain(const Pair *p, enum PairSide side) {
    return p->logp[side] - p->reference[side];
}

PairValue pair_loss(const PairLoss *l, const Pair *p) {
    double share[PAIR_SIDES] = {1, 1};
    for (int s = 0; s < PAIR_SIDES && by_label(l); s++) {
        CHECK(p->labels[s] > 0, "a reply of %d labels", p->labels[s]);
        share[s] = 1.0 / p->labels[s];
    }
    double d = share[CHOSEN] * gain(p, CHOSEN) - share[REJECTED] * gain(p, REJECTED);
    Curve c = {0};
    switch (l->kind) {
        case PAIR_SIGMOID:
        case PAIR_NORM:
            c = curve_sigmoid(l->beta * d);
            break;
        case PAIR_ROBUST:
            c = curve_robust(l->beta * d, l->smoothing);
            break;
        case PAIR_EXO:
            c = curve_exo(l->beta * d, l->smoothing);
            break;
        case PAIR_IPO:
            c = curve_ipo(d, l->beta);
            break;
    }
    double slope = l->kind == PAIR_IPO ? c.slope : l->beta * c.slope;
    return (PairValue){c.loss, {slope * share[CHOSEN], -slope * share[REJECTED]}};
}

/* --------------------------------------------------------------------------------- facts -- */

void pair_facts_add(PairFacts *sum, const PairLoss *l, const Pair *p) {
    double reward[PAIR_SIDES] = {l->beta * gain(p, CHOSEN), l->beta * gain(p, REJECTED)};
    for (int s = 0; s < PAIR_SIDES; s++) sum->reward[s] += reward[s], sum->logp[s] += p->logp[s];
    sum->accuracy += reward[CHOSEN] > reward[REJECTED];
    sum->margin += reward[CHOSEN] - reward[REJECTED];
}

void pair_facts_of_logits(PairFacts *sum, enum PairSide side, const LogitFacts *logits, int n) {
    sum->labels[side] += n;
    for (int i = 0; i < n; i++) {
        sum->logit[side] += logits->mean[i];
        sum->entropy += logits->entropy[i];
        if (side == CHOSEN) sum->hits += logits->hit[i];
    }
}

void pair_facts_join(PairFacts *sum, const PairFacts *more) {
    for (int s = 0; s < PAIR_SIDES; s++) {
        sum->reward[s] += more->reward[s], sum->logp[s] += more->logp[s];
        sum->labels[s] += more->labels[s], sum->logit[s] += more->logit[s];
    }
    sum->accuracy += more->accuracy, sum->margin += more->margin;
    sum->entropy += more->entropy, sum->hits += more->hits;
}

PairFacts pair_facts_mean(const PairFacts *sum, double pairs) {
    PairFacts mean = *sum;
    for (int s = 0; s < PAIR_SIDES; s++) {
        mean.reward[s] /= pairs, mean.logp[s] /= pairs;
        if (sum->labels[s] > 0) mean.logit[s] /= sum->labels[s];
    }
    mean.accuracy /= pairs, mean.margin /= pairs;
    if (sum->labels[CHOSEN] > 0) {
        mean.entropy /= sum->labels[CHOSEN] + sum->labels[REJECTED];
        mean.hits /= sum->labels[CHOSEN];
    }
    return mean;
}

/* ------------------------------------------------------------------------------- a pack's -- */

/* The pair whose labels begin at *at, which then is behind them. */
static Pair next_pair(const PairObjective *o, const Pack *p, const float *nll, int *at) {
    Pair pair = {0};
    int first = p->label_doc[*at];
    CHECK(first % PAIR_SIDES == CHOSEN, "document %d begins a pair", first);
    for (int s = 0; s < PAIR_SIDES; s++) {
        for (; *at < p->nlabel && p->label_doc[*at] == first + s; (*at)++, pair.labels[s]++)
            pair.logp[s] -= nll[*at];
        CHECK(pair.labels[s] > 0, "document %d has no label", first + s);
        pair.reference[s] = o->reference[first + s];
    }
    return pair;
}

static void weigh(const Objective *o, const Pack *p, const float *nll, float *weight) {
    const PairObjective *pairs = o->context;
    for (int at = 0, i = 0; at < p->nlabel;) {
        Pair pair = next_pair(pairs, p, nll, &at);
        PairValue v = pair_loss(&pairs->loss, &pair);
        for (; i < at; i++) { /* d loss / d(-log p) */
            enum PairSide side = (enum PairSide)(p->label_doc[i] % PAIR_SIDES);
            weight[i] = (float)(-v.slope[side] / o->denominator);
        }
    }
}

static double loss(const Objective *o, const Pack *p, const float *nll) {
    const PairObjective *pairs = o->context;
    double sum = 0;
    for (int at = 0; at < p->nlabel;) {
        Pair pair = next_pair(pairs, p, nll, &at);
        sum += pair_loss(&pairs->loss, &pair).loss;
    }
    return sum / o->denominator;
}

Objective objective_pairs(const PairObjective *o, double pairs) {
    return (Objective){false, weigh, loss, pairs, o};
}

void pair_facts_of_pack(PairFacts *sum, const PairObjective *o, const Pack *p, const float *nll,
                        const LogitFacts *logits) {
    for (int at = 0; at < p->nlabel;) {
        Pair pair = next_pair(o, p, nll, &at);
        pair_facts_add(sum, &o->loss, &pair);
    }
    for (int i = 0; i < p->nlabel && logits; i++) {
        LogitFacts one = {logits->entropy + i, logits->mean + i, logits->hit + i};
        pair_facts_of_logits(sum, (enum PairSide)(p->label_doc[i] % PAIR_SIDES), &one, 1);
    }
}
