/* params.c - where trained tensors lie. */
#include "model/params.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "data/base/mem.h"

/* Aligned places are multiples of this many elements: 32 bytes in the narrowest type. */
enum { BLOCK = 16 };

static size_t aligned(size_t n) {
    return (n + BLOCK - 1) / BLOCK * BLOCK;
}

void params_init(Params *p, Exec *ex, int most) {
    *p = (Params){.ex = ex, .most = most, .param = mem_array((size_t)most, sizeof *p->param)};
}

void params_free(Params *p) {
    arena_free(&p->moments);
    arena_free(&p->grads);
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

static void carve(Params *p, bool training) {
    p->master = arena_f32(&p->weights, "master", p->size, 1);
    p->copy = arena_store(&p->weights, "copy", p->size, 1);
    if (!training) return;
    p->grad = arena_f32(&p->grads, "grad", p->size, 1);
    p->m = arena_f32(&p->moments, "m", p->size, 1);
    p->v = arena_f32(&p->moments, "v", p->size, 1);
}

void params_allocate(Params *p, bool training) {
    static const char *const class_name[] = {"adapters", "adapter gradients", "optimiser"};
    Arena *arena[] = {&p->weights, &p->grads, &p->moments};
    p->size = aligned(p->size);
    for (int i = 0; i < 3; i++) arena_init(arena[i], p->ex, p->ex->dtype, class_name[i]);
    carve(p, training);
    for (int i = 0; i < 3; i++) arena_place(arena[i]);
    carve(p, training);
    for (int i = 0; i < 3; i++) exec_zero(p->ex, arena[i]->base, arena[i]->size);
    for (Param *t = p->param; t < p->param + p->n; t++) {
        t->master = p->master + t->at;
        t->copy = store_at(p->ex->dtype, p->copy, t->at);
        if (!training) continue;
        t->grad = p->grad + t->at, t->m = p->m + t->at, t->v = p->v + t->at;
        t->trained = true;
    }
}

void params_sync(Params *p) {
    p->ex->op->cast(p->ex, p->copy, p->master, p->size);
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
