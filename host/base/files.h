/* files.h - reading and writing whole files so that nothing is ever half there. */
#ifndef SAILS_FILES_H
#define SAILS_FILES_H

#include <stdio.h>

#include <jansson.h>

#include "host/base/err.h"

/* A file under construction: written beside its place as PATH.tmp.PID, and renamed into place by
 * files_commit after fsync. Until then an earlier file of that name is untouched. */
typedef struct OutFile OutFile;
bool files_create(OutFile **f, const char *path, Err *err);
FILE *files_stream(OutFile *f);
bool files_commit(OutFile *f, Err *err); /* frees f, also on failure; checks every write error */
void files_abandon(OutFile *f);          /* removes the temporary; NULL is allowed */

bool files_write(const char *path, const void *data, size_t n, Err *err); /* the three in one */
bool files_read(char **data, size_t *n, const char *path, size_t limit,
                Err *err); /* malloc, NUL-terminated */
bool files_mkdirs(const char *path, Err *err);
bool files_exists(const char *path);
char *files_join(const char *folder, const char *name); /* malloc */

/* SHA-256 of a file as 64 hex digits and a NUL. */
bool files_sha256(char hex[65], const char *path, Err *err);

/* JSON by jansson, strict: UTF-8, no duplicate keys, nothing behind the value. The message names
 * file, line and column. `limit` in bytes is checked before anything is read. */
bool files_read_json(json_t **value, const char *path, size_t limit, Err *err);
bool files_write_json(const char *path, const json_t *value, Err *err);

#endif
