/* scoring.h - the score stage: data and SAEs to Scores. */
#ifndef SAILS_SCORING_H
#define SAILS_SCORING_H

#include <stdio.h>

#include "data/records.h"
#include "host/stage/keeping.h"
#include "host/stage/layers.h"
#include "host/stage/result_key.h"
#include "host/stage/runtime.h"
#include "model/sae.h"
#include "model/score_run.h"

/* The recipe's SAEs of the listed layers, rising; with ex all ranks open them, the same ones. */
typedef struct SaeSet {
    Sae *sae;
    int n;
} SaeSet;
bool saes_open(SaeSet *set, Exec *ex, const Settings *s, const Layers *layers, int width, Err *err);
void saes_close(SaeSet *set); /* accepts a zeroed struct */

/* Adds the SAEs' files to a key: weights, and in a SAELens folder what says how to read them. */
bool saes_key(json_t *key, const Hasher *h, const SaeSet *set, Err *err);

typedef struct ScoringWork {
    double seconds;
    int64_t truncated; /* documents */
    ScoreWork pass;
} ScoringWork;

/* Scores pairs records[index[i]], i < n (index NULL: the first n), or, when records is NULL, the
 * corpora s->score.aligned and .unaligned. r has device, tokenizer and model open. All ranks; rank
 * 0 gets the scores, the others none, and the work is that of all. keep (NULL: nowhere): the sums
 * of the blocks done are saved there at signals, which stop the pass (EXIT_STOPPED), and every ten
 * minutes; a pass goes on from them. */
bool scoring_run(Scores *scores, ScoringWork *work, Runtime *r, const SaeSet *saes,
                 const Settings *s, const Records *records, const size_t *index, size_t n,
                 const Keeping *keep, Err *err);

/* For each layer its `k` best features, as a table; chosen on the device. */
void scoring_print(FILE *f, Exec *ex, const Scores *scores, enum ScoreKind by, int k);

#endif
