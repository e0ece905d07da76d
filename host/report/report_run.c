/* report_run.c - reads a run folder. */
#include <stdlib.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/cli/json_lines.h"
#include "host/report/report.h"

enum { JSON_BYTES = 1 << 30, TEXT_BYTES = 1 << 20, PATH_ROOM = 4400 };

static bool load(json_t **to, const ReportRun *run, const char *name, bool needed, Err *err) {
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/%s", run->folder, name);
    if (!needed && !files_exists(path)) return true;
    if (!files_read_json(to, path, JSON_BYTES, err)) return false;
    return json_is_object(*to) ||
           err_set(err, EXIT_INPUT, "%s: expected an object, as `sails align` writes it", path);
}

/* The names of runs are parts of paths, and come from a file. */
static bool check_name(const ReportRun *run, const char *name, Err *err) {
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    return (*name && *name != '.' && strspn(name, allowed) == strlen(name)) ||
           err_set(err, EXIT_INPUT,
                   "%s/summary.json: expected the name of a row's run, got '%.100s'; run `sails "
                   "align` on its recipe again",
                   run->folder, name);
}

static bool load_into(json_t *all, const ReportRun *run, const char *folder, const char *name,
                      Err *err) {
    char file[512];
    json_t *one = NULL;
    snprintf(file, sizeof file, "%s/%.300s.json", folder, name);
    bool ok = load(&one, run, file, false, err);
    if (ok && one) json_object_set(all, name, one);
    json_decref(one);
    return ok;
}

static bool load_lines(json_t **to, const ReportRun *run, const char *name, Err *err) {
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/%s", run->folder, name);
    return !files_exists(path) || json_lines_read(to, path, err);
}

static bool load_row(ReportRun *run, const json_t *row, Err *err) {
    const char *name = report_first_run(row);
    char file[512];
    json_t *responses = NULL;
    if (!check_name(run, name, err)) return false;
    snprintf(file, sizeof file, "responses/%.300s.jsonl", name);
    bool ok = load_into(run->energy, run, "explain/energy", name, err) &&
              load_into(run->causal, run, "explain/causal", name, err) &&
              load_into(run->judged, run, "eval", name, err) &&
              load_lines(&responses, run, file, err);
    if (ok && responses) json_object_set_new(run->responses, name, responses);
    return ok;
}

const char *report_first_run(const json_t *row) {
    const json_t *first = json_array_get(json_object_get(row, "runs"), 0);
    const char *name = json_string_value(json_object_get(first, "name"));
    return name ? name : "";
}

static bool load_rows(ReportRun *run, Err *err) {
    const json_t *rows = json_object_get(run->summary, "rows"), *row;
    size_t i;
    bool ok =
        json_array_size(rows) > 0 ||
        err_set(err, EXIT_INPUT, "%s/summary.json: expected rows, there are none", run->folder);
    json_array_foreach (rows, i, row) ok = ok && load_row(run, row, err);
    return ok;
}

static bool load_recipe(ReportRun *run, Err *err) {
    char path[PATH_ROOM];
    size_t n;
    snprintf(path, sizeof path, "%s/recipe.yaml", run->folder);
    return files_read(&run->recipe, &n, path, TEXT_BYTES, err);
}

static bool check_finished(const ReportRun *run, Err *err) {
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/summary.json", run->folder);
    return files_exists(path) ||
           err_set(err, EXIT_INPUT,
                   "%s: expected the folder of a finished run, there is no summary.json; `sails "
                   "align %s/recipe.yaml` makes it",
                   run->folder, run->folder);
}

bool report_run_load(ReportRun *run, const char *folder, Err *err) {
    *run = (ReportRun){.folder = folder,
                       .energy = json_object(),
                       .causal = json_object(),
                       .judged = json_object(),
                       .responses = json_object()};
    bool ok = check_finished(run, err) && load(&run->summary, run, "summary.json", true, err) &&
              load(&run->manifest, run, "manifest.json", true, err) && load_recipe(run, err) &&
              load(&run->features, run, "explain/features.json", false, err) &&
              load_lines(&run->metrics, run, "metrics.jsonl", err) && load_rows(run, err);
    if (!ok) report_run_free(run);
    return ok;
}

void report_run_free(ReportRun *run) {
    json_t *const all[] = {run->summary, run->manifest, run->metrics, run->features,
                           run->energy,  run->causal,   run->judged,  run->responses};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) json_decref(all[i]);
    free(run->recipe);
    *run = (ReportRun){0};
}
