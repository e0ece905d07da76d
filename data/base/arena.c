/* arena.c - places in one allocation: measured first, then given out. */
#include "data/base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "data/base/mem.h"

enum { ALIGN = 64 };

void arena_init(Arena *a, Exec *ex, enum Dtype dtype, const char *class_name) {
    *a = (Arena){.ex = ex, .dtype = dtype, .class_name = class_name};
    CHECK(!ex || ex->dtype == dtype, "%s: expected the device's storage type", class_name);
}

void arena_place(Arena *a) {
    CHECK(!a->base && a->ex, "%s: expected an arena that measures, on a device", a->class_name);
    a->size = a->used;
    a->used = 0;
    a->base = exec_alloc(a->ex, a->size, a->class_name);
}

void arena_free(Arena *a) {
    if (a->base) exec_free(a->ex, a->base);
    free(a->placed);
    memset(a, 0, sizeof *a);
}

void arena_scope(Arena *a, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    vsnprintf(a->scope, sizeof a->scope, format, ap);
    va_end(ap);
}

static void note(Arena *a, const char *name, Placed p) {
    a->placed = mem_grow(a->placed, &a->placed_room, a->nplaced + 1, sizeof *a->placed);
    snprintf(p.name, sizeof p.name, "%s%s%s", a->scope, *a->scope ? ": " : "", name);
    a->placed[a->nplaced++] = p;
}

void arena_also(Arena *a, const char *name, const void *data) {
    if (!a->base) return;
    size_t i = a->nplaced; /* from the end: an empty tensor lies where the next one begins */
    while (i > 0 && a->placed[i - 1].data != data) i--;
    CHECK(i > 0, "%s: %s was not placed before", a->class_name, name);
    note(a, name, a->placed[i - 1]);
}

const Placed *arena_find(const Arena *a, const char *name) {
    for (size_t i = 0; i < a->nplaced; i++)
        if (strcmp(a->placed[i].name, name) == 0) return &a->placed[i];
    return NULL;
}

static void *place(Arena *a, const char *name, enum ArenaType type, size_t rows, size_t cols,
                   size_t size) {
    CHECK(cols == 0 || rows <= SIZE_MAX / size / cols, "%s: %s is too large", a->class_name, name);
    size_t bytes = rows * cols * size;
    CHECK(bytes <= SIZE_MAX / 2 - a->used, "%s: %s is too large", a->class_name, name);
    size_t at = a->used;
    a->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (!a->base) return NULL;
    CHECK(a->used <= a->size, "%s: %s was not there, or smaller, in the measuring pass",
          a->class_name, name);
    note(a, name, (Placed){.type = type, .rows = rows, .cols = cols, .data = a->base + at});
    return a->base + at;
}

store *arena_store(Arena *a, const char *name, size_t rows, size_t cols) {
    return place(a, name, ARENA_STORE, rows, cols, dtype_size(a->dtype));
}
float *arena_f32(Arena *a, const char *name, size_t rows, size_t cols) {
    return place(a, name, ARENA_F32, rows, cols, sizeof(float));
}
double *arena_f64(Arena *a, const char *name, size_t rows, size_t cols) {
    return place(a, name, ARENA_F64, rows, cols, sizeof(double));
}
int32_t *arena_i32(Arena *a, const char *name, size_t rows, size_t cols) {
    return place(a, name, ARENA_I32, rows, cols, sizeof(int32_t));
}
void *arena_bytes(Arena *a, const char *name, size_t bytes) {
    return place(a, name, ARENA_BYTES, bytes, 1, 1);
}
