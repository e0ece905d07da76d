#include "model/optim.h"

#include <math.h>
#include <string.h>

#include "host/base/mem.h"

/* Factors come in the order of master. Between two that follow each other lies at most padding,
 * which is zero and stays zero: they make one range, whatever their size. */
typedef struct Ranges {
    Optim *o;
    bool open; /* the factor before this one is trained */
} Ranges;

static void add_factor(Ranges *r, const float *factor, size_t n, bool trained) {
    Optim *o = r->o;
    if (n == 0) return;
    size_t first = (size_t)(factor - o->lora->master);
    if (trained && r->open) {
        OptimRange *last = &o->range[o->nrange - 1];
        last->n = first + n - last->first;
    } else if (trained) {
        o->range[o->nrange++] = (OptimRange){first, n};
    }
    r->open = trained;
}

void optim_init(Optim *o, Lora *l, AdamW how) {
    CHECK(l->grad, "expected adapters that were made for training");
    *o = (Optim){.lora = l, .how = how};
    o->range = mem_array((size_t)l->c->L * PROJ_COUNT * 2, sizeof *o->range);
    Ranges r = {.o = o};
    for (int i = 0; i < l->c->L * GROUP_COUNT; i++) {
        int g = i % GROUP_COUNT, from = group_first[g], to = group_first[g + 1];
        const Adapter *a = lora_at(l, i / GROUP_COUNT, (enum Proj)0);
        for (int p = from; p < to; p++)
            add_factor(&r, a[p].A, (size_t)a[p].R * (size_t)a[p].in, a[p].train_A);
        for (int p = from; p < to; p++)
            add_factor(&r, a[p].B, (size_t)a[p].R * (size_t)a[p].out, a[p].train_B);
    }
    o->sum = exec_alloc(l->ex, sizeof *o->sum, "gradient norm");
}

void optim_free(Optim *o) {
    if (o->lora) exec_free(o->lora->ex, o->sum);
    free(o->range);
    memset(o, 0, sizeof *o);
}

double optim_norm(Optim *o) {
    Exec *ex = o->lora->ex;
    double sum;
    exec_range_push(ex, "norm");
    exec_zero(ex, o->sum, sizeof *o->sum);
    for (int i = 0; i < o->nrange; i++)
        ex->op->sumsq(ex, o->sum, o->lora->grad + o->range[i].first, o->range[i].n);
    exec_copy_out(ex, &sum, o->sum, sizeof sum);
    exec_range_pop(ex);
    return sqrt(sum);
}

void optim_step(Optim *o, double norm, double lr, double max_norm) {
    Lora *l = o->lora;
    double coef = max_norm > 0 ? max_norm / (norm + 1e-6) : 1;
    AdamW how = o->how;
    how.lr = lr;
    how.step = ++o->step;
    exec_range_push(l->ex, "adamw");
    for (int i = 0; i < o->nrange; i++) {
        size_t at = o->range[i].first;
        l->ex->op->adamw(l->ex, l->master + at, l->m + at, l->v + at, l->grad + at, o->range[i].n,
                         (float)fmin(coef, 1), how);
    }
    lora_sync(l);
    exec_zero(l->ex, l->grad, l->n * sizeof *l->grad);
    exec_range_pop(l->ex);
}
