/* objective.h - what training minimises, seen as a weight for each label.
 *
 * The gradient of any loss that is a function of the labels' log-probabilities is
 *   d loss = sum over labels of w d(-log p),   w = d loss / d(-log p):
 * an objective says the loss and the weights, model_loss does the rest. Labels are in the pack's
 * order; which document each belongs to, and so which pair or group, stands in the pack.
 *
 *   sft     loss = sum of -log p / denominator,   w = 1 / denominator
 *   pairs   pair_loss.h */
#ifndef SAILS_OBJECTIVE_H
#define SAILS_OBJECTIVE_H

#include <stdbool.h>

#include "data/base/pack.h"

typedef struct Objective Objective;
struct Objective {
    /* Weights do not depend on log-probabilities: forward and gradient then share one pass over the
     * logits. Otherwise they are computed once more for the gradient. */
    bool ahead;
    /* weight (p->nlabel) f32 out =;  nll (p->nlabel) f32 in: -log p, NULL if `ahead`. */
    void (*weigh)(const Objective *o, const Pack *p, const float *nll, float *weight);
    /* The pack's part of the loss. */
    double (*loss)(const Objective *o, const Pack *p, const float *nll);
    double denominator;  /* what the global batch is averaged over: its labels, its pairs */
    const void *context; /* borrowed: what else weigh and loss need */
};

/* What the logits of each label say beside that (op_logit_facts), in the pack's order. */
typedef struct LogitFacts {
    float *entropy, *mean, *hit;
} LogitFacts;

/* The mean of -log p over the labels of a global batch, of which there are so many. */
Objective objective_sft(double labels);

#endif
