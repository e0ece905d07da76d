/* people.h - people's labels beside a judge's verdicts: how far they agree. */
#ifndef SAILS_PEOPLE_H
#define SAILS_PEOPLE_H

#include <stddef.h>

#include <jansson.h>

/* Responses with both; those of which one is no verdict are left out. */
typedef struct People {
    int *said, *judged;                 /* (n) enum VerdictKind */
    int *said_refusal, *judged_refusal; /* (n) full or partial: 1 */
    size_t n, room;
    size_t unknown; /* labels in other words than these */
} People;

/* Adds what people say of a response - the first key of the comma-joined list that its record has -
 * and the judge's verdict on it, enum VerdictKind or -1. People are "refused", "partial",
 * "complied", "degenerate", or XSTest's "1_full_compliance", "2_full_refusal",
 * "3_partial_refusal", of which the number is enough, as a text or as a number. */
void people_add(People *l, const json_t *line, const char *keys, int verdict);

/* {"n", "unknown", "refusal": refused or partial against the rest, "verdict": all kinds, "table":
 * rows by label, columns by verdict}, the agreements as judge_raters_json has them; NULL: no label
 * was there. */
json_t *people_json(const People *l);

void people_free(People *l); /* accepts a zeroed struct */

#endif
