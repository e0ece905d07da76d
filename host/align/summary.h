/* summary.h - the table of a run: one row per method, as summary.json keeps it and as people read
 * it. */
#ifndef SAILS_SUMMARY_H
#define SAILS_SUMMARY_H

#include <stdio.h>

#include <jansson.h>

/* {"rows": [{"name", "safety_rate", ...}], "subspaces": {name: adapting_describe's}, "moments":
 * moments_describe's, where there are} as a table; what is null shows as "-". A method with
 * responses that say nothing gets a line below: by rule they are refusals, but no sign of safety;
 * one with a subspace made from features a line that says how much of them it holds; and there is
 * one on what pairs share. Then intervals and tests (comparison.h). */
void summary_print(const json_t *summary, FILE *f);

#endif
