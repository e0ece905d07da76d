/* gemm_tiles.h - a matrix product as the CPU's engines see it: gemm_tiles.c or gemm_amx.c,
 * gemm_few.c or gemm_thin_amx.c. */
#ifndef SAILS_GEMM_TILES_H
#define SAILS_GEMM_TILES_H

#include "kernels/cpu/twin.h"

/* C (M,N) = alpha A (M,K) B (K,N), plus the old C with `accumulate`. Of the two steps of each of A,
 * B and C (elements from row to row, from column to column) one is 1. C is f32 or store; where
 * gemm_tiles writes it by columns, it is f32 and accumulated. */
typedef struct Product {
    void *C;
    const elem *A, *B;
    size_t c_row, c_col, a_row, a_col, b_row, b_col;
    int M, N, K;
    float alpha;
    bool accumulate, c_is_f32;
} Product;

/* The same as C^T = B^T A^T. */
static inline Product product_transposed(const Product *p) {
    Product t = *p;
    t.A = p->B, t.a_row = p->b_col, t.a_col = p->b_row;
    t.B = p->A, t.b_row = p->a_col, t.b_col = p->a_row;
    t.c_row = p->c_col, t.c_col = p->c_row;
    t.M = p->N, t.N = p->M;
    return t;
}

/* The order in which an element of C is summed is a function of K alone: M, N, the layout, threads
 * and the element's place do not enter. */
void TWIN(gemm_tiles)(Exec *ex, const Product *p);
size_t TWIN(gemm_tiles_scratch)(int M, int K, bool a_by_rows); /* a_by_rows: a_col is 1 */

/* Of AMX alone: A lies by rows, a_col is 1; fast where N is small. */
void TWIN(gemm_thin)(void *scratch, const Product *p);
size_t TWIN(gemm_thin_scratch)(int N, int K);

/* n elements of C, in one piece from C[at] on, from their sums, which lie `step` apart; a constant
 * where this is inlined. */
static inline __attribute__((always_inline)) void product_write(const Product *p, size_t at, int n,
                                                                const float *sum,
                                                                const size_t step) {
    float *f = (float *)p->C + at;
    elem *e = (elem *)p->C + at;
    if (p->c_is_f32 && p->accumulate)
        for (int i = 0; i < n; i++) f[i] += p->alpha * sum[i * step];
    else if (p->c_is_f32)
        for (int i = 0; i < n; i++) f[i] = p->alpha * sum[i * step];
    else if (p->accumulate)
        for (int i = 0; i < n; i++) e[i] = elem_put(p->alpha * sum[i * step] + elem_get(e[i]));
    else
        for (int i = 0; i < n; i++) e[i] = elem_put(p->alpha * sum[i * step]);
}

/* Elements c0 .. c0 + cols of row r of C from their sums. */
void TWIN(product_write_row)(const Product *p, const float *sum, int r, int c0, int cols);

/* Rows of a task, at most `most` and a multiple of `multiple`: as many as fit, because packing the
 * right operand pays off over rows, but so few that there are `tasks` of them. Of nearly equal
 * numbers. */
int TWIN(product_task_rows)(int M, int tasks, int most, int multiple);

/* For few rows and GEMM_NT_FEW alone: a_col and b_row are 1. Here, too, K alone decides the order
 * of an element's sum, but it is another one. */
void TWIN(gemm_few)(Exec *ex, const Product *p);
size_t TWIN(gemm_few_scratch)(int M, int K);

#endif
