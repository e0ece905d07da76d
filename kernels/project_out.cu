/* project_out.cu - what is left of columns beside given directions. Contract: ops.h.
 *
 * Math, per column x of length n:  t = v x,  y = x - v^T t.
 *
 * Work split: a block per column. Its warps share the directions: the lanes of a warp add up one
 *   product v_j x at a time and leave it in shared memory. Then each thread makes its elements of
 *   y, and reads of x only what it writes: y may be x.
 * Traffic and derived time on an H100 (3.35 TB/s, 33.5 TFLOP/s in double) for 16 columns of 4096
 *   and 32 directions: x and v are read twice, by every block, from L2 after the first time:
 *   1.8 MB  0.6 us;  8.4 MFLOP  0.3 us. 16 blocks are too few to reach either: the latency of
 *   their loops does, some 128 + 16 32 dependent steps, 10 us. 252 such calls a step of 9B.
 * Limits: k <= 4096, whose 32 KB are the block's. */
#include "kernels/gpu.h"

enum { THREADS = 256, WARPS = THREADS / WARP };

static __global__ void __launch_bounds__(THREADS)
    k_project_out(float *y, const float *x, const float *v, int n, int R, int k) {
    GPU_DYN_SHARED(double, t); /* (k) */
    int lane = threadIdx.x % WARP, c = blockIdx.x;
    for (int j = threadIdx.x / WARP; j < k; j += WARPS) {
        const float *d = v + (size_t)j * n;
        double sum = 0;
        for (int i = lane; i < n; i += WARP) sum += (double)d[i] * (double)x[(size_t)i * R + c];
        sum = warp_sum(sum);
        if (lane == 0) t[j] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += THREADS) {
        double left = x[(size_t)i * R + c];
        for (int j = 0; j < k; j++) left -= (double)v[(size_t)j * n + i] * t[j];
        y[(size_t)i * R + c] = (float)left;
    }
}

template <class T>
static size_t project_out_scratch(Exec *, int, int) {
    return 0;
}

template <class T>
static void project_out(Exec *ex, float *y, const float *x, const float *v, int n, int R, int k) {
    OP_BEGIN(ex, project_out, n, R, k);
    GPU_LAUNCH(ex, k_project_out, R, THREADS, (size_t)k * sizeof(double), y, x, v, n, R, k);
}

GPU_TWINS(project_out);
GPU_TWINS(project_out_scratch);
