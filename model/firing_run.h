/* firing_run.h - the pass that says on which tokens chosen features fire: documents in, the
 * activations of a few features at every token out.
 *
 * Of an SAE without TopK the chosen features' columns alone are multiplied. A document's numbers do
 * not depend on what else is in a pack. */
#ifndef SAILS_FIRING_RUN_H
#define SAILS_FIRING_RUN_H

#include "model/gemma2.h"
#include "model/sae.h"

typedef struct FiringRun FiringRun;

/* The features of an SAE whose encoder is there. */
typedef struct FiringLayer {
    const Sae *sae;
    const int32_t *feature; /* (k) */
    int k;
} FiringLayer;

/* layer (n), n > 0, in rising order, borrowed; max_rows bounds the rows of a pass: no document may
 * be longer. */
FiringRun *firing_run_open(const Model *m, const FiringLayer *layer, int n, int max_rows);
void firing_run_close(FiringRun *r); /* NULL is allowed */

/* Device bytes that firing_run_open would take of n SAEs of at most S features each. */
size_t firing_run_bytes(const Config *c, const Lora *lora, enum Dtype dtype, int n, int k, int S,
                        int max_rows);

/* Documents are collected; a pass runs when the next one would exceed max_rows. to (n,K) =: at each
 * token the activations of all layers' features, one layer's behind the other's, K in all; to be
 * read after firing_run_finish. The tokens must live until then. */
void firing_run_add(FiringRun *r, const int32_t *token, int n, float *to);
void firing_run_finish(FiringRun *r);

/* True once a pass met a stream that was not finite; its acts, borrowed. */
bool firing_run_bad(const FiringRun *r);
Acts *firing_run_acts(FiringRun *r);

#endif
