/* product.c - what the engines of matrix products share. Contract: gemm_tiles.h. */
#include "kernels/cpu/gemm_tiles.h"
#include "kernels/cpu/tile.h"

void TWIN(product_write_row)(const Product *p, const float *sum, int r, int c0, int cols) {
    size_t at = (size_t)r * p->c_row + (size_t)c0 * p->c_col;
    if (p->c_col == 1) {
        product_write(p, at, cols, sum, 1);
        return;
    }
    float *f = (float *)p->C + at;
    for (int c = 0; c < cols; c++) f[c * p->c_col] += p->alpha * sum[c];
}

int TWIN(product_task_rows)(int M, int tasks, int most, int multiple) {
    enum { LEAST = 48 };
    int blocks = (M + most - 1) / most;
    if (blocks < tasks) blocks = tasks;
    int rows = tile_pad((M + blocks - 1) / blocks, multiple);
    return rows < LEAST ? tile_pad(LEAST, multiple) : rows;
}
