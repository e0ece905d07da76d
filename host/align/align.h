/* align.h - the whole method in one run folder, stage by stage:
 *
 *   score, moments, inputs -> subspace  when a method needs them
 *   per method: train -> generate -> eval, and the perplexity on held-out text
 *   explain                     the features, and what each row has of their subspace
 *   summary.json                one row per method, comparison.h says what is in it
 *
 * With several rates or seeds (grid.h) a method is trained with each rate from each seed: METHOD
 * below is then METHOD.RATE.seedN, of subspaces METHOD.seedN. Only the best rate comes into the
 * table.
 *
 * Each stage is skipped when its outputs are there and its inputs have not changed (run_folder.h).
 * All inputs are read, and every stage is planned, before the first one that must be made.
 *
 * With `check` it says what all of that needs and takes, and does none of it (align_check.c).
 *
 *   scores.safetensors  moments.safetensors  subspaces/METHOD.safetensors  adapters/METHOD/
 *   models/METHOD/ of full, whose weights stay for the best rate alone (align_models.c)
 *   responses/METHOD.jsonl  eval/METHOD.json  metrics.jsonl (the steps of all methods)
 *   explain/ (align_explain.c)  summary.json */
#ifndef SAILS_ALIGN_H
#define SAILS_ALIGN_H

#include "host/cli/args.h"

bool align_run(const Args *a, Err *err);

#endif
