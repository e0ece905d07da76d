/* twin.h - what every CPU twin starts from: the element type of this compilation, the op's contract
 * and the gate to device memory. Each file of kernels/cpu is compiled for every level of
 * cpu_level.h, twice: with TWIN_f32 and with TWIN_bf16. TWIN_LEVEL and TWIN_LEVEL_NAME say which.
 */
#ifndef SAILS_TWIN_H
#define SAILS_TWIN_H

#include "kernels/bf16.h"
#include "kernels/contracts.h"
#include "kernels/cpu/gate.h"
#include "kernels/ops.h"

#define TWIN_JOIN(level, dtype, op) cpu_##level##_##dtype##_##op
#define TWIN_OF(level, dtype, op) TWIN_JOIN(level, dtype, op)

#if defined TWIN_f32
typedef float elem;
#define TWIN(op) TWIN_OF(TWIN_LEVEL, f32, op)
#define TWIN_DTYPE DTYPE_F32
#define TWIN_DTYPE_NAME "f32"
static inline float elem_get(elem e) {
    return e;
}
static inline elem elem_put(float f) {
    return f;
}
#elif defined TWIN_bf16
typedef bf16 elem;
#define TWIN(op) TWIN_OF(TWIN_LEVEL, bf16, op)
#define TWIN_DTYPE DTYPE_BF16
#define TWIN_DTYPE_NAME "bf16"
static inline float elem_get(elem e) {
    return bf16_to_f32(e);
}
static inline elem elem_put(float f) {
    return bf16_from_f32(f);
}
#else
#error "compile with -DTWIN_f32 or -DTWIN_bf16"
#endif

/* All twins of this compilation. */
#define X(op) op_##op TWIN(op);
SAILS_TABLE(X)
#undef X

/* The first statement of every twin. */
#define OP_BEGIN(ex, op, ...)      \
    OP_SCOPE(ex, op, __VA_ARGS__); \
    OP_GATE(ex)

/* Ops on fewer elements than OP_SMALL run on one thread, and those that hardly do more than move
 * them on fewer than OP_LIGHT: waking the others and waiting for them costs as much as 10 to 30 us
 * of work, far more on a busy machine. Ops without rows work on spans of OP_SPAN elements; what
 * they sum, they sum span by span, so that the bits do not depend on which thread took which
 * span. */
enum { OP_SMALL = 1 << 15, OP_LIGHT = 1 << 17, OP_SPAN = 1 << 12 };
static inline size_t op_span(size_t n, size_t at) {
    return n - at < OP_SPAN ? n - at : OP_SPAN;
}

/* A store pointer as elements of this twin. */
static inline elem *elems(store *p) {
    return (elem *)p;
}
static inline const elem *elems_const(const store *p) {
    return (const elem *)p;
}

#endif
