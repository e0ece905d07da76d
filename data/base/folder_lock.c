/* folder_lock.c - flock on a file in the folder. */
#include "data/base/folder_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/mem.h"

/* Is it still what the path names? Who held it before has removed it. */
static bool same_file(int fd, const char *path) {
    struct stat held, named;
    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

enum Try { TRY_HELD, TRY_TAKEN, TRY_GONE, TRY_FAILED };

static enum Try try_once(int *held, const char *folder, const char *path, Err *err) {
    if (!files_mkdirs(folder, err)) return TRY_FAILED;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 && errno == ENOENT) return TRY_GONE;
    if (fd < 0) return files_failed(err, path, "write"), TRY_FAILED;
    bool taken = flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
    if (taken && same_file(fd, path)) return *held = fd, TRY_HELD;
    close(fd);
    return taken ? TRY_GONE : TRY_TAKEN;
}

static enum Try try_long(FolderLock *l, const char *folder, const char *path, Err *err) {
    enum { A_SECOND = 20, PATIENCE = 10 };
    l->found = SIZE_MAX;
    for (int i = 0;; i++) {
        size_t there = files_existing_part(folder); /* who had it may have removed it meanwhile */
        if (there < l->found) l->found = there;
        enum Try now = try_once(&l->fd, folder, path, err);
        if (now == TRY_HELD || now == TRY_FAILED) return now;
        if (i == A_SECOND)
            fprintf(stderr, "sails: %s: another run writes there; waiting for its end\n", folder);
        if (i == PATIENCE * A_SECOND) {
            err_set(err, EXIT_USAGE, "%s: another run writes there; end it, or name another folder",
                    folder);
            return TRY_TAKEN;
        }
        usleep(1000000 / A_SECOND);
    }
}

bool folder_lock(FolderLock *l, const char *folder, Err *err) {
    char *path = files_join(folder, FOLDER_LOCK);
    enum Try end = try_long(l, folder, path, err);
    if (end == TRY_HELD) l->folder = mem_string(folder);
    if (end == TRY_FAILED) files_take_back(folder, l->found);
    free(path);
    return end == TRY_HELD;
}

/* Removed while it is held: whoever waits for it sees that. It may have gone with its folder, and
 * then another's is there. */
void folder_unlock(FolderLock *l) {
    if (!l->folder) return;
    char *path = files_join(l->folder, FOLDER_LOCK);
    if (same_file(l->fd, path)) unlink(path);
    close(l->fd);
    files_take_back(l->folder, l->found);
    free(path), free(l->folder);
    *l = (FolderLock){0};
}
