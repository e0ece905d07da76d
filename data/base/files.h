/* files.h - reading and writing whole files so that nothing is ever half there. */
#ifndef SAILS_FILES_H
#define SAILS_FILES_H

#include <stdio.h>

#include <jansson.h>

#include "data/base/err.h"

/* A file under construction: written beside its place as PATH.tmp.PID, and renamed into place by
 * files_commit after fsync. Until then an earlier file of that name is untouched. A symbolic link
 * is followed. A device or pipe (/dev/stdout) is written directly: there is nothing to rename. */
typedef struct OutFile OutFile;
bool files_create(OutFile **f, const char *path, Err *err);
FILE *files_stream(OutFile *f);
bool files_put(OutFile *f, const void *data, size_t n, Err *err); /* fwrite that says what failed */
bool files_hole(OutFile *f, size_t n,
                Err *err);               /* n zeros that take no room, where disks have holes */
bool files_commit(OutFile *f, Err *err); /* frees f, also on failure; checks every write error */
void files_abandon(OutFile *f);          /* removes the temporary; NULL is allowed */

/* Says, from errno, that a file cannot be opened, written ...: why, and what to do. A full or
 * failing disk is EXIT_INTERNAL, everything else EXIT_INPUT: it is about the path that was given.
 * Returns false. */
bool files_failed(Err *err, const char *path, const char *doing);

/* False with the reason when files_create would fail now: to be asked before hours of work whose
 * result goes there. Nothing changes; a device or pipe is taken at its word. */
bool files_can_create(const char *path, Err *err);
bool files_can_make_folder(const char *path, Err *err); /* the same for files_mkdirs */

bool files_write(const char *path, const void *data, size_t n, Err *err); /* the three in one */

/* The whole file, from malloc, with a NUL behind its n bytes. More than `limit` bytes are refused
 * before anything is read where the size is known, else while reading (pipes). */
bool files_read(char **data, size_t *n, const char *path, size_t limit, Err *err);

bool files_mkdirs(const char *path, Err *err); /* all missing folders; there already: fine */
bool files_exists(const char *path);

/* Length of the longest part of a path, up to a slash, that is there; 0: none of it is. */
size_t files_existing_part(const char *path);

/* Removes the folders of a path that end behind its first `found` bytes, the last one first, up to
 * one in which there is something: those that were made since. */
void files_take_back(const char *path, size_t found);

/* "google/gemma-2-2b" and nothing there of that name: says, and gives false, that sails fetches
 * nothing from the hub, and how to. */
bool files_no_hub_id(const char *path, Err *err);

/* False, with what a folder was expected to hold, when the path is none. */
bool files_need_folder(const char *path, const char *holding, Err *err);

/* The names in a folder reach the disk. False, with errno, when that failed; file systems that
 * cannot do it are taken at their word. */
bool files_sync_folder(const char *folder);

/* The same for a folder and all that it is in: where it is new, they may be too. */
bool files_sync_path(const char *folder);

bool files_remove_tree(const char *path); /* a file, or a folder with all in it; false with errno */
char *files_join(const char *folder, const char *name); /* malloc */

/* SHA-256 of a file as 64 hex digits and a NUL. */
bool files_sha256(char hex[65], const char *path, Err *err);

/* JSON by jansson, strict: UTF-8, no duplicate keys, nothing behind the value. Want of memory stops
 * the process, in all of jansson, as it does elsewhere: no file is to blame. The message names
 * file, line and column. A string value that holds NUL (\u0000) is refused unless the caller says
 * that it takes lengths by json_string_length: strlen would cut it silently. */
enum JsonNul { JSON_NUL_REFUSED, JSON_NUL_ALLOWED };
bool files_parse_json(json_t **value, const char *text, size_t n, enum JsonNul nul,
                      const char *where, Err *err);
bool files_read_json(json_t **value, const char *path, size_t limit, Err *err); /* NUL refused */
bool files_write_json(const char *path, const json_t *value, Err *err);         /* indented */

#endif
