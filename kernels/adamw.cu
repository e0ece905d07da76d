/* adamw.cu - AdamW with decoupled weight decay. Contract: ops.h; the update itself: adamw.h.
 *
 * Math: g' = gscale g;  m = b1 m + (1-b1) g';  v = b2 v + (1-b2) g'^2;
 *   p = (1 - lr wd) p - lr / (1-b1^step) m / (sqrt(v) / sqrt(1-b2^step) + eps)
 *
 * Work split: one thread per pack of 16 bytes of each tensor, the last pack element by element;
 *   all of them where the slices start between packs.
 * Traffic, and derived time on an H100 (3.35 TB/s) for the 6.39M | 17.9M parameters of adapters of
 *   rank 16 on q, k, v, o of 2B | 9B: 28n bytes, 15n FLOP; 53 | 150 us, bound by memory.
 * Limits: none beyond the contract. */
#include "kernels/adamw.h"

#include "kernels/gpu.h"

enum { THREADS = 256 };

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
static void adamw(Exec *ex, float *p, float *m, float *v, const float *g, size_t n, float gscale,
                  AdamW a) {
    OP_BEGIN(ex, adamw, n, a);
    AdamStep s = adam_step(a, gscale);
    if (n == 0) return; /* an empty grid is a launch error */
    GPU_LAUNCH(ex, k_adamw, pack_blocks<pack_len<float>>(n, THREADS), THREADS, 0, p, m, v, g, n, s,
               pack_aligned({p, m, v, g}));
}

GPU_TWINS(adamw);
