/* chat.h - the Gemma chat template with its label mask, and whole documents as token ids.
 *
 *   <bos> { <start_of_turn>ROLE \n TRIMMED CONTENT <end_of_turn>\n }   ROLE is user or model
 *
 * Labels mark what is trained: the content of the final model turn, its <end_of_turn> and the "\n"
 * behind it (LABEL_ALL: of every token but BOS). Reply tokens (`reply`) are the final reply's
 * content alone, what SAE scoring counts. */
#ifndef SAILS_CHAT_H
#define SAILS_CHAT_H

#include "data/records.h"
#include "data/tokenizer.h"

typedef struct Doc {
    int32_t *token;
    uint8_t *label; /* 1: a training target */
    uint8_t *reply; /* 1: a token of the final reply's content */
    int n;
    bool truncated;       /* cut at max_length */
    const Record *record; /* borrowed */
} Doc;

/* Renders a conversation; with `generate` it ends in the header of the model's turn. Roles must
 * alternate and start with the user. Content that itself renders to <bos> is refused (a double
 * BOS means that the text was rendered before). */
bool chat_render(Doc *doc, Tokenizer *t, const Chat *chat, bool generate, int max_length, Err *err);

/* TEXT: BOS, then the text, all labels. TOKENS: as they are (a missing BOS is the user's choice).
 */
bool doc_from_record(Doc *doc, Tokenizer *t, const Record *r, int max_length, Err *err);
void doc_free(Doc *doc);

#endif
