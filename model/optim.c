/* optim.c - clipping and AdamW over the trained ranges. */
#include "model/optim.h"

#include <math.h>
#include <string.h>

#include "host/base/mem.h"

/* Between two tensors that follow each other lies at most padding, which is zero and stays zero:
 * they make one range, whatever their size. */
static void find_ranges(Optim *o) {
    const Params *p = o->params;
    bool open = false; /* the tensor before this one is trained */
    for (const Param *t = p->param; t < p->param + p->n; t++) {
        if (t->trained && open) {
            OptimRange *last = &o->range[o->nrange - 1];
            last->n = t->at + t->n - last->first;
        } else if (t->trained) {
            o->range[o->nrange++] = (OptimRange){t->at, t->n};
        }
        open = t->trained;
    }
}

void optim_init(Optim *o, Params *p, AdamW how) {
    CHECK(p->grad, "expected tensors that were made for training");
    *o = (Optim){.params = p, .how = how};
    o->range = mem_array((size_t)p->n, sizeof *o->range);
    find_ranges(o);
    o->sum = exec_alloc(p->ex, sizeof *o->sum, "gradient norm");
}

void optim_free(Optim *o) {
    if (o->params) exec_free(o->params->ex, o->sum);
    free(o->range);
    memset(o, 0, sizeof *o);
}

double optim_norm(Optim *o) {
    Exec *ex = o->params->ex;
    double sum;
    exec_range_push(ex, "norm");
    exec_zero(ex, o->sum, sizeof *o->sum);
    for (int i = 0; i < o->nrange; i++)
        ex->op->sumsq(ex, o->sum, o->params->grad + o->range[i].first, o->range[i].n);
    exec_copy_out(ex, &sum, o->sum, sizeof sum);
    exec_range_pop(ex);
    return sqrt(sum);
}

void optim_step(Optim *o, double norm, double lr, double max_norm) {
    Params *p = o->params;
    double coef = max_norm > 0 ? max_norm / (norm + 1e-6) : 1;
    AdamW how = o->how;
    how.lr = lr;
    how.step = ++o->step;
    exec_range_push(p->ex, "adamw");
    for (int i = 0; i < o->nrange; i++) {
        size_t at = o->range[i].first;
        p->ex->op->adamw(p->ex, p->master + at, p->m + at, p->v + at, p->grad + at, o->range[i].n,
                         (float)fmin(coef, 1), how);
    }
    params_sync(p);
    exec_zero(p->ex, p->grad, p->size * sizeof *p->grad);
    exec_range_pop(p->ex);
}
