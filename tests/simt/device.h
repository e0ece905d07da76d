/* device.h - the device language for host compilers: what nvcc builds in and kernels/ uses.
 * A function that is missing here is a compile error in the kernel that wants it: add it then. */
#ifndef SIMT_DEVICE_H
#define SIMT_DEVICE_H

#include <math.h>
#include <string.h>

#include "tests/simt/simt.h"

/* Objects, not macros: cudaLaunchConfig_t has members named gridDim and blockDim. */
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

/* The caller's place, for messages: default arguments are evaluated where the call stands. */
#define SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(SIMT_HERE) {
    simt::block_barrier(file, line);
}
namespace simt {

static inline void warp_nothing(void *const[WARP_SIZE], unsigned) {}

struct Vote {
    unsigned yes; /* the caller's, then the mask of all */
};
static inline void warp_vote(void *const lanes[WARP_SIZE], unsigned mask) {
    unsigned all = 0;
    for (int i = 0; i < WARP_SIZE; i++)
        if (mask >> i & 1 && ((Vote *)lanes[i])->yes) all |= 1u << i;
    for (int i = 0; i < WARP_SIZE; i++)
        if (mask >> i & 1) ((Vote *)lanes[i])->yes = all;
}

struct Shuffle {
    uint64_t value, result;
    unsigned source;
    const char *file;
    int line;
};
static inline void warp_shuffle(void *const lanes[WARP_SIZE], unsigned mask) {
    for (int i = 0; i < WARP_SIZE; i++) {
        if (!(mask >> i & 1)) continue;
        Shuffle *s = (Shuffle *)lanes[i];
        if (!(mask >> s->source & 1))
            fail("a shuffle (%s:%d): lane %d reads lane %u, outside mask %08x", s->file, s->line, i,
                 s->source, mask);
        s->result = ((Shuffle *)lanes[s->source])->value;
    }
}

}  // namespace simt

static inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_HERE) {
    simt::warp_together("__syncwarp", mask, simt::warp_nothing, nullptr, file, line);
}
static inline unsigned __ballot_sync(unsigned mask, int p, SIMT_HERE) {
    simt::Vote vote = {p != 0};
    simt::warp_together("a ballot", mask, simt::warp_vote, &vote, file, line);
    return vote.yes;
}
static inline int __any_sync(unsigned mask, int p, SIMT_HERE) {
    return __ballot_sync(mask, p, file, line) != 0;
}
static inline int __all_sync(unsigned mask, int p, SIMT_HERE) {
    return __ballot_sync(mask, p, file, line) == mask;
}

[[noreturn]] static inline void __trap(SIMT_HERE) {
    simt::fail("trap (%s:%d)", file, line);
}

namespace simt {

template <class T>
static inline T shuffle(unsigned mask, T v, unsigned source, const char *file, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    Shuffle s = {0, 0, source, file, line};
    memcpy(&s.value, &v, sizeof v);
    warp_together("a shuffle", mask, warp_shuffle, &s, file, line);
    memcpy(&v, &s.result, sizeof v);
    return v;
}

/* First lane of the caller's segment of `width` lanes. */
static inline unsigned segment(int width) {
    return lane() & ~(unsigned)(width - 1);
}

}  // namespace simt

template <class T>
static inline T __shfl_sync(unsigned mask, T v, int source, int width = 32, SIMT_HERE) {
    return simt::shuffle(mask, v, simt::segment(width) | (source & (width - 1)), file, line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32, SIMT_HERE) {
    unsigned source = simt::lane() ^ x;
    if (source >= simt::segment(width) + width) source = simt::lane();
    return simt::shuffle(mask, v, source, file, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32, SIMT_HERE) {
    unsigned source = simt::lane() + d;
    if (source >= simt::segment(width) + width) source = simt::lane();
    return simt::shuffle(mask, v, source, file, line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32, SIMT_HERE) {
    unsigned me = simt::lane();
    return simt::shuffle(mask, v, me - simt::segment(width) < d ? me : me - d, file, line);
}

/* Threads switch only where they synchronise, so a plain read-modify-write is atomic. */
template <class T>
static inline T atomicAdd(T *p, T v) {
    T old = *p;
    *p = old + v;
    return old;
}

static inline float rsqrtf(float x) {
    return 1 / sqrtf(x);
}

#endif
