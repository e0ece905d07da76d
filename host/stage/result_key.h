/* result_key.h - what a result depends on, as JSON: settings by value, and files by the SHA-256 of
 * their contents, under the roles that they play: where they lie does not matter.
 *
 *   {"settings": {"train.lr": "2e-4", ...}, "inputs": {"data": "0f3c...", ...}, (others' members)}
 */
#ifndef SAILS_RESULT_KEY_H
#define SAILS_RESULT_KEY_H

#include <jansson.h>

#include "host/cli/args.h"
#include "kernels/exec.h"

/* How files are hashed; a run folder remembers what it has hashed before. */
typedef struct Hasher {
    bool (*hash)(void *context, char hex[65], const char *path, Err *err);
    void *context; /* borrowed */
} Hasher;
extern const Hasher hasher_plain; /* reads every file */

json_t *result_key_new(void);
void result_key_setting(json_t *key, const Settings *s, const Setting *row);
void result_key_text(json_t *key, const char *name, const char *value);

/* A file in its role, "data". Of a folder the files that make up a model or an adapter, each in the
 * role ROLE/NAME: configurations and weights, or a suite: its
 * categories; others do not matter. _input: either. */
bool result_key_file(json_t *key, const Hasher *h, const char *role, const char *path, Err *err);
bool result_key_folder(json_t *key, const Hasher *h, const char *role, const char *folder,
                       Err *err);
bool result_key_input(json_t *key, const Hasher *h, const char *role, const char *path, Err *err);

/* All that the result of a command depends on: its settings, but for those by which it is worked
 * out and kept, and the files that it reads; SAEs are not among them (saes_key). */
bool result_key_command(json_t *key, const Args *a, const Exec *ex, const Hasher *h, Err *err);

/* True when two keys differ; then `what` is the first difference in words: "train.lr was 0.0002, is
 * 0.001", "the content of data has changed". */
bool result_key_differs(const json_t *was, const json_t *is, char *what, size_t room);

/* The same for the texts that others have put into a key: program and plug-in of a stage's
 * (run_folder.h). "program was 5c0d.., is 91ee..". */
bool result_key_maker_differs(const json_t *was, const json_t *is, char *what, size_t room);

#endif
