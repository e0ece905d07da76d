/* closed.h - what the recovery experiment should give, by formula.
 *
 * With the truth P of rank r, phi = arctan eps, G the Gram matrix of the task's directions (ones on
 * the diagonal, the coherence c elsewhere), and N documents of each corpus. */
#ifndef SAILS_THEORY_CLOSED_H
#define SAILS_THEORY_CLOSED_H

#include "host/theory/estimate.h"

/* sqrt(r-1): no one vector can be nearer, whatever it is: its projector has rank 1. */
double closed_floor(int r);

/* The mean difference: E^2 = r - 1 + 2 tau / (1'G1 delta^2 + T), where T = tr C / N and
 * tau = tr((I-P) C) / N, of C the covariance of a difference of two documents. (Ratio of means.) */
double closed_mean(const World *w, int documents);

/* The right dictionary rows: E = sqrt(2 tr(G^-1) (H-r)/(H-1)) sin phi. For orthonormal directions
 * tr G^-1 = r; (H-r)/(H-1) is the share of a random error that lies outside the subspace. Exact to
 * first order in eps. */
double closed_sae(const WorldShape *s, double eps);

/* The eps at which sqrt(2r) sin phi, which bounds that, reaches the floor: cos^2 phi = (r+1)/2r. */
double closed_crossover(int r);

/* k faultless rows, the task's among them or all of them the task's: E = sqrt|k-r|. */
double closed_other_k(int k, int r);

/* Captured by an error of m = r columns. */
double closed_captured(int r, double error);

/* Documents of each corpus from which on the largest differences are expected to be the task's:
 * ((sqrt(4 v0 ln n) + sqrt(2 (v0+v1) ln r)) / delta)^2, of z's variances. */
double closed_documents(const WorldShape *s);

/* The probability that all r are chosen, were the differences of means Gaussian. */
double closed_selection(const WorldShape *s, int documents);

/* A linear encoder (estimate_heard), without a dictionary's error, of a task whose directions are
 * orthonormal and others that are random: what each of those hears is (w . m)^2 on average, of the
 * difference of means m, |m|^2 = r delta^2 + sampling:
 *     ((r delta^2 + (T - 2 v0) / N) / H + 2 v0 / N)^(1/2),   T = tr C, v0 of its own z */
double closed_heard(const World *w, int documents);

/* And the probability that no other hears as much as the task's delta of endless documents: that of
 * |u| < r^(-1/2) for a coordinate u of a random direction, n - r times. */
double closed_unheard(const WorldShape *s);

/* To first order in the sampling error of the second moments, which is N^(-1/2): the contrast of
 * covariances, and PCA of pairs that share all but the task (shared = 1). No floor in either. */
double closed_contrast(const World *w, int documents);
double closed_matched(const World *w, int documents);

/* PCA of pairs as N grows without end: of the second moment itself. */
Recovery closed_pairs(Exec *ex, const World *w, double shared);

/* The share that is kept of k nearly orthonormal rows, the task's among them, by the fewest
 * directions that explain tau: m/k of each, m = ceil(tau k), where all are alike. */
double closed_kept(int k, int r, double tau);

#endif
