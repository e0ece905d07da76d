/* grad_tree.c - a binary counter of gradients, each rank's of its own part of them. */
#include "model/grad_tree.h"

#include <string.h>

#include "data/base/mem.h"
#include "kernels/check.h"

int grad_tree_levels(int most_packs) {
    int n = 0;
    for (int inner = most_packs - 1; inner > 0; inner /= 2) n++;
    return n;
}

static void carve(GradTree *t) {
    size_t ranks = (size_t)t->machine.size, others = (size_t)t->share[0].group.size;
    bool behind = others > 1 && ranks == 0 && t->behind;
    for (int k = 0; k < t->levels; k++)
        t->level[k] = arena_f32(&t->arena, "gradients of packs", t->held, 1);
    if (others > 1) t->round = arena_f32(&t->arena, "gradients of ranks", others, t->held);
    if (ranks) t->within = arena_f32(&t->arena, "of this machine's", ranks, t->share[0].n);
    if (behind) t->outbox = arena_f32(&t->arena, "gradients on their way", t->params->size, 1);
}

/* Who adds what: all of it is shared out at once, on several machines what one of them adds up ..
 */
static void share_all(GradTree *t, CommGroup all) {
    Comm *c = t->comm;
    size_t n = t->params->size;
    TreeShare *s = t->share = mem_array(1, sizeof *s);
    *s = (TreeShare){.group = all, .n = n};
    if (comm_machines(c, &t->machine, &s->group)) {
        CommPart ours = comm_part(t->machine, n, comm_member(c, t->machine));
        s->at = ours.at, s->n = ours.n;
        s->group.whole = n;
    }
    s->own = comm_part(s->group, s->n, comm_member(c, s->group));
    t->nshare = 1, t->held = s->own.n;
}

/* .. or section by section, as masters are. */
static void share_sections(GradTree *t) {
    const Params *p = t->params;
    t->nshare = p->nsections, t->held = p->held;
    t->share = mem_array((size_t)t->nshare, sizeof *t->share);
    for (int i = 0; i < t->nshare; i++) {
        const ParamSection *s = &p->section[i];
        t->share[i] = (TreeShare){params_group(p, s), s->at, s->n, s->part[p->rank], s->held};
    }
}

static void measure(GradTree *t, Exec *ex, CommGroup all) {
    if (t->params->ranks)
        share_sections(t);
    else
        share_all(t, all);
    arena_init(&t->arena, ex, t->params->ex->dtype, "gradients of packs");
    carve(t);
}

void grad_tree_init(GradTree *t, Params *p, int most_packs) {
    *t = (GradTree){.params = p,
                    .comm = p->ex->comm,
                    .behind = comm_behind(p->ex),
                    .levels = grad_tree_levels(most_packs)};
    measure(t, p->ex, comm_all(t->comm));
    arena_place(&t->arena);
    carve(t);
}

size_t grad_tree_bytes(Params *p, const Exec *ex, int ranks, int most_packs) {
    GradTree t = {.params = p,
                  .comm = ex->comm,
                  .behind = comm_behind(ex),
                  .levels = grad_tree_levels(most_packs)};
    const CommGroup planned = {.stride = 1, .size = ranks}; /* rank 0's part is the largest */
    measure(&t, NULL, ex->comm ? comm_all(ex->comm) : planned);
    free(t.share);
    return t.arena.used;
}

void grad_tree_free(GradTree *t) {
    arena_free(&t->arena);
    free(t->share);
    memset(t, 0, sizeof *t);
}

static void add(GradTree *t, float *to, const float *more, size_t n) {
    Exec *ex = t->params->ex;
    if (n) ex->op->add(ex, to, more, n, 1);
}

/* Of all shares, leaf i of those that lie at `rows`. */
static float *row_of(const TreeShare *s, float *rows, int i) {
    return rows + (size_t)s->group.size * s->held + (size_t)i * s->own.n;
}

static void add_leaf(GradTree *t, float *rows, int i) {
    int k = 0;
    for (; t->leaves >> k & 1; k++) continue;
    CHECK(k < t->levels, "expected at most %u leaves before the last, got more", t->leaves);
    for (const TreeShare *s = t->share; s < t->share + t->nshare; s++) {
        float *leaf = row_of(s, rows, i);
        for (int j = 0; j < k; j++) add(t, leaf, t->level[j] + s->held, s->own.n);
        exec_copy(t->params->ex, t->level[k] + s->held, leaf, s->own.n * sizeof *leaf);
    }
    t->leaves++;
}

/* Adds the round that is on its way, if there is one. */
static void settle(GradTree *t) {
    if (t->pending) comm_arrived(t->comm, t->params->ex);
    for (int i = 0; i < t->pending; i++) add_leaf(t, t->round, i);
    t->pending = 0;
}

/* The sum of this machine's packs, of which there are `packs`, in row 0: neighbours first, then
 * pairs, and so on. */
static const float *add_machine(GradTree *t, int packs) {
    Params *p = t->params;
    size_t n = t->share[0].n;
    comm_exchange(t->comm, p->ex, t->machine, "gradients", t->within, p->grad, p->size, packs);
    comm_arrived(t->comm, p->ex);
    for (int wide = 1; wide < packs; wide *= 2)
        for (int i = 0; i + wide < packs; i += 2 * wide)
            add(t, t->within + (size_t)i * n, t->within + (size_t)(i + wide) * n, n);
    return t->within;
}

/* Sets the rows of a round on their way; returns how many there will be. */
static int exchange(GradTree *t, const float *grad, int packs) {
    Params *p = t->params;
    int rows = packs, ranks = t->machine.size;
    const float *within = NULL;
    if (ranks) {
        int here = packs - t->machine.first;
        within = add_machine(t, here < 0 ? 0 : here > ranks ? ranks : here);
        rows = (packs + ranks - 1) / ranks;
    }
    for (const TreeShare *s = t->share; s < t->share + t->nshare; s++)
        comm_exchange(t->comm, p->ex, s->group, "gradients", row_of(s, t->round, 0),
                      within ? within : grad + s->at, s->n, rows);
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
        add_leaf(t, p->grad, 0);
    exec_zero(p->ex, p->grad, bytes);
}

static void gather(GradTree *t) {
    Params *p = t->params;
    for (const TreeShare *s = t->share; s < t->share + t->nshare; s++)
        comm_all_gather(t->comm, p->ex, s->group, "gradients", p->grad + s->at, s->n);
    if (t->machine.size) comm_all_gather(t->comm, p->ex, t->machine, "gradients", p->grad, p->size);
    comm_arrived(t->comm, p->ex);
}

void grad_tree_finish(GradTree *t, int packs) {
    Params *p = t->params;
    settle(t);
    int rows = t->round ? exchange(t, p->grad, packs) : 1;
    float *leaf = t->round ? t->round : p->grad;
    if (t->round) comm_arrived(t->comm, p->ex);
    for (int i = 0; i < rows - 1; i++) add_leaf(t, leaf, i);
    for (const TreeShare *s = t->share; s < t->share + t->nshare; s++) {
        float *last = row_of(s, leaf, rows - 1);
        for (int k = 0; k < t->levels; k++)
            if (t->leaves >> k & 1) add(t, last, t->level[k] + s->held, s->own.n);
        if (t->round) exec_copy(p->ex, p->grad + s->at + s->own.at, last, s->own.n * sizeof *last);
    }
    t->leaves = 0;
    if (t->round && !p->ranks) gather(t);
}

void grad_tree_gather(GradTree *t) {
    if (t->params->ranks) gather(t);
}
