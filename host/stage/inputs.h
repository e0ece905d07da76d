/* inputs.h - the inputs stage: data through the model to bases of what its projections read, for
 * the start eva, or of what they write, for salora. */
#ifndef SAILS_STAGE_INPUTS_H
#define SAILS_STAGE_INPUTS_H

#include "host/stage/examples.h"
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

/* The same for salora: refused are no target, and --preserve-rank where a target writes no more. */
bool inputs_check_outputs(const Settings *s, const Config *c, const char *what, Err *err);

/* Bases of what the targets write of the first inputs.samples documents of `kept`, safe replies,
 * and of `task`, training data: as inputs_run. rows: tokens of either. */
bool inputs_run_outputs(Subspace *to, int64_t rows[2], Runtime *r, const Settings *s,
                        const Examples *kept, const Examples *task, Err *err);

/* What rank 0 allocates beside its moments to make bases of them, salora's with something to
 * preserve; and bytes of workspace that this takes. */
BasisBytes inputs_making_bytes(const Settings *s, const Config *c, enum Dtype dtype);
size_t inputs_making_scratch(Exec *ex, const Settings *s, const Config *c);

#endif
