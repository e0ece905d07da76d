/* verdicts.h - what was judged and paid for stays: a file of verdicts, one JSON object a line.
 *
 *   {"key": SHA-256 of model, rubric, request and response, "end": "verdict"|"refused"|..,
 *    "score": 1..5|null, "reason", "model", "rubric": SHA-256, "dialect", "in", "out": tokens}
 *
 * Lines are only ever added, each by one write, and reach the disk within a second or with
 * verdicts_close; the last line of a key counts. What a killed process has left of its last line is
 * not a verdict: it is said, and removed when the next line is added. One process writes at a
 * time. */
#ifndef SAILS_VERDICTS_H
#define SAILS_VERDICTS_H

#include <jansson.h>

#include "data/base/err.h"
#include "host/judge/completion.h"

typedef struct Verdicts {
    json_t *by_key; /* key -> its line */
    char *path;
    int fd;      /* below 0: it is only read */
    size_t torn; /* bytes behind the last whole line */
    double synced;
} Verdicts;

/* Reads the file; one that is not there is empty. EXIT_INPUT: a line that is none of these. */
bool verdicts_read(Verdicts *v, const char *path, Err *err);

/* The same, makes it if it is not there, and holds it; EXIT_USAGE: another process does. */
bool verdicts_open(Verdicts *v, const char *path, Err *err);

/* The line of a key, borrowed; NULL: there is none. */
const json_t *verdicts_find(const Verdicts *v, const char *key);
enum ReplyEnd verdicts_end(const json_t *line);

bool verdicts_add(Verdicts *v, const char *key, const CompletionReply *r, const char *model,
                  const char *dialect, Err *err);

/* Waits for the disk; false if that failed and ok was true; returns ok && done. Accepts a zeroed
 * struct. */
bool verdicts_close(Verdicts *v, bool ok, Err *err);

#endif
