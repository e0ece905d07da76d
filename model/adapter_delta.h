/* adapter_delta.h - how much of what an adapter adds to a weight lies in a basis of the stream.
 *
 * dW = scale (B A - B0 A0) (out,in). Where a projection reads the stream, the basis acts on dW's
 * rows: P dW = dW U U^T; where it writes to it, on its columns: P dW = U U^T dW. All in double,
 * from the singular values s and vectors of dW. */
#ifndef SAILS_ADAPTER_DELTA_H
#define SAILS_ADAPTER_DELTA_H

#include "model/adapter_start.h"

/*   energy = ||P dW||^2 / ||dW||^2 = sum w_i q_i,  w_i = s_i^2 / ||dW||^2,  q_i = ||U^T v_i||^2
 *
 * of dW's right singular vectors v_i where it reads, of its left ones where it writes. Of a random
 * subspace of M of d directions each q_i has mean M / d and variance
 *   V = 2 M (d - M) / (d^2 (d + 2)),  and covariance -V / (d - 1) with another,
 * as q over any orthonormal basis adds up to M. So the energy has mean M / d, whatever dW is, and
 * variance V (sum w_i^2 - (1 - sum w_i^2) / (d - 1)). */
typedef struct AdapterDelta {
    int layer;
    enum Proj p;
    bool writes;
    int basis_layer, d, M, rank; /* rank: singular values above the rounding of the largest */
    double norm, energy;         /* ||dW||_F; NAN where dW is 0 */
    double expected, sd;         /* of a random subspace */
    double *angle;               /* (min(rank,M)) principal angles between the span of dW's vectors
                                    and that of U, in radians, rising */
} AdapterDelta;

/* Of the adapter of a projection, which has one. To be freed. All ranks, or one: nothing is
 * exchanged. */
void adapter_delta(AdapterDelta *d, const Lora *l, int layer, enum Proj p, const Basis *b);
void adapter_delta_free(AdapterDelta *d); /* accepts a zeroed struct */

static inline int adapter_delta_angles(const AdapterDelta *d) {
    return d->rank < d->M ? d->rank : d->M;
}

/* Leaves of every adapter P dW, or dW - P dW: of the same rank, with factors of which one changes.
 * Adapters without a start that is taken off. */
enum DeltaPart { DELTA_INSIDE, DELTA_OUTSIDE };
void adapter_delta_keep(Lora *l, const Subspace *s, enum DeltaPart part);

#endif
