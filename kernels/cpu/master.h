/* master.h - a split master as this twin keeps it (ops.h, split): a bf16 and its other half, or in
 * f32 the master itself. */
#ifndef SAILS_MASTER_H
#define SAILS_MASTER_H

#include "kernels/cpu/twin.h"
#include "kernels/halves.h"

#if defined TWIN_f32
static inline float master_get(const elem *high, const int16_t *low, size_t i) {
    (void)low;
    return high[i];
}
static inline void master_put(elem *high, int16_t *low, size_t i, float x) {
    (void)low;
    high[i] = x;
}
#else
static inline float master_get(const elem *high, const int16_t *low, size_t i) {
    return halves_join(high[i], low[i]);
}
static inline void master_put(elem *high, int16_t *low, size_t i, float x) {
    high[i] = halves_high(x);
    low[i] = halves_low(x);
}
#endif

#endif
