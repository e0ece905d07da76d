/* causal.h - is the subspace a cause? What a model's refusals and its language become when the
 * stream is changed along it, beside the same change along random directions; and which part of an
 * adapter does its work. As JSON. */
#ifndef SAILS_CAUSAL_H
#define SAILS_CAUSAL_H

#include <jansson.h>
#include <stdio.h>

#include "host/stage/examples.h"
#include "host/stage/firings.h"
#include "model/subspace.h"

typedef struct CausalOf {
    const char *name;         /* of the model: "base", "sails" */
    const char *adapter;      /* the folder that r->model wears; NULL: none */
    bool base;                /* is it the model that was scored? */
    const Subspace *subspace; /* of the stream: its layers are those where the stream is changed */
    const Looked *docs;       /* aligned, unaligned and harmless ones, for the means */
    const PromptFile *harmful;
    const Examples *text; /* harmless documents with targets */
} CausalOf;

/* {"sails": "causal 1", "name", "adapter", "layers", "columns", "prompts", "benign_documents",
 * "draws", "refusal_tokens": [{"id", "text"}], "rows": [..]}; columns: of U at each of the layers,
 * those that were found, without the random ones that fill the basis up. Rows in this order, where
 * they apply:
 *
 *   as it is
 *   U ablated, random ablated   x <- x - U U^T (x - mean), the mean of harmless prompts' tokens, at
 *                               all layers of the subspace; random: U of as many random columns
 *   U added, random added       on the base: x <- x + U U^T (mean of aligned - of unaligned
 * replies); random: a vector as long, of random direction dW inside U, dW outside U   the adapter's
 * two parts, each by itself (adapter_delta.h)
 *
 *   "row", "draws"    of random ones s->explain.draws, whose scores are averaged prompt by prompt
 *   "refusal"         {"mean", "low", "high"}: the score of refusal.h over the harmful prompts
 *   "change"          the same of its differences from the first row; null there
 *   "rate"            {"share", "low", "high"}: of prompts with a score above 0
 *   "perplexity"      {"value", "low", "high"} of the text, over its documents
 *   "stream"          by how much the stream was changed (stream_edit.h): what is told by rows
 * whose changes are as large; null where it was not
 *
 * s->explain.documents prompts, at equal distances. Refused: no harmless prompts. All ranks; rank 0
 * gets the object, the others NULL. The adapter is on the model again at the end. */
bool causal_make(json_t **causal, Runtime *r, const CausalOf *of, const Settings *s, Err *err);

/* s->explain.documents of doc[from[0..n)] (from NULL: the first n), at equal distances, as examples
 * that borrow them; their index is the caller's to free. */
size_t *causal_text(Examples *to, const Doc *doc, const size_t *from, size_t n, const Settings *s);

/* The rows as a table. */
void causal_print(FILE *f, const json_t *causal);

#endif
