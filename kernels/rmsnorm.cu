/* rmsnorm.cu - RMSNorm, alone and fused with the residual add. Contracts: ops.h.
 *
 * Math, per row of length D:
 *   forward   r = (mean(x^2) + eps)^-1/2,  y = x r (1 + w)
 *   backward  g = dy (1 + w).  dy/dx has two paths, the direct one (r g) and the one through r,
 *             whose derivative is -x r^3 / D:  dx += r g - x r^3 mean(g x)
 *             into the weight:  dw += sum over rows of dy x r
 *   with residual: x2 = x + norm(p), y = norm(x2); back through y into dx, then from it into dp.
 *
 * Work split: one block per row, as many warps as the row needs when each thread keeps up to KEEP
 *   elements of each tensor in registers: 224 threads for D = 3584. Tensors are read once, 16 bytes
 *   at a time, with all loads of a row in flight together. Rows of a length that leaves the next
 *   ones unaligned are read element by element, and summed in the same order.
 *   rmsnorm_grad: a thread has one pack of columns of NORM_CHUNK rows, whose sums go to the
 *   workspace; a second kernel, a thread for each column, adds them in order.
 * Traffic, and derived time on an H100 (3.35 TB/s) for 4096 rows of bf16, D = 2304 | 3584:
 *   rmsnorm_fwd        2ND elements,  4ND FLOP   11 | 18 us
 *   rmsnorm_bwd        4ND            7ND        23 | 35 us
 *   rmsnorm_grad       2ND            3ND        11 | 18 us
 *   residual_norm_fwd  4ND            9ND        23 | 35 us
 *   residual_norm_bwd  6ND           13ND        34 | 53 us
 *   All are bound by memory. The weights, read by every block, stay in L2; their 1 + w counts no
 *   FLOP, for it is the same in every row.
 * Limits: D <= 8192, KEEP elements for each of MAX_THREADS threads. */
#include "kernels/gpu.h"

enum { KEEP = 16, MAX_THREADS = 512, COLUMN_THREADS = 128 };
static_assert(KEEP * MAX_THREADS == NORM_D_MAX, "a row for which no thread has room");

/* What a thread has of a row: packs threadIdx.x, threadIdx.x + blockDim.x, ... */
template <class T>
struct Share {
    T v[KEEP];
};

/* Beyond the row there are zeros, which add nothing to any sum. */
template <class T, bool WHOLE>
static __device__ inline Share<T> share_load(const T *row, int D) {
    constexpr int W = pack_len<T>;
    Share<T> s = {};
    for (int j = 0; j < KEEP / W; j++) {
        int at = (int)(threadIdx.x + j * blockDim.x) * W;
        if (at >= D) continue;
        Pack<T> a = pack_load<W>(row + at, D - at, WHOLE);
        for (int k = 0; k < W; k++) s.v[j * W + k] = a.v[k];
    }
    return s;
}

template <class T, bool WHOLE>
static __device__ inline void share_store(T *row, const Share<T> &s, int D) {
    constexpr int W = pack_len<T>;
    for (int j = 0; j < KEEP / W; j++) {
        int at = (int)(threadIdx.x + j * blockDim.x) * W;
        if (at >= D) continue;
        Pack<T> a;
        for (int k = 0; k < W; k++) a.v[k] = s.v[j * W + k];
        pack_store(row + at, a, D - at, WHOLE);
    }
}

/* rstd of the row of which each thread holds a share. */
template <class T>
static __device__ inline float row_rstd(const Share<T> &x, int D, float eps, float *part) {
    float ss = 0;
    for (int k = 0; k < KEEP; k++) ss += get(x.v[k]) * get(x.v[k]);
    return 1 / sqrtf(block_sum(ss, part) / (float)D + eps);
}

/* The coefficient of x in the backward: r^3 mean(g x). */
template <class T>
static __device__ inline float row_through_rstd(const Share<T> &dy, const Share<T> &x,
                                                const Share<T> &w, float r, int D, float *part) {
    float gx = 0;
    for (int k = 0; k < KEEP; k++) gx += get(dy.v[k]) * (1 + get(w.v[k])) * get(x.v[k]);
    return block_sum(gx, part) / (float)D * r * r * r;
}

template <class T, bool WHOLE>
static __global__ void __launch_bounds__(MAX_THREADS)
    k_rmsnorm_fwd(T *y, float *rstd, const T *x, const T *w, int D, float eps) {
    __shared__ float part[MAX_THREADS / WARP];
    size_t at = (size_t)blockIdx.x * D;
    Share<T> a = share_load<T, WHOLE>(x + at, D), gain = share_load<T, WHOLE>(w, D);
    float r = row_rstd(a, D, eps, part);
    for (int k = 0; k < KEEP; k++) put(&a.v[k], get(a.v[k]) * r * (1 + get(gain.v[k])));
    share_store<T, WHOLE>(y + at, a, D);
    if (threadIdx.x == 0) rstd[blockIdx.x] = r;
}

template <class T, bool WHOLE>
static __global__ void __launch_bounds__(MAX_THREADS)
    k_rmsnorm_bwd(T *dx, const T *dy, const T *x, const T *w, const float *rstd, int D) {
    __shared__ float part[MAX_THREADS / WARP];
    size_t at = (size_t)blockIdx.x * D;
    Share<T> d = share_load<T, WHOLE>(dx + at, D), up = share_load<T, WHOLE>(dy + at, D);
    Share<T> a = share_load<T, WHOLE>(x + at, D), gain = share_load<T, WHOLE>(w, D);
    float r = rstd[blockIdx.x], c = row_through_rstd(up, a, gain, r, D, part);
    for (int k = 0; k < KEEP; k++)
        put(&d.v[k], get(d.v[k]) + r * (get(up.v[k]) * (1 + get(gain.v[k]))) - c * get(a.v[k]));
    share_store<T, WHOLE>(dx + at, d, D);
}

/* part (chunks,D): row blockIdx.y is the sum over that chunk of the N rows. */
template <class T, bool WHOLE>
static __global__ void __launch_bounds__(COLUMN_THREADS)
    k_rmsnorm_grad(float *part, const T *dy, const T *x, const float *rstd, int N, int D) {
    constexpr int W = pack_len<T>;
    int at = (int)(blockIdx.x * COLUMN_THREADS + threadIdx.x) * W, first = blockIdx.y * NORM_CHUNK;
    if (at >= D) return;
    int end = N - first < NORM_CHUNK ? N : first + NORM_CHUNK;
    Pack<float, W> sum = {};
    for (int n = first; n < end; n++) {
        Pack<T> d = pack_load<W>(dy + (size_t)n * D + at, D - at, WHOLE);
        Pack<T> a = pack_load<W>(x + (size_t)n * D + at, D - at, WHOLE);
        for (int k = 0; k < W; k++) sum.v[k] += get(d.v[k]) * (get(a.v[k]) * rstd[n]);
    }
    pack_store(part + (size_t)blockIdx.y * D + at, sum, D - at, WHOLE);
}

static __global__ void __launch_bounds__(COLUMN_THREADS)
    k_rmsnorm_grad_join(float *dw, const float *part, int chunks, int D) {
    int i = blockIdx.x * COLUMN_THREADS + threadIdx.x;
    if (i >= D) return;
    float sum = dw[i];
    for (int c = 0; c < chunks; c++) sum += part[(size_t)c * D + i];
    dw[i] = sum;
}

template <class T, bool WHOLE>
static __global__ void __launch_bounds__(MAX_THREADS)
    k_residual_norm_fwd(T *x2, T *y, float *rp, float *ry, const T *x, const T *p, const T *wp,
                        const T *wy, int D, float eps) {
    __shared__ float part[2][MAX_THREADS / WARP];
    size_t at = (size_t)blockIdx.x * D;
    Share<T> a = share_load<T, WHOLE>(x + at, D), b = share_load<T, WHOLE>(p + at, D);
    Share<T> gain = share_load<T, WHOLE>(wp, D);
    float r = row_rstd(b, D, eps, part[0]);
    for (int k = 0; k < KEEP; k++)
        put(&a.v[k], get(a.v[k]) + get(b.v[k]) * r * (1 + get(gain.v[k])));
    share_store<T, WHOLE>(x2 + at, a, D);

    gain = share_load<T, WHOLE>(wy, D);
    float r2 = row_rstd(a, D, eps, part[1]);
    for (int k = 0; k < KEEP; k++) put(&a.v[k], get(a.v[k]) * r2 * (1 + get(gain.v[k])));
    share_store<T, WHOLE>(y + at, a, D);
    if (threadIdx.x == 0) rp[blockIdx.x] = r, ry[blockIdx.x] = r2;
}

template <class T, bool WHOLE>
static __global__ void __launch_bounds__(MAX_THREADS)
    k_residual_norm_bwd(T *dx, T *dp, const T *dy, const T *x2, const T *p, const T *wp,
                        const T *wy, const float *rp, const float *ry, int D) {
    __shared__ float part[2][MAX_THREADS / WARP];
    size_t at = (size_t)blockIdx.x * D;
    Share<T> d = share_load<T, WHOLE>(dx + at, D), up = share_load<T, WHOLE>(dy + at, D);
    Share<T> a = share_load<T, WHOLE>(x2 + at, D), gain = share_load<T, WHOLE>(wy, D);
    Share<T> b = share_load<T, WHOLE>(p + at, D); /* early: not to wait for it after the sum */
    float r = ry[blockIdx.x], c = row_through_rstd(up, a, gain, r, D, part[0]);
    for (int k = 0; k < KEEP; k++)
        put(&d.v[k], get(d.v[k]) + r * (get(up.v[k]) * (1 + get(gain.v[k]))) - c * get(a.v[k]));
    share_store<T, WHOLE>(dx + at, d, D);

    gain = share_load<T, WHOLE>(wp, D);
    r = rp[blockIdx.x];
    c = row_through_rstd(d, b, gain, r, D, part[1]);
    for (int k = 0; k < KEEP; k++)
        put(&d.v[k], r * (get(d.v[k]) * (1 + get(gain.v[k]))) - c * get(b.v[k]));
    share_store<T, WHOLE>(dp + at, d, D);
}

static int row_threads(int D) {
    return ceil_div(ceil_div(D, KEEP), WARP) * WARP;
}

template <class T>
static void rmsnorm_fwd(Exec *ex, store *y, float *rstd, const store *x, const store *w, int N,
                        int D, float eps) {
    OP_BEGIN(ex, rmsnorm_fwd, N, D, eps);
    if (N == 0) return; /* an empty grid is a launch error */
    bool whole = pack_rows<T>(D, {y, x, w});
    GPU_LAUNCH(ex, (whole ? k_rmsnorm_fwd<T, true> : k_rmsnorm_fwd<T, false>), N, row_threads(D), 0,
               elems<T>(y), rstd, elems<T>(x), elems<T>(w), D, eps);
}

template <class T>
static void rmsnorm_bwd(Exec *ex, store *dx, const store *dy, const store *x, const store *w,
                        const float *rstd, int N, int D) {
    OP_BEGIN(ex, rmsnorm_bwd, N, D);
    if (N == 0) return;
    bool whole = pack_rows<T>(D, {dx, dy, x, w});
    GPU_LAUNCH(ex, (whole ? k_rmsnorm_bwd<T, true> : k_rmsnorm_bwd<T, false>), N, row_threads(D), 0,
               elems<T>(dx), elems<T>(dy), elems<T>(x), elems<T>(w), rstd, D);
}

template <class T>
static size_t rmsnorm_grad_scratch(Exec *, int N, int D) {
    return (size_t)ceil_div(N, NORM_CHUNK) * D * sizeof(float);
}

template <class T>
static void rmsnorm_grad(Exec *ex, float *dw, const store *dy, const store *x, const float *rstd,
                         int N, int D) {
    OP_BEGIN(ex, rmsnorm_grad, N, D);
    if (N == 0) return;
    bool whole = pack_rows<T>(D, {dy, x});
    int chunks = ceil_div(N, NORM_CHUNK), packs = ceil_div(D, pack_len<T>);
    float *part = (float *)exec_scratch(ex, rmsnorm_grad_scratch<T>(ex, N, D));
    GPU_LAUNCH(ex, (whole ? k_rmsnorm_grad<T, true> : k_rmsnorm_grad<T, false>),
               dim3(ceil_div(packs, COLUMN_THREADS), chunks), COLUMN_THREADS, 0, part, elems<T>(dy),
               elems<T>(x), rstd, N, D);
    GPU_LAUNCH(ex, k_rmsnorm_grad_join, ceil_div(D, COLUMN_THREADS), COLUMN_THREADS, 0, dw, part,
               chunks, D);
}

template <class T>
static void residual_norm_fwd(Exec *ex, store *x2, store *y, float *rp, float *ry, const store *x,
                              const store *p, const store *wp, const store *wy, int N, int D,
                              float eps) {
    OP_BEGIN(ex, residual_norm_fwd, N, D, eps);
    if (N == 0) return;
    bool whole = pack_rows<T>(D, {x2, y, x, p, wp, wy});
    GPU_LAUNCH(ex, (whole ? k_residual_norm_fwd<T, true> : k_residual_norm_fwd<T, false>), N,
               row_threads(D), 0, elems<T>(x2), elems<T>(y), rp, ry, elems<T>(x), elems<T>(p),
               elems<T>(wp), elems<T>(wy), D, eps);
}

template <class T>
static void residual_norm_bwd(Exec *ex, store *dx, store *dp, const store *dy, const store *x2,
                              const store *p, const store *wp, const store *wy, const float *rp,
                              const float *ry, int N, int D) {
    OP_BEGIN(ex, residual_norm_bwd, N, D);
    if (N == 0) return;
    bool whole = pack_rows<T>(D, {dx, dp, dy, x2, p, wp, wy});
    GPU_LAUNCH(ex, (whole ? k_residual_norm_bwd<T, true> : k_residual_norm_bwd<T, false>), N,
               row_threads(D), 0, elems<T>(dx), elems<T>(dp), elems<T>(dy), elems<T>(x2),
               elems<T>(p), elems<T>(wp), elems<T>(wy), rp, ry, D);
}

GPU_TWINS(rmsnorm_fwd);
GPU_TWINS(rmsnorm_bwd);
GPU_TWINS(rmsnorm_grad);
GPU_TWINS(rmsnorm_grad_scratch);
GPU_TWINS(residual_norm_fwd);
GPU_TWINS(residual_norm_bwd);
