/* cmd_inputs.c - principal components of what the projections read, or write. */
#include <stdio.h>

#include "host/cli/command.h"
#include "host/cli/print.h"
#include "host/stage/adapting.h"
#include "host/stage/agree.h"
#include "host/stage/dataset.h"
#include "host/stage/inputs.h"
#include "host/stage/plan.h"

static void report(const Subspace *subspace, int64_t rows, const Settings *s) {
    if (s->run.json)
        print_json(json_pack("{s:s, s:I, s:o}", "out", s->inputs.out, "tokens", (json_int_t)rows,
                             "bases", adapting_describe(subspace)));
    else
        adapting_print(stdout, subspace);
}

/* What is read: the training data, and for salora what is to be preserved. */
typedef struct Data {
    Dataset task, kept;
} Data;

static bool load(Data *d, const Runtime *r, const Settings *s, Err *err) {
    return dataset_load_training(&d->task, r->tokenizer, s->data.path, (enum Side)s->data.side,
                                 s->data.max_length, (size_t)s->data.limit, err) &&
           (!*s->inputs.preserve ||
            dataset_load_training(&d->kept, r->tokenizer, s->inputs.preserve, SIDE_CHOSEN,
                                  s->data.max_length, (size_t)s->inputs.samples, err));
}

static const Dataset *longer(const Data *d) {
    return d->kept.longest > d->task.longest ? &d->kept : &d->task;
}

static bool fits(Runtime *r, const Settings *s, const Data *d, Err *err) {
    Plan p = {0};
    plan_measured(&p, "program, tokenizer and data");
    return plan_inputs(&p, s, &r->ex, longer(d), err) && plan_fits(&p, &r->ex, err);
}

/* Of what is read, or of what is written where something is to be preserved. */
static bool bases(Subspace *to, int64_t *rows, Runtime *r, const Data *d, const Settings *s,
                  Err *err) {
    int64_t each[2];
    if (!*s->inputs.preserve) return inputs_run(to, rows, r, s, d->task.doc, NULL, d->task.n, err);
    Examples kept = dataset_examples(&d->kept), task = dataset_examples(&d->task);
    if (!inputs_run_outputs(to, each, r, s, &kept, &task, err)) return false;
    *rows = each[0] + each[1];
    return true;
}

static bool make(Runtime *r, const Data *d, const Settings *s, Err *err) {
    Subspace subspace = {0};
    int64_t rows;
    bool root = comm_root(r->ex.comm);
    bool ok = bases(&subspace, &rows, r, d, s, err) &&
              agree_root(r->ex.comm, !root || subspace_save(&subspace, s->inputs.out, err), err);
    if (ok && root) report(&subspace, rows, s);
    subspace_free(&subspace);
    return ok;
}

/* Flags that say nothing without --preserve, or with it; keys of a recipe stand, as in
 * method_flags. */
static bool check_flags(const Args *a, Err *err) {
    static const struct {
        const char *key;
        bool preserve;
    } own[] = {{"inputs.preserve-rank", true}, {"inputs.samples", true}, {"train.rho", false}};
    bool preserves = *a->s.inputs.preserve;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        int setting = args_find(own[i].key);
        char flag[SETTING_KEY];
        if (preserves == own[i].preserve || a->source[setting] != FROM_FLAG) continue;
        command_flag(a->command, setting, flag);
        return err_set(err, EXIT_USAGE, "--%s: it is for %s; leave it out", flag,
                       preserves ? "the start eva" : "--preserve");
    }
    return true;
}

static bool check(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Config c;
    if (!check_flags(a, err) || !settings_check_packs(s, err) ||
        !config_load(&c, s->model.path, err))
        return false;
    bool ok = *s->inputs.preserve ? inputs_check_outputs(s, &c, "--init salora", err)
                                  : inputs_check(s, &c, "--init eva", err);
    config_free(&c);
    return ok;
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Runtime r = {0};
    Data d = {0};
    bool ok = check(a, err) && runtime_device(&r, s, a->comm, err) && runtime_ids(&r, s, err) &&
              load(&d, &r, s, err) && fits(&r, s, &d, err) &&
              runtime_model(&r, s, (int)longer(&d)->longest, err) && make(&r, &d, s, err);
    dataset_free(&d.kept);
    dataset_free(&d.task);
    runtime_close(&r, ok);
    return ok;
}

static const Use use[] = {{"inputs.out", USE_NEEDED},
                          {"model.path", USE_NEEDED},
                          {"data.path", USE_NEEDED},
                          ONLY("model.tokenizer"),
                          ONLY("model.device"),
                          ONLY("model.dtype"),
                          ONLY("data.limit"),
                          ONLY("data.side"),
                          ONLY("data.max-length"),
                          ONLY("data.pack-tokens"),
                          ONLY("inputs.preserve"),
                          ONLY("inputs.preserve-rank"),
                          ONLY("inputs.samples"),
                          ONLY("train.rank"),
                          ONLY("train.rho"),
                          ONLY("train.targets"),
                          ONLY("seed"),
                          ONLY("threads"),
                          ONLY("deadline"),
                          ONLY("cpu"),
                          ONLY("json"),
                          {NULL, USE_OPTIONAL}};

const Command cmd_inputs = {
    .name = "inputs",
    .summary = "what the projections read, for the start eva, or write, for salora",
    .about =
        "One pass over the training data. For each layer, and each group of --targets that read\n"
        "the same (q, k and v do), the input's covariance over all tokens that training predicts,\n"
        "and its first --rank components: `sails train --init eva --subspace FILE`.\n"
        "With --preserve, for each projection the --preserve-rank largest directions of what it\n"
        "writes, of the safe replies there and of the data: `sails train --init salora --subspace\n"
        "FILE` starts within the latter and never touches the former.",
    .positional = POSITIONAL_RECIPE,
    .ranks = true,
    .use = use,
    .run = run,
};
