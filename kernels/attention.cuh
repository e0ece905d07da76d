/* attention.cuh - what the attention kernels share: how work is cut, tiles in shared memory, and
 * their products on tensor cores. Included by attention_fwd.cu and attention_bwd.cu.
 *
 * A query row and one of the G = H/K query heads that read a kv head make a pair: pair p of a
 * segment and a kv head is row p / G, head p % G. Blocks take runs of pairs, so that all heads that
 * read a key share its tile, for any G. A pair's scores and sums depend on no other pair, and tiles
 * of keys lie on a grid of positions: a tile that a pair does not see adds exact zeros. So the bits
 * of a row depend neither on the pack nor on whose rows its prefix is.
 *
 * A tile has rows of COLS elements: E rounded up to 64, 128 or 256 and filled with zeros, or 128
 * bytes of scores. Both storage types are read from it by the same instructions; an f32 is then
 * split in two tf32 ("3xTF32", ptx.h), so f32 results carry the error of 22-bit operands and of
 * the tensor cores' f32 sums. */
#ifndef SAILS_ATTENTION_CUH
#define SAILS_ATTENTION_CUH

#include <limits.h>
#include <math.h>

#include "kernels/gpu.h"
#include "kernels/ptx.h"
#include "kernels/scalar.h"
#include "kernels/segments.h"

/* One call, as its blocks see it. Scores are kept in powers of two: exp(s) = 2^(s log2 e). With
 * a cap, s log2 e = power tanh(unit q.k); without, s log2 e = power q.k. */
struct AttnCall {
    int H, K, E, G, nseg;
    uint32_t per_g; /* 2^31 / G rounded up: pair per_g / 2^31 is pair / G, without a division */
    bool capped;
    float unit, power, scale;
    unsigned reach; /* a key is seen from its own position on, for so many positions */
};

template <class T>
static AttnCall attn_call(AttnShape a, int nseg, int N,
                          std::initializer_list<const void *> tensors) {
    int G = a.H / a.K;
    CHECK((long)N * a.H * G <= INT_MAX, "expected N * H * H/K below 2^31, got N=%d H=%d K=%d", N,
          a.H, a.K); /* heads are counted in int, and per_g is exact up to there */
    CHECK(pack_rows<T>(a.E, tensors), "expected tensors aligned to 16 bytes");
    AttnCall c;
    c.H = a.H, c.K = a.K, c.E = a.E, c.G = G, c.nseg = nseg;
    c.per_g = (uint32_t)(((1u << 31) + (unsigned)G - 1) / (unsigned)G);
    c.capped = a.cap > 0;
    c.unit = c.capped ? a.scale / a.cap : 0;
    c.power = (float)((c.capped ? a.cap : a.scale) * LOG2_E);
    c.scale = a.scale;
    c.reach = a.window > 0 ? (unsigned)a.window : 1u << 31;
    return c;
}

/* ---------------------------------------------------------------------------------- work -- */

/* The rows of a segment times `per_row` are its items; they are cut into tiles of `size`. Tiles are
 * numbered through all segments, those of segment j from row * per_row / size + j on: there is room
 * for all, no number is taken twice, and no table is needed. Some numbers have no tile. */
static inline int tile_numbers(int N, int nseg, int per_row, int size) {
    return N * per_row / size + nseg;
}

/* Segment j, and the first item of its tile: beyond its items if the number has none. */
struct TilePlace {
    int j;
    Segment seg;
    int first;
};

/* All lanes of a warp call. Looks at 32 segments at a time. */
static __device__ inline TilePlace tile_place(const Segment *seg, int nseg, int number, int per_row,
                                              int size) {
    int low = 0, n = nseg, lane = (int)threadIdx.x % WARP;
    while (n > 1) {
        int step = ceil_div(n, WARP), j = low + lane * step;
        bool begun = lane * step < n && seg[j].row * per_row / size + j <= number;
        int skip = (__popc(__ballot_sync(FULL_MASK, begun)) - 1) * step;
        low += skip;
        n = n - skip < step ? n - skip : step;
    }
    Segment s = seg[low];
    return {low, s, (number - s.row * per_row / size - low) * size};
}

static __device__ inline int pair_row(const AttnCall &c, int pair) {
    return (int)((uint64_t)(unsigned)pair * c.per_g >> 31);
}

/* Index of a pair among the heads of all rows: of an element of lse (N,H), or of E of q. */
static __device__ inline int pair_at(const AttnCall &c, Segment s, int kv, int pair) {
    int row = pair_row(c, pair);
    return (s.row + row) * c.H + kv * c.G + (pair - row * c.G);
}

static __device__ inline int pair_position(const AttnCall &c, Segment s, int pair) {
    return s.prefix_len + pair_row(c, pair);
}

/* The pairs that a block of forward or dq works on, and the keys that one of them may see. */
struct QueryBlock {
    Segment seg;
    int kv, first, pairs; /* first pair; pairs that the segment has in all */
    int near, far;        /* positions of the block's first and last pair */
    int begin;            /* first key, on the grid of key tiles; the last is `far` */
};

/* Late tiles see the most keys: they come first. */
static __device__ inline QueryBlock query_block(const Segment *seg, const AttnCall &c, int size,
                                                int keys) {
    int number = (int)((gridDim.x - 1 - blockIdx.x) / c.K);
    TilePlace place = tile_place(seg, c.nseg, number, c.G, size);
    QueryBlock b = {place.seg, (int)(blockIdx.x % c.K), place.first, place.seg.len * c.G, 0, 0, 0};
    if (b.first >= b.pairs) return b; /* the number has no tile */
    int last = (b.first + size < b.pairs ? b.first + size : b.pairs) - 1;
    b.near = pair_position(c, b.seg, b.first);
    b.far = pair_position(c, b.seg, last);
    int unseen = (unsigned)b.near < c.reach ? 0 : b.near - (int)c.reach + 1;
    b.begin = unseen / keys * keys;
    return b;
}

/* Whether a tile of `keys` keys from position p on holds keys that some pair does not see. */
static __device__ inline bool needs_mask(const AttnCall &c, const QueryBlock &b, int p, int keys) {
    return p + keys - 1 > b.near || (unsigned)(b.far - p) >= c.reach;
}

/* --------------------------------------------------------------------------------- tiles -- */

/* Rows in shared memory. Row r keeps its 16-byte chunk c at place c ^ r % 8: the same chunk of
 * eight rows, which ldmatrix reads at once, then lies in all 32 banks, and so do the words that
 * load_below reads. */
template <class T, int COLS_>
struct Tile {
    static constexpr int COLS = COLS_, CHUNKS = COLS * sizeof(T) / PACK_BYTES;
    static_assert(CHUNKS >= 8, "a row is shorter than the pattern of its chunks");
    T *p;
    __device__ T *chunk(unsigned row, unsigned c) const {
        return p + (row * COLS + (c ^ row % 8) * pack_len<T>);
    }
    /* The same for row + r and c + d, row a multiple of 8, c even and d 0 or 1. What is constant of
     * row and c then becomes constant of the address, but for four kinds of c: fewer registers. */
    __device__ T *chunk(unsigned row, unsigned r, unsigned c, unsigned d) const {
        return p + r * COLS + ((c % 8 + d) ^ r % 8) * pack_len<T> +
               (row * COLS + c / 8 * 8 * pack_len<T>);
    }
};

/* Starts copies of ROWS rows of E elements by all THREADS threads; row r is head at(r) of `from`,
 * or zeros if that is negative. */
template <int ROWS, int THREADS, class T, int COLS, class At>
static __device__ inline void load_rows(Tile<T, COLS> to, const T *from, int E, At at) {
    constexpr int CHUNKS = Tile<T, COLS>::CHUNKS, AT_ONCE = THREADS / CHUNKS;
    static_assert(ROWS % AT_ONCE == 0 && THREADS % CHUNKS == 0, "threads without a chunk");
    int c = (int)threadIdx.x % CHUNKS, e = c * pack_len<T>;
#pragma unroll 2
    for (int i = 0; i < ROWS; i += AT_ONCE) {
        int row = i + (int)threadIdx.x / CHUNKS, head = at(row);
        bool valid = e < E && head >= 0;
        cp_async<PACK_BYTES>(to.chunk(row, c), from + (valid ? (ptrdiff_t)head * E + e : 0), valid);
    }
}

/* A tile of pairs from `first` on, for which `from` has E elements each. */
template <int ROWS, int THREADS, class T, int COLS>
static __device__ inline void load_pairs(Tile<T, COLS> to, const T *from, const AttnCall &c,
                                         Segment s, int kv, int first) {
    load_rows<ROWS, THREADS>(to, from, c.E, [&](int r) {
        return first + r < s.len * c.G ? pair_at(c, s, kv, first + r) : -1;
    });
}

/* A tile of keys or values from position p on, up to the last that block b sees. */
template <int ROWS, int THREADS, class T, int COLS>
static __device__ inline void load_keys(Tile<T, COLS> to, const T *from, const AttnCall &c,
                                        const QueryBlock &b, int p) {
    load_rows<ROWS, THREADS>(to, from, c.E, [&](int r) {
        return p + r <= b.far ? key_row(b.seg, p + r) * c.K + b.kv : -1;
    });
}

/* Writes rows begin, begin + 1, ... end - 1 of a tile, row r as head at(r) of `to`, by `threads`
 * threads of which the caller is number `me`. */
template <class T, int COLS, class At>
static __device__ inline void store_rows(T *to, Tile<T, COLS> from, int begin, int end, int E,
                                         int me, int threads, At at) {
    constexpr int CHUNKS = Tile<T, COLS>::CHUNKS, W = pack_len<T>;
    for (int i = begin * CHUNKS + me; i < end * CHUNKS; i += threads) {
        int row = i / CHUNKS, e = i % CHUNKS * W;
        if (e < E)
            *(Pack<T> *)(to + (ptrdiff_t)at(row) * E + e) =
                *(const Pack<T> *)from.chunk(row, i % CHUNKS);
    }
}

/* ------------------------------------------------------------------------------ products -- */

/* Operands of mma: M pieces of R registers. An f32 is the sum of two tf32. */
template <class T, int M, int R>
struct Frag;
template <int M, int R>
struct Frag<bf16, M, R> {
    uint32_t v[M][R];
};
template <int M, int R>
struct Frag<float, M, R> {
    uint32_t v[M][R], low[M][R];
};

/* How deep one mma is: two chunks of each row, for both types. */
template <class T>
static constexpr int DEPTH = 2 * PACK_BYTES / sizeof(T);

template <int M, int R>
static __device__ inline void split(Frag<bf16, M, R> &) {}
template <int M, int R>
static __device__ inline void split(Frag<float, M, R> &f) {
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int r = 0; r < R; r++) {
            float x = scalar_from_bits(f.v[i][r]);
            f.v[i][r] = tf32_round(x);
            f.low[i][r] = tf32_round(x - scalar_from_bits(f.v[i][r]));
        }
}

template <int M, int N>
static __device__ inline void mma(float (&d)[M][N][4], const Frag<bf16, M, 4> &a,
                                  const Frag<bf16, N, 2> &b) {
    mma_bf16(d, a.v, b.v);
}
template <int M, int N>
static __device__ inline void mma(float (&d)[M][N][4], const Frag<float, M, 4> &a,
                                  const Frag<float, N, 2> &b) {
    mma_tf32(d, a.low, b.v);
    mma_tf32(d, a.v, b.low);
    mma_tf32(d, a.v, b.v);
}

/* A of step s: rows row.., DEPTH columns from s DEPTH on. */
template <class T, int COLS, int M>
static __device__ inline void load_left(Frag<T, M, 4> &a, Tile<T, COLS> tile, int row, int s) {
    unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < M; i++)
        ldmatrix<4, false>(a.v[i], tile.chunk(row + 16 * i, lane % 16, 2 * s, lane / 16));
    split(a);
}

/* B of step s when it is the transpose of rows row.. of the tile. */
template <class T, int COLS, int N>
static __device__ inline void load_beside(Frag<T, N, 2> &b, Tile<T, COLS> tile, int row, int s) {
    static_assert(N % 2 == 0, "two pieces are read at once");
    unsigned lane = threadIdx.x % WARP, r = lane / 16 * 8 + lane % 8;
#pragma unroll
    for (int j = 0; j < N; j += 2)
        ldmatrix<4, false>(b.v[j], tile.chunk(row + 8 * j, r, 2 * s, lane / 8 % 2));
    split(b);
}

/* B of DEPTH rows from `row` on, columns 8 piece and following. */
template <int COLS, int N>
static __device__ inline void load_below(Frag<bf16, N, 2> &b, Tile<bf16, COLS> tile, int row,
                                         int piece) {
    static_assert(N % 2 == 0, "two pieces are read at once");
    unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (int j = 0; j < N; j += 2)
        ldmatrix<4, true>(b.v[j], tile.chunk(row, lane % 16, piece + j, lane / 16));
}

/* In f32 the depth runs through the rows in the order 0 2 4 6 1 3 5 7, as left_of and put_scores
 * have it: a lane that holds columns 2t and 2t+1 of a D has t and t+4 of the next A. */
template <int COLS, int N>
static __device__ inline void load_below(Frag<float, N, 2> &b, Tile<float, COLS> tile, int row,
                                         int piece) {
    unsigned lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int r = 0; r < 2; r++)
            b.v[j][r] = scalar_bits(tile.chunk(row, 2 * t + r, 2 * (piece + j), g / 4)[g % 4]);
    split(b);
}

/* A of step s, from the D that holds the scores of M x N pieces. */
template <int M, int N>
static __device__ inline void left_of(Frag<bf16, M, 4> &a, const float (&d)[M][N][4], int s) {
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int r = 0; r < 4; r++)
            a.v[i][r] =
                pack_bf16(d[i][2 * s + r / 2][r % 2 * 2], d[i][2 * s + r / 2][r % 2 * 2 + 1]);
}
template <int M, int N>
static __device__ inline void left_of(Frag<float, M, 4> &a, const float (&d)[M][N][4], int s) {
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int r = 0; r < 4; r++) a.v[i][r] = scalar_bits(d[i][s][r % 2 * 2 + r / 2]);
    split(a);
}

/* d += rows row_a.. of a times the transpose of rows row_b.. of b. */
template <class T, int COLS, int M, int N>
static __device__ inline void multiply_rows(float (&d)[M][N][4], Tile<T, COLS> a, int row_a,
                                            Tile<T, COLS> b, int row_b) {
#pragma unroll 4
    for (int s = 0; s < COLS / DEPTH<T>; s++) {
        Frag<T, M, 4> left;
        Frag<T, N, 2> right;
        load_left(left, a, row_a, s);
        load_beside(right, b, row_b, s);
        mma(d, left, right);
    }
}

/* d[n] += left times DEPTH rows from `row` on, columns 8 (piece + n N) and following. */
template <class T, int COLS, int B, int M, int N>
static __device__ inline void multiply_below(float (&d)[B][M][N][4], const Frag<T, M, 4> &left,
                                             Tile<T, COLS> b, int row, int piece) {
#pragma unroll
    for (int n = 0; n < B; n++) {
        Frag<T, N, 2> right;
        load_below(right, b, row, piece + n * N);
        mma(d[n], left, right);
    }
}

/* Writes M x N pieces of scores to rows row.. of a tile, from column 8 piece on, for load_left. */
template <int COLS, int M, int N>
static __device__ inline void put_scores(Tile<bf16, COLS> to, const float (&d)[M][N][4], int row,
                                         int piece) {
    int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++)
#pragma unroll
            for (int h = 0; h < 2; h++)
                *(uint32_t *)(to.chunk(row + 16 * i + 8 * h + g, piece + j) + 2 * t) =
                    pack_bf16(d[i][j][2 * h], d[i][j][2 * h + 1]);
}
template <int COLS, int M, int N>
static __device__ inline void put_scores(Tile<float, COLS> to, const float (&d)[M][N][4], int row,
                                         int piece) {
    int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++)
#pragma unroll
            for (int r = 0; r < 4; r++)
                to.chunk(row + 16 * i + r / 2 * 8 + g, 2 * (piece + j) + r % 2)[t] = d[i][j][r];
}

/* Writes results to rows row.. of a tile, from column 8 piece on, each row times its factor. */
template <class T, int COLS, int B, int M, int N>
static __device__ inline void put_results(Tile<T, COLS> to, const float (&d)[B][M][N][4],
                                          const float (&factor)[M][2], int row, int piece) {
    int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < B * N; n++)
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float *from = &d[n / N][i][n % N][2 * h];
                Pack<T, 2> pair;
                put(&pair.v[0], from[0] * factor[i][h]);
                put(&pair.v[1], from[1] * factor[i][h]);
                int col = 8 * (piece + n) + 2 * t, W = pack_len<T>;
                *(Pack<T, 2> *)(to.chunk(row + 16 * i + 8 * h + g, col / W) + col % W) = pair;
            }
}

/* Writes a warp's pairs, from row `row` of the block's tile on, through that place in the tile: no
 * other warp may read it. */
template <class T, int COLS, int B, int M, int N>
static __device__ inline void write_pairs(T *to, const float (&d)[B][M][N][4],
                                          const float (&factor)[M][2], Tile<T, COLS> tile, int row,
                                          const AttnCall &c, const QueryBlock &b) {
    int left = b.pairs - b.first - row, rows = left < 16 * M ? left : 16 * M;
    put_results(tile, d, factor, row, 0);
    __syncwarp();
    store_rows(to, tile, row, row + rows, c.E, (int)threadIdx.x % WARP, WARP,
               [&](int r) { return pair_at(c, b.seg, b.kv, b.first + r); });
}

/* -------------------------------------------------------------------------------- scores -- */

/* x = tanh(unit x). Where all is near 0, the half of tanh that holds there is enough. */
template <int M, int N>
static __device__ inline void cap_scores(float (&x)[M][N][4], float unit) {
    float *flat = &x[0][0][0], largest = 0;
#pragma unroll
    for (int i = 0; i < M * N * 4; i++) {
        flat[i] *= unit;
        largest = fmaxf(largest, fabsf(flat[i]));
    }
    if (largest < SCALAR_TANH_NEAR) {
#pragma unroll
        for (int i = 0; i < M * N * 4; i++) flat[i] = scalar_tanh_near(flat[i]);
    } else {
#pragma unroll
        for (int i = 0; i < M * N * 4; i++) flat[i] = scalar_tanh(flat[i]);
    }
    __syncwarp(); /* what follows multiplies, which takes the whole warp at once */
}

#endif
