/* sae.cu - SAE encoder and its streaming statistics. Contracts: ops.h.
 *
 * Math:  pre = x w + b;  a = gate(pre);  statistics of a, which is never written, save by TopK.
 *   The products run on the tensor cores in bf16 and are exact: an f32 is cut into three bf16 of 8
 *   bits each, w = w0 + w1 + w2. Of x in bf16 that takes three products, x w2 + x w1 + x w0; of x
 *   in f32 the six x_p w_q with p + q < 3, which miss a product by less than 2^-21 of it. (3xTF32
 *   costs the same for x in f32, twice as much for bf16, and misses 2^-20.) Tensor cores drop bits
 *   where they should round, so what they add up, DEPTH products, is added to the rest in f32.
 *   Fast products are one, of both rounded.
 *
 * Work split: a block owns COLS features and takes ROWS rows at a time, in order, through SLOTS
 *   buffers that are filled while another is multiplied; 8 warps own 64 rows by 32 features each.
 *   Finished activations go to shared memory, and four threads per feature, two per corpus, add
 *   them in order of rows: so the bits depend on nothing else. TopK first needs the whole row: per
 *   ROWS rows, pre-activations go to scratch, a block per row zeroes the losers, and the same
 *   adding reads from there.
 * Traffic, FLOPs and derived time on an H100 (3.35 TB/s, 989 TFLOP/s) for 2048 rows of bf16, S =
 *   16384, D = 2304 | 3584:
 *   at least   w, x once    160 | 250 MB    48 |  74 us   2NDS   155 | 241 GFLOP  156 | 243 us
 *   exact      w N/ROWS times 1.2 | 1.9 GB  361 | 561 us   6NDS   464 | 722 GFLOP  469 | 730 us
 *   fast       the same                     361 | 561 us   2NDS                    156 | 243 us
 *   w is read again for every ROWS rows, and x, from L2, for every COLS features: 2.4 | 3.8 GB. At
 *   the 5.5 TB/s that L2 is said to reach, both together take 659 | 1025 us, which bounds fast
 *   products. Exact ones are bound by what mma.sync reaches of the rate: with 60 %, 782 | 1216 us.
 *   sae_encode also writes a, 4NS bytes: 134 MB, 40 us.
 * Limits: TopK takes 1 KB of scratch per feature. A row of x or w that is no multiple of 16 bytes
 *   is copied element by element, without overlap. */
#include "kernels/gpu.h"
#include "kernels/ptx.h"
#include "kernels/scalar.h"

enum { ROWS = 256, COLS = 64, DEPTH = 32, SLOTS = 3, THREADS = 256 };
enum { H = 2, M = 2, N8 = 4, WARP_ROWS = H * M * 16, WARP_COLS = N8 * 8 };
enum { WARPS_BESIDE = COLS / WARP_COLS };
enum { FAST = 1, EXACT = 3 }; /* parts of an f32: bf16s that are taken for it, or make it */

static_assert(ROWS / WARP_ROWS * WARPS_BESIDE * WARP == THREADS, "warps without a part");
static_assert(THREADS == 4 * COLS, "four threads add up a feature");

/* Row lengths in shared memory, such that what a warp reads at once lies in all 32 banks. */
enum { X_LD = DEPTH + 8, W_LD = COLS + 4, ACT_LD = COLS + 4 };

template <class T>
struct Slot {
    T x[ROWS * X_LD];
    float w[DEPTH * W_LD];
};

template <class T>
static constexpr size_t SHARED = SLOTS * sizeof(Slot<T>);
static_assert(SHARED<bf16> >= sizeof(float) * ROWS * ACT_LD, "activations take the slots' place");

/* A lane's part of the warp's 64 x 32 pre-activations, in H halves of M x N8 pieces. The pieces
 * interleave: piece j has columns j, j + 4, j + 8, ... So a lane reads w, and holds its results,
 * four columns at a time: element [h][i][j][2 r + e] is row 32 h + 16 i + 8 r + g, column
 * 8 t + 4 e + j, with g and t as in ptx.h. */
typedef float Share[H][M][N8][4];

/* ------------------------------------------------------------------------------ products -- */

/* Starts the copy of a pack of which `left` elements exist; the rest becomes 0. */
template <bool WHOLE, class T>
static __device__ inline void copy(T *shared, const T *from, int left) {
    if constexpr (WHOLE)
        cp_async<PACK_BYTES>(shared, from, left > 0);
    else
        *(Pack<T> *)shared = pack_load<pack_len<T>>(from, left > 0 ? left : 0, false);
}

/* Starts copies of columns k.. of n rows of x, and of rows k.. of w, features f0... */
template <bool WHOLE, class T>
static __device__ inline void load_as(Slot<T> *to, const T *x, int n, const SaeEncoder &e, int f0,
                                      int k) {
    constexpr int X_PACKS = DEPTH / pack_len<T>, W_PACKS = COLS / pack_len<float>;
    static_assert(ROWS * X_PACKS % THREADS == 0 && DEPTH * W_PACKS % THREADS == 0, "idle threads");
#pragma unroll
    for (int i = 0; i < ROWS * X_PACKS; i += THREADS) {
        int at = i + (int)threadIdx.x, row = at / X_PACKS, d = at % X_PACKS * pack_len<T>;
        copy<WHOLE>(to->x + row * X_LD + d, x + (size_t)row * e.D + k + d,
                    row < n ? e.D - k - d : 0);
    }
#pragma unroll
    for (int i = 0; i < DEPTH * W_PACKS; i += THREADS) {
        int at = i + (int)threadIdx.x, row = at / W_PACKS, s = at % W_PACKS * pack_len<float>;
        copy<WHOLE>(to->w + row * W_LD + s, e.w + (size_t)(k + row) * e.S + f0 + s,
                    k + row < e.D ? e.S - f0 - s : 0);
    }
}

template <class T>
static __device__ inline void load(Slot<T> *to, const T *x, int n, const SaeEncoder &e, int f0,
                                   int k, bool whole) {
    if (whole)
        load_as<true>(to, x, n, e, f0, k);
    else
        load_as<false>(to, x, n, e, f0, k);
}

/* Two f32s in PARTS parts, packed in pairs as mma takes them. A part is the upper half of the bits
 * that those before it leave, 8 digits; the last is rounded, which of EXACT parts changes none. */
template <int PARTS>
struct Pair {
    uint32_t part[PARTS];
};
template <int PARTS>
static __device__ inline Pair<PARTS> cut(float low, float high) {
    const uint32_t UPPER = 0xffff0000u;
    Pair<PARTS> c;
#pragma unroll
    for (int p = 0; p < PARTS - 1; p++) {
        c.part[p] = scalar_bits(low) >> 16 | (scalar_bits(high) & UPPER);
        low -= scalar_from_bits(scalar_bits(low) & UPPER);
        high -= scalar_from_bits(scalar_bits(high) & UPPER);
    }
    c.part[PARTS - 1] = pack_bf16(low, high);
    return c;
}

/* 32 rows of x, columns d to d + 15: bf16 as it is, f32 in parts. */
static __device__ inline void load_left(uint32_t (&a)[1][M][4], const bf16 *x, int d) {
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < M; i++)
        ldmatrix<4, false>(a[0][i], x + (16 * i + lane % 16) * X_LD + d + lane / 16 * 8);
}
template <int PARTS>
static __device__ inline void load_left(uint32_t (&a)[PARTS][M][4], const float *x, int d) {
    int g = (int)threadIdx.x % WARP / 4, t = (int)threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int r = 0; r < 4; r++) {
            Pack<float, 2> v = *(const Pack<float, 2> *)(x + (16 * i + r % 2 * 8 + g) * X_LD + d +
                                                         r / 2 * 8 + 2 * t);
            Pair<PARTS> c = cut<PARTS>(v.v[0], v.v[1]);
#pragma unroll
            for (int p = 0; p < PARTS; p++) a[p][i][r] = c.part[p];
        }
}

/* Rows d to d + 15 of w, the warp's 32 features. */
template <int PARTS>
static __device__ inline void load_right(uint32_t (&b)[PARTS][N8][2], const float *w, int d) {
    int g = (int)threadIdx.x % WARP / 4, t = (int)threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float *at = w + (d + r * 8 + 2 * t) * W_LD + N8 * g;
        Pack<float> low = *(const Pack<float> *)at, high = *(const Pack<float> *)(at + W_LD);
#pragma unroll
        for (int j = 0; j < N8; j++) {
            Pair<PARTS> c = cut<PARTS>(low.v[j], high.v[j]);
#pragma unroll
            for (int p = 0; p < PARTS; p++) b[p][j][r] = c.part[p];
        }
    }
}

/* sum += x w over the DEPTH columns of a slot, for the warp at this row and feature of the block.
 * The small products come first. */
template <int PARTS, class T>
static __device__ inline void multiply(Share &sum, const Slot<T> *slot, int row, int col) {
    constexpr int X_PARTS = sizeof(T) == sizeof(bf16) ? 1 : PARTS; /* bf16 is whole in one */
    Share d = {};
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        uint32_t b[PARTS][N8][2];
        load_right(b, slot->w + col, k);
#pragma unroll
        for (int h = 0; h < H; h++) {
            uint32_t a[X_PARTS][M][4];
            load_left(a, slot->x + (row + h * M * 16) * X_LD, k);
#pragma unroll
            for (int order = PARTS - 1; order >= 0; order--)
#pragma unroll
                for (int p = 0; p <= order && p < X_PARTS; p++) mma_bf16(d[h], a[p], b[order - p]);
        }
    }
#pragma unroll
    for (int i = 0; i < H * M * N8 * 4; i++) (&sum[0][0][0][0])[i] += (&d[0][0][0][0])[i];
}

/* sum = x w for n <= ROWS rows from x on and the block's features. Ends with the slots free. */
template <int PARTS, class T>
static __device__ inline void products(Share &sum, Slot<T> *slot, const T *x, int n,
                                       const SaeEncoder &e, int f0, bool whole) {
    int warp = (int)threadIdx.x / WARP, chunks = ceil_div(e.D, DEPTH);
    int row = warp / WARPS_BESIDE * WARP_ROWS, col = warp % WARPS_BESIDE * WARP_COLS;
    for (int c = 0; c < SLOTS - 1; c++) {
        if (c < chunks) load(slot + c, x, n, e, f0, c * DEPTH, whole);
        cp_async_commit();
    }
    for (int c = 0; c < chunks; c++) {
        cp_async_wait<SLOTS - 2>();
        __syncthreads(); /* slot c is filled, and slot c - 1 no longer read */
        int next = c + SLOTS - 1;
        if (next < chunks) load(slot + next % SLOTS, x, n, e, f0, next * DEPTH, whole);
        cp_async_commit();
        if (row < n) multiply<PARTS>(sum, slot + c % SLOTS, row, col);
    }
    cp_async_wait<0>();
    __syncthreads();
}

/* Written as "below: zero" so that NaN stays and shows in the sums. */
static __device__ inline float gate(float pre, enum SaeAct act, float threshold) {
    if (act == SAE_TOPK) return pre; /* k_topk's work */
    return pre <= threshold ? 0 : pre;
}

/* Calls put(row, column, pack) for all of the lane's activations, by four neighbours. */
template <class Put>
static __device__ inline void finish(const Share &sum, const SaeEncoder &sae, int f0, bool whole,
                                     Put put) {
    int warp = (int)threadIdx.x / WARP, g = (int)threadIdx.x % WARP / 4, t = (int)threadIdx.x % 4;
    int row = warp / WARPS_BESIDE * WARP_ROWS + g, col = warp % WARPS_BESIDE * WARP_COLS + 8 * t;
#pragma unroll
    for (int e = 0; e < 2; e++) {
        int c = col + e * N8, left = sae.S - f0 - c;
        if (left <= 0) continue;
        Pack<float> b = pack_load<N8>(sae.b + f0 + c, left, whole), threshold = {};
        if (sae.threshold) threshold = pack_load<N8>(sae.threshold + f0 + c, left, whole);
#pragma unroll
        for (int i = 0; i < WARP_ROWS / 8; i++) {
            const float(*piece)[4] = sum[i / (2 * M)][i / 2 % M];
            Pack<float> a;
#pragma unroll
            for (int j = 0; j < N8; j++)
                a.v[j] = gate(piece[j][i % 2 * 2 + e] + b.v[j], sae.act, threshold.v[j]);
            put(row + 8 * i, c, a);
        }
    }
}

/* a (N,S) = the gated activations, TopK's not yet. */
template <class T, int PARTS>
static __global__ void __launch_bounds__(THREADS, 1)
    k_encode(float *a, const T *x, SaeEncoder e, int N, bool whole) {
    GPU_DYN_SHARED(Slot<T>, slot);
    int f0 = (int)blockIdx.x * COLS, first = (int)blockIdx.y * ROWS;
    int n = N - first < ROWS ? N - first : ROWS;
    Share sum = {};
    products<PARTS>(sum, slot, x + (size_t)first * e.D, n, e, f0, whole);
    finish(sum, e, f0, whole, [&](int row, int col, Pack<float> v) {
        if (row < n)
            pack_store(a + (size_t)(first + row) * e.S + f0 + col, v, e.S - f0 - col, whole);
    });
}

/* ---------------------------------------------------------------------------- statistics -- */

/* The statistics of one call. */
struct Totals {
    double *sum, *sumsq;
    long long *fires;
    float *max;
    int G, S;
};

/* sum[bin][f] += weight a over the rows of one corpus, in order. Of neighbouring rows most are of
 * one bin, whose sum stays in a register. */
static __device__ inline void add_sums(const Totals &to, int f, const float *act, size_t ld,
                                       const int32_t *bin, const float *weight, int n, int corpus) {
    int open = -1;
    double sum = 0;
    for (int r = 0; r < n; r++) {
        float a = act[r * ld];
        if (a == 0 || (unsigned)(bin[r] - corpus * to.G) >= (unsigned)to.G) continue;
        if (bin[r] != open) {
            if (open >= 0) to.sum[(size_t)open * to.S + f] = sum;
            open = bin[r];
            sum = to.sum[(size_t)open * to.S + f];
        }
        sum += (double)weight[r] * a;
    }
    if (open >= 0) to.sum[(size_t)open * to.S + f] = sum;
}

static __device__ inline void add_rest(const Totals &to, int f, const float *act, size_t ld,
                                       const int32_t *bin, const float *weight, int n, int corpus) {
    size_t at = (size_t)corpus * to.S + f;
    double sumsq = to.sumsq[at];
    long long fires = to.fires[at];
    float max = to.max[at];
    for (int r = 0; r < n; r++) {
        float a = act[r * ld];
        if (a == 0 || (unsigned)(bin[r] - corpus * to.G) >= (unsigned)to.G) continue;
        sumsq += (double)weight[r] * a * a;
        fires += a > 0;
        max = a > max ? a : max;
    }
    to.sumsq[at] = sumsq;
    to.fires[at] = fires;
    to.max[at] = max;
}

/* Adds n rows of the block's features; act: the first of them in the first row. */
static __device__ inline void add(const Totals &to, int f0, const float *act, size_t ld,
                                  const int32_t *bin, const float *weight, int n) {
    int col = (int)threadIdx.x % COLS, corpus = (int)threadIdx.x / COLS % 2;
    if (f0 + col >= to.S) return;
    if (threadIdx.x < 2 * COLS)
        add_sums(to, f0 + col, act + col, ld, bin, weight, n, corpus);
    else
        add_rest(to, f0 + col, act + col, ld, bin, weight, n, corpus);
}

template <class T, int PARTS>
static __global__ void __launch_bounds__(THREADS, 1)
    k_stats(Totals to, const T *x, const int32_t *bin, const float *weight, SaeEncoder e, int N,
            bool whole) {
    GPU_DYN_SHARED(Slot<T>, slot);
    __shared__ int32_t row_bin[ROWS];
    __shared__ float row_weight[ROWS];
    float *act = (float *)slot;
    int f0 = (int)blockIdx.x * COLS;
    for (int first = 0; first < N; first += ROWS) {
        int n = N - first < ROWS ? N - first : ROWS, r = (int)threadIdx.x;
        Share sum = {};
        products<PARTS>(sum, slot, x + (size_t)first * e.D, n, e, f0, whole);
        finish(sum, e, f0, whole, [&](int row, int col, Pack<float> v) {
            *(Pack<float> *)(act + row * ACT_LD + col) = v;
        });
        if (r < n) {
            row_bin[r] = bin[first + r];
            row_weight[r] = weight[first + r];
            gpu_expect(row_bin[r] >= -1 && row_bin[r] < 2 * to.G);
        }
        __syncthreads();
        add(to, f0, act, ACT_LD, row_bin, row_weight, n);
        __syncthreads();
    }
}

/* ---------------------------------------------------------------------------------- TopK -- */

/* Orders the positive values of a row as TopK does, ties by index, all keys different; NaN of
 * either sign comes first. 0: never chosen. */
static __device__ inline uint64_t order_key(float a, int s) {
    if (a <= 0) return 0;
    return (uint64_t)(scalar_bits(a) & 0x7fffffffu) << 32 | (0xffffffffu - (unsigned)s);
}

/* Zeroes all but the k first of a row. The k-th key is found from its highest byte down: each pass
 * counts the next byte among the keys that share the bytes already known. Where all that share them
 * are wanted, which is seldom as late as in the bytes of the index, it ends. */
static __global__ void __launch_bounds__(THREADS) k_topk(float *a, int S, int k, bool whole) {
    constexpr int W = pack_len<float>;
    __shared__ unsigned count[THREADS], part[THREADS / WARP];
    __shared__ int chosen, wanted;
    float *row = a + (size_t)blockIdx.x * S;
    int left = k, lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    uint64_t known = 0, mask = 0;
    for (int shift = 56; left > 0; shift -= 8) {
        count[threadIdx.x] = 0;
        __syncthreads();
        for (int s = (int)threadIdx.x * W; s < S; s += THREADS * W) {
            Pack<float> p = pack_load<W>(row + s, S - s, whole);
            for (int j = 0; j < W; j++) {
                uint64_t key = order_key(p.v[j], s + j);
                if (key != 0 && (key & mask) == known) atomicAdd(&count[key >> shift & 255], 1u);
            }
        }
        if (threadIdx.x == 0) chosen = -1;
        __syncthreads();
        /* This thread's byte, from the highest down, and the keys with one as high or higher. */
        int byte = THREADS - 1 - (int)threadIdx.x, mine = (int)count[byte], upto = mine;
        for (int o = 1; o < WARP; o *= 2) {
            int other = __shfl_up_sync(FULL_MASK, upto, o);
            upto += lane >= o ? other : 0;
        }
        if (lane == WARP - 1) part[warp] = upto;
        __syncthreads();
        for (int w = 0; w < warp; w++) upto += part[w];
        if (upto >= left && upto - mine < left) {
            chosen = byte;
            wanted = upto == left ? 0 : left - (upto - mine);
        }
        __syncthreads();
        if (chosen < 0) break; /* fewer positive values than k */
        known |= (uint64_t)chosen << shift;
        mask |= (uint64_t)255 << shift;
        left = wanted;
    }
    for (int s = (int)threadIdx.x * W; s < S; s += THREADS * W) {
        Pack<float> p = pack_load<W>(row + s, S - s, whole);
        for (int j = 0; j < W; j++) {
            uint64_t key = order_key(p.v[j], s + j);
            if (key == 0 || key < known) p.v[j] = 0;
        }
        pack_store(row + s, p, S - s, whole);
    }
}

/* The statistics of n rows of finished activations. */
static __global__ void __launch_bounds__(THREADS, 4)
    k_add_stats(Totals to, const float *act, const int32_t *bin, const float *weight, int n) {
    for (int r = (int)threadIdx.x; r < n; r += THREADS)
        gpu_expect(bin[r] >= -1 && bin[r] < 2 * to.G);
    int f0 = (int)blockIdx.x * COLS;
    add(to, f0, act + f0, to.S, bin, weight, n);
}

/* ----------------------------------------------------------------------------- launchers -- */

template <class T>
static bool whole_rows(const SaeEncoder &e, const store *x, const float *a) {
    return pack_rows<T>(e.D, {x}) && pack_rows<float>(e.S, {e.w, e.b, e.threshold, a});
}

template <class T>
static void encode(Exec *ex, float *a, const T *x, SaeEncoder e, int N, bool whole) {
    dim3 grid((unsigned)ceil_div(e.S, COLS), (unsigned)ceil_div(N, ROWS));
    GPU_LAUNCH(ex, (e.products == SAE_FAST ? k_encode<T, FAST> : k_encode<T, EXACT>), grid, THREADS,
               SHARED<T>, a, x, e, N, whole);
    if (e.act == SAE_TOPK) GPU_LAUNCH(ex, k_topk, N, THREADS, 0, a, e.S, e.topk, whole);
}

template <class T>
static size_t sae_encode_scratch(Exec *, const SaeEncoder *, int) {
    return 0;
}

template <class T>
static void sae_encode(Exec *ex, float *a, const store *x, SaeEncoder sae, int N) {
    OP_BEGIN(ex, sae_encode, UNIT_PRODUCT, &sae, N);
    if (N == 0) return; /* an empty grid is a launch error */
    encode(ex, a, elems<T>(x), sae, N, whole_rows<T>(sae, x, a));
}

template <class T>
static size_t sae_stats_scratch(Exec *, const SaeEncoder *sae, int) {
    return sae->act == SAE_TOPK ? (size_t)ROWS * sae->S * sizeof(float) : 0;
}

template <class T>
static void sae_stats(Exec *ex, double *sum, double *sumsq, int64_t *fires, float *max,
                      const store *x, const int32_t *bin, const float *weight, SaeEncoder sae,
                      int N, int G) {
    OP_BEGIN(ex, sae_stats, UNIT_PRODUCT, &sae, N, G);
    if (N == 0) return;
    Totals to = {sum, sumsq, reinterpret_cast<long long *>(fires), max, G, sae.S};
    bool whole = whole_rows<T>(sae, x, NULL);
    int blocks = ceil_div(sae.S, COLS);
    if (sae.act != SAE_TOPK) {
        GPU_LAUNCH(ex, (sae.products == SAE_FAST ? k_stats<T, FAST> : k_stats<T, EXACT>), blocks,
                   THREADS, SHARED<T>, to, elems<T>(x), bin, weight, sae, N, whole);
        return;
    }
    float *act = (float *)exec_scratch(ex, sae_stats_scratch<T>(ex, &sae, N));
    for (int first = 0; first < N; first += ROWS) {
        int n = N - first < ROWS ? N - first : ROWS;
        encode(ex, act, elems<T>(x) + (size_t)first * sae.D, sae, n, whole);
        GPU_LAUNCH(ex, k_add_stats, blocks, THREADS, 0, to, act, bin + first, weight + first, n);
    }
}

GPU_TWINS(sae_encode);
GPU_TWINS(sae_stats);
GPU_TWINS(sae_encode_scratch);
GPU_TWINS(sae_stats_scratch);
