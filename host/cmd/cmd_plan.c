/* cmd_plan.c - memory before the start. */
#include <stdio.h>
#include <string.h>

#include "data/base/mem.h"

#include "host/cli/command.h"
#include "host/stage/adapting.h"
#include "host/stage/generating.h"
#include "host/stage/inputs.h"
#include "host/stage/machine.h"
#include "host/stage/method.h"
#include "host/stage/plan.h"
#include "host/stage/planned_card.h"
#include "host/stage/preference.h"
#include "host/stage/rank_share.h"
#include "host/cli/print.h"
#include "host/stage/runtime.h"

/* docs: NULL for a stage that reads none. */
static void report(const Plan *p, const Settings *s, Exec *ex, const Dataset *docs) {
    double anonymous = plan_total(p, PLAN_ANONYMOUS), file = plan_total(p, PLAN_FILE);
    double device = plan_total(p, PLAN_DEVICE);
    size_t device_available = 0, all;
    Machine m;
    machine_read(&m);
    double limit = m.limit > 0 && m.limit < m.available ? m.limit : m.available;
    bool apart = exec_memory(ex, &device_available, &all);
    bool shares = docs && s->plan.stage == STAGE_TRAIN && s->plan.ranks > 1;
    TrainSetup t;
    if (shares) {
        train_setup(&t, s, dataset_examples(docs).n);
        t.doc = docs->doc, t.shared = docs->shared;
    }
    if (s->run.json) {
        json_t *items = json_array();
        for (int i = 0; i < p->n; i++)
            json_array_append_new(
                items, json_pack("{s:s, s:s, s:f, s:b}", "name", p->item[i].name, "kind",
                                 plan_kind_name[p->item[i].kind], "bytes", p->item[i].bytes,
                                 "rank_0_alone", p->item[i].root));
        json_t *result =
            json_pack("{s:o, s:f, s:f, s:f, s:f, s:f, s:f}", "items", items, "anonymous", anonymous,
                      "file", file, "total", anonymous + file, "available", limit, "device", device,
                      "device_available", (double)device_available);
        if (docs) {
            json_object_set_new(result, docs->shared ? "pairs" : "documents",
                                json_integer((json_int_t)dataset_examples(docs).n));
            json_object_set_new(result, "dropped", json_integer((json_int_t)docs->dropped));
        }
        if (shares) json_object_set_new(result, "ranks", rank_share_json(&t, s->plan.ranks));
        print_json(result);
        return;
    }
    char size[PRINT_ROOM];
    if (docs) {
        printf("%zu %s\n", dataset_examples(docs).n, docs->shared ? "pairs" : "documents");
        dataset_print_notes(stdout, "  ", docs);
    }
    for (int i = 0; i < p->n; i++)
        printf("%-34s %10s  %s%s\n", p->item[i].name, print_bytes(size, p->item[i].bytes),
               plan_kind_name[p->item[i].kind],
               p->item[i].root && s->plan.ranks > 1 ? ", rank 0" : "");
    printf("%-34s %10s\n", "anonymous memory", print_bytes(size, anonymous));
    printf("%-34s %10s\n", "resident file pages", print_bytes(size, file));
    printf("%-34s %10s\n", "total", print_bytes(size, anonymous + file));
    printf("%-34s %10s\n", "available", print_bytes(size, limit));
    if (apart) {
        printf("%-34s %10s\n", "device memory", print_bytes(size, device));
        printf("%-34s %10s\n", "available on the device",
               print_bytes(size, (double)device_available));
    }
    if (shares) rank_share_print(stdout, &t, s->plan.ranks);
}

static bool plan_generation(Plan *p, Runtime *r, const Settings *s, Err *err) {
    Config c;
    Prompts prompts;
    if (!*s->generate.prompts)
        return err_set(err, EXIT_USAGE, "plan: --prompts is needed for generate");
    if (!config_load(&c, s->model.path, err)) return false;
    bool ok = prompts_read(&prompts, r->tokenizer, s, c.max_positions, err);
    config_free(&c);
    if (!ok) return false;
    plan_measured(p, "prompts");
    GenOptions o = generating_options(s, &prompts);
    prompts_free(&prompts);
    return plan_generate(p, s, &r->ex, &o, err);
}

/* Documents of one length in place of those of a file: a batch of them, or of pairs, half of each a
 * target. */
static void assume_documents(Dataset *d, const Settings *s) {
    size_t each = s->train.method == METHOD_DPO ? 2 : 1, batch = (size_t)s->train.batch;
    *d = (Dataset){.n = each * batch, .longest = (size_t)s->plan.length};
    d->doc = mem_array(d->n, sizeof *d->doc);
    if (each == 2) d->shared = mem_array(batch, sizeof *d->shared);
    for (size_t i = 0; d->shared && i < batch; i++) d->shared[i] = s->plan.length / 2;
    for (size_t i = 0; i < d->n; i++) {
        Doc *doc = &d->doc[i];
        size_t n = d->longest;
        *doc = (Doc){.token = mem_array(n, sizeof *doc->token),
                     .label = mem_array(n, 1),
                     .reply = mem_array(n, 1),
                     .n = (int)n};
        memset(doc->label + n / 2, 1, n - n / 2);
    }
    d->records.n = batch;
    d->records.record = mem_array(batch, sizeof *d->records.record);
}

/* The documents of a stage, as it reads them. */
static bool load(Dataset *d, Runtime *r, const Settings *s, const char *path, Err *err) {
    size_t limit = (size_t)s->data.limit;
    enum Side side = (enum Side)s->data.side;
    switch (s->plan.stage) {
        case STAGE_TRAIN:
            return training_load(d, r->tokenizer, s, path, limit, err);
        case STAGE_INPUTS:
            return dataset_load_training(d, r->tokenizer, path, side, s->data.max_length, limit,
                                         err);
        default:
            return dataset_load(d, r->tokenizer, path, side, s->data.max_length, limit, err);
    }
}

/* For salora a second corpus, which a stage has beside the other. */
static bool load_kept(Dataset *kept, Runtime *r, const Settings *s, Err *err) {
    return s->plan.stage != STAGE_INPUTS || !*s->inputs.preserve ||
           dataset_load_training(kept, r->tokenizer, s->inputs.preserve, SIDE_CHOSEN,
                                 s->data.max_length, (size_t)s->inputs.samples, err);
}

static bool plan_over_data(Plan *p, Dataset *d, Runtime *r, const Settings *s, Err *err) {
    static bool (*const plan_of[])(Plan *, const Settings *, Exec *, const Dataset *, Err *) = {
        [STAGE_SCORE] = plan_score,
        [STAGE_MOMENTS] = plan_moments,
        [STAGE_INPUTS] = plan_inputs,
        [STAGE_TRAIN] = plan_train,
        [STAGE_LOGPROB] = plan_logprob};
    bool score = s->plan.stage == STAGE_SCORE, moments = s->plan.stage == STAGE_MOMENTS;
    bool corpora = score || moments;
    const char *path = corpora && *s->score.aligned ? s->score.aligned : s->data.path;
    if (s->plan.stage == STAGE_TRAIN && !*path) {
        assume_documents(d, s);
        return plan_train(p, s, &r->ex, d, err);
    }
    if (!*path)
        return err_set(err, EXIT_USAGE, "plan: --data is needed%s",
                       corpora ? ", or --aligned and --unaligned" : "");
    if (score && (!*s->score.sae || !*s->score.layers))
        return err_set(err, EXIT_USAGE, "plan: --sae and --layers are needed for score");
    if (moments && !*s->score.layers)
        return err_set(err, EXIT_USAGE, "plan: --layers is needed for moments");
    Dataset kept = {0};
    bool ok = load(d, r, s, path, err) && load_kept(&kept, r, s, err);
    if (ok) plan_measured(p, "data");
    ok = ok && plan_of[s->plan.stage](p, s, &r->ex, kept.longest > d->longest ? &kept : d, err);
    dataset_free(&kept);
    return ok;
}

static bool check_inputs(const Settings *s, Err *err) {
    Config c;
    if (!config_load(&c, s->model.path, err)) return false;
    bool ok = *s->inputs.preserve ? inputs_check_outputs(s, &c, "--init salora", err)
                                  : inputs_check(s, &c, "--init eva", err);
    config_free(&c);
    return ok;
}

static bool check(const Args *a, Err *err) {
    const Settings *s = &a->s;
    bool train = s->plan.stage == STAGE_TRAIN, model = *s->model.path;
    if (!model && !(train && s->plan.shape))
        return err_set(err, EXIT_USAGE, "plan: --model is needed, or for --stage train --shape");
    if (!model && *s->data.path && !*s->model.tokenizer)
        return err_set(err, EXIT_USAGE, "plan: --tokenizer is needed to read --data");
    if (!train)
        return settings_check_packs(s, err) &&
               (s->plan.stage != STAGE_INPUTS || check_inputs(s, err));
    TrainedRow row = method_row(s);
    return method_flags(a, &row, 1, err) && preference_check(s, err) &&
           adapting_check_method(s, err) && settings_check_training_pack(s, err);
}

/* As training will have it, of machines that are not here (method_ranks). */
static bool fits_machine(const Settings *s, Err *err) {
    bool shares = s->plan.stage == STAGE_TRAIN && settings_all_weights(s);
    if (!shares || s->plan.ranks <= PLAN_MACHINE) return true;
    return err_set(err, EXIT_MEMORY,
                   "does not fit: %s shares its weights among the ranks of one machine, taken to "
                   "have %d, got --ranks %d; plan for at most %d, or for an adapter",
                   s->train.method == METHOD_FULL ? "--method full" : "--weights all", PLAN_MACHINE,
                   s->plan.ranks, PLAN_MACHINE);
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Runtime r = {0};
    Plan p = {0};
    Dataset d = {0};
    bool prompts = s->plan.stage == STAGE_GENERATE;
    bool reads = *s->model.path || *s->model.tokenizer;
    bool ok = check(a, err) && planned_device(&r, s, NULL, err);
    if (ok) plan_measured(&p, "program and libraries");
    ok = ok && (!reads || (prompts ? runtime_tokenizer : runtime_ids)(&r, s, err));
    if (ok) plan_measured(&p, "tokenizer");
    ok = ok && (prompts ? plan_generation(&p, &r, s, err) : plan_over_data(&p, &d, &r, s, err));
    if (ok) report(&p, s, &r.ex, prompts ? NULL : &d);
    ok = ok && fits_machine(s, err) && plan_fits(&p, &r.ex, err);
    dataset_free(&d);
    runtime_close(&r, ok);
    return ok;
}

static const Use use[] = {ONLY("plan.*"),
                          ONLY("model.path"),
                          ONLY("model.*"),
                          ONLY("data.path"),
                          ONLY("data.limit"),
                          ONLY("data.side"),
                          ONLY("data.max-length"),
                          ONLY("data.pack-tokens"),
                          ONLY("score.sae"),
                          ONLY("score.layers"),
                          ONLY("score.aligned"),
                          ONLY("score.unaligned"),
                          ONLY("score.tokens"),
                          ONLY("score.pool"),
                          ONLY("score.products"),
                          ONLY("inputs.preserve"),
                          ONLY("inputs.preserve-rank"),
                          ONLY("inputs.samples"),
                          USE_METHOD,
                          ONLY("train.init"),
                          ONLY("train.init-adapter"),
                          ONLY("train.subspace"),
                          USE_TRAINING,
                          ONLY("generate.prompts"),
                          ONLY("generate.suite"),
                          ONLY("generate.benign"),
                          ONLY("generate.benign-suite"),
                          ONLY("generate.limit"),
                          ONLY("generate.max-new-tokens"),
                          ONLY("generate.batch"),
                          ONLY("generate.temperature"),
                          ONLY("generate.top-k"),
                          ONLY("generate.top-p"),
                          ONLY("seed"),
                          ONLY("threads"),
                          ONLY("cpu"),
                          ONLY("json"),
                          {NULL, USE_OPTIONAL}};

const Command cmd_plan = {
    .name = "plan",
    .summary = "the memory that a stage will need, by class, before it starts",
    .about =
        "Takes the flags of the stage that --stage names, but for --out. Two of the stages have a\n"
        "--batch and a --limit: write --train.batch or --generate.batch. Exit code 4 when it does\n"
        "not fit. Neither card, weights nor data need be here: --gpu-memory 80 --shape 9b; with\n"
        "--ranks it says how well the packs of a step fill them. Machines are taken to have eight\n"
        "of them, and all weights are trained on one machine alone: with more ranks, exit code 4.",
    .positional = POSITIONAL_RECIPE,
    .use = use,
    .run = run,
};
