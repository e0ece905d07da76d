/* cmd_report.c - one page about finished runs. */
#include <stdlib.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/cli/command.h"
#include "host/cli/print.h"
#include "host/report/report.h"

/* Of one run the page lies in its folder; of several it must be said where. */
static bool place(char **path, const Args *a, Err *err) {
    if (!*a->s.report.out && a->npath > 1)
        return err_set(err, EXIT_USAGE, "--out is needed for the page of several runs");
    size_t room = strlen(a->path[0]) + 32;
    *path = *a->s.report.out ? mem_string(a->s.report.out) : mem_array(room, 1);
    if (!*a->s.report.out) snprintf(*path, room, "%s/report.html", a->path[0]);
    return true;
}

static bool write_page(const char *path, const ReportRun *run, const Args *a, Err *err) {
    const Settings *s = &a->s;
    ReportChoice choice = {*s->report.title ? s->report.title : "Safety alignment by sails",
                           s->report.prompts};
    OutFile *f;
    if (!files_create(&f, path, err)) return false;
    report_page(files_stream(f), run, a->npath, &choice);
    return files_commit(f, err);
}

static bool run_report(const Args *a, Err *err) {
    ReportRun *run = mem_array((size_t)a->npath, sizeof *run);
    char *path = NULL;
    int n = 0;
    bool ok = place(&path, a, err) && files_can_create(path, err);
    for (; ok && n < a->npath; n += ok) ok = report_run_load(&run[n], a->path[n], err);
    ok = ok && write_page(path, run, a, err);
    if (ok && a->s.run.json) print_json(json_pack("{s:s, s:i}", "out", path, "runs", n));
    if (ok && !a->s.run.json) printf("%s: %d run%s\n", path, n, n > 1 ? "s" : "");
    for (int i = 0; i < n; i++) report_run_free(&run[i]);
    free(run);
    free(path);
    return ok;
}

static const Use use[] = {ONLY("report.out"),
                          ONLY("report.title"),
                          ONLY("report.prompts"),
                          ONLY("json"),
                          {NULL, USE_OPTIONAL}};

const Command cmd_report = {
    .name = "report",
    .summary = "one HTML page about runs of align: table, features, updates, responses",
    .about =
        "PATH is the folder of a finished run; of several, the first table compares all rows.\n"
        "The page is one file that asks nobody for anything; it may be mailed or published.",
    .positional = POSITIONAL_PATHS,
    .use = use,
    .run = run_report,
};
