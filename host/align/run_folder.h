/* run_folder.h - a run folder: what was asked, from what, and which stages are done.
 *
 *   recipe.yaml            the resolved recipe: running it again repeats the run
 *   manifest.json          versions, machine, seed, inputs with SHA-256, our own defaults, stages
 *   stages/NAME.json       stamp of a finished stage: its key, its outputs with SHA-256, its result
 *   (the stages' outputs)
 *
 * A stage's key is a JSON object of everything that its outputs depend on: settings, hashes of the
 * files read (under the roles that they play: where they lie does not matter), the device, and the
 * SHA-256 of the program file itself and of the plug-in that the device came from - a version would
 * not tell a rebuilt program with other numerics. A stage whose stamp has the same key and whose
 * outputs are there unchanged is not run again. Libraries are in the manifest but not in the key.
 * What was kept of an unfinished stage by another program or plug-in is removed, with a line.
 */
#ifndef SAILS_RUN_FOLDER_H
#define SAILS_RUN_FOLDER_H

#include <jansson.h>

#include "host/cli/args.h"
#include "data/base/err.h"
#include "data/base/folder_lock.h"
#include "host/stage/result_key.h"

typedef struct Run {
    const Args *args;   /* borrowed */
    const char *folder; /* borrowed */
    char program[65];   /* SHA-256 of this program */
    char plugin[65];    /* and of the device's plug-in; "": none */
    json_t *hashes;     /* path -> {sha256, state, hashed}, so that no file is hashed twice */
    json_t *manifest;
    FolderLock lock; /* from where the folder is there */
    bool begun;
    bool follows; /* of a rank above 0: nothing is read or written, all stages are to do */
} Run;

/* Reads what an earlier run left in the folder and writes nothing. A folder of another run may be
 * continued: stages that do not fit are run again. A path that holds something else than a run is
 * refused. `plugin` is the file of the device's plug-in, NULL: none. */
bool run_open(Run *r, const Args *a, const char *plugin, Err *err);
void run_close(Run *r); /* accepts a zeroed Run */

/* Makes the folder with `subfolders` (NULL-terminated) and writes recipe and manifest: when all is
 * checked, before the first output. Later calls do nothing. */
bool run_begin(Run *r, const char *const *subfolders, Err *err);
bool run_write_manifest(Run *r, Err *err);
char *run_path(const Run *r, const char *name); /* folder/name; malloc */

/* SHA-256 of an input. The manifest's is taken when the path still leads to the same file and
 * nothing has been done to it: where links lead, device, inode, size, and both times to the
 * nanosecond agree, and the file had been left alone for a while when it was hashed. */
bool run_hash(Run *r, char hex[65], const char *path, Err *err);

/* The same, for keys. Borrows r. */
Hasher run_hasher(Run *r);

enum { STAGE_NAME = 112 };
typedef struct Stage {
    char name[STAGE_NAME];
    json_t *key;    /* result_key.h's, filled by the calls below before stage_done */
    json_t *result; /* of a done stage: what stage_finish was given; borrowed by readers */
    double start;
} Stage;

void stage_begin(Stage *st, const Run *r, const char *name);
void stage_free(Stage *st); /* accepts a zeroed Stage */

/* Adds to the key: the settings of a section, save those by which files are named (their contents
 * count) or results shown, and the keys in `except` (NULL ends); one setting by its key ("seed"); a
 * text; an input file in its role ("data"); the configuration and the weights of a model folder. */
void stage_section(Stage *st, const Settings *s, const char *section, const char *const *except);
void stage_setting(Stage *st, const Settings *s, const char *key);
void stage_text(Stage *st, const char *name, const char *value);
bool stage_file(Stage *st, Run *r, const char *role, const char *path, Err *err);
bool stage_input(Stage *st, Run *r, const char *role, const char *path, Err *err); /* or folder */
bool stage_model(Stage *st, Run *r, const char *folder, Err *err);

/* True when the stage need not run. `outputs` are names within the folder, NULL-terminated. */
bool stage_done(Stage *st, Run *r, const char *const *outputs);

/* Stamps the stage; takes the reference of `result` (an object; NULL: empty). */
bool stage_finish(Stage *st, Run *r, const char *const *outputs, json_t *result, Err *err);

#endif
