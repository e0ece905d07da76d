/* adapter_start_eva.c - adapters that start from principal components of what they read. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/base/mem.h"
#include "model/adapter_start_impl.h"

int eva_columns(int rank, double rho, int W) {
    double asked = rho > 1 ? nearbyint(rank * rho) : rank; /* to even, as Python's round */
    return asked < W ? (int)asked : W;
}

const Basis *eva_basis(const Subspace *s, int layer, enum Proj p) {
    int g = 0;
    while (group_first[g + 1] <= p) g++;
    for (const Basis *b = s->basis; b < s->basis + s->n; b++)
        if (b->layer == layer && b->of && strcmp(b->of, group_name[g]) == 0) return b;
    return NULL;
}

bool eva_check(const StartOptions *o, const Basis *b, Err *err) {
    int want = eva_columns(o->rank, o->rho, b->D);
    return b->R == want ||
           err_set(err, EXIT_INPUT,
                   "the subspace of layer %d has rank %d, --rank asks for %d%s; make it again with "
                   "this rank%s",
                   b->layer, b->R, want, o->rho > 1 ? " with this --rho" : "",
                   b->R > want ? ", or give the --rho that it was made with" : "");
}

int eva_rank(const StartOptions *o, const Subspace *s, int layer, enum Proj p) {
    (void)o;
    return eva_basis(s, layer, p)->R;
}

/* ---------------------------------------------------------------------------------- sharing -- */

/* A column that an adapter may have; those of all adapters lie in the order of their numbers. */
typedef struct Column {
    double share; /* of its input's variance; 0: it is random */
    int adapter, number;
} Column;

static int larger_share(const void *a, const void *b) {
    const Column *x = a, *y = b;
    if (x->share != y->share) return x->share < y->share ? 1 : -1;
    return x->adapter != y->adapter ? x->adapter - y->adapter : x->number - y->number;
}

/* What rho 1 would give out, and the columns to choose from. */
static size_t list_columns(Column *all, size_t *budget, const LoraShape *shape, const Config *c,
                           const StartOptions *o, const Subspace *s) {
    size_t n = 0;
    *budget = 0;
    for (int i = 0; i < c->L * PROJ_COUNT; i++) {
        if (shape->rank[i] == 0) continue;
        const Basis *b = eva_basis(s, i / PROJ_COUNT, (enum Proj)(i % PROJ_COUNT));
        *budget += (size_t)o->rank;
        for (int j = 0; j < b->R; j++)
            all[n++] = (Column){j < basis_shares(b) ? b->variance[j] : 0, i, j};
    }
    return n;
}

void eva_share(LoraShape *shape, const Config *c, const StartOptions *o, const Subspace *s) {
    size_t most = 1, budget;
    for (int i = 0; i < c->L * PROJ_COUNT; i++) most += (size_t)shape->rank[i];
    Column *all = mem_array(most, sizeof *all);
    size_t n = list_columns(all, &budget, shape, c, o, s);
    CHECK(budget <= n, "%zu columns of %zu", budget, n);
    qsort(all, n, sizeof *all, larger_share);
    for (int i = 0; i < c->L * PROJ_COUNT; i++) shape->rank[i] = 0;
    for (size_t k = 0; k < budget; k++) shape->rank[all[k].adapter]++;
    for (int i = 0; i < c->L * PROJ_COUNT; i++)
        shape->alpha[i] = (float)((double)o->alpha * shape->rank[i] / o->rank);
    free(all);
}

/* --------------------------------------------------------------------------------- the start -- */

bool eva_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s, Err *err) {
    (void)err;
    for (int i = 0; i < m->c.L * PROJ_COUNT; i++) {
        Adapter *a = &l->adapter[i];
        if (a->R == 0) continue;
        const Basis *b = eva_basis(s, i / PROJ_COUNT, (enum Proj)(i % PROJ_COUNT));
        float *A = mem_array(a->A->n, sizeof *A);
        for (int r = 0; r < a->R; r++)
            for (int d = 0; d < a->in; d++)
                A[(size_t)r * (size_t)a->in + (size_t)d] =
                    (float)(o->basis_scale * b->U[(size_t)d * (size_t)b->R + (size_t)r]);
        exec_copy_in(l->ex, a->A->master, A, a->A->n * sizeof *A);
        if (o->freeze_basis) a->A->trained = false;
        free(A);
    }
    return true;
}
