/* attention_bwd.cu - attention over packed documents, backward. Contracts: ops.h.
 *
 * Math, per pair (query row and head) with delta = d_o . o:
 *   w = exp(s - lse);  ds = w (d_o . v - delta) (1 - (s/cap)^2)
 *   dv += w d_o;  dk += ds scale q;  dq += scale ds k
 * In bf16, w and ds are rounded before these products.
 *
 * Work split: dq sums over keys, dk and dv over pairs. Without float atomics that takes two
 *   kernels, which both compute scores and d_o . v: seven products instead of five.
 *   k_attn_dq    a block per 64 or 128 pairs of one kv head goes through the keys that they see, as
 *                in the forward. It also leaves delta.
 *   k_attn_dkdv  a block per 64 keys, 32 in f32, goes through the pairs that see them: those of
 *                the keys' own segment, then those of the segments that have some of them as
 *                prefix, in order.
 *                Warps share each tile of scores, and w and ds through shared memory.
 *   One operand of a tile is copied while the products that need only the other are computed.
 * Traffic and FLOPs, bf16, derived for 4096 rows of 9B on an H100 (3.35 TB/s, 989 TFLOP/s): each
 *   tensor once, and what streams past again from L2; 6 E and 8 E FLOP per pair and key it sees.
 *   documents of 160 tokens   dq 168 MB    8.1 GFLOP   50 us    dkdv 134 MB   10.8 GFLOP   40 us
 *   of 4096                   dq 168 MB  206.2 GFLOP  208 us    dkdv 134 MB  274.9 GFLOP  278 us
 *   The first line is bound by memory, the second by products. One kernel of five products would
 *   move 201 MB, 60 us, for 10 E FLOP: 13.5 GFLOP, 14 us, and 343.7 GFLOP, 347 us.
 * Ceiling there: some 60 % by mma.sync, 347 and 463 us; and by shared memory (attention_fwd.cu),
 *   which must give or take 0.083 and 0.073 bytes per FLOP: 371 and 425 TFLOP/s, 556 and 647 us;
 *   330 and 384 TFLOP/s if copies into it take turns. The L2, of whose bytes they make 96 and 128
 *   FLOP each, allows 528 and 704. Instructions allow 562 and 550, but 366 and
 *   395 in a warp's tiles with a score beyond 0.6 cap.
 * Limits: E <= 256. Shared memory for E = 256: 96 and 145 KB in bf16, 160 and 137 KB in f32. */
#include "kernels/attention.cuh"

/* x holds q.k, or tanh(unit q.k) with a cap, and becomes the weight; dw holds d_o . v and becomes
 * the gradient of scale q.k. lse in powers of two. */
static __device__ inline void score_gradient(float *x, float *dw, const AttnCall &c, float lse,
                                             float delta, bool seen) {
    float w = seen ? exp2_approx(c.power * *x - lse) : 0;
    *dw = w * (*dw - delta) * (c.capped ? 1 - *x * *x : 1);
    *x = w;
}

/* ------------------------------------------------------------------------------------ dq -- */

enum { WARPS = 4, THREADS = WARPS * WARP };

template <class T, int COLS>
struct QueryShape {
    static constexpr int M = COLS == 256 ? 1 : 2, ROWS = WARPS * 16 * M; /* 16 M pairs a warp */
    static constexpr int KEYS = 64 / sizeof(T), N = KEYS / 8;
    static constexpr int BYTES = 2 * (ROWS + KEYS) * COLS * sizeof(T);
};

/* What a lane needs of its rows. */
template <int M>
struct Rows {
    float lse[M][2], delta[M][2];
};

/* delta of the warp's rows, to memory and to the lanes that need it. */
template <class T, int COLS, int M>
static __device__ inline void find_delta(Rows<M> *rows, float *delta, Tile<T, COLS> d_o, const T *o,
                                         int row, const AttnCall &c, const QueryBlock &b) {
    constexpr int W = pack_len<T>;
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < 2 * M; i++)
        for (int g = 0; g < 8; g++) {
            int r = row + 8 * i + g;
            bool own = b.first + r < b.pairs;
            int at = own ? pair_at(c, b.seg, b.kv, b.first + r) : 0;
            float sum = 0;
            for (int e = lane * W; own && e < c.E; e += WARP * W) {
                Pack<T> x = *(const Pack<T> *)d_o.chunk(r, e / W);
                Pack<T> y = *(const Pack<T> *)(o + (size_t)at * c.E + e);
                for (int k = 0; k < W; k++) sum += get(x.v[k]) * get(y.v[k]);
            }
            sum = warp_sum(sum);
            if (g == lane / 4) rows->delta[i / 2][i % 2] = sum;
            if (own && lane == 0) delta[at] = sum;
        }
}

template <int M>
static __device__ inline void find_lse(Rows<M> *rows, const float *lse, int row, const AttnCall &c,
                                       const QueryBlock &b) {
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        int pair = b.first + row + 8 * i + (int)threadIdx.x % WARP / 4;
        rows->lse[i / 2][i % 2] =
            pair < b.pairs ? (float)LOG2_E * lse[pair_at(c, b.seg, b.kv, pair)] : 0;
    }
}

/* One bit for each element of a D of scores, in order: whether its key is seen. */
template <int M, int N>
static __device__ inline unsigned seen_keys(const AttnCall &c, const QueryBlock &b, int row,
                                            int p) {
    static_assert(M * N * 4 <= 32, "more elements than bits");
    if (!needs_mask(c, b, p, 8 * N)) return ~0u;
    int g = (int)threadIdx.x % WARP / 4, t = (int)threadIdx.x % 4;
    unsigned seen = 0;
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int position = pair_position(c, b.seg, b.first + row + 16 * i + 8 * h + g);
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                    if ((unsigned)(position - (p + 8 * j + 2 * t + e)) < c.reach)
                        seen |= 1u << ((i * N + j) * 4 + 2 * h + e);
        }
    return seen;
}

template <class T, int COLS>
static __global__ void __launch_bounds__(THREADS, 2)
    k_attn_dq(T *dq, float *delta, const T *d_o, const T *q, const T *k, const T *v, const T *o,
              const float *lse, const Segment *seg, AttnCall c) {
    typedef QueryShape<T, COLS> X;
    constexpr int M = X::M, N = X::N, KEYS = X::KEYS;
    GPU_DYN_SHARED(T, shared);
    Tile<T, COLS> queries = {shared}, grads = {queries.p + X::ROWS * COLS},
                  keys = {grads.p + X::ROWS * COLS}, values = {keys.p + KEYS * COLS};
    QueryBlock b = query_block(seg, c, X::ROWS, KEYS);
    if (b.first >= b.pairs) return;
    load_pairs<X::ROWS, THREADS>(grads, d_o, c, b.seg, b.kv, b.first);
    load_pairs<X::ROWS, THREADS>(queries, q, c, b.seg, b.kv, b.first);
    load_keys<KEYS, THREADS>(values, v, c, b, b.begin);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();

    int row = (int)threadIdx.x / WARP * 16 * M;
    Rows<M> rows;
    find_delta(&rows, delta, grads, o, row, c, b);
    find_lse(&rows, lse, row, c, b);
    float sum[COLS / 64][M][8][4] = {};
    for (int p = b.begin; p <= b.far; p += KEYS) {
        cp_async_wait<0>();
        __syncthreads(); /* the values are here, and the last keys no longer read */
        load_keys<KEYS, THREADS>(keys, k, c, b, p);
        cp_async_commit();
        float dw[M][N][4] = {}, s[M][N][4] = {};
        multiply_rows(dw, grads, row, values, 0);
        cp_async_wait<0>();
        __syncthreads(); /* the keys are here, and the values no longer read */
        if (p + KEYS <= b.far) load_keys<KEYS, THREADS>(values, v, c, b, p + KEYS);
        cp_async_commit();
        multiply_rows(s, queries, row, keys, 0);
        if (c.capped) cap_scores(s, c.unit);
        unsigned seen = seen_keys<M, N>(c, b, row, p);
#pragma unroll
        for (int i = 0; i < M * N * 4; i++) {
            int m = i / (4 * N), j = i / 4 % N, r = i % 4;
            score_gradient(&s[m][j][r], &dw[m][j][r], c, rows.lse[m][r / 2], rows.delta[m][r / 2],
                           seen >> i & 1);
        }
#pragma unroll
        for (int step = 0; step < KEYS / DEPTH<T>; step++) {
            Frag<T, M, 4> left;
            left_of(left, dw, step);
            multiply_below(sum, left, keys, step * DEPTH<T>, 0);
        }
    }
    float factor[M][2];
#pragma unroll
    for (int i = 0; i < 2 * M; i++) factor[i / 2][i % 2] = c.scale;
    write_pairs(dq, sum, factor, queries, row, c, b);
}

/* ------------------------------------------------------------------------------- dk, dv -- */

/* Blocks of SIDE keys go through tiles of SIDE pairs. DOWN x ACROSS warps share a tile of scores,
 * keys down and pairs across; its products with queries and d_o they share by rows and columns. */
template <class T, int COLS>
struct KeyShape {
    static constexpr int SIDE = 128 / sizeof(T), DOWN = 2;
    static constexpr int ACROSS = SIDE == 64 && COLS == 256 ? 4 : 2;
    static constexpr int THREADS = DOWN * ACROSS * WARP, MIN_BLOCKS = COLS == 256 ? 1 : 2;
    static constexpr int M = SIDE / DOWN / 16,
                         N = SIDE / ACROSS / 8;    /* pieces of a warp's scores */
    static constexpr int WIDE = COLS / ACROSS / 8; /* and of its rows of dk, dv */
    static constexpr int PART = WIDE < 8 ? WIDE : 8, B = WIDE / PART;
    static constexpr int BYTES = (4 * SIDE * COLS + 2 * SIDE * SIDE) * sizeof(T);
};

/* Where the pairs are that see a block of keys: in the keys' own segment, then, one after the
 * other, in those that have some of the keys as prefix. */
struct Viewers {
    Segment seg;
    int j;          /* of seg */
    int key;        /* position in seg of the block's first row, negative if before the prefix */
    int begin, end; /* rows of the block that are keys of seg */
    int pair, stop; /* first pair of the tile that is next, and of none any more */
};

static __device__ inline Viewers viewers_in(const AttnCall &c, Segment s, int j, int key, int end,
                                            int size) {
    int begin = key < 0 ? -key : 0, row = key + begin - s.prefix_len, last = key + end - 1;
    int rows = s.len;
    if ((unsigned)(s.prefix_len + rows - 1 - last) >= c.reach)
        rows = last + (int)c.reach - s.prefix_len;
    return {s, j, key, begin, end, (row > 0 ? row : 0) * c.G / size * size, rows * c.G};
}

/* The keys of a block: rows row, row + 1, ... row + rows - 1 of the pack. */
struct KeyBlock {
    int kv, row, rows;
};

/* The next segment from j on that has keys of the block as prefix, or `stop`. */
static __device__ inline int next_child(const Segment *seg, int j, int stop, KeyBlock b) {
    for (; j < stop; j += WARP) {
        int mine = j + (int)threadIdx.x % WARP;
        Segment s = mine < stop ? seg[mine] : Segment{0, 0, 0, 0};
        bool has = s.prefix_row < b.row + b.rows && s.prefix_row + s.prefix_len > b.row;
        unsigned found = __ballot_sync(FULL_MASK, has && s.prefix_len > 0);
        if (found) return j + __ffs((int)found) - 1;
    }
    return stop;
}

/* Goes on to the next tile of pairs; false if there is none. */
static __device__ inline bool next_tile(Viewers *v, const AttnCall &c, const Segment *seg, int stop,
                                        KeyBlock b, int size) {
    for (v->pair += size; v->pair >= v->stop;) {
        int j = next_child(seg, v->j + 1, stop, b);
        if (j >= stop) return false;
        Segment s = seg[j];
        int key = b.row - s.prefix_row, left = s.prefix_len - key;
        *v = viewers_in(c, s, j, key, left < b.rows ? left : b.rows, size);
    }
    return true;
}

/* seen_keys for a tile with keys down and pairs across. */
template <int M, int N>
static __device__ inline unsigned seen_pairs(const AttnCall &c, const Viewers &v, int row, int col,
                                             int size) {
    int near = pair_position(c, v.seg, v.pair), far = pair_position(c, v.seg, v.pair + size - 1);
    if (v.begin == 0 && v.end == size && v.key + size - 1 <= near &&
        (unsigned)(far - v.key) < c.reach)
        return ~0u;
    int g = (int)threadIdx.x % WARP / 4, t = (int)threadIdx.x % 4;
    unsigned seen = 0;
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int position = pair_position(c, v.seg, v.pair + col + 8 * j + 2 * t + e);
#pragma unroll
            for (int i = 0; i < M; i++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    int r = row + 16 * i + 8 * h + g;
                    bool is_key = r >= v.begin && r < v.end;
                    if (is_key && (unsigned)(position - (v.key + r)) < c.reach)
                        seen |= 1u << ((i * N + j) * 4 + 2 * h + e);
                }
        }
    return seen;
}

/* Tiles of one block in shared memory, and lse and delta of the pairs. */
template <class T, int COLS>
struct KeyTiles {
    typedef KeyShape<T, COLS> X;
    Tile<T, COLS> keys, values, queries, grads;
    Tile<T, X::SIDE> w, ds;
    float *lse, *delta;
};

template <class T, int COLS>
static __device__ inline void load_queries(const KeyTiles<T, COLS> &tiles, const T *q,
                                           const float *lse, const float *delta, const AttnCall &c,
                                           const Viewers &v, int kv) {
    typedef KeyShape<T, COLS> X;
    load_pairs<X::SIDE, X::THREADS>(tiles.queries, q, c, v.seg, kv, v.pair);
    int i = (int)threadIdx.x;
    if (i < X::SIDE) {
        bool valid = v.pair + i < v.seg.len * c.G;
        int at = valid ? pair_at(c, v.seg, kv, v.pair + i) : 0;
        cp_async<4>(tiles.lse + i, lse + at, valid);
        cp_async<4>(tiles.delta + i, delta + at, valid);
    }
}

/* Scores of the warp's piece become w and ds in shared memory. */
template <class T, int COLS, int M, int N>
static __device__ inline void put_gradients(const KeyTiles<T, COLS> &tiles, float (&s)[M][N][4],
                                            float (&dw)[M][N][4], const AttnCall &c,
                                            const Viewers &v, int row, int col) {
    int t = (int)threadIdx.x % 4;
    if (c.capped) cap_scores(s, c.unit);
    unsigned seen = seen_pairs<M, N>(c, v, row, col, KeyShape<T, COLS>::SIDE);
#pragma unroll
    for (int j = 0; j < N; j++) {
        int pair = col + 8 * j + 2 * t;
        Pack<float, 2> lse = *(const Pack<float, 2> *)(tiles.lse + pair);
        Pack<float, 2> delta = *(const Pack<float, 2> *)(tiles.delta + pair);
#pragma unroll
        for (int i = 0; i < 4 * M; i++) {
            int m = i / 4, r = i % 4;
            score_gradient(&s[m][j][r], &dw[m][j][r], c, (float)LOG2_E * lse.v[r % 2],
                           delta.v[r % 2], seen >> ((m * N + j) * 4 + r) & 1);
        }
    }
    put_scores(tiles.w, s, row, col / 8);
    put_scores(tiles.ds, dw, row, col / 8);
}

/* sum += rows row.. of a tile of scores times columns 8 piece.. of `below`. */
template <class T, int COLS, int SIDE, int B, int M, int N>
static __device__ inline void add_product(float (&sum)[B][M][N][4], Tile<T, SIDE> scores,
                                          Tile<T, COLS> below, int row, int piece) {
    [[maybe_unused]] constexpr int AT_ONCE = sizeof(T) == 4 ? 1 : 2; /* to save registers */
#pragma unroll AT_ONCE
    for (int step = 0; step < SIDE / DEPTH<T>; step++) {
        Frag<T, M, 4> left;
        load_left(left, scores, row, step);
        multiply_below(sum, left, below, step * DEPTH<T>, piece);
    }
}

template <class T, int COLS>
static __global__ void __launch_bounds__(KeyShape<T, COLS>::THREADS, KeyShape<T, COLS>::MIN_BLOCKS)
    k_attn_dkdv(T *dk, T *dv, const T *d_o, const T *q, const T *k, const T *v, const float *lse,
                const float *delta, const Segment *seg, AttnCall c, int children_stop) {
    typedef KeyShape<T, COLS> X;
    constexpr int SIDE = X::SIDE, TILE = SIDE * COLS, M = X::M, N = X::N;
    GPU_DYN_SHARED(T, shared);
    __shared__ __align__(8) float lse_of[SIDE], delta_of[SIDE];
    KeyTiles<T, COLS> tiles = {{shared},
                               {shared + TILE},
                               {shared + 2 * TILE},
                               {shared + 3 * TILE},
                               {shared + 4 * TILE},
                               {shared + 4 * TILE + SIDE * SIDE},
                               lse_of,
                               delta_of};
    TilePlace place = tile_place(seg, c.nseg, (int)(blockIdx.x / c.K), 1, SIDE);
    int left = place.seg.len - place.first;
    if (left <= 0) return;
    KeyBlock b = {(int)(blockIdx.x % c.K), place.seg.row + place.first, left < SIDE ? left : SIDE};
    Viewers at =
        viewers_in(c, place.seg, place.j, place.seg.prefix_len + place.first, b.rows, SIDE);
    int warp = (int)threadIdx.x / WARP, row = warp / X::ACROSS * 16 * M, across = warp % X::ACROSS;

    auto key_at = [&](int r) { return (b.row + r) * c.K + b.kv; };
    auto own_key = [&](int r) { return r < b.rows ? key_at(r) : -1; };
    load_rows<SIDE, X::THREADS>(tiles.keys, k, c.E, own_key);
    load_rows<SIDE, X::THREADS>(tiles.values, v, c.E, own_key);
    load_queries(tiles, q, lse, delta, c, at, b.kv);
    cp_async_commit();
    float sum_k[X::B][M][X::PART][4] = {}, sum_v[X::B][M][X::PART][4] = {};
    for (bool more = true; more;) {
        cp_async_wait<0>();
        __syncthreads(); /* the queries are here, and d_o, w and ds no longer read */
        load_pairs<SIDE, X::THREADS>(tiles.grads, d_o, c, at.seg, b.kv, at.pair);
        cp_async_commit();
        float s[M][N][4] = {}, dw[M][N][4] = {};
        multiply_rows(s, tiles.keys, row, tiles.queries, across * 8 * N);
        cp_async_wait<0>();
        __syncthreads(); /* d_o is here */
        multiply_rows(dw, tiles.values, row, tiles.grads, across * 8 * N);
        put_gradients(tiles, s, dw, c, at, row, across * 8 * N);
        __syncthreads(); /* w and ds are here */
        add_product(sum_k, tiles.ds, tiles.queries, row, across * X::WIDE);
        more = next_tile(&at, c, seg, children_stop, b, SIDE);
        __syncthreads(); /* the queries are no longer read */
        if (more) load_queries(tiles, q, lse, delta, c, at, b.kv);
        cp_async_commit();
        add_product(sum_v, tiles.w, tiles.grads, row, across * X::WIDE);
    }
    float scale[M][2], one[M][2];
    for (int i = 0; i < 2 * M; i++) scale[i / 2][i % 2] = c.scale, one[i / 2][i % 2] = 1;
    put_results(tiles.keys, sum_k, scale, row, across * X::WIDE);
    put_results(tiles.values, sum_v, one, row, across * X::WIDE);
    __syncthreads();
    store_rows(dk, tiles.keys, 0, b.rows, c.E, (int)threadIdx.x, X::THREADS, key_at);
    store_rows(dv, tiles.values, 0, b.rows, c.E, (int)threadIdx.x, X::THREADS, key_at);
}

/* ------------------------------------------------------------------------------ launches -- */

template <class T>
struct Tensors {
    T *dq, *dk, *dv;
    const T *d_o, *q, *k, *v, *o;
    const float *lse;
    const Segment *seg;
};

/* delta (N,H) */
template <class T>
static size_t attn_bwd_scratch(Exec *, int, int N, AttnShape a) {
    return (size_t)N * a.H * sizeof(float);
}

/* delta is left by the first kernel for the second. children_stop: nseg, or 0 if no segment
 * has a prefix. */
template <class T, int COLS>
static void launch(Exec *ex, Tensors<T> x, float *delta, int N, int children_stop, AttnCall c) {
    typedef QueryShape<T, COLS> Q;
    typedef KeyShape<T, COLS> X;
    GPU_LAUNCH(ex, (k_attn_dq<T, COLS>), tile_numbers(N, c.nseg, c.G, Q::ROWS) * c.K, THREADS,
               Q::BYTES, x.dq, delta, x.d_o, x.q, x.k, x.v, x.o, x.lse, x.seg, c);
    GPU_LAUNCH(ex, (k_attn_dkdv<T, COLS>), tile_numbers(N, c.nseg, 1, X::SIDE) * c.K, X::THREADS,
               X::BYTES, x.dk, x.dv, x.d_o, x.q, x.k, x.v, x.lse, delta, x.seg, c, children_stop);
}

template <class T>
static void attn_bwd(Exec *ex, store *dq, store *dk, store *dv, const store *d_o, const store *q,
                     const store *k, const store *v, const store *o, const float *lse,
                     const Segment *seg, const Segment *host_seg, int nseg, int N, AttnShape a) {
    OP_BEGIN(ex, attn_bwd, host_seg, nseg, N, a);
    AttnCall c = attn_call<T>(a, nseg, N, {dq, dk, dv, d_o, q, k, v, o});
    if (N == 0) return; /* an empty grid is a launch error */
    bool children = false;
    for (int j = 0; j < nseg; j++) children = children || host_seg[j].prefix_len > 0;
    Tensors<T> x = {elems<T>(dq), elems<T>(dk), elems<T>(dv), elems<T>(d_o), elems<T>(q),
                    elems<T>(k),  elems<T>(v),  elems<T>(o),  lse,           seg};
    auto *launch_width = a.E <= 64 ? launch<T, 64> : a.E <= 128 ? launch<T, 128> : launch<T, 256>;
    float *delta = (float *)exec_scratch(ex, attn_bwd_scratch<T>(ex, nseg, N, a));
    launch_width(ex, x, delta, N, children ? nseg : 0, c);
}

GPU_TWINS(attn_bwd);
GPU_TWINS(attn_bwd_scratch);
