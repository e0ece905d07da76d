/* folder_lock.c - flock on a folder. */
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

/* Is it still what the path names? Who held it before may have removed it. */
static bool same_folder(int fd, const char *folder) {
    struct stat held, named;
    return fstat(fd, &held) == 0 && stat(folder, &named) == 0 && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

enum Try { TRY_HELD, TRY_TAKEN, TRY_GONE, TRY_FAILED };

static enum Try try_once(FolderLock *l, const char *folder, size_t found, Err *err) {
    if (!files_mkdirs(folder, err)) return TRY_FAILED;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return TRY_GONE;
    if (fd < 0) return files_failed(err, folder, "read"), TRY_FAILED;
    bool taken = flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
    if (taken && same_folder(fd, folder)) {
        *l = (FolderLock){.fd = fd, .found = found, .folder = mem_string(folder)};
        return TRY_HELD;
    }
    close(fd);
    return taken ? TRY_GONE : TRY_TAKEN;
}

bool folder_lock(FolderLock *l, const char *folder, Err *err) {
    enum { A_SECOND = 20, PATIENCE = 10 };
    size_t found = SIZE_MAX;
    for (int i = 0;; i++) {
        size_t there = files_existing_part(folder); /* who had it may have removed it meanwhile */
        if (there < found) found = there;
        enum Try now = try_once(l, folder, found, err);
        if (now == TRY_FAILED) files_take_back(folder, found);
        if (now == TRY_HELD || now == TRY_FAILED) return now == TRY_HELD;
        if (i == A_SECOND)
            fprintf(stderr, "sails: %s: another run writes there; waiting for its end\n", folder);
        if (i == PATIENCE * A_SECOND)
            return err_set(err, EXIT_USAGE,
                           "%s: another run writes there; end it, or name another folder", folder);
        usleep(1000000 / A_SECOND);
    }
}

void folder_unlock(FolderLock *l) {
    if (!l->folder) return;
    files_take_back(l->folder, l->found);
    close(l->fd);
    free(l->folder);
    *l = (FolderLock){0};
}
