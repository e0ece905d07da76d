/* ptx.h - tensor cores, 2^x and asynchronous copies: the only inline PTX, each piece beside the
 * body that the simulated device runs instead (tests/simt/tensor.cc, async.cc). Included by .cu
 * files.
 *
 * Everything named mma_ and ldmatrix_ is a step of a whole warp: all 32 lanes call it, together.
 * The matrices of a warp lie spread over its registers as fragments. With lane = 4 g + t, and pairs
 * of bf16 in one register, lower column or row in the lower half (PTX ISA, "Matrix Fragments"):
 *
 *   bf16  A (16,16)  a[0] = A[g][2t..]    a[1] = A[g+8][2t..]   a[2] = A[g][2t+8..]
 *                    a[3] = A[g+8][2t+8..]
 *         B (16,8)   b[0] = B[2t..][g]    b[1] = B[2t+8..][g]
 *   tf32  A (16,8)   a[0] = A[g][t]       a[1] = A[g+8][t]      a[2] = A[g][t+4]
 *                    a[3] = A[g+8][t+4]
 *         B (8,8)    b[0] = B[t][g]       b[1] = B[t+4][g]
 *   both  D (16,8)   d[0] = D[g][2t]      d[1] = D[g][2t+1]     d[2] = D[g+8][2t]
 *                    d[3] = D[g+8][2t+1]
 *
 * So the D of one product, rounded and packed in pairs, is half of the A of the next. */
#ifndef SAILS_PTX_H
#define SAILS_PTX_H

#include "kernels/gpu.h"

#ifdef __CUDACC__
#define PTX_HERE
#else
#define PTX_HERE , SIMT_HERE /* where the caller stands, for the simulated device's messages */
#endif

/* ------------------------------------------------------------------------------ products -- */

/* d[i][j] += A[i] B[j]: M x N products of bf16 matrices. Products are exact; sums are f32, in an
 * order and with a rounding that the hardware does not document: count on an error of
 * 2^-22 (sum of |products| + |d|) for one call. */
template <int M, int N>
static __device__ inline void mma_bf16(float (&d)[M][N][4], const uint32_t (&a)[M][4],
                                       const uint32_t (&b)[N][2] PTX_HERE) {
#ifdef __CUDACC__
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++)
            asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
                : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b[j][0]),
                  "r"(b[j][1]));
#else
    simt::mma(simt::MMA_BF16, {&d[0][0][0], &a[0][0], &b[0][0], M, N}, file, line);
#endif
}

/* The same for tf32: f32 of which only the upper 19 bits count. All operands must come from
 * tf32_round, with the lower 13 bits zero. */
template <int M, int N>
static __device__ inline void mma_tf32(float (&d)[M][N][4], const uint32_t (&a)[M][4],
                                       const uint32_t (&b)[N][2] PTX_HERE) {
#ifdef __CUDACC__
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++)
            asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
                : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b[j][0]),
                  "r"(b[j][1]));
#else
    simt::mma(simt::MMA_TF32, {&d[0][0][0], &a[0][0], &b[0][0], M, N}, file, line);
#endif
}

/* The bits of f rounded to tf32: to nearest, ties away from zero, so by at most 2^-11 relatively.
 * f = high + low with high = tf32_round(f) and low = tf32_round(f - high) keeps 22 bits, and
 * high high + (high low + low high) misses an f32 product by 2^-20 of it: "3xTF32". */
static __device__ inline uint32_t tf32_round(float f) {
    uint32_t bits;
#ifdef __CUDACC__
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(f));
#else
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) <= 0x7f800000u) bits += 0x1000u; /* a carry may round up to infinity */
#endif
    return bits & ~0x1fffu; /* PTX does not say what the instruction leaves there */
}

/* ------------------------------------------------------------------------------- scalars -- */

/* exp x = 2^(x LOG2_E), log x = LN_2 log2 x. */
static constexpr double LOG2_E = 1.4426950408889634, LN_2 = 0.6931471805599453;

/* 2^x in one instruction, within 2^-22 of it; below 2^-126 there is 0. */
static __device__ inline float exp2_approx(float x) {
    float y;
#ifdef __CUDACC__
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
#else
    y = x < -126.0f ? 0.0f : exp2f(x);
#endif
    return y;
}

/* -------------------------------------------------------------------------- shared memory -- */

/* Reads four 8x8 matrices of 16-bit elements from shared memory, r[i] of every lane its part of
 * matrix i: row g, columns 2t and 2t+1. Lane l supplies the address of row l % 8 of matrix l / 8,
 * 16 bytes, a multiple of 16. _x2 reads two matrices and uses the addresses of lanes 0 to 15 (the
 * others must still be in range). _trans gives each lane column g, rows 2t and 2t+1 instead.
 * r: consecutive registers, such as a[i], or b[j] for the pair b[j], b[j+1]. */
template <int COUNT, bool TRANS>
static __device__ inline void ldmatrix(uint32_t *r, const void *row PTX_HERE) {
    static_assert(COUNT == 2 || COUNT == 4, "ldmatrix reads 2 or 4 matrices here");
#ifdef __CUDACC__
    uint32_t s = (uint32_t)__cvta_generic_to_shared(row);
    if constexpr (COUNT == 4 && !TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(s)
                     : "memory");
    else if constexpr (COUNT == 4)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(s)
                     : "memory");
    else if constexpr (!TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1])
                     : "r"(s)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1])
                     : "r"(s)
                     : "memory");
#else
    simt::ldmatrix(r, row, COUNT, TRANS, file, line);
#endif
}

/* ------------------------------------------------------------------- asynchronous copies -- */

/* Starts a copy of BYTES (4 or 16, which both addresses are multiples of) from global to shared
 * memory; with valid false nothing is read and zeros are written. Until the group's wait and, for
 * other threads, a barrier after it, the destination is neither old nor new. */
template <int BYTES>
static __device__ inline void cp_async(void *shared, const void *global, bool valid PTX_HERE) {
    static_assert(BYTES == 4 || BYTES == 16, "copies are of 4 or 16 bytes here");
#ifdef __CUDACC__
    uint32_t s = (uint32_t)__cvta_generic_to_shared(shared);
    int read = valid ? BYTES : 0;
    if constexpr (BYTES == 16) /* past L1: nobody else reads it */
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(s), "l"(global),
                     "r"(read)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(s), "l"(global), "r"(read)
                     : "memory");
#else
    simt::async_copy(shared, global, BYTES, valid, file, line);
#endif
}

/* The caller's copies since the last commit become one group, which may be empty. */
static __device__ inline void cp_async_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    simt::async_commit();
#endif
}

/* Waits until at most PENDING of the caller's groups, the youngest, are unfinished. Every thread
 * must have waited for all that it started before it ends. */
template <int PENDING>
static __device__ inline void cp_async_wait() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#else
    simt::async_wait(PENDING);
#endif
}

#endif
