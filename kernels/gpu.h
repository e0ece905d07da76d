/* gpu.h - the little CUDA that kernels may lean on. Included by .cu files only.
 *
 * Kernels are compiled twice: by nvcc for the GPU, and by the host's C++ compiler for the simulated
 * device (tests/simt/), which puts its own cuda_runtime.h first on the path. To stay compilable by
 * both, a kernel file
 *   - launches through GPU_LAUNCH, never <<< >>>;
 *   - declares dynamic shared memory through GPU_DYN_SHARED;
 *   - takes inline PTX from ptx.h alone, where each piece stands beside a host body;
 *   - passes a full, correct mask to every *_sync call and assumes no lock step;
 *   - lets no thread return before a barrier or a collective that others of its warp reach;
 *   - states the launch bounds of each kernel, which has a line in tests/kernels.txt: what its
 *     machine code must look like. */
#ifndef SAILS_GPU_H
#define SAILS_GPU_H

#include <cuda_runtime.h> /* first: the simulated device's goes before the toolkit's */

#define CUDA_NO_HALF /* no type of the name half */
#include <cuda_bf16.h>

#include <initializer_list>

#include "kernels/bf16.h"
#include "kernels/cuda.h"

enum { WARP = 32 };
#define FULL_MASK 0xffffffffu

/* A kernel that has not asked gets 48 KB of shared memory, static and dynamic together. So all that
 * have dynamic memory ask: what static variables take of it is not known here. */
static inline cudaError_t gpu_ask_shared(const void *kernel, size_t bytes) {
    if (bytes == 0) return cudaSuccess;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

/* Launches on the Exec's stream and checks. A kernel name with a comma needs parentheses. */
#define GPU_LAUNCH(ex, kernel, grid, block, smem, ...)                                         \
    do {                                                                                       \
        cudaLaunchConfig_t config_ = {};                                                       \
        config_.gridDim = dim3(grid);                                                          \
        config_.blockDim = dim3(block);                                                        \
        config_.dynamicSmemBytes = (smem);                                                     \
        config_.stream = cuda_state(ex)->stream;                                               \
        cudaError_t error_ = gpu_ask_shared((const void *)(kernel), config_.dynamicSmemBytes); \
        if (error_ == cudaSuccess) error_ = cudaLaunchKernelEx(&config_, kernel, __VA_ARGS__); \
        cuda_launched(ex, error_, #kernel);                                                    \
    } while (0)

#ifndef GPU_DYN_SHARED /* the simulated device brings its own */
#define GPU_DYN_SHARED(T, name)                                      \
    extern __shared__ __align__(16) unsigned char gpu_dyn_shared_[]; \
    T *name = reinterpret_cast<T *>(gpu_dyn_shared_)
#endif

/* Defines cuda_<op>[] from a launcher template <class T> <op>, T the storage type. */
#define GPU_TWINS(op) op_##op *const cuda_##op[DTYPE_COUNT] = {op<float>, op<bf16>}

/* A store tensor as elements of the template's storage type. */
template <class T>
static inline T *elems(store *p) {
    return reinterpret_cast<T *>(p);
}
template <class T>
static inline const T *elems(const store *p) {
    return reinterpret_cast<const T *>(p);
}

static __device__ inline float get(float e) {
    return e;
}
static __device__ inline float get(bf16 e) {
    return bf16_to_f32(e);
}
static __device__ inline void put(float *e, float f) {
    *e = f;
}
/* By the instruction for it, one instead of seven; only the bits of NaN differ. */
static __device__ inline void put(bf16 *e, float f) {
#ifdef __CUDA_ARCH__
    e->bits = __bfloat16_as_ushort(__float2bfloat16_rn(f));
#else
    *e = bf16_from_f32(f);
#endif
}

/* Two elements rounded and packed in a register, as mma_bf16 takes them: the first in its lower
 * half. */
static __device__ inline uint32_t pack_bf16(float low, float high) {
#ifdef __CUDA_ARCH__
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
#else
    return bf16_from_f32(low).bits | (uint32_t)bf16_from_f32(high).bits << 16;
#endif
}

/* The widest access of global memory, and the elements that it moves. */
static constexpr size_t PACK_BYTES = 16;
template <class T>
static constexpr int pack_len = PACK_BYTES / sizeof(T);

/* W neighbouring elements; up to 16 bytes move by one load or store, more by several. The address
 * must be a multiple of the size, or of 16. */
template <class T, int W = pack_len<T>>
struct alignas(sizeof(T) * W < PACK_BYTES ? sizeof(T) * W : PACK_BYTES) Pack {
    T v[W];
};

/* Hardware faults where a pack is not aligned; the simulated device, whose processor may not mind,
 * does so here. */
template <int W, class T>
static __device__ inline void pack_expect_aligned(const T *p) {
#ifndef __CUDA_ARCH__
    if (reinterpret_cast<uintptr_t>(p) % alignof(Pack<T, W>) != 0) __trap();
#endif
    (void)p;
}

/* The pack at p. If not `whole`, p may be unaligned and the tensor may end after `left` elements:
 * they move one by one, and what lies beyond reads as 0 and is not written. */
template <int W, class T>
static __device__ inline Pack<T, W> pack_load(const T *p, size_t left, bool whole) {
    if (whole) {
        pack_expect_aligned<W>(p);
        return *reinterpret_cast<const Pack<T, W> *>(p);
    }
    Pack<T, W> a = {};
    for (int k = 0; k < W; k++)
        if ((size_t)k < left) a.v[k] = p[k];
    return a;
}
template <int W, class T>
static __device__ inline void pack_store(T *p, Pack<T, W> a, size_t left, bool whole) {
    if (whole) {
        pack_expect_aligned<W>(p);
        *reinterpret_cast<Pack<T, W> *>(p) = a;
    } else {
        for (int k = 0; k < W; k++)
            if ((size_t)k < left) p[k] = a.v[k];
    }
}

/* Copies D elements, by all threads of the block. */
template <bool WHOLE, class T>
static __device__ inline void row_copy(T *to, const T *from, int D) {
    constexpr int W = pack_len<T>;
    for (int i = threadIdx.x * W; i < D; i += blockDim.x * W)
        pack_store(to + i, pack_load<W>(from + i, D - i, WHOLE), D - i, WHOLE);
}

static inline bool pack_aligned(std::initializer_list<const void *> tensors) {
    bool all = true;
    for (const void *p : tensors) all = all && reinterpret_cast<uintptr_t>(p) % PACK_BYTES == 0;
    return all;
}

/* Whether the packs of tensors with rows of this length are whole. */
template <class T>
static inline bool pack_rows(int row, std::initializer_list<const void *> tensors) {
    return row % pack_len<T> == 0 && pack_aligned(tensors);
}

/* Blocks for n > 0 elements at one pack of W per thread. */
template <int W>
static inline unsigned pack_blocks(size_t n, int threads) {
    size_t blocks = (n - 1) / ((size_t)threads * W) + 1;
    CHECK(blocks <= INT32_MAX, "%zu elements are too many for one launch", n);
    return (unsigned)blocks;
}

static inline SAILS_HD int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

/* For what only the device sees of a contract, such as an index: stops the kernel, and with it the
 * process when it next waits for the device. */
static __device__ inline void gpu_expect(bool holds) {
    if (!holds) __trap();
}

/* Sum over the 32 lanes of a warp; every lane gets it. All 32 lanes must call. */
template <class T>
static __device__ inline T warp_sum(T v) {
    for (int o = WARP / 2; o > 0; o /= 2) v += __shfl_xor_sync(FULL_MASK, v, o);
    return v;
}

/* The largest over a warp, in the same way; NaN only if all are. */
static __device__ inline float warp_max(float v) {
    for (int o = WARP / 2; o > 0; o /= 2) v = fmaxf(v, __shfl_xor_sync(FULL_MASK, v, o));
    return v;
}

/* Sum over the threads of a block of whole warps, in an order fixed by their number; every thread
 * gets it. All must call. `part`: shared, one element per warp, used for nothing else in between
 * the barriers before and after. */
template <class T>
static __device__ inline T block_sum(T v, T *part) {
    v = warp_sum(v);
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = v;
    __syncthreads();
    T sum = part[0];
    for (int w = 1; w < (int)blockDim.x / WARP; w++) sum += part[w];
    return sum;
}

/* The largest over a block, in the same way as block_sum. */
static __device__ inline float block_max(float v, float *part) {
    v = warp_max(v);
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = v;
    __syncthreads();
    v = part[0];
    for (int w = 1; w < (int)blockDim.x / WARP; w++) v = fmaxf(v, part[w]);
    return v;
}

#endif
