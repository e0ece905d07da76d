/* weight_grads.h - the gradient of the loss by frozen weights, of some documents at once: what a
 * start asks before there is an adapter.
 *
 *   G (out,in) f32 = d/dW of the mean of -log p over the documents' labels
 *
 * of each projection that is to have an adapter, the model as it is without one. Packs follow from
 * the documents alone and are added in their order: the bits depend on neither ranks nor threads,
 * and every rank makes its own. Memory: 4 bytes for each element of those weights, 7 GB on 9B with
 * q, k, v and o, and a training pass's activations; both are given back before training. */
#ifndef SAILS_WEIGHT_GRADS_H
#define SAILS_WEIGHT_GRADS_H

#include "data/batch.h"
#include "model/gemma2.h"

/* Borrowed: the documents of a start's gradient, none longer than pack_tokens. */
typedef struct StartBatch {
    const Doc *const *doc; /* (n) */
    int n, pack_tokens;
} StartBatch;

typedef struct WeightGrads {
    float **of; /* (L,PROJ_COUNT) device; NULL where it is not wanted */
    Arena arena;
} WeightGrads;

size_t weight_grads_bytes(const Config *c, const bool target[PROJ_COUNT]);

/* Refused: signals that ask for the end, a loss or a gradient that is not finite. On success g is
 * to be freed. */
bool weight_grads_make(WeightGrads *g, const Model *m, const bool target[PROJ_COUNT],
                       const StartBatch *b, Err *err);
void weight_grads_free(WeightGrads *g);

#endif
