/* adamw.h - one AdamW update of one element, for both twins. Contract: ops.h. */
#ifndef SAILS_ADAMW_H
#define SAILS_ADAMW_H

#include <math.h>

#include "kernels/bf16.h"
#include "kernels/ops.h"

/* What one step multiplies by: computed in double, rounded to f32 once. */
typedef struct AdamStep {
    float gscale, keep, b2, new1, new2, rate, correction, eps;
} AdamStep;

static inline AdamStep adam_step(AdamW a, float gscale) {
    AdamStep s;
    s.gscale = gscale;
    s.keep = (float)(1 - a.lr * a.weight_decay);
    s.b2 = (float)a.beta2;
    s.new1 = (float)(1 - a.beta1);
    s.new2 = (float)(1 - a.beta2);
    s.rate = (float)(a.lr / (1 - pow(a.beta1, a.step)));
    s.correction = (float)sqrt(1 - pow(a.beta2, a.step));
    s.eps = (float)a.eps;
    return s;
}

static inline SAILS_HD void adam_update(float *p, float *m, float *v, float g, AdamStep s) {
    float gi = s.gscale * g, mi = *m + s.new1 * (gi - *m), vi = s.b2 * *v + s.new2 * gi * gi;
    *p = s.keep * *p - s.rate * (mi / (sqrtf(vi) / s.correction + s.eps));
    *m = mi;
    *v = vi;
}

#endif
