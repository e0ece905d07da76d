/* moments.h - the moments stage: two corpora through the model to StreamMoments. */
#ifndef SAILS_STAGE_MOMENTS_H
#define SAILS_STAGE_MOMENTS_H

#include <jansson.h>
#include <stdio.h>

#include "data/records.h"
#include "host/stage/layers.h"
#include "host/stage/runtime.h"
#include "model/stream.h"
#include "model/stream_run.h"

typedef struct MomentsWork {
    double seconds;
    int64_t truncated, uncounted; /* documents; items left out: without a token that counts */
    StreamWork pass;
} MomentsWork;

/* Of pairs records[index[i]], i < n (index NULL: the first n), or, when records is NULL, of the
 * corpora s->score.aligned and .unaligned. A pair counts where both its replies have tokens that
 * do. r has device, tokenizer and model open. All ranks; rank 0 gets the moments, the others none,
 * and the work is that of all. Where signals ask for a stop (interrupt_as_request) it ends with
 * EXIT_STOPPED, and begins anew the next time. */
bool moments_run(StreamMoments *m, MomentsWork *work, Runtime *r, const Layers *layers,
                 const Settings *s, const Records *records, const size_t *index, size_t n,
                 Err *err);

/* A line for each layer: how far the means are apart, and what pairs share (stream_shared). */
void moments_print(FILE *f, const StreamMoments *m);

/* {"documents": [aligned, unaligned], "pairs", "layers": [{"layer", "distance", "shared"}, ..]};
 * distance: of the means, by the root mean square of the documents' distances from their means;
 * what there is not is null. */
json_t *moments_describe(const StreamMoments *m);

/* Host bytes of a block's vectors, at layers of a model of width D: every rank has them, and rank 0
 * beside the moments a copy from each. */
size_t moments_block_bytes(int D, int layers);

#endif
