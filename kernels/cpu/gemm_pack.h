/* gemm_pack.h - operands of a matrix product brought into panels (gemm_kernel.h). */
#ifndef SAILS_GEMM_PACK_H
#define SAILS_GEMM_PACK_H

#include "kernels/cpu/gemm_kernel.h"

/* An operand as panels see it: element (k, column) at p[k * k_step + column * col_step], one of
 * the steps is 1. */
typedef struct Source {
    const operand *p;
    size_t k_step, col_step;
} Source;

/* n elements as cells; the last unit is completed with zeros. */
static inline void to_cells(cell *to, const operand *from, int n) {
    for (int i = 0; i < n; i++) to[i] = to_cell(from[i]);
    for (int i = n; i % UNIT; i++) memset(to + i, 0, sizeof *to);
}

/* A square of units, TILE_VEC by TILE_VEC, is transposed in registers by rounds: round h exchanges
 * the elements whose row and column differ in bit h of their numbers. */
#if defined __AVX512F__
#define LANES(f, h)                                                                           \
    f(h, 0), f(h, 1), f(h, 2), f(h, 3), f(h, 4), f(h, 5), f(h, 6), f(h, 7), f(h, 8), f(h, 9), \
        f(h, 10), f(h, 11), f(h, 12), f(h, 13), f(h, 14), f(h, 15)
#elif defined __AVX__
#define LANES(f, h) f(h, 0), f(h, 1), f(h, 2), f(h, 3), f(h, 4), f(h, 5), f(h, 6), f(h, 7)
#else
#define LANES(f, h) f(h, 0), f(h, 1), f(h, 2), f(h, 3)
#endif
#define LOW(h, i) ((i) & (h) ? TILE_VEC + ((i) ^ (h)) : (i))
#define HIGH(h, i) ((i) & (h) ? TILE_VEC + (i) : (i) ^ (h))
#define ROUND(h)                                                    \
    TILE_UNROLL                                                     \
    for (int r = 0; r < TILE_VEC; r++) {                            \
        if (r & (h)) continue;                                      \
        unit_vec x = v[r], y = v[r + (h)];                          \
        v[r] = __builtin_shufflevector(x, y, LANES(LOW, h));        \
        v[r + (h)] = __builtin_shufflevector(x, y, LANES(HIGH, h)); \
    }

/* to[k * to_step + column] = unit k of column, at from[column * step + k * UNIT]. */
static inline void transpose_square(unit *to, size_t to_step, const cell *from, size_t step) {
    unit_vec v[TILE_VEC];
    TILE_UNROLL
    for (int r = 0; r < TILE_VEC; r++) memcpy(&v[r], from + r * step, sizeof v[r]);
    ROUND(1)
    ROUND(2)
#if defined __AVX__
    ROUND(4)
#endif
#if defined __AVX512F__
    ROUND(8)
#endif
    TILE_UNROLL
    for (int k = 0; k < TILE_VEC; k++) memcpy(to + k * to_step, &v[k], sizeof v[k]);
}

/* TILE_VEC columns whose cells are contiguous in memory. What is short of a square goes through a
 * copy: nothing beyond the operand is read. */
static inline void pack_across(unit *to, Source s, int cols, int depth) {
    enum { SQUARE = TILE_VEC * UNIT };
    cell copy[TILE_VEC * SQUARE];
    int k = 0;
    if (CELLS_AS_THEY_LIE && cols == TILE_VEC)
        for (; k + SQUARE <= depth; k += SQUARE)
            transpose_square(to + (size_t)k / UNIT * PANEL, PANEL, (const cell *)s.p + k,
                             s.col_step);
    for (; k < depth; k += SQUARE) {
        int n = depth - k < SQUARE ? depth - k : SQUARE;
        for (int c = 0; c < cols; c++)
            to_cells(copy + c * SQUARE, s.p + (size_t)c * s.col_step + k, n);
        transpose_square(to + (size_t)k / UNIT * PANEL, PANEL, copy, SQUARE);
    }
}

/* One unit deep: TILE_VEC columns from each of UNIT rows, next to each other. */
static inline void pack_row(unit *to, const cell *row, const cell *second) {
#if defined UNITS_ARE_PAIRS
    __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)row));
    __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)second));
    *(__m512i *)to = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
#else
    (void)second;
    memcpy(to, row, TILE_VEC * sizeof *to);
#endif
}

/* Columns whose elements of one k are contiguous in memory. The rows of a large matrix are far
 * apart, which no processor foresees: the line some rows ahead is asked for. */
static inline void pack_along(unit *to, Source s, int cols, int depth) {
    enum { AHEAD = 16 * UNIT };
    cell row[2][PANEL] = {0};
    bool whole = CELLS_AS_THEY_LIE && cols == PANEL;
    for (int k = 0; k < depth; k += UNIT) {
        const operand *from = s.p + (size_t)k * s.k_step;
        const cell *first = (const cell *)from, *second = first + s.k_step * (UNIT - 1);
        if (!whole || k + UNIT > depth) {
            for (int u = 0; u < UNIT; u++)
                if (k + u < depth)
                    to_cells(row[u], from + (size_t)u * s.k_step, cols);
                else
                    memset(row[u], 0, sizeof row[u]);
            first = row[0], second = row[1];
        } else if (k + AHEAD < depth) {
            for (int u = 0; u < UNIT; u++)
                for (int c = 0; c < PANEL; c += 64 / (int)sizeof(operand))
                    __builtin_prefetch(from + (AHEAD + u) * s.k_step + c);
        }
        for (int c = 0; c < PANEL; c += TILE_VEC)
            pack_row(to + (size_t)k / UNIT * PANEL + c, first + c, second + c);
    }
}

/* Units n and on of a panel, to the end of the step. */
static inline void complete_panel(unit *to, int n) {
    memset(to + (size_t)n * PANEL, 0, (size_t)(tile_pad(n, STEP_UNITS) - n) * PANEL * sizeof *to);
}

/* Columns c0 .. c0 + cols of elements k0 .. k0 + depth as one panel. Lanes beyond cols are filled
 * with what happens to be there; depth is completed with zeros, to STEP_UNITS. */
static inline void pack_panel(unit *to, Source s, int c0, int cols, int k0, int depth) {
    int n = units(depth);
    s.p += (size_t)c0 * s.col_step + (size_t)k0 * s.k_step;
    if (s.k_step != 1) {
        pack_along(to, s, cols, depth);
        complete_panel(to, n);
        return;
    }
    for (int c = 0; c < cols; c += TILE_VEC, s.p += TILE_VEC * s.col_step)
        pack_across(to + c, s, cols - c < TILE_VEC ? cols - c : TILE_VEC, depth);
    complete_panel(to, n);
}

#if defined UNITS_FOR_AMX
/* For AMX a left operand is rows of units, `step` cells apart, completed with zeros to whole steps:
 * here up to PANEL of them, from what lies by columns. */
static inline void pack_left_rows(cell *to, size_t step, Source s, int rows, int depth) {
    enum { DEEP = STEP_UNITS * UNIT };
    for (int k = 0; k < depth; k += DEEP) {
        _Alignas(64) unit strip[STEP_UNITS * PANEL];
        pack_panel(strip, s, 0, rows, k, depth - k < DEEP ? depth - k : DEEP);
        for (int r = 0; r < rows; r += TILE_VEC)
            transpose_square((unit *)(to + r * step + k), step / UNIT, (const cell *)(strip + r),
                             PANEL * UNIT);
    }
}
#endif

#endif
