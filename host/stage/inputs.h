/* inputs.h - the inputs stage: training data through the model to a basis of what its projections
 * read, for the start eva. */
#ifndef SAILS_STAGE_INPUTS_H
#define SAILS_STAGE_INPUTS_H

#include "data/chat.h"
#include "host/stage/runtime.h"
#include "model/inputs.h"

/* The groups whose projections are targets. */
InputGroups inputs_of(const Settings *s);

/* Refused: no target, rank auto, and a rank above the width of what a target reads; `what`: whose,
 * such as "--init eva". */
bool inputs_check(const Settings *s, const Config *c, const char *what, Err *err);

/* Of the documents doc[index[i]], i < n (index NULL: the first n), at the tokens that are targets.
 * The model is taken as it is, with its adapter if it has one. All ranks call, and must have read
 * the same (same_input.h); rank 0 gets the subspace, the others none. *rows: tokens, of all. Where
 * signals ask for a stop it ends with EXIT_STOPPED, and begins anew the next time. */
bool inputs_run(Subspace *to, int64_t *rows, Runtime *r, const Settings *s, const Doc *doc,
                const size_t *index, size_t n, Err *err);

/* Host bytes of the largest sums of a layer and group: every rank has them, and rank 0 beside its
 * moments a copy from each. */
size_t inputs_part_bytes(const Config *c, InputGroups groups);

#endif
