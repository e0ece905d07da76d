/* json_lines.h - JSONL out: one compact object a line, to a file that appears whole or to stdout.
 */
#ifndef SAILS_JSON_LINES_H
#define SAILS_JSON_LINES_H

#include <jansson.h>

#include "data/base/files.h"

typedef struct JsonLines {
    OutFile *file; /* NULL: stdout */
    bool open;
} JsonLines;

bool json_lines_open(JsonLines *j, const char *path, Err *err); /* "": stdout */
bool json_lines_put(JsonLines *j, json_t *value, Err *err);     /* takes the reference */
bool json_lines_close(JsonLines *j, bool ok,
                      Err *err); /* !ok: removes the file; returns ok && done */

/* Takes the object of a line; `where` names file and line and starts the message of a failure,
 * which ends the reading. */
typedef bool json_line_sink(void *context, json_t *line, const char *where, Err *err);

/* Every line of a JSONL file in order; empty lines are skipped. */
bool json_lines_each(const char *path, json_line_sink *sink, void *context, Err *err);

/* The same as an array of objects. */
bool json_lines_read(json_t **array, const char *path, Err *err);

/* x as a number, or null where it is none: JSON has no NaN and no infinity. */
json_t *json_number(double x);

/* The member `key` of a line's object as text: absent gives `fallback` (NULL: it must be there),
 * another type is bad input. `where` starts the message. */
bool json_text(const char **text, const json_t *object, const char *key, const char *fallback,
               const char *where, Err *err);

#endif
