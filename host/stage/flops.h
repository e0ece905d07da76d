/* flops.h - how much arithmetic a step is, and how fast this device does arithmetic. */
#ifndef SAILS_FLOPS_H
#define SAILS_FLOPS_H

#include "data/base/pack.h"
#include "model/lora.h"

/* Floating point operations that one training pass over a pack needs, two per multiply-add:
 *   linear layers   2 per weight and row forward; 2 backward into the input, above the lowest
 *                   adapter only; 2 for the weight's gradient where all weights are trained
 *   adapters        the same, and 2 per element for its gradient if it is trained
 *   attention       4 H E per visible pair of positions forward, twice that backward: making the
 *                   scores again is a choice
 *   head            2 D V per label forward, and backward, and for its weight's gradient likewise
 * In the last layer only keys and values are needed of rows without a label. Norms, softmax and
 * the like are not counted. lora NULL: all weights are trained. */
double flops_pack(const Config *c, const Lora *lora, const Pack *p);

/* Operations per second of a matrix product of this device and storage type, large enough to take
 * a millisecond, measured now on noise (some tens of them): the yardstick of "% of peak". */
double flops_peak(Exec *ex);

#endif
