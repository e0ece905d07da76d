/* attention_fwd.cu - attention over packed documents, forward. Contracts: ops.h.
 *
 * Math, per pair (query row and head), over tiles of keys in order of position, with m the running
 * maximum of the scores s, which are in powers of two:
 *   m' = max(m, max s);  w = 2^(s - m');  l = l 2^(m - m') + sum w;  o = o 2^(m - m') + w v
 * and at the end o / l, lse = ln 2 (m + log2 l). In bf16 the weights are rounded before w v, not
 * before sum w.
 *
 * Work split: a block of four warps per 64 pairs (E > 128) or 128 pairs of one kv head, latest
 *   first; a warp owns 16 or 32 of them, all of E, so that weights never leave its registers. Tiles
 *   of keys that no pair of the block sees are skipped. Keys and values take turns: the values of a
 *   tile are copied while its scores are computed, the next keys while the values are added.
 * Traffic and FLOPs, bf16: q, k, v, o once, (2H + 2K) N E elements, and k, v again from L2 for
 *   every block; 4 E FLOP per pair and key it sees. Derived for 4096 rows of 9B on an H100, that is
 *   3.35 TB/s and 989 TFLOP/s:
 *   documents of 160 tokens   101 MB    5.4 GFLOP   30 us, bound by memory
 *   of 4096                   101 MB  137.5 GFLOP  139 us, bound by products
 * Ceiling there: mma.sync is said to reach some 60 % of the rate of wgmma, 232 us. A block's 64
 *   pairs make 64 FLOP of each byte that it reads of keys and values: the L2's 5.5 TB/s (as others
 *   measured it) allow 352 TFLOP/s, 391 us. Shared memory gives 128 bytes in a cycle of 4096 FLOP
 *   at the full rate, and each FLOP of a warp that owns 16 pairs takes 0.07 of them: 440 TFLOP/s,
 *   313 us; 360 if copies into it take turns with the reads.
 *   Instructions, by SASS count, allow 571, but 315 in a warp's tile with a score beyond 0.6 cap,
 *   for which tanh needs its other half. Tiles on the diagonal add 43 % to the FLOPs of 160 tokens,
 *   1.5 % to those of 4096.
 * Limits: E <= 256. Shared memory for E = 256: 96 KB in bf16, two blocks on an H100 and one on an
 *   A100; 128 KB in f32. E between 64, 128 and 256 costs what the next of these does. */
#include "kernels/attention.cuh"

enum { WARPS = 4, THREADS = WARPS * WARP };

template <class T, int COLS>
struct Shape {
    static constexpr int M = COLS == 256 ? 1 : 2, ROWS = WARPS * 16 * M; /* 16 M pairs a warp */
    static constexpr int KEYS = (COLS == 128 ? 64 : 128) / sizeof(T), N = KEYS / 8;
    static constexpr int BYTES = (ROWS + 2 * KEYS) * COLS * sizeof(T);
};

/* Running maximum and denominator of a lane's rows; each lane sums its own columns. */
template <int M>
struct Softmax {
    float top[M][2], sum[M][2];
};

template <int M, int N>
static __device__ inline void mask_scores(float (&s)[M][N][4], const AttnCall &c,
                                          const QueryBlock &b, int row, int p) {
    int g = (int)threadIdx.x % WARP / 4, t = (int)threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int position = pair_position(c, b.seg, b.first + row + 16 * i + 8 * h + g);
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    bool seen = (unsigned)(position - (p + 8 * j + 2 * t + e)) < c.reach;
                    s[i][j][2 * h + e] = seen ? s[i][j][2 * h + e] : -INFINITY;
                }
        }
}

/* Scores become weights relative to the new maximum; old sums times `shrink` follow it. A row that
 * has seen no key yet has the maximum -infinity. */
template <int M, int N>
static __device__ inline void soften(Softmax<M> *w, float (&shrink)[M][2], float (&s)[M][N][4]) {
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float top = w->top[i][h];
#pragma unroll
            for (int j = 0; j < N; j++) top = fmaxf(top, fmaxf(s[i][j][2 * h], s[i][j][2 * h + 1]));
            top = fmaxf(top, __shfl_xor_sync(FULL_MASK, top, 1));
            top = fmaxf(top, __shfl_xor_sync(FULL_MASK, top, 2));
            float base = top == -INFINITY ? 0 : top;
            shrink[i][h] = exp2_approx(w->top[i][h] - base);
            w->top[i][h] = top;
            w->sum[i][h] *= shrink[i][h];
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; e++) {
                    s[i][j][e] = exp2_approx(s[i][j][e] - base);
                    w->sum[i][h] += s[i][j][e];
                }
        }
}

template <int B, int M>
static __device__ inline void shrink_sums(float (&out)[B][M][8][4], const float (&shrink)[M][2]) {
#pragma unroll
    for (int i = 0; i < M; i++) {
        if (shrink[i][0] == 1 && shrink[i][1] == 1) continue; /* mostly: maxima are soon found */
#pragma unroll
        for (int n = 0; n < B * 8; n++)
#pragma unroll
            for (int r = 0; r < 4; r++) out[n / 8][i][n % 8][r] *= shrink[i][r / 2];
    }
}

/* q k^T of the warp's rows, finished: capped, in powers of two, masked. */
template <class T, int COLS, int M, int N>
static __device__ inline void scores(float (&s)[M][N][4], Tile<T, COLS> queries, int row,
                                     Tile<T, COLS> keys, const AttnCall &c, const QueryBlock &b,
                                     int p) {
    multiply_rows(s, queries, row, keys, 0);
    if (c.capped) cap_scores(s, c.unit);
#pragma unroll
    for (int i = 0; i < M * N * 4; i++) (&s[0][0][0])[i] *= c.power;
    if (needs_mask(c, b, p, 8 * N)) mask_scores(s, c, b, row, p);
}

/* lse, and what o is to be multiplied by. */
template <int M>
static __device__ inline void finish(float (&factor)[M][2], float *lse, const Softmax<M> &w,
                                     int row, const AttnCall &c, const QueryBlock &b) {
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        float sum = w.sum[i / 2][i % 2];
        sum += __shfl_xor_sync(FULL_MASK, sum, 1);
        sum += __shfl_xor_sync(FULL_MASK, sum, 2);
        factor[i / 2][i % 2] = 1 / sum;
        int pair = b.first + row + 8 * i + lane / 4;
        if (lane % 4 == 0 && pair < b.pairs)
            lse[pair_at(c, b.seg, b.kv, pair)] = (float)LN_2 * (w.top[i / 2][i % 2] + log2f(sum));
    }
}

template <class T, int COLS>
static __global__ void __launch_bounds__(THREADS, 2)
    k_attn_fwd(T *o, float *lse, const T *q, const T *k, const T *v, const Segment *seg,
               AttnCall c) {
    typedef Shape<T, COLS> X;
    constexpr int M = X::M, KEYS = X::KEYS;
    GPU_DYN_SHARED(T, shared);
    Tile<T, COLS> queries = {shared}, keys = {queries.p + X::ROWS * COLS},
                  values = {keys.p + KEYS * COLS};
    QueryBlock b = query_block(seg, c, X::ROWS, KEYS);
    if (b.first >= b.pairs) return;
    load_pairs<X::ROWS, THREADS>(queries, q, c, b.seg, b.kv, b.first);
    load_keys<KEYS, THREADS>(keys, k, c, b, b.begin);
    cp_async_commit();

    int row = (int)threadIdx.x / WARP * 16 * M;
    float out[COLS / 64][M][8][4] = {}, shrink[M][2];
    Softmax<M> w;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) w.top[i / 2][i % 2] = -INFINITY, w.sum[i / 2][i % 2] = 0;
    for (int p = b.begin; p <= b.far; p += KEYS) {
        cp_async_wait<0>();
        __syncthreads(); /* the keys are here, and the last values no longer read */
        load_keys<KEYS, THREADS>(values, v, c, b, p);
        cp_async_commit();
        float s[M][X::N][4] = {};
        scores(s, queries, row, keys, c, b, p);
        soften(&w, shrink, s);
        shrink_sums(out, shrink);
        cp_async_wait<0>();
        __syncthreads(); /* the values are here, and the keys no longer read */
        if (p + KEYS <= b.far) load_keys<KEYS, THREADS>(keys, k, c, b, p + KEYS);
        cp_async_commit();
#pragma unroll
        for (int step = 0; step < KEYS / DEPTH<T>; step++) {
            Frag<T, M, 4> left;
            left_of(left, s, step);
            multiply_below(out, left, values, step * DEPTH<T>, 0);
        }
    }
    float factor[M][2];
    finish(factor, lse, w, row, c, b);
    write_pairs(o, out, factor, queries, row, c, b);
}

template <class T, int COLS>
static void launch(Exec *ex, T *o, float *lse, const T *q, const T *k, const T *v,
                   const Segment *seg, int N, AttnCall c) {
    typedef Shape<T, COLS> X;
    int blocks = tile_numbers(N, c.nseg, c.G, X::ROWS) * c.K;
    GPU_LAUNCH(ex, (k_attn_fwd<T, COLS>), blocks, THREADS, X::BYTES, o, lse, q, k, v, seg, c);
}

template <class T>
static size_t attn_fwd_scratch(Exec *, int, int, AttnShape) {
    return 0;
}

template <class T>
static void attn_fwd(Exec *ex, store *o, float *lse, const store *q, const store *k, const store *v,
                     const Segment *seg, const Segment *host_seg, int nseg, int N, AttnShape a) {
    OP_BEGIN(ex, attn_fwd, host_seg, nseg, N, a);
    AttnCall c = attn_call<T>(a, nseg, N, {o, q, k, v});
    if (N == 0) return; /* an empty grid is a launch error */
    auto *launch_width = a.E <= 64 ? launch<T, 64> : a.E <= 128 ? launch<T, 128> : launch<T, 256>;
    launch_width(ex, elems<T>(o), lse, elems<T>(q), elems<T>(k), elems<T>(v), seg, N, c);
}

GPU_TWINS(attn_fwd);
GPU_TWINS(attn_fwd_scratch);
