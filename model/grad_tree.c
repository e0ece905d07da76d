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
    size_t ranks = (size_t)t->machine.size, others = (size_t)t->others.size;
    bool behind = others > 1 && ranks == 0 && t->behind;
    for (int k = 0; k < t->levels; k++)
        t->level[k] = arena_f32(&t->arena, "gradients of packs", t->part.n, 1);
    if (others > 1) t->round = arena_f32(&t->arena, "gradients of ranks", others, t->part.n);
    if (ranks) t->within = arena_f32(&t->arena, "of this machine's", ranks, t->machine_part.n);
    if (behind) t->outbox = arena_f32(&t->arena, "gradients on their way", t->params->size, 1);
}

/* Who adds what. Machines of 2^j ranks in a row first by themselves. */
static void share_out(GradTree *t) {
    Comm *c = t->comm;
    size_t n = t->params->size;
    t->others = comm_all(c);
    t->machine_part = (CommPart){0, n};
    if (comm_machines(c, &t->machine, &t->others)) {
        t->machine_part = comm_part(t->machine, n, comm_member(c, t->machine));
        t->others.whole = n;
    }
    t->part = comm_part(t->others, t->machine_part.n, comm_member(c, t->others));
}

void grad_tree_init(GradTree *t, Params *p, int most_packs) {
    *t = (GradTree){.params = p,
                    .comm = p->ex->comm,
                    .behind = comm_behind(p->ex),
                    .levels = grad_tree_levels(most_packs)};
    share_out(t);
    arena_init(&t->arena, p->ex, p->ex->dtype, "gradients of packs");
    carve(t);
    arena_place(&t->arena);
    carve(t);
}

size_t grad_tree_bytes(Params *p, const Exec *ex, int ranks, int most_packs) {
    GradTree t = {.params = p,
                  .comm = ex->comm,
                  .behind = comm_behind(ex),
                  .others = {.stride = 1, .size = ranks},
                  .levels = grad_tree_levels(most_packs)};
    if (ex->comm)
        share_out(&t);
    else
        t.part = comm_part(t.others, p->size, 0); /* the largest */
    arena_init(&t.arena, NULL, p->ex->dtype, "gradients of packs");
    carve(&t);
    return t.arena.used;
}

void grad_tree_free(GradTree *t) {
    arena_free(&t->arena);
    memset(t, 0, sizeof *t);
}

static void add(GradTree *t, float *to, const float *more, size_t n) {
    Exec *ex = t->params->ex;
    if (n) ex->op->add(ex, to, more, n, 1);
}

static void add_leaf(GradTree *t, float *leaf) {
    int k = 0;
    for (; t->leaves >> k & 1; k++) add(t, leaf, t->level[k], t->part.n);
    CHECK(k < t->levels, "expected at most %u leaves before the last, got more", t->leaves);
    exec_copy(t->params->ex, t->level[k], leaf, t->part.n * sizeof *leaf);
    t->leaves++;
}

/* Adds the round that is on its way, if there is one. */
static void settle(GradTree *t) {
    if (t->pending) comm_arrived(t->comm, t->params->ex);
    for (int i = 0; i < t->pending; i++) add_leaf(t, t->round + (size_t)i * t->part.n);
    t->pending = 0;
}

/* The sum of this machine's packs, of which there are `packs`, in row 0: neighbours first, then
 * pairs, and so on. */
static const float *add_machine(GradTree *t, int packs) {
    Params *p = t->params;
    size_t n = t->machine_part.n;
    comm_exchange(t->comm, p->ex, t->machine, "gradients", t->within, p->grad, p->size, packs);
    comm_arrived(t->comm, p->ex);
    for (int wide = 1; wide < packs; wide *= 2)
        for (int i = 0; i + wide < packs; i += 2 * wide)
            add(t, t->within + (size_t)i * n, t->within + (size_t)(i + wide) * n, n);
    return t->within;
}

/* Sets the rows of a round on their way; returns how many there will be. */
static int exchange(GradTree *t, const float *from, int packs) {
    Params *p = t->params;
    int rows = packs, ranks = t->machine.size;
    if (ranks) {
        int here = packs - t->machine.first;
        from = add_machine(t, here < 0 ? 0 : here > ranks ? ranks : here);
        rows = (packs + ranks - 1) / ranks;
    }
    comm_exchange(t->comm, p->ex, t->others, "gradients", t->round, from, t->machine_part.n, rows);
    return rows;
}

void grad_tree_add(GradTree *t, int packs) {
    Params *p = t->params;
    size_t bytes = p->size * sizeof *p->grad;
    settle(t);
    if (t->outbox) exec_copy(p->ex, t->outbox, p->grad, bytes);
    if (t->round)
        t->pending = exchange(t, t->outbox ? t->outbox : p->grad, packs);
    else
        add_leaf(t, p->grad);
    exec_zero(p->ex, p->grad, bytes);
}

void grad_tree_finish(GradTree *t, int packs) {
    Params *p = t->params;
    settle(t);
    int rows = t->round ? exchange(t, p->grad, packs) : 1;
    float *leaf = t->round ? t->round : p->grad, *last = leaf + (size_t)(rows - 1) * t->part.n;
    if (t->round) comm_arrived(t->comm, p->ex);
    for (int i = 0; i < rows - 1; i++) add_leaf(t, leaf + (size_t)i * t->part.n);
    for (int k = 0; k < t->levels; k++)
        if (t->leaves >> k & 1) add(t, last, t->level[k], t->part.n);
    t->leaves = 0;
    if (!t->round) return;
    float *sum = p->grad + t->machine_part.at;
    exec_copy(p->ex, sum + t->part.at, last, t->part.n * sizeof *last);
    comm_all_gather(t->comm, p->ex, t->others, "gradients", sum, t->machine_part.n);
    if (t->machine.size) comm_all_gather(t->comm, p->ex, t->machine, "gradients", p->grad, p->size);
    comm_arrived(t->comm, p->ex);
}
