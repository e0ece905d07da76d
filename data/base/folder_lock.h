/* folder_lock.h - a folder has one writer: two processes that were given the same one would mix
 * their files.
 *
 * The lock is flock's on a file in the folder, open for writing: between machines that share NFS
 * Linux locks such files alone, no folders. It ends with the process, however that ends; the file
 * of one that was killed stays, and is nobody's. Where a file system knows no locks, everybody gets
 * one. */
#ifndef SAILS_FOLDER_LOCK_H
#define SAILS_FOLDER_LOCK_H

#include <stddef.h>

#include "data/base/err.h"

#define FOLDER_LOCK ".lock" /* the file, while the folder is locked */

typedef struct FolderLock {
    int fd;
    char *folder; /* its path; NULL: no lock is held */
    size_t found; /* so much of the path was there; what was made goes again while it is empty */
} FolderLock;

/* Makes the folder, and those that it is in, where they are missing. While another process holds
 * it, waits for ten seconds and says so, since a job that was killed may take a moment to end; then
 * refuses (EXIT_USAGE). */
bool folder_lock(FolderLock *l, const char *folder, Err *err);
void folder_unlock(FolderLock *l); /* accepts a zeroed lock */

#endif
