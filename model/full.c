/* full.c - weights as Params. */
#include "model/full.h"

#include <stdio.h>
#include <string.h>

#include "data/base/mem.h"

/* Elements of a layer. */
static size_t layer_size(const Config *c) {
    size_t n = 0;
    for (size_t i = 0; i < tensors_count(c); i++) {
        Tensor t = tensors_at(c, i);
        if (t.layer == 0 && (t.kind == TENSOR_PROJ || t.kind == TENSOR_NORM)) n += t.count;
    }
    return n;
}

static bool same_section(const Tensor *a, const Tensor *b) {
    bool layers = (a->kind == TENSOR_PROJ || a->kind == TENSOR_NORM) &&
                  (b->kind == TENSOR_PROJ || b->kind == TENSOR_NORM);
    return layers && a->layer == b->layer;
}

/* A layer's, or of what else there is one. */
static const char *section_name(char name[20], const Tensor *t) {
    if (t->kind == TENSOR_EMBED) return "embedding";
    if (t->kind == TENSOR_FINAL_NORM) return "final norm";
    snprintf(name, 20, "layer %d", t->layer);
    return name;
}

static void declare(Full *f, Exec *ex, const Config *c) {
    size_t n = tensors_count(c), most = layer_size(c) + PARAM_BLOCK;
    *f = (Full){.layer = mem_array((size_t)c->L, sizeof *f->layer)};
    params_init(&f->params, ex, (int)n);
    for (size_t i = 0; i < n; i++) {
        Tensor t = tensors_at(c, i);
        Param *p = params_add(&f->params, PARAM_ALIGNED, t.dim[0], t.dim[1], "%s", t.name);
        p->undecayed = t.rank == 1;
        Tensor next = tensors_at(c, i + 1 < n ? i + 1 : i);
        if (i + 1 < n && same_section(&t, &next)) continue;
        bool layer = t.kind == TENSOR_PROJ || t.kind == TENSOR_NORM;
        char name[20];
        params_section(&f->params, section_name(name, &t), most, layer);
        if (t.kind == TENSOR_EMBED) f->first_layer = f->params.nsections;
    }
    f->layers = c->L;
}

void full_declare(Full *f, Exec *ex, const Config *c, int ranks) {
    declare(f, ex, c);
    int most = 0;
    size_t held = 0;
    for (int r = 0; ranks > 1 && r < ranks; r++) {
        params_share_out(&f->params, ranks, r);
        if (f->params.held > held) held = f->params.held, most = r;
    }
    if (ranks > 1) params_share_out(&f->params, ranks, most);
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

void full_alloc(Full *f, Exec *ex, const Config *c, int ranks, int rank) {
    declare(f, ex, c);
    if (ranks) params_share_out(&f->params, ranks, rank);
    params_allocate_split(&f->params);
    for (int i = 0; i < f->params.n; i++) {
        Tensor t = tensors_at(c, (size_t)i);
        place_gradient(f, &t, params_gradient(&f->params, &f->params.param[i]));
    }
}

void full_tell(Full *f, full_through *through, void *context) {
    f->through = through, f->context = context;
}

void full_ahead(Full *f, int layer) {
    if (layer >= 0 && layer < f->layers) params_ahead(&f->params, f->first_layer + layer);
}

void full_need(Full *f, int layer) {
    params_need(&f->params, f->first_layer + layer);
}

void full_begin(const Full *f, int layer) {
    const Params *p = &f->params;
    const ParamSection *s = &p->section[f->first_layer + layer];
    if (p->ranks) exec_zero(p->ex, s->grad, s->n * sizeof *s->grad);
}

void full_end(const Full *f, int layer) {
    int first = layer < 0 ? 0 : f->first_layer + layer;
    int last = layer < 0 ? f->first_layer - 1 : first;
    for (int i = last; f->through && i >= first; i--) f->through(f->context, i);
}

void full_free(Full *f) {
    params_free(&f->params);
    free(f->layer);
    memset(f, 0, sizeof *f);
}
