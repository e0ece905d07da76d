/* cmd_train.c - fine-tuning of an adapter. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/base/files.h"
#include "host/stage/adapting.h"
#include "host/cli/command.h"
#include "host/stage/dataset.h"
#include "host/stage/plan.h"
#include "host/cli/print.h"
#include "host/stage/result_key.h"
#include "host/stage/train.h"

static bool make_adapter(Runtime *r, const Settings *s, Err *err) {
    if (*s->train.init_adapter) return runtime_adapter(r, s->train.init_adapter, true, err);
    Subspace subspace = {0};
    const AdapterStart *start = &adapter_start[s->train.init];
    if (start->subspace && !*s->train.subspace)
        return err_set(err, EXIT_USAGE,
                       "--init %s: --subspace is needed: a file written by sails subspace",
                       start->name);
    bool ok = !start->subspace || subspace_load(&subspace, s->train.subspace, err);
    ok = ok && adapting_fresh(r, s, (enum StartKind)s->train.init, &subspace, err);
    subspace_free(&subspace);
    return ok;
}

/* What is about to run, before the first step. */
static void announce(const Runtime *r, const Settings *s, const Dataset *d, const TrainSetup *t) {
    if (s->run.json) return;
    char trained[PRINT_ROOM], all[PRINT_ROOM], tokens[PRINT_ROOM];
    double percent;
    size_t n = adapting_trainable(&r->model, &percent);
    printf("trainable params: %s || base params: %s || trainable%%: %.4f\n",
           print_count(trained, (double)n),
           print_count(all, (double)tensors_parameters(&r->model.c)), percent);
    printf("%zu documents, %s tokens, %d steps of %d documents, %s\n", d->n,
           print_count(tokens, (double)d->tokens), t->steps, t->batch, r->ex.op->name);
    dataset_print_notes(stdout, "", d);
    fflush(stdout);
}

static void report(const TrainResult *t, const Settings *s, const Dataset *d) {
    double rate = t->seconds > 0 ? (double)t->tokens / t->seconds : 0;
    if (s->run.json) {
        print_json(json_pack("{s:s, s:I, s:I, s:i, s:f, s:f, s:I, s:f}", "out", s->train.out,
                             "documents", (json_int_t)d->n, "dropped", (json_int_t)d->dropped,
                             "steps", t->steps, "train_loss", t->steps ? t->mean_loss : 0,
                             "train_runtime", t->seconds, "num_tokens", (json_int_t)t->tokens,
                             "tokens_per_second", rate));
        return;
    }
    char took[PRINT_ROOM], count[PRINT_ROOM];
    printf("%s: %d steps in %s, %s tok/s", s->train.out, t->steps, print_seconds(took, t->seconds),
           print_count(count, rate));
    if (t->steps) printf(", loss %.4f -> %.4f", t->first_loss, t->last_loss);
    putchar('\n');
}

/* A folder, where the data are ids and the model has no tokenizer.json. */
static bool ids_only(const char *tokenizer) {
    struct stat st;
    return stat(tokenizer, &st) == 0 && S_ISDIR(st.st_mode);
}

/* What decides the result: all settings but how it is worked out and kept, and the files' contents.
 */
static bool make_key(json_t *key, const Args *a, const Exec *ex, Err *err) {
    static const char *const others[] = {"threads",
                                         "cpu",
                                         "model.device",
                                         "model.dtype",
                                         "train.checkpoint-every",
                                         "train.checkpoint-minutes",
                                         "train.keep"};
    const Settings *s = &a->s;
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        const Setting *row = &settings_table[i];
        char name[SETTING_KEY];
        bool counts =
            command_uses(a->command, i) && setting_role(row) == ROLE_NONE && row->mark != DISPLAY;
        setting_key(row, name);
        for (size_t k = 0; k < sizeof others / sizeof *others; k++)
            counts = counts && strcmp(name, others[k]) != 0;
        if (counts) result_key_setting(key, s, row);
    }
    result_key_text(key, "model.dtype", dtype_name(ex->dtype));
    const Hasher *h = &hasher_plain;
    char *tokenizer = runtime_tokenizer_file(s);
    bool ok =
        result_key_file(key, h, "data", s->data.path, err) &&
        result_key_folder(key, h, "model", s->model.path, err) &&
        (ids_only(tokenizer) || result_key_file(key, h, "tokenizer", tokenizer, err)) &&
        (!*s->train.subspace || result_key_file(key, h, "subspace", s->train.subspace, err)) &&
        (!*s->train.init_adapter ||
         result_key_folder(key, h, "init-adapter", s->train.init_adapter, err));
    free(tokenizer);
    return ok;
}

/* What should be the same for equal bits. */
static bool make_maker(json_t **maker, const Exec *ex, Err *err) {
    char program[65];
    if (!files_sha256(program, "/proc/self/exe", err)) return false;
    *maker = json_pack("{s:s, s:s, s:s}", "device", ex->op->name, "program", program, "sails",
                       SAILS_VERSION);
    return true;
}

static bool train_and_save(Runtime *r, const Args *a, const Dataset *d, Err *err) {
    const Settings *s = &a->s;
    TrainSetup t;
    TrainResult result;
    json_t *key = result_key_new(), *maker = NULL;
    char *folder = files_join(s->train.out, "checkpoints");
    CheckpointPlan plan = {.folder = folder,
                           .steps = s->train.checkpoint_every,
                           .minutes = s->train.checkpoint_minutes,
                           .keep = s->train.keep,
                           .resume = s->train.resume,
                           .run = key};
    train_setup(&t, s, d->n);
    t.doc = d->doc;
    bool ok = !train_saves(s) || (make_key(key, a, &r->ex, err) && make_maker(&maker, &r->ex, err));
    plan.maker = maker;
    if (train_saves(s)) t.checkpoints = &plan;
    if (ok) announce(r, s, d, &t);
    ok = ok && train_folder(&result, &r->model, &t, s->train.out, s->model.path, err);
    if (ok) report(&result, s, d);
    json_decref(key), json_decref(maker);
    free(folder);
    return ok;
}

static bool fits(Runtime *r, const Settings *s, const Dataset *d, Err *err) {
    Plan p = {0};
    plan_measured(&p, "program, tokenizer and data");
    return plan_train(&p, s, &r->ex, d, err) && plan_fits(&p, &r->ex, err);
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Runtime r = {0};
    Dataset d = {0};
    bool ok = settings_check_packs(s, err) && runtime_device(&r, s, a->comm, err) &&
              runtime_ids(&r, s, err) &&
              dataset_load_training(&d, r.tokenizer, s->data.path, (enum Side)s->data.side,
                                    s->data.max_length, (size_t)s->data.limit, err) &&
              fits(&r, s, &d, err) && runtime_model(&r, s, (int)d.longest, err) &&
              make_adapter(&r, s, err) && train_and_save(&r, a, &d, err);
    dataset_free(&d);
    runtime_close(&r);
    return ok;
}

static const Use use[] = {{"model.path", USE_NEEDED},
                          {"data.path", USE_NEEDED},
                          {"train.out", USE_NEEDED},
                          ONLY("model.tokenizer"),
                          ONLY("model.device"),
                          ONLY("model.dtype"),
                          ONLY("data.limit"),
                          ONLY("data.side"),
                          ONLY("data.max-length"),
                          ONLY("data.pack-tokens"),
                          ONLY("train.method"),
                          ONLY("train.init"),
                          ONLY("train.init-adapter"),
                          ONLY("train.subspace"),
                          USE_TRAINING,
                          ONLY("train.checkpoint-every"),
                          ONLY("train.checkpoint-minutes"),
                          ONLY("train.keep"),
                          ONLY("train.resume"),
                          ONLY("seed"),
                          ONLY("threads"), ONLY("deadline"),
                          ONLY("cpu"),
                          ONLY("json"),
                          {NULL, USE_OPTIONAL}};

const Command cmd_train = {
    .name = "train",
    .summary = "fine-tune an adapter; writes a PEFT folder and metrics.jsonl",
    .about =
        "Documents are packed without padding and never see each other; the loss of a step is\n"
        "the mean over all target tokens of its batch. Loss: the final reply's tokens with\n"
        "<end_of_turn> and newline.\n"
        "With checkpoints a run survives: SIGTERM and SIGUSR1 save the state and exit with 7, and\n"
        "the same command with --resume goes on, after a kill too, to the same bytes.",
    .positional = POSITIONAL_RECIPE,
    .ranks = true,
    .use = use,
    .run = run,
};
