/* preference.h - preference pairs, read from a file.
 *
 * As TRL does: each reply is rendered behind its prompt and cut at max_length from the end, and a
 * pair whose prompt alone takes that up is dropped. Of a pair whose prompts differ (pairs that
 * differ before the last reply) either one is enough. */
#ifndef SAILS_PREFERENCE_H
#define SAILS_PREFERENCE_H

#include "host/stage/dataset.h"

/* Documents 2 i and 2 i + 1 are the chosen and the rejected one of pair i, shared[i] the first
 * tokens that they have in common (doc_pair). A record that is no pair is bad input, with its line,
 * and so is a file of which no pair is left. */
bool preference_load(Dataset *d, Tokenizer *t, const char *path, int max_length, size_t limit,
                     Err *err);

#endif
