/* What ranks share out of all weights: whose is what; and gradients that exist two layers at a
 * time, whose sum has the bits of that of whole ones. */
#include "kernels/comm_impl.h"
#include "model/grad_tree.h"
#include "model/optim.h"
#include "tests/golden.h"

/* Is a block of the norm cut at this place of all tensors? */
static bool inside_block(const Params *p, size_t at) {
    for (const Param *t = p->param; t < p->param + p->n; t++)
        if (at > t->at && at < t->at + t->n) return (at - t->at) % PARAM_BLOCK != 0;
    return false;
}

/* Sections and parts lie one behind another, are all there is, cut no block, and are alike but for
 * a block each. */
static void test_shares(Exec *ex, const Config *c, int ranks) {
    Full f;
    size_t most = 0, sum = 0, norms = 0, all_norms = 0;
    for (int r = 0; r < ranks; r++) {
        full_declare(&f, ex, c, 1);
        Params *p = &f.params;
        all_norms = optim_bytes(p);
        params_share_out(p, ranks, r);
        norms += optim_bytes(p);
        size_t at = 0, held = 0;
        for (const ParamSection *s = p->section; s < p->section + p->nsections; s++) {
            EXPECT(s->at == at && s->held == held, "a section at %zu, not %zu", s->at, at);
            size_t part = 0;
            for (int i = 0; i < ranks; i++) {
                EXPECT(s->part[i].at == part, "a part at %zu, not %zu", s->part[i].at, part);
                EXPECT(!inside_block(p, s->at + part), "%d ranks: a block is cut", ranks);
                EXPECT(s->part[i].n <= s->n / (size_t)ranks + PARAM_BLOCK, "a part of %zu of %zu",
                       s->part[i].n, s->n);
                for (size_t k = part; k < part + s->part[i].n; k += 1000)
                    EXPECT(params_owner(s, k, ranks) == i, "whose is %zu", k);
                part += s->part[i].n;
            }
            EXPECT(part == s->n, "%zu of %zu are somebody's", part, s->n);
            at += s->n, held += s->part[r].n;
        }
        EXPECT(at >= p->size && at < p->size + 16 && held == p->held, "%zu of %zu", at, p->size);
        most = held > most ? held : most, sum += held;
        full_free(&f);
    }
    EXPECT(norms == all_norms, "%zu bytes for norms on %d ranks, not %zu", norms, ranks, all_norms);
    full_declare(&f, ex, c, ranks);
    EXPECT(ranks == 1 || f.params.held == most, "planned %zu, not %zu", f.params.held, most);
    EXPECT(sum >= f.params.size, "%zu of %zu", sum, f.params.size);
    full_free(&f);
}

static void test_borders(Exec *ex) {
    const Config c = {.L = 3, .D = 300, .F = 700, .V = 9000, .H = 2, .K = 1, .E = 100};
    for (int ranks = 1; ranks <= 8; ranks++) test_shares(ex, &c, ranks);
}

/* A step of the documents one by one, with a pack between them that has no labels, with these
 * gradients; the sum of all. */
static float *step(Golden *g, Acts *a, Full *f) {
    enum { PACKS = GOLDEN_DOCS + 1, EMPTY = 2 };
    Params *p = &f->params;
    GradTree t;
    Objective sft = objective_sft(100);
    exec_zero(p->ex, p->grad, p->held * sizeof *p->grad);
    grad_tree_init(&t, p, PACKS);
    g->m.full = f;
    if (p->ranks) full_tell(f, grad_tree_give, &t);
    for (int i = 0; i < PACKS; i++) {
        float nll[GOLDEN_ROWS];
        Pack pack;
        pack_init(&pack, GOLDEN_ROWS, 16, GOLDEN_ROWS);
        grad_tree_round(&t, 1, i + 1 == PACKS);
        if (i != EMPTY) {
            golden_add(g, &pack, i - (i > EMPTY));
            model_loss(&g->m, a, &pack, &sft, nll);
            model_backward(&g->m, a, &pack);
        }
        (i + 1 < PACKS ? grad_tree_add : grad_tree_finish)(&t, 1);
        pack_free(&pack);
    }
    full_tell(f, NULL, NULL);
    grad_tree_free(&t);
    float *sum = mem_array(p->held, sizeof *sum);
    exec_copy_out(p->ex, sum, p->grad, p->held * sizeof *sum);
    return sum;
}

static void test_sections(Exec *ex, const char *name) {
    Golden g;
    Full whole, shared;
    Err err;
    golden_open(&g, ex, name);
    model_close(&g.m);
    MUST(model_open_trained(&g.m, &whole, ex, g.folder, 0, &err), err);
    Acts *a = acts_create(&g.m, GOLDEN_ROWS, 16, GOLDEN_ROWS, ACTS_TRAIN);
    full_alloc(&shared, ex, &g.m.c, 1, 0);
    size_t n = whole.params.size;
    EXPECT(shared.params.held == n, "%zu elements held of %zu", shared.params.held, n);
    float *want = step(&g, a, &whole), *got = step(&g, a, &shared);
    EXPECT(memcmp(got, want, n * sizeof *got) == 0, "%s: another sum in sections", g.folder);
    EXPECT(golden_norm(want, NULL, n) > 0, "%s: nothing is added", g.folder);
    free(got), free(want);
    full_free(&shared);
    acts_destroy(a);
    golden_close(&g);
    full_free(&whole);
}

/* -------------------------------------------------------------------------- what ranks sign -- */

static void no_barrier(void) {}
static enum TransportState at_once(void) {
    return TRANSPORT_DONE;
}
static void no_move(const Move *move, int n) {
    (void)move, (void)n;
}

typedef struct Signed {
    enum CommOp op;
    char what[64];
} Signed;
typedef struct Calls {
    Signed call[512];
    int n;
} Calls;

static void note(void *context, const CommCall *call) {
    Calls *all = context;
    CHECK(all->n < 512, "too many calls");
    Signed *s = &all->call[all->n++];
    s->op = call->op;
    snprintf(s->what, sizeof s->what, "%s", call->what);
}

/* Two ranks, of which one is a section ahead, sign different calls at once: no call of a step is
 * the next one's like, but for a pass that begins where the last one ended; and what they sign has
 * room on the board. */
static void test_signed(Exec *ex) {
    static const Transport alone = {
        .barrier = no_barrier, .move = no_move, .poll = at_once, .close = no_barrier};
    Comm *comm = comm_make(&alone, (TransportSeat){.size = 1, .local_size = 1});
    const Config c = {.L = 3, .D = 300, .F = 700, .V = 9000, .H = 2, .K = 1, .E = 100};
    Calls calls = {.n = 0};
    GradTree t;
    Full f;
    ex->comm = comm;
    comm_watch(comm, &(CommWatch){.begin = note, .context = &calls});
    full_alloc(&f, ex, &c, 1, 0);
    grad_tree_init(&t, &f.params, 1);
    params_renew(&f.params);
    for (int i = 0; i < f.params.nsections; i++)
        if (f.params.section[i].in_turn) params_need(&f.params, i);
    grad_tree_round(&t, 1, true);
    grad_tree_finish(&t, 1);
    EXPECT(calls.n == 2 * f.params.nsections && f.params.nsections > c.L + 2, "%d calls", calls.n);
    for (int i = 0; i < calls.n; i++) {
        EXPECT(strlen(calls.call[i].what) < 40, "no room for %s", calls.call[i].what);
        for (int j = 0; j < i; j++)
            EXPECT(strcmp(calls.call[i].what, calls.call[j].what) != 0, "calls %d and %d are of %s",
                   j, i, calls.call[i].what);
    }
    EXPECT(strcmp(calls.call[calls.n - 1].what, "gradients, embedding 1/4") == 0,
           "the last is of %s", calls.call[calls.n - 1].what);
    grad_tree_free(&t);
    full_free(&f);
    comm_close(comm);
    ex->comm = NULL;
}

static void body(Exec *ex) {
    if (test_on_cpu(ex)) test_borders(ex), test_signed(ex);
    test_sections(ex, "model_a");
}

int main(void) {
    test_each_exec(body);
    return test_done("test_full_shares");
}
