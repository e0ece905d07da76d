/* pair_loss.h - losses of preference pairs, as TRL's DPOTrainer has them: what a pair costs, and
 * how that changes with the log-probabilities of its two replies.
 *
 * With r = log p - log p of the reference, sums over the n labels of a reply, s(x) = 1/(1+exp(-x)),
 * e the share of pairs that are the wrong way round,
 *   z = beta (r chosen - r rejected),   d = r chosen / n chosen - r rejected / n rejected:
 *
 *   sigmoid       -log s(z)
 *   robust        (-(1-e) log s(z) + e log s(-z)) / (1-2e)
 *   exo_pair      s(z) log (s(z) / (1-e)) + s(-z) log (s(-z) / e)
 *   ipo           (d - 1/(2 beta))^2
 *   sigmoid_norm  -log s(beta d)
 *
 * The loss of a batch is the mean over its pairs. */
#ifndef SAILS_PAIR_LOSS_H
#define SAILS_PAIR_LOSS_H

#include "kernels/choices.h"
#include "model/objective.h"

#define PAIR_LOSSES(X)         \
    X(PAIR_SIGMOID, "sigmoid") \
    X(PAIR_ROBUST, "robust")   \
    X(PAIR_EXO, "exo_pair")    \
    X(PAIR_IPO, "ipo")         \
    X(PAIR_NORM, "sigmoid_norm")
enum PairLossKind { PAIR_LOSSES(CHOICE_ENUM) };

typedef struct PairLoss {
    enum PairLossKind kind;
    double beta;      /* > 0 */
    double smoothing; /* e, of robust and exo_pair: below 1/2, and above 0 for exo_pair */
} PairLoss;

enum PairSide { CHOSEN, REJECTED, PAIR_SIDES };

/* A pair as the loss sees it, by PairSide. */
typedef struct Pair {
    double logp[PAIR_SIDES], reference[PAIR_SIDES];
    int labels[PAIR_SIDES]; /* > 0 */
} Pair;

typedef struct PairValue {
    double loss, slope[PAIR_SIDES]; /* slope: d loss / d logp */
} PairValue;
PairValue pair_loss(const PairLoss *l, const Pair *p);

/* What is told of pairs, under TRL's names: sums over pairs, or means. */
typedef struct PairFacts {
    double reward[PAIR_SIDES]; /* beta r */
    double accuracy;           /* 1 where the chosen reply has the larger reward */
    double margin;             /* of the rewards */
    double logp[PAIR_SIDES];
    /* Of the labels' logits, means over labels; labels 0: nobody has asked. */
    double labels[PAIR_SIDES], logit[PAIR_SIDES]; /* their number; the vocabulary's mean logit */
    double entropy;                               /* of the predictions, of both replies */
    double hits; /* where the chosen reply's token is the first guess */
} PairFacts;
void pair_facts_add(PairFacts *sum, const PairLoss *l, const Pair *p);
/* What the logits of n labels of one reply say. */
void pair_facts_of_logits(PairFacts *sum, enum PairSide side, const LogitFacts *logits, int n);
void pair_facts_join(PairFacts *sum, const PairFacts *more);
PairFacts pair_facts_mean(const PairFacts *sum, double pairs);

/* The objective of packs that hold whole pairs: the labels of document 2 i, the chosen one, and
 * right behind them those of 2 i + 1, whose numbers label_doc has. */
typedef struct PairObjective {
    PairLoss loss;
    const double *reference; /* borrowed: log p of each document under the reference, by number */
} PairObjective;

/* The mean over the pairs of a global batch, of which there are so many; o is borrowed. */
Objective objective_pairs(const PairObjective *o, double pairs);

/* Adds the pairs of a pack; logits NULL: nothing is said of those. */
void pair_facts_of_pack(PairFacts *sum, const PairObjective *o, const Pack *p, const float *nll,
                        const LogitFacts *logits);

#endif
