/* arena.h - device memory in one block per class (weights, activations, ...), laid out by one
 * carve function that runs twice: a first time to measure, a second time to place.
 *
 *   Arena a;  arena_init(&a, ex, "activations");
 *   carve(&a, &acts);      every arena_* call returns NULL and only counts
 *   arena_place(&a);       allocates the sum
 *   carve(&a, &acts);      the same calls, in the same order, now return their memory
 *
 * There is no second list that could drift, and a plan needs the measuring pass alone. */
#ifndef SAILS_ARENA_H
#define SAILS_ARENA_H

#include <stdint.h>

#include "kernels/exec.h"

typedef struct Arena {
    Exec *ex;
    const char *class_name; /* borrowed; names the memory in messages and in the plan */
    enum Dtype dtype;       /* of arena_store */
    char *base;             /* NULL while measuring */
    size_t used, size;      /* bytes: of this pass so far, and of the measuring pass */
} Arena;

/* ex may be NULL for an arena that will only measure; then dtype says what a store is. */
void arena_init(Arena *a, Exec *ex, enum Dtype dtype, const char *class_name);
void arena_place(Arena *a); /* ends the measuring pass */
void arena_free(Arena *a);  /* accepts a zeroed arena */

/* rows * cols elements, 64-byte aligned; NULL while measuring. */
store *arena_store(Arena *a, const char *name, size_t rows, size_t cols);
float *arena_f32(Arena *a, const char *name, size_t rows, size_t cols);
double *arena_f64(Arena *a, const char *name, size_t rows, size_t cols);
int32_t *arena_i32(Arena *a, const char *name, size_t rows, size_t cols);
void *arena_bytes(Arena *a, const char *name, size_t bytes);

#endif
