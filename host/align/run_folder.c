/* run_folder.c - recipe, manifest, hashes of inputs, and the stamps of stages. */
#include "host/align/run_folder.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/cli/command.h"
#include "host/stage/machine.h"
#include "kernels/comm.h"
#include "host/stage/result_key.h"
#include "host/cli/print.h"

enum { STAMP_BYTES = 64 << 20 };

char *run_path(const Run *r, const char *name) {
    return files_join(r->folder, name);
}

/* ------------------------------------------------------------------------------ opening -- */

static bool write_recipe(const Run *r, Err *err) {
    char *path = run_path(r, "recipe.yaml");
    OutFile *f;
    bool ok = files_create(&f, path, err);
    if (ok) {
        args_write_recipe(r->args, files_stream(f));
        ok = files_commit(f, err);
    }
    free(path);
    return ok;
}

/* Neither itself, its parent, its lock, nor the recipe of a run that was killed before it had
 * written it. */
static bool is_entry(const char *name) {
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strcmp(name, FOLDER_LOCK) != 0 &&
           strncmp(name, "recipe.yaml.tmp.", 16) != 0;
}

/* A folder that exists must be empty or a run: a mistyped --out must not be filled up. Waits for
 * another that runs there. */
static bool usable_folder(Run *r, Err *err) {
    struct stat st;
    if (stat(r->folder, &st) != 0) return true;
    if (!S_ISDIR(st.st_mode))
        return err_set(err, EXIT_USAGE, "%s: expected a folder for the run, found a file",
                       r->folder);
    if (!folder_lock(&r->lock, r->folder, err)) return false;
    char *stamp = run_path(r, "recipe.yaml");
    bool is_run = files_exists(stamp);
    free(stamp);
    DIR *d = is_run ? NULL : opendir(r->folder);
    bool empty = true;
    for (struct dirent *e; d && (e = readdir(d));) empty = empty && !is_entry(e->d_name);
    if (d) closedir(d);
    return empty ||
           err_set(err, EXIT_USAGE, "%s: holds files but no run; choose another out", r->folder);
}

static json_t *our_choices(const Args *a) {
    json_t *choices = json_object();
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        const Setting *s = &settings_table[i];
        if (s->mark != OURS || !command_uses(a->command, i)) continue;
        char key[SETTING_KEY], text[SETTING_KEY];
        setting_key(s, key);
        json_object_set_new(choices, key,
                            json_pack("{s:s, s:b}", "value", setting_text(s, &a->s, text),
                                      "default", a->source[i] == FROM_DEFAULT));
    }
    return choices;
}

static void new_manifest(Run *r, const Args *a) {
    Machine m;
    machine_read(&m);
    char when[32];
    time_t now = time(NULL);
    struct tm utc;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    r->manifest = json_pack(
        "{s:s, s:s, s:s, s:o, s:s, s:s, s:s, s:i, s:i, s:o, s:O, s:{}}", "format", "sails run 1",
        "started", when, "command", a->command->name, "versions", machine_versions(), "program",
        r->program, "plugin", r->plugin, "cpu", m.cpu, "processors", m.processors, "seed",
        a->s.run.seed, "our_choices", our_choices(a), "inputs", r->hashes, "stages");
    CHECK(r->manifest, "a JSON value could not be made");
}

bool run_open(Run *r, const Args *a, const char *plugin, Err *err) {
    *r = (Run){.args = a, .folder = a->s.run.out, .follows = !comm_root(a->comm)};
    if (r->follows) {
        r->hashes = json_object();
        new_manifest(r, a);
        return true;
    }
    if (!usable_folder(r, err) || !files_sha256(r->program, "/proc/self/exe", err) ||
        (plugin && !files_sha256(r->plugin, plugin, err))) {
        folder_unlock(&r->lock);
        return false;
    }
    char *manifest = run_path(r, "manifest.json");
    json_t *old = NULL;
    Err ignored; /* a broken manifest costs nothing but hashing again */
    if (files_exists(manifest)) files_read_json(&old, manifest, STAMP_BYTES, &ignored);
    json_t *inputs = old ? json_object_get(old, "inputs") : NULL;
    r->hashes = json_is_object(inputs) ? json_incref(inputs) : json_object();
    json_decref(old);
    free(manifest);
    new_manifest(r, a);
    return true;
}

static bool make_folder(const Run *r, const char *name, Err *err) {
    char *path = run_path(r, name);
    bool ok = files_mkdirs(path, err);
    free(path);
    return ok;
}

bool run_begin(Run *r, const char *const *subfolders, Err *err) {
    if (r->begun || r->follows) return true;
    if (!r->lock.folder && !folder_lock(&r->lock, r->folder, err)) return false;
    bool ok = write_recipe(r, err); /* first: it is what makes the folder a run */
    ok = ok && make_folder(r, "stages", err);
    for (; ok && *subfolders; subfolders++) ok = make_folder(r, *subfolders, err);
    return r->begun = ok && run_write_manifest(r, err);
}

bool run_write_manifest(Run *r, Err *err) {
    if (r->follows) return true;
    char *path = run_path(r, "manifest.json");
    bool ok = files_write_json(path, r->manifest, err);
    free(path);
    return ok;
}

void run_close(Run *r) {
    json_decref(r->manifest);
    json_decref(r->hashes);
    folder_unlock(&r->lock);
    *r = (Run){0};
}

/* ------------------------------------------------------------------------------- hashes -- */

static json_int_t nanoseconds(struct timespec t) {
    return (json_int_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* What tells, without reading it, that a file is the one that was hashed. Size and time of change
 * alone do not: two files may have both in common, and a link may lead to the one, then to the
 * other. Only the system sets ctime. */
static json_t *file_state(const char *path, const struct stat *st) {
    char *real = realpath(path, NULL);
    json_t *state = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "file", real ? real : path,
                              "device", (json_int_t)st->st_dev, "inode", (json_int_t)st->st_ino,
                              "size", (json_int_t)st->st_size, "mtime", nanoseconds(st->st_mtim),
                              "ctime", nanoseconds(st->st_ctim));
    CHECK(state, "%s: not UTF-8", path);
    free(real);
    return state;
}

/* A file written again within a tick of the file system's clock keeps its times: what was hashed
 * so soon after it was written may be something else by now. */
static bool still_good(const json_t *known, const json_t *state) {
    static const json_int_t TICK = 2000000000; /* of the coarsest file systems, nanoseconds */
    json_int_t written = json_integer_value(json_object_get(state, "ctime"));
    const char *sha = json_string_value(json_object_get(known, "sha256"));
    return sha && strlen(sha) == 64 && json_equal(json_object_get(known, "state"), state) &&
           json_integer_value(json_object_get(known, "hashed")) - written > TICK;
}

bool run_hash(Run *r, char hex[65], const char *path, Err *err) {
    struct stat st;
    struct timespec now;
    if (r->follows) return *hex = 0, true;
    if (stat(path, &st) != 0) return files_sha256(hex, path, err); /* which says what is wrong */
    json_t *state = file_state(path, &st); /* before it is read: what comes later will show */
    json_t *known = json_object_get(r->hashes, path);
    bool kept = still_good(known, state);
    clock_gettime(CLOCK_REALTIME, &now);
    if (kept)
        memcpy(hex, json_string_value(json_object_get(known, "sha256")), 65);
    else if (interrupted(err) || !files_sha256(hex, path, err))
        return json_decref(state), false;
    else
        json_object_set_new(r->hashes, path,
                            json_pack("{s:s, s:O, s:I}", "sha256", hex, "state", state, "hashed",
                                      nanoseconds(now)));
    json_decref(state);
    return true;
}

static bool remembered(void *run, char hex[65], const char *path, Err *err) {
    return run_hash(run, hex, path, err);
}

Hasher run_hasher(Run *r) {
    return (Hasher){remembered, r};
}

/* ------------------------------------------------------------------------------- stages -- */

void stage_begin(Stage *st, const Run *r, const char *name) {
    *st = (Stage){.start = clock_seconds()};
    snprintf(st->name, sizeof st->name, "%s", name);
    st->key = result_key_new();
    json_t *others =
        json_pack("{s:s, s:s, s:s}", "stage", name, "program", r->program, "plugin", r->plugin);
    CHECK(others && json_object_update(st->key, others) == 0, "a JSON value could not be made");
    json_decref(others);
}

void stage_free(Stage *st) {
    json_decref(st->key);
    json_decref(st->result);
    *st = (Stage){0};
}

static bool among(const char *key, const char *const *keys) {
    for (; *keys; keys++)
        if (strcmp(key, *keys) == 0) return true;
    return false;
}

void stage_section(Stage *st, const Settings *s, const char *section, const char *const *except) {
    for (const Setting *row = settings_table; row < settings_table + SETTINGS_COUNT; row++) {
        char key[SETTING_KEY];
        setting_key(row, key);
        if (strcmp(row->section, section) == 0 && setting_role(row) == ROLE_NONE &&
            row->mark != DISPLAY && !among(key, except))
            result_key_setting(st->key, s, row);
    }
}

void stage_setting(Stage *st, const Settings *s, const char *key) {
    result_key_setting(st->key, s, setting_find(key));
}

void stage_text(Stage *st, const char *name, const char *value) {
    result_key_text(st->key, name, value);
}

bool stage_file(Stage *st, Run *r, const char *role, const char *path, Err *err) {
    Hasher h = run_hasher(r);
    return result_key_file(st->key, &h, role, path, err);
}

bool stage_input(Stage *st, Run *r, const char *role, const char *path, Err *err) {
    Hasher h = run_hasher(r);
    return result_key_input(st->key, &h, role, path, err);
}

bool stage_model(Stage *st, Run *r, const char *folder, Err *err) {
    Hasher h = run_hasher(r);
    return result_key_folder(st->key, &h, "model", folder, err);
}

static char *stamp_path(const Stage *st, const Run *r) {
    char name[STAGE_NAME + 16];
    snprintf(name, sizeof name, "stages/%s.json", st->name);
    return run_path(r, name);
}

static bool output_hash(Run *r, char hex[65], const char *output, Err *err) {
    char *path = run_path(r, output);
    bool ok = files_sha256(hex, path, err);
    free(path);
    return ok;
}

/* Notes in the manifest how the stage was met, and how long its making took. */
static void note_stage(Run *r, const Stage *st, const char *how, double seconds) {
    json_object_set_new(json_object_get(r->manifest, "stages"), st->name,
                        json_pack("{s:s, s:f}", "state", how, "seconds", seconds));
}

bool stage_done(Stage *st, Run *r, const char *const *outputs) {
    if (r->follows) return false;
    char *path = stamp_path(st, r);
    json_t *stamp = NULL;
    Err ignored; /* a stamp that cannot be read is no stamp */
    if (!files_exists(path) || !files_read_json(&stamp, path, STAMP_BYTES, &ignored)) stamp = NULL;
    free(path);
    bool done = stamp && json_equal(json_object_get(stamp, "key"), st->key);
    for (; done && *outputs; outputs++) {
        char hex[65];
        const char *want =
            json_string_value(json_object_get(json_object_get(stamp, "outputs"), *outputs));
        done = want && output_hash(r, hex, *outputs, &ignored) && strcmp(hex, want) == 0;
    }
    if (done) {
        st->result = json_incref(json_object_get(stamp, "result"));
        note_stage(r, st, "kept", json_number_value(json_object_get(stamp, "seconds")));
    }
    json_decref(stamp);
    return done;
}

bool stage_finish(Stage *st, Run *r, const char *const *outputs, json_t *result, Err *err) {
    st->result = result ? result : json_object();
    if (r->follows) return true;
    json_t *hashes = json_object();
    bool ok = true;
    for (; ok && *outputs; outputs++) {
        char hex[65];
        ok = output_hash(r, hex, *outputs, err);
        if (ok) json_object_set_new(hashes, *outputs, json_string(hex));
    }
    double seconds = clock_seconds() - st->start;
    json_t *stamp = json_pack("{s:O, s:O, s:O, s:f}", "key", st->key, "outputs", hashes, "result",
                              st->result, "seconds", seconds);
    json_decref(hashes);
    char *path = stamp_path(st, r);
    ok = ok && files_write_json(path, stamp, err);
    free(path);
    json_decref(stamp);
    note_stage(r, st, "made", seconds);
    return ok && run_write_manifest(r, err);
}
