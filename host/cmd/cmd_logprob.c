/* cmd_logprob.c - log-probability of every token of every document. */
#include <math.h>
#include <stdio.h>

#include "data/base/mem.h"
#include "host/cli/command.h"
#include "host/stage/agree.h"
#include "host/stage/dataset.h"
#include "host/cli/json_lines.h"
#include "host/stage/nll.h"
#include "host/stage/plan.h"
#include "host/cli/print.h"
#include "host/stage/runtime.h"
#include "host/stage/same_input.h"

typedef struct Writer {
    const Dataset *d;
    uint8_t **target; /* (n) the training labels, which measuring all tokens replaces */
    JsonLines out;
    NllSum all, targets;
} Writer;

/* One document: nll[t - 1] is that of token t. */
static bool write_doc(void *context, size_t i, const float *nll, const LogitFacts *logits, int n,
                      Err *err) {
    Writer *w = context;
    const Doc *d = &w->d->doc[i];
    (void)logits;
    CHECK(n == d->n - 1, "expected %d log-probabilities, got %d", d->n - 1, n);
    json_t *tokens = json_array(), *logprobs = json_array(), *labels = json_array();
    double sum = 0;
    for (int t = 0; t < d->n; t++) {
        json_array_append_new(tokens, json_integer(d->token[t]));
        json_array_append_new(labels, json_integer(w->target[i][t]));
        if (t == 0) continue;
        double x = nll[t - 1];
        sum += x;
        json_array_append_new(logprobs, json_real(-x));
        if (w->target[i][t]) w->targets.sum += x, w->targets.labels++;
    }
    w->all.sum += sum;
    w->all.labels += (size_t)n;
    json_t *mean = n ? json_real(sum / n) : json_null();
    return json_lines_put(
        &w->out,
        json_pack("{s:s, s:o, s:o, s:o, s:f, s:o}", "id", d->record->id, "tokens", tokens,
                  "logprobs", logprobs, "labels", labels, "sum", -sum, "mean_nll", mean),
        err);
}

static void label_everything(Writer *w, Dataset *d) {
    w->target = mem_array(d->n, sizeof *w->target);
    for (size_t i = 0; i < d->n; i++) {
        w->target[i] = mem_array((size_t)d->doc[i].n, 1);
        memcpy(w->target[i], d->doc[i].label, (size_t)d->doc[i].n);
        doc_label_all(&d->doc[i]);
    }
}

static double perplexity(const NllSum *s) {
    return exp(s->sum / (double)s->labels);
}

static void report(const Dataset *d, const Writer *w, const Settings *s) {
    if (s->run.json) {
        json_t *targets = w->targets.labels ? json_real(perplexity(&w->targets)) : json_null();
        print_json(json_pack("{s:s, s:I, s:I, s:f, s:I, s:o}", "out", s->logprob.out, "documents",
                             (json_int_t)d->n, "tokens", (json_int_t)w->all.labels, "perplexity",
                             perplexity(&w->all), "target_tokens", (json_int_t)w->targets.labels,
                             "target_perplexity", targets));
        return;
    }
    char count[PRINT_ROOM];
    printf("%zu documents, %s tokens, perplexity %.4f\n", d->n,
           print_count(count, (double)w->all.labels), perplexity(&w->all));
    if (w->targets.labels)
        printf("  of the %s training targets %.4f\n", print_count(count, (double)w->targets.labels),
               perplexity(&w->targets));
    if (d->truncated) printf("  %zu documents cut at --max-length\n", d->truncated);
}

static bool write_all(Runtime *r, Dataset *d, const Settings *s, Err *err) {
    Writer w = {.d = d};
    label_everything(&w, d);
    Comm *comm = r->ex.comm;
    bool root = comm_root(comm);
    Examples all = dataset_examples(d);
    bool same = same_docs(comm, "what was read as data", &all, err);
    bool opened =
        same && agree_root(comm, !root || json_lines_open(&w.out, s->logprob.out, err), err);
    const NllHow how = {.pack_tokens = settings_pack_tokens(s),
                        .progress = s->run.json ? NULL : "logprob"};
    bool measured = opened && nll_docs(&r->model, &all, &how, write_doc, &w, err);
    bool ok = measured;
    if (opened && root) ok = json_lines_close(&w.out, ok, err);
    ok = measured && agree_root(comm, ok, err);
    if (ok && root && *s->logprob.out) report(d, &w, s);
    for (size_t i = 0; i < d->n; i++) free(w.target[i]);
    free(w.target);
    return ok;
}

static bool fits(Runtime *r, const Settings *s, const Dataset *d, Err *err) {
    Plan p = {0};
    plan_measured(&p, "program, tokenizer and data");
    return plan_logprob(&p, s, &r->ex, d, err) && plan_fits(&p, &r->ex, err);
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Runtime r = {0};
    Dataset d = {0};
    bool ok = settings_check_packs(s, err) && runtime_device(&r, s, a->comm, err) &&
              runtime_ids(&r, s, err) &&
              dataset_load(&d, r.tokenizer, s->data.path, (enum Side)s->data.side,
                           s->data.max_length, (size_t)s->data.limit, err) &&
              fits(&r, s, &d, err) && runtime_model(&r, s, (int)d.longest, err) &&
              (!*s->model.adapter || runtime_adapter(&r, s->model.adapter, false, err)) &&
              write_all(&r, &d, s, err);
    dataset_free(&d);
    runtime_close(&r, ok);
    return ok;
}

static const Use use[] = {{"logprob.*", USE_OPTIONAL},
                          {"model.*", USE_OPTIONAL},
                          {"model.path", USE_NEEDED},
                          {"data.path", USE_NEEDED},
                          {"data.limit", USE_OPTIONAL},
                          {"data.side", USE_OPTIONAL},
                          {"data.max-length", USE_OPTIONAL},
                          {"data.pack-tokens", USE_OPTIONAL},
                          {"threads", USE_OPTIONAL},
                          {"deadline", USE_OPTIONAL},
                          {"cpu", USE_OPTIONAL},
                          {"json", USE_OPTIONAL},
                          {NULL, USE_OPTIONAL}};

const Command cmd_logprob = {
    .name = "logprob",
    .summary = "log-probability of every token: perplexity, parity, multiple choice",
    .about =
        "One JSON object a line: {\"id\", \"tokens\", \"logprobs\" (one per token after the\n"
        "first), \"labels\" (1: a training target), \"sum\", \"mean_nll\"}.",
    .positional = POSITIONAL_RECIPE,
    .ranks = true,
    .use = use,
    .run = run,
};
