/* completion.h - a verdict asked for and given in the form of OpenAI's chat completions, which
 * vLLM, llama.cpp, Ollama and most services speak, each in its own dialect.
 *
 *   dialect            the reply's form                  its length      temperature 0, seed
 *   schema             response_format json_schema       max_tokens            yes
 *   schema-completion  the same                          max_completion_tokens no
 *   top-schema         json_schema at the top level      max_tokens            yes
 *   plain              asked for in words alone          max_tokens            yes
 *   plain-completion   the same                          max_completion_tokens no
 *
 * (schema: OpenAI, vLLM, Ollama, newer llama.cpp; -completion: OpenAI's models that think;
 * top-schema: builds of llama.cpp that refuse response_format.)
 *
 * Whatever the dialect, a reply counts only when it is, but for white space, a code fence and a
 * block <think>..</think> in front of it, one JSON object with a text "reason" and a whole number
 * "score" from 1 to 5. */
#ifndef SAILS_COMPLETION_H
#define SAILS_COMPLETION_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "host/cli/settings.h"
#include "host/judge/rubric.h"

/* The body of a request. */
json_t *completion_request(const char *model, enum JudgeDialect dialect, int max_tokens,
                           const Exchange *e);

/* What came back. Only the first is a verdict. */
#define REPLY_ENDS(X)                                                                   \
    X(REPLY_VERDICT, "verdict")                                                         \
    X(REPLY_REFUSED, "refused")       /* by the judge: message.refusal */               \
    X(REPLY_FILTERED, "filtered")     /* finish_reason content_filter */                \
    X(REPLY_CUT, "cut")               /* at its greatest length, before it was whole */ \
    X(REPLY_UNREADABLE, "unreadable") /* no object of that form */                      \
    X(REPLY_REJECTED, "rejected")     /* the server takes this request in no form */
enum ReplyEnd { REPLY_ENDS(CHOICE_ENUM) REPLY_END_COUNT };
const char *reply_end_name(enum ReplyEnd end);
bool reply_end_named(enum ReplyEnd *end, const char *name);

typedef struct CompletionReply {
    enum ReplyEnd end;
    int score;    /* 1..5 of a verdict, else 0 */
    char *reason; /* malloc; of a verdict the judge's, of a refusal its words, else "" */
    double tokens_in, tokens_out; /* as the server counts them; 0: it does not */
} CompletionReply;
enum { REPLY_REASON = 2000 /* bytes; longer ones are cut at a character */ };

/* Reads the body of an answer with status 200; one that is no chat completion is REPLY_UNREADABLE.
 */
void completion_reply(CompletionReply *r, const char *body, size_t n);
void completion_reply_free(CompletionReply *r); /* accepts a zeroed struct */

/* Of a body that says an error: its code ("" where there is none) and its message, on one line. */
typedef struct CompletionError {
    char code[64], message[256];
} CompletionError;
CompletionError completion_error(const char *body, size_t n);

#endif
