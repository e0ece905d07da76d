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

/* What a rank has found among its parts of the sum. */
typedef struct BadSum {
    int64_t tensor, at; /* -1: nothing */
} BadSum;

/* Of one tensor. */
static int64_t bad_sum_of(Hunt *h, const Params *p, const Param *t) {
    for (const ParamSection *s = p->section; s < p->section + p->nsections; s++) {
        size_t held;
        CommPart own = params_own(p, s, t->at, t->n, &held);
        if (own.n == 0) continue;
        h->ex->op->find_bad_f32(h->ex, h->index, p->grad + held, own.n);
        if (take(h, t->name)) return (int64_t)(own.at - t->at) + h->at;
    }
    return -1;
}

/* The first of all ranks, which make this call together; the same on all. */
static BadSum bad_sum(Hunt *h, const Params *p) {
    Comm *comm = h->ex->comm;
    BadSum first = {-1, -1}, *all = mem_array((size_t)comm_size(comm), sizeof *all);
    BadSum *own = &all[comm_rank(comm)];
    *own = first;
    for (int i = p->n - 1; i >= 0 && own->tensor < 0; i--) {
        int64_t at = bad_sum_of(h, p, &p->param[i]);
        if (at >= 0) *own = (BadSum){i, at};
    }
    comm_share(comm, "bad gradients", all, sizeof *all);
    for (const BadSum *b = all; b < all + comm_size(comm); b++)
        if (b->tensor > first.tensor || (b->tensor == first.tensor && b->at < first.at)) first = *b;
    free(all);
    return first;
}

static bool show_sum(Hunt *h, const Params *p, BadSum b) {
    if (b.tensor < 0) return false;
    snprintf(h->name, sizeof h->name, "%s gradient", p->param[b.tensor].name);
    h->at = b.at;
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
    BadSum sum = {-1, -1};
    if (who == TOGETHER && p->ranks) sum = bad_sum(&h, p);
    bool found = bad_weights(&h, m) || bad_params(&h, p, false) || bad_activations(&h, m, a) ||
                 bad_params(&h, p, true) || show_sum(&h, p, sum);
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
