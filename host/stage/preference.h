/* preference.h - preference pairs: read from a file, and measured.
 *
 * As TRL does: each reply is rendered behind its prompt and cut at max_length from the end, and a
 * pair whose prompt alone takes that up is dropped. Of a pair whose prompts differ (pairs that
 * differ before the last reply) either one is enough. */
#ifndef SAILS_PREFERENCE_H
#define SAILS_PREFERENCE_H

#include "host/cli/settings.h"
#include "host/stage/dataset.h"
#include "host/stage/nll.h"
#include "model/gemma2.h"
#include "model/pair_loss.h"

/* Documents 2 i and 2 i + 1 are the chosen and the rejected one of pair i, shared[i] the first
 * tokens that they have in common (doc_pair). A record that is no pair is bad input, with its line,
 * and so is a file of which no pair is left. */
bool preference_load(Dataset *d, Tokenizer *t, const char *path, int max_length, size_t limit,
                     Err *err);

/* The same of records that a data set has: those of its documents index[0] .. [n - 1], so that a
 * split of that set is one of the pairs, too. The records stay the data set's. No pair may be left.
 * path: of the file, for messages. */
bool preference_of(Dataset *d, Tokenizer *t, const Dataset *from, const size_t *index, size_t n,
                   const char *path, int max_length, Err *err);

/* log p of the reply of each document, by its number (documents): the sum over its labels, on all
 * ranks. With how->logits `facts` gets sums of what those say, on rank 0; else it may be NULL. */
bool preference_logp(double *logp, PairFacts *facts, const Model *m, const Examples *pairs,
                     const NllHow *how, Err *err);

/* The mean loss of pairs; log-probabilities by the documents' numbers. `facts`, sums of what logits
 * say or zero, becomes the means of all. */
double preference_mean(PairFacts *facts, const PairLoss *loss, const Examples *pairs,
                       const double *logp, const double *reference);

/* The loss that is asked for. */
PairLoss preference_loss(const Settings *s);

/* Do the settings of --method dpo agree? Of other methods: true. */
bool preference_check(const Settings *s, Err *err);

/* What `train` draws its batches from, by --method: pairs, or documents (dataset_load_training). */
bool training_load(Dataset *d, Tokenizer *t, const Settings *s, const char *path, size_t limit,
                   Err *err);

#endif
