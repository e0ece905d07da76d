/* trained.h - a sparse autoencoder that is trained on the documents of a World, in place of one
 * whose errors are planted: TopK, as Gao et al. (arXiv 2406.04093) have it, without their auxiliary
 * loss.
 *
 *   z = the k largest of max(0, E (x - c) + b)     y = D'z + c     loss = |y - x|^2
 *
 * The rows of D are of unit length: their gradients' parallel parts are taken off before Adam
 * (betas 0.9, 0.999), and they are made unit after it. E starts as D, which is random; b as 0, c as
 * the mean of the first batch. The rate falls to 0 over the last 30 % of the steps. All threads;
 * the bits are the same on any number of them. */
#ifndef SAILS_THEORY_TRAINED_H
#define SAILS_THEORY_TRAINED_H

#include "host/theory/estimate.h"

typedef struct TrainedSae {
    int H, n, k;
    double *enc, *dec; /* (H,n) E transposed, so that all latents are added to at once; (n,H) D */
    double *bias, *centre; /* (n) b, (H) c */
    int seen;              /* documents of each corpus that it was trained on: the first */
} TrainedSae;

/* As many latents as the world has features, on so many of its documents, half of each corpus. */
void trained_make(TrainedSae *s, const World *w, int k, int documents);
void trained_free(TrainedSae *s); /* accepts a zeroed one */

/* The active latents of x (H), and their activations; how many. latent, z (k) out. */
int trained_encode(int32_t *latent, double *z, const TrainedSae *s, const double *x);

/* Loss and gradients of a vector: E's and D's are of the active latents alone. */
typedef struct TrainedGrads {
    double *enc, *dec, *bias, *centre; /* as in TrainedSae; added to */
} TrainedGrads;
double trained_backward(TrainedGrads *g, const TrainedSae *s, const double *x);

/* What it has learned, over so many documents of each corpus that it has not seen. */
typedef struct TrainedFacts {
    double unexplained; /* sum |y - x|^2 over the sum of |x - mean|^2 */
    double cosine;      /* of the world's features: the mean of the largest with a row of D */
    double task_cosine; /* of the task's */
    double alive;       /* share of the latents that were active once */
    Recovery found;     /* the span of the r latents whose mean activations differ most */
} TrainedFacts;
TrainedFacts trained_facts(Exec *ex, const World *w, const TrainedSae *s, int documents);

#endif
