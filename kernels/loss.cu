/* loss.cu - softcap, cross entropy and its gradient over long rows. Contract: ops.h.
 *
 * Math, with a reference `top` near the largest z:
 *   others = sum of exp(z_i - top), i != target;   sum = others + exp(z_t - top)
 *   nll = log sum + top - z_t;   dlogits_i = weight exp(z_i - top) / sum (1 - (z_i/cap)^2), and
 *   dlogits_t = -weight others / sum (1 - (z_t/cap)^2): nothing cancels where p_t is close to 1.
 *
 * Work split: three kernels, a block per CHUNK elements of a row in the first and the last.
 *   k_xent_sum   reads the logits once: each thread keeps its own `top` and sum. `top` follows the
 *                maximum only when it is left behind by more than SLACK. So old terms are seldom
 *                rescaled, and when they are, their rounding shrinks with them.
 *   k_xent_row   a warp per row: adds the row's chunks in a fixed tree; nll, and what the gradient
 *                needs of the row.
 *   k_xent_grad  reads the logits again, last rows first: those are still in L2.
 * Traffic, FLOPs and derived time on an H100 (3.35 TB/s, 66.9 TFLOP/s) for 256 rows of V = 256000,
 *   bf16 gradient:
 *   at least  4NV + 2NV bytes          393 MB  117 us   40 FLOP per element  2.6 GFLOP   39 us
 *   ours      4NV + 4NV + 2NV less L2  615 MB  184 us  138                   9.0 GFLOP  135 us
 *   The second pass finds some 40 MB of logits in L2, and computes softcap and exp again. What
 *   bounds it is instructions: by SASS count 88 and 81 per element of the two passes, 332 us at the
 *   33.4 T that all lanes start in a second, half of 66.9 TFLOP/s.
 * Limits: none beyond the contract. A target out of range traps. */
#include <float.h>
#include <math.h>

#include "kernels/gpu.h"
#include "kernels/scalar.h"

enum { THREADS = 256, CHUNK = 1 << 13, ROWS = 4, ROW_THREADS = ROWS * WARP };
static constexpr float SLACK = 8;

/* A chunk's sum of exp(z - top), the target left out. */
typedef struct Part {
    double sum;
    float top;
} Part;

/* What the gradient needs of a row: its reference, weight / sum, and the target's own gradient. */
typedef struct RowGrad {
    float top, scale, target;
} RowGrad;

static __device__ inline float capped(float x, float cap) {
    return cap > 0 ? scalar_softcap(x, cap) : x;
}

/* (1 - (z/cap)^2), 1 where nothing is capped. */
static __device__ inline float slope(float z, float cap) {
    return cap > 0 ? scalar_softcap_grad(z, cap) : 1;
}

template <bool WHOLE>
static __global__ void __launch_bounds__(THREADS)
    k_xent_sum(Part *part, const float *logits, const int32_t *target, int V, int chunks,
               float cap) {
    constexpr int W = pack_len<float>;
    __shared__ float tops[THREADS / WARP];
    __shared__ double sums[THREADS / WARP];
    int row = blockIdx.x / chunks, first = blockIdx.x % chunks * CHUNK, t = target[row];
    gpu_expect(t >= 0 && t < V);
    const float *x = logits + (size_t)row * V;
    float top = -FLT_MAX;
    double sum = 0;
    for (int i = first + threadIdx.x * W; i < first + CHUNK && i < V; i += THREADS * W) {
        Pack<float> z = pack_load<W>(x + i, V - i, WHOLE);
        float most = -FLT_MAX, s = 0;
        for (int k = 0; k < W; k++) {
            z.v[k] = i + k == t || (!WHOLE && i + k >= V) ? -INFINITY : capped(z.v[k], cap);
            most = z.v[k] > most ? z.v[k] : most;
        }
        if (most > top + SLACK) {
            sum *= scalar_exp(top - most);
            top = most;
        }
        for (int k = 0; k < W; k++) s += scalar_exp(z.v[k] - top);
        sum += s;
    }
    float block_top = block_max(top, tops);
    sum = block_sum(sum * scalar_exp(top - block_top), sums);
    if (threadIdx.x == 0) part[blockIdx.x] = {sum, block_top};
}

static __global__ void __launch_bounds__(ROW_THREADS)
    k_xent_row(float *nll, RowGrad *grad, const Part *part, const float *logits,
               const int32_t *target, const float *weight, int N, int V, int chunks, float cap) {
    int row = blockIdx.x * ROWS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= N) return; /* whole warps leave together */
    float zt = capped(logits[(size_t)row * V + target[row]], cap), top = zt;
    part += (size_t)row * chunks;
    for (int c = lane; c < chunks; c += WARP) top = fmaxf(top, part[c].top);
    top = warp_max(top);
    double others = 0;
    for (int c = lane; c < chunks; c += WARP) others += part[c].sum * scalar_exp(part[c].top - top);
    others = warp_sum(others);
    if (lane != 0) return;
    double sum = others + scalar_exp(zt - top);
    nll[row] = (float)(log(sum) + ((double)top - zt));
    float w = weight ? weight[row] : 0;
    grad[row] = {top, (float)(w / sum), (float)(-w * (others / sum) * slope(zt, cap))};
}

template <class T, bool WHOLE>
static __global__ void __launch_bounds__(THREADS)
    k_xent_grad(T *dlogits, const float *logits, const int32_t *target, const RowGrad *grad, int N,
                int V, int chunks, float cap) {
    constexpr int W = pack_len<T>;
    int row = N - 1 - blockIdx.x / chunks, first = blockIdx.x % chunks * CHUNK, t = target[row];
    RowGrad g = grad[row];
    const float *x = logits + (size_t)row * V;
    T *d = dlogits + (size_t)row * V;
    for (int i = first + threadIdx.x * W; i < first + CHUNK && i < V; i += THREADS * W) {
        Pack<float, W> a = pack_load<W>(x + i, V - i, WHOLE);
        Pack<T> o;
        for (int k = 0; k < W; k++) {
            float z = capped(a.v[k], cap), p = g.scale * scalar_exp(z - g.top);
            put(&o.v[k], i + k == t ? g.target : p * slope(z, cap));
        }
        pack_store(d + i, o, V - i, WHOLE);
    }
}

template <class T>
static size_t xent_scratch(Exec *, int N, int V) {
    return (size_t)N * (ceil_div(V, CHUNK) * sizeof(Part) + sizeof(RowGrad));
}

template <class T>
static void xent(Exec *ex, store *dlogits, float *nll, const float *logits, const int32_t *target,
                 const float *weight, int N, int V, float cap) {
    OP_BEGIN(ex, xent, dlogits, N, V, cap);
    if (N == 0) return; /* an empty grid is a launch error */
    int chunks = ceil_div(V, CHUNK);
    CHECK(N <= INT32_MAX / chunks, "N=%d V=%d are too many for one launch", N, V);
    Part *part = (Part *)exec_scratch(ex, xent_scratch<T>(ex, N, V));
    RowGrad *grad = (RowGrad *)(part + (size_t)N * chunks);
    bool whole = pack_rows<float>(V, {logits});
    GPU_LAUNCH(ex, (whole ? k_xent_sum<true> : k_xent_sum<false>), N * chunks, THREADS, 0, part,
               logits, target, V, chunks, cap);
    GPU_LAUNCH(ex, k_xent_row, ceil_div(N, ROWS), ROW_THREADS, 0, nll, grad, part, logits, target,
               dlogits ? weight : nullptr, N, V, chunks, cap);
    if (!dlogits) return;
    whole = pack_rows<T>(V, {dlogits, logits});
    GPU_LAUNCH(ex, (whole ? k_xent_grad<T, true> : k_xent_grad<T, false>), N * chunks, THREADS, 0,
               elems<T>(dlogits), logits, target, grad, N, V, chunks, cap);
}

GPU_TWINS(xent);
GPU_TWINS(xent_scratch);
