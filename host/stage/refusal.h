/* refusal.h - how much a model leans towards refusing, from the first token of its reply alone:
 *
 *   score = log p - log (1 - p),   p = the probability that it is one of some tokens
 *
 * in nats; above 0 such a token is likelier than not. */
#ifndef SAILS_REFUSAL_H
#define SAILS_REFUSAL_H

#include "data/ids.h"
#include "host/stage/prompts.h"
#include "host/stage/runtime.h"
#include "model/stream_edit.h"

/* The first tokens of the texts in a list of settings, each once. Refused: a text without one. */
bool refusal_tokens(Ids *to, Tokenizer *t, const char *list, Err *err);

/* Which prompts: documents that end where the reply begins. */
typedef struct RefusalOf {
    const Doc *const *doc; /* (n) borrowed */
    size_t n;
    const Ids *token;
    StreamEdit *edit; /* by which the stream is changed; NULL: it is not */
    int pack_tokens;  /* rows of a pack, no fewer than the longest prompt has */
} RefusalOf;

/* score (n) =: of each prompt. All ranks share the prompts and get the scores, which do not depend
 * on how many there are. A logit that is not finite is EXIT_NUMBERS. */
bool refusal_scores(double *score, const Model *m, const RefusalOf *of, Err *err);

#endif
