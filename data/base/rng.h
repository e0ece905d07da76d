/* rng.h - random numbers as a function of (seed, stream, index): no state, so any order and any
 * split of the work gives the same numbers. Philox-4x32-10 (Salmon et al., SC 2011). */
#ifndef SAILS_RNG_H
#define SAILS_RNG_H

#include <math.h>
#include <stdint.h>

typedef struct RngWords {
    uint32_t w[4];
} RngWords;

static inline RngWords rng_words(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t c[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream,
                     (uint32_t)(stream >> 32)};
    uint32_t k[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k[0], (uint32_t)p1,
                            (uint32_t)(p0 >> 32) ^ c[3] ^ k[1], (uint32_t)p0};
        for (int i = 0; i < 4; i++) c[i] = next[i];
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    return (RngWords){{c[0], c[1], c[2], c[3]}};
}

static inline uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t index) {
    RngWords r = rng_words(seed, stream, index);
    return (uint64_t)r.w[1] << 32 | r.w[0];
}

/* Uniform in [0, 1), 53 bits. */
static inline double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
    return (double)(rng_u64(seed, stream, index) >> 11) * 0x1p-53;
}

/* Standard normal (Box-Muller, one value per index). */
static inline double rng_normal(uint64_t seed, uint64_t stream, uint64_t index) {
    RngWords r = rng_words(seed, stream, index);
    uint64_t a = (uint64_t)r.w[1] << 32 | r.w[0], b = (uint64_t)r.w[3] << 32 | r.w[2];
    double u = ((double)(a >> 11) + 1) * 0x1p-53; /* in (0, 1]: the logarithm is finite */
    double v = (double)(b >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* Uniform in [0, n), n > 0. The bias is below n / 2^64. */
static inline uint64_t rng_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n) {
    return rng_u64(seed, stream, index) % n;
}

#endif
