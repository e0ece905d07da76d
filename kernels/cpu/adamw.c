/* adamw.c - AdamW with decoupled weight decay. Contract: ops.h. */
#include <math.h>

#include "kernels/cpu/twin.h"

/* What one step multiplies by, rounded to f32 once. */
typedef struct Step {
    float gscale, keep, b2, new1, new2, rate, correction, eps;
} Step;

static void span_update(float *p, float *m, float *v, const float *g, size_t n, Step s) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float gi = s.gscale * g[i], mi = m[i] + s.new1 * (gi - m[i]);
        float vi = s.b2 * v[i] + s.new2 * gi * gi;
        p[i] = s.keep * p[i] - s.rate * (mi / (sqrtf(vi) / s.correction + s.eps));
        m[i] = mi;
        v[i] = vi;
    }
}

void TWIN(adamw)(Exec *ex, float *p, float *m, float *v, const float *g, size_t n, float gscale,
                 AdamW a) {
    OP_GATE(ex);
    CHECK(a.step >= 1 && a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1 && a.eps >= 0,
          "step=%d beta1=%g beta2=%g eps=%g", a.step, a.beta1, a.beta2, a.eps);
    Step s = {
        .gscale = gscale,
        .keep = (float)(1 - a.lr * a.weight_decay),
        .b2 = (float)a.beta2,
        .new1 = (float)(1 - a.beta1),
        .new2 = (float)(1 - a.beta2),
        .rate = (float)(a.lr / (1 - pow(a.beta1, a.step))),
        .correction = (float)sqrt(1 - pow(a.beta2, a.step)),
        .eps = (float)a.eps,
    };
#pragma omp parallel for if (n > OP_SMALL)
    for (size_t i = 0; i < n; i += OP_SPAN)
        span_update(p + i, m + i, v + i, g + i, op_span(n, i), s);
}
