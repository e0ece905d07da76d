/* gemm_thin_amx.c - products of a large matrix with a thin one by AMX. Contract: gemm_tiles.h.
 *
 * Bound by reading the large one, once: its rows are the left operand of tile_amx.h, read where
 * they lie. The thin one is packed as panels before, all of it. Decoding multiplies so, C^T = B
 * A^T, and so do the factors of adapters. */
#include <omp.h>

#include "kernels/cpu/gemm_pack.h"
#include "kernels/cpu/gemm_tiles.h"

#if defined UNITS_FOR_AMX
enum { TASK = 2 * TILE_ROWS }; /* rows that a thread takes at once */

static size_t depth_of(int K) {
    return (size_t)tile_pad(units(K), STEP_UNITS);
}
static size_t panel_units(int N, int K) {
    return (size_t)tile_pad(N, PANEL) * depth_of(K);
}
/* Panels (N / PANEL, depth, PANEL), and sums (threads, TASK, PANEL). */
size_t TWIN(gemm_thin_scratch)(int N, int K) {
    return panel_units(N, K) * sizeof(unit) +
           (size_t)omp_get_max_threads() * TASK * PANEL * sizeof(float);
}

/* Sums of rows r0 and on, columns c0 and on, in rows of PANEL; where C lies by columns these are
 * written. */
static void write_out(const Product *p, const float *sum, int r0, int rows, int c0, int cols) {
    if (p->c_col == 1)
        for (int r = 0; r < rows; r++)
            TWIN(product_write_row)(p, sum + r * PANEL, r0 + r, c0, cols);
    else
        for (int c = 0; c < cols; c++)
            product_write(p, (size_t)r0 + (size_t)(c0 + c) * p->c_col, rows, sum + c, PANEL);
}

/* sum (rows, PANEL) = or += rows by a panel, `depth` units deep. */
static void by_panel(float *sum, Left rows, const unit *panel, int depth, enum TileOut out,
                     enum LeftRows from, int n, int cols) {
    for (int r = 0, done; r < n; r += done) {
        Left at = {rows.p + (size_t)r * rows.row_step, rows.row_step, UNIT};
        done = amx_rows(sum + r * PANEL, at, panel, depth, out, from, n - r,
                        (cols + TILE_VEC - 1) / TILE_VEC);
    }
}

/* The last step of a row with an odd number of elements, completed with zeros: its last unit is
 * half another row's. */
typedef struct OddEnd {
    _Alignas(64) cell row[TASK][AMX_DEEP];
} OddEnd;

/* Rows r0 and on; sum: the thread's. */
static void run_task(const Product *p, const unit *panels, float *sum, int r0) {
    int rows = p->M - r0 < TASK ? p->M - r0 : TASK;
    int whole = p->K % UNIT ? p->K / AMX_DEEP * AMX_DEEP : p->K; /* elements read where they lie */
    Left left = {(const cell *)p->A + (size_t)r0 * p->a_row, p->a_row, UNIT};
    OddEnd end;
    if (whole < p->K) {
        memset(&end, 0, sizeof end);
        for (int r = 0; r < rows; r++)
            memcpy(end.row[r], left.p + r * p->a_row + whole,
                   (size_t)(p->K - whole) * sizeof(cell));
    }
    for (int c = 0; c < p->N; c += PANEL) {
        const unit *panel = panels + (size_t)c * depth_of(p->K);
        int cols = p->N - c < PANEL ? p->N - c : PANEL;
        enum LeftRows from = c == 0 ? LEFT_STREAMED : LEFT_CACHED;
        if (whole > 0) by_panel(sum, left, panel, units(whole), TILE_SET, from, rows, cols);
        if (whole < p->K)
            by_panel(sum, (Left){end.row[0], AMX_DEEP, UNIT}, panel + (size_t)whole / UNIT * PANEL,
                     AMX_UNITS, whole ? TILE_ADD : TILE_SET, LEFT_CACHED, rows, cols);
        write_out(p, sum, r0, rows, c, cols);
    }
}

void TWIN(gemm_thin)(void *scratch, const Product *p) {
    unit *panels = scratch;
    float *sum = (float *)(panels + panel_units(p->N, p->K));
    Source thin = {p->B, p->b_row, p->b_col};
    for (int c = 0; c < p->N; c += PANEL)
        pack_panel(panels + (size_t)c * depth_of(p->K), thin, c,
                   p->N - c < PANEL ? p->N - c : PANEL, 0, p->K);
#pragma omp parallel for schedule(static) if ((size_t)p->M * (size_t)p->K > OP_SMALL)
    for (int r = 0; r < p->M; r += TASK)
        run_task(p, panels, sum + (size_t)omp_get_thread_num() * TASK * PANEL, r);
}

size_t TWIN(gemm_few_scratch)(int M, int K) {
    return TWIN(gemm_thin_scratch)(M, K);
}
void TWIN(gemm_few)(Exec *ex, const Product *p) {
    Product t = product_transposed(p);
    TWIN(gemm_thin)(exec_scratch(ex, TWIN(gemm_thin_scratch)(t.N, t.K)), &t);
}
#endif
