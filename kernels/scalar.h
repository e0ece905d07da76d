/* scalar.h - scalar functions that the CPU and the CUDA twins share: exp, tanh, gelu, softcap.
 *
 * Every function is straight-line code, polynomials and selects without a branch or a call, so
 * that loops over it vectorise. Bounds, against exact arithmetic, in units in the last place (ulp)
 * of the result; tests/test_scalar.c checks them over all magnitudes:
 *   scalar_exp       1.1 ulp; 0 and infinity where expf gives them; denormal results kept
 *   scalar_tanh      1.5 ulp; odd; exactly +-1 from |x| = 9.02 on
 *   scalar_sigmoid   3 ulp; 0 below -89
 *   scalar_softcap   3.5 ulp
 *   scalar_gelu, scalar_gelu_both
 *                    5 ulp, and as many more as the argument of their exp has lost by rounding:
 *                    2 |a| for g < 0, where a = sqrt(8/pi) (g + 0.044715 g^3). The slope's two
 *                    terms cancel at g = -0.75: there its bound is relative to either term.
 * NaN in gives NaN out. Selects are written so that NaN takes the side that keeps it. */
#ifndef SAILS_SCALAR_H
#define SAILS_SCALAR_H

#include <stdint.h>
#include <string.h>

#include "kernels/bf16.h"

static inline SAILS_HD uint32_t scalar_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline SAILS_HD float scalar_from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* An integer that orders like the float: larger for larger, equal for equal but for -0 < +0. NaN
 * lies beyond the infinity of its sign. Integer maxima vectorise where float maxima, which must
 * mind NaN, do not. */
static inline SAILS_HD int32_t scalar_order(float f) {
    uint32_t u = scalar_bits(f);
    return (int32_t)(u & 0x80000000u ? u ^ 0x7fffffffu : u);
}
static inline SAILS_HD float scalar_from_order(int32_t i) {
    uint32_t u = (uint32_t)i;
    return scalar_from_bits(u & 0x80000000u ? u ^ 0x7fffffffu : u);
}

/* e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln(2)/2. Adding and subtracting 1.5 * 2^23
 * rounds to an integer and leaves n in the low bits of the sum. ln 2 is split so that n times its
 * first part is exact. 2^n is applied in two halves: n runs to -150 (denormals) and to 128
 * (infinity), beyond the exponents of one factor. */
static inline SAILS_HD float scalar_exp(float x) {
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f;
    float n = shifted - 12582912.0f;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.38189120e-3f;
    p = p * r + 8.36864114e-3f;
    p = p * r + 4.16682996e-2f;
    p = p * r + 1.66665211e-1f;
    p = p * r + 4.99999940e-1f;
    p = (p * r) * r + r;
    int32_t i = (int32_t)(scalar_bits(shifted) - 0x4b400000u), first = i >> 1;
    float a = scalar_from_bits((uint32_t)(first + 127) << 23);
    float b = scalar_from_bits((uint32_t)(i - first + 127) << 23);
    return (p * a + a) * b;
}

/* tanh near 0: an odd polynomial, for |x| < SCALAR_TANH_NEAR. */
#define SCALAR_TANH_NEAR 0.625f
static inline SAILS_HD float scalar_tanh_near(float x) {
    float s = x * x, p = -5.71402162e-3f;
    p = p * s + 2.06482523e-2f;
    p = p * s - 5.37429899e-2f;
    p = p * s + 1.33314908e-1f;
    p = p * s - 3.33332837e-1f;
    return x + x * (p * s);
}

/* Beyond, 1 - 2 / (e^2|x| + 1), where no digits cancel. A GPU has a reciprocal in half the
 * instructions of a quotient; doubling it is exact. */
static inline SAILS_HD float scalar_tanh(float x) {
    uint32_t sign = scalar_bits(x) & 0x80000000u;
    float a = scalar_from_bits(scalar_bits(x) ^ sign);
    float far = 1.0f - 2.0f * (1.0f / (scalar_exp(2.0f * a) + 1.0f)), near = scalar_tanh_near(a);
    float t = a < SCALAR_TANH_NEAR ? near : far;
    return scalar_from_bits(scalar_bits(t) | sign);
}

static inline SAILS_HD float scalar_sigmoid(float x) {
    return 1.0f / (1.0f + scalar_exp(-x));
}

/* gelu in its tanh form, 0.5 g (1 + tanh(u)) with u = sqrt(2/pi) (g + 0.044715 g^3), is
 * g sigmoid(2u): no tanh, and no 1 + tanh(u) that cancels for g < 0. Below -16 it is 0, and so it
 * is at -infinity, the limit. */
static inline SAILS_HD float scalar_gelu(float g) {
    float t = g < -16.0f ? -16.0f : g;
    return t * scalar_sigmoid(t * (1.59576912f + 0.0713548163f * (t * t)));
}

/* gelu and its derivative s + g s (1 - s) d(2u)/dg, with s = sigmoid(2u), from one exp. 1 - s would
 * cancel: it is e s with e = exp(-2u), which +-10 keeps finite; there s has arrived at 0 and 1. */
typedef struct ScalarGelu {
    float y, slope;
} ScalarGelu;
static inline SAILS_HD ScalarGelu scalar_gelu_both(float g) {
    float low = g < -10.0f ? -10.0f : g, t = low > 10.0f ? 10.0f : low, tt = t * t;
    float e = scalar_exp(-t * (1.59576912f + 0.0713548163f * tt)), s = 1.0f / (1.0f + e);
    ScalarGelu both = {low * s, s + t * s * (e * s) * (1.59576912f + 0.214064449f * tt)};
    return both;
}

/* z = cap tanh(x / cap), and dz/dx as a function of z. */
static inline SAILS_HD float scalar_softcap(float x, float cap) {
    return cap * scalar_tanh(x * (1.0f / cap));
}
static inline SAILS_HD float scalar_softcap_grad(float z, float cap) {
    float t = z * (1.0f / cap);
    return 1.0f - t * t;
}

#endif
