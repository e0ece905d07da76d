/* records.h - the data files that users have, read into one form.
 *
 * JSONL or CSV, plain or .gz, by content and not by name. Record forms, one per file line:
 *   {"chosen","rejected"}   HH-RLHF text with "\n\nHuman: " / "\n\nAssistant: " turns, or lists
 *                           of messages
 *   {"messages":[{"role","content"}..]}   {"prompt","completion"}   {"prompt"}   {"instruction"}
 *   {"text"}   {"tokens":[..]}   CSV with header: the same names as columns, AdvBench's `goal`
 * A JSON file that is one list of such objects is read like JSONL. */
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
    enum RecordForm form;
    size_t line;    /* in the file, from 1 */
    char *id;       /* the record's "id", else its line number */
    char *category; /* the record's "category", else "" */
    Chat chat;      /* PAIR: the chosen one; CHAT, PROMPT */
    Chat rejected;  /* PAIR */
    char *text;     /* TEXT */
    size_t text_len;
    int32_t *token; /* TOKENS */
    size_t ntoken;
} Record;

typedef struct Records {
    Record *record;
    size_t n;
    /* What was met in HH-RLHF files and how often; the records are kept unless said otherwise. */
    size_t diverging_pairs; /* chosen and rejected differ before the last reply */
    size_t empty_replies;   /* a reply without text: a pair with one is left out */
} Records;

/* Reads all of `path`. `limit` > 0 stops after that many records. A record that cannot be used is
 * bad input with file, line and field, except where Records counts it. */
bool records_read(Records *r, const char *path, size_t limit, Err *err);
void records_free(Records *r); /* accepts a zeroed struct */

#endif
