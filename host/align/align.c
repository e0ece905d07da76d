/* align.c - score, subspace, and for each method train, generate, eval and perplexity. */
#include "host/align/align.h"

#include <stdio.h>

#include "host/stage/adapting.h"
#include "host/align/comparison.h"
#include "host/align/grid.h"
#include "data/base/files.h"
#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/stage/agree.h"
#include "host/stage/chat_template.h"
#include "host/stage/inputs.h"
#include "host/stage/method.h"
#include "host/stage/planned_card.h"
#include "host/stage/preference.h"
#include "host/cli/json_lines.h"
#include "host/cli/print.h"
#include "host/stage/scoring.h"
#include "host/align/summary.h"

/* The word was checked by args_set. */
static Method method_named(const char *word) {
    for (int k = 0; k < START_COUNT; k++)
        if (strcmp(adapter_start[k].name, word) == 0)
            return (Method){adapter_start[k].name, METHOD_LORA, &adapter_start[k], 0};
    if (strcmp(word, "full") == 0) return (Method){"full", METHOD_FULL, NULL, 0};
    if (strcmp(word, "dpo") == 0) return (Method){"dpo", METHOD_DPO, &adapter_start[START_LORA], 0};
    return (Method){"base", METHOD_LORA, NULL, 0};
}

/* That of the method as `sails train` has it, where the recipe has none. */
static double rate_of(const Args *a, const Method *m) {
    Args own = *a; /* borrows what they own */
    own.s.train.method = (int)m->how;
    own.s.train.weights = WEIGHTS_ADAPTER; /* of dpo */
    return method_rate(&own);
}

static bool read_methods(Methods *m, const Args *a, Err *err) {
    const Settings *s = &a->s;
    *m = (Methods){0};
    int n = list_count(s->train.methods);
    if (n == 0) return err_set(err, EXIT_USAGE, "train.methods: expected at least one method");
    for (int i = 0; i < n; i++) {
        char word[SETTING_KEY];
        list_item(s->train.methods, i, word, sizeof word);
        for (int j = 0; j < m->n; j++)
            if (strcmp(m->row[j].name, word) == 0)
                return err_set(err, EXIT_USAGE, "train.methods: %s is there twice", word);
        Method *row = &m->row[m->n++];
        *row = method_named(word);
        row->rate = rate_of(a, row);
        enum SubspaceSource source =
            row->start ? subspace_source(row->start->subspace) : SOURCE_NONE;
        m->scores = m->scores || source == SOURCE_SCORES;
        m->moments = m->moments || source == SOURCE_MOMENTS;
        m->inputs = m->inputs || source == SOURCE_INPUTS;
        m->outputs = m->outputs || source == SOURCE_OUTPUTS;
        m->pairs = m->pairs || row->how == METHOD_DPO;
        m->models = m->models || row->how == METHOD_FULL;
    }
    return true;
}

/* The settings that learning from pairs has of its own. */
static bool check_pairs(const Align *w, const Method *m, Err *err) {
    Settings s = align_settings(w, m);
    s.data.side = SIDE_CHOSEN; /* align takes what it needs */
    return preference_check(&s, err) && settings_check_training_pack(&s, err);
}

/* What a method needs that the recipe does not give. */
static bool check_method(const Method *m, const Settings *s, Err *err) {
    if (!m->start) return true;
    enum SubspaceSource source = subspace_source(m->start->subspace);
    if (source == SOURCE_SCORES && (!*s->score.sae || !*s->score.layers))
        return err_set(err, EXIT_USAGE, "score.sae and score.layers: the method %s needs both",
                       m->name);
    if (source == SOURCE_MOMENTS && !*s->score.layers)
        return err_set(err, EXIT_USAGE, "score.layers: the method %s needs them", m->name);
    if (m->start->subspace == SUBSPACE_PAIRS && *s->score.aligned)
        return err_set(err, EXIT_USAGE,
                       "the method %s needs pairs; score.aligned and score.unaligned have none",
                       m->name);
    if (source == SOURCE_OUTPUTS && !*s->inputs.preserve)
        return err_set(err, EXIT_USAGE,
                       "inputs.preserve: the method %s needs it: harmful prompts with safe replies",
                       m->name);
    char what[64];
    snprintf(what, sizeof what, "the method %s", m->name);
    return adapter_start_check_rank(m->start, s->train.rank, what, err) &&
           (!s->train.freeze_basis || adapter_start_check_freeze(m->start, what, err));
}

/* Of the command line: a flag that is for no row, and the ranks. */
static bool check_flags(const Align *w, Err *err) {
    TrainedRow row[sizeof w->methods.row / sizeof *w->methods.row];
    int n = 0;
    for (int i = 0; i < w->methods.n; i++) {
        const Method *m = &w->methods.row[i];
        if (!method_trains(m)) continue;
        row[n++] = m->start ? (TrainedRow){m->how, WEIGHTS_ADAPTER, adapter_start_kind(m->start)}
                            : (TrainedRow){m->how, WEIGHTS_ALL, START_LORA};
    }
    return method_flags(w->args, row, n, err) && method_saes(w->args, row, n, err) &&
           method_ranks(w->args, row, n, err);
}

/* What is asked of the bases of a layer, whose SAE has S features; 0: of those without an SAE. */
static bool check_bases(const Align *w, int layer, int D, int S, Err *err) {
    const Methods *m = &w->methods;
    bool ok = true;
    for (int i = 0; i < m->n && ok; i++) {
        const AdapterStart *start = m->row[i].start;
        if (start && subspace_source(start->subspace) == (S ? SOURCE_SCORES : SOURCE_MOMENTS))
            ok = adapting_check(w->s, start->subspace, layer, D, S, err);
    }
    return ok;
}

static bool check_saes(const Align *w, int D, Err *err) {
    SaeSet saes;
    if (!saes_open(&saes, NULL, w->s, &w->layers, D, err)) return false;
    bool ok = true;
    for (int i = 0; i < saes.n && ok; i++)
        ok = check_bases(w, saes.sae[i].layer, D, saes.sae[i].enc.S, err);
    saes_close(&saes);
    return ok;
}

/* Ranks that a start which factorises the weights cannot have. */
static bool check_ranks(const Methods *m, const Config *c, const Settings *s, Err *err) {
    for (int i = 0; i < m->n; i++) {
        const AdapterStart *start = m->row[i].start;
        if (start && !adapting_check_fits(c, s, adapter_start_kind(start), err)) return false;
    }
    return true;
}

/* Its files are hashed when its prompts are answered. */
static bool folder_of_suite(const Settings *s) {
    return s->generate.suite && suite_table[s->generate.suite - 1].shape == SUITE_FOLDER;
}

/* What would otherwise be found out hours later. */
static bool check(Align *w, Err *err) {
    const Settings *s = w->s;
    const Methods *m = &w->methods;
    if (!settings_check_packs(s, err) || !align_check_judges(w, err)) return false;
    for (int i = 0; i < m->n; i++)
        if (!check_method(&m->row[i], s, err) ||
            (m->row[i].how == METHOD_DPO && !check_pairs(w, &m->row[i], err)))
            return false;
    if ((*s->score.aligned != 0) != (*s->score.unaligned != 0))
        return err_set(err, EXIT_USAGE, "score.aligned and score.unaligned: both or neither");
    const char *const path[] = {s->data.path,
                                s->data.text,
                                s->score.aligned,
                                s->score.unaligned,
                                s->inputs.preserve,
                                s->generate.benign,
                                folder_of_suite(s) ? "" : s->generate.prompts};
    char hex[65];
    for (size_t i = 0; i < sizeof path / sizeof *path; i++)
        if (*path[i] && !run_hash(&w->run, hex, path[i], err)) return false;
    Config c;
    if (!config_load(&c, s->model.path, err)) return false;
    bool ok = check_ranks(m, &c, s, err);
    if (m->scores || m->moments) ok = ok && layers_parse(&w->layers, s->score.layers, c.L, err);
    ok = ok && (!m->scores || check_saes(w, c.D, err)) && check_bases(w, 0, c.D, 0, err) &&
         (!m->inputs || inputs_check(s, &c, "the method eva", err)) &&
         (!m->outputs || inputs_check_outputs(s, &c, "the method salora", err));
    config_free(&c);
    return ok;
}

/* Adds the lines of a run to metrics.jsonl, each with the run's name. */
static bool gather_run(Align *w, const Cell *c, JsonLines *out, Err *err) {
    char left[160], name[192];
    json_t *lines, *line;
    size_t k;
    bool ok = true;
    snprintf(name, sizeof name, "%s/metrics.jsonl", align_left(left, c));
    char *from = run_path(&w->run, name);
    if (files_exists(from) && (ok = json_lines_read(&lines, from, err))) {
        json_array_foreach (lines, k, line) {
            json_object_set_new(line, "method", json_string(c->name));
            ok = ok && json_lines_put(out, json_incref(line), err);
        }
        json_decref(lines);
    }
    free(from);
    return ok;
}

/* metrics.jsonl: the steps of all runs so far, once a method. */
static bool gather_metrics(Align *w, Err *err) {
    const Methods *m = &w->methods;
    const Grid *g = &w->grid;
    JsonLines out;
    if (!comm_root(w->r.ex.comm)) return true;
    char *path = run_path(&w->run, "metrics.jsonl");
    bool ok = json_lines_open(&out, path, err);
    for (int i = 0; i < m->n && ok; i++)
        for (int r = 0; r < grid_rates(g, &m->row[i]); r++)
            for (int k = 0; k < grid_seeds(g, &m->row[i]) && ok; k++) {
                Cell c = grid_cell(g, &m->row[i], r, k, PART_TEST);
                ok = gather_run(w, &c, &out, err);
            }
    ok = json_lines_close(&out, ok, err);
    free(path);
    return ok;
}

static bool train_run(Align *w, const Cell *c, json_t **trained, Err *err) {
    static const char *const counts[] = {"documents", "dropped"}; /* that training was given */
    if (!align_train(w, c, trained, err)) return false;
    for (int i = 0; i < 2; i++)
        json_object_set(w->run.manifest, counts[i], json_object_get(*trained, counts[i]));
    return true;
}

/* Of a run's replies to the validation prompts; harmless ones may be absent. Rank 0 has it. */
static bool validate_run(Align *w, const Cell *c, double *score, Err *err) {
    json_t *eval = NULL;
    if (!align_generate(w, c, err) || !align_eval(w, c, &eval, err)) return false;
    *score = json_number_value(json_object_get(eval, "safety_rate")) -
             json_number_value(json_object_get(eval, "over_refusal"));
    json_decref(eval);
    return true;
}

/* Of the first rates the best; of whole models one rate's stay. Rank 0 has the scores. */
static int best_of(Align *w, const Method *m, int rates, const double *score, int best) {
    Grid first = w->grid;
    first.nrate = rates;
    int seeds = grid_seeds(&w->grid, m), last = rates - 1, better = grid_best(&first, score, seeds);
    int worse = better == last ? best : last;
    if (m->how == METHOD_FULL && comm_root(w->r.ex.comm))
        for (int k = 0; k < seeds && worse != better; k++) {
            Cell c = grid_cell(&w->grid, m, worse, k, PART_VALIDATION);
            align_model_drop(w, &c);
        }
    return better;
}

/* Trains a method at all rates from all seeds, and chooses the rate. trained (rates x seeds). */
static bool run_grid(Align *w, const Method *m, json_t **trained, int *rate, Err *err) {
    const Grid *g = &w->grid;
    int rates = grid_rates(g, m), seeds = grid_seeds(g, m);
    double *score = mem_array((size_t)(rates * seeds), sizeof *score);
    bool ok = true;
    *rate = 0;
    for (int i = 0; i < rates * seeds && ok; i++) {
        Cell c = grid_cell(g, m, i / seeds, i % seeds, PART_VALIDATION);
        ok = train_run(w, &c, &trained[i], err) &&
             (rates == 1 || validate_run(w, &c, &score[i], err));
        if (ok && rates > 1 && i % seeds == seeds - 1)
            *rate = best_of(w, m, i / seeds + 1, score, *rate);
    }
    ok = ok && agree_root(w->r.ex.comm, gather_metrics(w, err), err);
    free(score);
    if (ok) comm_broadcast(w->r.ex.comm, "the best rate", rate, sizeof *rate);
    return ok;
}

/* What the stages of a run gave, as an object of the summary; absent numbers are null. Borrows. */
static json_t *make_run(const Cell *c, json_t *train, json_t *eval, json_t *perplexity) {
    static const char *const from_eval[] = {"safety_rate",  "harmfulness", "high_risk",
                                            "over_refusal", "empty",       "n",
                                            "benign",       "unjudged",    "second"};
    static const char *const from_train[] = {"trainable", "trainable_percent", "seconds",
                                             "tokens_per_second", "redundancy"};
    json_t *run =
        json_pack("{s:s, s:o, s:i}", "name", c->name, "rate",
                  method_trains(c->method) ? json_real(c->lr) : json_null(), "seed", c->seed);
    for (int i = 0; i < 9; i++)
        json_object_set(run, from_eval[i], json_object_get(eval, from_eval[i]));
    json_object_set(run, "perplexity", json_object_get(perplexity, "perplexity"));
    for (int i = 0; i < 5; i++) {
        json_t *value = json_object_get(train, from_train[i]);
        json_object_set_new(run, from_train[i], value ? json_incref(value) : json_null());
    }
    if (!train) json_object_set_new(run, "trainable", json_integer(0));
    if (!train) json_object_set_new(run, "trainable_percent", json_real(0));
    return run;
}

/* The judged responses of a run are in its file; rank 0 alone reads it. */
static bool add_responses(Align *w, const Cell *c, json_t *run, Err *err) {
    enum { EVAL_BYTES = 1 << 30 };
    char name[128];
    json_t *eval;
    snprintf(name, sizeof name, "eval/%s.json", c->replies);
    char *path = run_path(&w->run, name);
    bool ok = files_read_json(&eval, path, EVAL_BYTES, err);
    if (ok) json_object_set(run, "responses", json_object_get(eval, "responses"));
    if (ok) json_object_set(run, "categories", json_object_get(eval, "categories"));
    if (ok) json_decref(eval);
    free(path);
    return ok;
}

/* Judges a run on the prompts of the table. */
static bool test_run(Align *w, const Cell *c, json_t *trained, json_t *runs, Err *err) {
    json_t *eval = NULL, *perplexity = NULL;
    Comm *comm = w->r.ex.comm;
    bool ok = align_generate(w, c, err) && align_eval(w, c, &eval, err) &&
              align_perplexity(w, c, &perplexity, err);
    json_t *run = ok && comm_root(comm) ? make_run(c, trained, eval, perplexity) : NULL;
    ok = ok && agree_root(comm, !run || add_responses(w, c, run, err), err);
    if (run) json_array_append_new(runs, run);
    json_decref(perplexity);
    json_decref(eval);
    return ok;
}

/* runs: to which those of the row are added. first: that of the first seed. */
static bool run_method(Align *w, const Method *m, json_t *runs, Cell *first, Err *err) {
    const Grid *g = &w->grid;
    int seeds = grid_seeds(g, m), n = grid_rates(g, m) * seeds, rate = 0;
    json_t **trained = mem_array((size_t)n, sizeof(json_t *));
    bool ok = !method_trains(m) || run_grid(w, m, trained, &rate, err);
    *first = grid_cell(g, m, rate, 0, PART_TEST);
    for (int k = 0; k < seeds && ok; k++) {
        Cell c = grid_cell(g, m, rate, k, PART_TEST);
        ok = test_run(w, &c, trained[rate * seeds + k], runs, err);
    }
    for (int i = 0; i < n; i++) json_decref(trained[i]);
    free(trained);
    return ok;
}

/* A method's subspaces; to the summary goes what they hold. */
static bool make_subspaces(Align *w, const Method *m, json_t *subspaces, Err *err) {
    bool ok = true;
    for (int k = 0; k < grid_subspaces(&w->grid, m) && ok; k++) {
        json_t *made = NULL;
        Cell c = grid_cell(&w->grid, m, 0, k, PART_TEST);
        ok = align_subspace(w, &c, &made, err);
        if (ok) json_object_set(subspaces, c.subspace, json_object_get(made, "bases"));
        json_decref(made);
    }
    return ok;
}

/* The rows of the summary; all but the first that is trained are held against that one. runs: an
 * array for each method. */
static json_t *make_rows(const Methods *m, const json_t *runs) {
    json_t *rows = json_array();
    int first = 0;
    while (first < m->n - 1 && !method_trains(&m->row[first])) first++;
    for (int i = 0; i < m->n; i++) {
        const json_t *own = json_array_get(runs, (size_t)i);
        json_t *row = comparison_row(m->row[i].name, own);
        if (i != first)
            comparison_versus(row, own, m->row[first].name, json_array_get(runs, (size_t)first));
        json_array_append_new(rows, row);
    }
    return rows;
}

/* What the bases are made from. */
static bool run_sources(Align *w, json_t *summary, Err *err) {
    json_t *moments = NULL;
    bool ok = !w->methods.scores || align_score(w, err);
    ok = ok && (!w->methods.moments || align_moments(w, &moments, err));
    if (moments) json_object_set_new(summary, "moments", moments);
    return ok;
}

static bool run_stages(Align *w, Err *err) {
    const Methods *m = &w->methods;
    Cell cell[sizeof m->row / sizeof *m->row];
    json_t *runs = json_array(), *summary = json_pack("{s:{}}", "subspaces");
    bool ok = run_sources(w, summary, err), root = comm_root(w->r.ex.comm);
    for (int i = 0; i < m->n && ok; i++)
        if (m->row[i].start && m->row[i].start->subspace)
            ok = make_subspaces(w, &m->row[i], json_object_get(summary, "subspaces"), err);
    for (int i = 0; i < m->n && ok; i++) {
        json_array_append_new(runs, json_array());
        ok = run_method(w, &m->row[i], json_array_get(runs, (size_t)i), &cell[i], err);
    }
    ok = ok && align_explain(w, cell, m->n, err);
    if (ok && root) json_object_set_new(summary, "rows", make_rows(m, runs));
    json_decref(runs);
    char *path = run_path(&w->run, "summary.json");
    ok = ok && align_begin_run(w, err) &&
         (!root || (files_write_json(path, summary, err) && run_write_manifest(&w->run, err)));
    free(path);
    if (ok && root && w->s->run.json)
        print_json(json_incref(summary));
    else if (ok && root)
        summary_print(summary, stdout);
    json_decref(summary);
    return ok;
}

bool align_run(const Args *a, Err *err) {
    Align w = {.args = a, .s = &a->s};
    interrupt_as_request();
    bool ok = read_methods(&w.methods, a, err) && grid_read(&w.grid, &a->s, err) &&
              check_flags(&w, err) && align_check_flags(a, err) &&
              (a->s.run.check ? planned_device : runtime_device)(&w.r, &a->s, a->comm, err) &&
              agree_root(a->comm, run_open(&w.run, a, exec_plugin(&w.r.ex), err), err) &&
              check(&w, err);
    if (ok) {
        const char *tokenizer = *a->s.model.tokenizer ? a->s.model.tokenizer : a->s.model.path;
        char *other = chat_template_other(tokenizer);
        json_object_set_new(w.run.manifest, "device", json_string(w.r.ex.op->name));
        if (other) json_object_set_new(w.run.manifest, "other_chat_template", json_string(other));
        free(other);
    }
    ok = ok && (a->s.run.check ? align_check : run_stages)(&w, err);
    grid_free(&w.grid);
    prompts_part_free(&w.validation);
    prompts_part_free(&w.test);
    prompts_free(&w.prompts);
    split_free(&w.split);
    dataset_free(&w.held_pairs);
    dataset_free(&w.pairs);
    dataset_free(&w.text);
    dataset_free(&w.kept);
    dataset_free(&w.data);
    layers_free(&w.layers);
    run_close(&w.run);
    runtime_close(&w.r, ok);
    return ok;
}
