/* tile.h - the register-blocked product that GEMM and attention are built from, in f32.
 *
 * Written with vector types, not intrinsics: the compiler makes AVX-512, AVX2 or SSE of it. All
 * operands lie in padded scratch, so there are no tails: rows come in multiples of TILE_ROWS,
 * columns in multiples of TILE_VEC. Each element of C adds up runs of TILE_RUN products in order of
 * k, whatever its place: equal inputs give equal bits for any blocking of rows and columns. Short
 * runs round less than one long chain: at E = 64 it halved what attention adds to a gradient's
 * error. */
#ifndef SAILS_TILE_H
#define SAILS_TILE_H

#include <stddef.h>

#if defined __AVX512F__
enum { TILE_VEC = 16, TILE_ROWS = 8 };
#elif defined __AVX__
enum { TILE_VEC = 8, TILE_ROWS = 4 };
#else
enum { TILE_VEC = 4, TILE_ROWS = 4 };
#endif

enum { TILE_RUN = 32 };

typedef float tile_vec __attribute__((vector_size(TILE_VEC * sizeof(float))));

static inline int tile_pad(int n, int multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/* What the product does to C. */
enum TileOut { TILE_SET, TILE_ADD };

/* The left operand: element (row, k) at p[row * row_step + k * k_step]. */
typedef struct TileLeft {
    const float *p;
    size_t row_step, k_step;
} TileLeft;

#if defined __clang__
#define TILE_UNROLL _Pragma("unroll")
#else
#define TILE_UNROLL _Pragma("GCC unroll 24")
#endif

/* One register block, one run of k: TILE_ROWS rows, `vecs` vectors of columns. */
static inline __attribute__((always_inline)) void tile_block(float *c, size_t ldc, TileLeft a,
                                                             const float *b, size_t ldb, int K,
                                                             enum TileOut out, const int vecs) {
    tile_vec acc[TILE_ROWS][2];
    TILE_UNROLL
    for (int r = 0; r < TILE_ROWS; r++) {
        TILE_UNROLL
        for (int v = 0; v < vecs; v++) acc[r][v] = (tile_vec){0};
    }
    for (int k = 0; k < K; k++) {
        TILE_UNROLL
        for (int r = 0; r < TILE_ROWS; r++) {
            float left = a.p[r * a.row_step + k * a.k_step];
            TILE_UNROLL
            for (int v = 0; v < vecs; v++)
                acc[r][v] += left * *(const tile_vec *)(b + k * ldb + v * TILE_VEC);
        }
    }
    TILE_UNROLL
    for (int r = 0; r < TILE_ROWS; r++) {
        TILE_UNROLL
        for (int v = 0; v < vecs; v++) {
            tile_vec *to = (tile_vec *)(c + r * ldc + v * TILE_VEC);
            *to = out == TILE_ADD ? *to + acc[r][v] : acc[r][v];
        }
    }
}

/* C (rows,cols) = or += A (rows,K) B (K,cols). c, b and their strides are aligned to a vector;
 * `rows` is rounded up to TILE_ROWS and `cols` to TILE_VEC: the padding is read and written. */
static inline void tile_mul(float *c, size_t ldc, TileLeft a, const float *b, size_t ldb, int rows,
                            int cols, int K, enum TileOut out) {
    for (int j = 0; j < cols; j += 2 * TILE_VEC)
        for (int i = 0; i < rows; i += TILE_ROWS)
            for (int k = 0; k < K; k += TILE_RUN) {
                float *at = c + (size_t)i * ldc + j;
                const float *right = b + (size_t)k * ldb + j;
                TileLeft left = {a.p + (size_t)i * a.row_step + (size_t)k * a.k_step, a.row_step,
                                 a.k_step};
                int run = K - k < TILE_RUN ? K - k : TILE_RUN;
                if (cols - j > TILE_VEC)
                    tile_block(at, ldc, left, right, ldb, run, k ? TILE_ADD : out, 2);
                else
                    tile_block(at, ldc, left, right, ldb, run, k ? TILE_ADD : out, 1);
            }
}

typedef float tile_quad __attribute__((vector_size(16), aligned(4)));

/* to[c * ldt + r] = from[r * ldf + c] for r < rows, c < cols; both multiples of 4. */
static inline void tile_transpose(float *to, size_t ldt, const float *from, size_t ldf, int rows,
                                  int cols) {
    for (int r = 0; r < rows; r += 4)
        for (int c = 0; c < cols; c += 4) {
            const float *f = from + r * ldf + c;
            float *t = to + c * ldt + r;
            tile_quad x0 = *(const tile_quad *)f, x1 = *(const tile_quad *)(f + ldf);
            tile_quad x2 = *(const tile_quad *)(f + 2 * ldf),
                      x3 = *(const tile_quad *)(f + 3 * ldf);
            tile_quad y0 = __builtin_shufflevector(x0, x1, 0, 4, 1, 5);
            tile_quad y1 = __builtin_shufflevector(x0, x1, 2, 6, 3, 7);
            tile_quad y2 = __builtin_shufflevector(x2, x3, 0, 4, 1, 5);
            tile_quad y3 = __builtin_shufflevector(x2, x3, 2, 6, 3, 7);
            *(tile_quad *)t = __builtin_shufflevector(y0, y2, 0, 1, 4, 5);
            *(tile_quad *)(t + ldt) = __builtin_shufflevector(y0, y2, 2, 3, 6, 7);
            *(tile_quad *)(t + 2 * ldt) = __builtin_shufflevector(y1, y3, 0, 1, 4, 5);
            *(tile_quad *)(t + 3 * ldt) = __builtin_shufflevector(y1, y3, 2, 3, 6, 7);
        }
}

#endif
