/* geglu.c - gelu(gate) up and its backward. Contracts: ops.h. */
#include "kernels/cpu/twin.h"
#include "kernels/scalar.h"

void TWIN(geglu_fwd)(Exec *ex, store *y, const store *gate, const store *up, size_t n) {
    OP_GATE(ex);
    elem *o = elems(y);
    const elem *g = elems_const(gate), *u = elems_const(up);
#pragma omp parallel for simd if (parallel : n > OP_SMALL)
    for (size_t i = 0; i < n; i++) o[i] = elem_put(scalar_gelu(elem_get(g[i])) * elem_get(u[i]));
}

void TWIN(geglu_bwd)(Exec *ex, store *dgate, store *dup, const store *dy, const store *gate,
                     const store *up, size_t n) {
    OP_GATE(ex);
    elem *dg = elems(dgate), *du = elems(dup);
    const elem *d = elems_const(dy), *g = elems_const(gate), *u = elems_const(up);
#pragma omp parallel for simd if (parallel : n > OP_SMALL)
    for (size_t i = 0; i < n; i++) {
        float di = elem_get(d[i]), gi = elem_get(g[i]), ui = elem_get(u[i]);
        dg[i] = elem_put(di * ui * scalar_gelu_grad(gi));
        du[i] = elem_put(di * scalar_gelu(gi));
    }
}
