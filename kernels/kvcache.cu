/* kvcache.cu - the cache of keys and values that decoding reads. Contracts: ops.h.
 *
 * Math of attn_decode, per query head over runs of KEYS keys, scores s in powers of two:
 *   run i   m_i = max s;  w = 2^(s - m_i);  l_i = sum w;  o_i = sum w v
 *   all     m = max m_i;  o = sum 2^(m_i - m) o_i / sum 2^(m_i - m) l_i
 *
 * Work split: one new token has little work for many processors, so its keys are split.
 *   k_decode_run   a block of four warps per run of keys and up to HEADS query heads of one kv
 *                  head, which read the keys once. `lanes` neighbouring threads read a key or a
 *                  value, 8 elements each, AHEAD of them in flight; blocks without keys end at
 *                  once.
 *   k_decode_join  a thread per element of o adds up the runs, in order.
 *   k_kv_put       a block per row, 16 bytes per thread and step.
 *   Runs begin at the first key that the row sees and are as long in any batch: a row's bits do not
 *   depend on who else is decoded.
 * Traffic and FLOPs, bf16: 2KE elements and 4HE FLOP per key that a row sees, G = H/K FLOP per
 *   byte: bound by memory. What runs leave for the join is 2 G / KEYS of that, 3 % in Gemma. A
 *   layer of 9B, derived for an H100 (3.35 TB/s):
 *   1 row of 4096 keys     34 MB  0.07 GFLOP   10 us
 *   64 rows of 1024       538 MB  1.07 GFLOP  161 us
 *   kv_put, 64 rows         1 MB               0.3 us: bound by its launch
 * Limits: E <= 256. More than HEADS heads to a kv head read it again, mostly from L2. */
#include <limits.h>
#include <math.h>

#include "kernels/gpu.h"
#include "kernels/ptx.h"
#include "kernels/scalar.h"
#include "kernels/segments.h"

enum { WARPS = 4, THREADS = WARPS * WARP };
enum { KEYS = 128, VEC = 8 }; /* of a run; elements of a row that a thread reads at once */

/* --------------------------------------------------------------------------------- kv_put -- */

template <class T, bool WHOLE>
static __global__ void __launch_bounds__(THREADS)
    k_kv_put(T *kcache, T *vcache, const T *k, const T *v, const int32_t *slot, const int32_t *pos,
             int room, int W) {
    int n = (int)blockIdx.x / 2;
    bool value = blockIdx.x % 2;
    gpu_expect(slot[n] >= 0 && pos[n] >= 0 && pos[n] < room);
    size_t to = ((size_t)slot[n] * room + pos[n]) * W;
    row_copy<WHOLE>((value ? vcache : kcache) + to, (value ? v : k) + (size_t)n * W, W);
}

template <class T>
static void kv_put(Exec *ex, store *kcache, store *vcache, const store *k, const store *v,
                   const int32_t *slot, const int32_t *pos, int N, int room, int W) {
    OP_BEGIN(ex, kv_put, N, room, W);
    CHECK(N <= INT_MAX / 2, "%d rows are too many for one launch", N);
    if (N == 0) return; /* an empty grid is a launch error */
    bool whole = pack_rows<T>(W, {kcache, vcache, k, v});
    GPU_LAUNCH(ex, (whole ? k_kv_put<T, true> : k_kv_put<T, false>), 2 * N, THREADS, 0,
               elems<T>(kcache), elems<T>(vcache), elems<T>(k), elems<T>(v), slot, pos, room, W);
}

/* ---------------------------------------------------------------------------- attn_decode -- */

/* One call, as its blocks see it. With a cap, s = power tanh(q.k) for a q times `unit`; without,
 * s = q.k. */
struct DecodeCall {
    int N, H, G, E, window;
    int room;        /* positions of a slot */
    int lanes, runs; /* that read a row; that a row's keys make at most */
    size_t width;    /* of a position in the cache */
    float unit, power;
};

/* Rows that a thread reads before it needs the first: 128 bytes. */
template <class T>
static constexpr int AHEAD = 128 / (VEC * sizeof(T));

/* What a run leaves of one head, beside its o. */
struct RunStat {
    float top, sum;
};

static inline SAILS_HD int seen_keys(const DecodeCall &c, int len) {
    return c.window > 0 && c.window < len ? c.window : len;
}

/* A block's heads and keys, and the caller's part of them. */
struct Run {
    int head, heads; /* first of the heads, counted through all rows */
    int i, keys;     /* number of the run among its row's; keys it has, none if negative */
    int e;           /* first element that the thread reads, E or more if it has none */
    int first, step; /* the keys that it reads: first, first + step, ... */
    size_t at;       /* of that element of the run's first key in the cache */
};

/* Runs are the slowest index: blocks that have keys come first. */
template <int HEADS>
static __device__ inline Run run_of(const DecodeCall &c, const int32_t *slot, const int32_t *len) {
    int groups = ceil_div(c.G, HEADS), per_row = c.H / c.G * groups;
    int block = (int)blockIdx.x % (c.N * per_row), n = block / per_row, unit = block % per_row;
    int kv = unit / groups, skip = unit % groups * HEADS;
    gpu_expect(slot[n] >= 0 && len[n] >= 1 && len[n] <= c.room);
    Run r;
    r.i = (int)blockIdx.x / (c.N * per_row);
    r.head = n * c.H + kv * c.G + skip;
    r.heads = c.G - skip < HEADS ? c.G - skip : HEADS;
    int seen = seen_keys(c, len[n]), left = seen - r.i * KEYS;
    r.keys = left < KEYS ? left : KEYS;
    r.e = (int)threadIdx.x % c.lanes * VEC;
    r.first = (int)threadIdx.x / c.lanes;
    r.step = THREADS / c.lanes;
    size_t position = (size_t)slot[n] * c.room + (size_t)(len[n] - seen) + (size_t)r.i * KEYS;
    r.at = position * c.width + (size_t)kv * c.E + r.e;
    return r;
}

/* The thread's elements of keys t, t + step, ..., AHEAD of them; zeros where there are none. */
template <class T>
static __device__ inline void load_ahead(Pack<T, VEC> (&x)[AHEAD<T>], const T *cache,
                                         const DecodeCall &c, const Run &r, int t) {
#pragma unroll
    for (int i = 0; i < AHEAD<T>; i++) {
        int key = t + i * r.step;
        x[i] = {};
        if (r.e < c.E && key < r.keys)
            x[i] = *(const Pack<T, VEC> *)(cache + r.at + (size_t)key * c.width);
    }
}

/* q.k of the run's keys, by all threads. */
template <class T, int HEADS>
static __device__ inline void find_scores(float (*score)[KEYS], const T *q, const T *kcache,
                                          const DecodeCall &c, const Run &r) {
    float query[HEADS][VEC] = {};
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        if (h >= r.heads || r.e >= c.E) continue;
        Pack<T, VEC> a = *(const Pack<T, VEC> *)(q + (size_t)(r.head + h) * c.E + r.e);
        for (int k = 0; k < VEC; k++) query[h][k] = c.unit * get(a.v[k]);
    }
    for (int t = 0; t < r.keys; t += AHEAD<T> * r.step) {
        Pack<T, VEC> key[AHEAD<T>];
        load_ahead(key, kcache, c, r, t + r.first);
#pragma unroll
        for (int i = 0; i < AHEAD<T>; i++) {
            int mine = t + i * r.step + r.first;
            if (mine - r.first >= r.keys) continue; /* for all threads: they sum together */
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float s = 0;
                for (int k = 0; k < VEC; k++) s += query[h][k] * get(key[i].v[k]);
                for (int o = c.lanes / 2; o > 0; o /= 2) s += __shfl_xor_sync(FULL_MASK, s, o);
                if (r.e == 0 && mine < r.keys) score[h][mine] = s;
            }
        }
    }
}

/* One head's scores become weights, by a warp. */
static __device__ inline RunStat soften(float *score, const DecodeCall &c, int keys) {
    float s[KEYS / WARP], top = -INFINITY, sum = 0;
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < KEYS / WARP; i++) {
        int t = i * WARP + lane;
        s[i] = t < keys ? score[t] : -INFINITY;
        if (t < keys && c.power > 0) s[i] = c.power * scalar_tanh(s[i]);
        top = fmaxf(top, s[i]);
    }
    top = warp_max(top);
#pragma unroll
    for (int i = 0; i < KEYS / WARP; i++) {
        float w = exp2_approx(s[i] - top);
        score[i * WARP + lane] = w;
        sum += w;
    }
    return {top, warp_sum(sum)};
}

/* sums = what each warp adds to o: weights times the values that it reads. */
template <class T, int HEADS>
static __device__ inline void add_values(float (*sums)[HEADS][ATTN_E_MAX],
                                         const float (*weight)[KEYS], const T *vcache,
                                         const DecodeCall &c, const Run &r) {
    float out[HEADS][VEC] = {};
    for (int t = r.first; t < r.keys; t += AHEAD<T> * r.step) {
        Pack<T, VEC> value[AHEAD<T>];
        load_ahead(value, vcache, c, r, t);
#pragma unroll
        for (int i = 0; i < AHEAD<T>; i++) {
            int mine = t + i * r.step;
            if (mine >= r.keys) continue;
#pragma unroll
            for (int h = 0; h < HEADS; h++)
                for (int k = 0; k < VEC; k++) out[h][k] += weight[h][mine] * get(value[i].v[k]);
        }
    }
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int h = 0; h < HEADS; h++)
#pragma unroll
        for (int k = 0; k < VEC; k++) {
            for (int o = c.lanes; o < WARP; o *= 2)
                out[h][k] += __shfl_xor_sync(FULL_MASK, out[h][k], o);
            if (lane < c.lanes && r.e < c.E) sums[warp][h][r.e + k] = out[h][k];
        }
}

/* parts (N,H,runs,E), stats (N,H,runs): o, not yet divided, and the rest of each run. */
template <class T, int HEADS>
static __global__ void __launch_bounds__(THREADS, 4)
    k_decode_run(float *parts, RunStat *stats, const T *q, const T *kcache, const T *vcache,
                 const int32_t *slot, const int32_t *len, DecodeCall c) {
    __shared__ float weight[HEADS][KEYS], sums[WARPS][HEADS][ATTN_E_MAX];
    Run r = run_of<HEADS>(c, slot, len);
    if (r.keys <= 0) return;
    find_scores<T, HEADS>(weight, q, kcache, c, r);
    __syncthreads(); /* the scores are here */
    for (int h = (int)threadIdx.x / WARP; h < r.heads; h += WARPS) {
        RunStat stat = soften(weight[h], c, r.keys);
        if (threadIdx.x % WARP == 0) stats[(size_t)(r.head + h) * c.runs + r.i] = stat;
    }
    __syncthreads(); /* the weights are here */
    add_values<T, HEADS>(sums, weight, vcache, c, r);
    __syncthreads(); /* the sums are here */
    for (int i = threadIdx.x; i < r.heads * c.E; i += THREADS) {
        int h = i / c.E, e = i % c.E;
        float sum = sums[0][h][e];
        for (int w = 1; w < WARPS; w++) sum += sums[w][h][e];
        parts[((size_t)(r.head + h) * c.runs + r.i) * c.E + e] = sum;
    }
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    k_decode_join(T *o, const float *parts, const RunStat *stats, const int32_t *len,
                  DecodeCall c) {
    size_t at = (size_t)blockIdx.x * THREADS + threadIdx.x, head = at / c.E;
    if (head >= (size_t)c.N * c.H) return;
    int runs = ceil_div(seen_keys(c, len[head / c.H]), KEYS);
    stats += head * c.runs, parts += head * c.runs * c.E + at % c.E;
    float top = -INFINITY, sum = 0, out = 0;
    for (int i = 0; i < runs; i++) top = fmaxf(top, stats[i].top);
#pragma unroll 8
    for (int i = 0; i < runs; i++) {
        float w = exp2_approx(stats[i].top - top);
        sum += w * stats[i].sum;
        out += w * parts[(size_t)i * c.E];
    }
    put(o + at, out / sum);
}

static DecodeCall decode_call(int N, int room, AttnShape a) {
    int lanes = 1;
    while (lanes * VEC < a.E) lanes *= 2;
    bool capped = a.cap > 0;
    DecodeCall c;
    c.N = N, c.H = a.H, c.G = a.H / a.K, c.E = a.E, c.room = room, c.window = a.window;
    c.lanes = lanes;
    c.runs = ceil_div(seen_keys(c, room), KEYS);
    c.width = (size_t)a.K * a.E;
    c.unit = capped ? a.scale / a.cap : (float)(a.scale * LOG2_E);
    c.power = capped ? (float)(a.cap * LOG2_E) : 0;
    return c;
}

template <class T, int HEADS>
static void launch_runs(Exec *ex, float *parts, RunStat *stats, const T *q, const T *kcache,
                        const T *vcache, const int32_t *slot, const int32_t *len, DecodeCall c) {
    size_t blocks = (size_t)c.runs * c.N * (c.H / c.G) * ceil_div(c.G, HEADS);
    CHECK(blocks <= INT_MAX, "expected fewer runs of keys than 2^31, got %zu", blocks);
    GPU_LAUNCH(ex, (k_decode_run<T, HEADS>), (unsigned)blocks, THREADS, 0, parts, stats, q, kcache,
               vcache, slot, len, c);
}

/* parts and stats of k_decode_run */
template <class T>
static size_t attn_decode_scratch(Exec *, int N, int room, AttnShape a) {
    size_t runs = (size_t)N * a.H * decode_call(N, room, a).runs;
    return runs * (a.E * sizeof(float) + sizeof(RunStat));
}

template <class T>
static void attn_decode(Exec *ex, store *o, const store *q, const store *kcache,
                        const store *vcache, const int32_t *slot, const int32_t *len, int N,
                        int room, AttnShape a) {
    OP_BEGIN(ex, attn_decode, len, N, room, a);
    DecodeCall c = decode_call(N, room, a);
    CHECK(pack_rows<T>(a.E, {q, kcache, vcache}), "expected tensors aligned to 16 bytes");
    if (N == 0) return;
    size_t n = (size_t)N * a.H * a.E;
    float *parts = (float *)exec_scratch(ex, attn_decode_scratch<T>(ex, N, room, a));
    RunStat *stats = (RunStat *)(parts + n * c.runs);
    auto *launch = c.G == 1 ? launch_runs<T, 1> : c.G == 2 ? launch_runs<T, 2> : launch_runs<T, 4>;
    launch(ex, parts, stats, elems<T>(q), elems<T>(kcache), elems<T>(vcache), slot, len, c);
    GPU_LAUNCH(ex, k_decode_join<T>, pack_blocks<1>(n, THREADS), THREADS, 0, elems<T>(o), parts,
               stats, len, c);
}

GPU_TWINS(kv_put);
GPU_TWINS(attn_decode);
GPU_TWINS(attn_decode_scratch);
