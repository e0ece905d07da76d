/* rmsnorm.cu - RMSNorm forward and backward. Contracts: ops.h.
 *
 * Math, per row of length D:
 *   forward   r = (mean(x^2) + eps)^-1/2,  y = x r (1 + w)
 *   backward  g = dy (1 + w).  dy/dx has two paths, the direct one (r g) and the one through r,
 *             whose derivative is -x r^3 / D:  dx += r g - x r^3 mean(g x)
 *
 * Work split: one warp per row, WARPS rows per block. Rows are read in packs of four elements, so
 *   lane l owns columns 4l..4l+3 of every 128-wide stripe; a D that is no multiple of four, which
 *   leaves rows unaligned, is read one element at a time.
 * Traffic: fwd 2ND elements, bwd 4ND (dx is read and written): both bandwidth bound. The second
 *   pass re-reads the row, which is at most a few KB and expected in L1.
 * Limits: none beyond the contract. No shared memory, no block barrier. */
#include "kernels/gpu.h"

enum { WARPS = 8, THREADS = WARPS * WARP }; /* WARPS rows per block */

template <class T, int W>
static __global__ void __launch_bounds__(THREADS)
    k_rmsnorm_fwd(T *y, float *rstd, const T *x, const T *w, int N, int D, float eps) {
    int n = blockIdx.x * WARPS + threadIdx.x / WARP; /* this warp's row */
    int lane = threadIdx.x % WARP;
    if (n >= N) return; /* whole warps leave together: warp_sum below stays full */

    typedef Pack<T, W> P;
    const P *xr = reinterpret_cast<const P *>(x + (size_t)n * D);
    const P *wr = reinterpret_cast<const P *>(w);
    P *yr = reinterpret_cast<P *>(y + (size_t)n * D);

    float ss = 0;
    for (int i = lane; i < D / W; i += WARP) {
        P a = xr[i];
        for (int k = 0; k < W; k++) ss += get(a.v[k]) * get(a.v[k]);
    }
    float r = 1 / sqrtf(warp_sum(ss) / D + eps);

    for (int i = lane; i < D / W; i += WARP) {
        P a = xr[i], b = wr[i], o;
        for (int k = 0; k < W; k++) put(&o.v[k], get(a.v[k]) * r * (1 + get(b.v[k])));
        yr[i] = o;
    }
    if (lane == 0) rstd[n] = r;
}

template <class T, int W>
static __global__ void __launch_bounds__(THREADS)
    k_rmsnorm_bwd(T *dx, const T *dy, const T *x, const T *w, const float *rstd, int N, int D) {
    int n = blockIdx.x * WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    if (n >= N) return;

    typedef Pack<T, W> P;
    const P *xr = reinterpret_cast<const P *>(x + (size_t)n * D);
    const P *gr = reinterpret_cast<const P *>(dy + (size_t)n * D);
    const P *wr = reinterpret_cast<const P *>(w);
    P *dr = reinterpret_cast<P *>(dx + (size_t)n * D);

    float gx = 0;
    for (int i = lane; i < D / W; i += WARP) {
        P a = xr[i], b = wr[i], g = gr[i];
        for (int k = 0; k < W; k++) gx += get(g.v[k]) * (1 + get(b.v[k])) * get(a.v[k]);
    }
    float r = rstd[n];
    float c = warp_sum(gx) / D * r * r * r;

    for (int i = lane; i < D / W; i += WARP) {
        P a = xr[i], b = wr[i], g = gr[i], o = dr[i];
        for (int k = 0; k < W; k++)
            put(&o.v[k], get(o.v[k]) + r * get(g.v[k]) * (1 + get(b.v[k])) - c * get(a.v[k]));
        dr[i] = o;
    }
}

template <class T>
static void rmsnorm_fwd(Exec *ex, store *y_, float *rstd, const store *x_, const store *w_, int N,
                        int D, float eps) {
    CHECK(N >= 0 && D > 0 && eps > 0, "N=%d D=%d eps=%g", N, D, eps);
    if (N == 0) return; /* an empty grid is a launch error */
    T *y = elems<T>(y_);
    const T *x = elems<T>(x_), *w = elems<T>(w_);
    int blocks = ceil_div(N, WARPS);
    if (D % 4 == 0)
        GPU_LAUNCH(ex, (k_rmsnorm_fwd<T, 4>), blocks, THREADS, 0, y, rstd, x, w, N, D, eps);
    else
        GPU_LAUNCH(ex, (k_rmsnorm_fwd<T, 1>), blocks, THREADS, 0, y, rstd, x, w, N, D, eps);
}

template <class T>
static void rmsnorm_bwd(Exec *ex, store *dx_, const store *dy_, const store *x_, const store *w_,
                        const float *rstd, int N, int D) {
    CHECK(N >= 0 && D > 0, "N=%d D=%d", N, D);
    if (N == 0) return;
    T *dx = elems<T>(dx_);
    const T *dy = elems<T>(dy_), *x = elems<T>(x_), *w = elems<T>(w_);
    int blocks = ceil_div(N, WARPS);
    if (D % 4 == 0)
        GPU_LAUNCH(ex, (k_rmsnorm_bwd<T, 4>), blocks, THREADS, 0, dx, dy, x, w, rstd, N, D);
    else
        GPU_LAUNCH(ex, (k_rmsnorm_bwd<T, 1>), blocks, THREADS, 0, dx, dy, x, w, rstd, N, D);
}

GPU_TWINS(rmsnorm_fwd);
GPU_TWINS(rmsnorm_bwd);
