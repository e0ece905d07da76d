/* halves.h - an f32 as a bf16 and 16 bits more, for both twins: masters of weights that products
 * read in bf16 need no second copy of what the two have in common.
 *
 * The bf16 is the nearest, with ties away from zero; the rest is the difference of the bits, which
 * 16 signed ones hold for every f32 that is a number: with ties to even they would not. NaN stays
 * NaN in the bf16 and when joined, with other bits. */
#ifndef SAILS_HALVES_H
#define SAILS_HALVES_H

#include "kernels/bf16.h"

/* A select and no branch, so that loops over it vectorise. */
static inline SAILS_HD bf16 halves_high(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint32_t rounded = u + 0x8000u;
    rounded = (u & 0x7fffffffu) > 0x7f800000u ? u | 0x00400000u : rounded;
    bf16 h = {(uint16_t)(rounded >> 16)};
    return h;
}

static inline SAILS_HD int16_t halves_low(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (int16_t)(uint16_t)u; /* the lower half of u - (high << 16) is that of u */
}

static inline SAILS_HD float halves_join(bf16 high, int16_t low) {
    uint32_t u = ((uint32_t)high.bits << 16) + (uint32_t)(int32_t)low;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

#endif
