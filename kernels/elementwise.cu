/* elementwise.cu - casts, sums and the search for bad numbers. Contracts: ops.h.
 *
 * Math: cast, uncast  y = x;   add  y += a x;   sumsq  sum of x^2 over each span;   find_bad  the
 *   first i with x[i] NaN or infinite.
 *
 * Work split: one thread per pack, the last pack element by element; casts take as many elements as
 *   fill 16 bytes of storage. Slices that start between packs go element by element. sumsq: a block
 *   per span, whose threads each add up their own in double and then each other's in a fixed tree.
 *   find_bad: threads that see a bad number lower the index to it, by an integer atomic: the lowest
 *   wins, in whatever order they come.
 * Traffic, and derived time on an H100 (3.35 TB/s) for n = 17.9M, the adapters of 9B at rank 16,
 *   with s bytes of storage, 2 for bf16:
 *   cast, uncast   (4 + s) n bytes           32 us
 *   add            12 n             2n FLOP  64 us
 *   sumsq          4 n              2n       21 us   FLOP in double
 *   find_bad       s n                       11 us
 *   find_bad_f32   4 n                       21 us
 *   All are bound by memory.
 * Limits: none beyond the contract. */
#include "kernels/gpu.h"
#include "kernels/scalar.h"

enum { THREADS = 256 };

template <class T>
static __global__ void __launch_bounds__(THREADS) k_cast(T *y, const float *x, size_t n) {
    constexpr int W = pack_len<T>;
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * W;
    if (i >= n) return;
    size_t left = n - i;
    Pack<float, W> a = pack_load<W>(x + i, left, left >= W);
    Pack<T> b;
    for (int k = 0; k < W; k++) put(&b.v[k], a.v[k]);
    pack_store(y + i, b, left, left >= W);
}

template <class T>
static __global__ void __launch_bounds__(THREADS) k_uncast(float *y, const T *x, size_t n) {
    constexpr int W = pack_len<T>;
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * W;
    if (i >= n) return;
    size_t left = n - i;
    Pack<T> a = pack_load<W>(x + i, left, left >= W);
    Pack<float, W> b;
    for (int k = 0; k < W; k++) b.v[k] = get(a.v[k]);
    pack_store(y + i, b, left, left >= W);
}

static __global__ void __launch_bounds__(THREADS)
    k_add(float *y, const float *x, size_t n, float a) {
    constexpr int W = pack_len<float>;
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * W;
    if (i >= n) return;
    size_t left = n - i;
    Pack<float> b = pack_load<W>(x + i, left, left >= W);
    Pack<float> c = pack_load<W>(y + i, left, left >= W);
    for (int k = 0; k < W; k++) c.v[k] += a * b.v[k];
    pack_store(y + i, c, left, left >= W);
}

/* Elements beyond the span read as 0 and add nothing. A thread takes the same ones wherever the
 * span lies: as a pack, or one by one. */
static __global__ void __launch_bounds__(THREADS)
    k_sumsq(double *sum, const float *x, const Span *span) {
    __shared__ double warp_part[THREADS / WARP];
    constexpr int W = pack_len<float>;
    Span mine = span[blockIdx.x];
    x += mine.at;
    bool aligned = reinterpret_cast<uintptr_t>(x) % PACK_BYTES == 0;
    double s = 0;
    for (size_t i = threadIdx.x * W; i < mine.n; i += THREADS * W) {
        Pack<float> a = pack_load<W>(x + i, mine.n - i, aligned && mine.n - i >= W);
        for (int k = 0; k < W; k++) s += (double)a.v[k] * a.v[k];
    }
    s = block_sum(s, warp_part);
    if (threadIdx.x == 0) sum[blockIdx.x] = s;
}

static __device__ inline bool is_bad(float f) {
    return (scalar_bits(f) & 0x7f800000u) == 0x7f800000u;
}

/* index holds -1, which is the largest unsigned number. */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_find_bad(unsigned long long *index, const T *x, size_t n, bool aligned) {
    constexpr int W = pack_len<T>;
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * W;
    if (i >= n) return;
    size_t left = n - i;
    Pack<T> a = pack_load<W>(x + i, left, aligned && left >= W);
    int bad = W;
    for (int k = W - 1; k >= 0; k--) bad = is_bad(get(a.v[k])) ? k : bad;
    if (bad < W) atomicMin(index, (unsigned long long)(i + bad));
}

template <class T>
static void cast(Exec *ex, store *y, const float *x, size_t n) {
    OP_BEGIN(ex, cast, n);
    if (n == 0) return; /* an empty grid is a launch error */
    CHECK(pack_aligned({y, x}), "expected tensors aligned to 16 bytes");
    GPU_LAUNCH(ex, k_cast<T>, pack_blocks<pack_len<T>>(n, THREADS), THREADS, 0, elems<T>(y), x, n);
}

template <class T>
static void uncast(Exec *ex, float *y, const store *x, size_t n) {
    OP_BEGIN(ex, uncast, n);
    if (n == 0) return;
    CHECK(pack_aligned({y, x}), "expected tensors aligned to 16 bytes");
    GPU_LAUNCH(ex, k_uncast<T>, pack_blocks<pack_len<T>>(n, THREADS), THREADS, 0, y, elems<T>(x),
               n);
}

template <class T>
static void add(Exec *ex, float *y, const float *x, size_t n, float a) {
    OP_BEGIN(ex, add, n);
    if (n == 0) return;
    CHECK(pack_aligned({y, x}), "expected tensors aligned to 16 bytes");
    GPU_LAUNCH(ex, k_add, pack_blocks<pack_len<float>>(n, THREADS), THREADS, 0, y, x, n, a);
}

template <class T>
static void sumsq(Exec *ex, double *sum, const float *x, const Span *span, int spans, size_t n) {
    OP_BEGIN(ex, sumsq, n);
    if (spans == 0) return;
    GPU_LAUNCH(ex, k_sumsq, (unsigned)spans, THREADS, 0, sum, x, span);
}

template <class T>
static void find_first(Exec *ex, int64_t *index, const T *x, size_t n) {
    CUDA_CHECK(cudaMemsetAsync(index, 0xff, sizeof *index, cuda_state(ex)->stream));
    if (n == 0) return;
    GPU_LAUNCH(ex, k_find_bad<T>, pack_blocks<pack_len<T>>(n, THREADS), THREADS, 0,
               reinterpret_cast<unsigned long long *>(index), x, n, pack_aligned({x}));
}

template <class T>
static void find_bad(Exec *ex, int64_t *index, const store *x, size_t n) {
    OP_BEGIN(ex, find_bad, n);
    find_first(ex, index, elems<T>(x), n);
}

template <class T>
static void find_bad_f32(Exec *ex, int64_t *index, const float *x, size_t n) {
    OP_BEGIN(ex, find_bad_f32, n);
    find_first(ex, index, x, n);
}

GPU_TWINS(cast);
GPU_TWINS(uncast);
GPU_TWINS(add);
GPU_TWINS(sumsq);
GPU_TWINS(find_bad);
GPU_TWINS(find_bad_f32);
