/* align.c - score, subspace, and for each method train, generate, eval and perplexity. */
#include "host/align/align.h"

#include <stdio.h>

#include "host/stage/adapting.h"
#include "host/align/align_stages.h"
#include "data/base/files.h"
#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/stage/agree.h"
#include "host/stage/chat_template.h"
#include "host/cli/json_lines.h"
#include "host/cli/print.h"
#include "host/stage/scoring.h"
#include "host/align/summary.h"

/* The word was checked by args_set. */
static Method method_named(const char *word) {
    for (int k = 0; k < START_COUNT; k++)
        if (strcmp(adapter_start[k].name, word) == 0)
            return (Method){adapter_start[k].name, &adapter_start[k]};
    return (Method){"base", NULL};
}

static bool read_methods(Methods *m, const Settings *s, Err *err) {
    *m = (Methods){0};
    int n = list_count(s->train.methods);
    if (n == 0) return err_set(err, EXIT_USAGE, "train.methods: expected at least one method");
    for (int i = 0; i < n; i++) {
        char word[SETTING_KEY];
        list_item(s->train.methods, i, word, sizeof word);
        for (int j = 0; j < m->n; j++)
            if (strcmp(m->row[j].name, word) == 0)
                return err_set(err, EXIT_USAGE, "train.methods: %s is there twice", word);
        const Method *row = &m->row[m->n];
        m->row[m->n++] = method_named(word);
        m->subspace = m->subspace || (row->start && row->start->subspace);
        m->trained = m->trained || row->start;
    }
    return true;
}

/* What a method needs that the recipe does not give. */
static bool check_method(const Method *m, const Settings *s, Err *err) {
    if (!m->start) return true;
    if (m->start->subspace && (!*s->score.sae || !*s->score.layers))
        return err_set(err, EXIT_USAGE, "score.sae and score.layers: the method %s needs both",
                       m->name);
    char what[64];
    snprintf(what, sizeof what, "the method %s", m->name);
    return adapter_start_check_rank(m->start, s->train.rank, what, err);
}

static bool check_saes(const Align *w, int D, Err *err) {
    SaeSet saes;
    if (!saes_open(&saes, NULL, w->s, &w->layers, D, err)) return false;
    bool ok = true;
    for (int i = 0; i < saes.n && ok; i++)
        ok = adapting_check(w->s, saes.sae[i].layer, D, saes.sae[i].enc.S, err);
    saes_close(&saes);
    return ok;
}

/* What would otherwise be found out hours later. */
static bool check(Align *w, Err *err) {
    const Settings *s = w->s;
    const Methods *m = &w->methods;
    if (!settings_check_packs(s, err)) return false;
    for (int i = 0; i < m->n; i++)
        if (!check_method(&m->row[i], s, err)) return false;
    if ((*s->score.aligned != 0) != (*s->score.unaligned != 0))
        return err_set(err, EXIT_USAGE, "score.aligned and score.unaligned: both or neither");
    const char *const path[] = {s->data.path,       s->data.text,        s->score.aligned,
                                s->score.unaligned, s->generate.prompts, s->generate.benign};
    char hex[65];
    for (size_t i = 0; i < sizeof path / sizeof *path; i++)
        if (*path[i] && !run_hash(&w->run, hex, path[i], err)) return false;
    Config c;
    if (!config_load(&c, s->model.path, err)) return false;
    bool ok = !m->subspace ||
              (layers_parse(&w->layers, s->score.layers, c.L, err) && check_saes(w, c.D, err));
    config_free(&c);
    return ok;
}

/* metrics.jsonl: the steps of all methods trained so far, each with its method's name. */
static bool gather_metrics(Align *w, Err *err) {
    const Methods *m = &w->methods;
    JsonLines out;
    if (!comm_root(w->r.ex.comm)) return true;
    char *path = run_path(&w->run, "metrics.jsonl");
    bool ok = json_lines_open(&out, path, err);
    for (int i = 0; i < m->n && ok; i++) {
        char name[128];
        json_t *lines, *line;
        size_t k;
        snprintf(name, sizeof name, "adapters/%s/metrics.jsonl", m->row[i].name);
        char *from = run_path(&w->run, name);
        if (files_exists(from) && (ok = json_lines_read(&lines, from, err))) {
            json_array_foreach (lines, k, line) {
                json_object_set_new(line, "method", json_string(m->row[i].name));
                ok = ok && json_lines_put(&out, json_incref(line), err);
            }
            json_decref(lines);
        }
        free(from);
    }
    ok = json_lines_close(&out, ok, err);
    free(path);
    return ok;
}

/* The row of a method from what its stages gave; absent numbers are null. */
static json_t *make_row(const char *method, json_t *train, json_t *eval, json_t *perplexity) {
    static const char *const from_eval[] = {"safety_rate", "harmfulness", "high_risk",
                                            "over_refusal", "empty"};
    static const char *const from_train[] = {"trainable", "trainable_percent", "seconds",
                                             "tokens_per_second"};
    json_t *row = json_pack("{s:s}", "name", method);
    for (int i = 0; i < 5; i++)
        json_object_set(row, from_eval[i], json_object_get(eval, from_eval[i]));
    json_object_set(row, "perplexity", json_object_get(perplexity, "perplexity"));
    for (int i = 0; i < 4; i++) {
        json_t *value = json_object_get(train, from_train[i]);
        json_object_set_new(row, from_train[i], value ? json_incref(value) : json_null());
    }
    if (!train) json_object_set_new(row, "trainable", json_integer(0));
    if (!train) json_object_set_new(row, "trainable_percent", json_real(0));
    return row;
}

static bool run_method(Align *w, const Method *m, json_t *rows, Err *err) {
    static const char *const counts[] = {"documents", "dropped"}; /* that training was given */
    json_t *trained = NULL, *eval = NULL, *perplexity = NULL;
    bool ok = true;
    if (m->start) ok = align_train(w, m, &trained, err) && gather_metrics(w, err);
    for (int i = 0; i < 2 && trained; i++)
        json_object_set(w->run.manifest, counts[i], json_object_get(trained, counts[i]));
    ok = ok && align_generate(w, m, err) && align_eval(w, m, &eval, err) &&
         align_perplexity(w, m, &perplexity, err);
    if (ok) json_array_append_new(rows, make_row(m->name, trained, eval, perplexity));
    json_decref(perplexity);
    json_decref(eval);
    json_decref(trained);
    return ok;
}

static bool run_stages(Align *w, Err *err) {
    const Methods *m = &w->methods;
    if (m->subspace && !(align_score(w, err) && align_subspace(w, err))) return false;
    json_t *summary = json_pack("{s:[]}", "rows");
    bool ok = true;
    for (int i = 0; i < m->n && ok; i++)
        ok = run_method(w, &m->row[i], json_object_get(summary, "rows"), err);
    char *path = run_path(&w->run, "summary.json");
    bool root = comm_root(w->r.ex.comm);
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
    bool ok = read_methods(&w.methods, &a->s, err) && runtime_device(&w.r, &a->s, a->comm, err) &&
              agree_root(a->comm, run_open(&w.run, a, exec_plugin(&w.r.ex), err), err) &&
              check(&w, err);
    if (ok) {
        const char *tokenizer = *a->s.model.tokenizer ? a->s.model.tokenizer : a->s.model.path;
        char *other = chat_template_other(tokenizer);
        json_object_set_new(w.run.manifest, "device", json_string(w.r.ex.op->name));
        if (other) json_object_set_new(w.run.manifest, "other_chat_template", json_string(other));
        free(other);
    }
    ok = ok && run_stages(&w, err);
    prompts_free(&w.prompts);
    split_free(&w.split);
    dataset_free(&w.text);
    dataset_free(&w.data);
    layers_free(&w.layers);
    run_close(&w.run);
    runtime_close(&w.r, ok);
    return ok;
}
