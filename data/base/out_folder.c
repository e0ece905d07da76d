/* out_folder.c - a folder that appears whole or not at all. */
#include "data/base/out_folder.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/temporary.h"

struct OutFolder {
    char *folder, *staging;
    size_t found; /* so much of the folder's path was there */
};

static void release(OutFolder *o) {
    temporary_forget(o->staging);
    free(o->staging);
    free(o->folder);
    free(o);
}

/* Calls `each` with the path of every entry of a folder and of its place in another, until one
 * returns false. */
typedef bool each_entry(const char *from, const char *to);

static bool for_each(const char *folder, const char *other, each_entry *each) {
    DIR *d = opendir(folder);
    bool ok = d != NULL;
    for (struct dirent *e; ok && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *from = files_join(folder, e->d_name), *to = files_join(other, e->d_name);
        ok = each(from, to);
        free(from), free(to);
    }
    int why = errno;
    if (d) closedir(d);
    errno = why;
    return ok;
}

static bool is_folder(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool remove_entry(const char *from, const char *to) {
    if (!is_folder(from)) return unlink(from) == 0;
    return for_each(from, to, remove_entry) && rmdir(from) == 0;
}

static bool move_entry(const char *from, const char *to) {
    if (!is_folder(from)) return rename(from, to) == 0;
    bool there = mkdir(to, 0777) == 0 || errno == EEXIST;
    return there && for_each(from, to, move_entry) && rmdir(from) == 0;
}

bool out_folder_open(OutFolder **out, const char *folder, Err *err) {
    char name[32];
    snprintf(name, sizeof name, "tmp.%ld", (long)getpid());
    OutFolder *o = mem_array(1, sizeof *o);
    o->folder = mem_string(folder);
    o->staging = files_join(folder, name);
    o->found = files_existing_part(folder);
    if (files_mkdirs(o->staging, err)) {
        for_each(o->staging, o->folder,
                 remove_entry); /* left by an earlier process of this number */
        temporary_note(o->staging);
        *out = o;
        return true;
    }
    files_take_back(o->folder, o->found);
    release(o);
    return false;
}

const char *out_folder_path(const OutFolder *o) {
    return o->staging;
}

bool out_folder_commit(OutFolder *o, Err *err) {
    bool ok = for_each(o->staging, o->folder, move_entry);
    if (!ok)
        files_failed(err, o->folder, "move new files into this folder");
    else if (rmdir(o->staging) != 0)
        ok = files_failed(err, o->staging, "remove");
    else if (!files_sync_path(o->folder))
        ok = files_failed(err, o->folder, "write");
    if (ok)
        release(o);
    else
        out_folder_abandon(o);
    return ok;
}

void out_folder_abandon(OutFolder *o) {
    if (!o) return;
    for_each(o->staging, o->folder, remove_entry);
    rmdir(o->staging);
    files_take_back(o->folder, o->found);
    release(o);
}

static bool sweep_entry(const char *path, const char *other) {
    const char *slash = strrchr(path, '/');
    int pid, end = 0;
    (void)other;
    if (sscanf(slash, "/tmp.%9d%n", &pid, &end) != 1 || slash[end] || pid <= 0) return true;
    if (kill(pid, 0) != 0 && errno == ESRCH) files_remove_tree(path);
    return true;
}

void out_folder_sweep(const char *folder) {
    for_each(folder, folder, sweep_entry);
}

bool out_folder_close(OutFolder *o, bool ok, Err *err) {
    if (ok) return out_folder_commit(o, err);
    out_folder_abandon(o);
    return false;
}
