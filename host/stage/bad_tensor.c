/* numbers.c - a search through weights, adapters and gradients. */
#include "host/stage/bad_tensor.h"

#include <stdio.h>

/* Where the search looks next, and where it found something. */
typedef struct Hunt {
    Exec *ex;
    int64_t *index; /* (1) device */
    char name[160];
    int64_t at;
} Hunt;

static bool take(Hunt *h, const char *name) {
    exec_copy_out(h->ex, &h->at, h->index, sizeof h->at);
    if (h->at < 0) return false;
    snprintf(h->name, sizeof h->name, "%s", name);
    return true;
}

static bool bad_weights(Hunt *h, const Model *m) {
    for (size_t i = 0; i < tensors_count(&m->c); i++) {
        Tensor t = tensors_at(&m->c, i);
        h->ex->op->find_bad(h->ex, h->index, model_weight(m, &t), t.count);
        if (take(h, t.name)) return true;
    }
    return false;
}

static bool bad_params(Hunt *h, const Params *p, bool gradients) {
    for (const Param *t = p->param; t < p->param + p->n; t++) {
        const float *x = gradients ? t->grad : t->master;
        char name[sizeof h->name];
        if (!x) continue;
        h->ex->op->find_bad_f32(h->ex, h->index, x, t->n);
        snprintf(name, sizeof name, "%s%s", t->name, gradients ? " gradient" : "");
        if (take(h, name)) return true;
    }
    return false;
}

bool bad_tensor_find(const Model *m, const char *where, Err *err) {
    Hunt h = {.ex = m->ex, .index = exec_alloc(m->ex, sizeof *h.index, "find_bad")};
    bool found = bad_weights(&h, m) || (m->lora && (bad_params(&h, &m->lora->params, false) ||
                                                    bad_params(&h, &m->lora->params, true)));
    exec_free(m->ex, h.index);
    const StTensor *weight = found ? st_find(m->file, h.name) : NULL;
    if (weight)
        return err_set(err, EXIT_NUMBERS,
                       "%s: first bad tensor %s, element %lld, in %s; use another checkpoint",
                       where, h.name, (long long)h.at, weight->file);
    if (found)
        return err_set(err, EXIT_NUMBERS,
                       "%s: first bad tensor %s, element %lld; try a lower --lr or --dtype f32",
                       where, h.name, (long long)h.at);
    return err_set(err, EXIT_NUMBERS,
                   "%s: weights, adapters and gradients are finite, so it overflowed in between; "
                   "try --dtype f32",
                   where);
}
