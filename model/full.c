/* full.c - weights as Params. */
#include "model/full.h"

#include <string.h>

#include "data/base/mem.h"

void full_declare(Full *f, Exec *ex, const Config *c) {
    size_t n = tensors_count(c);
    *f = (Full){.layer = mem_array((size_t)c->L, sizeof *f->layer)};
    params_init(&f->params, ex, (int)n);
    for (size_t i = 0; i < n; i++) {
        Tensor t = tensors_at(c, i);
        Param *p = params_add(&f->params, PARAM_ALIGNED, t.dim[0], t.dim[1], "%s", t.name);
        p->undecayed = t.rank == 1;
    }
}

static void place_gradient(Full *f, const Tensor *t, float *grad) {
    switch (t->kind) {
        case TENSOR_EMBED:
            f->embed = grad;
            break;
        case TENSOR_FINAL_NORM:
            f->final_norm = grad;
            break;
        case TENSOR_NORM:
            f->layer[t->layer].norm[t->which] = grad;
            break;
        case TENSOR_PROJ:
            f->layer[t->layer].proj[t->which] = grad;
            break;
    }
}

void full_alloc(Full *f, Exec *ex, const Config *c) {
    full_declare(f, ex, c);
    params_allocate_split(&f->params);
    for (int i = 0; i < f->params.n; i++) {
        Tensor t = tensors_at(c, (size_t)i);
        place_gradient(f, &t, f->params.param[i].grad);
    }
}

void full_free(Full *f) {
    params_free(&f->params);
    free(f->layer);
    memset(f, 0, sizeof *f);
}
