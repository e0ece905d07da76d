/* sae_tiles.h - x w of an SAE encoder by the register tiles of f32 products (gemm_kernel.h). A part
 * of sae.c; sae_amx.h has the same functions.
 *
 * Fast products are f32 ones of rounded operands, which are exact: nothing is gained here but a
 * GPU's numbers. */
#ifndef SAILS_SAE_TILES_H
#define SAILS_SAE_TILES_H

#define TILES_OF_F32
#include "kernels/cpu/gemm_pack.h"

/* What one thread needs. */
typedef struct Tiles {
    _Alignas(64) float w[DEPTH * PANEL]; /* weights of a panel, one run */
    float act[ROW_BLOCK * PANEL];
} Tiles;

/* Cells of a block of rows. */
static size_t rows_cells(int D) {
    return (size_t)ROW_BLOCK * (size_t)D;
}

static float to_bf16(float v) {
    return bf16_to_f32(bf16_from_f32(v));
}

/* Rows row[first] and on of x as the products take them; row NULL: rows first and on. */
static void load_rows(cell *to, const store *x, const int32_t *row, int first, int n,
                      const SaeEncoder *e) {
    int D = e->D, fast = e->products == SAE_FAST;
#pragma omp parallel for
    for (int i = 0; i < n; i++) {
        float *r = to + (size_t)i * D;
        size_t from = row ? (size_t)row[first + i] : (size_t)(first + i);
        const elem *src = elems_const(x) + from * D;
#pragma omp simd
        for (int d = 0; d < D; d++) r[d] = elem_get(src[d]);
        if (!fast) continue;
#pragma omp simd
        for (int d = 0; d < D; d++) r[d] = to_bf16(r[d]);
    }
}

/* One run of all rows. Meanwhile the memory is asked for the rows of w from `next` on, which are
 * packed after it: no processor foresees them, so far apart. NULL: unknown. */
static void run_rows(Tiles *t, const cell *x, int n, const SaeEncoder *e, int depth,
                     enum TileOut out, int vecs, const float *next) {
    size_t step = (size_t)e->S * sizeof *next;
    int asked = 0;
    for (int i = 0, rows; i < n; i += rows) {
        Left left = {x + (size_t)i * e->D, (size_t)e->D, 1};
        Soon soon = soon_none(t->w);
        if (next && asked < DEPTH) soon = (Soon){(const char *)next + asked * step, step};
        asked += tile_pad(depth, LINE) / LINE * SOON_ROWS;
        rows = tile_rows(t->act + i * PANEL, left, t->w, depth, out, soon, n - i, vecs);
    }
}

/* t->act (n,PANEL) = the rows of x by features f0 .. f0+nf-1 of w. */
static void panel_products(Tiles *t, const cell *x, int n, const SaeEncoder *e, int f0, int nf) {
    Source w = {e->w, (size_t)e->S, 1};
    int vecs = (nf + TILE_VEC - 1) / TILE_VEC;
    for (int d = 0, depth; d < e->D; d += depth) {
        depth = e->D - d < DEPTH ? e->D - d : DEPTH;
        pack_panel(t->w, w, f0, nf, d, depth);
        if (e->products == SAE_FAST) {
#pragma omp simd
            for (int i = 0; i < depth * PANEL; i++) t->w[i] = to_bf16(t->w[i]);
        }
        const float *next = f0 + PANEL < e->S ? e->w + f0 + PANEL : NULL;
        if (d + depth < e->D) next = e->w + (size_t)(d + depth) * e->S + f0;
        run_rows(t, x + d, n, e, depth, d ? TILE_ADD : TILE_SET, vecs, next);
    }
}

#endif
