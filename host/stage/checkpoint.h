/* checkpoint.h - a training run between two steps, as a folder that appears whole.
 *
 *   PARENT/step-00000120/
 *     state.safetensors   F32, named KIND/TENSOR@FIRST: elements from FIRST on of the tensor's
 * masters
 *                         ("master") and, where it is trained, of Adam's moments ("m", "v")
 *     metrics.jsonl       the records of the steps so far
 *     manifest.json       written last: the run's key (result_key.h), where it stands, who made it,
 *                         the other files with their sizes and SHA-256, and its own SHA-256
 *
 * It is written beside its place, PARENT/step-00000120.tmp.PID, and moved there by one rename when
 * all of it has reached the disk; the parent is synced then. A crash at any moment leaves it whole
 * or not there. Nothing in it speaks of ranks: any number of them can go on from it. Where the data
 * stands follows from the steps done, as the order of documents is a function of seed and step
 * (batch.h). */
#ifndef SAILS_CHECKPOINT_H
#define SAILS_CHECKPOINT_H

#include <jansson.h>

#include "host/stage/metrics.h"
#include "model/params.h"

typedef struct Checkpoint {
    RunTotals totals; /* .steps: steps done, which names the folder */
    json_t *run;      /* borrowed: what a run that goes on must have in common with it */
    json_t *maker;    /* program, device ..: what should be the same, for equal bits */
    Params *params;   /* borrowed: names, shapes and places */
    float *state;     /* (3, params->size): masters, moments; NULL: read from the device */
    char *lines;      /* (nlines) of metrics.jsonl */
    size_t nlines;
} Checkpoint;
void checkpoint_free(Checkpoint *c); /* accepts a zeroed one */

/* Host bytes of a copy of the state. */
size_t checkpoint_state_bytes(const Params *p);

/* Have all ranks the same masters? If not, EXIT_RANK, on all. */
bool checkpoint_agree(const Params *p, const char *what, Err *err);

/* Copies the state from the device into c->state; false where there is no memory for it. */
bool checkpoint_copy_state(Checkpoint *c);

/* Touches no device where c->state is a copy, so that it may run beside training. A failure leaves
 * nothing behind. */
bool checkpoint_write(const Checkpoint *c, const char *parent, Err *err);

/* The newest one of `parent` that is whole, into c (its run, maker and params are the caller's) and
 * into the device's tensors; `found` false where there is none. One that is not whole is passed
 * over, with a line on stderr. One of another run is refused by what differs (EXIT_USAGE); another
 * maker's is taken, with a line. */
bool checkpoint_read(Checkpoint *c, bool *found, const char *parent, Err *err);

/* How many are there. */
size_t checkpoint_count(const char *parent);

/* Removes what was not finished, or not wholly removed. */
void checkpoint_sweep(const char *parent);

/* After a save: leaves the newest `keep`, and sweeps. */
void checkpoint_prune(const char *parent, int keep);

#endif
