/* logit_lens.h - which tokens a direction of the stream speaks for: what it would add to the logits
 * if it stood in the last layer's stream at its length, without the soft cap,
 *
 *   logits = (d (1 + w_final)) E^T
 *
 * but for the final norm's division, which is the same for all tokens. Of the storage type: in bf16
 * some 2^-9 of the largest terms. */
#ifndef SAILS_LOGIT_LENS_H
#define SAILS_LOGIT_LENS_H

#include "model/gemma2.h"

/* rows (k,D): directions. Of each the n tokens with the largest logits, the largest first, and the
 * n with the smallest, the smallest first, equal ones by id: top, bottom (k,n) and their logits. n
 * is at most the vocabulary. */
typedef struct LogitLens {
    int32_t *top, *bottom;
    float *top_logit, *bottom_logit;
} LogitLens;
void logit_lens(LogitLens *to, const Model *m, const double *rows, int k, int n);
void logit_lens_free(LogitLens *l); /* accepts a zeroed struct */

#endif
