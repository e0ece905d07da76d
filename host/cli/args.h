/* args.h - command line and recipe to Settings.
 *
 *   sails COMMAND [RECIPE.yaml] [--flag value | --flag=value | --set section.key=value]...
 *
 * Defaults first, then the recipe, then the flags. A switch may stand alone (--json) or take true
 * or false. Everything unknown, given twice or out of range is EXIT_USAGE with what was expected
 * and, for names, the nearest one that exists. A file to write that could not be is EXIT_INPUT.
 * Paths in a recipe are seen from its folder, those of flags from where sails was started; paths.h
 * says what else they may be. An output that is an input is refused (overwrite.h). */
#ifndef SAILS_ARGS_H
#define SAILS_ARGS_H

#include <stdio.h>

#include "data/base/err.h"
#include "host/cli/settings.h"

typedef struct Command Command;

enum SettingSource { FROM_DEFAULT, FROM_RECIPE, FROM_FLAG };

typedef struct Args {
    Settings s;
    enum SettingSource source[SETTINGS_COUNT]; /* same order as settings_table */
    const Command *command;
    const char *recipe; /* path; NULL: none */
    const char **path;  /* POSITIONAL_PATHS */
    int npath;
    struct Comm *comm; /* the job's other ranks, set by main; NULL: none */
    bool help;         /* --help was given: print it and stop; nothing else is checked */
    char **text;       /* owns the texts that s points to */
    int ntext;
} Args;

/* argv[0..argc) is what follows the command's name. */
bool args_parse(Args *a, const Command *c, int argc, char **argv, Err *err);
void args_free(Args *a); /* accepts a zeroed struct */

/* Settings alone: all at their defaults; then one key set from text. `where` starts the message
 * of a bad value ("recipe.yaml: line 3", "--lr"). */
void args_defaults(Args *a);
bool args_set(Args *a, int setting, const char *value, const char *where, Err *err);
int args_find(const char *key); /* index in settings_table of a dotted key, or -1 */

void args_help(const Command *c, FILE *f);

/* Writes the settings that the command takes, but for those DISPLAY, as a recipe that reads back to
 * the same values, and a rate that nobody gave to none: each method has its own. Paths are written
 * so that they lead to the same place from anywhere. */
void args_write_recipe(const Args *a, FILE *f);

/* The candidate nearest to `word` by edit distance (insert, delete, replace, swap), or NULL when
 * none is near. The distance allowed grows with the length. */
const char *nearest_name(const char *word, const char *const *candidate, int n);

#endif
