/* paths.h - what a path that a user wrote stands for. All results are from malloc. */
#ifndef SAILS_PATHS_H
#define SAILS_PATHS_H

#include "data/base/err.h"

/* "~" and "~/x" in the user's home, where a shell has not seen to it (--key=~/x, recipes). */
char *path_home(const char *path);

/* A path in a recipe is seen from the recipe's folder. */
char *path_beside(const char *recipe, const char *path);

/* The same path from anywhere; "" stays as it is. */
char *path_absolute(const char *path);

/* Within the cache of the Hugging Face hub a repository is a folder models--ORG--NAME
 * (datasets--..), whose files lie in snapshots/VERSION. A path to or through such a folder leads to
 * the version of refs/main, or to the only one; false with the choice when there are several. */
bool path_snapshot(char **to, const char *path, Err *err);

#endif
