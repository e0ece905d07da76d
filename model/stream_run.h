/* stream_run.h - the pass that makes document vectors: of each document the mean, over its tokens
 * that count, of the residual stream that leaves each of some layers.
 *
 * The sum over a document's tokens is one product of the device, in f32, of the pack's rows with
 * ones and zeros; a prefix that the replies of a pair share is computed once, and layers above the
 * highest one that is asked for do not run. */
#ifndef SAILS_STREAM_RUN_H
#define SAILS_STREAM_RUN_H

#include "model/gemma2.h"
#include "model/pair_pack.h"

typedef struct StreamRun StreamRun;

/* layer (n), rising, borrowed. max_rows bounds the rows of a pass: no document may be longer. */
StreamRun *stream_run_open(const Model *m, const int *layer, int n, int max_rows);
void stream_run_close(StreamRun *r); /* NULL is allowed */

/* Device bytes that stream_run_open would take, and those of workspace that its own ops take;
 * nothing is allocated. */
size_t stream_run_bytes(const Config *c, const Lora *lora, enum Dtype dtype, int max_rows);
size_t stream_run_scratch(Exec *ex, const Config *c, int max_rows);

/* Documents are collected; a pass runs when the next one would exceed max_rows. to[c] (n,D) =: the
 * vector of document c at each layer, to be read after stream_run_finish; NULL where there is no
 * such document. Each has a token that counts. */
void stream_run_add(StreamRun *r, const PairItem *item, double *const to[2]);

/* Runs the documents that are left. r is empty then and can be used again. */
void stream_run_finish(StreamRun *r);

/* True once a pass met a stream that was not finite: its vectors, and those of later ones, are
 * worthless. */
bool stream_run_bad(const StreamRun *r);

/* Those of its last pass: the one that met it, if one did. Borrowed. */
Acts *stream_run_acts(StreamRun *r);

/* Tokens that were given and rows that were computed since stream_run_open, fewer where prefixes
 * were shared; and rows that counted, for each document. */
typedef struct StreamWork {
    int64_t tokens, rows, counted;
} StreamWork;
StreamWork stream_run_work(const StreamRun *r);

#endif
