/* capability.h - multiple choice by log-probability, as lm-evaluation-harness scores it.
 *
 * A document is <bos>, the context and one choice. Context and choice (a space, then its text) are
 * encoded together; the choice's tokens are those behind as many as the context alone has, with the
 * white space at the context's end moved to the choice. Its sum is that of their log-probabilities.
 *   acc        share of questions whose answer has the largest sum
 *   acc_norm   the same of sum / characters of the choice, without the space in front
 * Of equal sums the first counts. Each has its standard error, sqrt(p (1 - p) / (n - 1)), and
 * Wilson's interval. Over subjects it is the mean weighted by their sizes, which is that of all
 * questions. */
#ifndef SAILS_CAPABILITY_H
#define SAILS_CAPABILITY_H

#include "data/tasks.h"
#include "host/stage/dataset.h"
#include "model/gemma2.h"

/* The documents of all choices, in order; their targets are the choices' tokens. Bad input: one
 * longer than max_length, and a choice that has no token of its own. */
bool capability_documents(Dataset *d, Tokenizer *t, const Questions *q, int max_length, Err *err);

/* All ranks call; rank 0 has *result, the others NULL: {"task", "questions", "acc": {"share",
 * "stderr", "interval"}, "acc_norm", "subjects", "rows": [{"id", "answer", "sums", "acc",
 * "acc_norm"}]}, with "versus" where s->capability names such a file of another model: questions
 * that here alone are right, there alone, and McNemar's exact test. */
bool capability(json_t **result, const Model *m, const Questions *q, const Dataset *d,
                const Settings *s, Err *err);

#endif
