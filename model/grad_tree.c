/* grad_tree.c - a binary counter of gradients, each rank's of its own part of them. */
#include "model/grad_tree.h"

#include <string.h>

#include "kernels/check.h"

int grad_tree_levels(int most_packs) {
    int n = 0;
    for (int inner = most_packs - 1; inner > 0; inner /= 2) n++;
    return n;
}

static void carve(GradTree *t) {
    size_t ranks = (size_t)comm_size(t->comm);
    for (int k = 0; k < t->levels; k++)
        t->level[k] = arena_f32(&t->arena, "gradients of packs", t->part.n, 1);
    if (t->comm) t->round = arena_f32(&t->arena, "gradients of ranks", ranks, t->part.n);
}

/* The part of rank 0, which is the largest, is what every rank has room for. */
size_t grad_tree_bytes(const Params *p, int ranks, int most_packs) {
    size_t part = comm_part_of(ranks, p->size, 0).n, levels = (size_t)grad_tree_levels(most_packs);
    return (levels + (ranks > 1 ? (size_t)ranks : 0)) * part * sizeof(float);
}

void grad_tree_init(GradTree *t, Params *p, int most_packs) {
    Comm *c = p->ex->comm;
    *t = (GradTree){.params = p,
                    .comm = c,
                    .part = comm_part(c, p->size, comm_rank(c)),
                    .levels = grad_tree_levels(most_packs)};
    arena_init(&t->arena, p->ex, p->ex->dtype, "gradients of packs");
    carve(t);
    arena_place(&t->arena);
    carve(t);
}

void grad_tree_free(GradTree *t) {
    arena_free(&t->arena);
    memset(t, 0, sizeof *t);
}

/* leaf += level k, whose packs came before. */
static void join(GradTree *t, float *leaf, int k) {
    Exec *ex = t->params->ex;
    if (t->part.n) ex->op->add(ex, leaf, t->level[k], t->part.n, 1);
}

static void add_leaf(GradTree *t, float *leaf) {
    int k = 0;
    for (; t->packs >> k & 1; k++) join(t, leaf, k);
    CHECK(k < t->levels, "expected at most %u packs before the last, got more", t->packs);
    exec_copy(t->params->ex, t->level[k], leaf, t->part.n * sizeof *leaf);
    t->packs++;
}

/* The packs' gradients of this rank's part, one row a pack. */
static float *exchange(GradTree *t, int packs) {
    Params *p = t->params;
    if (!t->comm) return p->grad;
    comm_exchange(t->comm, p->ex, "gradients", t->round, p->grad, p->size, packs);
    return t->round;
}

void grad_tree_add(GradTree *t, int packs) {
    Params *p = t->params;
    float *leaf = exchange(t, packs);
    for (int i = 0; i < packs; i++) add_leaf(t, leaf + (size_t)i * t->part.n);
    exec_zero(p->ex, p->grad, p->size * sizeof *p->grad);
}

void grad_tree_finish(GradTree *t, int packs) {
    Params *p = t->params;
    float *leaf = exchange(t, packs), *last = leaf + (size_t)(packs - 1) * t->part.n;
    for (int i = 0; i < packs - 1; i++) add_leaf(t, leaf + (size_t)i * t->part.n);
    for (int k = 0; k < t->levels; k++)
        if (t->packs >> k & 1) join(t, last, k);
    t->packs = 0;
    if (!t->comm) return;
    exec_copy(p->ex, p->grad + t->part.at, last, t->part.n * sizeof *last);
    comm_all_gather(t->comm, p->ex, "gradients", p->grad, p->size);
}
