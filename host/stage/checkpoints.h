/* checkpoints.h - when a training run saves its state, who writes it, and how a run goes on.
 *
 * The state is copied between two steps; hashing, writing and syncing go on beside the next ones,
 * in a thread of their own. One save is in flight: the next one, a stop and the end wait for it.
 * Where there is no memory for a copy, it is written at once, and that is said. A save that fails
 * is a warning; the second in a row ends the run. */
#ifndef SAILS_CHECKPOINTS_H
#define SAILS_CHECKPOINTS_H

#include "host/stage/checkpoint.h"
#include "host/stage/keeping.h"
#include "host/stage/wish.h"

typedef struct Checkpoints Checkpoints;

/* What is asked for. */
typedef struct CheckpointPlan {
    Keeping kept;
    int steps;          /* save every so many; 0: not by steps */
    double minutes;     /* save when so much time has passed since the last; 0: not by time */
    int keep;           /* the newest so many */
    bool resume;        /* go on from the newest */
    const char *result; /* folder of what the run makes; NULL: none is there */
} CheckpointPlan;

/* A run that was to go on and has nothing to go on from would begin at step 1: EXIT_USAGE where a
 * finished adapter or model is in `result`, which would be replaced; NULL: none is. */
bool checkpoints_missing(const char *result, Err *err);

/* Goes on from the newest checkpoint where that is asked for and there is one: then totals and
 * lines of metrics.jsonl go into `metrics`, and the tensors are as they were. Refuses to begin anew
 * beside checkpoints that are there, or in place of a result (EXIT_USAGE). All ranks; rank 0, whose
 * command holds the run's folder, reads and hands on. interrupt_as_request makes SIGTERM and
 * SIGUSR1 ask for a stop. */
bool checkpoints_open(Checkpoints **to, const CheckpointPlan *plan, Params *p, Metrics *metrics,
                      Err *err);

/* After so many steps. Time is told by rank 0's clock. c may be NULL: nothing. */
Wish checkpoints_wish(const Checkpoints *c, size_t steps);

/* Does what the ranks wish, all of them. Rank 0 saves. A stop returns false with EXIT_STOPPED when
 * the state is on disk. After the last step nothing is saved: what comes then is the result. */
bool checkpoints_before_step(Checkpoints *c, const Metrics *metrics, const Wish *wish, Err *err);

/* Waits for a save in flight; frees. NULL is allowed. */
bool checkpoints_close(Checkpoints *c, Err *err);

#endif
