/* adamw.cu - AdamW with decoupled weight decay, of masters whole and split, and their splitting.
 * Contracts: ops.h; the update itself: adamw.h; a split master: halves.h.
 *
 * Math: g' = gscale g;  m = b1 m + (1-b1) g';  v = b2 v + (1-b2) g'^2;
 *   p = (1 - lr wd) p - lr / (1-b1^step) m / (sqrt(v) / sqrt(1-b2^step) + eps)
 *   split  (high, low) = p;   join  p = (high, low)
 *
 * Work split: one thread per pack of 16 bytes of each tensor, of split masters of the upper halves;
 *   the last pack element by element; all of them where the slices start between packs.
 * Traffic, and derived time on an H100 (3.35 TB/s) for the 6.39M | 17.9M parameters of adapters of
 *   rank 16 on q, k, v, o of 2B | 9B: 28n bytes, 15n FLOP; 53 | 150 us, bound by memory, in either
 *   form. For all 2.61G of 2B: 22 ms. split, join: 8n bytes.
 * Limits: none beyond the contract. */
#include "kernels/adamw.h"

#include "kernels/gpu.h"
#include "kernels/halves.h"

enum { THREADS = 256 };

/* W split masters: of f32 the one half is all. */
template <int W>
static __device__ inline Pack<float, W> master_load(const float *high, const int16_t *, size_t i,
                                                    size_t left, bool whole) {
    return pack_load<W>(high + i, left, whole);
}
template <int W>
static __device__ inline Pack<float, W> master_load(const bf16 *high, const int16_t *low, size_t i,
                                                    size_t left, bool whole) {
    Pack<bf16, W> h = pack_load<W>(high + i, left, whole);
    Pack<int16_t, W> l = pack_load<W>(low + i, left, whole);
    Pack<float, W> p;
    for (int k = 0; k < W; k++) p.v[k] = halves_join(h.v[k], l.v[k]);
    return p;
}
template <int W>
static __device__ inline void master_store(float *high, int16_t *, size_t i, Pack<float, W> p,
                                           size_t left, bool whole) {
    pack_store(high + i, p, left, whole);
}
template <int W>
static __device__ inline void master_store(bf16 *high, int16_t *low, size_t i, Pack<float, W> p,
                                           size_t left, bool whole) {
    Pack<bf16, W> h;
    Pack<int16_t, W> l;
    for (int k = 0; k < W; k++) h.v[k] = halves_high(p.v[k]), l.v[k] = halves_low(p.v[k]);
    pack_store(high + i, h, left, whole);
    pack_store(low + i, l, left, whole);
}

static __global__ void __launch_bounds__(THREADS)
    k_adamw(float *p, float *m, float *v, const float *g, size_t n, AdamStep s, bool aligned) {
    constexpr int W = pack_len<float>;
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * W;
    if (i >= n) return;
    size_t left = n - i;
    bool whole = aligned && left >= W;
    Pack<float> a = pack_load<W>(p + i, left, whole), b = pack_load<W>(m + i, left, whole);
    Pack<float> c = pack_load<W>(v + i, left, whole), d = pack_load<W>(g + i, left, whole);
    for (int k = 0; k < W; k++) adam_update(&a.v[k], &b.v[k], &c.v[k], d.v[k], s);
    pack_store(p + i, a, left, whole);
    pack_store(m + i, b, left, whole);
    pack_store(v + i, c, left, whole);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_adamw_split(T *high, int16_t *low, float *m, float *v, const float *g, size_t n, AdamStep s,
                  bool aligned) {
    constexpr int W = pack_len<T>;
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * W;
    if (i >= n) return;
    size_t left = n - i;
    bool whole = aligned && left >= W;
    Pack<float, W> a = master_load<W>(high, low, i, left, whole);
    Pack<float, W> b = pack_load<W>(m + i, left, whole), c = pack_load<W>(v + i, left, whole);
    Pack<float, W> d = pack_load<W>(g + i, left, whole);
    for (int k = 0; k < W; k++) adam_update(&a.v[k], &b.v[k], &c.v[k], d.v[k], s);
    master_store(high, low, i, a, left, whole);
    pack_store(m + i, b, left, whole);
    pack_store(v + i, c, left, whole);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_split(T *high, int16_t *low, const float *x, size_t n, bool aligned) {
    constexpr int W = pack_len<T>;
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * W;
    if (i >= n) return;
    bool whole = aligned && n - i >= W;
    master_store(high, low, i, pack_load<W>(x + i, n - i, whole), n - i, whole);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_join(float *x, const T *high, const int16_t *low, size_t n, bool aligned) {
    constexpr int W = pack_len<T>;
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * W;
    if (i >= n) return;
    bool whole = aligned && n - i >= W;
    pack_store(x + i, master_load<W>(high, low, i, n - i, whole), n - i, whole);
}

template <class T>
static void adamw(Exec *ex, float *p, float *m, float *v, const float *g, size_t n, float gscale,
                  AdamW a) {
    OP_BEGIN(ex, adamw, n, a);
    AdamStep s = adam_step(a, gscale);
    if (n == 0) return; /* an empty grid is a launch error */
    GPU_LAUNCH(ex, k_adamw, pack_blocks<pack_len<float>>(n, THREADS), THREADS, 0, p, m, v, g, n, s,
               pack_aligned({p, m, v, g}));
}

template <class T>
static void adamw_split(Exec *ex, store *high, int16_t *low, float *m, float *v, const float *g,
                        size_t n, float gscale, AdamW a) {
    OP_BEGIN(ex, adamw_split, n, a);
    AdamStep s = adam_step(a, gscale);
    if (n == 0) return;
    GPU_LAUNCH(ex, k_adamw_split<T>, pack_blocks<pack_len<T>>(n, THREADS), THREADS, 0,
               elems<T>(high), low, m, v, g, n, s, pack_aligned({high, low, m, v, g}));
}

template <class T>
static void split(Exec *ex, store *high, int16_t *low, const float *x, size_t n) {
    OP_BEGIN(ex, split, n);
    if (n == 0) return;
    GPU_LAUNCH(ex, k_split<T>, pack_blocks<pack_len<T>>(n, THREADS), THREADS, 0, elems<T>(high),
               low, x, n, pack_aligned({high, low, x}));
}

template <class T>
static void join(Exec *ex, float *x, const store *high, const int16_t *low, size_t n) {
    OP_BEGIN(ex, join, n);
    if (n == 0) return;
    GPU_LAUNCH(ex, k_join<T>, pack_blocks<pack_len<T>>(n, THREADS), THREADS, 0, x, elems<T>(high),
               low, n, pack_aligned({x, high, low}));
}

GPU_TWINS(adamw);
GPU_TWINS(adamw_split);
GPU_TWINS(split);
GPU_TWINS(join);
