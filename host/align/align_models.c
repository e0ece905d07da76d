/* align_models.c - models that rows of align's table leave whole: as they are opened, noted, found
 * missing and dropped.
 *
 *   models/NAME/       the model, and metrics.jsonl
 *   models/NAME.json   SHA-256 of its files: what later stages are keyed by
 *
 * So a model's weights may go when no stage needs them: all that was made of them stays good. Where
 * one is needed again, training gives the same bytes again. */
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/align/staging.h"
#include "host/cli/print.h"

const char *align_left(char path[160], const Cell *c) {
    return staging_named(path, c->method->how == METHOD_FULL ? "models/%s" : "adapters/%s",
                         c->name);
}

static char *path_of(const Align *w, const Cell *c, const char *format) {
    char name[160];
    return run_path(&w->run, staging_named(name, format, c->name));
}

/* What the note should hold, from the files. */
static bool hash_files(json_t **files, Align *w, const Cell *c, Err *err) {
    json_t *key = result_key_new();
    Hasher h = run_hasher(&w->run);
    char *folder = path_of(w, c, "models/%s");
    bool ok = result_key_folder(key, &h, "model", folder, err);
    *files = ok ? json_incref(json_object_get(key, "inputs")) : NULL;
    free(folder);
    json_decref(key);
    return ok;
}

static bool read_note(json_t **files, const Align *w, const Cell *c, Err *err) {
    enum { NOTE_BYTES = 1 << 20 };
    char *path = path_of(w, c, MODEL_NOTE);
    bool ok = files_read_json(files, path, NOTE_BYTES, err);
    free(path);
    return ok;
}

static bool is_there(Align *w, const Cell *c) {
    json_t *noted = NULL, *found = NULL;
    Err ignored;
    bool there = read_note(&noted, w, c, &ignored) && hash_files(&found, w, c, &ignored) &&
                 json_equal(noted, found);
    json_decref(found);
    json_decref(noted);
    return there;
}

bool align_model_there(Align *w, const Cell *c) {
    Comm *comm = w->r.ex.comm;
    bool there = comm_root(comm) && is_there(w, c);
    comm_broadcast(comm, "is the model there", &there, sizeof there);
    return there;
}

bool align_model_note(Align *w, const Cell *c, Err *err) {
    json_t *files = NULL;
    char *path = path_of(w, c, MODEL_NOTE);
    bool ok = hash_files(&files, w, c, err) && files_write_json(path, files, err);
    json_decref(files);
    free(path);
    return ok;
}

void align_model_drop(Align *w, const Cell *c) {
    json_t *files = NULL, *hash;
    const char *role;
    Err ignored;
    char *folder = path_of(w, c, "models/%s");
    if (!read_note(&files, w, c, &ignored)) files = NULL;
    json_object_foreach (files, role, hash) {
        const char *slash = strchr(role, '/'); /* a note that was written over may have none */
        char *file = files_join(folder, slash ? slash + 1 : "");
        if (slash && strstr(slash, ".safetensors")) files_remove_tree(file);
        free(file);
    }
    json_decref(files);
    free(folder);
}

/* ------------------------------------------------------------------------ room for them -- */

/* Of all files below a folder; 0 where it is not there. */
static double bytes_below(char *folder) {
    char *path[] = {folder, NULL};
    double bytes = 0;
    FTS *tree = fts_open(path, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *f; tree && (f = fts_read(tree));)
        if (f->fts_info == FTS_F) bytes += (double)f->fts_statp->st_size;
    if (tree) fts_close(tree);
    return bytes;
}

bool align_models_room(const Align *w, double bytes, Err *err) {
    char need[PRINT_ROOM], have[PRINT_ROOM];
    char *folder = run_path(&w->run, ""), *models = run_path(&w->run, "models");
    struct statvfs v;
    size_t there = files_existing_part(folder);
    folder[there] = 0;
    bool known = statvfs(there ? folder : ".", &v) == 0;
    double room = known ? (double)v.f_bavail * (double)v.f_frsize + bytes_below(models) : bytes;
    free(models), free(folder);
    return bytes <= room ||
           err_set(
               err, EXIT_MEMORY,
               "does not fit: whole models of the method full take %s below %s, where %s are "
               "free or theirs already; free some, give another --out, fewer --seeds or --rates",
               print_bytes(need, bytes), w->run.folder, print_bytes(have, room));
}

/* ------------------------------------------------------------------------- what is open -- */

bool align_base(Align *w, Err *err) {
    if (w->r.model.ex && !*w->tuned) return runtime_drop_adapter(&w->r), true;
    runtime_drop_model(&w->r);
    *w->tuned = 0;
    return runtime_model(&w->r, w->s, 0, err);
}

/* Its training is to be done, where the model is not there. */
static bool make_again(Align *w, const Cell *c, Err *err) {
    json_t *ignored = NULL;
    char *note = path_of(w, c, MODEL_NOTE);
    if (comm_root(w->r.ex.comm)) files_remove_tree(note);
    free(note);
    bool ok = align_train(w, c, &ignored, err);
    json_decref(ignored);
    return ok;
}

static bool open_tuned(Align *w, const Cell *c, Err *err) {
    Settings s = *w->s;
    if (w->r.model.ex && strcmp(w->tuned, c->name) == 0) return true;
    if (!align_model_there(w, c) && !make_again(w, c, err)) return false;
    char *folder = path_of(w, c, "models/%s");
    runtime_drop_model(&w->r);
    snprintf(w->tuned, sizeof w->tuned, "%s", c->name);
    s.model.path = folder;
    bool ok = runtime_model(&w->r, &s, 0, err);
    free(folder);
    return ok;
}

bool align_wear(Align *w, const Cell *c, Err *err) {
    char name[160];
    if (c->method->how == METHOD_FULL) return open_tuned(w, c, err);
    if (!align_base(w, err)) return false;
    if (!c->method->start) return true;
    char *folder = run_path(&w->run, align_left(name, c));
    bool ok = runtime_adapter(&w->r, folder, false, err);
    free(folder);
    return ok;
}
