/* chat.h - the Gemma chat template with its label mask, and whole documents as token ids.
 *
 *   <bos> { <start_of_turn>ROLE \n TRIMMED CONTENT <end_of_turn>\n }   ROLE is user or model
 *
 * Ids are those of the rendered text as one string (transformers' apply_chat_template), with one
 * cut that generation makes too: in front of the final reply. Where "\n" is an added token, as in
 * Gemma, that cut is there anyway. Content is trimmed as Python's str.strip does.
 *
 * Labels mark what is trained, as TRL does for Gemma: the content of the final model turn, its
 * <end_of_turn> and the "\n" behind it; no <eos> is added. Reply tokens (`reply`) are the final
 * reply's content alone, what SAE scoring counts. */
#ifndef SAILS_CHAT_H
#define SAILS_CHAT_H

#include "data/records.h"
#include "data/tokenizer.h"

typedef struct Doc {
    int32_t *token;
    uint8_t *label; /* 1: a training target; never the first token */
    uint8_t *reply; /* 1: a token of the final reply's content */
    int n;
    int prompt;           /* tokens in front of the first reply token or target */
    bool truncated;       /* cut at max_length, from the end */
    const Record *record; /* borrowed; NULL from chat_render */
} Doc;

/* Renders a conversation that ends with the model's turn. With `generate` that turn, if there is
 * one, is left out, and the document ends in its header (no labels). Roles must alternate and
 * start with the user. Content that itself holds <bos>, <eos> or a turn's marker is refused: it was
 * rendered before. max_length 0: no limit. With `generate` nothing is cut: a prompt
 * longer than max_length is bad input, since its end is what the model must answer. */
bool chat_render(Doc *doc, Tokenizer *t, const Chat *chat, bool generate, int max_length, Err *err);

/* A document for training or reading. PAIR: the chosen conversation. PROMPT: as with `generate`.
 * TEXT: BOS, then the text; TOKENS: as they are (a missing BOS is the user's choice). Of both,
 * every token but the first is a target and a reply token, unless the record's labels say which.
 * The message names the line. */
bool doc_from_record(Doc *doc, Tokenizer *t, const Record *r, int max_length, Err *err);

/* Both conversations of a PAIR, and how many first tokens they share: these can be computed once
 * for both. No reply token or target of either is among them, even where the replies begin alike,
 * and at least one token of each document is not. */
bool doc_pair(Doc *chosen, Doc *rejected, int *shared, Tokenizer *t, const Record *r,
              int max_length, Err *err);

/* Makes every token but the first a target, to train on prompts too; `reply` stays. */
void doc_label_all(Doc *doc);
int doc_labels(const Doc *doc); /* how many targets it has */
void doc_free(Doc *doc);        /* accepts a zeroed document */

#endif
