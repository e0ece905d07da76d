/* acts.c - which buffers a pass needs, in one carve function, and what is in them by name. */
#include "model/acts.h"

#include <stdio.h>
#include <string.h>

#include "data/base/mem.h"

/* The head's logits exist for a chunk of label rows at a time. A chunk this large (250 rows of
 * 256,000 in bf16) keeps the embedding matrix, read twice per chunk, from being the bottleneck: the
 * products need some 200 operations for each of its bytes. */
static const size_t head_bytes = (size_t)384 << 20;

int acts_chunk(const Config *c, enum Dtype dtype, int max_labels, enum ActsUse use) {
    bool copy = use != ACTS_INFER && dtype != DTYPE_F32; /* of the gradient, in storage type */
    size_t row = (size_t)c->V * (sizeof(float) + (copy ? dtype_size(dtype) : 0));
    size_t n = head_bytes / row;
    if (n < 16) n = 16;
    size_t labels = (size_t)max_labels, chunks = (labels + n - 1) / n;
    return (int)((labels + chunks - 1) / chunks); /* alike, not many and a few */
}

static const char *const xa_name[GROUP_COUNT] = {[GROUP_QKV] = "xa(q,k,v)",
                                                 [GROUP_O] = "xa(o)",
                                                 [GROUP_FFN] = "xa(gate,up)",
                                                 [GROUP_DOWN] = "xa(down)"};

/* A layer whose tensors above attention have n rows. */
static void carve_layer(Acts *a, LayerActs *s, const Config *c, size_t n) {
    Arena *r = &a->arena;
    bool train = a->use != ACTS_INFER;
    size_t N = (size_t)a->max_rows, D = (size_t)c->D, F = (size_t)c->F;
    size_t HE = (size_t)c->H * (size_t)c->E, KE = (size_t)c->K * (size_t)c->E;
    s->x = arena_store(r, "x", N, D);
    s->rx = arena_f32(r, "rx", N, 1);
    s->q = arena_store(r, "q", N, HE);
    s->k = arena_store(r, "k", N, KE);
    s->v = arena_store(r, "v", N, KE);
    s->o = arena_store(r, "o", N, HE);
    s->lse = arena_f32(r, "lse", N, (size_t)c->H);
    s->p = arena_store(r, "p", n, D);
    s->rp = arena_f32(r, "rp", n, 1);
    s->x2 = train ? arena_store(r, "x2", n, D) : s->x;
    s->rx2 = arena_f32(r, "rx2", n, 1);
    s->gate = arena_store(r, "gate", n, F);
    s->up = arena_store(r, "up", n, F);
    s->m = train ? arena_store(r, "m", n, D) : s->p;
    s->rm = arena_f32(r, "rm", n, 1);
    for (int g = 0; g < GROUP_COUNT; g++)
        s->xa[g] = arena_store(r, xa_name[g], g == GROUP_QKV ? N : n, (size_t)a->max_R[g]);
    arena_also(r, "h", a->h), arena_also(r, "h2", a->h);
    arena_also(r, "rope(q)", s->q), arena_also(r, "rope(k)", s->k);
    if (!train) arena_also(r, "x2", s->x), arena_also(r, "m", s->p);
    arena_also(r, "g", train ? a->g : s->gate);
}

/* A layer that works where the first one does. */
static void share_layer(Acts *a, LayerActs *s, const Config *c) {
    Arena *r = &a->arena;
    size_t N = (size_t)a->max_rows;
    *s = a->layer[0];
    if (a->use == ACTS_INFER) return;
    s->x = arena_store(r, "x", N, (size_t)c->D);
    s->rx = arena_f32(r, "rx", N, 1);
    const struct {
        const char *name;
        const void *data;
    } also[] = {{"q", s->q},       {"k", s->k},       {"v", s->v},   {"o", s->o},
                {"lse", s->lse},   {"p", s->p},       {"rp", s->rp}, {"x2", s->x2},
                {"rx2", s->rx2},   {"gate", s->gate}, {"up", s->up}, {"m", s->m},
                {"rm", s->rm},     {"h", a->h},       {"h2", a->h},  {"rope(q)", s->q},
                {"rope(k)", s->k}, {"g", a->g}};
    for (size_t i = 0; i < sizeof also / sizeof *also; i++)
        arena_also(r, also[i].name, also[i].data);
    for (int g = 0; g < GROUP_COUNT; g++)
        if (a->max_R[g] > 0) arena_also(r, xa_name[g], s->xa[g]);
}

/* What follows the layers, and the rows that the last of them goes on with. */
static void carve_final(Acts *a, const Config *c, size_t n) {
    Arena *r = &a->arena;
    bool train = a->use != ACTS_INFER;
    LayerActs *last = &a->layer[c->L], *first = &a->layer[0];
    size_t HE = (size_t)c->H * (size_t)c->E;
    arena_scope(r, "last layer");
    a->last_x = arena_store(r, "x", n, (size_t)c->D);
    a->last_o = train ? arena_store(r, "o", n, HE) : first->q;
    arena_scope(r, "final");
    last->x = train ? arena_store(r, "x", n, (size_t)c->D) : first->x;
    last->rx = train ? arena_f32(r, "rx", n, 1) : first->rx;
    if (!train) arena_also(r, "x", last->x), arena_also(r, "rx", last->rx);
    arena_also(r, "h", a->h);
    if (!train) a->g = first->gate;
}

static void carve_head(Acts *a, const Config *c) {
    Arena *r = &a->arena;
    size_t n = (size_t)a->max_labels, V = (size_t)c->V, rows = (size_t)a->chunk;
    a->row = arena_i32(r, "row", n, 1);
    a->target = arena_i32(r, "target", n, 1);
    a->label_h = arena_store(r, "h", n, (size_t)c->D);
    a->nll = arena_f32(r, "nll", n, 1);
    a->weight = arena_f32(r, "weight", n, 1);
    a->fact[0] = arena_f32(r, "entropy", n, 1);
    a->fact[1] = arena_f32(r, "mean", n, 1);
    a->fact[2] = arena_f32(r, "hit", n, 1);
    a->logits = arena_f32(r, "logits", rows, V);
    a->drawn = arena_i32(r, "drawn", rows, 1);
    a->one = arena_store(r, "one", 1, 1);
    if (a->use != ACTS_INFER)
        a->dlogits =
            r->dtype == DTYPE_F32 ? (store *)a->logits : arena_store(r, "dlogits", rows, V);
}

static void carve_gradients(Acts *a, const Config *c) {
    Arena *r = &a->arena;
    size_t N = (size_t)a->max_rows, D = (size_t)c->D;
    size_t HE = (size_t)c->H * (size_t)c->E, KE = (size_t)c->K * (size_t)c->E;
    int R = 0;
    for (int g = 0; g < GROUP_COUNT; g++) R = a->max_R[g] > R ? a->max_R[g] : R;
    a->dx = arena_store(r, "dx", N, D);
    a->dp = arena_store(r, "dp", N, D);
    a->dh = arena_store(r, "dh", N, D);
    a->dq = arena_store(r, "dq", N, HE);
    a->dk = arena_store(r, "dk", N, KE);
    a->dv = arena_store(r, "dv", N, KE);
    a->d_o = arena_store(r, "d_o", N, HE);
    a->dxa = arena_store(r, "dxa", N, (size_t)R);
}

static void carve_starts(Acts *a, const Config *c) {
    size_t R = (size_t)a->max_start, out = 0;
    for (enum Proj p = 0; p < PROJ_COUNT; p++)
        if ((size_t)proj_out(c, p) > out) out = (size_t)proj_out(c, p);
    a->eye = arena_store(&a->arena, "eye", R, R);
    a->both = arena_store(&a->arena, "both", out, 2 * R);
}

static void carve(Acts *a, const Config *c) {
    Arena *r = &a->arena;
    bool train = a->use != ACTS_INFER;
    size_t N = (size_t)a->max_rows, n = (size_t)a->max_last;
    arena_scope(r, "pack");
    a->token = arena_i32(r, "tokens", N, 1);
    a->pos = arena_i32(r, "positions", N, 1);
    if (train) a->by_token = arena_i32(r, "rows by token", N, 1);
    a->seg = (Segment *)arena_i32(r, "segments", (size_t)a->max_segs, SEGMENT_NUMBERS);
    a->last = arena_i32(r, "rows", n, 1);
    arena_scope(r, "every layer");
    a->h = arena_store(r, "h", N, (size_t)c->D);
    if (train) a->g = arena_store(r, "g", N, (size_t)c->F);
    for (int l = 0; l < c->L; l++) {
        arena_scope(r, "layer %d", l);
        if (a->use == ACTS_TRAIN || l == 0)
            carve_layer(a, &a->layer[l], c, l + 1 < c->L || a->use == ACTS_RECOMPUTE ? N : n);
        else
            share_layer(a, &a->layer[l], c);
    }
    carve_final(a, c, n);
    arena_scope(r, "head");
    carve_head(a, c);
    arena_scope(r, "adapters");
    if (a->max_start > 0) carve_starts(a, c);
    arena_scope(r, "backward");
    if (train) carve_gradients(a, c);
}

static void measure(Acts *a, const Config *c, const Lora *lora, enum Dtype dtype) {
    for (int g = 0; g < GROUP_COUNT; g++)
        for (int l = 0; lora && l < c->L; l++) {
            int R = lora_group(lora, l, (enum Group)g).R;
            if (R > a->max_R[g]) a->max_R[g] = R;
        }
    for (int i = 0; lora && i < c->L * PROJ_COUNT; i++)
        if (lora->adapter[i].A0 && lora->adapter[i].R > a->max_start)
            a->max_start = lora->adapter[i].R;
    a->chunk = acts_chunk(c, dtype, a->max_labels, a->use);
    a->layer = mem_array((size_t)c->L + 1, sizeof *a->layer);
    arena_init(&a->arena, a->ex, dtype, "activations");
    carve(a, c);
}

static Acts blank(int max_rows, int max_segs, int max_labels, enum ActsUse use) {
    CHECK(max_rows >= 0 && max_segs >= 0 && max_labels >= 0, "rows %d segments %d labels %d",
          max_rows, max_segs, max_labels);
    return (Acts){.max_rows = max_rows,
                  .max_segs = max_segs,
                  .max_labels = max_labels > 0 ? max_labels : 1,
                  .max_last = use != ACTS_INFER && max_labels < max_rows ? max_labels : max_rows,
                  .use = use};
}

size_t acts_bytes(const Config *c, const Lora *lora, enum Dtype dtype, int max_rows, int max_segs,
                  int max_labels, enum ActsUse use) {
    Acts a = blank(max_rows, max_segs, max_labels, use);
    measure(&a, c, lora, dtype);
    free(a.layer);
    return a.arena.used;
}

static void put_one(Acts *a) {
    float f = 1;
    exec_copy_in(a->ex, a->nll, &f, sizeof f);
    a->ex->op->cast(a->ex, a->one, a->nll, 1);
}

/* The copies are read as rows of f32 that are narrowed. */
static void put_eye(Acts *a) {
    size_t R = (size_t)a->max_start, n = R * R;
    float *host = mem_array(n, sizeof *host);
    float *wide = exec_alloc(a->ex, n * sizeof *wide, "eye");
    for (size_t i = 0; i < R; i++) host[i * R + i] = 1;
    exec_copy_in(a->ex, wide, host, n * sizeof *host);
    a->ex->op->cast(a->ex, a->eye, wide, n);
    exec_sync(a->ex);
    exec_free(a->ex, wide);
    free(host);
}

Linear acts_out(const Acts *a, const Adapter *d) {
    Exec *ex = a->ex;
    int R = d->R, E = a->max_start;
    if (!d->A0) return (Linear){d->B->copy, R, d->out};
    CHECK(R <= E, "expected rank <= %d, got %d", E, R);
    store *right = store_at(ex->dtype, a->both, (size_t)R);
    ex->op->gemm(ex, a->both, 2 * R, d->B->copy, R, a->eye, E, d->out, R, R, GEMM_NN, 1, 0);
    ex->op->gemm(ex, right, 2 * R, d->B0->copy, R, a->eye, E, d->out, R, R, GEMM_NN, -1, 0);
    return (Linear){a->both, 2 * R, d->out};
}

Acts *acts_create(const Model *m, int max_rows, int max_segs, int max_labels, enum ActsUse use) {
    Acts *a = mem_array(1, sizeof *a);
    *a = blank(max_rows, max_segs, max_labels, use);
    a->ex = m->ex;
    measure(a, &m->c, m->lora, m->ex->dtype);
    arena_place(&a->arena);
    carve(a, &m->c);
    put_one(a);
    if (a->max_start > 0) put_eye(a);
    size_t n = (size_t)a->max_labels;
    a->host_last = mem_array(n, sizeof *a->host_last);
    a->host_row = mem_array(n, sizeof *a->host_row);
    a->host_target = mem_array(n, sizeof *a->host_target);
    a->host_at = mem_array(n, sizeof *a->host_at);
    a->host_label = mem_array(n, sizeof *a->host_label);
    a->host_weight = mem_array(n, sizeof *a->host_weight);
    a->seen = mem_array((size_t)max_rows, sizeof *a->seen);
    a->host_order = mem_array((size_t)max_rows, sizeof *a->host_order);
    return a;
}

void acts_tell_facts(Acts *a, const LogitFacts *to) {
    a->facts = to ? *to : (LogitFacts){0};
}

void acts_destroy(Acts *a) {
    if (!a) return;
    free(a->host_last), free(a->host_row), free(a->host_target), free(a->host_at);
    free(a->host_label), free(a->host_weight), free(a->seen), free(a->host_order);
    arena_free(&a->arena);
    free(a->layer);
    free(a);
}

/* `at` is the tensor's scope in the arena, `scope` the one it is shown under. cols 0: as placed. */
static void show(const Acts *a, const char *at, const char *scope, const char *name, int first,
                 int rows, int cols) {
    char full[sizeof((Placed *)NULL)->name];
    snprintf(full, sizeof full, "%s: %s", at, name);
    const Placed *p = arena_find(&a->arena, full);
    CHECK(p && (size_t)rows <= p->rows, "%s: expected it, with %d rows", full, rows);
    Placed t = *p;
    snprintf(t.name, sizeof t.name, "%s: %s", scope, name);
    t.rows = (size_t)rows;
    if (cols > 0) t.cols = (size_t)cols;
    a->watch(a->watch_context, &t, first);
}

static void show_each(const Acts *a, const char *at, const char *scope, const char *names,
                      int first, int rows, int cols) {
    char name[24];
    for (int n; sscanf(names, "%23s%n", name, &n) == 1; names += n)
        show(a, at, scope, name, first, rows, cols);
}

/* In ACTS_INFER all layers lie where the first one does. */
static void show_layer(const Acts *a, int layer, const char *names, int rows, int cols) {
    char at[24], scope[24];
    snprintf(at, sizeof at, "layer %d", a->use == ACTS_INFER ? 0 : layer);
    snprintf(scope, sizeof scope, "layer %d", layer);
    show_each(a, at, scope, names, 0, rows, cols);
}

void acts_show(const Acts *a, const char *scope, int first, int rows, const char *names) {
    if (a->watch) show_each(a, scope, scope, names, first, rows, 0);
}

void acts_show_layer(const Acts *a, int layer, int rows, const char *names) {
    if (a->watch) show_layer(a, layer, names, rows, 0);
}

void acts_show_xa(const Acts *a, int layer, enum Group g, int rows, int R) {
    if (a->watch) show_layer(a, layer, xa_name[g], rows, R);
}
