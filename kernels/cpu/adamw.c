/* adamw.c - AdamW with decoupled weight decay, of masters whole and split, and their splitting.
 * Contracts: ops.h. */
#include "kernels/adamw.h"

#include "kernels/cpu/master.h"

static void span_update(float *p, float *m, float *v, const float *g, size_t n, AdamStep s) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) adam_update(p + i, m + i, v + i, g[i], s);
}

/* Of split masters: elements first .. last - 1. */
static void update_split(elem *high, int16_t *low, float *m, float *v, const float *g, size_t first,
                         size_t last, AdamStep s) {
#pragma omp simd
    for (size_t i = first; i < last; i++) {
        float p = master_get(high, low, i);
        adam_update(&p, m + i, v + i, g[i], s);
        master_put(high, low, i, p);
    }
}

static void split(elem *high, int16_t *low, const float *x, size_t first, size_t last) {
#pragma omp simd
    for (size_t i = first; i < last; i++) master_put(high, low, i, x[i]);
}

static void join(float *x, const elem *high, const int16_t *low, size_t first, size_t last) {
#pragma omp simd
    for (size_t i = first; i < last; i++) x[i] = master_get(high, low, i);
}

void TWIN(adamw)(Exec *ex, float *p, float *m, float *v, const float *g, size_t n, float gscale,
                 AdamW a) {
    OP_BEGIN(ex, adamw, n, a);
    AdamStep s = adam_step(a, gscale);
#pragma omp parallel for if (n > OP_SMALL)
    for (size_t i = 0; i < n; i += OP_SPAN)
        span_update(p + i, m + i, v + i, g + i, op_span(n, i), s);
}

void TWIN(adamw_split)(Exec *ex, store *high, int16_t *low, float *m, float *v, const float *g,
                       size_t n, float gscale, AdamW a) {
    OP_BEGIN(ex, adamw_split, n, a);
    AdamStep s = adam_step(a, gscale);
#pragma omp parallel for if (n > OP_SMALL)
    for (size_t i = 0; i < n; i += OP_SPAN)
        update_split(elems(high), low, m, v, g, i, i + op_span(n, i), s);
}

void TWIN(split)(Exec *ex, store *high, int16_t *low, const float *x, size_t n) {
    OP_BEGIN(ex, split, n);
#pragma omp parallel for if (n > OP_LIGHT)
    for (size_t i = 0; i < n; i += OP_SPAN) split(elems(high), low, x, i, i + op_span(n, i));
}

void TWIN(join)(Exec *ex, float *x, const store *high, const int16_t *low, size_t n) {
    OP_BEGIN(ex, join, n);
#pragma omp parallel for if (n > OP_LIGHT)
    for (size_t i = 0; i < n; i += OP_SPAN) join(x, elems_const(high), low, i, i + op_span(n, i));
}
