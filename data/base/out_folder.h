/* out_folder.h - files that belong together: in their folder all of them appear, or none.
 *
 * They are written into FOLDER/tmp.PID, some in folders of their own, and moved up, over earlier
 * files of the same names, when the last of them is complete. Until then earlier files are
 * untouched; other files of the folder stay as they are. What can fail late - a full disk, a
 * signal, numbers gone bad - fails before the first move; only a crash between two moves could
 * leave files of both. */
#ifndef SAILS_OUT_FOLDER_H
#define SAILS_OUT_FOLDER_H

#include "data/base/err.h"

typedef struct OutFolder OutFolder;

bool out_folder_open(OutFolder **o, const char *folder, Err *err); /* makes it where missing */
const char *out_folder_path(const OutFolder *o);                   /* where to write the files */
bool out_folder_commit(OutFolder *o, Err *err);                    /* frees o, also on failure */

/* Removes what was written, and the folders that out_folder_open made. NULL is allowed. */
void out_folder_abandon(OutFolder *o);

/* Removes FOLDER/tmp.PID of processes that are no more: they were killed. */
void out_folder_sweep(const char *folder);

/* The one or the other: returns ok && done. */
bool out_folder_close(OutFolder *o, bool ok, Err *err);

#endif
