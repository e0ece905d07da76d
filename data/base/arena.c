/* arena.c - places in one allocation: measured first, then given out. */
#include "data/base/arena.h"

#include <string.h>

#include "kernels/check.h"

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
    memset(a, 0, sizeof *a);
}

void *arena_bytes(Arena *a, const char *name, size_t bytes) {
    CHECK(bytes <= SIZE_MAX / 2 - a->used, "%s: %s is too large", a->class_name, name);
    size_t at = a->used;
    a->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (!a->base) return NULL;
    CHECK(a->used <= a->size, "%s: %s was not there, or smaller, in the measuring pass",
          a->class_name, name);
    return a->base + at;
}

static size_t area(const Arena *a, const char *name, size_t rows, size_t cols, size_t size) {
    CHECK(cols == 0 || rows <= SIZE_MAX / size / cols, "%s: %s is too large", a->class_name, name);
    return rows * cols * size;
}

store *arena_store(Arena *a, const char *name, size_t rows, size_t cols) {
    return arena_bytes(a, name, area(a, name, rows, cols, dtype_size(a->dtype)));
}
float *arena_f32(Arena *a, const char *name, size_t rows, size_t cols) {
    return arena_bytes(a, name, area(a, name, rows, cols, sizeof(float)));
}
double *arena_f64(Arena *a, const char *name, size_t rows, size_t cols) {
    return arena_bytes(a, name, area(a, name, rows, cols, sizeof(double)));
}
int32_t *arena_i32(Arena *a, const char *name, size_t rows, size_t cols) {
    return arena_bytes(a, name, area(a, name, rows, cols, sizeof(int32_t)));
}
