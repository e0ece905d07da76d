/* top_k.cu - the k largest of n values. Contract: ops.h.
 *
 * Math: rank[i] = how many come before i, that is are larger, or equal with a lower index;
 *   index[rank[i]] = i for the ranks below k. Ranks are whole numbers: any order of counting gives
 *   the same, and no value moves.
 *
 * Work split: two kernels.
 *   k_rank    a block per THREADS values and SPAN of those they are compared with, which all its
 *             threads read from shared memory at the same time; each adds its count to its rank.
 *   k_place   a thread per value.
 * Traffic and derived time on an H100 (16.7 T comparisons of doubles a second): 8 n bytes, once for
 *   every 256 values and then from L2, and n^2 comparisons, which bound it:
 *   n = 16384    8.4 MB from L2   0.27 G comparisons   16 us
 *   n = 131072   0.54 GB          17.2 G               1.0 ms
 *   A descent by digits would compare less. Once a layer, of a pass of minutes, that is not worth
 *   its barriers.
 * Limits: none beyond the contract. */
#include "kernels/gpu.h"

enum { THREADS = 256, SPAN = 2048 };

static __global__ void __launch_bounds__(THREADS) k_rank(int *rank, const double *value, int n) {
    __shared__ double other[SPAN];
    int blocks = ceil_div(n, THREADS), i = blockIdx.x % blocks * THREADS + threadIdx.x;
    int first = blockIdx.x / blocks * SPAN, count = n - first < SPAN ? n - first : SPAN;
    for (int j = threadIdx.x; j < count; j += THREADS) other[j] = value[first + j];
    __syncthreads();
    if (i >= n) return;
    double own = value[i];
    int lower = i < first ? 0 : i - first < count ? i - first : count; /* so many come before i */
    int before = 0;
    for (int j = 0; j < lower; j++) before += other[j] >= own;
    for (int j = lower; j < count; j++) before += other[j] > own;
    atomicAdd(&rank[i], before);
}

static __global__ void __launch_bounds__(THREADS)
    k_place(int32_t *index, const int *rank, int n, int k) {
    int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < n && rank[i] < k) index[rank[i]] = i;
}

template <class T>
static size_t top_k_scratch(Exec *, int n) {
    return (size_t)n * sizeof(int);
}

template <class T>
static void top_k(Exec *ex, int32_t *index, const double *value, int n, int k) {
    OP_BEGIN(ex, top_k, n, k);
    int blocks = ceil_div(n, THREADS), spans = ceil_div(n, SPAN);
    size_t bytes = top_k_scratch<T>(ex, n);
    int *rank = (int *)exec_scratch(ex, bytes);
    exec_zero(ex, rank, bytes);
    GPU_LAUNCH(ex, k_rank, blocks * spans, THREADS, 0, rank, value, n);
    GPU_LAUNCH(ex, k_place, blocks, THREADS, 0, index, rank, n, k);
}

GPU_TWINS(top_k);
GPU_TWINS(top_k_scratch);
