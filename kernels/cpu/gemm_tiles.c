/* gemm_tiles.c - matrix products by register tiles over packed blocks. Contract: gemm_tiles.h.
 *
 * Work split: blocks of C of at most ROWS x COLS, each a task. A task walks K in chunks of DEPTH:
 * it packs its part of B and of A to f32 and adds their product to its block of C, which stays in
 * the cache. Packing costs one conversion for every COLS or ROWS multiplications. */
#include <omp.h>

#include "kernels/cpu/gemm_tiles.h"
#include "kernels/cpu/tile.h"

enum { ROWS = 256, COLS = 128, DEPTH = 256, MIN_ROWS = 32 };

/* What one thread needs. `staged`: rows of a B that must be transposed. */
typedef struct Blocks {
    _Alignas(64) float a[ROWS * DEPTH], b[DEPTH * COLS], c[ROWS * COLS], staged[4 * DEPTH];
} Blocks;

static void to_f32(float *to, const elem *from, int n) {
    for (int i = 0; i < n; i++) to[i] = elem_get(from[i]);
}

/* Rows r0.. of A, k0.. deep. Packed in the order in which it lies in memory. */
static TileLeft pack_a(Blocks *s, const Product *p, int r0, int rows, int k0, int depth) {
    const elem *from = p->A + (size_t)r0 * p->a_row + (size_t)k0 * p->a_col;
    if (p->a_col == 1) {
        for (int r = 0; r < rows; r++) to_f32(s->a + r * DEPTH, from + (size_t)r * p->a_row, depth);
        return (TileLeft){s->a, DEPTH, 1};
    }
    for (int k = 0; k < depth; k++) to_f32(s->a + k * ROWS, from + (size_t)k * p->a_col, rows);
    return (TileLeft){s->a, 1, ROWS};
}

/* Columns c0.. of B as b[k][column]. */
static void pack_b(Blocks *s, const Product *p, int c0, int cols, int k0, int depth) {
    const elem *from = p->B + (size_t)k0 * p->b_row + (size_t)c0 * p->b_col;
    if (p->b_col == 1) {
        for (int k = 0; k < depth; k++) to_f32(s->b + k * COLS, from + (size_t)k * p->b_row, cols);
        return;
    }
    for (int c = 0; c < cols; c += 4) { /* stale values of absent rows land in padding */
        for (int r = 0; r < 4 && c + r < cols; r++)
            to_f32(s->staged + r * DEPTH, from + (size_t)(c + r) * p->b_col, depth);
        tile_transpose(s->b + c, COLS, s->staged, DEPTH, 4, tile_pad(depth, 4));
    }
}

static void write_c(const Blocks *s, const Product *p, int r0, int rows, int c0, int cols) {
    for (int r = 0; r < rows; r++) {
        const float *from = s->c + r * COLS;
        size_t at = (size_t)(r0 + r) * p->ldc + c0;
        float *f = (float *)p->C + at;
        elem *e = (elem *)p->C + at;
        if (p->c_is_f32 && p->accumulate)
            for (int c = 0; c < cols; c++) f[c] = p->alpha * from[c] + f[c];
        else if (p->c_is_f32)
            for (int c = 0; c < cols; c++) f[c] = p->alpha * from[c];
        else if (p->accumulate)
            for (int c = 0; c < cols; c++) e[c] = elem_put(p->alpha * from[c] + elem_get(e[c]));
        else
            for (int c = 0; c < cols; c++) e[c] = elem_put(p->alpha * from[c]);
    }
}

static void block(Blocks *s, const Product *p, int r0, int rows, int c0, int cols) {
    for (int k0 = 0; k0 < p->K; k0 += DEPTH) {
        int depth = p->K - k0 < DEPTH ? p->K - k0 : DEPTH;
        pack_b(s, p, c0, cols, k0, depth);
        TileLeft a = pack_a(s, p, r0, rows, k0, depth);
        tile_mul(s->c, COLS, a, s->b, COLS, rows, cols, depth, k0 ? TILE_ADD : TILE_SET);
    }
    write_c(s, p, r0, rows, c0, cols);
}

void TWIN(gemm_tiles)(Exec *ex, const Product *p) {
    int threads = omp_get_max_threads(), across = (p->N + COLS - 1) / COLS, rows = ROWS;
    while (rows > MIN_ROWS && across * ((p->M + rows - 1) / rows) < 2 * threads) rows /= 2;
    int tasks = across * ((p->M + rows - 1) / rows);
    Blocks *blocks = exec_scratch(ex, (size_t)threads * sizeof *blocks);
#pragma omp parallel for schedule(dynamic)
    for (int t = 0; t < tasks; t++) {
        int c0 = t % across * COLS, r0 = t / across * rows;
        int n = p->N - c0 < COLS ? p->N - c0 : COLS, m = p->M - r0 < rows ? p->M - r0 : rows;
        block(blocks + omp_get_thread_num(), p, r0, m, c0, n);
    }
}
