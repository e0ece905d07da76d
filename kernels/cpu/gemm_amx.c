/* gemm_amx.c - matrix products by AMX. Contract: gemm_tiles.h; order of sums: tile_amx.h.
 *
 * Both operands are packed as the processor's tiles, each a KB in one piece and in the order in
 * which they are needed: so they stream from the second cache as fast as from the first. Read where
 * they lie, a tile is 16 lines far apart, which takes 1.4 times as long from the second cache and 6
 * times from the third. A strip is 32 rows of the left operand, a pair 32 columns of the right one,
 * and the sums of a strip and a pair a block.
 *
 * Work split: tasks of GROUP pairs and up to ROWS rows. The left operand is packed as a whole
 * before. A task walks K in runs: it packs its part of the right operand, and all strips meet all
 * pairs while that stays in the second cache. Sums wait in blocks until the last run writes C. */
#include <omp.h>

#include "kernels/cpu/gemm_pack.h"
#include "kernels/cpu/gemm_tiles.h"

#if defined UNITS_FOR_AMX
enum {
    SIDE = 16,        /* rows or columns of a tile */
    DEEP = 32,        /* elements of K in a tile */
    TILE = 16 * SIDE, /* units */
    TWO = 2 * SIDE,   /* rows of a strip, columns of a pair */
    GROUP = 8,
    ROWS = 1024,
    RUN = 72 * DEEP,
    THIN = 64, /* columns for which packing the left operand does not pay */
    SMALL = 1 << 20
};

/* What one thread needs. */
typedef struct Blocks {
    _Alignas(64) unit right[GROUP][RUN / DEEP * 2 * TILE];
    float sum[GROUP][ROWS * TWO];
} Blocks;

/* How a product is cut. `left`: strips, each `steps` pairs of tiles long. */
typedef struct Job {
    const Product *p;
    const unit *left;
    size_t steps;
    int run, group, across, rows, tasks;
} Job;

/* ---------------------------------------------------------------------------------- tiles -- */

/* The piece of an operand that becomes a tile: up to SIDE rows (or columns) by DEEP elements; an
 * incomplete one from `room`, where zeros complete it. */
static Source whole_piece(cell room[SIDE * DEEP], Source s, int n, int depth) {
    if (n >= SIDE && depth >= DEEP) return s;
    if (n > SIDE) n = SIDE;
    if (depth > DEEP) depth = DEEP;
    bool along = s.k_step != 1;
    int outer = along ? depth : n, inner = along ? n : depth, step = along ? SIDE : DEEP;
    memset(room, 0, SIDE * DEEP * sizeof *room);
    for (int i = 0; i < outer; i++)
        memcpy(room + i * step, s.p + (size_t)i * (along ? s.k_step : s.col_step),
               (size_t)inner * sizeof *room);
    return along ? (Source){room, SIDE, 1} : (Source){room, 1, DEEP};
}

static int two_of(int at, int end) {
    return end - at < TWO ? end - at : TWO;
}

/* Of a right operand: unit by unit, 16 columns of each. */
static void right_tile(unit *to, Source s, int n, int depth) {
    cell room[SIDE * DEEP];
    s = whole_piece(room, s, n, depth);
    if (s.k_step == 1)
        transpose_square(to, SIDE, s.p, s.col_step);
    else
        for (int k = 0; k < DEEP; k += UNIT)
            pack_row(to + k / UNIT * SIDE, s.p + k * s.k_step, s.p + (k + 1) * s.k_step);
}

/* Of a left operand: row by row, 16 units of each. */
static void left_tile(unit *to, Source s, int n, int depth) {
    cell room[SIDE * DEEP];
    unit columns[TILE];
    if (s.k_step == 1) {
        s = whole_piece(room, s, n, depth);
        for (int r = 0; r < SIDE; r++) memcpy(to + r * SIDE, s.p + r * s.col_step, 64);
        return;
    }
    right_tile(columns, s, n, depth);
    transpose_square(to, SIDE, (const cell *)columns, DEEP);
}

/* Two tiles for each step of `depth` elements, of n rows or columns. */
static void pack_two(unit *to, Source s, int n, int depth,
                     void tile(unit *to, Source s, int n, int depth)) {
    for (int k = 0; k < depth; k += DEEP, s.p += DEEP * s.k_step, to += 2 * TILE) {
        tile(to, s, n, depth - k);
        if (n > SIDE)
            tile(to + TILE, (Source){s.p + SIDE * s.col_step, s.k_step, s.col_step}, n - SIDE,
                 depth - k);
    }
}

/* --------------------------------------------------------------------------------- blocks -- */

/* Over one run; `rows` and `cols` of tiles are constants where this is inlined. */
static inline __attribute__((always_inline)) void block_run(float *c, const unit *left,
                                                            const unit *right, int steps,
                                                            enum TileOut out, const int rows,
                                                            const int cols) {
    enum { STRIDE = TWO * sizeof(float) };
    float *below = c + SIDE * TWO;
    sums_begin(c, below, STRIDE, out, rows, cols);
    for (int k = 0; k < steps; k++, left += 2 * TILE, right += 2 * TILE)
        amx_step(left, left + TILE, 64, right, right + TILE, 64, rows, cols);
    sums_end(c, below, STRIDE, rows, cols);
}

static void block(float *c, const unit *left, const unit *right, int steps, enum TileOut out,
                  int rows, int cols) {
    if (rows > SIDE && cols > SIDE)
        block_run(c, left, right, steps, out, 2, 2);
    else if (rows > SIDE)
        block_run(c, left, right, steps, out, 2, 1);
    else if (cols > SIDE)
        block_run(c, left, right, steps, out, 1, 2);
    else
        block_run(c, left, right, steps, out, 1, 1);
}

/* Columns c0 to `end` of elements k0 .. k0 + depth of the right operand. Where the columns of one k
 * are contiguous, all pairs step by step: its rows, far apart, are gone through once. */
static void pack_group(Blocks *b, const Product *p, int k0, int depth, int c0, int end) {
    int part = p->b_row == 1 ? depth : DEEP;
    for (int k = 0; k < depth; k += part)
        for (int c = c0, g = 0; c < end; c += TWO, g++) {
            const operand *from = p->B + (k0 + k) * p->b_row + c * p->b_col;
            pack_two(b->right[g] + k / DEEP * 2 * TILE, (Source){from, p->b_row, p->b_col},
                     two_of(c, end), depth - k < part ? depth - k : part, right_tile);
        }
}

/* Strip r of a task that begins at row r0, columns c0 to `end`: row by row. */
static void write_strip(const Blocks *b, const Product *p, int r, int r0, int c0, int end) {
    for (int i = r; i < r + TWO && i < p->M; i++)
        for (int c = c0, g = 0; c < end; c += TWO, g++)
            TWIN(product_write_row)(p, b->sum[g] + (i - r0) * TWO, i, c, two_of(c, end));
}

/* Rows r0 to `end` by the group that begins at column c0. */
static void run_task(Blocks *b, const Job *j, int t) {
    const Product *p = j->p;
    int c0 = t % j->across * j->group * TWO, r0 = t / j->across * j->rows;
    int end = p->M - r0 < j->rows ? p->M : r0 + j->rows;
    int last = p->N - c0 < j->group * TWO ? p->N : c0 + j->group * TWO;
    for (int k0 = 0; k0 < p->K; k0 += j->run) {
        int depth = p->K - k0 < j->run ? p->K - k0 : j->run, steps = (depth + DEEP - 1) / DEEP;
        pack_group(b, p, k0, depth, c0, last);
        for (int r = r0; r < end; r += TWO) {
            const unit *left = j->left + ((size_t)(r / TWO) * j->steps + k0 / DEEP) * 2 * TILE;
            for (int c = c0, g = 0; c < last; c += TWO, g++)
                block(b->sum[g] + (r - r0) * TWO, left, b->right[g], steps,
                      k0 ? TILE_ADD : TILE_SET, two_of(r, end), two_of(c, last));
            if (k0 + depth == p->K) write_strip(b, p, r, r0, c0, last);
        }
    }
}

static size_t steps_of(int K) {
    return (size_t)(K + DEEP - 1) / DEEP;
}
static size_t left_bytes(int M, int K) {
    return (size_t)(M + TWO - 1) / TWO * steps_of(K) * 2 * TILE * sizeof(unit);
}

static void pack_left(unit *to, const Product *p) {
    size_t strip = steps_of(p->K) * 2 * TILE;
#pragma omp parallel for schedule(dynamic) if ((size_t)p->M * p->K > OP_LIGHT)
    for (int r = 0; r < p->M; r += TWO)
        pack_two(to + r / TWO * strip, (Source){p->A + r * p->a_row, p->a_col, p->a_row},
                 two_of(r, p->M), p->K, left_tile);
}

size_t TWIN(gemm_tiles_scratch)(int M, int K, bool a_by_rows) {
    (void)a_by_rows;
    return (size_t)omp_get_max_threads() * sizeof(Blocks) + left_bytes(M, K);
}

void TWIN(gemm_tiles)(Exec *ex, const Product *p) {
    int threads = omp_get_max_threads(), runs = (p->K + RUN - 1) / RUN, wanted = 4 * threads;
    int pairs = (p->N + TWO - 1) / TWO;
    size_t bytes = TWIN(gemm_tiles_scratch)(p->M, p->K, true);
    Blocks *b = exec_scratch(ex, bytes);
    if (p->N <= THIN && p->a_col == 1 && TWIN(gemm_thin_scratch)(p->N, p->K) <= bytes) {
        TWIN(gemm_thin)(b, p);
        return;
    }
    unit *left = (unit *)(b + threads);
    Job j = {.p = p, .left = left, .steps = steps_of(p->K), .group = pairs / wanted};
    if (j.group > GROUP) j.group = GROUP;
    if (j.group < 1) j.group = 1;
    j.run = tile_pad((p->K + runs - 1) / runs, DEEP);
    j.across = (pairs + j.group - 1) / j.group;
    j.rows = TWIN(product_task_rows)(p->M, (wanted + j.across - 1) / j.across, ROWS, TWO);
    j.tasks = j.across * ((p->M + j.rows - 1) / j.rows);
    pack_left(left, p);
#pragma omp parallel for schedule(dynamic) if ((size_t)p->M * p->N * p->K > SMALL)
    for (int t = 0; t < j.tasks; t++) {
        amx_shape(SIDE, SIDE);
        run_task(b + omp_get_thread_num(), &j, t);
    }
}
#endif
