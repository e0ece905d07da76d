/* grad_tree.c - a binary counter of gradients. */
#include "model/grad_tree.h"

#include <string.h>

#include "kernels/check.h"

int grad_tree_levels(int most_packs) {
    int n = 0;
    for (int inner = most_packs - 1; inner > 0; inner /= 2) n++;
    return n;
}

static void carve(GradTree *t) {
    for (int k = 0; k < t->levels; k++)
        t->level[k] = arena_f32(&t->arena, "gradients of packs", t->params->size, 1);
}

void grad_tree_init(GradTree *t, Params *p, int most_packs) {
    *t = (GradTree){.params = p, .levels = grad_tree_levels(most_packs)};
    arena_init(&t->arena, p->ex, p->ex->dtype, "gradients of packs");
    carve(t);
    arena_place(&t->arena);
    carve(t);
}

void grad_tree_free(GradTree *t) {
    arena_free(&t->arena);
    memset(t, 0, sizeof *t);
}

/* params->grad += level k, whose packs came before. */
static void join(GradTree *t, int k) {
    Params *p = t->params;
    p->ex->op->add(p->ex, p->grad, t->level[k], p->size, 1);
}

void grad_tree_add(GradTree *t) {
    Params *p = t->params;
    size_t bytes = p->size * sizeof *p->grad;
    int k = 0;
    for (; t->packs >> k & 1; k++) join(t, k);
    CHECK(k < t->levels, "expected at most %u packs before the last, got more", t->packs);
    exec_copy(p->ex, t->level[k], p->grad, bytes);
    exec_zero(p->ex, p->grad, bytes);
    t->packs++;
}

void grad_tree_finish(GradTree *t) {
    for (int k = 0; k < t->levels; k++)
        if (t->packs >> k & 1) join(t, k);
    t->packs = 0;
}
