/* perf.h - how much arithmetic a step is, and how fast this device does arithmetic. */
#ifndef SAILS_PERF_H
#define SAILS_PERF_H

#include "host/base/pack.h"
#include "model/lora.h"

/* Floating point operations of one training pass (forward and backward) over a pack with frozen
 * base weights, two per multiply-add:
 *   linear layers     2 P per token forward, 2 P backward (no weight gradients)
 *   attention         4 H E per visible pair of positions forward, 2.5 times that backward
 *   head              2 D V per label forward, and backward
 *   adapters          6 per element and token
 * lora NULL: forward alone. Norms, softmax and the like are not counted. */
double perf_flops(const Config *c, const Lora *lora, const Pack *p);

/* Operations per second of a large matrix product of this device and storage type, measured now
 * (some tens of milliseconds): the yardstick of "% of peak". */
double perf_peak(Exec *ex);

#endif
