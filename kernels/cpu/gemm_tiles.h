/* gemm_tiles.h - a matrix product as the CPU's two engines see it. */
#ifndef SAILS_GEMM_TILES_H
#define SAILS_GEMM_TILES_H

#include "kernels/cpu/twin.h"

/* C (M,N) = alpha A (M,K) B (K,N), plus the old C with `accumulate`. Of the two steps of each of A,
 * B and C (elements from row to row, from column to column) one is 1. C is f32 or store; f32 and
 * accumulated if it lies by columns. */
typedef struct Product {
    void *C;
    const elem *A, *B;
    size_t c_row, c_col, a_row, a_col, b_row, b_col;
    int M, N, K;
    float alpha;
    bool accumulate, c_is_f32;
} Product;

/* The order in which an element of C is summed is a function of K alone: M, N, the layout, threads
 * and the element's place do not enter. */
void TWIN(gemm_tiles)(Exec *ex, const Product *p);
size_t TWIN(gemm_tiles_scratch)(int M, int K, bool a_by_rows); /* a_by_rows: a_col is 1 */

/* For few rows and GEMM_NT_FEW alone: a_col and b_row are 1. Each element of C is a fixed tree of
 * chains, whatever M and the row. */
void TWIN(gemm_few)(Exec *ex, const Product *p);
size_t TWIN(gemm_few_scratch)(int M, int K);

#endif
