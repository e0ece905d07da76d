/* gemm_amx.c - matrix products by AMX. Contract: gemm_tiles.h; order of sums: tile_amx.h.
 *
 * Both operands are packed as the processor's tiles, each a KB in one piece and in the order in
 * which they are needed: so they stream from the second cache as fast as from the first. Read where
 * they lie, a tile is 16 lines far apart, which takes 1.4 times as long from the second cache and 6
 * times from the third. A strip is 32 rows of the left operand, a pair 32 columns of the right one,
 * and the sums of a strip and a pair a block.
 *
 * Work split: tasks of up to GROUP pairs and ROWS rows. The left operand is packed as a whole
 * before. A task walks K in runs: it packs its part of the right operand, and all strips meet all
 * pairs while that stays in the second cache; the next strip comes meanwhile. Sums wait in blocks
 * until the last run writes C. */
#include <omp.h>

#include "kernels/cpu/gemm_pack.h"
#include "kernels/cpu/gemm_tiles.h"

#if defined UNITS_FOR_AMX
enum {
    GROUP = 6,
    ROWS = 2048,
    FEWEST = 512, /* rows of a task, before it has fewer pairs */
    RUN = 72 * AMX_DEEP,
    THIN = 64, /* columns for which packing the left operand does not pay */
    SMALL = 1 << 20,
    AHEAD = AMX_AHEAD * AMX_DEEP,                 /* elements of K */
    STEP_LINES = 2 * AMX_TILE * sizeof(unit) / 64 /* lines of a strip's step */
};

/* What one thread needs. */
typedef struct Blocks {
    _Alignas(64) unit right[GROUP][RUN / AMX_DEEP * 2 * AMX_TILE];
    float sum[GROUP][ROWS * TILE_COLS];
} Blocks;

/* How a product is cut. `left`: strips, each `steps` pairs of tiles long. */
typedef struct Job {
    const Product *p;
    const unit *left;
    size_t steps;
    int run, group, across, rows, tasks;
} Job;

/* ---------------------------------------------------------------------------------- tiles -- */

/* The piece of an operand that becomes a tile: up to AMX_ROWS rows (or columns) by AMX_DEEP
 * elements; an incomplete one from `room`, where zeros complete it. */
static Source whole_piece(cell room[AMX_ROWS * AMX_DEEP], Source s, int n, int depth) {
    if (n >= AMX_ROWS && depth >= AMX_DEEP) return s;
    if (n > AMX_ROWS) n = AMX_ROWS;
    if (depth > AMX_DEEP) depth = AMX_DEEP;
    bool along = s.k_step != 1;
    int outer = along ? depth : n, inner = along ? n : depth, step = along ? AMX_ROWS : AMX_DEEP;
    memset(room, 0, AMX_ROWS * AMX_DEEP * sizeof *room);
    for (int i = 0; i < outer; i++)
        memcpy(room + i * step, s.p + (size_t)i * (along ? s.k_step : s.col_step),
               (size_t)inner * sizeof *room);
    return along ? (Source){room, AMX_ROWS, 1} : (Source){room, 1, AMX_DEEP};
}

/* Rows of the strip, or columns of the pair, that begins at `at`. */
static int two_of(int at, int end) {
    return end - at < TILE_ROWS ? end - at : TILE_ROWS;
}

/* Of a right operand: unit by unit, 16 columns of each. */
static void right_tile(unit *to, Source s, int n, int depth) {
    cell room[AMX_ROWS * AMX_DEEP];
    s = whole_piece(room, s, n, depth);
    if (s.k_step == 1)
        transpose_square(to, AMX_ROWS, s.p, s.col_step);
    else
        for (int k = 0; k < AMX_DEEP; k += UNIT)
            pack_row(to + k / UNIT * AMX_ROWS, s.p + k * s.k_step, s.p + (k + 1) * s.k_step);
}

/* Of a left operand: row by row, 16 units of each. */
static void left_tile(unit *to, Source s, int n, int depth) {
    cell room[AMX_ROWS * AMX_DEEP];
    _Alignas(64) unit columns[AMX_TILE];
    if (s.k_step == 1) {
        s = whole_piece(room, s, n, depth);
        for (int r = 0; r < AMX_ROWS; r++)
            memcpy(to + r * AMX_ROWS, s.p + r * s.col_step, AMX_DEEP * sizeof(cell));
        return;
    }
    right_tile(columns, s, n, depth);
    transpose_square(to, AMX_ROWS, (const cell *)columns, AMX_DEEP);
}

/* What packing from s.p on reads next: where elements of K follow each other, AHEAD elements on, or
 * among the next rows or columns if no more than that are left; else the next step's rows. */
static const cell *ahead_of(Source s, int left) {
    if (s.k_step != 1) return s.p + AMX_DEEP * s.k_step;
    return left > AHEAD ? s.p + AHEAD : s.p + ((ptrdiff_t)(TILE_COLS * s.col_step) + AHEAD - left);
}

/* Two tiles for each step of `depth` elements, of n rows or columns. Rows in memory are far apart
 * and too short to be foreseen: those of a step to come are asked for. */
static void pack_two(unit *to, Source s, int n, int depth,
                     void tile(unit *to, Source s, int n, int depth)) {
    for (int k = 0; k < depth; k += AMX_DEEP, s.p += AMX_DEEP * s.k_step, to += 2 * AMX_TILE) {
        amx_ask(ahead_of(s, depth - k), s.k_step == 1 ? s.col_step : s.k_step, TILE_COLS);
        tile(to, s, n, depth - k);
        if (n > AMX_ROWS)
            tile(to + AMX_TILE, (Source){s.p + AMX_ROWS * s.col_step, s.k_step, s.col_step},
                 n - AMX_ROWS, depth - k);
    }
}

/* --------------------------------------------------------------------------------- blocks -- */

/* A strip and a pair over one run. */
static void block(float *c, const unit *left, const unit *right, int steps, enum TileOut out,
                  AmxNext next, int rows, int cols) {
    if (rows > AMX_ROWS && cols > AMX_ROWS)
        amx_packed_run(c, TILE_COLS, left, right, steps, out, next, 1, 2, 2);
    else if (rows > AMX_ROWS)
        amx_packed_run(c, TILE_COLS, left, right, steps, out, next, 1, 2, 1);
    else if (cols > AMX_ROWS)
        amx_packed_run(c, TILE_COLS, left, right, steps, out, next, 1, 1, 2);
    else
        amx_packed_run(c, TILE_COLS, left, right, steps, out, next, 1, 1, 1);
}

/* Columns c0 to `end` of elements k0 .. k0 + depth of the right operand. Where the columns of one k
 * are contiguous, all pairs step by step: its rows, far apart, are gone through once. */
static void pack_group(Blocks *b, const Product *p, int k0, int depth, int c0, int end) {
    int part = p->b_row == 1 ? depth : AMX_DEEP;
    for (int k = 0; k < depth; k += part)
        for (int c = c0, g = 0; c < end; c += TILE_COLS, g++) {
            const operand *from = p->B + (k0 + k) * p->b_row + c * p->b_col;
            pack_two(b->right[g] + k / AMX_DEEP * 2 * AMX_TILE, (Source){from, p->b_row, p->b_col},
                     two_of(c, end), depth - k < part ? depth - k : part, right_tile);
        }
}

/* Strip r, whose sums begin at row `at` of the blocks, columns c0 to `end`: row by row. */
static void write_strip(const Blocks *b, const Product *p, int r, int at, int c0, int end) {
    for (int i = r; i < r + TILE_ROWS && i < p->M; i++, at++)
        for (int c = c0, g = 0; c < end; c += TILE_COLS, g++) {
            const float *sum = b->sum[g] + at * TILE_COLS;
            if (p->c_col == 1 && end - c >= TILE_COLS)
                product_write(p, (size_t)i * p->c_row + c, TILE_COLS, sum, 1);
            else
                TWIN(product_write_row)(p, sum, i, c, two_of(c, end));
        }
}

/* Rows r0 to `end` by the group that begins at column c0. */
static void run_task(Blocks *b, const Job *j, int t) {
    const Product *p = j->p;
    int c0 = t % j->across * j->group * TILE_COLS, r0 = t / j->across * j->rows;
    int end = p->M - r0 < j->rows ? p->M : r0 + j->rows;
    int last = p->N - c0 < j->group * TILE_COLS ? p->N : c0 + j->group * TILE_COLS;
    for (int k0 = 0; k0 < p->K; k0 += j->run) {
        int depth = p->K - k0 < j->run ? p->K - k0 : j->run, steps = amx_steps(depth);
        pack_group(b, p, k0, depth, c0, last);
        for (int r = r0; r < end; r += TILE_ROWS) {
            int at = j->run < p->K ? r - r0 : 0; /* of one run nothing waits */
            const unit *left =
                j->left + ((size_t)(r / TILE_ROWS) * j->steps + k0 / AMX_DEEP) * 2 * AMX_TILE;
            AmxNext next = {(const char *)(left + j->steps * 2 * AMX_TILE),
                            (STEP_LINES + j->group - 1) / j->group};
            for (int c = c0, g = 0; c < last; c += TILE_COLS, g++) {
                block(b->sum[g] + at * TILE_COLS, left, b->right[g], steps,
                      k0 ? TILE_ADD : TILE_SET, next, two_of(r, end), two_of(c, last));
                next.p += (size_t)steps * next.lines * 64;
            }
            if (k0 + depth == p->K) write_strip(b, p, r, at, c0, last);
        }
    }
}

static size_t left_bytes(int M, int K) {
    return (size_t)(M + TILE_ROWS - 1) / TILE_ROWS * (size_t)amx_steps(K) * 2 * AMX_TILE *
           sizeof(unit);
}

static void pack_left(unit *to, const Product *p) {
    size_t strip = (size_t)amx_steps(p->K) * 2 * AMX_TILE;
#pragma omp parallel for schedule(dynamic) if ((size_t)p->M * p->K > OP_LIGHT)
    for (int r = 0; r < p->M; r += TILE_ROWS)
        pack_two(to + r / TILE_ROWS * strip, (Source){p->A + r * p->a_row, p->a_col, p->a_row},
                 two_of(r, p->M), p->K, left_tile);
}

size_t TWIN(gemm_tiles_scratch)(int M, int K, bool a_by_rows) {
    (void)a_by_rows;
    return (size_t)omp_get_max_threads() * sizeof(Blocks) + left_bytes(M, K);
}

void TWIN(gemm_tiles)(Exec *ex, const Product *p) {
    int threads = omp_get_max_threads(), runs = (p->K + RUN - 1) / RUN, wanted = 4 * threads;
    int pairs = (p->N + TILE_COLS - 1) / TILE_COLS;
    size_t bytes = TWIN(gemm_tiles_scratch)(p->M, p->K, true);
    Blocks *b = exec_scratch(ex, bytes);
    if (p->N <= THIN && p->a_col == 1 && TWIN(gemm_thin_scratch)(p->N, p->K) <= bytes) {
        TWIN(gemm_thin)(b, p);
        return;
    }
    unit *left = (unit *)(b + threads);
    Job j = {.p = p,
             .left = left,
             .steps = (size_t)amx_steps(p->K),
             .group = (int)((int64_t)pairs * (p->M < FEWEST ? 1 : p->M / FEWEST) / wanted)};
    if (j.group > GROUP) j.group = GROUP;
    if (j.group < 1) j.group = 1;
    j.run = tile_pad((p->K + runs - 1) / runs, AMX_DEEP);
    j.across = (pairs + j.group - 1) / j.group;
    j.rows = TWIN(product_task_rows)(p->M, (wanted + j.across - 1) / j.across, ROWS, TILE_ROWS);
    j.tasks = j.across * ((p->M + j.rows - 1) / j.rows);
    pack_left(left, p);
#pragma omp parallel for schedule(dynamic) if ((size_t)p->M * p->N * p->K > SMALL)
    for (int t = 0; t < j.tasks; t++) {
        amx_shape(AMX_ROWS, AMX_ROWS);
        run_task(b + omp_get_thread_num(), &j, t);
    }
}
#endif
