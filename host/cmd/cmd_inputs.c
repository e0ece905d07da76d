/* cmd_inputs.c - principal components of what the projections read. */
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

static bool fits(Runtime *r, const Settings *s, const Dataset *d, Err *err) {
    Plan p = {0};
    plan_measured(&p, "program, tokenizer and data");
    return plan_inputs(&p, s, &r->ex, d, err) && plan_fits(&p, &r->ex, err);
}

static bool make(Runtime *r, const Dataset *d, const Settings *s, Err *err) {
    Subspace subspace = {0};
    int64_t rows;
    bool root = comm_root(r->ex.comm);
    bool ok = inputs_run(&subspace, &rows, r, s, d->doc, NULL, d->n, err) &&
              agree_root(r->ex.comm, !root || subspace_save(&subspace, s->inputs.out, err), err);
    if (ok && root) report(&subspace, rows, s);
    subspace_free(&subspace);
    return ok;
}

static bool check(const Settings *s, Err *err) {
    Config c;
    if (!settings_check_packs(s, err) || !config_load(&c, s->model.path, err)) return false;
    bool ok = inputs_check(s, &c, "--init eva", err);
    config_free(&c);
    return ok;
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Runtime r = {0};
    Dataset d = {0};
    bool ok = check(s, err) && runtime_device(&r, s, a->comm, err) && runtime_ids(&r, s, err) &&
              dataset_load_training(&d, r.tokenizer, s->data.path, (enum Side)s->data.side,
                                    s->data.max_length, (size_t)s->data.limit, err) &&
              fits(&r, s, &d, err) && runtime_model(&r, s, (int)d.longest, err) &&
              make(&r, &d, s, err);
    dataset_free(&d);
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
                          ONLY("train.rank"),
                          ONLY("train.targets"),
                          ONLY("seed"),
                          ONLY("threads"),
                          ONLY("deadline"),
                          ONLY("cpu"),
                          ONLY("json"),
                          {NULL, USE_OPTIONAL}};

const Command cmd_inputs = {
    .name = "inputs",
    .summary = "principal components of what the projections read, for the start eva",
    .about =
        "One pass over the training data. For each layer, and each group of --targets that read\n"
        "the same (q, k and v do), the input's covariance over all tokens that training predicts,\n"
        "and its first --rank components: `sails train --init eva --subspace FILE`.",
    .positional = POSITIONAL_RECIPE,
    .ranks = true,
    .use = use,
    .run = run,
};
