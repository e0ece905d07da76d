/* estimate.h - the task's subspace as each estimator finds it, and how far that is from the truth.
 * Factorisations are the ops', in double; the span of dictionary rows and leading
 * eigenvectors are made by the product's own basis_build and basis_of_symmetric. */
#ifndef SAILS_THEORY_ESTIMATE_H
#define SAILS_THEORY_ESTIMATE_H

#include "host/theory/world.h"

/* An estimate of m columns with projector Q, beside the truth's P of rank r. */
typedef struct Recovery {
    int m;
    double error;     /* ||P - Q||_F, so that error^2 = r + m - 2 r captured */
    double captured;  /* tr(P Q) / r: the share of the subspace that was found */
    double precision; /* tr(P Q) / m: the share of what was found that belongs to it */
} Recovery;

/* Of U (H,m) with orthonormal columns. The error is exact near 0, too: from what each of the two
 * leaves of the other, not from the difference above. */
Recovery recovery_of(const World *w, const double *U, int m);

/* SAE: the k features whose mean activations differ most between the corpora. An activation is the
 * feature's own z: encoders are taken to be ideal, errors are the decoder's.   feature (k) out =,
 * the best first. */
void estimate_choose(int32_t *feature, Exec *ex, const World *w, const Tally *t, int k);

/* The same of encoders that are not: an activation is what a linear encoder with the dictionary's
 * rows reads, w_j . x, in which every other feature that fires is heard, too.
 *   by (n) out: |the differences of their means| */
void estimate_heard(double *by, const World *w, const Tally *t, double eps);
void estimate_choose_heard(int32_t *feature, Exec *ex, const World *w, const double *by, int k);

/* k of all features, at random: a control. */
void estimate_random(int32_t *feature, Exec *ex, const World *w, int k);

/* How many of the k are the task's. */
int estimate_right(const World *w, const int32_t *feature, int k);

/* The span of their dictionary rows: as many principal directions as explain `variance`. */
Recovery estimate_sae(Exec *ex, const World *w, const int32_t *feature, int k, double eps,
                      enum RowError error, double variance);

/* The same of rows as long as their features' |difference of means|, so that the weak ones go
 * first (--weight-rows delta). */
Recovery estimate_weighted(Exec *ex, const World *w, const Tally *t, const int32_t *feature, int k,
                           double eps, double variance);

/* The span of those r of any n rows (n,H), not of the world's dictionary, whose |by| (n) is
 * largest. */
Recovery estimate_rows(Exec *ex, const World *w, const double *rows, const double *by, int n);

/* The one vector that is the difference of the corpora's means; of equal means, none. */
Recovery estimate_mean(const World *w, const Tally *t);

/* The r leading eigenvectors: of the second moment of the pairs' differences; of the covariance of
 * both corpora as one; of the aligned corpus's covariance minus the unaligned one's. */
Recovery estimate_pairs(Exec *ex, const World *w, const Moments *pairs);
Recovery estimate_pooled(Exec *ex, const World *w, const Moments *unaligned,
                         const Moments *aligned);
Recovery estimate_contrast(Exec *ex, const World *w, const Moments *unaligned,
                           const Moments *aligned);

/* Of any symmetric A (H,H): what the estimators above come to. */
Recovery estimate_leading(Exec *ex, const World *w, const double *A);

#endif
