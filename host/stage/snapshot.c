/* snapshot.c - writing such a folder, finding the newest that is whole, and checking it. */
#include "host/stage/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/temporary.h"
#include "host/stage/keeping.h"
#include "host/stage/result_key.h"
#include "host/stage/seal.h"

#define FORMAT "sails checkpoint 1"
enum { MANIFEST_BYTES = 16 << 20 };

/* ------------------------------------------------------------------------------- writing -- */

static bool describe_file(json_t *files, const char *folder, const char *name, Err *err) {
    struct stat st;
    char hex[65], *path = files_join(folder, name);
    bool ok =
        files_sha256(hex, path, err) && (stat(path, &st) == 0 || files_failed(err, path, "read"));
    if (ok)
        json_object_set_new(
            files, name, json_pack("{s:I, s:s}", "bytes", (json_int_t)st.st_size, "sha256", hex));
    free(path);
    return ok;
}

static bool write_manifest(const Snapshot *s, const char *folder, Err *err) {
    json_t *files = json_object();
    bool ok = true;
    for (const char *const *name = s->file; *name && ok; name++)
        ok = describe_file(files, folder, *name, err);
    json_t *manifest = json_pack("{s:s, s:O, s:O, s:O, s:o}", "format", FORMAT, "run", s->run,
                                 "state", s->state, "maker", s->maker, "files", files);
    CHECK(manifest, "a JSON value could not be made");
    char hex[65], *path = files_join(folder, "manifest.json");
    seal_set(hex, manifest, "");
    ok = ok && files_write_json(path, manifest, err);
    free(path);
    json_decref(manifest);
    return ok;
}

/* One of the same step can only be a torn one that was passed over. */
static bool put_in_place(const char *staging, const char *folder, const char *parent, Err *err) {
    if (files_exists(folder) && !files_remove_tree(folder))
        return files_failed(err, folder, "remove");
    return (temporary_rename(staging, folder) || files_failed(err, folder, "write")) &&
           (files_sync_path(parent) || files_failed(err, parent, "write"));
}

bool snapshot_write(const Snapshot *s, const char *parent, snapshot_work *fill, void *context,
                    Err *err) {
    char name[64], temporary[96];
    snprintf(name, sizeof name, "step-%08zu", s->step);
    snprintf(temporary, sizeof temporary, "%s.tmp.%ld", name, (long)getpid());
    char *folder = files_join(parent, name), *staging = files_join(parent, temporary);
    temporary_note(staging);
    bool ok = files_mkdirs(staging, err) && fill(context, staging, err) &&
              write_manifest(s, staging, err) &&
              (files_sync_folder(staging) || files_failed(err, staging, "write")) &&
              put_in_place(staging, folder, parent, err);
    if (!ok) files_remove_tree(staging);
    temporary_forget(staging);
    free(folder), free(staging);
    return ok;
}

/* ------------------------------------------------------------------------------- finding -- */

/* The step of a folder's name, or of one that was not finished; -1: none of ours. */
static long step_of(const char *name, bool *finished) {
    int step, end = 0;
    if (sscanf(name, "step-%8d%n", &step, &end) != 1 || end != 13 || step < 0) return -1;
    *finished = name[end] == 0;
    return *finished || strncmp(name + end, ".tmp.", 5) == 0 ? step : -1;
}

/* The steps that have a folder, falling, from malloc. */
static long *steps_in(const char *parent, size_t *n) {
    size_t capacity = 0;
    long *step = NULL;
    DIR *d = opendir(parent);
    *n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        bool finished;
        long at = step_of(e->d_name, &finished);
        if (at < 0 || !finished) continue;
        step = mem_grow(step, &capacity, *n + 1, sizeof *step);
        size_t i = (*n)++;
        for (; i > 0 && step[i - 1] < at; i--) step[i] = step[i - 1];
        step[i] = at;
    }
    if (d) closedir(d);
    return step;
}

size_t snapshot_count(const char *parent) {
    size_t n;
    free(steps_in(parent, &n));
    return n;
}

/* A folder that is being removed is no checkpoint any more, whatever comes between. */
static void remove_folder(const char *parent, const char *name) {
    char gone[96];
    snprintf(gone, sizeof gone, "%.60s.tmp.%ld", name, (long)getpid());
    char *from = files_join(parent, name), *to = files_join(parent, gone);
    files_remove_tree(rename(from, to) == 0 ? to : from);
    free(from), free(to);
}

void snapshot_sweep(const char *parent) {
    DIR *d = opendir(parent);
    for (struct dirent *e; d && (e = readdir(d));) {
        bool finished;
        if (step_of(e->d_name, &finished) < 0 || finished) continue;
        char *path = files_join(parent, e->d_name);
        files_remove_tree(path);
        free(path);
    }
    if (d) closedir(d);
}

void snapshot_prune(const char *parent, int keep, size_t before, size_t saved) {
    size_t n;
    int kept = 0;
    long *step = steps_in(parent, &n);
    for (size_t i = 0; i < n; i++) {
        char name[64];
        size_t at = (size_t)step[i];
        bool whole = at <= before || at == saved;
        if (whole && kept++ < keep) continue;
        snprintf(name, sizeof name, "step-%08ld", step[i]);
        remove_folder(parent, name);
    }
    free(step);
    snapshot_sweep(parent);
}

/* ------------------------------------------------------------------------------- reading -- */

static bool file_is(const char *folder, const char *name, const json_t *about, Err *err) {
    struct stat st;
    char hex[65], *path = files_join(folder, name);
    const char *sha = json_string_value(json_object_get(about, "sha256"));
    json_int_t bytes = json_integer_value(json_object_get(about, "bytes"));
    bool ok = sha || err_set(err, EXIT_INPUT, "manifest.json: expected files.%s.sha256", name);
    if (ok) ok = stat(path, &st) == 0 || files_failed(err, path, "open");
    if (ok && st.st_size != bytes)
        ok = err_set(err, EXIT_INPUT, "%s: expected %lld bytes, found %lld", name, (long long)bytes,
                     (long long)st.st_size);
    ok = ok && files_sha256(hex, path, err);
    if (ok && strcmp(hex, sha) != 0)
        ok =
            err_set(err, EXIT_INPUT, "%s: expected SHA-256 %.16s.., found %.16s..", name, sha, hex);
    free(path);
    return ok;
}

/* The manifest, if it and all that it speaks of is as it was written. */
static bool read_manifest(json_t **manifest, const Snapshot *s, const char *folder, Err *err) {
    char *path = files_join(folder, "manifest.json");
    bool ok = files_read_json(manifest, path, MANIFEST_BYTES, err);
    free(path);
    if (!ok) return false;
    const char *format = json_string_value(json_object_get(*manifest, "format"));
    if (!format || strcmp(format, FORMAT) != 0)
        ok = err_set(err, EXIT_INPUT, "manifest.json: expected format \"" FORMAT "\", found %s",
                     format ? format : "none");
    char hex[65];
    ok = ok && seal_holds(hex, *manifest, "", "manifest.json", err);
    json_t *files = json_object_get(*manifest, "files");
    for (const char *const *name = s->file; *name && ok; name++)
        ok = file_is(folder, *name, json_object_get(files, *name), err);
    if (!ok) json_decref(*manifest);
    return ok;
}

/* Belongs a whole checkpoint to this run? Says so where another maker's bits will differ. */
static bool fits(const Snapshot *s, const json_t *manifest, const char *folder, Err *err) {
    char what[512];
    if (result_key_differs(json_object_get(manifest, "run"), s->run, what, sizeof what))
        return err_set(err, EXIT_USAGE,
                       "%s: of another run: %s; go on with what it had, or choose another --out",
                       folder, what);
    keeping_compare(folder, json_object_get(manifest, "maker"), s->maker);
    return true;
}

/* What goes on from it may not be half another's work: then it goes. */
static bool removed(const Snapshot *s, const json_t *manifest, const char *folder) {
    char what[512];
    if (!result_key_maker_differs(json_object_get(manifest, "run"), s->run, what, sizeof what))
        return false;
    fprintf(stderr, "sails: %s: removed: %s\n", folder, what);
    files_remove_tree(folder);
    return true;
}

/* A file that is not there was lost, and the next one is older; one that cannot be opened may be as
 * whole as ever, and going on without it would remove it in the end. */
static bool can_open(const char *path, Err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT || errno == ENOTDIR || files_failed(err, path, "open");
    close(fd);
    return true;
}

static bool can_open_files(const Snapshot *s, const char *folder, Err *err) {
    char *path = files_join(folder, "manifest.json");
    bool ok = can_open(path, err);
    free(path);
    for (const char *const *name = s->file; *name && ok; name++) {
        path = files_join(folder, *name);
        ok = can_open(path, err);
        free(path);
    }
    return ok;
}

/* One that is not whole; false: it was the disk that failed. */
static bool pass_over(const char *folder, const Err *torn, Err *err) {
    if (torn->code == EXIT_INTERNAL) return *err = *torn, false;
    fprintf(stderr, "sails: %s: passed over: %s\n", folder, torn->text);
    return true;
}

bool snapshot_read(Snapshot *s, bool *found, const char *parent, snapshot_work *take, void *context,
                   Err *err) {
    size_t n;
    long *step = steps_in(parent, &n);
    bool ok = can_open(parent, err);
    *found = false;
    for (size_t i = 0; i < n && ok && !*found; i++) {
        char name[64];
        json_t *manifest;
        Err torn;
        snprintf(name, sizeof name, "step-%08ld", step[i]);
        char *folder = files_join(parent, name);
        if (!can_open_files(s, folder, err)) {
            ok = false;
        } else if (read_manifest(&manifest, s, folder, &torn)) {
            if (!removed(s, manifest, folder)) {
                s->step = (size_t)step[i];
                s->state = json_incref(json_object_get(manifest, "state"));
                ok = *found = fits(s, manifest, folder, err) && take(context, folder, err);
            }
            json_decref(manifest);
        } else {
            ok = pass_over(folder, &torn, err);
        }
        free(folder);
    }
    free(step);
    return ok;
}
