/* adamw.c - AdamW with decoupled weight decay. Contract: ops.h. */
#include <math.h>

#include "kernels/cpu/twin.h"

void TWIN(adamw)(Exec *ex, float *p, float *m, float *v, const float *g, size_t n, float gscale,
                 AdamW a) {
    OP_GATE(ex);
    CHECK(a.step >= 1 && a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1 && a.eps >= 0,
          "step=%d beta1=%g beta2=%g eps=%g", a.step, a.beta1, a.beta2, a.eps);
    float keep = (float)(1 - a.lr * a.weight_decay);
    float b2 = (float)a.beta2, new1 = (float)(1 - a.beta1), new2 = (float)(1 - a.beta2);
    float rate = (float)(a.lr / (1 - pow(a.beta1, a.step)));
    float correction = (float)sqrt(1 - pow(a.beta2, a.step)), eps = (float)a.eps;
#pragma omp parallel for simd if (parallel : n > OP_SMALL)
    for (size_t i = 0; i < n; i++) {
        float gi = gscale * g[i];
        m[i] += new1 * (gi - m[i]);
        v[i] = b2 * v[i] + new2 * gi * gi;
        p[i] = keep * p[i] - rate * (m[i] / (sqrtf(v[i]) / correction + eps));
    }
}
