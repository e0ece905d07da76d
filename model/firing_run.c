/* firing_run.c - packs through the layers, and what of their rows chosen features make. */
#include "model/firing_run.h"

#include "data/base/mem.h"

enum { CHUNK = 256 /* rows that are encoded at a time */ };

typedef struct Columns {
    SaeEncoder enc;         /* of the chosen features, or of all, with TopK */
    const int32_t *feature; /* of all: which; NULL: they are the chosen ones, in order */
    int layer, k, at;       /* `at`: their first place among all K */
    float *w, *b, *threshold;
} Columns;

struct FiringRun {
    const Model *m;
    Columns *layer; /* (n) */
    int n, K, max_rows;
    Acts *acts;
    Pack pack;
    Arena arena;
    float *act;      /* (CHUNK,S) of the widest */
    int64_t *bad_at; /* (1) first bad element of the highest layer's stream, or -1 */
    float *host;     /* the same on the host */
    float **to;      /* (max_rows) where each row's numbers go */
    bool bad;
};

static size_t widest(const FiringRun *r) {
    int S = 0;
    for (int i = 0; i < r->n; i++)
        if (r->layer[i].enc.S > S) S = r->layer[i].enc.S;
    return (size_t)S;
}

static void carve(FiringRun *r, int D) {
    Arena *a = &r->arena;
    r->act = arena_f32(a, "activations", CHUNK, widest(r));
    r->bad_at = arena_bytes(a, "first bad element", sizeof *r->bad_at);
    for (int i = 0; i < r->n; i++) {
        Columns *c = &r->layer[i];
        size_t S = (size_t)c->enc.S;
        if (c->feature) continue; /* it is the SAE's own */
        arena_scope(a, "layer %d", c->layer);
        c->w = arena_f32(a, "encoder columns", (size_t)D, S);
        c->b = arena_f32(a, "biases", S, 1);
        c->threshold = arena_f32(a, "thresholds", S, 1);
    }
}

size_t firing_run_bytes(const Config *c, const Lora *lora, enum Dtype dtype, int n, int k, int S,
                        int max_rows) {
    FiringRun r = {.n = n, .max_rows = max_rows};
    r.layer = mem_array((size_t)n, sizeof *r.layer);
    for (int i = 0; i < n; i++) r.layer[i].enc.S = k;
    if (n > 0) r.layer[0].enc.S = S; /* as much as one with TopK has */
    arena_init(&r.arena, NULL, dtype, "firings");
    carve(&r, c->D);
    free(r.layer);
    return r.arena.used + acts_bytes(c, lora, dtype, max_rows, max_rows, 0, ACTS_INFER);
}

/* The chosen entries of a row of S numbers in device memory. */
static void pick(Exec *ex, float *to, const float *from, size_t S, const FiringLayer *l,
                 float *row) {
    exec_copy_out(ex, row, from, S * sizeof *row);
    for (int j = 0; j < l->k; j++) row[S + (size_t)j] = row[l->feature[j]];
    exec_copy_in(ex, to, row + S, (size_t)l->k * sizeof *to);
}

static void fill_columns(Exec *ex, Columns *c, const FiringLayer *l) {
    const SaeEncoder *all = &l->sae->enc;
    size_t D = (size_t)all->D, S = (size_t)all->S, k = (size_t)l->k;
    if (c->feature) return;
    float *row = mem_array(S + k, sizeof *row);
    for (size_t d = 0; d < D; d++) pick(ex, c->w + d * k, all->w + d * S, S, l, row);
    pick(ex, c->b, all->b, S, l, row);
    if (all->threshold) pick(ex, c->threshold, all->threshold, S, l, row);
    free(row);
    c->enc.w = c->w, c->enc.b = c->b;
    c->enc.threshold = all->threshold ? c->threshold : NULL;
}

FiringRun *firing_run_open(const Model *m, const FiringLayer *layer, int n, int max_rows) {
    FiringRun *r = mem_array(1, sizeof *r);
    CHECK(n > 0 && max_rows > 0, "%d SAEs, %d rows", n, max_rows);
    *r = (FiringRun){.m = m, .n = n, .max_rows = max_rows};
    r->layer = mem_array((size_t)n, sizeof *r->layer);
    for (int i = 0; i < n; i++) {
        const Sae *sae = layer[i].sae;
        Columns *c = &r->layer[i];
        CHECK(sae->enc.w && sae->enc.D == m->c.D && layer[i].k > 0 && sae->layer < m->c.L &&
                  (i == 0 || sae->layer > layer[i - 1].sae->layer),
              "SAE %d of layer %d", i, sae->layer);
        *c = (Columns){.enc = sae->enc, .layer = sae->layer, .k = layer[i].k, .at = r->K};
        c->enc.products = SAE_EXACT;
        if (sae->enc.act == SAE_TOPK)
            c->feature = layer[i].feature; /* which are the largest, all of them say */
        else
            c->enc.S = layer[i].k;
        r->K += layer[i].k;
    }
    arena_init(&r->arena, m->ex, m->ex->dtype, "firings");
    carve(r, m->c.D);
    arena_place(&r->arena);
    carve(r, m->c.D);
    for (int i = 0; i < n; i++) fill_columns(m->ex, &r->layer[i], &layer[i]);
    r->host = mem_array(CHUNK * widest(r), sizeof *r->host);
    r->to = mem_array((size_t)max_rows, sizeof *r->to);
    pack_init(&r->pack, max_rows, max_rows, 0);
    r->acts = acts_create(m, max_rows, max_rows, 0, ACTS_INFER);
    return r;
}

void firing_run_close(FiringRun *r) {
    if (!r) return;
    acts_destroy(r->acts);
    pack_free(&r->pack);
    arena_free(&r->arena);
    free(r->layer), free(r->host), free(r->to);
    free(r);
}

bool firing_run_bad(const FiringRun *r) {
    return r->bad;
}

Acts *firing_run_acts(FiringRun *r) {
    return r->acts;
}

/* model_tap: what is not finite in a lower layer still is in the highest one. */
static void tap(void *context, int layer, const store *x, int N) {
    FiringRun *r = context;
    Exec *ex = r->m->ex;
    int D = r->m->c.D, i = 0;
    while (i < r->n && r->layer[i].layer != layer) i++;
    if (i == r->n) return;
    if (i == r->n - 1) ex->op->find_bad(ex, r->bad_at, x, (size_t)N * (size_t)D);
    const Columns *c = &r->layer[i];
    size_t S = (size_t)c->enc.S;
    for (int first = 0; first < N; first += CHUNK) {
        int rows = N - first < CHUNK ? N - first : CHUNK;
        ex->op->sae_encode(ex, r->act, store_at_const(ex->dtype, x, (size_t)first * (size_t)D),
                           c->enc, rows);
        exec_copy_out(ex, r->host, r->act, (size_t)rows * S * sizeof *r->host);
        for (int t = 0; t < rows; t++)
            for (int j = 0; j < c->k; j++)
                r->to[first + t][c->at + j] =
                    r->host[(size_t)t * S + (size_t)(c->feature ? c->feature[j] : j)];
    }
}

void firing_run_finish(FiringRun *r) {
    if (r->pack.N > 0 && !r->bad) {
        int64_t bad_at;
        model_forward(r->m, r->acts, &r->pack, r->layer[r->n - 1].layer + 1, tap, r);
        exec_copy_out(r->m->ex, &bad_at, r->bad_at, sizeof bad_at);
        r->bad = bad_at >= 0;
    }
    pack_clear(&r->pack);
}

void firing_run_add(FiringRun *r, const int32_t *token, int n, float *to) {
    CHECK(n > 0 && n <= r->max_rows, "expected documents of at most %d tokens, got %d", r->max_rows,
          n);
    if (r->pack.N + n > r->max_rows) firing_run_finish(r);
    for (int t = 0; t < n; t++) r->to[r->pack.N + t] = to + (size_t)t * (size_t)r->K;
    pack_add(&r->pack, token, NULL, n, 0);
}
