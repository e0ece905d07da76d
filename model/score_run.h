/* score_run.h - the one pass that fills Scores: documents in, statistics out. Activations of
 * features are never written, layers above the highest scored one never run, that one runs above
 * its attention for the rows that count alone, and what the two replies of a pair share is computed
 * once. */
#ifndef SAILS_SCORE_RUN_H
#define SAILS_SCORE_RUN_H

#include "model/gemma2.h"
#include "model/sae.h"
#include "model/score.h"

/* A pair, or a single document (the other n is 0): whole documents, corpus 0 and corpus 1.
 * counted[c][t] != 0: token t counts. A document without counted tokens is let pass uncounted. */
typedef struct ScoreItem {
    const int32_t *token[2];
    const uint8_t *counted[2];
    int n[2];
} ScoreItem;

typedef struct ScoreRun ScoreRun;

/* `sae` (nsae) with encoders, all with the same products, in rising order of layers; max_rows
 * bounds the rows of a pass: no document may be longer. Both are borrowed. */
ScoreRun *score_run_open(const Model *m, const Sae *sae, int nsae, int max_rows,
                         enum ScorePool pool);

/* Device bytes that score_run_open would take, SAEs not counted; nothing is allocated. Only the
 * shapes and products of `sae` matter. */
size_t score_run_bytes(const Config *c, const Lora *lora, enum Dtype dtype, const Sae *sae,
                       int nsae, int max_rows);

/* Documents are collected and passed on when max_rows would be exceeded. */
void score_run_add(ScoreRun *r, const ScoreItem *item);

/* True when the stream that a pass scored was not finite: score_run_finish will refuse, so that
 * further documents are wasted. (A JumpReLU makes 0 of NaN: the sums would not show it.) */
bool score_run_bad(const ScoreRun *r);

/* Runs what is left and gives the statistics, texts empty but for the SAEs' path and id; r starts
 * anew. Refused: a corpus without a counted token, and sums that are not finite. */
bool score_run_finish(ScoreRun *r, Scores *s, Err *err);
void score_run_close(ScoreRun *r); /* NULL is allowed */

/* Since score_run_open: tokens given, rows computed (fewer, where prefixes were shared), and rows
 * that counted. Where SAEs have fast products, some rows of some packs are encoded exactly too:
 * `fires` exact activations above 0 among them, and `flips` that are not so in the fast ones, or
 * in these alone. */
typedef struct ScoreWork {
    int64_t tokens, rows, counted, fires, flips;
} ScoreWork;
ScoreWork score_run_work(const ScoreRun *r);

#endif
