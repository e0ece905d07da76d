/* embed.cu - rows by index: embedding lookup and its gradient, gather, scatter. Contracts: ops.h.
 *
 * Math: embed_fwd  y[n] = scale table[token[n]];   gather_rows  y[n] = x[row[n]];
 *   scatter_rows  y[row[n]] = x[n];   embed_bwd  dtable[v] += scale (sum of the rows of token v)
 *
 * Work split: one block per row, 16 bytes per thread and step; rows that lie unaligned go element
 *   by element. embed_bwd: of the rows of one token the first one's block adds up all, in order,
 *   and the others' end: no atomics.
 * Traffic, and derived time on an H100 (3.35 TB/s) for 4096 rows of bf16, D = 2304 | 3584: 2ND
 *   elements, 11 | 18 us; all are bound by memory. embed_fwd has ND FLOP. embed_bwd: ND elements
 *   and for each token 2D floats, of as many tokens as rows 28 | 44 us; a token of many rows makes
 *   one block the last, for some 1 us each.
 * Limits: none beyond the contract. An index out of range traps. */
#include "kernels/gpu.h"

enum { THREADS = 128 };

template <class T, bool WHOLE>
static __global__ void __launch_bounds__(THREADS)
    k_embed_fwd(T *y, const T *table, const int32_t *token, int D, int V, float scale) {
    constexpr int W = pack_len<T>;
    int id = token[blockIdx.x];
    gpu_expect(id >= 0 && id < V);
    const T *from = table + (size_t)id * D;
    T *to = y + (size_t)blockIdx.x * D;
    for (int i = threadIdx.x * W; i < D; i += THREADS * W) {
        Pack<T> a = pack_load<W>(from + i, D - i, WHOLE);
        for (int k = 0; k < W; k++) put(&a.v[k], get(a.v[k]) * scale);
        pack_store(to + i, a, D - i, WHOLE);
    }
}

/* Blocks end as a whole. */
template <class T, bool WHOLE>
static __global__ void __launch_bounds__(THREADS)
    k_embed_bwd(float *dtable, const T *dx, const int32_t *token, const int32_t *row, int N, int D,
                int V, float scale) {
    constexpr int W = pack_len<T>;
    int first = blockIdx.x, at = row[first];
    gpu_expect(at >= 0 && at < N);
    int id = token[at];
    gpu_expect(id >= 0 && id < V);
    if (first > 0 && token[row[first - 1]] == id) return;
    float *to = dtable + (size_t)id * D;
    for (int i = threadIdx.x * W; i < D; i += THREADS * W) {
        Pack<float, W> sum = {};
        for (int n = first; n < N && token[row[n]] == id; n++) {
            Pack<T> a = pack_load<W>(dx + (size_t)row[n] * D + i, D - i, WHOLE);
            for (int k = 0; k < W; k++) sum.v[k] += get(a.v[k]);
        }
        Pack<float, W> b = pack_load<W>(to + i, D - i, WHOLE);
        for (int k = 0; k < W; k++) b.v[k] += scale * sum.v[k];
        pack_store(to + i, b, D - i, WHOLE);
    }
}

template <class T, bool WHOLE>
static __global__ void __launch_bounds__(THREADS)
    k_gather_rows(T *y, const T *x, const int32_t *row, int D) {
    int r = row[blockIdx.x];
    gpu_expect(r >= 0);
    row_copy<WHOLE>(y + (size_t)blockIdx.x * D, x + (size_t)r * D, D);
}

template <class T, bool WHOLE>
static __global__ void __launch_bounds__(THREADS)
    k_scatter_rows(T *y, const T *x, const int32_t *row, int D) {
    int r = row[blockIdx.x];
    gpu_expect(r >= 0);
    row_copy<WHOLE>(y + (size_t)r * D, x + (size_t)blockIdx.x * D, D);
}

template <class T>
static void embed_fwd(Exec *ex, store *y, const store *table, const int32_t *token, int N, int D,
                      int V, float scale) {
    OP_BEGIN(ex, embed_fwd, N, D, V);
    if (N == 0) return; /* an empty grid is a launch error */
    bool whole = pack_rows<T>(D, {y, table});
    GPU_LAUNCH(ex, (whole ? k_embed_fwd<T, true> : k_embed_fwd<T, false>), N, THREADS, 0,
               elems<T>(y), elems<T>(table), token, D, V, scale);
}

template <class T>
static void embed_bwd(Exec *ex, float *dtable, const store *dx, const int32_t *token,
                      const int32_t *row, int N, int D, int V, float scale) {
    OP_BEGIN(ex, embed_bwd, N, D, V);
    if (N == 0) return;
    bool whole = pack_rows<T>(D, {dtable, dx});
    GPU_LAUNCH(ex, (whole ? k_embed_bwd<T, true> : k_embed_bwd<T, false>), N, THREADS, 0, dtable,
               elems<T>(dx), token, row, N, D, V, scale);
}

template <class T>
static void gather_rows(Exec *ex, store *y, const store *x, const int32_t *row, int N, int D) {
    OP_BEGIN(ex, gather_rows, N, D);
    if (N == 0) return;
    bool whole = pack_rows<T>(D, {y, x});
    GPU_LAUNCH(ex, (whole ? k_gather_rows<T, true> : k_gather_rows<T, false>), N, THREADS, 0,
               elems<T>(y), elems<T>(x), row, D);
}

template <class T>
static void scatter_rows(Exec *ex, store *y, const store *x, const int32_t *row, int N, int D) {
    OP_BEGIN(ex, scatter_rows, N, D);
    if (N == 0) return;
    bool whole = pack_rows<T>(D, {y, x});
    GPU_LAUNCH(ex, (whole ? k_scatter_rows<T, true> : k_scatter_rows<T, false>), N, THREADS, 0,
               elems<T>(y), elems<T>(x), row, D);
}

GPU_TWINS(embed_fwd);
GPU_TWINS(embed_bwd);
GPU_TWINS(gather_rows);
GPU_TWINS(scatter_rows);
