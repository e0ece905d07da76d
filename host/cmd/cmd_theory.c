/* cmd_theory.c - the recovery experiment: estimators of a planted subspace against closed forms. */
#include <stdio.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/out_folder.h"
#include "host/cli/command.h"
#include "host/cli/print.h"
#include "host/stage/runtime.h"
#include "host/theory/study.h"

static StudySpec spec_of(const Settings *s, Exec *ex) {
    WorldShape shape = {.H = s->theory.width,
                        .n = s->theory.features,
                        .r = s->theory.rank,
                        .p0 = s->theory.rate,
                        .delta = s->theory.delta,
                        .sigma = s->theory.sigma,
                        .coherence = s->theory.coherence,
                        .loud = s->theory.loud,
                        .loudness = s->theory.loudness,
                        .seed = (uint64_t)s->run.seed};
    return (StudySpec){ex,
                       shape,
                       s->theory.eps,
                       s->theory.documents,
                       s->theory.contrast_documents,
                       s->theory.repeats};
}

/* A file of the folder, made by `write`. */
typedef void writer(FILE *f, const void *what);

static bool put(const char *folder, const char *name, writer *write, const void *what, Err *err) {
    char *path = files_join(folder, name);
    OutFile *file;
    bool ok = files_create(&file, path, err);
    if (ok) {
        write(files_stream(file), what);
        ok = files_commit(file, err);
    }
    free(path);
    return ok;
}

typedef struct Drawn {
    const StudySpec *spec;
    enum TheoryStudy which;
    int figure;
    Table table;
} Drawn;

static void write_csv(FILE *f, const void *what) {
    table_csv(f, &((const Drawn *)what)->table);
}

static void write_plot(FILE *f, const void *what) {
    const Drawn *d = what;
    study_plot(f, &d->table, d->which, d->figure, d->spec);
}

static void write_recipe(FILE *f, const void *what) {
    args_write_recipe(what, f);
}

static bool put_study(const char *folder, Drawn *d, const char *name, Err *err) {
    char file[SETTING_KEY + 8];
    snprintf(file, sizeof file, "%s.csv", name);
    bool ok = put(folder, file, write_csv, d, err);
    for (d->figure = 0; ok && d->figure < STUDY_FIGURES; d->figure++) {
        const char *svg = studies[d->which].figure[d->figure].file;
        if (svg) ok = put(folder, svg, write_plot, d, err);
    }
    return ok;
}

/* One step of the command for one study. folder: NULL, no files. */
typedef bool study_step(const Settings *s, const StudySpec *spec, enum TheoryStudy which,
                        const char *folder, Err *err);

static bool check(const Settings *s, const StudySpec *spec, enum TheoryStudy which,
                  const char *folder, Err *err) {
    (void)s, (void)folder;
    return study_check(which, spec, err);
}

static bool make(const Settings *s, const StudySpec *spec, enum TheoryStudy which,
                 const char *folder, Err *err) {
    char name[SETTING_KEY];
    Drawn d = {.spec = spec, .which = which};
    setting_choice_name(CHOICES(THEORY_STUDIES), (int)which, name);
    bool ok = study_run(&d.table, which, spec, s->run.json, err) &&
              (!folder || put_study(folder, &d, name, err));
    if (ok && s->run.json)
        print_json(json_pack("{s:s, s:o}", "study", name, "rows", table_json(&d.table)));
    else if (ok) {
        printf("%s: %s\n", name, studies[which].about);
        table_print(stdout, &d.table);
        putchar('\n');
    }
    table_free(&d.table);
    return ok;
}

static bool each_study(study_step *step, const Settings *s, const StudySpec *spec,
                       const char *folder, Err *err) {
    bool ok = true;
    for (int i = STUDY_ALL + 1; i < STUDY_COUNT && ok; i++)
        if (s->theory.study == STUDY_ALL || s->theory.study == i)
            ok = step(s, spec, (enum TheoryStudy)i, folder, err);
    return ok;
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Exec ex = {0};
    StudySpec spec = spec_of(s, &ex);
    if (!each_study(check, s, &spec, NULL, err)) return false;
    if (!runtime_cpu(&ex, s, err)) return false; /* all of it is in double */
    OutFolder *out = NULL;
    bool ok = !*s->theory.out || out_folder_open(&out, s->theory.out, err);
    const char *folder = out ? out_folder_path(out) : NULL;
    ok = ok && each_study(make, s, &spec, folder, err) &&
         (!out || put(folder, "recipe.yaml", write_recipe, a, err));
    if (out) ok = out_folder_close(out, ok, err);
    exec_close(&ex);
    return ok;
}

static const Use use[] = {ONLY("theory.*"), ONLY("seed"), ONLY("threads"),
                          ONLY("cpu"),      ONLY("json"), {NULL, USE_OPTIONAL}};

const Command cmd_theory = {
    .name = "theory",
    .summary = "how well estimators recover a planted subspace, against closed forms",
    .about =
        "Documents are sums of --features random directions that fire at --rate, and --rank of\n"
        "them by --delta more often in the aligned corpus; those span what is to be recovered.\n"
        "Errors are ||P - Q|| of projectors, with standard errors over --repeats. One vector of\n"
        "mean differences has the floor sqrt(rank-1), which is what its rank lacks and nothing\n"
        "else; covariance contrasts and PCA of matched pairs have none.",
    .positional = POSITIONAL_RECIPE,
    .use = use,
    .run = run,
};
