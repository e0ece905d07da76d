/* align_stages.c - the stages of align, each with the key that tells whether it must run again. */
#include "host/align/align_stages.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "host/stage/adapting.h"
#include "host/stage/agree.h"
#include "data/base/files.h"
#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/stage/evaluate.h"
#include "host/stage/generating.h"
#include "host/cli/json_lines.h"
#include "host/stage/nll.h"
#include "host/cli/print.h"
#include "host/stage/same_input.h"
#include "host/stage/scoring.h"
#include "host/stage/train.h"
#include "host/stage/wish.h"
#include "kernels/lapack.h"

#define KEYS(...)           \
    (const char *const[]) { \
        __VA_ARGS__, NULL   \
    }
#define OUTPUTS(...)        \
    (const char *const[]) { \
        __VA_ARGS__, NULL   \
    }

/* A path within the run folder for one run: "adapters/%s". */
static const char *named(char path[160], const char *format, const char *run) {
    snprintf(path, 160, format, run);
    return path;
}

/* Opens a key with what all stages depend on: device and storage type. run NULL: of none. */
static void open_stage(Align *w, Stage *st, const char *name, const char *run) {
    char full[STAGE_NAME];
    snprintf(full, sizeof full, "%s%s%s", name, run ? "-" : "", run ? run : "");
    stage_begin(st, &w->run, full);
    stage_text(st, "device", w->r.ex.op->name);
}

/* The svd and qr of a subspace, and of a start that is taken off, are OpenBLAS's on a CPU, and it
 * chooses its kernels by the processor, whatever the level. */
static void key_factorisations(Stage *st) {
    stage_text(st, "openblas", openblas_get_config());
}

bool align_begin_run(Align *w, Err *err) {
    static const char *const folders[] = {"subspaces", "adapters", "responses", "eval", NULL};
    return run_begin(&w->run, folders, err);
}

/* One line of progress: what was done or kept. */
static void say(const Align *w, const Stage *st, bool kept) {
    if (w->s->run.json) return;
    char took[PRINT_ROOM];
    if (kept)
        printf("%-36s kept\n", st->name);
    else
        printf("%-36s %s\n", st->name, print_seconds(took, clock_seconds() - st->start));
    fflush(stdout);
}

/* ------------------------------------------------------------------------------- inputs -- */

static bool key_model(Align *w, Stage *st, Err *err) {
    const Settings *s = w->s;
    char *tokenizer = runtime_tokenizer_file(s);
    bool ok = stage_model(st, &w->run, s->model.path, err) &&
              stage_file(st, &w->run, "tokenizer", tokenizer, err);
    free(tokenizer);
    return ok;
}

static bool key_data(Align *w, Stage *st, Err *err) {
    stage_section(st, w->s, "data", KEYS("data.side")); /* it is the chosen one */
    stage_setting(st, w->s, "seed");
    stage_text(st, "data.text", *w->s->data.text ? "given" : "");
    return stage_file(st, &w->run, "data", w->s->data.path, err);
}

/* The two files that stand in for the pairs; nothing of them is held out. */
static bool key_corpora(Align *w, Stage *st, Err *err) {
    stage_section(st, w->s, "data", KEYS("data.side", "data.heldout"));
    return stage_file(st, &w->run, "aligned", w->s->score.aligned, err) &&
           stage_file(st, &w->run, "unaligned", w->s->score.unaligned, err);
}

static bool key_output(Align *w, Stage *st, const char *name, Err *err) {
    char *path = run_path(&w->run, name);
    bool ok = stage_file(st, &w->run, name, path, err);
    free(path);
    return ok;
}

static bool key_adapter(Align *w, Stage *st, const Cell *c, Err *err) {
    char name[160];
    return !c->start ||
           (key_output(w, st, named(name, "adapters/%s/adapter_model.safetensors", c->name), err) &&
            key_output(w, st, named(name, "adapters/%s/adapter_config.json", c->name), err));
}

/* The files behind --sae; opened without their weights. */
static bool key_saes(Align *w, Stage *st, Err *err) {
    SaeSet saes;
    if (!saes_open(&saes, NULL, w->s, &w->layers, 0, err)) return false;
    Hasher h = run_hasher(&w->run);
    bool ok = saes_key(st->key, &h, &saes, err);
    saes_close(&saes);
    return ok;
}

/* What rank 0 alone does: its outcome is that of all. */
#define ALONE(w, what, err) agree_root((w)->r.ex.comm, !comm_root((w)->r.ex.comm) || (what), err)

/* Is the stage done? Rank 0 knows. If not, what its work needs is opened and the run folder begun.
 */
enum Needs { NEEDS_NOTHING, NEEDS_MODEL };
static bool begin(Align *w, Stage *st, const char *const *outputs, enum Needs needs, bool *kept,
                  Err *err) {
    comm_phase(w->r.ex.comm, "between stages", 0, 3 * RANKS_APART); /* rank 0 hashes and writes */
    Wish wish = wish_share(w->r.ex.comm, (Wish){.signal = interrupt_requested()});
    if (wish.signal) return wish_stop(&wish, "between two stages", "the same command", err);
    *kept = stage_done(st, &w->run, outputs);
    comm_broadcast(w->r.ex.comm, "is the stage done", kept, sizeof *kept);
    if (*kept) say(w, st, true);
    return *kept ||
           ((needs == NEEDS_NOTHING || align_need_model(w, err)) && align_begin_run(w, err));
}

/* Ends a stage: stamp, line, and what was opened. */
static bool finish(Align *w, Stage *st, const char *const *outputs, json_t *result, Err *err) {
    bool ok = stage_finish(st, &w->run, outputs, result, err);
    if (ok) say(w, st, false);
    return ok;
}

/* --------------------------------------------------------------------- score and subspace -- */

/* Where a stage keeps what it has done, until it is done. Frees with keep_end. */
static bool keep_begin(Keeping *k, Align *w, const Stage *st, Err *err) {
    char name[STAGE_NAME + 16];
    snprintf(name, sizeof name, "unfinished/%s", st->name);
    *k = (Keeping){.folder = run_path(&w->run, name), .run = st->key, .again = "the same command"};
    return !comm_root(w->r.ex.comm) || keeping_maker(&k->maker, &w->r.ex, err);
}

static void keep_end(Keeping *k, Align *w, bool done) {
    char *all = run_path(&w->run, "unfinished");
    if (done) keeping_done(k, &w->r.ex);
    if (done) rmdir(all); /* the last one is done */
    free(all);
    json_decref(k->maker);
    free((char *)k->folder);
}

static bool make_scores(Align *w, const Stage *st, const char *path, json_t **result, Err *err) {
    const Settings *s = w->s;
    bool corpora = *s->score.aligned;
    SaeSet saes = {0};
    Scores scores = {0};
    ScoringWork work;
    Keeping keep;
    runtime_drop_adapter(&w->r);
    bool ok = keep_begin(&keep, w, st, err) &&
              saes_open(&saes, &w->r.ex, s, &w->layers, w->r.model.c.D, err) &&
              scoring_run(&scores, &work, &w->r, &saes, s, corpora ? NULL : &w->data.records,
                          w->split.train, w->split.ntrain, &keep, err) &&
              ALONE(w, scores_save(&scores, path, err), err);
    if (ok)
        *result = json_pack("{s:f, s:I, s:I, s:I, s:I, s:I}", "seconds", work.seconds, "tokens",
                            (json_int_t)work.pass.tokens, "rows", (json_int_t)work.pass.rows,
                            "counted", (json_int_t)work.pass.counted, "sampled_fires",
                            (json_int_t)work.pass.fires, "flips", (json_int_t)work.pass.flips);
    keep_end(&keep, w, ok);
    scores_free(&scores);
    saes_close(&saes);
    return ok;
}

bool align_score(Align *w, Err *err) {
    const Settings *s = w->s;
    Stage st;
    open_stage(w, &st, "score", NULL);
    stage_section(&st, s, "score", KEYS(NULL));
    bool corpora = *s->score.aligned;
    bool ok = key_model(w, &st, err) && key_saes(w, &st, err) &&
              (corpora ? key_corpora(w, &st, err) : key_data(w, &st, err));
    const char *const *out = OUTPUTS("scores.safetensors");
    bool kept = false;
    ok = ok && begin(w, &st, out, NEEDS_MODEL, &kept, err);
    if (ok && !kept) {
        json_t *result = NULL;
        char *path = run_path(&w->run, out[0]);
        ok = make_scores(w, &st, path, &result, err) && finish(w, &st, out, result, err);
        free(path);
    }
    stage_free(&st);
    return ok;
}

static bool make_subspace(Align *w, const Cell *c, const char *scores_path, const char *path,
                          json_t **result, Err *err) {
    Settings s = *w->s;
    Scores scores = {0};
    Subspace subspace = {0};
    s.run.seed = c->seed;
    bool ok = scores_load(&scores, scores_path, err) &&
              adapting_subspace(&subspace, &w->r.ex, &scores, s.score.sae, &s,
                                adapter_start_kind(c->start), err) &&
              subspace_save(&subspace, path, err);
    if (ok && !w->s->run.json) adapting_print(stdout, &subspace);
    if (ok) *result = json_pack("{s:o}", "bases", adapting_describe(&subspace));
    subspace_free(&subspace);
    scores_free(&scores);
    return ok;
}

/* Of a run; the recipe's own is that of the first. */
static void key_seed(Stage *st, const char *key, int seed) {
    char text[32];
    snprintf(text, sizeof text, "%d", seed);
    stage_text(st, key, text);
}

static const char SUBSPACE[] = "subspaces/%s.safetensors";

bool align_subspace(Align *w, const Cell *c, json_t **result, Err *err) {
    Stage st;
    char name[160];
    open_stage(w, &st, "subspace", c->subspace);
    key_factorisations(&st);
    stage_section(&st, w->s, "subspace", KEYS(NULL));
    stage_setting(&st, w->s, "train.rank");
    key_seed(&st, "seed", c->seed);
    const char *const *out = OUTPUTS(named(name, SUBSPACE, c->subspace));
    bool ok = key_output(w, &st, "scores.safetensors", err) && key_saes(w, &st, err);
    bool kept = false;
    ok = ok && begin(w, &st, out, NEEDS_NOTHING, &kept, err);
    if (ok && !kept) {
        json_t *made = NULL;
        char *from = run_path(&w->run, "scores.safetensors"), *to = run_path(&w->run, out[0]);
        ok = ALONE(w, make_subspace(w, c, from, to, &made, err), err) &&
             finish(w, &st, out, made, err);
        free(to);
        free(from);
    }
    if (ok) *result = json_incref(st.result);
    stage_free(&st);
    return ok;
}

/* -------------------------------------------------------------------------------- train -- */

static bool fresh_adapter(Align *w, const Settings *s, const Cell *c, Err *err) {
    Subspace subspace = {0};
    char name[160], *path = run_path(&w->run, named(name, SUBSPACE, c->subspace));
    bool ok = (!c->start->subspace || subspace_load(&subspace, path, err)) &&
              adapting_fresh(&w->r, s, adapter_start_kind(c->start), &subspace, err);
    subspace_free(&subspace);
    free(path);
    return ok;
}

static bool make_adapter(Align *w, const Stage *st, const Cell *c, const char *folder,
                         json_t **result, Err *err) {
    Settings s = *w->s;
    TrainSetup t;
    TrainResult r;
    s.train.lr = c->lr, s.run.seed = c->seed;
    runtime_drop_adapter(&w->r);
    if (!fresh_adapter(w, &s, c, err)) return false;
    train_setup(&t, &s, w->split.ntrain);
    t.doc = w->data.doc;
    t.index = w->split.train;
    if (s.train.eval_every) { /* on what is held out */
        t.eval = w->data.doc, t.eval_index = w->split.held, t.neval = w->split.nheld;
        t.eval_every = s.train.eval_every;
    }
    double percent;
    size_t trainable = adapting_trainable(&w->r.model, &percent);
    CheckpointPlan plan = {.steps = s.train.checkpoint_every,
                           .minutes = s.train.checkpoint_minutes,
                           .keep = s.train.keep,
                           .resume = true};
    t.checkpoints = &plan;
    bool ok = keep_begin(&plan.kept, w, st, err) &&
              train_folder(&r, &w->r.model, &t, folder, s.model.path, err);
    keep_end(&plan.kept, w, ok);
    if (!ok) return false;
    *result =
        json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:i, s:f, s:f}", "documents",
                  (json_int_t)w->split.ntrain, "dropped", (json_int_t)w->data.dropped, "trainable",
                  (json_int_t)trainable, "trainable_percent", percent, "seconds", r.seconds,
                  "tokens_per_second", r.seconds > 0 ? (double)r.tokens / r.seconds : 0, "steps",
                  r.steps, "train_loss", r.steps ? r.mean_loss : 0, "redundancy", r.redundancy);
    return true;
}

/* Settings of section train that do not act on what an adapter becomes here. */
#define NOT_TRAINING                                                                           \
    "train.methods", "train.method", "train.loss-type", "train.beta", "train.label-smoothing", \
        "train.init", "train.checkpoint-every", "train.checkpoint-minutes", "train.keep",      \
        "train.resume", "train.eval-every", "train.rates", "train.lr", "train.seeds",          \
        "train.validation"
#define OF_A_BASIS "train.only-scored", "train.freeze-basis", "train.gain", "train.basis-scale"

static void key_cell(Stage *st, const Cell *c) {
    char rate[32];
    snprintf(rate, sizeof rate, "%.17g", c->lr);
    stage_text(st, "train.lr", rate);
    key_seed(st, "train.seed", c->seed);
}

bool align_train(Align *w, const Cell *c, json_t **result, Err *err) {
    Stage st;
    char config[160], weights[160], metrics[160], folder_name[160], basis[160];
    open_stage(w, &st, "train", c->name);
    stage_section(&st, w->s, "train",
                  c->start->subspace ? KEYS(NOT_TRAINING) : KEYS(NOT_TRAINING, OF_A_BASIS));
    key_cell(&st, c);
    if (c->start->subspace || c->start->start) key_factorisations(&st);
    bool ok = key_model(w, &st, err) && key_data(w, &st, err) &&
              (!c->start->subspace || key_output(w, &st, named(basis, SUBSPACE, c->subspace), err));
    const char *const *out =
        OUTPUTS(named(weights, "adapters/%s/adapter_model.safetensors", c->name),
                named(config, "adapters/%s/adapter_config.json", c->name),
                named(metrics, "adapters/%s/metrics.jsonl", c->name));
    bool kept = false;
    ok = ok && begin(w, &st, out, NEEDS_MODEL, &kept, err);
    if (ok && !kept) {
        json_t *made = NULL;
        char *folder = run_path(&w->run, named(folder_name, "adapters/%s", c->name));
        ok = make_adapter(w, &st, c, folder, &made, err) && finish(w, &st, out, made, err);
        free(folder);
    }
    if (ok) *result = json_incref(st.result);
    stage_free(&st);
    return ok;
}

/* ---------------------------------------------------------------- generate, eval, perplexity -- */

static void key_part(const Align *w, Stage *st, const Cell *c) {
    if (w->grid.nrate == 1) return;
    stage_text(st, "prompts", c->part == PART_TEST ? "test" : "validation");
    stage_setting(st, w->s, "train.validation");
}

bool align_generate(Align *w, const Cell *c, Err *err) {
    const Settings *s = w->s;
    Stage st;
    char name[160];
    open_stage(w, &st, "generate", c->replies);
    key_part(w, &st, c);
    stage_section(&st, s, "generate", KEYS("generate.batch")); /* replies do not depend on it */
    stage_setting(&st, s, "seed");
    bool ok = key_model(w, &st, err) && key_adapter(w, &st, c, err) &&
              stage_file(&st, &w->run, "prompts", s->generate.prompts, err) &&
              (!*s->generate.benign || stage_file(&st, &w->run, "benign", s->generate.benign, err));
    const char *const *out = OUTPUTS(named(name, "responses/%s.jsonl", c->replies));
    bool kept = false;
    ok = ok && begin(w, &st, out, NEEDS_MODEL, &kept, err);
    if (ok && !kept) {
        GeneratingWork work;
        char *path = run_path(&w->run, out[0]);
        Keeping keep;
        ok = keep_begin(&keep, w, &st, err) && align_wear(w, c, err) &&
             generating_run(&work, &w->r, s, align_prompts(w, c->part), path, &keep, err);
        keep_end(&keep, w, ok);
        ok = ok && finish(w, &st, out,
                          json_pack("{s:I, s:f}", "tokens", (json_int_t)work.tokens, "seconds",
                                    work.seconds),
                          err);
        free(path);
    }
    stage_free(&st);
    return ok;
}

bool align_eval(Align *w, const Cell *c, json_t **result, Err *err) {
    Stage st;
    char from_name[160], to_name[160];
    open_stage(w, &st, "eval", c->replies);
    stage_section(&st, w->s, "eval", KEYS(NULL));
    named(from_name, "responses/%s.jsonl", c->replies);
    const char *const *out = OUTPUTS(named(to_name, "eval/%s.json", c->replies));
    bool ok = key_output(w, &st, from_name, err);
    bool kept = false;
    ok = ok && begin(w, &st, out, NEEDS_NOTHING, &kept, err);
    if (ok && !kept) {
        Evaluation e = {0};
        char *from = run_path(&w->run, from_name), *to = run_path(&w->run, out[0]);
        ok = ALONE(w, evaluate(&e, from, w->s, err) && files_write_json(to, e.json, err), err);
        if (ok && comm_root(w->r.ex.comm)) {
            json_t *rates = json_copy(e.json);
            json_object_del(rates, "responses");
            ok = finish(w, &st, out, rates, err);
        }
        evaluation_free(&e);
        free(to);
        free(from);
    }
    if (ok) *result = json_incref(st.result);
    stage_free(&st);
    return ok;
}

static bool measure(Align *w, const Cell *c, NllSum *sum, Err *err) {
    const Settings *s = w->s;
    bool text = *s->data.text;
    const Doc *doc = text ? w->text.doc : w->data.doc;
    const size_t *index = text ? NULL : w->split.held, n = text ? w->text.n : w->split.nheld;
    const Examples read = {.doc = doc, .index = index, .n = n};
    return align_wear(w, c, err) && same_docs(w->r.ex.comm, "what was read as text", &read, err) &&
           nll_sum(sum, &w->r.model, doc, index, n, settings_pack_tokens(s),
                   s->run.json ? NULL : "perplexity", err);
}

bool align_perplexity(Align *w, const Cell *c, json_t **result, Err *err) {
    const Settings *s = w->s;
    Stage st;
    open_stage(w, &st, "perplexity", c->name);
    bool text = *s->data.text;
    bool ok = key_model(w, &st, err) && key_adapter(w, &st, c, err) && key_data(w, &st, err) &&
              (!text || stage_file(&st, &w->run, "text", s->data.text, err));
    const char *const none[] = {NULL};
    bool kept = false;
    ok = ok && begin(w, &st, none, NEEDS_MODEL, &kept, err);
    if (ok && !kept) {
        NllSum sum = {0};
        ok = measure(w, c, &sum, err);
        double mean = sum.labels ? sum.sum / (double)sum.labels : 0;
        json_t *value = sum.labels ? json_real(exp(mean)) : json_null();
        json_t *made =
            json_pack("{s:o, s:I}", "perplexity", value, "labels", (json_int_t)sum.labels);
        ok = ok ? finish(w, &st, none, made, err) : (json_decref(made), false);
    }
    if (ok) *result = json_incref(st.result);
    stage_free(&st);
    return ok;
}
