/* records.h - the data files that users have, read into one form.
 *
 * JSONL, one JSON list, or CSV (RFC 4180), plain or .gz, by content and not by name. Record forms,
 * the first that fits:
 *   {"chosen","rejected"}   HH-RLHF text with "\n\nHuman: " / "\n\nAssistant: " turns, or lists
 *                           of messages; with "prompt": two replies to it
 *   {"messages":[{"role","content"}..]}   {"prompt","completion"}   {"prompt"}   {"instruction"}
 *   {"text"}   {"tokens":[..]}, and "labels":[0|1..] of them   {"goal"} (AdvBench)
 * "prompt" and "completion" are texts or lists of messages. A CSV file has the same names as
 * columns. Other keys are ignored. Roles are user (human) and assistant (model); they alternate
 * and start with the user, as Gemma's template demands, which knows no system role. */
#ifndef SAILS_RECORDS_H
#define SAILS_RECORDS_H

#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

enum RecordForm { RECORD_PAIR, RECORD_CHAT, RECORD_PROMPT, RECORD_TEXT, RECORD_TOKENS };

enum Role { ROLE_USER, ROLE_MODEL };
typedef struct Turn {
    enum Role role;
    char *text; /* UTF-8, may hold NUL */
    size_t len;
} Turn;

/* A conversation. In training it ends with the model's turn, in generation with the user's. */
typedef struct Chat {
    Turn *turn;
    int n;
} Chat;

typedef struct Record {
    enum RecordForm form; /* CHAT ends with the model's turn, PROMPT with the user's */
    size_t line;          /* where it starts in the (unpacked) file, from 1 */
    char *id;             /* the record's "id", else its line number */
    char *category;       /* the record's "category", else "" */
    Chat chat;            /* PAIR: the chosen one; CHAT, PROMPT */
    Chat rejected;        /* PAIR */
    char *text;           /* TEXT */
    size_t text_len;
    int32_t *token; /* TOKENS */
    uint8_t *label; /* TOKENS (ntoken): 1 is a training target; NULL: the record does not say */
    size_t ntoken;
} Record;

typedef struct Records {
    Record *record;
    size_t n;
    /* What was met and how often; the records are kept unless said otherwise. */
    size_t diverging_pairs; /* chosen and rejected differ before the final reply */
    size_t empty_replies;   /* no final reply, or white space: pairs and chats left out */
    size_t merged_turns;    /* HH turns of the same role in a row, joined by an empty line */
} Records;

/* Reads all of `path`. `limit` > 0 stops after that many records. A record that cannot be used is
 * bad input with file, line and field, except where Records counts it; so is a file without any
 * record. One record may have 64 MB. */
bool records_read(Records *r, const char *path, size_t limit, Err *err);
void records_free(Records *r); /* accepts a zeroed struct */

#endif
