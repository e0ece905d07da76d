/* temporary.h - files and folders of this process that are not finished, so that they can be taken
 * away when another rank's fault ends it in the middle of its work. */
#ifndef SAILS_TEMPORARY_H
#define SAILS_TEMPORARY_H

void temporary_note(const char *path);   /* it is there from now on */
void temporary_forget(const char *path); /* it has been finished, or removed */

/* Removes all that are noted. Only before the process ends: whoever writes them meets errors. */
void temporary_remove_all(void);

#endif
