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

/* Scratch of one call. */
typedef struct Buffers {
    unit *panels; /* (N / PANEL, depth, PANEL) */
    float *sum;   /* (threads, TASK, PANEL) */
    cell *rows;   /* (threads, TASK, depth * UNIT): of A, if K is odd */
} Buffers;

static size_t depth_of(int K) {
    return (size_t)tile_pad(units(K), STEP_UNITS);
}
static size_t panel_units(int N, int K) {
    return (size_t)tile_pad(N, PANEL) * depth_of(K);
}
static size_t task_sums(void) {
    return (size_t)omp_get_max_threads() * TASK * PANEL;
}

size_t TWIN(gemm_thin_scratch)(int N, int K) {
    return panel_units(N, K) * sizeof(unit) + task_sums() * sizeof(float) +
           (size_t)omp_get_max_threads() * TASK * depth_of(K) * UNIT * sizeof(cell);
}

static Buffers buffers(void *scratch, int N, int K) {
    unit *panels = scratch;
    float *sum = (float *)(panels + panel_units(N, K));
    return (Buffers){panels, sum, (cell *)(sum + task_sums())};
}

/* Rows of the product that are columns of C in memory. */
static void write_columns(const Product *p, const float *sum, int r0, int rows, int c0, int cols) {
    for (int c = 0; c < cols; c++) {
        size_t at = (size_t)r0 + (size_t)(c0 + c) * p->c_col;
        float *f = (float *)p->C + at;
        elem *e = (elem *)p->C + at;
        const float *from = sum + c;
        if (p->c_is_f32 && p->accumulate)
            for (int r = 0; r < rows; r++) f[r] += p->alpha * from[r * PANEL];
        else if (p->c_is_f32)
            for (int r = 0; r < rows; r++) f[r] = p->alpha * from[r * PANEL];
        else if (p->accumulate)
            for (int r = 0; r < rows; r++)
                e[r] = elem_put(p->alpha * from[r * PANEL] + elem_get(e[r]));
        else
            for (int r = 0; r < rows; r++) e[r] = elem_put(p->alpha * from[r * PANEL]);
    }
}

static void write_out(const Product *p, const float *sum, int r0, int rows, int c0, int cols) {
    if (p->c_col != 1)
        write_columns(p, sum, r0, rows, c0, cols);
    else
        for (int r = 0; r < rows; r++)
            TWIN(product_write_row)(p, sum + r * PANEL, r0 + r, c0, cols);
}

/* Rows r0 and on; `t`: the thread. */
static void run_task(const Product *p, const Buffers *b, int r0, int t) {
    int rows = p->M - r0 < TASK ? p->M - r0 : TASK;
    size_t step = depth_of(p->K) * UNIT;
    float *sum = b->sum + (size_t)t * TASK * PANEL;
    Left left = {(const cell *)p->A + (size_t)r0 * p->a_row, p->a_row, UNIT};
    if (p->K % UNIT) {
        cell *copy = b->rows + (size_t)t * TASK * step;
        pack_left_rows(copy, step, (Source){left.p, 1, p->a_row}, rows, p->K);
        left = (Left){copy, step, UNIT};
    }
    for (int c = 0; c < p->N; c += PANEL) {
        const unit *panel = b->panels + (size_t)c * depth_of(p->K);
        int cols = p->N - c < PANEL ? p->N - c : PANEL;
        for (int r = 0, n; r < rows; r += n) {
            Left at = {left.p + (size_t)r * left.row_step, left.row_step, UNIT};
            n = tile_rows(sum + r * PANEL, at, panel, units(p->K), TILE_SET, soon_none(panel),
                          rows - r, (cols + TILE_VEC - 1) / TILE_VEC);
        }
        write_out(p, sum, r0, rows, c, cols);
    }
}

void TWIN(gemm_thin)(void *scratch, const Product *p) {
    Buffers b = buffers(scratch, p->N, p->K);
    Source thin = {p->B, p->b_row, p->b_col};
    for (int c = 0; c < p->N; c += PANEL)
        pack_panel(b.panels + (size_t)c * depth_of(p->K), thin, c,
                   p->N - c < PANEL ? p->N - c : PANEL, 0, p->K);
#pragma omp parallel for schedule(static) if ((size_t)p->M * (size_t)p->K > OP_SMALL)
    for (int r = 0; r < p->M; r += TASK) run_task(p, &b, r, omp_get_thread_num());
}

size_t TWIN(gemm_few_scratch)(int M, int K) {
    return TWIN(gemm_thin_scratch)(M, K);
}
void TWIN(gemm_few)(Exec *ex, const Product *p) {
    Product t = product_transposed(p);
    TWIN(gemm_thin)(exec_scratch(ex, TWIN(gemm_thin_scratch)(t.N, t.K)), &t);
}
#endif
