/* bad_tensor.c - a search through weights, adapters, activations and gradients. */
#include "host/stage/bad_tensor.h"

#include <math.h>
#include <stdio.h>

#include "data/base/mem.h"

/* Where the search looks next, and where it found something. */
typedef struct Hunt {
    Exec *ex;
    int64_t *index; /* (1) device */
    char name[160];
    int64_t at;
    bool found; /* among activations: then name has the shape, too, and row is where */
    int64_t row;
} Hunt;

/* Of every tensor that is looked at: ranks that found nothing bad wait for this one. */
static bool take(Hunt *h, const char *name) {
    comm_beat(h->ex->comm);
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

/* Gradients in the order of backward. Split masters are looked at as weights. */
static bool bad_params(Hunt *h, const Params *p, bool gradients) {
    for (int i = 0; i < p->n; i++) {
        const Param *t = &p->param[gradients ? p->n - 1 - i : i];
        const float *x = gradients ? t->grad : t->master;
        char name[sizeof h->name];
        if (!x) continue;
        h->ex->op->find_bad_f32(h->ex, h->index, x, t->n);
        snprintf(name, sizeof name, "%s%s", t->name, gradients ? " gradient" : "");
        if (take(h, name)) return true;
    }
    return false;
}

/* What a rank has found among its parts. */
typedef struct BadPart {
    int64_t tensor, at; /* -1: nothing */
} BadPart;

/* In one tensor: the element, or -1. */
static int64_t bad_part_of(Hunt *h, const Params *p, const Param *t, bool gradients) {
    for (const ParamSection *s = p->section; s < p->section + p->nsections; s++) {
        size_t held;
        CommPart own = params_own(p, s, t->at, t->n, &held);
        if (own.n == 0) continue;
        if (gradients)
            h->ex->op->find_bad_f32(h->ex, h->index, p->grad + held, own.n);
        else
            h->ex->op->find_bad(h->ex, h->index, store_at_const(h->ex->dtype, p->copy, held),
                                own.n);
        if (take(h, t->name)) return (int64_t)(own.at - t->at) + h->at;
    }
    return -1;
}

/* Is a before b? Gradients are in the order of backward. */
static bool before(BadPart a, BadPart b, bool gradients) {
    if (a.tensor < 0 || b.tensor < 0) return a.tensor >= 0;
    if (a.tensor != b.tensor) return gradients ? a.tensor > b.tensor : a.tensor < b.tensor;
    return a.at < b.at;
}

/* Of what ranks share out the first of all of them, which make this call together; the same on all.
 */
static bool bad_parts(Hunt *h, const Params *p, bool gradients) {
    Comm *comm = h->ex->comm;
    BadPart first = {-1, -1}, *all = mem_array((size_t)comm_size(comm), sizeof *all);
    BadPart *own = &all[comm_rank(comm)];
    *own = first;
    for (int i = 0; i < p->n && own->tensor < 0; i++) {
        int tensor = gradients ? p->n - 1 - i : i;
        int64_t at = bad_part_of(h, p, &p->param[tensor], gradients);
        if (at >= 0) *own = (BadPart){tensor, at};
    }
    comm_share(comm, "bad parts", all, sizeof *all);
    for (const BadPart *b = all; b < all + comm_size(comm); b++)
        if (before(*b, first, gradients)) first = *b;
    free(all);
    if (first.tensor < 0) return false;
    snprintf(h->name, sizeof h->name, "%s%s", p->param[first.tensor].name,
             gradients ? " gradient" : "");
    h->at = first.at;
    return true;
}

/* model_watch. */
static void look(void *context, const Placed *t, int first) {
    Hunt *h = context;
    if (h->found || (t->type != ARENA_STORE && t->type != ARENA_F32)) return;
    size_t n = t->rows * t->cols;
    if (t->type == ARENA_STORE)
        h->ex->op->find_bad(h->ex, h->index, t->data, n);
    else
        h->ex->op->find_bad_f32(h->ex, h->index, t->data, n);
    char name[sizeof h->name];
    snprintf(name, sizeof name, "%s (%zu x %zu)", t->name, t->rows, t->cols);
    h->found = take(h, name);
    if (h->found) h->row = first + h->at / (int64_t)t->cols;
}

static bool bad_activations(Hunt *h, const Model *m, Acts *a) {
    model_again(m, a, look, h);
    if (!h->found) model_again_head(m, a, look, h);
    return h->found;
}

/* The file that this number came from: NULL where training made it, or it is of no file. */
static const char *file_of(const Hunt *h, const Model *m) {
    const StTensor *t = st_find(m->file, h->name);
    float x = NAN;
    if (t && m->full) st_read_f32(t, &x, (size_t)h->at, 1);
    return t && !isfinite(x) ? t->file : NULL;
}

/* The same of all ranks together, of the first of them that finds something. */
static bool bad_activations_of_all(Hunt *h, const Model *m, Acts *a) {
    Comm *comm = h->ex->comm;
    Hunt *all = mem_array((size_t)comm_size(comm), sizeof *all), *own = &all[comm_rank(comm)];
    bad_activations(h, m, a);
    *own = *h;
    comm_share(comm, "bad activations", all, sizeof *all);
    for (int r = comm_size(comm) - 1; r >= 0; r--) {
        if (!all[r].found) continue;
        *h = all[r];
        h->ex = own->ex, h->index = own->index;
    }
    free(all);
    return h->found;
}

static bool bad_together(Hunt *h, const Model *m, Acts *a, const Params *p) {
    return bad_parts(h, p, false) || bad_activations_of_all(h, m, a) || bad_parts(h, p, true);
}

/* Of numbers that overflowed: what can be made smaller. */
static const char *remedy(const Model *m) {
    if (m->full) return "try a lower --lr or --dtype f32";
    if (m->lora) return "try a lower --lr, a weaker adapter or --dtype f32";
    return "try --dtype f32 or another checkpoint";
}

enum Hunters { ALONE, TOGETHER };
static bool find(const Model *m, Acts *a, enum Hunters who, const char *where, Err *err) {
    Hunt h = {.ex = m->ex, .index = exec_alloc(m->ex, sizeof *h.index, "find_bad")};
    const Params *p = model_params(m), none = {.n = 0};
    if (!p) p = &none;
    if (who == ALONE && p->ranks) { /* the others' parts are out of sight */
        exec_free(m->ex, h.index);
        return err_set(err, EXIT_NUMBERS, "%s; try a lower --lr or --dtype f32", where);
    }
    bool found = p->ranks ? bad_together(&h, m, a, p)
                          : bad_weights(&h, m) || bad_params(&h, p, false) ||
                                bad_activations(&h, m, a) || bad_params(&h, p, true);
    exec_free(m->ex, h.index);
    if (h.found)
        return err_set(err, EXIT_NUMBERS,
                       "%s: first bad tensor %s, row %lld, where numbers overflowed; %s", where,
                       h.name, (long long)h.row, remedy(m));
    const char *file = found ? file_of(&h, m) : NULL;
    if (file)
        return err_set(err, EXIT_NUMBERS,
                       "%s: first bad tensor %s, element %lld, in %s; use another checkpoint",
                       where, h.name, (long long)h.at, file);
    if (found)
        return err_set(err, EXIT_NUMBERS,
                       "%s: first bad tensor %s, element %lld; try a lower --lr or --dtype f32",
                       where, h.name, (long long)h.at);
    return err_set(err, EXIT_NUMBERS,
                   "%s: weights, adapters, activations of the last pass and gradients are finite, "
                   "so backward overflowed in between; try --dtype f32",
                   where);
}

bool bad_tensor_find(const Model *m, Acts *a, const char *where, Err *err) {
    return find(m, a, ALONE, where, err);
}

bool bad_tensor_find_together(const Model *m, Acts *a, const char *where, Err *err) {
    return find(m, a, TOGETHER, where, err);
}
