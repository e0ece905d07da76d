/* redundancy.h - how much the rows of an adapter's A, and the columns of its B, repeat each other,
 * and a penalty on it. Ours, after ReSoRA's idea: its loss is not public.
 *
 * Of an adapter of rank R >= 2, with the cosines of rows i and j of A and of columns i and j of B,
 *
 *   (sum over i != j of cos(a_i, a_j)^2 + cos(b_i, b_j)^2) / (R (R - 1))
 *
 * and of all of them the mean: 0 where each factor's directions are orthogonal, 2 where each has
 * one direction only. A vector of zeros has no direction and repeats nothing: where a factor starts
 * at zero, its part begins with the first step. Ranks of 1 do not count; no adapter of rank 2: 0.
 *
 * What is measured are the factors' copies, which products read: products and sums in f32, what
 * follows from them in double. A start that is taken off is no part of it. */
#ifndef SAILS_REDUNDANCY_H
#define SAILS_REDUNDANCY_H

#include "model/lora.h"

typedef struct Redundancy {
    const Lora *lora; /* borrowed */
    int adapters;     /* that count */
    float *square;   /* (most,most) device, most the largest rank: products of a factor's vectors */
    store *mix;      /* (most,most) device: of which vectors a gradient is made */
    float *host;     /* (most,most) */
    double *inverse; /* (most) 1 / |x_i| of a factor's vectors */
} Redundancy;

void redundancy_init(Redundancy *r, const Lora *l);
void redundancy_free(Redundancy *r); /* accepts a zeroed struct */

/* Device bytes that redundancy_init takes on a device of this type, and bytes of workspace that its
 * ops take on ex. */
size_t redundancy_bytes(const Lora *l, enum Dtype dtype);
size_t redundancy_scratch(Exec *ex, const Lora *l);

double redundancy_measure(Redundancy *r);

/* The same, and adds the gradient of `weight` times it to those of the factors that are trained. */
double redundancy_penalise(Redundancy *r, double weight);

#endif
