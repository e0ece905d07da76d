/* geglu.c - gelu(gate) up and its backward. Contracts: ops.h. */
#include "kernels/cpu/twin.h"
#include "kernels/scalar.h"

static void span_fwd(elem *y, const elem *gate, const elem *up, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] = elem_put(scalar_gelu(elem_get(gate[i])) * elem_get(up[i]));
}

static void span_bwd(elem *dgate, elem *dup, const elem *dy, const elem *gate, const elem *up,
                     size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float d = elem_get(dy[i]), g = elem_get(gate[i]), u = elem_get(up[i]);
        ScalarGelu act = scalar_gelu_both(g);
        dgate[i] = elem_put(d * u * act.slope);
        dup[i] = elem_put(d * act.y);
    }
}

void TWIN(geglu_fwd)(Exec *ex, store *y, const store *gate, const store *up, size_t n) {
    OP_BEGIN(ex, geglu_fwd, n);
#pragma omp parallel for if (n > OP_SMALL)
    for (size_t i = 0; i < n; i += OP_SPAN)
        span_fwd(elems(y) + i, elems_const(gate) + i, elems_const(up) + i, op_span(n, i));
}

void TWIN(geglu_bwd)(Exec *ex, store *dgate, store *dup, const store *dy, const store *gate,
                     const store *up, size_t n) {
    OP_BEGIN(ex, geglu_bwd, n);
#pragma omp parallel for if (n > OP_SMALL)
    for (size_t i = 0; i < n; i += OP_SPAN)
        span_bwd(elems(dgate) + i, elems(dup) + i, elems_const(dy) + i, elems_const(gate) + i,
                 elems_const(up) + i, op_span(n, i));
}
