/* product.c - what the engines of matrix products share. Contract: gemm_tiles.h. */
#include "kernels/cpu/gemm_tiles.h"
#include "kernels/cpu/tile.h"

void TWIN(product_write_row)(const Product *p, const float *sum, int r, int c0, int cols) {
    size_t at = (size_t)r * p->c_row + (size_t)c0 * p->c_col;
    float *f = (float *)p->C + at;
    elem *e = (elem *)p->C + at;
    if (p->c_col != 1)
        for (int c = 0; c < cols; c++) f[c * p->c_col] += p->alpha * sum[c];
    else if (p->c_is_f32 && p->accumulate)
        for (int c = 0; c < cols; c++) f[c] += p->alpha * sum[c];
    else if (p->c_is_f32)
        for (int c = 0; c < cols; c++) f[c] = p->alpha * sum[c];
    else if (p->accumulate)
        for (int c = 0; c < cols; c++) e[c] = elem_put(p->alpha * sum[c] + elem_get(e[c]));
    else
        for (int c = 0; c < cols; c++) e[c] = elem_put(p->alpha * sum[c]);
}

int TWIN(product_task_rows)(int M, int tasks, int most, int multiple) {
    enum { LEAST = 48 };
    int blocks = (M + most - 1) / most;
    if (blocks < tasks) blocks = tasks;
    int rows = tile_pad((M + blocks - 1) / blocks, multiple);
    return rows < LEAST ? tile_pad(LEAST, multiple) : rows;
}
