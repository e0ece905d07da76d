/* generate.c - prefill and decode around one loop: free slots are filled by a pack of prompts,
 * otherwise every open reply gets one more token. */
#include "model/generate.h"

#include <math.h>
#include <string.h>

#include "data/base/mem.h"
#include "data/base/rng.h"
#include "model/acts.h"

typedef struct Slot {
    int prompt;     /* -1: free */
    int len;        /* tokens in the cache */
    int made, room; /* tokens of the reply, and how many it may get */
    int32_t *token; /* (max_len) the reply */
} Slot;

struct Generator {
    const Model *m;
    GenOptions o;
    Acts *a;
    Arena arena;
    KvCache cache;
    int32_t *slot, *len, *drawn; /* device: (rows) (slots) (slots) */
    float *u;                    /* (slots) device */
    Pack pack;
    Slot *state;                           /* (slots) */
    int32_t *host_slot, *host_len, *row;   /* (rows) (slots) (slots); row: where prompts end */
    int32_t *host_token, *host_pos, *open; /* (slots); open: which slots the rows are */
    float *host_u;                         /* (slots) */
    bool bad;                              /* a row could not be drawn from */
};

typedef struct Job {
    const GenPrompt *prompt;
    int n, next;
    gen_done *done;
    void *context;
} Job;

static int rows_of(const GenOptions *o) {
    return o->prefill_rows > o->slots ? o->prefill_rows : o->slots;
}

static void carve(Generator *g, Arena *r, const Config *c) {
    size_t slots = (size_t)g->o.slots, T = (size_t)g->o.max_len;
    g->slot = arena_i32(r, "slot", (size_t)rows_of(&g->o), 1);
    g->len = arena_i32(r, "len", slots, 1);
    g->drawn = arena_i32(r, "drawn", slots, 1);
    g->u = arena_f32(r, "u", slots, 1);
    for (int l = 0; l < c->L; l++) {
        arena_scope(r, "layer %d", l);
        store *k = arena_store(r, "key cache", slots * T, (size_t)c->K * (size_t)c->E);
        store *v = arena_store(r, "value cache", slots * T, (size_t)c->K * (size_t)c->E);
        if (g->cache.k) g->cache.k[l] = k, g->cache.v[l] = v;
    }
}

size_t gen_bytes(const Config *c, const Lora *lora, enum Dtype dtype, const GenOptions *o) {
    Generator g = {.o = *o};
    Arena r;
    arena_init(&r, NULL, dtype, "key/value cache");
    carve(&g, &r, c);
    return r.used + acts_bytes(c, lora, dtype, rows_of(o), o->slots, o->slots, ACTS_INFER);
}

static void allocate_host(Generator *g) {
    size_t slots = (size_t)g->o.slots, rows = (size_t)rows_of(&g->o);
    pack_init(&g->pack, g->o.prefill_rows, g->o.slots, 0);
    g->state = mem_array(slots, sizeof *g->state);
    for (int s = 0; s < g->o.slots; s++)
        g->state[s] = (Slot){.prompt = -1, .token = mem_array((size_t)g->o.max_len, 4)};
    g->host_slot = mem_array(rows, sizeof *g->host_slot);
    g->host_len = mem_array(slots, sizeof *g->host_len);
    g->row = mem_array(slots, sizeof *g->row);
    g->host_token = mem_array(slots, sizeof *g->host_token);
    g->host_pos = mem_array(slots, sizeof *g->host_pos);
    g->open = mem_array(slots, sizeof *g->open);
    g->host_u = mem_array(slots, sizeof *g->host_u);
}

Generator *gen_create(const Model *m, const GenOptions *o) {
    CHECK(o->slots > 0 && o->prefill_rows > 0 && o->max_len > 0 && o->max_len <= m->c.max_positions,
          "slots %d, prefill_rows %d, max_len %d of %d", o->slots, o->prefill_rows, o->max_len,
          m->c.max_positions);
    Generator *g = mem_array(1, sizeof *g);
    g->m = m, g->o = *o;
    g->a = acts_create(m, rows_of(o), o->slots, o->slots, ACTS_INFER);
    g->cache.T = o->max_len;
    g->cache.k = mem_array((size_t)m->c.L, sizeof *g->cache.k);
    g->cache.v = mem_array((size_t)m->c.L, sizeof *g->cache.v);
    arena_init(&g->arena, m->ex, m->ex->dtype, "key/value cache");
    carve(g, &g->arena, &m->c);
    arena_place(&g->arena);
    carve(g, &g->arena, &m->c);
    g->a->cache = &g->cache;
    g->a->slot = g->slot, g->a->len = g->len;
    allocate_host(g);
    return g;
}

void gen_destroy(Generator *g) {
    if (!g) return;
    for (int s = 0; s < g->o.slots; s++) free(g->state[s].token);
    free(g->state);
    free(g->host_slot), free(g->host_len), free(g->row);
    free(g->host_token), free(g->host_pos), free(g->open), free(g->host_u);
    pack_free(&g->pack);
    arena_free(&g->arena);
    free(g->cache.k), free(g->cache.v);
    acts_destroy(g->a);
    free(g);
}

static bool stops(const Generator *g, int32_t token) {
    const Config *c = &g->m->c;
    for (int i = 0; i < c->neos; i++)
        if (token == c->eos[i]) return true;
    for (int i = 0; i < g->o.nstop; i++)
        if (token == g->o.stop[i]) return true;
    return false;
}

static void finish(const Job *job, Slot *s, int stop) {
    GenReply reply = {.index = s->prompt, .token = s->token, .n = s->made, .stop = stop};
    s->prompt = -1;
    job->done(job->context, &reply);
}

/* Draws the next token of the n open slots, whose hidden states the last pass left in this order.
 */
static void draw(Generator *g, const Job *job, int n) {
    Exec *ex = g->m->ex;
    const float *u = NULL;
    if (g->o.how.temperature > 0) {
        for (int i = 0; i < n; i++) {
            const Slot *s = &g->state[g->open[i]];
            double x = rng_uniform(g->o.seed, job->prompt[s->prompt].document, (uint64_t)s->made);
            g->host_u[i] = (float)(floor(x * 0x1p24) * 0x1p-24); /* exact, so it stays below 1 */
        }
        exec_copy_in(ex, g->u, g->host_u, (size_t)n * sizeof *g->u);
        u = g->u;
    }
    head_sample(g->m, g->a, g->drawn, n, u, g->o.how);
    exec_copy_out(ex, g->host_token, g->drawn, (size_t)n * sizeof *g->drawn);
    for (int i = 0; i < n; i++) {
        Slot *s = &g->state[g->open[i]];
        int32_t token = g->host_token[i];
        if (token < 0) {
            g->bad = true;
            continue;
        }
        if (stops(g, token)) {
            finish(job, s, token);
            continue;
        }
        s->token[s->made++] = token;
        if (s->made == s->room) finish(job, s, -1);
    }
}

/* Takes the next prompt into a free slot. False when the pack has no room for it. */
static bool admit(Generator *g, Job *job, int slot) {
    const GenPrompt *p = &job->prompt[job->next];
    CHECK(p->n >= 1 && p->n <= g->o.prefill_rows && p->n <= g->o.max_len,
          "expected a prompt of 1 to %d tokens, got %d", g->o.prefill_rows, p->n);
    if (g->pack.N + p->n > g->o.prefill_rows) return false;
    Slot *s = &g->state[slot];
    int left = g->o.max_len - p->n;
    s->prompt = job->next++;
    s->len = p->n, s->made = 0;
    s->room = p->max_new < left ? p->max_new : left;
    if (s->room <= 0) {
        finish(job, s, -1);
        return true;
    }
    for (int i = 0; i < p->n; i++) g->host_slot[g->pack.N + i] = slot;
    g->open[g->pack.nseg] = slot;
    pack_add(&g->pack, p->token, NULL, p->n, 0);
    g->row[g->pack.nseg - 1] = g->pack.N - 1;
    return true;
}

/* Runs prompts into the free slots; false when there was none to take or no slot free. */
static bool prefill(Generator *g, Job *job) {
    pack_clear(&g->pack);
    bool room = true;
    for (int slot = 0; slot < g->o.slots; slot++)
        while (room && g->state[slot].prompt < 0 && job->next < job->n) room = admit(g, job, slot);
    if (g->pack.N == 0) return false;
    g->a->decoding = false;
    exec_copy_in(g->m->ex, g->slot, g->host_slot, (size_t)g->pack.N * sizeof *g->slot);
    model_forward_rows(g->m, g->a, &g->pack, g->m->c.L, g->row, g->pack.nseg, NULL, NULL);
    draw(g, job, g->pack.nseg);
    return true;
}

/* One more token for every open reply; false when there is none. */
static bool decode(Generator *g, const Job *job) {
    Exec *ex = g->m->ex;
    int n = 0;
    for (int slot = 0; slot < g->o.slots; slot++) {
        Slot *s = &g->state[slot];
        if (s->prompt < 0) continue;
        g->open[n] = g->host_slot[n] = slot;
        g->host_token[n] = s->token[s->made - 1];
        g->host_pos[n] = s->len++;
        g->host_len[n] = s->len;
        n++;
    }
    if (n == 0) return false;
    size_t bytes = (size_t)n * sizeof(int32_t);
    exec_copy_in(ex, g->a->token, g->host_token, bytes);
    exec_copy_in(ex, g->a->pos, g->host_pos, bytes);
    exec_copy_in(ex, g->slot, g->host_slot, bytes);
    exec_copy_in(ex, g->len, g->host_len, bytes);
    g->a->decoding = true, g->a->watch = NULL;
    g->a->N = g->a->nlast = n, g->a->picked = false;
    acts_layers(g->m, g->a, NULL, g->m->c.L, NULL, NULL);
    draw(g, job, n);
    return true;
}

enum GenEnd gen_run(Generator *g, const GenPrompt *prompt, int n, gen_done *done, void *context) {
    Job job = {.prompt = prompt, .n = n, .done = done, .context = context};
    bool more = true;
    for (int pass = 1; more; pass++) {
        if (g->bad) return GEN_BAD_NUMBERS;
        if (g->o.give_up && g->o.give_up(g->o.give_up_context)) return GEN_GAVE_UP;
        exec_range_push(g->m->ex, "pass %d", pass);
        more = prefill(g, &job) || decode(g, &job);
        exec_range_pop(g->m->ex);
    }
    return GEN_DONE;
}

Acts *gen_acts(Generator *g) {
    return g->a;
}
