/* optim.c - clipping and AdamW over the trained ranges. */
#include "model/optim.h"

#include <math.h>
#include <string.h>

#include "data/base/mem.h"

/* Between two tensors that follow each other lies at most padding, which is zero and stays zero:
 * they make one range, whatever their size, if they are updated alike. */
static void find_ranges(Optim *o) {
    const Params *p = o->params;
    OptimRange *open = NULL; /* that of the tensor before this one, if it is trained */
    for (const Param *t = p->param; t < p->param + p->n; t++) {
        if (t->trained && open && open->undecayed == t->undecayed) {
            open->span.n = t->at + t->n - open->span.at;
        } else if (t->trained) {
            open = &o->range[o->nrange++];
            *open = (OptimRange){{t->at, t->n}, t->undecayed};
        } else {
            open = NULL;
        }
    }
}

static size_t count_blocks(const Params *p) {
    size_t blocks = 0;
    for (const Param *t = p->param; t < p->param + p->n; t++)
        blocks += (t->n + OPTIM_BLOCK - 1) / OPTIM_BLOCK;
    return blocks;
}

size_t optim_bytes(const Params *p) {
    return count_blocks(p) * (sizeof(Span) + sizeof(double));
}

static void make_blocks(Optim *o) {
    const Params *p = o->params;
    size_t most = count_blocks(p);
    Span *block = mem_array(most, sizeof *block);
    CHECK(most <= INT32_MAX, "%zu blocks of gradients", most);
    for (const Param *t = p->param; t < p->param + p->n; t++)
        for (size_t i = 0; t->trained && i < t->n; i += OPTIM_BLOCK)
            block[o->nblock++] = (Span){t->at + i, t->n - i < OPTIM_BLOCK ? t->n - i : OPTIM_BLOCK};
    o->host = mem_array(most, sizeof *o->host);
    o->block = exec_alloc(p->ex, most * sizeof *block, "gradient norm");
    o->square = exec_alloc(p->ex, most * sizeof *o->square, "gradient norm");
    exec_copy_in(p->ex, o->block, block, (size_t)o->nblock * sizeof *block);
    free(block);
}

void optim_init(Optim *o, Params *p, AdamW how) {
    CHECK(p->grad, "expected tensors that were made for training");
    *o = (Optim){.params = p, .how = how};
    o->range = mem_array((size_t)p->n, sizeof *o->range);
    find_ranges(o);
    make_blocks(o);
}

void optim_free(Optim *o) {
    if (o->params) exec_free(o->params->ex, o->square);
    if (o->params) exec_free(o->params->ex, o->block);
    free(o->host);
    free(o->range);
    memset(o, 0, sizeof *o);
}

double optim_norm(Optim *o) {
    Params *p = o->params;
    double sum = 0;
    exec_range_push(p->ex, "norm");
    params_project_grads(p);
    p->ex->op->sumsq(p->ex, o->square, p->grad, o->block, o->nblock, params_trained(p));
    exec_copy_out(p->ex, o->host, o->square, (size_t)o->nblock * sizeof *o->host);
    for (int i = 0; i < o->nblock; i++) sum += o->host[i];
    exec_range_pop(p->ex);
    return sqrt(sum);
}

static void update(Params *p, const OptimRange *range, float coef, AdamW how) {
    Exec *ex = p->ex;
    size_t at = range->span.at, n = range->span.n;
    float *m = p->m + at, *v = p->v + at, *g = p->grad + at;
    if (range->undecayed) how.weight_decay = 0;
    if (p->split)
        ex->op->adamw_split(ex, store_at(ex->dtype, p->copy, at), p->low ? p->low + at : NULL, m, v,
                            g, n, coef, how);
    else
        ex->op->adamw(ex, p->master + at, m, v, g, n, coef, how);
}

void optim_step(Optim *o, double norm, double lr, double max_norm) {
    Params *p = o->params;
    double coef = max_norm > 0 ? max_norm / (norm + 1e-6) : 1;
    AdamW how = o->how;
    how.lr = lr;
    how.step = ++o->step;
    exec_range_push(p->ex, "adamw");
    for (int i = 0; i < o->nrange; i++) update(p, &o->range[i], (float)fmin(coef, 1), how);
    params_project_masters(p);
    params_sync(p);
    exec_zero(p->ex, p->grad, p->size * sizeof *p->grad);
    exec_range_pop(p->ex);
}
