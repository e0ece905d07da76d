/* checkpoint.c - writing a checkpoint, finding the newest that is whole, and reading it. */
#include "host/stage/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/safetensors.h"
#include "data/base/sha256.h"
#include "host/stage/agree.h"
#include "host/stage/result_key.h"

#define FORMAT "sails checkpoint 1"
enum { KINDS = 3, MANIFEST_BYTES = 16 << 20 };
static const char *const kind_name[KINDS] = {"master", "m", "v"};
static const char *const file_name[] = {"state.safetensors", "metrics.jsonl"};
enum { FILES = sizeof file_name / sizeof *file_name };

void checkpoint_free(Checkpoint *c) {
    free(c->state);
    free(c->lines);
    *c = (Checkpoint){0};
}

size_t checkpoint_state_bytes(const Params *p) {
    return KINDS * p->size * sizeof(float);
}

static float *block_of(const Params *p, int kind) {
    float *const block[KINDS] = {p->master, p->m, p->v};
    return block[kind];
}

bool checkpoint_agree(const Params *p, const char *what, Err *err) {
    Comm *comm = p->ex->comm;
    if (!comm) return true;
    float *copy = mem_array(p->size, sizeof *copy);
    exec_copy_out(p->ex, copy, p->master, p->size * sizeof *copy);
    bool ok = agree_same(comm, what, copy, p->size * sizeof *copy, EXIT_RANK, err);
    free(copy);
    return ok;
}

bool checkpoint_copy_state(Checkpoint *c) {
    Params *p = c->params;
    if (!c->state) c->state = malloc(checkpoint_state_bytes(p));
    for (int kind = 0; c->state && kind < KINDS; kind++)
        exec_copy_out(p->ex, c->state + (size_t)kind * p->size, block_of(p, kind),
                      p->size * sizeof(float));
    return c->state != NULL;
}

/* ------------------------------------------------------------------------------- writing -- */

typedef char TensorName[160];
static void tensor_name(TensorName name, int kind, const Param *t) {
    snprintf(name, sizeof(TensorName), "%s/%s@%012d", kind_name[kind], t->name, 0);
}

static bool stored(int kind, const Param *t) {
    return kind == 0 || t->trained;
}

/* Of the copy, or piece by piece from the device. */
static bool write_tensor(StWriter *w, const Checkpoint *c, int kind, const Param *t, Err *err) {
    enum { PIECE = 1 << 20 };
    const Params *p = c->params;
    if (c->state)
        return st_writer_data(w, c->state + (size_t)kind * p->size + t->at, t->n * sizeof(float),
                              err);
    float *piece = mem_array(PIECE, sizeof *piece);
    bool ok = true;
    for (size_t i = 0; ok && i < t->n; i += PIECE) {
        size_t n = t->n - i < PIECE ? t->n - i : PIECE;
        exec_copy_out(p->ex, piece, block_of(p, kind) + t->at + i, n * sizeof *piece);
        ok = st_writer_data(w, piece, n * sizeof *piece, err);
    }
    free(piece);
    return ok;
}

static bool write_state(const Checkpoint *c, const char *path, Err *err) {
    const Params *p = c->params;
    StWriter *w;
    TensorName name;
    if (!st_writer_open(&w, path, err)) return false;
    for (int kind = 0; kind < KINDS; kind++)
        for (const Param *t = p->param; t < p->param + p->n; t++) {
            if (!stored(kind, t)) continue;
            tensor_name(name, kind, t);
            st_writer_tensor(w, name, ST_F32, 1, &t->n);
        }
    bool ok = true;
    for (int kind = 0; kind < KINDS; kind++)
        for (const Param *t = p->param; ok && t < p->param + p->n; t++)
            ok = !stored(kind, t) || write_tensor(w, c, kind, t, err);
    if (ok) return st_writer_finish(w, err);
    st_writer_abort(w);
    return false;
}

static json_t *totals_json(const RunTotals *t) {
    return json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "steps", (json_int_t)t->steps,
                     "tokens", (json_int_t)t->tokens, "labels", (json_int_t)t->labels, "seconds",
                     t->seconds, "mean_step", t->mean_step, "loss_sum", t->loss_sum, "first_loss",
                     t->first_loss, "last_loss", t->last_loss);
}

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

/* SHA-256 of a manifest's text, without the member that holds it. */
static void seal(char hex[65], json_t *manifest) {
    json_object_del(manifest, "sha256");
    char *text = json_dumps(manifest, JSON_COMPACT | JSON_SORT_KEYS);
    CHECK(text, "a JSON value could not be written");
    unsigned char digest[32];
    Sha256 s;
    sha256_init(&s);
    sha256_add(&s, text, strlen(text));
    sha256_done(&s, digest);
    sha256_hex(hex, digest);
    free(text);
}

static bool write_manifest(const Checkpoint *c, const char *folder, Err *err) {
    json_t *files = json_object();
    bool ok = true;
    for (int i = 0; i < FILES && ok; i++) ok = describe_file(files, folder, file_name[i], err);
    json_t *manifest =
        json_pack("{s:s, s:O, s:o, s:O, s:o}", "format", FORMAT, "run", c->run, "totals",
                  totals_json(&c->totals), "maker", c->maker, "files", files);
    CHECK(manifest, "a JSON value could not be made");
    char hex[65], *path = files_join(folder, "manifest.json");
    seal(hex, manifest);
    json_object_set_new(manifest, "sha256", json_string(hex));
    ok = ok && files_write_json(path, manifest, err);
    free(path);
    json_decref(manifest);
    return ok;
}

static bool write_files(const Checkpoint *c, const char *folder, Err *err) {
    char *state = files_join(folder, file_name[0]), *lines = files_join(folder, file_name[1]);
    bool ok = files_mkdirs(folder, err) && write_state(c, state, err) &&
              files_write(lines, c->lines, c->nlines, err) && write_manifest(c, folder, err) &&
              (files_sync_folder(folder) || files_failed(err, folder, "write"));
    free(state), free(lines);
    return ok;
}

/* One of the same step can only be a torn one that was passed over. */
static bool put_in_place(const char *staging, const char *folder, const char *parent, Err *err) {
    if (files_exists(folder) && !files_remove_tree(folder))
        return files_failed(err, folder, "remove");
    return (rename(staging, folder) == 0 || files_failed(err, folder, "write")) &&
           (files_sync_folder(parent) || files_failed(err, parent, "write"));
}

bool checkpoint_write(const Checkpoint *c, const char *parent, Err *err) {
    char name[64], temporary[96];
    snprintf(name, sizeof name, "step-%08zu", c->totals.steps);
    snprintf(temporary, sizeof temporary, "%s.tmp.%ld", name, (long)getpid());
    char *folder = files_join(parent, name), *staging = files_join(parent, temporary);
    bool ok = write_files(c, staging, err) && put_in_place(staging, folder, parent, err);
    if (!ok) files_remove_tree(staging);
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

size_t checkpoint_count(const char *parent) {
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

void checkpoint_sweep(const char *parent) {
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

void checkpoint_prune(const char *parent, int keep) {
    size_t n;
    long *step = steps_in(parent, &n);
    for (size_t i = (size_t)keep; i < n; i++) {
        char name[64];
        snprintf(name, sizeof name, "step-%08ld", step[i]);
        remove_folder(parent, name);
    }
    free(step);
    checkpoint_sweep(parent);
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

static bool read_totals(RunTotals *t, const json_t *manifest, long step, Err *err) {
    json_int_t steps, tokens, labels;
    if (json_unpack((json_t *)manifest, "{s:{s:I, s:I, s:I, s:F, s:F, s:F, s:F, s:F}}", "totals",
                    "steps", &steps, "tokens", &tokens, "labels", &labels, "seconds", &t->seconds,
                    "mean_step", &t->mean_step, "loss_sum", &t->loss_sum, "first_loss",
                    &t->first_loss, "last_loss", &t->last_loss) != 0 ||
        steps != step || tokens < 0 || labels < 0)
        return err_set(err, EXIT_INPUT, "manifest.json: expected the totals of %ld steps", step);
    t->steps = (size_t)steps, t->tokens = (size_t)tokens, t->labels = (size_t)labels;
    return true;
}

/* The manifest, if it and all that it speaks of is as it was written. */
static bool read_manifest(json_t **manifest, RunTotals *totals, const char *folder, long step,
                          Err *err) {
    char *path = files_join(folder, "manifest.json");
    bool ok = files_read_json(manifest, path, MANIFEST_BYTES, err);
    free(path);
    if (!ok) return false;
    const char *format = json_string_value(json_object_get(*manifest, "format"));
    if (!format || strcmp(format, FORMAT) != 0)
        ok = err_set(err, EXIT_INPUT, "manifest.json: expected format \"" FORMAT "\", found %s",
                     format ? format : "none");
    char is[65], was[65] = "";
    const char *sealed = json_string_value(json_object_get(*manifest, "sha256"));
    if (sealed) snprintf(was, sizeof was, "%s", sealed);
    seal(is, *manifest);
    if (ok && strcmp(is, was) != 0)
        ok = err_set(err, EXIT_INPUT, "manifest.json: expected SHA-256 %.16s.., found %.16s..", was,
                     is);
    ok = ok && read_totals(totals, *manifest, step, err);
    for (int i = 0; i < FILES && ok; i++) {
        json_t *files = json_object_get(*manifest, "files");
        ok = file_is(folder, file_name[i], json_object_get(files, file_name[i]), err);
    }
    if (!ok) json_decref(*manifest);
    return ok;
}

static bool read_state(Checkpoint *c, const char *folder, Err *err) {
    Params *p = c->params;
    StSet *set = NULL;
    TensorName name;
    char *path = files_join(folder, file_name[0]);
    float *state = mem_array(KINDS * p->size, sizeof *state); /* what is not stored is zero */
    bool ok = st_open(&set, path, err);
    free(path);
    for (int kind = 0; ok && kind < KINDS; kind++)
        for (const Param *t = p->param; ok && t < p->param + p->n; t++) {
            const StTensor *from;
            if (!stored(kind, t)) continue;
            tensor_name(name, kind, t);
            ok = st_need_type(set, &from, name, ST_F32, 1, &t->n, err);
            if (ok) st_read_f32(from, state + (size_t)kind * p->size + t->at, 0, t->n);
        }
    for (int kind = 0; ok && kind < KINDS; kind++)
        exec_copy_in(p->ex, block_of(p, kind), state + (size_t)kind * p->size,
                     p->size * sizeof *state);
    if (ok) exec_sync(p->ex);
    if (ok) params_sync(p);
    st_close(set);
    free(state);
    return ok;
}

/* Belongs a whole checkpoint to this run? Says so where another maker's bits will differ. */
static bool fits(const Checkpoint *c, const json_t *manifest, const char *folder, Err *err) {
    char what[512];
    const char *key;
    json_t *value;
    if (result_key_differs(json_object_get(manifest, "run"), c->run, what, sizeof what))
        return err_set(err, EXIT_USAGE,
                       "%s: of another run: %s; go on with what it had, or choose another --out",
                       folder, what);
    json_object_foreach (c->maker, key, value) {
        const json_t *was = json_object_get(json_object_get(manifest, "maker"), key);
        if (json_equal(was, value)) continue;
        fprintf(stderr, "sails: %s: %s was %s, is %s: bits may differ from a run in one piece\n",
                folder, key, json_is_string(was) ? json_string_value(was) : "not there",
                json_string_value(value));
        break;
    }
    return true;
}

bool checkpoint_read(Checkpoint *c, bool *found, const char *parent, Err *err) {
    size_t n;
    long *step = steps_in(parent, &n);
    bool ok = true;
    *found = false;
    for (size_t i = 0; i < n && ok && !*found; i++) {
        char name[64];
        json_t *manifest;
        Err torn;
        snprintf(name, sizeof name, "step-%08ld", step[i]);
        char *folder = files_join(parent, name), *lines = files_join(folder, file_name[1]);
        if (read_manifest(&manifest, &c->totals, folder, step[i], &torn)) {
            ok = fits(c, manifest, folder, err) && read_state(c, folder, err) &&
                 files_read(&c->lines, &c->nlines, lines, SIZE_MAX / 2, err);
            *found = ok;
            json_decref(manifest);
        } else {
            fprintf(stderr, "sails: %s: passed over: %s\n", folder, torn.text);
        }
        free(folder), free(lines);
    }
    free(step);
    return ok;
}
