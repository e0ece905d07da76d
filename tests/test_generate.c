/* Generation: greedy replies equal transformers' token for token, and no reply depends on what
 * else is being generated. */
#include "model/generate.h"
#include "tests/golden.h"

enum { PROMPTS = 4, MAX_NEW = 14, MAX_LEN = 40 };

typedef struct Reply {
    int n, stop, calls;
    int32_t token[MAX_LEN];
} Reply;

static void keep(void *context, const GenReply *r) {
    Reply *to = (Reply *)context + r->index;
    to->n = r->n, to->stop = r->stop;
    to->calls++;
    memcpy(to->token, r->token, (size_t)r->n * sizeof *r->token);
}

static void run(const Model *m, GenOptions o, const GenPrompt *p, int n, Reply *reply) {
    memset(reply, 0, (size_t)n * sizeof *reply);
    Generator *g = gen_create(m, &o);
    EXPECT(gen_run(g, p, n, keep, reply) == GEN_DONE, "gave up unasked");
    gen_destroy(g);
    for (int i = 0; i < n; i++)
        EXPECT(reply[i].calls == 1, "prompt %d was answered %d times", i, reply[i].calls);
}

static int reply_equals(const Reply *r, const int32_t *ref, size_t n) {
    /* transformers' list holds the stop token. */
    int ok = (size_t)r->n + (r->stop >= 0) == n;
    for (int i = 0; ok && i < r->n; i++) ok = r->token[i] == ref[i];
    return ok && (r->stop < 0 || r->stop == ref[n - 1]);
}

static int same(const Reply *a, const Reply *b, int n) {
    for (int i = 0; i < n; i++)
        if (a[i].n != b[i].n || a[i].stop != b[i].stop ||
            memcmp(a[i].token, b[i].token, (size_t)a[i].n * sizeof a[i].token[0]) != 0)
            return 0;
    return 1;
}

static void prompts(const Golden *g, GenPrompt *p) {
    for (int i = 0; i < PROMPTS; i++) {
        const StTensor *t = golden_ref(g, "gen%d.prompt", i);
        p[i] = (GenPrompt){.token = golden_i32(t),
                           .n = (int)t->count,
                           .max_new = MAX_NEW,
                           .document = 100 + (uint64_t)i};
    }
}

static void test_greedy(const Golden *g, const GenPrompt *p) {
    GenOptions o = {.slots = 3, .max_len = MAX_LEN, .prefill_rows = 16, .how = {.top_p = 1}};
    Reply r[PROMPTS];
    run(&g->m, o, p, PROMPTS, r);
    for (int i = 0; i < PROMPTS; i++) {
        const StTensor *t = golden_ref(g, "gen%d.tokens", i);
        int32_t *ref = golden_i32(t);
        EXPECT(reply_equals(&r[i], ref, t->count), "%s: prompt %d", g->folder, i);
        r[i].token[r[i].n / 2] ^= 1;
        if (r[i].n > 0)
            EXPECT(!reply_equals(&r[i], ref, t->count), "%s: planted fault not seen", g->folder);
        free(ref);
    }
}

/* Slots, prefill size, neighbours and order change no token. */
static void test_batching(const Golden *g, const GenPrompt *p, Sampling how) {
    GenOptions o = {.slots = 1, .max_len = MAX_LEN, .prefill_rows = 15, .how = how, .seed = 7};
    Reply alone[PROMPTS], other[PROMPTS], back[PROMPTS];
    run(&g->m, o, p, PROMPTS, alone);
    o.slots = 4, o.prefill_rows = 64;
    run(&g->m, o, p, PROMPTS, other);
    EXPECT(same(alone, other, PROMPTS), "%s: four slots against one", g->folder);
    GenPrompt q[PROMPTS];
    for (int i = 0; i < PROMPTS; i++) q[i] = p[PROMPTS - 1 - i];
    o.slots = 2, o.prefill_rows = 20;
    run(&g->m, o, q, PROMPTS, back);
    for (int i = 0; i < PROMPTS; i++)
        EXPECT(same(&alone[i], &back[PROMPTS - 1 - i], 1), "%s: reversed order", g->folder);
    if (how.temperature > 0) {
        o.seed++;
        run(&g->m, o, q, PROMPTS, other);
        EXPECT(!same(back, other, PROMPTS), "%s: the seed changes nothing", g->folder);
    }
}

/* A stop id given by the caller ends a reply before it; lengths are kept. */
static void test_limits(const Golden *g, const GenPrompt *p) {
    GenOptions o = {.slots = 2, .max_len = MAX_LEN, .prefill_rows = 16, .how = {.top_p = 1}};
    Reply full, cut;
    GenPrompt one = p[0];
    run(&g->m, o, &one, 1, &full);
    EXPECT(full.n > 3, "%s: expected a reply of some length", g->folder);
    int at = 2;
    for (int i = 0; i < at; i++) /* the stop must not occur earlier */
        if (full.token[i] == full.token[at]) at = i;
    o.stop = &full.token[at], o.nstop = 1;
    run(&g->m, o, &one, 1, &cut);
    EXPECT(cut.n == at && cut.stop == full.token[at], "%s: %d tokens, stop %d", g->folder, cut.n,
           cut.stop);
    o.nstop = 0;
    one.max_new = 2;
    run(&g->m, o, &one, 1, &cut);
    EXPECT(cut.n == 2 && cut.stop == -1 && cut.token[1] == full.token[1], "%s: max_new", g->folder);
    one.max_new = 0;
    run(&g->m, o, &one, 1, &cut);
    EXPECT(cut.n == 0, "%s: no room", g->folder);
    one.max_new = MAX_NEW;
    o.max_len = one.n + 3;
    run(&g->m, o, &one, 1, &cut);
    EXPECT(cut.n == 3 && cut.token[2] == full.token[2], "%s: max_len", g->folder);
}

static int steps_left;

static bool count_down(void *context) {
    (void)context;
    return steps_left-- == 0;
}

/* Giving up takes effect at the next step, not at the next reply. */
static void test_give_up(const Golden *g, const GenPrompt *p) {
    GenOptions o = {.slots = 1,
                    .max_len = MAX_LEN,
                    .prefill_rows = 16,
                    .how = {.top_p = 1},
                    .give_up = count_down};
    Reply full[2], cut[2];
    steps_left = -1;
    run(&g->m, o, p, 2, full);
    for (int steps = 0; steps <= full[0].n; steps++) { /* step 0 makes the first token */
        memset(cut, 0, sizeof cut);
        steps_left = steps;
        Generator *gen = gen_create(&g->m, &o);
        EXPECT(gen_run(gen, p, 2, keep, cut) == GEN_GAVE_UP, "%s: went on after %d steps",
               g->folder, steps);
        gen_destroy(gen);
        EXPECT(steps_left == -1 && cut[1].calls == 0, "%s: asked %d times, then went on", g->folder,
               steps - steps_left);
        EXPECT(cut[0].calls == (steps == full[0].n + (full[0].stop >= 0)), "%s: %d steps, %d calls",
               g->folder, steps, cut[0].calls);
    }
}

/* Logits that are no numbers end the generation before a token of them is handed out. */
static void test_bad_numbers(const Golden *g, const GenPrompt *p, float temperature) {
    GenOptions o = {.slots = 2, .max_len = MAX_LEN, .prefill_rows = 32};
    o.how = (Sampling){.temperature = temperature, .top_p = 1};
    Model broken = g->m;
    Reply r[PROMPTS] = {{0}};
    broken.embed_scale = NAN;
    Generator *gen = gen_create(&broken, &o);
    EXPECT(gen_run(gen, p, PROMPTS, keep, r) == GEN_BAD_NUMBERS, "%s: NaN was drawn", g->folder);
    gen_destroy(gen);
    for (int i = 0; i < PROMPTS; i++) EXPECT(r[i].calls == 0, "%s: prompt %d", g->folder, i);
}

static void body(Exec *ex) {
    for (int i = 0; i < GOLDEN_MODELS; i++) {
        Golden g;
        GenPrompt p[PROMPTS];
        golden_open(&g, ex, golden_models[i]);
        prompts(&g, p);
        size_t before = ex->bytes_now;
        GenOptions o = {.slots = 3, .max_len = MAX_LEN, .prefill_rows = 16, .how = {.top_p = 1}};
        Generator *made = gen_create(&g.m, &o);
        EXPECT(ex->bytes_now - before == gen_bytes(&g.m.c, NULL, ex->dtype, &o), "gen_bytes");
        gen_destroy(made);
        if (ex->dtype == DTYPE_F32) test_greedy(&g, p);
        test_batching(&g, p, (Sampling){.top_p = 1});
        test_batching(&g, p, (Sampling){.temperature = 1.5f, .top_p = 0.95f, .top_k = 50});
        test_limits(&g, p);
        test_give_up(&g, p);
        test_bad_numbers(&g, p, 0);
        test_bad_numbers(&g, p, 1);
        for (int k = 0; k < PROMPTS; k++) free((void *)(uintptr_t)p[k].token);
        golden_close(&g);
    }
}

int main(void) {
    test_each_exec(body);
    return test_done("test_generate");
}
