/* cmd_train.c - fine-tuning: of an adapter, or of all weights. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/base/files.h"
#include "data/base/folder_lock.h"
#include "data/base/interrupt.h"
#include "host/stage/adapting.h"
#include "host/cli/command.h"
#include "host/cli/json_lines.h"
#include "host/stage/agree.h"
#include "host/stage/dataset.h"
#include "host/stage/method.h"
#include "host/stage/model_files.h"
#include "host/stage/plan.h"
#include "host/stage/preference.h"
#include "host/cli/print.h"
#include "host/stage/result_key.h"
#include "host/stage/snapshot.h"
#include "host/stage/train.h"

/* No model is written over another, but for that of the same run, which has left checkpoints beside
 * it. An adapter takes its predecessor's place, unless a run was to go on that has none. */
static bool is_free(const Settings *s, Err *err) {
    const char *out = s->train.out;
    char *saves = files_join(out, "checkpoints");
    bool left = snapshot_count(saves) > 0;
    free(saves);
    if (s->train.resume) return left || checkpoints_missing(out, err);
    return !settings_all_weights(s) || model_files_refuse_existing(out, err);
}

/* Locked before anything is looked at or swept: a run whose process cannot be seen from here may
 * write there. */
static bool take_folder(FolderLock *lock, const Settings *s, Comm *comm, Err *err) {
    bool ok = !comm_root(comm) || (folder_lock(lock, s->train.out, err) && is_free(s, err));
    return agree_root(comm, ok, err);
}

static bool make_adapter(Runtime *r, const Settings *s, const Dataset *d, Err *err) {
    if (*s->train.init_adapter) return runtime_adapter(r, s->train.init_adapter, true, err);
    Subspace subspace = {0};
    const AdapterStart *start = &adapter_start[s->train.init];
    if (start->subspace && !*s->train.subspace)
        return err_set(err, EXIT_USAGE,
                       "--init %s: --subspace is needed: a file written by sails %s", start->name,
                       subspace_source(start->subspace) >= SOURCE_INPUTS ? "inputs" : "subspace");
    const Examples data = dataset_examples(d);
    bool ok = !start->subspace || adapting_load(&subspace, s, err);
    ok = ok && adapting_fresh_on(r, s, (enum StartKind)s->train.init, &subspace, &data, err);
    subspace_free(&subspace);
    return ok;
}

/* With what is to be trained. */
static bool open_model(Runtime *r, const Settings *s, const Dataset *d, size_t positions,
                       Err *err) {
    if (settings_all_weights(s)) return runtime_trained_model(r, s, (int)positions, err);
    return runtime_model(r, s, (int)positions, err) && make_adapter(r, s, d, err);
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
    const char *what = d->shared ? "pairs" : "documents";
    printf("%zu %s, %s tokens, %d steps of %d %s, %s, rate %g\n", dataset_examples(d).n, what,
           print_count(tokens, (double)d->tokens), t->steps, t->batch, what, r->ex.op->name,
           t->schedule.lr);
    dataset_print_notes(stdout, "", d);
    fflush(stdout);
}

static void report(const TrainResult *t, const Settings *s, const Dataset *d) {
    double rate = t->seconds > 0 ? (double)t->tokens / t->seconds : 0;
    if (s->run.json) {
        print_json(json_pack("{s:s, s:I, s:I, s:i, s:f, s:f, s:I, s:f, s:o}", "out", s->train.out,
                             d->shared ? "pairs" : "documents", (json_int_t)dataset_examples(d).n,
                             "dropped", (json_int_t)d->dropped, "steps", t->steps, "train_loss",
                             t->steps ? t->mean_loss : 0, "train_runtime", t->seconds, "num_tokens",
                             (json_int_t)t->tokens, "tokens_per_second", rate, "redundancy",
                             json_number(t->redundancy)));
        return;
    }
    char took[PRINT_ROOM], count[PRINT_ROOM];
    printf("%s: %d steps in %s, %s tok/s", s->train.out, t->steps, print_seconds(took, t->seconds),
           print_count(count, rate));
    if (t->steps) printf(", loss %.4f -> %.4f", t->first_loss, t->last_loss);
    if (isfinite(t->redundancy)) printf(", redundancy %.3g", t->redundancy);
    putchar('\n');
}

static bool train_and_save(Runtime *r, const Args *a, const Dataset *d, const Dataset *eval,
                           Err *err) {
    const Settings *s = &a->s;
    TrainSetup t;
    TrainResult result;
    json_t *key = result_key_new(), *maker = NULL;
    char *folder = files_join(s->train.out, "checkpoints");
    CheckpointPlan plan = {
        .kept = {.folder = folder, .run = key, .again = "the same with --resume", .expected = true},
        .steps = s->train.checkpoint_every,
        .minutes = s->train.checkpoint_minutes,
        .keep = s->train.keep,
        .resume = s->train.resume,
        .result = s->train.out};
    train_setup(&t, s, dataset_examples(d).n);
    t.doc = d->doc, t.shared = d->shared;
    t.eval = eval->doc, t.eval_shared = eval->shared, t.neval = dataset_examples(eval).n;
    t.eval_every = s->train.eval_every;
    bool ok = !train_saves(s) || !comm_root(r->ex.comm) ||
              (result_key_command(key, a, &r->ex, &hasher_plain, err) &&
               keeping_maker(&maker, &r->ex, err));
    plan.kept.maker = maker;
    if (train_saves(s)) t.checkpoints = &plan;
    if (ok) announce(r, s, d, &t);
    ok = ok && train_folder(&result, &r->model, &t, s->train.out, s->model.path, err);
    if (ok) report(&result, s, d);
    json_decref(key), json_decref(maker);
    free(folder);
    return ok;
}

static bool fits(Runtime *r, const Settings *s, const Dataset *d, const Dataset *eval, Err *err) {
    Plan p = {.eval = eval};
    plan_measured(&p, "program, tokenizer and data");
    return plan_train(&p, s, &r->ex, d, err) && plan_fits(&p, &r->ex, err);
}

static bool run(const Args *given, Err *err) {
    Args own = *given; /* borrows what they own */
    own.s.train.lr = method_rate(given);
    const Args *a = &own;
    const Settings *s = &a->s;
    Runtime r = {0};
    Dataset d = {0}, eval = {0};
    FolderLock lock = {0};
    if (train_saves(s)) interrupt_as_request();
    TrainedRow row = method_row(s);
    bool ok = method_flags(a, &row, 1, err) && method_ranks(a, &row, 1, err) &&
              preference_check(s, err) && adapting_check_method(s, err) &&
              settings_check_training_pack(s, err) && take_folder(&lock, s, a->comm, err) &&
              runtime_device(&r, s, a->comm, err) && runtime_ids(&r, s, err) &&
              training_load(&d, r.tokenizer, s, s->data.path, (size_t)s->data.limit, err) &&
              (!*s->train.eval_data ||
               training_load(&eval, r.tokenizer, s, s->train.eval_data, 0, err)) &&
              fits(&r, s, &d, &eval, err) &&
              open_model(&r, s, &d, d.longest > eval.longest ? d.longest : eval.longest, err) &&
              train_and_save(&r, a, &d, &eval, err);
    dataset_free(&eval);
    dataset_free(&d);
    runtime_close(&r, ok);
    folder_unlock(&lock);
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
                          USE_METHOD,
                          ONLY("train.init"),
                          ONLY("train.init-adapter"),
                          ONLY("train.subspace"),
                          USE_TRAINING,
                          ONLY("train.eval-data"),
                          ONLY("train.eval-every"),
                          ONLY("train.tensorboard"),
                          ONLY("train.checkpoint-every"),
                          ONLY("train.checkpoint-minutes"),
                          ONLY("train.keep"),
                          ONLY("train.resume"),
                          ONLY("seed"),
                          ONLY("threads"),
                          ONLY("deadline"),
                          ONLY("cpu"),
                          ONLY("json"),
                          {NULL, USE_OPTIONAL}};

const Command cmd_train = {
    .name = "train",
    .summary = "fine-tune an adapter or the whole model; writes it and metrics.jsonl",
    .about =
        "Documents are packed without padding and never see each other; the loss of a step is\n"
        "the mean over all target tokens of its batch. Loss: the final reply's tokens with\n"
        "<end_of_turn> and newline.\n"
        "--method dpo takes pairs: the loss is the mean over those of a batch, of the chosen and "
        "the\n"
        "rejected reply's log-probabilities against those of a reference, which is the model "
        "without\n"
        "an adapter, or with that of --init-adapter; with --weights all the model as it was. A "
        "pair's\n"
        "prompt runs once.\n"
        "With checkpoints a run survives: SIGTERM and SIGUSR1 save the state and exit with 7, and\n"
        "the same command with --resume goes on, after a kill too, to the same bytes.",
    .positional = POSITIONAL_RECIPE,
    .ranks = true,
    .use = use,
    .run = run,
};
