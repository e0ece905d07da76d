#include "host/base/out_folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "host/base/files.h"
#include "host/base/mem.h"

struct OutFolder {
    char *folder, *staging;
    bool made; /* folder was not there */
};

static void release(OutFolder *o) {
    free(o->staging);
    free(o->folder);
    free(o);
}

/* Calls `each` with the path of every file in the staging folder and of its place in the folder,
 * until one returns false. */
typedef bool each_file(const char *from, const char *to);

static bool for_each(const OutFolder *o, each_file *each) {
    DIR *d = opendir(o->staging);
    bool ok = d != NULL;
    for (struct dirent *e; ok && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *from = files_join(o->staging, e->d_name), *to = files_join(o->folder, e->d_name);
        ok = each(from, to);
        free(from), free(to);
    }
    int why = errno;
    if (d) closedir(d);
    errno = why;
    return ok;
}

static bool remove_file(const char *from, const char *to) {
    (void)to;
    return unlink(from) == 0;
}

static bool move_file(const char *from, const char *to) {
    return rename(from, to) == 0;
}

bool out_folder_open(OutFolder **out, const char *folder, Err *err) {
    char name[32];
    snprintf(name, sizeof name, "tmp.%ld", (long)getpid());
    OutFolder *o = mem_array(1, sizeof *o);
    o->folder = mem_string(folder);
    o->staging = files_join(folder, name);
    o->made = !files_exists(folder);
    if (files_mkdirs(o->staging, err)) {
        for_each(o, remove_file); /* left by an earlier process of this number */
        *out = o;
        return true;
    }
    release(o);
    return false;
}

const char *out_folder_path(const OutFolder *o) {
    return o->staging;
}

bool out_folder_commit(OutFolder *o, Err *err) {
    bool ok = for_each(o, move_file);
    if (!ok)
        err_set(err, EXIT_INPUT, "%s: its new files cannot be moved into it: %s", o->folder,
                strerror(errno));
    else if (rmdir(o->staging) != 0)
        ok = err_set(err, EXIT_INTERNAL, "%s: cannot be removed: %s", o->staging, strerror(errno));
    if (ok) files_sync_folder(o->folder);
    if (ok)
        release(o);
    else
        out_folder_abandon(o);
    return ok;
}

void out_folder_abandon(OutFolder *o) {
    if (!o) return;
    for_each(o, remove_file);
    rmdir(o->staging);
    if (o->made) rmdir(o->folder); /* fails, rightly, where others have put something in */
    release(o);
}

bool out_folder_close(OutFolder *o, bool ok, Err *err) {
    if (ok) return out_folder_commit(o, err);
    out_folder_abandon(o);
    return false;
}
