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
    const Params *p = t->params;
    size_t ranks = (size_t)t->machine.size, others = (size_t)t->share[0].group.size, most = 0;
    bool behind = others > 1 && ranks == 0 && !p->ranks && t->behind;
    for (int i = 0; i < t->nshare; i++)
        if (t->share[i].own.n > most) most = t->share[i].own.n;
    for (int k = 0; k < t->levels; k++)
        t->level[k] = arena_f32(&t->arena, "gradients of packs", t->held, 1);
    if (others > 1 || p->ranks) t->round = arena_f32(&t->arena, "gradients of ranks", others, most);
    if (ranks) t->within = arena_f32(&t->arena, "of this machine's", ranks, t->share[0].n);
    if (behind) t->outbox = arena_f32(&t->arena, "gradients on their way", p->size, 1);
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

/* Are all packs of a round a subtree? Then they are added before they are leaves. */
static bool folds(const Params *p) {
    return (p->ranks & (p->ranks - 1)) == 0;
}

static int leaves_of(const Params *p, int packs) {
    return p->ranks && folds(p) ? (packs + p->ranks - 1) / p->ranks : packs;
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
                    .levels = grad_tree_levels(leaves_of(p, most_packs)),
                    .section = -1};
    measure(t, p->ex, comm_all(t->comm));
    arena_place(&t->arena);
    carve(t);
}

size_t grad_tree_level_bytes(const Params *p, int most_packs) {
    return (size_t)grad_tree_levels(leaves_of(p, most_packs)) * p->held * sizeof(float);
}

size_t grad_tree_bytes(Params *p, const Exec *ex, int ranks, int most_packs) {
    GradTree t = {.params = p,
                  .comm = ex->comm,
                  .behind = comm_behind(ex),
                  .levels = grad_tree_levels(leaves_of(p, most_packs))};
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

static void add_leaf(GradTree *t, const TreeShare *s, float *leaf, unsigned number) {
    int k = 0;
    for (; number >> k & 1; k++) add(t, leaf, t->level[k] + s->held, s->own.n);
    CHECK(k < t->levels, "expected at most %u leaves before the last, got more", number);
    exec_copy(t->params->ex, t->level[k] + s->held, leaf, s->own.n * sizeof *leaf);
}

/* The leaves that lie one behind another at `leaf`; the last of a step becomes the sum. */
static void add_leaves(GradTree *t, const TreeShare *s, float *leaf, int n, bool last) {
    unsigned number = t->leaves;
    for (int i = 0; i < n - last; i++, leaf += s->own.n) add_leaf(t, s, leaf, number++);
    for (int k = 0; last && k < t->levels; k++)
        if (number >> k & 1) add(t, leaf, t->level[k] + s->held, s->own.n);
}

/* The sum of so many neighbours in row 0: two and two first, then these, and so on. */
static void fold(GradTree *t, float *rows, size_t n, int packs) {
    for (int wide = 1; wide < packs; wide *= 2)
        for (int i = 0; i + wide < packs; i += 2 * wide)
            add(t, rows + (size_t)i * n, rows + (size_t)(i + wide) * n, n);
}

/* Adds what is on its way, if there is something. */
static void settle(GradTree *t) {
    Params *p = t->params;
    int n = t->pending, i = t->section;
    const TreeShare *s = &t->share[i < 0 ? 0 : i];
    bool sum = i >= 0 && t->last;
    if (n) comm_arrived(t->comm, p->ex);
    if (n && i >= 0 && folds(p)) fold(t, t->round, s->own.n, n), n = 1;
    if (n) add_leaves(t, s, t->round, n, sum);
    if (n && sum)
        exec_copy(p->ex, p->grad + s->held, t->round + (size_t)(n - 1) * s->own.n,
                  s->own.n * sizeof *t->round);
    if (i <= 0) t->leaves += (unsigned)n; /* all of their sections are there */
    t->pending = 0, t->section = -1;
}

/* The sum of this machine's packs, of which there are `packs`, in row 0. */
static const float *add_machine(GradTree *t, int packs) {
    Params *p = t->params;
    comm_exchange(t->comm, p->ex, t->machine, "gradients", t->within, p->grad, p->size, packs);
    comm_arrived(t->comm, p->ex);
    fold(t, t->within, t->share[0].n, packs);
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
    const TreeShare *s = t->share;
    comm_exchange(t->comm, p->ex, s->group, "gradients", t->round, within ? within : grad, s->n,
                  rows);
    return rows;
}

/* ------------------------------------------------------------------------- section by section --
 */

static void zero_section(const Params *p, const ParamSection *s) {
    exec_zero(p->ex, s->grad, s->n * sizeof *s->grad);
}

void grad_tree_round(GradTree *t, int packs, bool last) {
    const Params *p = t->params;
    if (!p->ranks) return;
    settle(t);
    t->packs = packs, t->last = last, t->next = p->nsections;
    for (const ParamSection *s = p->section; s < p->section + p->nsections; s++)
        if (!s->in_turn) zero_section(p, s);
}

void grad_tree_give(void *tree, int section) {
    GradTree *t = tree;
    const TreeShare *s = &t->share[section];
    CHECK(section == t->next - 1, "section %d after %d", section, t->next);
    settle(t);
    const ParamSection *of = &t->params->section[section];
    comm_exchange(t->comm, t->params->ex, s->group, of->of_grad, t->round, of->grad, s->n,
                  t->packs);
    t->pending = t->packs, t->section = section, t->next = section;
}

/* What no pass has given: this rank has no pack, or one of which there is nothing to learn. */
static void give_rest(GradTree *t) {
    while (t->next > 0) {
        zero_section(t->params, &t->params->section[t->next - 1]);
        grad_tree_give(t, t->next - 1);
    }
}

/* ------------------------------------------------------------------------------ all at once -- */

void grad_tree_add(GradTree *t, int packs) {
    Params *p = t->params;
    size_t bytes = p->size * sizeof *p->grad;
    if (p->ranks) {
        give_rest(t);
        return;
    }
    settle(t);
    if (t->outbox) exec_copy(p->ex, t->outbox, p->grad, bytes);
    if (t->round)
        t->pending = exchange(t, t->outbox ? t->outbox : p->grad, packs);
    else
        add_leaf(t, t->share, p->grad, t->leaves++);
    exec_zero(p->ex, p->grad, bytes);
}

static void finish_all(GradTree *t, int packs) {
    Params *p = t->params;
    const TreeShare *s = t->share;
    settle(t);
    int rows = t->round ? exchange(t, p->grad, packs) : 1;
    float *leaf = t->round ? t->round : p->grad, *last = leaf + (size_t)(rows - 1) * s->own.n;
    if (t->round) comm_arrived(t->comm, p->ex);
    add_leaves(t, s, leaf, rows, true);
    if (!t->round) return;
    float *sum = p->grad + s->at;
    exec_copy(p->ex, sum + s->own.at, last, s->own.n * sizeof *last);
    comm_all_gather(t->comm, p->ex, s->group, "gradients", sum, s->n);
    if (t->machine.size) comm_all_gather(t->comm, p->ex, t->machine, "gradients", p->grad, p->size);
    comm_arrived(t->comm, p->ex);
}

void grad_tree_finish(GradTree *t, int packs) {
    if (t->params->ranks) {
        give_rest(t);
        settle(t);
    } else {
        finish_all(t, packs);
    }
    t->leaves = 0;
}
