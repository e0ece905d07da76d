/* score_run.h - the one pass that fills Scores: documents in, statistics out.
 *
 * It leaves out what nobody needs: activations of features are never stored; layers above the
 * highest scored one do not run; in that one, the rows that do not count stop at the attention; and
 * a prefix that the two replies of a pair share is computed once. */
#ifndef SAILS_SCORE_RUN_H
#define SAILS_SCORE_RUN_H

#include "model/gemma2.h"
#include "model/pair_pack.h"
#include "model/sae.h"
#include "model/score.h"

typedef struct ScoreRun ScoreRun;

/* `sae` (nsae) with encoders, all with the same products, in rising order of layers; max_rows
 * bounds the rows of a pass: no document may be longer. Both are borrowed. */
ScoreRun *score_run_open(const Model *m, const Sae *sae, int nsae, int max_rows,
                         enum ScorePool pool);

/* Device bytes that score_run_open would take, SAEs not counted; nothing is allocated. Only the
 * shapes and products of `sae` matter. */
size_t score_run_bytes(const Config *c, const Lora *lora, enum Dtype dtype, const Sae *sae,
                       int nsae, int max_rows);

/* Documents are collected; a pass runs when the next one would exceed max_rows. One without counted
 * tokens adds nothing. */
void score_run_add(ScoreRun *r, const PairItem *item);

/* True once a pass met a stream that was not finite: further documents are wasted, and what
 * score_run_finish gives is. (JumpReLU turns NaN into 0, so the sums alone would not show it.) */
bool score_run_bad(const ScoreRun *r);

/* Those of its last pass: the one that met it, if one did. Borrowed. */
Acts *score_run_acts(ScoreRun *r);

/* Runs the documents that are left and returns the statistics since the last call, unchecked
 * (scores_check); of their texts only path and id of the SAEs are filled in. r is empty then and
 * can be used again. */
void score_run_finish(ScoreRun *r, Scores *s);
void score_run_close(ScoreRun *r); /* NULL is allowed */

/* Work since score_run_open: tokens that were given, rows that were computed (fewer where prefixes
 * were shared), and rows that counted. With fast products some rows of some packs are encoded
 * exactly as well: `fires` of their exact activations are above 0, and `flips` are above 0 in only
 * one of the two encodings. */
typedef struct ScoreWork {
    int64_t tokens, rows, counted, fires, flips;
} ScoreWork;
ScoreWork score_run_work(const ScoreRun *r);
void score_work_add(ScoreWork *sum, const ScoreWork *more);

#endif
