/* rope.cu - rotary position embedding: table, rotation and inverse. Contracts: ops.h.
 *
 * Math, for each head and i < E/2, with (a, b) = (x[i], x[i + E/2]):
 *   forward   a' = a cos - b sin,  b' = b cos + a sin;   backward: the same with -sin
 *
 * Work split: one block per row; a thread rotates a pack of 16 bytes of a head's lower half against
 *   its partner in the upper half. The block's heads share the row's angles through L1. Heads whose
 *   halves lie unaligned go element by element.
 * Traffic, and derived time on an H100 (3.35 TB/s) for 4096 rows of bf16, E = 256, H = 8 | 16
 *   heads: 2NHE elements + NE f32 of table, 6 FLOP for each pair: 11 | 21 us, bound by memory.
 *   rope_table writes 4PE bytes, 8.4 MB and 2.5 us for P = 8192 positions of E = 256, but is bound
 *   by cos and sin in double; it runs once, at start-up. Its frequencies are made on the host, in
 *   double, so that they are those of the CPU twin to the bit; the device has cos and sin of f32
 *   angles in double.
 * Limits: none beyond the contract. A negative position traps. */
#include <math.h>
#include <stdlib.h>

#include "kernels/gpu.h"

enum { THREADS = 128 };

template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_rope_table(float *cosine, float *sine, const float *frequency, int pairs) {
    for (int i = threadIdx.x; i < pairs; i += THREADS) {
        float angle = frequency[i] * (float)blockIdx.x;
        size_t at = (size_t)blockIdx.x * pairs + i;
        T rounded;
        put(&rounded, (float)cos((double)angle));
        cosine[at] = get(rounded);
        put(&rounded, (float)sin((double)angle));
        sine[at] = get(rounded);
    }
}

/* Rotates by the angle of pos[n] times sign: +1 forward, -1 back. */
template <class T, bool WHOLE>
static __global__ void __launch_bounds__(THREADS)
    k_rope(T *x, const float *cosine, const float *sine, const int32_t *pos, int H, int pairs,
           float sign) {
    constexpr int W = pack_len<T>;
    int packs = ceil_div(pairs, W), p = pos[blockIdx.x];
    gpu_expect(p >= 0);
    for (int u = threadIdx.x; u < H * packs; u += THREADS) {
        int i = u % packs * W, left = pairs - i;
        T *lo = x + ((size_t)blockIdx.x * H + u / packs) * 2 * pairs + i, *hi = lo + pairs;
        Pack<T> a = pack_load<W>(lo, left, WHOLE), b = pack_load<W>(hi, left, WHOLE);
        Pack<float, W> c = pack_load<W>(cosine + (size_t)p * pairs + i, left, WHOLE);
        Pack<float, W> s = pack_load<W>(sine + (size_t)p * pairs + i, left, WHOLE);
        for (int k = 0; k < W; k++) {
            float ak = get(a.v[k]), bk = get(b.v[k]), sk = sign * s.v[k];
            put(&a.v[k], ak * c.v[k] - bk * sk);
            put(&b.v[k], bk * c.v[k] + ak * sk);
        }
        pack_store(lo, a, left, WHOLE);
        pack_store(hi, b, left, WHOLE);
    }
}

template <class T>
static size_t rope_table_scratch(Exec *, int E) {
    return (size_t)(E / 2) * sizeof(float);
}

template <class T>
static void rope_table(Exec *ex, float *cosine, float *sine, int P, int E, double theta) {
    OP_BEGIN(ex, rope_table, P, E, theta);
    if (P == 0) return; /* an empty grid is a launch error */
    int pairs = E / 2;
    size_t bytes = rope_table_scratch<T>(ex, E);
    float *frequency = (float *)exec_scratch(ex, bytes), *host = (float *)malloc(bytes);
    CHECK(host, "out of memory");
    for (int i = 0; i < pairs; i++) {
        float exponent = (float)(2 * i) / (float)E;
        host[i] = 1 / (float)pow((double)(float)theta, (double)exponent);
    }
    exec_copy_in(ex, frequency, host, bytes);
    free(host);
    GPU_LAUNCH(ex, k_rope_table<T>, P, THREADS, 0, cosine, sine, frequency, pairs);
}

template <class T>
static void rotate(Exec *ex, store *x, const float *cosine, const float *sine, const int32_t *pos,
                   int N, int H, int E, float sign) {
    if (N == 0) return;
    bool whole = pack_rows<T>(E / 2, {x, cosine, sine});
    GPU_LAUNCH(ex, (whole ? k_rope<T, true> : k_rope<T, false>), N, THREADS, 0, elems<T>(x), cosine,
               sine, pos, H, E / 2, sign);
}

template <class T>
static void rope_fwd(Exec *ex, store *x, const float *cosine, const float *sine, const int32_t *pos,
                     int N, int H, int E) {
    OP_BEGIN(ex, rope_fwd, N, H, E);
    rotate<T>(ex, x, cosine, sine, pos, N, H, E, 1);
}

template <class T>
static void rope_bwd(Exec *ex, store *dx, const float *cosine, const float *sine,
                     const int32_t *pos, int N, int H, int E) {
    OP_BEGIN(ex, rope_bwd, N, H, E);
    rotate<T>(ex, dx, cosine, sine, pos, N, H, E, -1);
}

GPU_TWINS(rope_table);
GPU_TWINS(rope_table_scratch);
GPU_TWINS(rope_fwd);
GPU_TWINS(rope_bwd);
