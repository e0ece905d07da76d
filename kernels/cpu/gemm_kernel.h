/* gemm_kernel.h - the register tile of a matrix product and the panels that feed it.
 *
 * The right operand lies in a panel: PANEL columns, unit by unit of depth, so that the tile reads
 * whole vectors of it. A unit is what one instruction multiplies in a lane: a pair of bf16 in the
 * bf16 twin of a processor that multiplies pairs (tile.h), else one f32. The left operand is read
 * where it is, one unit for a whole vector. A file whose operands are f32 in both twins defines
 * TILES_OF_F32 first.
 *
 * Each element of C adds up runs of units (DEPTH of them in a GEMM, RUN in attention): within a run
 * one chain in order of k, then the runs in order. Nothing else decides its bits. AMX has an order
 * of its own (tile_amx.h), as independent of all else. */
#ifndef SAILS_GEMM_KERNEL_H
#define SAILS_GEMM_KERNEL_H

#include "kernels/cpu/tile.h"
#include "kernels/cpu/twin.h"

/* An operand lies in memory as such elements; a unit consists of UNIT cells. */
#if defined TILES_OF_F32 || defined TWIN_f32
enum { UNIT = 1 };
typedef float operand, cell, unit;
static inline cell to_cell(operand v) {
    return v;
}
#elif defined TILE_PAIRS
#include <immintrin.h>
#define UNITS_ARE_PAIRS
enum { UNIT = 2 };
typedef bf16 operand, cell;
typedef int32_t unit;
static inline cell to_cell(operand v) {
    return v;
}
#else
enum { UNIT = 1 };
typedef bf16 operand;
typedef float cell, unit;
static inline cell to_cell(operand v) {
    return bf16_to_f32(v);
}
#endif
typedef unit unit_vec __attribute__((vector_size(TILE_VEC * sizeof(unit))));

/* Can the left operand be read in place where its units are contiguous? */
enum { CELLS_AS_THEY_LIE = sizeof(cell) == sizeof(operand) };

#if defined __AVX512F__
#define VECS_MOST 4
enum { TILE_REGS = 24 }; /* of 32 registers, that many hold sums */
#else
#define VECS_MOST 2
enum { TILE_REGS = 12 }; /* of 16 */
#endif
enum { LINE = 64 / sizeof(unit) };
enum { VECS = VECS_MOST, PANEL = VECS * TILE_VEC };

/* Rows of the left operand: unit k of row r begins at p[r * row_step + k * k_step]. For AMX k_step
 * is UNIT. */
typedef struct Left {
    const cell *p;
    size_t row_step, k_step;
} Left;

/* Rows of PANEL operands, `step` bytes apart, that are to be packed next: for every LINE of depth a
 * tile asks the memory for SOON_ROWS of them, which come while it computes. */
typedef struct Soon {
    const char *p;
    size_t step;
} Soon;
enum { SOON_ROWS = 2 };

/* None: what the cache holds anyway. */
static inline Soon soon_none(const void *in_cache) {
    return (Soon){in_cache, 0};
}

/* Units that n elements fill. */
static inline int units(int n) {
    return (n + UNIT - 1) / UNIT;
}

static inline unit load_unit(const cell *p) {
    unit u;
    memcpy(&u, p, sizeof u);
    return u;
}

#if defined UNITS_ARE_PAIRS && defined TILE_AMX
#define UNITS_FOR_AMX
enum { STEP_UNITS = 16 }; /* a panel's depth is completed with zeros to whole steps */
#include "kernels/cpu/tile_amx.h"
#else
enum { STEP_UNITS = 1, DEPTH = 512, TILE_ROWS = TILE_REGS };

static inline tile_vec mul_add(tile_vec sum, unit a, unit_vec b) {
#if defined UNITS_ARE_PAIRS
    return (tile_vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
#else
    return sum + a * b;
#endif
}

/* c (rows, vecs vectors; PANEL from row to row) = or += left * panel over one run. The rows of the
 * next tile are asked for meanwhile: each is too short a stream to be foreseen. */
static inline __attribute__((always_inline)) void tile_run(float *c, Left a, const unit *panel,
                                                           int depth, enum TileOut out, Soon soon,
                                                           const int rows, const int vecs) {
    tile_vec sum[TILE_REGS][VECS];
    TILE_UNROLL
    for (int r = 0; r < rows; r++) {
        TILE_UNROLL
        for (int v = 0; v < vecs; v++) sum[r][v] = (tile_vec){0};
    }
    for (int k0 = 0; k0 < depth; k0 += LINE) {
        TILE_UNROLL
        for (int r = 0; r < rows; r++)
            __builtin_prefetch(a.p + (rows + r) * a.row_step + k0 * a.k_step);
        for (int r = 0; r < SOON_ROWS; r++, soon.p += soon.step)
            for (size_t at = 0; at < PANEL * sizeof(operand); at += 64)
                __builtin_prefetch(soon.p + at, 0, 2);
        int end = depth - k0 < LINE ? depth : k0 + LINE;
        for (int k = k0; k < end; k++) {
            unit_vec right[VECS];
            TILE_UNROLL
            for (int v = 0; v < vecs; v++) right[v] = ((const unit_vec *)panel)[k * VECS + v];
            TILE_UNROLL
            for (int r = 0; r < rows; r++) {
                unit left = load_unit(a.p + r * a.row_step + k * a.k_step);
                TILE_UNROLL
                for (int v = 0; v < vecs; v++) sum[r][v] = mul_add(sum[r][v], left, right[v]);
            }
        }
    }
    TILE_UNROLL
    for (int r = 0; r < rows; r++) {
        TILE_UNROLL
        for (int v = 0; v < vecs; v++) {
            tile_vec *to = (tile_vec *)(c + r * PANEL + v * TILE_VEC);
            *to = out == TILE_ADD ? *to + sum[r][v] : sum[r][v];
        }
    }
}

#define TILE_CASE(n, v)                                \
    if (vecs == (v) && rows >= (n)) {                  \
        tile_run(c, a, panel, depth, out, soon, n, v); \
        return n;                                      \
    }

/* The same for the first of `rows` rows, as many as the registers hold; returns how many. */
static inline int tile_rows(float *c, Left a, const unit *panel, int depth, enum TileOut out,
                            Soon soon, int rows, int vecs) {
#if VECS_MOST == 4
    TILE_CASE(TILE_REGS / 4, 4);
    TILE_CASE(4, 4);
    TILE_CASE(2, 4);
    TILE_CASE(1, 4);
    TILE_CASE(TILE_REGS / 3, 3);
    TILE_CASE(4, 3);
    TILE_CASE(2, 3);
    TILE_CASE(1, 3);
#endif
    TILE_CASE(TILE_REGS / 2, 2);
    TILE_CASE(4, 2);
    TILE_CASE(2, 2);
    TILE_CASE(1, 2);
    TILE_CASE(TILE_REGS, 1);
    TILE_CASE(8, 1);
    TILE_CASE(4, 1);
    TILE_CASE(2, 1);
    TILE_CASE(1, 1);
    return 0;
}
#endif

#endif
