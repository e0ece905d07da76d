/* gemm_tiles.c - matrix products by register tiles over packed panels. Contract: gemm_tiles.h.
 *
 * Work split: tasks of one panel of B and a block of rows. A task walks K in runs: it packs its
 * part of the panel, which then stays in the cache, and runs the tile down the rows; sums wait in a
 * block of f32 until the last run writes C. A is read where it lies if its units do, else it is
 * packed once for all tasks. */
#include "kernels/cpu/gemm_tiles.h"

#include <omp.h>

#include "kernels/cpu/gemm_pack.h"

#if !defined UNITS_FOR_AMX /* that is gemm_amx.c */
/* Products of fewer multiplications than SMALL run on one thread (twin.h says why). */
enum { ROWS = 1080, RUN = DEPTH * UNIT, SMALL = 1 << 20 };

/* What one thread needs. */
typedef struct Blocks {
    _Alignas(64) unit panel[DEPTH * PANEL];
    float sum[ROWS * PANEL];
} Blocks;

/* How a product is cut. `left`: A in panels of PANEL rows, each `left_depth` units deep; NULL when
 * it is read in place. */
typedef struct Job {
    const Product *p;
    const cell *left;
    size_t left_depth;
    int run; /* elements of K */
    int across, rows, tasks;
} Job;

/* Unit k0 of row r; cuts *rows, the rows wanted from there on, to those that the steps reach. */
static Left left_at(const Job *j, int r, int k0, int *rows) {
    const Product *p = j->p;
    if (!j->left) return (Left){(const cell *)p->A + (size_t)r * p->a_row + k0, p->a_row, UNIT};
    int within = r % PANEL;
    if (*rows > PANEL - within) *rows = PANEL - within;
    const cell *panel = j->left + (size_t)(r - within) * j->left_depth * UNIT;
    return (Left){panel + (size_t)k0 * PANEL + within * UNIT, UNIT, PANEL * UNIT};
}

static void run_task(Blocks *b, const Job *j, int t) {
    const Product *p = j->p;
    Source right = {p->B, p->b_row, p->b_col};
    int c0 = t % j->across * PANEL, cols = p->N - c0 < PANEL ? p->N - c0 : PANEL;
    int r0 = t / j->across * j->rows, end = p->M - r0 < j->rows ? p->M : r0 + j->rows;
    int vecs = (cols + TILE_VEC - 1) / TILE_VEC;
    for (int k0 = 0; k0 < p->K; k0 += j->run) {
        int depth = p->K - k0 < j->run ? p->K - k0 : j->run;
        pack_panel(b->panel, right, c0, cols, k0, depth);
        for (int r = r0, n; r < end; r += n) {
            float *sum = b->sum + (r - r0) * PANEL;
            n = end - r;
            Left left = left_at(j, r, k0, &n);
            n = tile_rows(sum, left, b->panel, units(depth), k0 ? TILE_ADD : TILE_SET,
                          soon_none(b->panel), n, vecs);
            if (k0 + depth == p->K)
                for (int i = 0; i < n; i++)
                    TWIN(product_write_row)(p, sum + i * PANEL, r + i, c0, cols);
        }
    }
}

static void pack_left(cell *to, size_t depth, const Product *p) {
    Source left = {p->A, p->a_col, p->a_row};
#pragma omp parallel for schedule(dynamic) if ((size_t)p->M * p->K > OP_LIGHT)
    for (int r = 0; r < p->M; r += PANEL)
        pack_panel((unit *)(to + (size_t)r * depth * UNIT), left, r,
                   p->M - r < PANEL ? p->M - r : PANEL, 0, p->K);
}

/* Tiles read the left operand where it lies, or it is packed as a whole. */
static bool left_in_place(int K, bool a_by_rows) {
    return CELLS_AS_THEY_LIE && a_by_rows && K % UNIT == 0;
}
static size_t left_depth(int K) {
    return (size_t)tile_pad(units(K), TILE_VEC);
}

size_t TWIN(gemm_tiles_scratch)(int M, int K, bool a_by_rows) {
    size_t left = (size_t)tile_pad(M, PANEL) * left_depth(K) * sizeof(unit);
    return (size_t)omp_get_max_threads() * sizeof(Blocks) +
           (left_in_place(K, a_by_rows) ? 0 : left);
}

void TWIN(gemm_tiles)(Exec *ex, const Product *p) {
    int threads = omp_get_max_threads(), runs = (p->K + RUN - 1) / RUN;
    Job j = {.p = p, .left_depth = left_depth(p->K)};
    j.run = tile_pad((p->K + runs - 1) / runs, TILE_VEC * UNIT);
    j.across = (p->N + PANEL - 1) / PANEL;
    j.rows =
        TWIN(product_task_rows)(p->M, (4 * threads + j.across - 1) / j.across, ROWS, TILE_REGS);
    j.tasks = j.across * ((p->M + j.rows - 1) / j.rows);
    Blocks *b = exec_scratch(ex, TWIN(gemm_tiles_scratch)(p->M, p->K, p->a_col == 1));
    if (!left_in_place(p->K, p->a_col == 1)) {
        pack_left((cell *)(b + threads), j.left_depth, p);
        j.left = (const cell *)(b + threads);
    }
#pragma omp parallel for schedule(dynamic) if ((size_t)p->M * p->N * p->K > SMALL)
    for (int t = 0; t < j.tasks; t++) run_task(b + omp_get_thread_num(), &j, t);
}
#endif
