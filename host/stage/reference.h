/* reference.h - what the reference of a training run on pairs says of them: the model without an
 * adapter or, where training starts from one of a folder, with that; where all weights are trained,
 * the model that they start from.
 *
 * It is measured once, before the first step, and again by a run that is resumed: log-probabilities
 * have the same bits whatever pack or rank they come from. Only pairs that a step will see are
 * measured. */
#ifndef SAILS_REFERENCE_H
#define SAILS_REFERENCE_H

#include "host/stage/train.h"

typedef struct Reference {
    double *train, *eval; /* log p by the documents' numbers, of those that are asked for */
    float *start;         /* masters that training starts from; NULL: the reference needs none, or
                           * they are what is trained, or rank 0 has them for all */
} Reference;

/* Before a checkpoint's masters take the place of those that training starts from. */
void reference_begin(Reference *r, const Model *m, const TrainSetup *t);

/* All ranks. */
bool reference_measure(Reference *r, Model *m, const TrainSetup *t, Err *err);
void reference_free(Reference *r); /* accepts a zeroed one */

/* What it takes beside training: host bytes, those of the start's masters, which rank 0 alone has
 * where ranks share them out, and the largest pack that it runs. */
size_t reference_bytes(const TrainSetup *t);
size_t reference_start_bytes(const TrainSetup *t, const Params *p);
PackSize reference_pack_size(const TrainSetup *t);

#endif
