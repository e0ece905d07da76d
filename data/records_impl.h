/* records_impl.h - what the reader's files share.
 *
 *   records_source.c   bytes of a plain or gzip file, cut into lines and list elements
 *   records_csv.c      CSV rows, as the JSON objects that they stand for
 *   records_json.c     one JSON object to one Record
 *   records_hh.c       HH-RLHF text to a conversation
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

/* A CSV file: its columns, then row by row. */
typedef struct Csv {
    char **column;
    size_t ncolumn;
    Buf text;    /* the fields of a row, one behind the other */
    size_t *end; /* of each field in text */
    size_t n, capacity;
} Csv;
bool csv_open(Csv *csv, Source *s);
bool csv_row(Csv *csv, Source *s, json_t **object, size_t *line);
void csv_free(Csv *csv); /* accepts a zeroed struct */

/* Fills *r from a record's object, and counts in `all`. *keep: false for one that is left out. */
bool record_from_json(Record *r, bool *keep, Records *all, const json_t *object, Source *s,
                      size_t line);
void record_free(Record *r);

/* Appends a turn; the text is copied. */
void chat_add(Chat *chat, enum Role role, const char *text, size_t len);
void chat_free(Chat *chat);

/* HH-RLHF text to turns. A turn of the same role as the one before is joined to it by an empty
 * line; returns how often that was done, -1 if the text does not start with a human turn. */
int hh_parse(Chat *chat, const char *text, size_t len);

#endif
