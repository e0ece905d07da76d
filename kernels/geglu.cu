/* geglu.cu - gelu(gate) up and its backward. Contracts: ops.h.
 *
 * Math: gelu(g) = g sigmoid(2u) with 2u = sqrt(8/pi) (g + 0.044715 g^3), by scalar.h.
 *   forward   y = gelu(gate) up;   backward   dgate = dy up gelu'(gate),  dup = dy gelu(gate)
 *
 * Work split: one thread per pack of 16 bytes, the last pack element by element.
 * Traffic, and derived time on an H100 (3.35 TB/s) for 4096 rows of bf16, F = 9216 | 14336;
 *   instructions per element by SASS count, of the 33.4 T that all lanes start in a second (half of
 *   66.9 TFLOP/s):
 *   geglu_fwd  3n elements,  30n FLOP   68 | 105 us   49 instructions  55 |  86 us
 *   geglu_bwd  5n            40n       113 | 175 us   65               73 | 113 us
 *   Both are bound by memory, the forward only just: exp and a quotient in f32 are most of it.
 * Limits: none beyond the contract. */
#include "kernels/gpu.h"
#include "kernels/scalar.h"

enum { THREADS = 256 };

template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_geglu_fwd(T *y, const T *gate, const T *up, size_t n) {
    constexpr int W = pack_len<T>;
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * W;
    if (i >= n) return;
    size_t left = n - i;
    Pack<T> g = pack_load<W>(gate + i, left, left >= W), u = pack_load<W>(up + i, left, left >= W);
    for (int k = 0; k < W; k++) put(&g.v[k], scalar_gelu(get(g.v[k])) * get(u.v[k]));
    pack_store(y + i, g, left, left >= W);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_geglu_bwd(T *dgate, T *dup, const T *dy, const T *gate, const T *up, size_t n) {
    constexpr int W = pack_len<T>;
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * W;
    if (i >= n) return;
    size_t left = n - i;
    Pack<T> g = pack_load<W>(gate + i, left, left >= W), u = pack_load<W>(up + i, left, left >= W);
    Pack<T> d = pack_load<W>(dy + i, left, left >= W);
    for (int k = 0; k < W; k++) {
        float dk = get(d.v[k]), uk = get(u.v[k]);
        ScalarGelu act = scalar_gelu_both(get(g.v[k]));
        put(&g.v[k], dk * uk * act.slope);
        put(&u.v[k], dk * act.y);
    }
    pack_store(dgate + i, g, left, left >= W);
    pack_store(dup + i, u, left, left >= W);
}

template <class T>
static void geglu_fwd(Exec *ex, store *y, const store *gate, const store *up, size_t n) {
    OP_BEGIN(ex, geglu_fwd, n);
    if (n == 0) return; /* an empty grid is a launch error */
    CHECK(pack_aligned({y, gate, up}), "expected tensors aligned to 16 bytes");
    GPU_LAUNCH(ex, k_geglu_fwd<T>, pack_blocks<pack_len<T>>(n, THREADS), THREADS, 0, elems<T>(y),
               elems<T>(gate), elems<T>(up), n);
}

template <class T>
static void geglu_bwd(Exec *ex, store *dgate, store *dup, const store *dy, const store *gate,
                      const store *up, size_t n) {
    OP_BEGIN(ex, geglu_bwd, n);
    if (n == 0) return;
    CHECK(pack_aligned({dgate, dup, dy, gate, up}), "expected tensors aligned to 16 bytes");
    GPU_LAUNCH(ex, k_geglu_bwd<T>, pack_blocks<pack_len<T>>(n, THREADS), THREADS, 0,
               elems<T>(dgate), elems<T>(dup), elems<T>(dy), elems<T>(gate), elems<T>(up), n);
}

GPU_TWINS(geglu_fwd);
GPU_TWINS(geglu_bwd);
