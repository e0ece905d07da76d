/* sample.cu - drawing the next token. Contract: ops.h.
 *
 * Nothing is sorted. Weights are integers (the contract says so), hence sums over any set are exact
 * in any order, integer atomics included, and "the first token in falling order through which the
 * cumulative weight passes t" is found by radix descent: tally weights by the leading bits of the
 * logits, walk the tally from the top to the bin in which the sum passes t, then do the same within
 * that bin by the next bits, until one value is left. Tokens of weight 0 come last in the order and
 * are never drawn: they are left out of all tallies.
 *
 * Work split: three kernels.
 *   k_cap    a block per SLICE of a row: caps the logits, finds the largest.
 *   k_tally  a block per SLICE: tallies the slice by the leading bits in shared memory, then adds
 *            what it has of each bin to the row's tally.
 *   k_draw   a block per row: the descents for top_k, top_p and the draw itself, as far as they are
 *            asked for, each with two scans of the row, which lies in L2. The index of the drawn
 *            one among tied tokens takes one more.
 *   Temperature 0 needs the first kernel only, and a copy of its result.
 * Traffic, and derived time on an H100 (3.35 TB/s) for 32 rows of V = 256000: at least 4NV bytes
 *   read and written, 66 MB, 20 us, and 20NV FLOP to cap, 20NV for weights, 0.3 GFLOP, 5 us. Ours:
 *   k_cap just that, for 42 FLOPs per element. The rest reads L2: k_tally 33 MB (6 us at 5.5 TB/s)
 *   for 26 FLOPs; a scan of k_draw 1 MB per block (8 us at 64 bytes per cycle of 1.98 GHz). By SASS
 * count an element is 67 instructions in k_cap and in k_tally and 13 in a scan: 16, 16 and 14 us of
 * the lanes at work. Bins that many tokens share bound k_tally further. Limits: V <= 2^23 (the
 * contract), so that the sum of all weights stays below 2^63. */
#include <math.h>

#include "kernels/gpu.h"
#include "kernels/scalar.h"

enum {
    THREADS = 256,
    SLICE = 1 << 13,
    DRAW_THREADS = 512,
    DRAW_WARPS = DRAW_THREADS / WARP,
    BITS = 11, /* of a key, resolved per level: 11 + 11 + 10 */
    BINS = 1 << BITS,
    TOP_SHIFT = 32 - BITS,
    SHARE = BINS / DRAW_THREADS /* bins of a thread of k_draw */
};

typedef unsigned long long u64; /* the type that atomics take */

/* Tokens of positive weight: their weight and number. */
typedef struct Bin {
    u64 weight;
    uint32_t count;
} Bin;

enum Measure { BY_COUNT, BY_WEIGHT };
enum Step { TOP_K, TOP_P, DRAW, STEPS }; /* each leaves fewer tokens to the next */

/* The largest key is the largest logit. -0 + 0 is +0: the two are a tie. */
static __device__ inline uint32_t key_of(float z) {
    return (uint32_t)scalar_order(z + 0.0f) ^ 0x80000000u;
}
static __device__ inline float from_key(uint32_t key) {
    return scalar_from_order((int32_t)(key ^ 0x80000000u));
}

/* 2^40 is the largest; NaN counts nothing. */
static __device__ inline u64 weight_of(float z, float zmax, float temperature) {
    float e = scalar_exp((z - zmax) / temperature) * 0x1p40f;
    return (u64)(e > 0 ? e : 0);
}

/* Of a row that holds NaN or +infinity, in place of its best. */
static constexpr u64 UNDRAWABLE = ~(u64)0;

static __device__ inline bool drawable(u64 best) {
    return best != UNDRAWABLE && (uint32_t)(best >> 32) > key_of(-INFINITY);
}

/* best[row] = the largest of (key, ~index): of the largest logits, the first. */
template <bool WHOLE>
static __global__ void __launch_bounds__(THREADS)
    k_cap(u64 *best, float *logits, int V, int slices, float cap) {
    constexpr int W = pack_len<float>;
    int row = blockIdx.x / slices, first = blockIdx.x % slices * SLICE;
    float *x = logits + (size_t)row * V;
    u64 most = 0;
    for (int i = first + threadIdx.x * W; i < first + SLICE && i < V; i += THREADS * W) {
        Pack<float> z = pack_load<W>(x + i, V - i, WHOLE);
        for (int k = 0; k < W; k++) {
            if (cap > 0) z.v[k] = scalar_softcap(z.v[k], cap);
            u64 rank = (u64)key_of(z.v[k]) << 32 | (0xffffffffu - (i + k));
            if (!(z.v[k] < INFINITY)) rank = UNDRAWABLE; /* NaN too, whose key may be the least */
            if (rank > most && (WHOLE || i + k < V)) most = rank;
        }
        if (cap > 0) pack_store(x + i, z, V - i, WHOLE);
    }
    for (int o = WARP / 2; o > 0; o /= 2) {
        u64 other = __shfl_xor_sync(FULL_MASK, most, o);
        most = other > most ? other : most;
    }
    if (threadIdx.x % WARP == 0) atomicMax(&best[row], most);
}

static __global__ void __launch_bounds__(THREADS) k_greedy(int32_t *token, const u64 *best, int N) {
    int n = blockIdx.x * THREADS + threadIdx.x;
    if (n < N) token[n] = drawable(best[n]) ? (int32_t)(0xffffffffu - (uint32_t)best[n]) : -1;
}

/* To a sum in shared memory, whose hardware adds 32 bits. It has 64 only as a compare and swap that
 * lanes with the same sum repeat until each has had its turn. */
static __device__ inline void add_shared(u64 *sum, u64 v) {
    uint32_t *half = reinterpret_cast<uint32_t *>(sum), low = (uint32_t)v;
    uint32_t carry = atomicAdd(&half[0], low) > UINT32_MAX - low;
    uint32_t high = (uint32_t)(v >> 32) + carry;
    if (high != 0) atomicAdd(&half[1], high);
}

/* The row that a block works on. */
typedef struct Row {
    const float *z;
    int V;
    float zmax, temperature;
} Row;

static __device__ inline Row row_of(const float *logits, const u64 *best, int row, int V,
                                    float temperature) {
    return {logits + (size_t)row * V, V, from_key((uint32_t)(best[row] >> 32)), temperature};
}

/* Adds the tokens of [first, end) whose key without its last `from` bits is `prefix` to the bins of
 * their BITS bits from `shift` on. */
template <bool WHOLE>
static __device__ void tally(Bin *bin, Row r, int first, int end, uint32_t prefix, int from,
                             int shift) {
    constexpr int W = pack_len<float>;
    for (int i = first + threadIdx.x * W; i < end; i += blockDim.x * W) {
        Pack<float> z = pack_load<W>(r.z + i, r.V - i, WHOLE);
        for (int k = 0; k < W; k++) {
            uint32_t key = key_of(z.v[k]);
            if ((u64)key >> from != prefix || (!WHOLE && i + k >= r.V)) continue;
            u64 weight = weight_of(z.v[k], r.zmax, r.temperature);
            if (weight == 0) continue;
            Bin *b = &bin[key >> shift & (BINS - 1)];
            atomicAdd(&b->count, 1u);
            add_shared(&b->weight, weight);
        }
    }
}

/* bins (rows, BINS) starts as zeros. */
template <bool WHOLE>
static __global__ void __launch_bounds__(THREADS)
    k_tally(Bin *bins, const float *logits, const u64 *best, int V, int slices, float temperature) {
    __shared__ Bin bin[BINS];
    int row = blockIdx.x / slices, first = blockIdx.x % slices * SLICE;
    for (int b = threadIdx.x; b < BINS; b += THREADS) bin[b] = {0, 0};
    __syncthreads();
    Row r = row_of(logits, best, row, V, temperature);
    tally<WHOLE>(bin, r, first, min(first + SLICE, V), 0, 32, TOP_SHIFT);
    __syncthreads();
    for (int b = threadIdx.x; b < BINS; b += THREADS) {
        if (bin[b].count == 0) continue;
        atomicAdd(&bins[(size_t)row * BINS + b].count, bin[b].count);
        atomicAdd(&bins[(size_t)row * BINS + b].weight, bin[b].weight);
    }
}

/* ---------------------------------------------------------------------------------- k_draw -- */

/* Where a running sum in falling order passes its target: within the tokens whose key starts with
 * `prefix`; `above`: the sum of those before. */
typedef struct Place {
    Bin above;
    uint32_t prefix;
} Place;

typedef struct Shared {
    Bin bin[BINS], part[DRAW_THREADS];
    u64 weight[DRAW_WARPS];
    uint32_t count[DRAW_WARPS];
    Place place;
} Shared;

static __device__ inline Bin plus(Bin a, Bin b) {
    return {a.weight + b.weight, a.count + b.count};
}
static __device__ inline u64 measure(Bin b, enum Measure by) {
    return by == BY_COUNT ? b.count : b.weight;
}

/* The sum over the lower lanes of a warp. */
static __device__ inline Bin bins_before(Bin mine) {
    Bin sum = mine;
    for (int o = 1; o < WARP; o *= 2) {
        Bin lower = {__shfl_up_sync(FULL_MASK, sum.weight, o),
                     __shfl_up_sync(FULL_MASK, sum.count, o)};
        if ((int)threadIdx.x % WARP >= o) sum = plus(sum, lower);
    }
    return {sum.weight - mine.weight, sum.count - mine.count};
}

/* Walks s->bin from the top, each thread over SHARE neighbouring bins, then a warp over the
 * threads. Returns with the bin in which the sum passes `target` as the prefix. */
static __device__ Place descend(Shared *s, Place at, enum Measure by, u64 target) {
    int top = BINS - 1 - (int)threadIdx.x * SHARE, t = threadIdx.x * DRAW_WARPS;
    Bin mine = {0, 0};
    for (int j = 0; j < SHARE; j++) mine = plus(mine, s->bin[top - j]);
    s->part[threadIdx.x] = mine;
    __syncthreads();
    if (threadIdx.x < WARP) {
        mine = {0, 0};
        for (int j = 0; j < DRAW_WARPS; j++) mine = plus(mine, s->part[t + j]);
        Bin before = plus(at.above, bins_before(mine));
        if (measure(before, by) <= target && target < measure(plus(before, mine), by)) {
            for (; measure(plus(before, s->part[t]), by) <= target; t++)
                before = plus(before, s->part[t]);
            int b = BINS - 1 - t * SHARE;
            for (; measure(plus(before, s->bin[b]), by) <= target; b--)
                before = plus(before, s->bin[b]);
            s->place = {before, (uint32_t)b};
        }
    }
    __syncthreads();
    return s->place;
}

/* The place of the one key within which the sum passes `target`, which is below the row's sum. */
template <bool WHOLE>
static __device__ Place find(Shared *s, Row r, const Bin *row_bins, enum Measure by, u64 target) {
    for (int b = threadIdx.x; b < BINS; b += DRAW_THREADS) s->bin[b] = row_bins[b];
    __syncthreads();
    Place at = descend(s, {{0, 0}, 0}, by, target);
    uint32_t key = at.prefix;
    for (int from = TOP_SHIFT; from > 0; from -= BITS) {
        int shift = from > BITS ? from - BITS : 0, bits = from - shift;
        for (int b = threadIdx.x; b < BINS; b += DRAW_THREADS) s->bin[b] = {0, 0};
        __syncthreads();
        tally<WHOLE>(s->bin, r, 0, r.V, key, from, shift);
        __syncthreads();
        at = descend(s, at, by, target);
        key = key << bits | (at.prefix & ((1u << bits) - 1));
    }
    at.prefix = key;
    return at;
}

/* Of the tokens of one key, the j-th in index order. Each warp counts those in its part of the row;
 * the one in whose part the j-th lies goes over it again. */
static __device__ void pick(int32_t *token, Shared *s, Row r, uint32_t key, u64 j) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int part = ceil_div(ceil_div(r.V, DRAW_WARPS), WARP) * WARP, first = warp * part;
    int end = min(first + part, r.V);
    uint32_t mine = 0, before = 0;
    for (int i = first + lane; i < end; i += WARP) mine += key_of(r.z[i]) == key;
    mine = warp_sum(mine);
    if (lane == 0) s->count[warp] = mine;
    __syncthreads();
    for (int w = 0; w < warp; w++) before += s->count[w];
    if (j < before || j >= before + mine) return; /* whole warps leave together */
    uint32_t left = (uint32_t)j - before, here = 0;
    for (int i = first + lane; left >= here; i += WARP) {
        left -= here;
        bool tied = i < end && key_of(r.z[i]) == key;
        uint32_t all = __ballot_sync(FULL_MASK, tied);
        here = __popc(all);
        if (tied && __popc(all & ((1u << lane) - 1)) == (int)left) *token = i;
    }
}

/* What the running sum must pass for the last token that the step leaves; `total`: the weight of
 * those that the step before left. */
static __device__ inline u64 target_of(int step, Sampling how, float u, u64 total) {
    if (step == TOP_K) return how.top_k - 1;
    if (step == DRAW) return min((u64)((double)u * (double)total), total - 1);
    return min((u64)ceil((double)how.top_p * (double)total), total) - 1;
}

template <bool WHOLE>
static __global__ void __launch_bounds__(DRAW_THREADS)
    k_draw(int32_t *token, const float *logits, const float *u, const u64 *best, const Bin *bins,
           int V, Sampling how) {
    __shared__ Shared s;
    int row = blockIdx.x;
    if (!drawable(best[row])) { /* the whole block leaves */
        if (threadIdx.x == 0) token[row] = -1;
        return;
    }
    Row r = row_of(logits, best, row, V, how.temperature);
    const Bin *row_bins = bins + (size_t)row * BINS;
    Bin mine = {0, 0};
    for (int b = threadIdx.x; b < BINS; b += DRAW_THREADS) mine = plus(mine, row_bins[b]);
    u64 total = block_sum(mine.weight, s.weight), tie = 0;
    uint32_t count = block_sum(mine.count, s.count), key = 0;
    for (int step = TOP_K; step < STEPS; step++) {
        if (step == TOP_K && (how.top_k == 0 || (uint32_t)how.top_k >= count)) continue;
        if (step == TOP_P && how.top_p == 1) continue;
        enum Measure by = step == TOP_K ? BY_COUNT : BY_WEIGHT;
        u64 target = target_of(step, how, u[row], total);
        Place at = find<WHOLE>(&s, r, row_bins, by, target);
        key = at.prefix;
        u64 weight = weight_of(from_key(key), r.zmax, r.temperature);
        tie = step == TOP_K ? target - at.above.count : (target - at.above.weight) / weight;
        total = at.above.weight + (tie + 1) * weight;
    }
    pick(&token[row], &s, r, key, tie);
}

static size_t bins_of(int N, Sampling how) {
    return how.temperature > 0 ? (size_t)N * BINS : 0;
}

template <class T>
static size_t sample_scratch(Exec *, int N, int, Sampling how) {
    return bins_of(N, how) * sizeof(Bin) + N * sizeof(u64);
}

template <class T>
static void sample(Exec *ex, int32_t *token, float *logits, const float *u, int N, int V, float cap,
                   Sampling how) {
    OP_BEGIN(ex, sample, u, N, V, cap, how);
    if (N == 0) return; /* an empty grid is a launch error */
    int slices = ceil_div(V, SLICE);
    CHECK(N <= INT32_MAX / slices, "N=%d V=%d are too many for one launch", N, V);
    size_t bytes = sample_scratch<T>(ex, N, V, how);
    Bin *bins = (Bin *)exec_scratch(ex, bytes);
    u64 *best = (u64 *)(bins + bins_of(N, how));
    exec_zero(ex, bins, bytes);
    bool whole = pack_rows<float>(V, {logits});
    GPU_LAUNCH(ex, (whole ? k_cap<true> : k_cap<false>), N * slices, THREADS, 0, best, logits, V,
               slices, cap);
    if (how.temperature == 0) {
        GPU_LAUNCH(ex, k_greedy, ceil_div(N, THREADS), THREADS, 0, token, best, N);
        return;
    }
    GPU_LAUNCH(ex, (whole ? k_tally<true> : k_tally<false>), N * slices, THREADS, 0, bins, logits,
               best, V, slices, how.temperature);
    GPU_LAUNCH(ex, (whole ? k_draw<true> : k_draw<false>), N, DRAW_THREADS, 0, token, logits, u,
               best, bins, V, how);
}

GPU_TWINS(sample);
GPU_TWINS(sample_scratch);
