/* objective.c - losses, and the weights that they give to labels. */
#include "model/objective.h"

static void sft_weigh(const Objective *o, const Pack *p, const float *nll, float *weight) {
    (void)nll;
    for (int i = 0; i < p->nlabel; i++) weight[i] = (float)(1 / o->denominator);
}

static double sft_loss(const Objective *o, const Pack *p, const float *nll) {
    double sum = 0;
    for (int i = 0; i < p->nlabel; i++) sum += nll[i];
    return sum / o->denominator;
}

Objective objective_sft(double labels) {
    return (Objective){true, sft_weigh, sft_loss, labels, NULL};
}
