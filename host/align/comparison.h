/* comparison.h - how sure a row of the table is, and whether two differ. */
#ifndef SAILS_COMPARISON_H
#define SAILS_COMPARISON_H

#include <jansson.h>

/* A row of runs that differ by their seeds alone, from their results on the same prompts.
 *
 * run: an array of objects, one a seed, {"name", "safety_rate", ..., "responses": those of
 * evaluate's JSON, "categories": the same}. Returns {"name"} with, for each number of the runs, its
 * mean; and "rate", "seeds"   what was trained (rate: null for none) "interval" {"safety_rate":
 * [low, high], "over_refusal": [..]} at 95 %: of the mean over seeds by Student's t, within 0 and
 * 1; from one run, or equal ones, by Wilson's over its prompts "categories"      of each {"n",
 * "safety_rate", "interval"}, in the same way; of a benign one its over-refusal "runs" the runs,
 * without responses and categories */
json_t *comparison_row(const char *name, const json_t *run);

/* Adds "versus" to a row: {"row", "difference", "paired", "mcnemar", "prompts", "missing"}, against
 * the row that the others are held against.
 *   difference   of the mean safety rates
 *   paired       p of the paired t test over the seeds; null for less than two
 *   mcnemar      p of the exact test over the harmful prompts, paired by their ids: which of the
 *                rows answers more safely over its seeds, prompts of equal share left out
 *   prompts      those that have a score in all runs of both rows, which are tested
 *   missing      those that have none in some run, which are not
 *   benign       {"mcnemar", "prompts", "missing"} of the harmless prompts, where there are some:
 *                which of the rows refuses more of them */
void comparison_versus(json_t *row, const json_t *run, const char *name, const json_t *other);

#endif
