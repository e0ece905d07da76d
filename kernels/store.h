/* store.h - tensors whose element type is chosen at run time: f32 or bf16.
 *
 * Everything large (weights, activations and their gradients) is held in the storage type that
 * `--dtype` names. Code above the ops handles such tensors as `store *`. The struct is never
 * completed, so arithmetic on it does not compile; slices are taken with store_at. */
#ifndef SAILS_STORE_H
#define SAILS_STORE_H

#include <stddef.h>

#include "kernels/choices.h"

typedef struct store store;

#define DTYPES(X) X(DTYPE_F32, "f32") X(DTYPE_BF16, "bf16")
enum Dtype { DTYPES(CHOICE_ENUM) DTYPE_COUNT };

static inline size_t dtype_size(enum Dtype t) {
    return t == DTYPE_F32 ? 4 : 2;
}
static inline const char *dtype_name(enum Dtype t) {
    static const char *const name[] = {DTYPES(CHOICE_TEXT)};
    return name[t];
}

/* Address of element i of a tensor of type t; the second form keeps the tensor read-only. */
static inline store *store_at(enum Dtype t, store *p, size_t i) {
    return (store *)((char *)p + i * dtype_size(t));
}
static inline const store *store_at_const(enum Dtype t, const store *p, size_t i) {
    return (const store *)((const char *)p + i * dtype_size(t));
}

#endif
