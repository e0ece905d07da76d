/* temporary.h - files and folders of this process that are not finished, so that they can be taken
 * away when another rank's fault ends it in the middle of its work. */
#ifndef SAILS_TEMPORARY_H
#define SAILS_TEMPORARY_H

#include <stdbool.h>

void temporary_note(const char *path);   /* it is there from now on */
void temporary_forget(const char *path); /* it has been finished, or removed */

/* Puts what is finished in its place and forgets it, unless all was removed before: false then, and
 * where it fails, with errno. */
bool temporary_rename(const char *path, const char *place);

/* Removes all that are noted. Only before the process ends: whoever writes them meets errors. */
void temporary_remove_all(void);

#endif
