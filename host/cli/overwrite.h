/* overwrite.h - no command writes over what it reads. */
#ifndef SAILS_OVERWRITE_H
#define SAILS_OVERWRITE_H

#include "host/cli/args.h"

/* False (EXIT_USAGE) when an output of the command is one of its inputs: the same file or folder,
 * by whatever name, link or hard link, a file within a folder that is read, or a file that an
 * output folder would receive. Which settings are read and which written is said by their rows in
 * settings.h, so that this holds for every command. */
bool overwrite_check(const Args *a, Err *err);

#endif
