/* noise.h - numbers of no meaning for measurements: a device multiplies zeros with less power, and
 * so faster, than it multiplies anything else. */
#ifndef SAILS_NOISE_H
#define SAILS_NOISE_H

#include "kernels/exec.h"

/* p (n) of type t, device = noise in [-scale,scale), which repeats after a million elements. */
void noise_fill(Exec *ex, void *p, size_t n, enum Dtype t, double scale);

#endif
