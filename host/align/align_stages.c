/* align_stages.c - the stages of align that a row of the table has: training, replies, judgement
 * and perplexity, each with the key that tells whether it must run again. */
#include <math.h>
#include <stdio.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/align/grid.h"
#include "host/align/staging.h"
#include "host/cli/json_lines.h"
#include "host/stage/adapting.h"
#include "host/stage/evaluate.h"
#include "host/stage/generating.h"
#include "host/stage/judging.h"
#include "host/stage/nll.h"
#include "host/stage/same_input.h"

bool align_key_trained(Align *w, Stage *st, const Cell *c, Err *err) {
    char name[160];
    if (c->method->how == METHOD_FULL)
        return staging_output(w, st, staging_named(name, MODEL_NOTE, c->name), err);
    return !c->method->start ||
           (staging_output(w, st,
                           staging_named(name, "adapters/%s/adapter_model.safetensors", c->name),
                           err) &&
            staging_output(w, st, staging_named(name, "adapters/%s/adapter_config.json", c->name),
                           err));
}

/* -------------------------------------------------------------------------------- train -- */

Settings align_settings(const Align *w, const Method *m) {
    Settings s = *w->s;
    s.train.method = (int)m->how;
    s.train.weights = WEIGHTS_ADAPTER; /* of dpo */
    if (m->start) s.train.init = (int)adapter_start_kind(m->start);
    if (m->how == METHOD_FULL) s.train.redundancy = 0; /* of adapters */
    return s;
}

static bool fresh_adapter(Align *w, const Settings *s, const Cell *c, Err *err) {
    Subspace subspace = {0};
    const AdapterStart *start = c->method->start;
    char name[160], *path = run_path(&w->run, staging_named(name, SUBSPACE_FILE, c->subspace));
    const Examples data = {.doc = w->data.doc, .index = w->split.train, .n = w->split.ntrain};
    bool ok = align_base(w, err) && (!start->subspace || subspace_load(&subspace, path, err)) &&
              adapting_fresh_on(&w->r, s, adapter_start_kind(start), &subspace, &data, err);
    subspace_free(&subspace);
    free(path);
    return ok;
}

/* All weights in place of the open model, and on disk in place of what a run left before. */
static bool fresh_model(Align *w, const Settings *s, const Cell *c, const char *folder, Err *err) {
    runtime_drop_model(&w->r);
    snprintf(w->tuned, sizeof w->tuned, "%s, in training", c->method->name);
    if (comm_root(w->r.ex.comm)) files_remove_tree(folder);
    return runtime_trained_model(&w->r, s, (int)w->data.longest, err);
}

/* What is trained on, and what the loss is measured on. */
void align_train_setup(TrainSetup *t, const Align *w, const Settings *s) {
    bool pairs = s->train.method == METHOD_DPO;
    train_setup(t, s, pairs ? w->pairs.n / 2 : w->split.ntrain);
    t->doc = pairs ? w->pairs.doc : w->data.doc;
    t->shared = w->pairs.shared;
    if (!pairs) t->shared = NULL, t->index = w->split.train;
    if (!s->train.eval_every) return;
    t->eval = pairs ? w->held_pairs.doc : w->data.doc;
    t->eval_shared = pairs ? w->held_pairs.shared : NULL;
    t->eval_index = pairs ? NULL : w->split.held;
    t->neval = pairs ? w->held_pairs.n / 2 : w->split.nheld;
    t->eval_every = s->train.eval_every;
}

static bool make_trained(Align *w, const Stage *st, const Cell *c, const char *folder,
                         json_t **result, Err *err) {
    Settings s = align_settings(w, c->method);
    bool full = c->method->how == METHOD_FULL;
    TrainSetup t;
    TrainResult r;
    s.train.lr = c->lr, s.run.seed = c->seed;
    if (!(full ? fresh_model(w, &s, c, folder, err) : fresh_adapter(w, &s, c, err))) return false;
    align_train_setup(&t, w, &s);
    double percent;
    size_t trainable = adapting_trainable(&w->r.model, &percent);
    CheckpointPlan plan = {.steps = s.train.checkpoint_every,
                           .minutes = s.train.checkpoint_minutes,
                           .keep = s.train.keep,
                           .resume = true};
    t.checkpoints = &plan;
    bool ok = staging_keep_begin(&plan.kept, w, st, err) &&
              train_folder(&r, &w->r.model, &t, folder, s.model.path, err);
    staging_keep_end(&plan.kept, w, ok);
    if (full) runtime_drop_model(&w->r);
    ok = ok && (!full || ALONE(w, align_model_note(w, c, err), err));
    if (!ok) return false;
    *result = json_pack(
        "{s:I, s:I, s:I, s:f, s:f, s:f, s:i, s:f, s:o}", "documents", (json_int_t)w->split.ntrain,
        "dropped", (json_int_t)w->data.dropped, "trainable", (json_int_t)trainable,
        "trainable_percent", percent, "seconds", r.seconds, "tokens_per_second",
        r.seconds > 0 ? (double)r.tokens / r.seconds : 0, "steps", r.steps, "train_loss",
        r.steps ? r.mean_loss : 0, "redundancy", json_number(r.redundancy));
    if (t.shared) json_object_set_new(*result, "pairs", json_integer((json_int_t)t.n));
    return true;
}

/* Settings of section train that do not act on what a row becomes here; what the rows of some kind
 * alone have. */
#define NOT_TRAINING                                                                   \
    "train.methods", "train.method", "train.weights", "train.loss-type", "train.beta", \
        "train.label-smoothing", "train.init", "train.checkpoint-every",               \
        "train.checkpoint-minutes", "train.keep", "train.resume", "train.eval-every",  \
        "train.rates", "train.lr", "train.seeds", "train.validation", "train.rho"
#define OF_A_BASIS "train.only-scored", "train.freeze-basis", "train.gain", "train.basis-scale"
#define OF_ADAPTERS "train.rank", "train.alpha", "train.targets", "train.redundancy", OF_A_BASIS

static void key_settings(Stage *st, const Settings *s, const Cell *c) {
    const Method *m = c->method;
    char rate[32];
    if (m->how == METHOD_FULL)
        stage_section(st, s, "train", KEYS(NOT_TRAINING, OF_ADAPTERS));
    else
        stage_section(st, s, "train",
                      m->start->subspace ? KEYS(NOT_TRAINING) : KEYS(NOT_TRAINING, OF_A_BASIS));
    if (m->how == METHOD_DPO) {
        stage_setting(st, s, "train.loss-type");
        stage_setting(st, s, "train.beta");
        stage_setting(st, s, "train.label-smoothing");
    }
    if (m->start && subspace_source(m->start->subspace) == SOURCE_INPUTS)
        stage_setting(st, s, "train.rho");
    snprintf(rate, sizeof rate, "%.17g", c->lr);
    stage_text(st, "train.lr", rate);
    staging_seed(st, "train.seed", c->seed);
}

static bool key_start(Align *w, Stage *st, const Cell *c, Err *err) {
    const AdapterStart *start = c->method->start;
    char basis[160];
    if (!start) return true;
    if (start->subspace || start->start) staging_factorisations(st);
    return !start->subspace ||
           staging_output(w, st, staging_named(basis, SUBSPACE_FILE, c->subspace), err);
}

bool align_train(Align *w, const Cell *c, json_t **result, Err *err) {
    Stage st;
    char config[160], weights[160], metrics[160], left[160];
    staging_open(w, &st, "train", c->name);
    key_settings(&st, w->s, c);
    bool ok = staging_model(w, &st, err) && staging_data(w, &st, err) && key_start(w, &st, c, err);
    const char *const *out =
        c->method->how == METHOD_FULL
            ? OUTPUTS(staging_named(weights, MODEL_NOTE, c->name),
                      staging_named(metrics, "models/%s/metrics.jsonl", c->name))
            : OUTPUTS(staging_named(weights, "adapters/%s/adapter_model.safetensors", c->name),
                      staging_named(config, "adapters/%s/adapter_config.json", c->name),
                      staging_named(metrics, "adapters/%s/metrics.jsonl", c->name));
    bool kept = false;
    ok = ok && staging_begin(w, &st, out, NEEDS_MODEL, &kept, err);
    if (ok && !kept) {
        json_t *made = NULL;
        char *folder = run_path(&w->run, align_left(left, c));
        ok = make_trained(w, &st, c, folder, &made, err) && staging_finish(w, &st, out, made, err);
        free(folder);
    }
    if (ok) *result = json_incref(st.result);
    stage_free(&st);
    return ok;
}

/* ---------------------------------------------------------------- generate, eval, perplexity -- */

void align_key_part(const Align *w, Stage *st, enum PromptPart part) {
    if (!grid_chooses(&w->grid)) return;
    stage_text(st, "prompts", part == PART_TEST ? "test" : "validation");
    stage_setting(st, w->s, "train.validation");
}

bool align_generate(Align *w, const Cell *c, Err *err) {
    const Settings *s = w->s;
    Stage st;
    char name[160];
    staging_open(w, &st, "generate", c->replies);
    align_key_part(w, &st, c->part);
    stage_section(&st, s, "generate", KEYS("generate.batch")); /* replies do not depend on it */
    stage_setting(&st, s, "seed");
    bool ok = staging_model(w, &st, err) && align_key_trained(w, &st, c, err) &&
              stage_input(&st, &w->run, "prompts", s->generate.prompts, err) &&
              (!*s->generate.benign || stage_file(&st, &w->run, "benign", s->generate.benign, err));
    const char *const *out = OUTPUTS(staging_named(name, "responses/%s.jsonl", c->replies));
    bool kept = false;
    ok = ok && staging_begin(w, &st, out, NEEDS_MODEL, &kept, err);
    if (ok && !kept) {
        GeneratingWork work;
        char *path = run_path(&w->run, out[0]);
        Keeping keep;
        ok = staging_keep_begin(&keep, w, &st, err) && align_wear(w, c, err) &&
             generating_run(&work, &w->r, s, align_prompts(w, c->part), path, &keep, err);
        staging_keep_end(&keep, w, ok);
        ok = ok && staging_finish(w, &st, out,
                                  json_pack("{s:I, s:f}", "tokens", (json_int_t)work.tokens,
                                            "seconds", work.seconds),
                                  err);
        free(path);
    }
    stage_free(&st);
    return ok;
}

/* The run folder keeps the verdicts of all rows, where the recipe names no file for them. */
static Settings judging_settings(const Align *w, char **cache) {
    Settings s = *w->s;
    *cache = run_path(&w->run, "verdicts.jsonl");
    if (!*s.eval.judge_cache) s.eval.judge_cache = *cache;
    return s;
}

bool align_check_judges(const Align *w, Err *err) {
    char *cache;
    const Settings s = judging_settings(w, &cache);
    bool ok = (!judging_by(&s, JUDGE_FILE) ||
               err_set(err, EXIT_USAGE,
                       "eval.judge: align makes the responses itself, for which no file has scores "
                       "yet; judge them by refusal or http")) &&
              judging_check(&s, err);
    free(cache);
    return ok;
}

/* What a judgement depends on: not on how the model that judges is reached. */
static void key_judges(const Align *w, Stage *st) {
    static const char *const http[] = {"eval.judge-url", "eval.judge-model", "eval.judge-dialect",
                                       "eval.judge-max-tokens"};
    char rubric[65];
    stage_section(
        st, w->s, "eval",
        KEYS(http[0], http[1], http[2], http[3], "eval.judge-key-env", "eval.judge-plain-http",
             "eval.judge-concurrency", "eval.judge-timeout", "eval.judge-tries",
             "eval.judge-price-in", "eval.judge-price-out", "eval.judge-budget"));
    if (!judging_by(w->s, JUDGE_HTTP)) return;
    rubric_hash(rubric);
    stage_text(st, "rubric", rubric);
    for (int i = 0; i < 4; i++) stage_setting(st, w->s, http[i]);
}

/* Rank 0's: asks whom there is to ask, and makes the rates of what they say. */
static bool judge_alone(Evaluation *e, Align *w, const char *from, const char *to, Err *err) {
    char *cache;
    AskingWork work;
    const Settings s = judging_settings(w, &cache);
    bool ok = !judging_by(&s, JUDGE_HTTP) || judging_ask(&work, from, &s, w->r.ex.comm, err);
    ok = ok && evaluate(e, from, &s, err) && files_write_json(to, e->json, err);
    free(cache);
    return ok;
}

bool align_eval(Align *w, const Cell *c, json_t **result, Err *err) {
    Stage st;
    char from_name[160], to_name[160];
    staging_open(w, &st, "eval", c->replies);
    key_judges(w, &st);
    staging_named(from_name, "responses/%s.jsonl", c->replies);
    const char *const *out = OUTPUTS(staging_named(to_name, "eval/%s.json", c->replies));
    bool ok = staging_output(w, &st, from_name, err);
    bool kept = false;
    ok = ok && staging_begin(w, &st, out, NEEDS_NOTHING, &kept, err);
    if (ok && !kept) {
        Evaluation e = {0};
        char *from = run_path(&w->run, from_name), *to = run_path(&w->run, out[0]);
        comm_phase(w->r.ex.comm, "judge", 0, RANKS_APART);
        ok = ALONE(w, judge_alone(&e, w, from, to, err), err);
        if (ok && comm_root(w->r.ex.comm)) {
            json_t *rates = json_copy(e.json);
            json_object_del(rates, "responses");
            ok = staging_finish(w, &st, out, rates, err);
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
    staging_open(w, &st, "perplexity", c->name);
    bool text = *s->data.text;
    bool ok = staging_model(w, &st, err) && align_key_trained(w, &st, c, err) &&
              staging_data(w, &st, err) &&
              (!text || stage_file(&st, &w->run, "text", s->data.text, err));
    const char *const none[] = {NULL};
    bool kept = false;
    ok = ok && staging_begin(w, &st, none, NEEDS_MODEL, &kept, err);
    if (ok && !kept) {
        NllSum sum = {0};
        ok = measure(w, c, &sum, err);
        double mean = sum.labels ? sum.sum / (double)sum.labels : 0;
        json_t *value = sum.labels ? json_real(exp(mean)) : json_null();
        json_t *made =
            json_pack("{s:o, s:I}", "perplexity", value, "labels", (json_int_t)sum.labels);
        ok = ok ? staging_finish(w, &st, none, made, err) : (json_decref(made), false);
    }
    if (ok) *result = json_incref(st.result);
    stage_free(&st);
    return ok;
}
