/* optim.c - clipping and AdamW over the trained ranges. */
#include "model/optim.h"

#include <math.h>
#include <string.h>

#include "data/base/mem.h"

/* What of the range this rank has, section by section. */
static void add_own(Optim *o, OptimRange all) {
    const Params *p = o->params;
    for (const ParamSection *s = p->section; s < p->section + p->nsections; s++) {
        size_t held;
        CommPart own = params_own(p, s, all.span.at, all.span.n, &held);
        if (own.n) o->range[o->nrange++] = (OptimRange){{own.at, own.n}, held, all.undecayed};
    }
}

static void close_range(Optim *o, const OptimRange *open) {
    if (open->span.n == 0) return;
    if (o->params->ranks)
        add_own(o, *open);
    else
        o->range[o->nrange++] = *open;
}

/* Between two tensors that follow each other lies at most padding, which is zero and stays zero:
 * they make one range, whatever their size, if they are updated alike. */
static void find_ranges(Optim *o) {
    const Params *p = o->params;
    OptimRange open = {.span = {0, 0}}; /* to the tensor before this one, if it is trained */
    for (const Param *t = p->param; t < p->param + p->n; t++) {
        if (t->trained && open.span.n && open.undecayed == t->undecayed) {
            open.span.n = t->at + t->n - open.span.at;
            continue;
        }
        close_range(o, &open);
        open = (OptimRange){{t->at, t->trained ? t->n : 0}, t->at, t->undecayed};
    }
    close_range(o, &open);
}

static size_t count_blocks(const Params *p) {
    size_t blocks = 0;
    for (const Param *t = p->param; t < p->param + p->n; t++)
        blocks += (t->n + PARAM_BLOCK - 1) / PARAM_BLOCK;
    return blocks;
}

/* A block is a rank's, and the how manieth of its own. */
typedef struct Whose {
    int rank, number;
} Whose;

/* The rank of the block at this place; s moves on to its section. */
static int owner(const Params *p, const ParamSection **s, size_t at) {
    if (!p->ranks) return 0;
    while (at >= (*s)->at + (*s)->n) ++*s;
    return params_owner(*s, at - (*s)->at, p->ranks);
}

size_t optim_bytes(const Params *p) {
    const ParamSection *s = p->section;
    size_t own = 0;
    for (const Param *t = p->param; t < p->param + p->n; t++)
        for (size_t i = 0; i < t->n; i += PARAM_BLOCK) own += owner(p, &s, t->at + i) == p->rank;
    return own * (sizeof(Span) + sizeof(double));
}

/* Fills own with this rank's blocks, whose with everybody's, and the counts. */
static void list_blocks(Optim *o, Span *own, Whose *whose, int *count) {
    const Params *p = o->params;
    const ParamSection *s = p->section;
    for (const Param *t = p->param; t < p->param + p->n; t++)
        for (size_t i = 0; t->trained && i < t->n; i += PARAM_BLOCK) {
            Span b = {t->at + i, t->n - i < PARAM_BLOCK ? t->n - i : PARAM_BLOCK};
            int r = owner(p, &s, b.at);
            whose[o->nall++] = (Whose){r, count[r]++};
            if (count[r] > o->most) o->most = count[r];
            if (r != p->rank) continue;
            size_t held = b.at;
            if (p->ranks) params_own(p, s, b.at, b.n, &held);
            own[o->nblock++] = (Span){held, b.n}, o->own += b.n;
        }
}

static void make_blocks(Optim *o) {
    const Params *p = o->params;
    size_t all = count_blocks(p), ranks = p->ranks ? (size_t)p->ranks : 1;
    Span *block = mem_array(all, sizeof *block);
    Whose *whose = mem_array(all, sizeof *whose);
    int *count = mem_array(ranks, sizeof *count);
    CHECK(all <= INT32_MAX, "%zu blocks of gradients", all);
    list_blocks(o, block, whose, count);
    o->place = mem_array(all, sizeof *o->place);
    for (int i = 0; i < o->nall; i++) o->place[i] = whose[i].rank * o->most + whose[i].number;
    o->host = mem_array(ranks * (size_t)o->most, sizeof *o->host);
    size_t n = (size_t)o->nblock;
    o->block = exec_alloc(p->ex, n * sizeof *block, "gradient norm");
    o->square = exec_alloc(p->ex, n * sizeof *o->square, "gradient norm");
    exec_copy_in(p->ex, o->block, block, n * sizeof *block);
    free(count), free(whose), free(block);
}

void optim_init(Optim *o, Params *p, AdamW how) {
    CHECK(p->grad, "expected tensors that were made for training");
    *o = (Optim){.params = p, .how = how};
    o->range = mem_array((size_t)(p->n + p->nsections), sizeof *o->range);
    find_ranges(o);
    make_blocks(o);
}

void optim_free(Optim *o) {
    if (o->params) exec_free(o->params->ex, o->square);
    if (o->params) exec_free(o->params->ex, o->block);
    free(o->place);
    free(o->host);
    free(o->range);
    memset(o, 0, sizeof *o);
}

double optim_norm(Optim *o) {
    Params *p = o->params;
    double sum = 0, *own = o->host + (size_t)p->rank * (size_t)o->most;
    exec_range_push(p->ex, "norm");
    params_project_grads(p);
    p->ex->op->sumsq(p->ex, o->square, p->grad, o->block, o->nblock, o->own);
    exec_copy_out(p->ex, own, o->square, (size_t)o->nblock * sizeof *own);
    if (p->ranks)
        comm_share(p->ex->comm, "squares of gradients", o->host, (size_t)o->most * sizeof *own);
    for (int i = 0; i < o->nall; i++) sum += o->host[o->place[i]];
    exec_range_pop(p->ex);
    return sqrt(sum);
}

static void update(Params *p, const OptimRange *range, float coef, AdamW how) {
    Exec *ex = p->ex;
    size_t held = range->held, n = range->span.n;
    float *m = p->m + held, *v = p->v + held, *g = p->grad + held;
    if (range->undecayed) how.weight_decay = 0;
    if (p->split)
        ex->op->adamw_split(ex, store_at(ex->dtype, p->copy, held), p->low ? p->low + held : NULL,
                            m, v, g, n, coef, how);
    else
        ex->op->adamw(ex, p->master + held, m, v, g, n, coef, how);
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
    params_renew(p);
    exec_zero(p->ex, p->grad, p->held * sizeof *p->grad);
    exec_range_pop(p->ex);
}
