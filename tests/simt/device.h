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
static inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_HERE) {
    simt::warp_together("__syncwarp", mask, nullptr, nullptr, file, line);
}
static inline unsigned __ballot_sync(unsigned mask, int p, SIMT_HERE) {
    return simt::vote(mask, p != 0, file, line);
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
static inline T shuffle_any(unsigned mask, T v, unsigned source, const char *file, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = shuffle(mask, bits, source, file, line);
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* First lane of the caller's segment of `width` lanes. */
static inline unsigned segment(int width) {
    return lane() & ~(unsigned)(width - 1);
}

}  // namespace simt

template <class T>
static inline T __shfl_sync(unsigned mask, T v, int source, int width = 32, SIMT_HERE) {
    return simt::shuffle_any(mask, v, simt::segment(width) | (source & (width - 1)), file, line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32, SIMT_HERE) {
    unsigned source = simt::lane() ^ x;
    if (source >= simt::segment(width) + width) source = simt::lane();
    return simt::shuffle_any(mask, v, source, file, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32, SIMT_HERE) {
    unsigned source = simt::lane() + d;
    if (source >= simt::segment(width) + width) source = simt::lane();
    return simt::shuffle_any(mask, v, source, file, line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32, SIMT_HERE) {
    unsigned me = simt::lane();
    return simt::shuffle_any(mask, v, me - simt::segment(width) < d ? me : me - d, file, line);
}

template <class T>
static inline T atomicAdd(T *p, T v) {
    T old, sum;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do sum = old + v;
    while (!__atomic_compare_exchange(p, &old, &sum, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}

template <class T>
static inline T atomicMin(T *p, T v) {
    T old;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    while (v < old &&
           !__atomic_compare_exchange(p, &old, &v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}

template <class T>
static inline T atomicMax(T *p, T v) {
    T old;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    while (v > old &&
           !__atomic_compare_exchange(p, &old, &v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}

static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}
template <class T>
static inline T min(T a, T b) {
    return b < a ? b : a;
}

static inline float rsqrtf(float x) {
    return 1 / sqrtf(x);
}

#endif
