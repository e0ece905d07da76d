/* records.h - the data files that users have, read into one form.
 *
 * JSONL, one JSON list, or CSV (RFC 4180), plain or .gz, by content and not by name. The forms of a
 * record are those of record_forms, in order: the first whose fields are there is taken. Names of
 * fields count in any case; a CSV file has them as columns.
 *
 * No field that would change what the model sees is dropped: a form takes it, it repeats what the
 * conversation says anyway, or the record is refused by the field's name. Other fields are ignored;
 * those that are not plainly about the record (its source, its score ..) are named in
 * Records.ignored. Roles are user (human) and assistant (model, gpt); they alternate and start with
 * the user, as Gemma's template demands, which knows no system role. Text that another template
 * has rendered already is refused, but for HH-RLHF's, which is read. */
#ifndef SAILS_RECORDS_H
#define SAILS_RECORDS_H

#include <stddef.h>
#include <stdint.h>

#include "data/base/err.h"

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

/* A line of the table of forms, as --help prints it. */
typedef struct RecordHelp {
    const char *fields, *meaning;
    const char *example; /* a record of this form, in JSON */
    enum RecordForm form;
} RecordHelp;
extern const RecordHelp record_forms[]; /* ends with fields NULL */

typedef struct Records {
    Record *record;
    size_t n;
    /* What was met and how often; the records are kept unless said otherwise. */
    size_t diverging_pairs; /* chosen and rejected differ before the final reply */
    size_t empty_replies;   /* no final reply, or white space: pairs and chats left out */
    size_t unsafe_pairs;    /* pairs whose safer reply is marked unsafe: left out */
    size_t merged_turns;    /* HH turns of the same role in a row, joined by an empty line */
    size_t marked_replies;  /* replies that hold "\n\nHuman:" or "\n\nAssistant:" */
    char *ignored;          /* names of fields that were ignored, with commas; NULL: none */
} Records;

/* Reads all of `path`. `limit` > 0 stops after that many records. A record that cannot be used is
 * bad input with file, line and field, except where Records counts it; so is a file without any
 * record. One record may have 64 MB. */
bool records_read(Records *r, const char *path, size_t limit, Err *err);

/* Frees the records i without keep[i]; the others move up. */
void records_keep(Records *r, const bool *keep);
void records_free(Records *r); /* accepts a zeroed struct */

#endif
