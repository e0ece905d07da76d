/* arena.h - device memory in one block per class (weights, activations, ...), laid out by one
 * carve function that runs twice: a first time to measure, a second time to place.
 *
 *   Arena a;  arena_init(&a, ex, "activations");
 *   carve(&a, &acts);      every arena_* call returns NULL and only counts
 *   arena_place(&a);       allocates the sum
 *   carve(&a, &acts);      the same calls, in the same order, now return their memory
 *
 * There is no second list that could drift, and a plan needs the measuring pass alone. An arena
 * with memory keeps what was placed in it by name, for whoever wants to look inside. */
#ifndef SAILS_ARENA_H
#define SAILS_ARENA_H

#include <stdint.h>

#include "kernels/exec.h"

enum ArenaType { ARENA_STORE, ARENA_F32, ARENA_F64, ARENA_I32, ARENA_BYTES };

/* A tensor in device memory. */
typedef struct Placed {
    char name[96]; /* "layer 12: gate": the scope, if there was one, and the name */
    enum ArenaType type;
    size_t rows, cols; /* ARENA_BYTES: bytes, 1 */
    void *data;
} Placed;

typedef struct Arena {
    Exec *ex;
    const char *class_name; /* borrowed; names the memory in messages and in the plan */
    enum Dtype dtype;       /* of arena_store */
    char *base;             /* NULL while measuring */
    size_t used, size;      /* bytes: of this pass so far, and of the measuring pass */
    char scope[48];
    Placed *placed; /* (nplaced) in order */
    size_t nplaced, placed_room;
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

/* The names of what follows begin with this scope, as for printf; at first they have none. */
__attribute__((format(printf, 2, 3))) void arena_scope(Arena *a, const char *format, ...);

/* A second name for the tensor placed at this address: one buffer has several uses in turn. */
void arena_also(Arena *a, const char *name, const void *data);

/* The tensor of this name with its scope; NULL: none was placed. */
const Placed *arena_find(const Arena *a, const char *name);

#endif
