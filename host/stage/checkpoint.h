/* checkpoint.h - a training run between two steps, as a snapshot (snapshot.h):
 *
 *   state.safetensors   F32, named KIND/TENSOR@FIRST: elements from FIRST on of the tensor's
 * masters
 *                       ("master") and, where it is trained, of Adam's moments ("m", "v")
 *   metrics.jsonl       the records of the steps so far
 *
 * Nothing in it speaks of ranks: any number of them can go on from it. Where the data stands
 * follows from the steps done, as the order of documents is a function of seed and step (batch.h).
 */
#ifndef SAILS_CHECKPOINT_H
#define SAILS_CHECKPOINT_H

#include <jansson.h>

#include "host/stage/metrics.h"
#include "host/stage/snapshot.h"
#include "model/params.h"

typedef struct Checkpoint {
    RunTotals totals; /* .steps: steps done, which names the folder */
    json_t *run;      /* borrowed: what a run that goes on must have in common with it */
    json_t *maker;    /* program, device ..: what should be the same, for equal bits */
    Params *params;   /* borrowed: names, shapes and places */
    float *state;     /* (3, params->size): masters, moments; NULL: read from the device, which is
                       * not for shared tensors */
    char *lines;      /* (nlines) of metrics.jsonl */
    size_t nlines;
} Checkpoint;
void checkpoint_free(Checkpoint *c); /* accepts a zeroed one */

/* Host bytes of a copy of the state. */
size_t checkpoint_state_bytes(const Params *p);

/* Have all ranks the same masters, unless they share them out? If not, EXIT_RANK, on all. */
bool checkpoint_agree(const Params *p, const char *what, Err *err);

/* Copies the state from the device into c->state; false where there is no memory for it. Of shared
 * tensors: on all ranks, into that of rank 0. */
bool checkpoint_copy_state(Checkpoint *c);

/* snapshot_write; touches no device where c->state is a copy, so that it may run beside training.
 */
bool checkpoint_write(Checkpoint *c, const char *parent, Err *err);

/* snapshot_read, into c (its run, maker and params are the caller's) and the device's tensors, or
 * c->state alone where ranks share them out. */
bool checkpoint_read(Checkpoint *c, bool *found, const char *parent, Err *err);

#endif
