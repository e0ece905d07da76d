/* cards.h - feature cards: what is known of the chosen features of every scored layer, as JSON. */
#ifndef SAILS_CARDS_H
#define SAILS_CARDS_H

#include <jansson.h>

#include "host/stage/firings.h"
#include "host/stage/scoring.h"

/* {"sails": "features 1", "model", "data", "counted", "pool", "by", "window", "corpora": {corpus:
 * {"documents", "tokens"} or null}, "layers": [{"layer", "S", "sae", "sae_sha256", "neuronpedia",
 * "features": [..]}]}; of a feature, the best by s->subspace.by first, s->subspace.top_k of a
 * layer: "feature", "score", "delta": {"value", "low", "high", "se", "t"}, "stability" from the
 * scores: of all that was scored "mean", "rate", "max": {corpus: ..}; of the scored corpora from
 * the scores, of prompts from the documents that are looked at, as all that follows "density",
 * "histogram": {"edges", "count"}, "token_share", "token_detector", "token" firing_facts.h
 *   "auc": {"value", "low", "high", "harmful", "benign", "categories": {category: the same}} or
 * null "label", "url"      from s->explain.labels; the page at Neuronpedia, of an SAE that has one
 *   "logits": {"top", "bottom": [{"id", "text", "logit"}]}         logit_lens.h
 *   "neighbours": [{"feature", "cosine", "label"}]                 of decoder rows
 *   "contexts": [{"kind": "top" | "quantile" | "benign", "quantile": [from, to] or null, "corpus",
 *                 "document", "position", "activation", "first", "tokens", "activations"}]
 *                       tokens from `first` on, s->explain.window either side of the position
 *
 * r has the model that was scored, without an adapter. All ranks; rank 0 gets the object, the
 * others NULL. The same bytes on any number of ranks. */
bool cards_make(json_t **cards, Runtime *r, const Scores *scores, const SaeSet *saes,
                const Looked *docs, const Settings *s, Err *err);

/* A line for each feature. */
void cards_print(FILE *f, const json_t *cards);

/* A token for people: its text, or its piece where that is a part of a character or the byte 0. New
 * reference. */
json_t *cards_token(const Tokenizer *t, int32_t id);

#endif
