/* params.c - where trained tensors lie, and how their masters are kept. */
#include "model/params.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "data/base/mem.h"

/* Aligned places are multiples of this many elements: 32 bytes in the narrowest type. */
enum { BLOCK = 16 };

enum { PIECE = 1 << 20 }; /* elements that are split or joined at a time */

static size_t aligned(size_t n) {
    return (n + BLOCK - 1) / BLOCK * BLOCK;
}

void params_init(Params *p, Exec *ex, int most) {
    *p = (Params){.ex = ex, .most = most, .param = mem_array((size_t)most, sizeof *p->param)};
}

void params_free(Params *p) {
    arena_free(&p->keeps);
    arena_free(&p->moments);
    arena_free(&p->grads);
    arena_free(&p->lows);
    arena_free(&p->weights);
    free(p->param);
    memset(p, 0, sizeof *p);
}

Param *params_add(Params *p, enum ParamPlace place, size_t rows, size_t cols, const char *name,
                  ...) {
    CHECK(p->n < p->most && !p->master, "tensor %d of %d", p->n, p->most);
    Param *t = &p->param[p->n++];
    *t = (Param){.rows = rows, .cols = cols, .n = rows * cols};
    t->at = place == PARAM_ALIGNED ? aligned(p->size) : p->size;
    p->size = t->at + t->n;
    va_list ap;
    va_start(ap, name);
    vsnprintf(t->name, sizeof t->name, name, ap);
    va_end(ap);
    return t;
}

void params_keep(Param *t, int k) {
    CHECK(k >= 0 && (size_t)k <= t->rows, "%d directions of %zu rows", k, t->rows);
    t->kept = k;
}

static void carve_kept(Arena *a, Params *p) {
    for (Param *t = p->param; t < p->param + p->n; t++)
        if (t->kept) t->keep = arena_f32(a, "directions", (size_t)t->kept, t->rows);
}

size_t params_kept_bytes(const Params *p) {
    Arena a;
    arena_init(&a, NULL, DTYPE_F32, "kept directions");
    for (const Param *t = p->param; t < p->param + p->n; t++)
        if (t->kept) arena_f32(&a, "directions", (size_t)t->kept, t->rows);
    return a.used;
}

size_t params_kept_scratch(Exec *ex, const Params *p) {
    size_t most = 0;
    for (const Param *t = p->param; t < p->param + p->n; t++) {
        size_t need = t->kept ? ex->op->project_out_scratch(ex, (int)t->cols, t->kept) : 0;
        most = need > most ? need : most;
    }
    return most;
}

static void carve(Params *p, bool training) {
    if (!p->split) p->master = arena_f32(&p->weights, "master", p->size, 1);
    p->copy = arena_store(&p->weights, "copy", p->size, 1);
    if (p->split && p->lows.dtype == DTYPE_BF16) {
        p->low = arena_bytes(&p->lows, "low", p->size * sizeof *p->low);
        p->piece = arena_f32(&p->lows, "piece", PIECE, 1);
    }
    if (!training) return;
    p->grad = arena_f32(&p->grads, "grad", p->size, 1);
    p->m = arena_f32(&p->moments, "m", p->size, 1);
    p->v = arena_f32(&p->moments, "v", p->size, 1);
    carve_kept(&p->keeps, p);
}

enum { CLASSES = 5 };
static void measure(Params *p, Exec *ex, enum Dtype dtype, bool training) {
    static const char *const name[2][CLASSES] = {
        {"adapters", "low halves", "adapter gradients", "optimiser", "kept directions"},
        {"weights", "low halves", "gradients", "optimiser", "kept directions"}};
    Arena *arena[CLASSES] = {&p->weights, &p->lows, &p->grads, &p->moments, &p->keeps};
    p->size = aligned(p->size);
    for (int i = 0; i < CLASSES; i++) arena_init(arena[i], ex, dtype, name[p->split][i]);
    carve(p, training);
}

static void allocate(Params *p, bool training) {
    Arena *arena[CLASSES] = {&p->weights, &p->lows, &p->grads, &p->moments, &p->keeps};
    measure(p, p->ex, p->ex->dtype, training);
    for (int i = 0; i < CLASSES; i++) arena_place(arena[i]);
    carve(p, training);
    for (int i = 0; i < CLASSES; i++) exec_zero(p->ex, arena[i]->base, arena[i]->size);
    for (Param *t = p->param; t < p->param + p->n; t++) {
        if (p->master) t->master = p->master + t->at;
        t->copy = store_at(p->ex->dtype, p->copy, t->at);
        if (!training) continue;
        t->grad = p->grad + t->at, t->m = p->m + t->at, t->v = p->v + t->at;
        t->trained = true;
    }
}

void params_allocate(Params *p, bool training) {
    allocate(p, training);
}

void params_allocate_split(Params *p) {
    p->split = true;
    allocate(p, true);
}

ParamBytes params_bytes_split(const Params *p, enum Dtype dtype) {
    Params all = {.size = p->size, .split = true};
    measure(&all, NULL, dtype, true);
    return (ParamBytes){all.weights.used, all.lows.used, all.grads.used, all.moments.used};
}

void params_sync(Params *p) {
    if (!p->split) p->ex->op->cast(p->ex, p->copy, p->master, p->size);
}

void params_set_kept(Params *p, const Param *t, const float *directions) {
    CHECK(t->kept && !p->split, "%s keeps %d directions", t->name, t->kept);
    if (t->keep)
        exec_copy_in(p->ex, t->keep, directions, (size_t)t->kept * t->rows * sizeof *t->keep);
}

static void project(Params *p, const Param *t, float *x) {
    p->ex->op->project_out(p->ex, x, x, t->keep, (int)t->rows, (int)t->cols, t->kept);
}

void params_project_grads(Params *p) {
    for (const Param *t = p->param; t < p->param + p->n; t++)
        if (t->keep && t->trained) project(p, t, t->grad);
}

void params_project_masters(Params *p) {
    for (const Param *t = p->param; t < p->param + p->n; t++)
        if (t->keep && t->trained) project(p, t, t->master);
}

/* Where a kind lies as f32; NULL: nowhere. */
static float *block_of(const Params *p, enum ParamKind kind) {
    float *master = p->split && !p->low ? (float *)p->copy : p->master;
    float *const block[PARAM_KINDS] = {master, p->m, p->v};
    return block[kind];
}

void params_get(const Params *p, enum ParamKind kind, size_t at, size_t n, float *host) {
    const float *block = block_of(p, kind);
    if (block) exec_copy_out(p->ex, host, block + at, n * sizeof *host);
    for (size_t k; !block && n > 0; at += k, host += k, n -= k) {
        k = n < PIECE ? n : PIECE;
        p->ex->op->join(p->ex, p->piece, store_at(p->ex->dtype, p->copy, at), p->low + at, k);
        exec_copy_out(p->ex, host, p->piece, k * sizeof *host);
    }
}

void params_set(Params *p, enum ParamKind kind, size_t at, size_t n, const float *host) {
    float *block = block_of(p, kind);
    if (block) exec_copy_in(p->ex, block + at, host, n * sizeof *host);
    for (size_t k; !block && n > 0; at += k, host += k, n -= k) {
        k = n < PIECE ? n : PIECE;
        exec_copy_in(p->ex, p->piece, host, k * sizeof *host);
        p->ex->op->split(p->ex, store_at(p->ex->dtype, p->copy, at), p->low + at, p->piece, k);
    }
}

size_t params_elements(const Params *p) {
    size_t n = 0;
    for (int i = 0; i < p->n; i++) n += p->param[i].n;
    return n;
}

size_t params_trained(const Params *p) {
    size_t n = 0;
    for (int i = 0; i < p->n; i++) n += p->param[i].trained ? p->param[i].n : 0;
    return n;
}
