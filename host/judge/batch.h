/* batch.h - the same questions as a batch: OpenAI's and its imitators' form for work that may take
 * a day, at half the price, by files that a user uploads and downloads himself.
 *
 * Out: {"custom_id", "method": "POST", "url": "/v1/chat/completions", "body"} a line. Back:
 * {"custom_id", "response": {"status_code", "body": a chat completion}, "error"} a line, in any
 * order, of which some may be missing. */
#ifndef SAILS_JUDGE_BATCH_H
#define SAILS_JUDGE_BATCH_H

#include "host/judge/completion.h"

/* The request of one question; --judge-dialect auto stands for `schema`. */
json_t *batch_request(const char *id, const Settings *s, const Exchange *e);

bool batch_is_answer(const json_t *line); /* has a custom_id */

/* The verdict of such a line; REPLY_REJECTED, with the server's words, where there is none. */
void batch_reply(CompletionReply *r, const json_t *line);

#endif
