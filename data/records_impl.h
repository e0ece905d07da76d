/* records_impl.h - what the reader's files share.
 *
 *   records_source.c   bytes of a plain or gzip file, cut into lines and list elements
 *   records_csv.c      CSV rows, as the JSON objects that they stand for
 *   records_json.c     one JSON object to one Record
 *   records_fields.c   the table of forms; which fields of an object have been read
 *   records_turns.c    a conversation, turn by turn
 *   records_chat.c     texts and lists of messages to a conversation
 *   records_hh.c       HH-RLHF text to a conversation
 *   suites.c           files of published suites, whose columns have names of their own
 *   tasks.c            files of multiple-choice tasks
 *   records.c          files to Records */
#ifndef SAILS_RECORDS_IMPL_H
#define SAILS_RECORDS_IMPL_H

#include <jansson.h>

#include "data/buf.h"
#include "data/records.h"

enum { RECORD_MAX_BYTES = 64 << 20 };

typedef struct Source {
    const char *path; /* borrowed */
    void *gz;
    unsigned char *bytes; /* [at, n) are read but not yet used */
    size_t at, n;
    size_t line;  /* of the next byte, from 1 */
    size_t total; /* bytes unpacked so far */
    bool in_list; /* the '[' of a JSON list is taken */
    bool failed;  /* err is set */
    Err *err;
} Source;

bool source_open(Source *s, const char *path, Err *err);
void source_close(Source *s);

/* The next byte without or with taking it; -1: the end, or a failure (s->failed). */
int source_peek(Source *s);
int source_next(Source *s);

/* The next line that is not blank, without its end. *line receives its number. False: no more. */
bool source_line(Source *s, Buf *text, size_t *line);

/* The next element of the JSON list that the file is. */
bool source_element(Source *s, Buf *text, size_t *line);

/* A byte for `text`, refused when the record gets too large. */
bool source_keep(Source *s, Buf *text, char c, size_t line);

/* Fails with "PATH:LINE: message". Returns false. */
__attribute__((format(printf, 3, 4))) bool source_fail(Source *s, size_t line, const char *fmt,
                                                       ...);

/* Fails: lines end in CR alone. */
bool source_lone_cr(Source *s, size_t line);

/* A CSV file: its columns, then row by row. */
typedef struct Csv {
    char **column;
    size_t ncolumn;
    Buf text;    /* the fields of a row, one behind the other */
    size_t *end; /* of each field in text */
    size_t n, capacity;
} Csv;
/* `column`: one that must be there, in lower case; NULL: one that makes a record. */
bool csv_open(Csv *csv, Source *s, const char *column);
/* For a file without a header: its columns are these. */
void csv_columns(Csv *csv, const char *const *column, size_t n);
bool csv_row(Csv *csv, Source *s, json_t **object, size_t *line);
void csv_free(Csv *csv); /* accepts a zeroed struct */

/* The names of an object's fields as csv_open sees them: is one of them enough for a record, or is
 * it `column`? */
bool fields_make_record(char *const *name, size_t n);
bool fields_list(char *const *name, size_t n, const char *column);

/* Takes the object that starts in a line. False: that is enough, or a failure (s->failed). */
typedef bool row_sink(void *context, const json_t *object, Source *s, size_t line);

/* The objects of a file, in order; a CSV file's header is checked by `column`, as csv_open does.
 * *end receives the line that was reached. */
bool rows_each(const char *path, const char *column, row_sink *sink, void *context, size_t *end,
               Err *err);

/* Appends a record to all, whose array has room for so many. */
void records_add(Records *all, size_t *capacity, const Record *r);

/* The object being read, and which of its fields have been. */
enum { FIELDS_TAKEN = 24 };
typedef struct Fields {
    Source *s;
    size_t line;
    Records *all;
    json_t *object; /* its keys in lower case */
    const char *taken[FIELDS_TAKEN];
    int ntaken;
} Fields;

/* Fails for no object, and for two keys that differ in case alone. */
bool fields_open(Fields *f, const json_t *object, Records *all, Source *s, size_t line);
void fields_close(Fields *f);

/* The field's value, NULL without one; it counts as read from now on. */
const json_t *fields_take(Fields *f, const char *name);
bool fields_has(const Fields *f, const char *name);

/* Nothing to lose: absent, null, white space, an empty list or object. */
bool fields_blank(const json_t *value);

/* Fails by the name of a field that was not taken and would change what the model sees, and counts
 * the others in Records.ignored. */
bool fields_check_rest(const Fields *f);

/* Fails with "PATH:LINE: "FIELD": message". "messages[1].role" is a field and a place in it.
 * Returns false. */
__attribute__((format(printf, 3, 4))) bool fields_fail(const Fields *f, const char *field,
                                                       const char *fmt, ...);

/* Fills *r from a record's object, and counts in `all`. *keep: false for one that is left out. */
bool record_from_json(Record *r, bool *keep, Records *all, const json_t *object, Source *s,
                      size_t line);
void record_free(Record *r);

/* Appends a turn; the text is copied. */
void chat_add(Chat *chat, enum Role role, const char *text, size_t len);
void chat_free(Chat *chat);
bool chat_blank(const Turn *turn); /* nothing but white space */

/* These append a field's value to a conversation, or fail by the field's name:
 *   messages  a list of {"role","content"} or {"from","value"}
 *   prompt    the user's side: a text, HH text up to the reply, or messages; ends with a user's
 *   reply     the model's answer: a text, or messages
 *   hh        HH text
 *   history   a list of [user, assistant] */
bool chat_add_messages(Chat *chat, const json_t *list, const char *field, const Fields *f);
bool chat_add_prompt(Chat *chat, const json_t *prompt, const char *field, const Fields *f);
bool chat_add_reply(Chat *chat, const json_t *reply, const char *field, const Fields *f);
bool chat_add_hh(Chat *chat, const json_t *text, const char *field, const Fields *f);
bool chat_add_history(Chat *chat, const json_t *history, const Fields *f);

/* Are the turns of `start` the first of `chat`, white space around them aside? */
bool chat_starts_with(const Chat *chat, const Chat *start);

/* Is the list's first message the model's? */
bool messages_start_with_model(const json_t *list);

/* HH-RLHF text to turns. A turn of the same role as the one before is joined to it by an empty
 * line; returns how often that was done, -1 if the text does not start with a human turn, with or
 * without the empty line in front. */
int hh_parse(Chat *chat, const char *text, size_t len);

/* Is the text a whole conversation: "\n\nHuman: .."; without that empty line "Human: .." and an
 * assistant's turn? */
bool hh_whole(const char *text, size_t len);

/* The marker that the text starts with ("Human:"), white space aside; NULL: none. */
const char *hh_leading(const char *text, size_t len);

/* Does a marker stand within the text? */
bool hh_inside(const char *text, size_t len);

#endif
