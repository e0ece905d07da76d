/* stream_edit.h - what a model does without some directions of its stream, or with more of others:
 * the stream that leaves chosen layers is changed on its way, for every token,
 *
 *   x <- x - U (U^T x) + v
 *
 * With v = U U^T mean that is an ablation: what a token has along U becomes what tokens have there
 * on average, as in mean ablation. Without U it is steering.
 *
 * The arithmetic is that of an adapter, products in the storage type: with U of bf16 numbers some
 * 2^-8 of what is taken out stays. */
#ifndef SAILS_STREAM_EDIT_H
#define SAILS_STREAM_EDIT_H

#include "model/gemma2.h"

typedef struct StreamEdit StreamEdit;

typedef struct EditOf {
    int layer, M;    /* M columns; 0: none is taken out */
    const double *U; /* (D,M) row major, orthonormal columns */
    const double *v; /* (D); NULL: nothing is added */
} EditOf;

/* of (n), in rising order of layers, is read here alone; passes have at most max_rows rows. */
StreamEdit *stream_edit_open(const Model *m, const EditOf *of, int n, int max_rows);
void stream_edit_close(StreamEdit *e); /* NULL is allowed; acts that it was put on must be gone */

/* Device bytes that this takes, for bases of at most M columns in n layers. */
size_t stream_edit_bytes(const Config *c, enum Dtype dtype, int n, int M, int max_rows);

/* Passes over these activations are changed so from now on; e NULL: no more. */
void stream_edit_on(StreamEdit *e, Acts *a);

/* How much that was, so far: the root mean square, over tokens and layers, of ||change|| / ||x||. 0
 * before the first pass. Squares are counted in whole multiples of 2^-32, each up to 2^20: so that
 * their sum does not depend on the order, nor on who has had which rows. */
typedef struct EditChange {
    int64_t sum, rows;
} EditChange;
EditChange stream_edit_change(const StreamEdit *e);
double edit_change_ratio(const EditChange *c);

#endif
