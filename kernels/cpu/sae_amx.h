/* sae_amx.h - x w of an SAE encoder by AMX, where x is bf16. A part of sae.c; sae_tiles.h has the
 * same functions.
 *
 * w is f32: each of its numbers is the sum of three of bf16, its highest, middle and lowest eight
 * bits (but below 2^-110, where AMX takes some of them for zero). Products of those with x are
 * exact, and all are added to one f32 sum; an infinite x makes it NaN, by the bits that are zero.
 * So three products of matrices do what one of f32 does, in under half the time. Fast ones take w
 * rounded to bf16, and one is enough.
 *
 * Both operands are packed as the processor's tiles, each a KB in one piece (gemm_amx.c says why):
 * the rows for all threads, the weights of a panel by the thread that needs them, run by run. */
#ifndef SAILS_SAE_AMX_H
#define SAILS_SAE_AMX_H

#include "kernels/cpu/gemm_pack.h"

/* RUN: steps whose weights stay in the second cache. */
enum { PARTS = 3, RUN = 72 };

/* What one thread needs. */
typedef struct Tiles {
    _Alignas(64) unit w[PANEL / TILE_COLS][RUN * PARTS][2][AMX_TILE];
    float act[ROW_BLOCK * PANEL];
} Tiles;

/* Cells of a block of rows: strips of TILE_ROWS rows, two tiles for each step. */
static size_t rows_cells(int D) {
    return (size_t)ROW_BLOCK * (size_t)(amx_steps(D) * AMX_DEEP);
}

/* Rows row[first] and on of x as the products take them, completed with zeros; row NULL: rows first
 * and on. What is short of a strip stays as it is: no row's sums depend on another's numbers. */
static void load_rows(cell *to, const store *x, const int32_t *row, int first, int n,
                      const SaeEncoder *e) {
    size_t D = (size_t)e->D, strip = (size_t)(amx_steps(e->D) * TILE_ROWS * AMX_DEEP);
#pragma omp parallel for
    for (int i = 0; i < n; i++) {
        const elem *src = elems_const(x) + (size_t)(row ? row[first + i] : first + i) * D;
        cell *tile_row = to + i / TILE_ROWS * strip + i % TILE_ROWS * AMX_DEEP;
        for (size_t d = 0; d < D; d += AMX_DEEP, tile_row += TILE_ROWS * AMX_DEEP) {
            size_t count = D - d < AMX_DEEP ? D - d : AMX_DEEP;
            if (count < AMX_DEEP) memset(tile_row, 0, AMX_DEEP * sizeof *tile_row);
            memcpy(tile_row, src + d, count * sizeof *tile_row);
        }
    }
}

/* ------------------------------------------------------------------------------- weights -- */

/* A unit for each of 16 features: the higher halves of two dimensions' numbers. */
static inline __m512i pair_up(__m512i even, __m512i odd) {
    const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    return _mm512_or_si512(_mm512_srli_epi32(even, 16), _mm512_and_si512(odd, high));
}

/* v less what its higher half says of it: exact. */
static inline __m512 rest_of(__m512 v) {
    const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    __m512i part = _mm512_and_si512(_mm512_castps_si512(v), high);
    return _mm512_sub_ps(v, _mm512_castsi512_ps(part));
}

static inline __m512i rounded(__m512 v) {
    return _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(v)), 16);
}

static int parts_of(const SaeEncoder *e) {
    return e->products == SAE_FAST ? 1 : PARTS;
}

/* Two dimensions of the features in `mask`, into one row of a tile of each part; odd NULL: one. */
static inline void split(unit *to, const float *even, const float *odd, __mmask16 mask, bool fast) {
    __m512 a = _mm512_maskz_loadu_ps(mask, even);
    __m512 b = odd ? _mm512_maskz_loadu_ps(mask, odd) : _mm512_setzero_ps();
    if (fast) {
        _mm512_store_si512(to, pair_up(rounded(a), rounded(b)));
        return;
    }
    for (int p = 0; p < PARTS; p++, to += 2 * AMX_TILE, a = rest_of(a), b = rest_of(b))
        _mm512_store_si512(to, pair_up(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}

/* Dimensions d0 .. d0 + depth of features f0 .. f0 + nf. The rows of w are far apart, which no
 * processor foresees: those some way ahead are asked for. */
static void pack_weights(Tiles *t, const SaeEncoder *e, int f0, int nf, int d0, int depth) {
    enum { AHEAD = 24 };
    size_t S = (size_t)e->S;
    const float *w = e->w + (size_t)d0 * S + f0;
    for (int d = 0; d < tile_pad(depth, AMX_DEEP); d += 2, w += 2 * S) {
        for (int i = 0; i < 2 && d + AHEAD + i < depth; i++)
            for (int c = 0; c < nf; c += AMX_ROWS) __builtin_prefetch(w + (AHEAD + i) * S + c);
        for (int c = 0; c < nf; c += AMX_ROWS) {
            unit *tile = t->w[c / TILE_COLS][d / AMX_DEEP * parts_of(e)][c / AMX_ROWS % 2];
            int cols = d < depth ? nf - c : 0;
            __mmask16 mask = (__mmask16)(cols < AMX_ROWS ? (1 << cols) - 1 : -1);
            split(tile + d % AMX_DEEP / 2 * AMX_ROWS, w + c, d + 1 < depth ? w + S + c : NULL, mask,
                  e->products == SAE_FAST);
        }
    }
}

/* ------------------------------------------------------------------------------ products -- */

/* t->act (n,PANEL) = the rows of x by features f0 .. f0+nf-1 of w. Rows to the end of the last
 * strip and columns to that of the last pair of tiles are written, too. */
static void panel_products(Tiles *t, const cell *x, int n, const SaeEncoder *e, int f0, int nf) {
    int steps = amx_steps(e->D);
    amx_shape(AMX_ROWS, AMX_ROWS);
    for (int k = 0; k < steps; k += RUN) {
        int d = k * AMX_DEEP, run = steps - k < RUN ? steps - k : RUN;
        enum TileOut out = k ? TILE_ADD : TILE_SET;
        const AmxNext none = {NULL, 0};
        pack_weights(t, e, f0, nf, d, e->D - d < RUN * AMX_DEEP ? e->D - d : RUN * AMX_DEEP);
        for (int i = 0; i < n; i += TILE_ROWS)
            for (int c = 0; c < nf; c += TILE_COLS) {
                const cell *strip = x + ((size_t)i * steps + (size_t)k * TILE_ROWS) * AMX_DEEP;
                const unit *left = (const unit *)strip, *right = t->w[c / TILE_COLS][0][0];
                float *to = t->act + i * PANEL + c;
                if (e->products == SAE_FAST)
                    amx_packed_run(to, PANEL, left, right, run, out, none, 1, 2, 2);
                else
                    amx_packed_run(to, PANEL, left, right, run, out, none, PARTS, 2, 2);
            }
    }
}

#endif
