/* adamw.c - AdamW with decoupled weight decay. Contract: ops.h. */
#include "kernels/adamw.h"

#include "kernels/cpu/twin.h"

static void span_update(float *p, float *m, float *v, const float *g, size_t n, AdamStep s) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) adam_update(p + i, m + i, v + i, g[i], s);
}

void TWIN(adamw)(Exec *ex, float *p, float *m, float *v, const float *g, size_t n, float gscale,
                 AdamW a) {
    OP_BEGIN(ex, adamw, n, a);
    AdamStep s = adam_step(a, gscale);
#pragma omp parallel for if (n > OP_SMALL)
    for (size_t i = 0; i < n; i += OP_SPAN)
        span_update(p + i, m + i, v + i, g + i, op_span(n, i), s);
}
