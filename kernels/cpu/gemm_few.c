/* gemm_few.c - matrix products of few rows with a large weight, C (M,N) = A (M,K) B (N,K)^T.
 *
 * Bound by reading B, once for every ROWS rows of A: as it lies in memory, without packing. Both
 * operands are read along k, so a register holds a run of partial sums of one element of C, and
 * ROWS x COLS elements are in flight. What follows in memory is fetched ahead by hand: each block
 * of B starts COLS new streams, too short for the processor to foresee. */
#include <omp.h>

#include "kernels/cpu/gemm_tiles.h"
#include "kernels/cpu/tile.h"

#if !defined TILE_AMX                          /* that is gemm_thin_amx.c */
enum { ROWS = 8, COLS = 3, TASK = 32 * COLS }; /* TASK: columns of C that a thread takes at once */

/* A step multiplies STEP elements of a row of A with as many of a row of B, lane by lane. */
typedef float lanes __attribute__((vector_size(TILE_VEC * sizeof(float))));
#if defined TILE_PAIRS
#include <immintrin.h>
enum { STEP = 2 * TILE_VEC };
typedef __m512bh operand;
static inline operand load(const elem *p) {
    return (operand)_mm512_loadu_si512(p);
}
static inline lanes dot(lanes sum, operand a, operand b) {
    return _mm512_dpbf16_ps(sum, a, b);
}
#else
enum { STEP = TILE_VEC };
typedef lanes operand;
static inline operand load(const elem *p) {
    float f[TILE_VEC];
    operand v;
    for (int i = 0; i < TILE_VEC; i++) f[i] = elem_get(p[i]);
    memcpy(&v, f, sizeof v);
    return v;
}
static inline lanes dot(lanes sum, operand a, operand b) {
    return sum + a * b;
}
#endif

/* In a fixed tree, so that the bits of an element do not depend on the block it is in. */
static inline float total(lanes v) {
    typedef float quad __attribute__((vector_size(16)));
    quad q[TILE_VEC / 4];
    memcpy(q, &v, sizeof q);
    TILE_UNROLL
    for (int n = TILE_VEC / 8; n > 0; n /= 2) {
        TILE_UNROLL
        for (int i = 0; i < n; i++) q[i] += q[i + n];
    }
    return (q[0][0] + q[0][2]) + (q[0][1] + q[0][3]);
}

/* Rows of A, padded with zeros to whole steps. */
typedef struct Rows {
    const elem *p;
    size_t ld;
} Rows;

static inline __attribute__((always_inline)) void step(lanes acc[ROWS][COLS], const elem *a,
                                                       size_t lda, const elem *b, size_t ldb,
                                                       const int rows, const int cols) {
    operand right[COLS];
    TILE_UNROLL
    for (int c = 0; c < cols; c++) right[c] = load(b + c * ldb);
    TILE_UNROLL
    for (int r = 0; r < rows; r++) {
        operand left = load(a + r * lda);
        TILE_UNROLL
        for (int c = 0; c < cols; c++) acc[r][c] = dot(acc[r][c], left, right[c]);
    }
}

/* Where a thread collects a task's sums, row by row; C is written when they are complete, because
 * its rows may lie a multiple of 4 KB apart and would crowd each other out of the cache. */
typedef struct Out {
    float *sum; /* (M,TASK) */
    int first;  /* column of C */
} Out;

/* Sums of rows r0.. with columns c0..; `rows` and `cols` are constants where this is inlined. */
static inline __attribute__((always_inline)) void block(const Product *p, Rows a, Out o, int r0,
                                                        int c0, const int rows, const int cols) {
    lanes acc[ROWS][COLS] = {{{0}}};
    const elem *left = a.p + r0 * a.ld, *right = p->B + c0 * p->b_col;
    int k = 0, K = p->K;
    for (; k + STEP <= K; k += STEP) {
        TILE_UNROLL
        for (int c = 0; c < cols; c++) __builtin_prefetch(right + (cols + c) * p->b_col + k, 0, 2);
        step(acc, left + k, a.ld, right + k, p->b_col, rows, cols);
    }
    if (k < K) {
        elem end[COLS * STEP];
        memset(end, 0, sizeof end);
        for (int c = 0; c < cols; c++)
            memcpy(end + c * STEP, right + c * p->b_col + k, (size_t)(K - k) * sizeof *end);
        step(acc, left + k, a.ld, end, STEP, rows, cols);
    }
    TILE_UNROLL
    for (int r = 0; r < rows; r++) {
        TILE_UNROLL
        for (int c = 0; c < cols; c++) o.sum[(r0 + r) * TASK + c0 - o.first + c] = total(acc[r][c]);
    }
}

/* All rows of `cols` columns, in the largest blocks that fit. */
static inline __attribute__((always_inline)) void columns(const Product *p, Rows a, Out o, int c0,
                                                          const int cols) {
    int r = 0;
    for (; r + 8 <= p->M; r += 8) block(p, a, o, r, c0, 8, cols);
    for (; r + 4 <= p->M; r += 4) block(p, a, o, r, c0, 4, cols);
    for (; r + 2 <= p->M; r += 2) block(p, a, o, r, c0, 2, cols);
    for (; r < p->M; r++) block(p, a, o, r, c0, 1, cols);
}

/* Scratch of one call. */
typedef struct Buffers {
    Rows a;
    float *sum; /* (threads,M,TASK) */
} Buffers;

/* Rows are one step longer than needed: a power of two would crowd a few sets of the cache. */
static size_t row_room(int K) {
    return (size_t)tile_pad(K, STEP) + STEP;
}

size_t TWIN(gemm_few_scratch)(int M, int K) {
    size_t sums = (size_t)omp_get_max_threads() * TASK;
    return (size_t)M * (row_room(K) * sizeof(elem) + sums * sizeof(float));
}

static Buffers buffers(Exec *ex, const Product *p) {
    size_t ld = row_room(p->K), row = (size_t)p->K * sizeof(elem);
    size_t rows = (size_t)p->M * ld * sizeof(elem);
    char *scratch = exec_scratch(ex, TWIN(gemm_few_scratch)(p->M, p->K));
    elem *to = (elem *)scratch;
    for (int r = 0; r < p->M; r++) {
        memcpy(to + r * ld, p->A + r * p->a_row, row);
        memset(to + r * ld + p->K, 0, ld * sizeof *to - row);
    }
    return (Buffers){{to, ld}, (float *)(scratch + rows)};
}

void TWIN(gemm_few)(Exec *ex, const Product *p) {
    Buffers b = buffers(ex, p);
    int tasks = (p->N + TASK - 1) / TASK;
#pragma omp parallel for schedule(static) if ((size_t)p->N * (size_t)p->K > OP_SMALL)
    for (int t = 0; t < tasks; t++) {
        int c = t * TASK, end = p->N - c < TASK ? p->N : c + TASK;
        Out o = {b.sum + (size_t)omp_get_thread_num() * p->M * TASK, c};
        for (; c + COLS <= end; c += COLS) columns(p, b.a, o, c, COLS);
        for (; c < end; c++) columns(p, b.a, o, c, 1);
        for (int r = 0; r < p->M; r++)
            product_write(p, r * p->c_row + o.first, end - o.first, o.sum + r * TASK, 1);
    }
}
#endif
