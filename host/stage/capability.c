/* capability.c - choices to documents, their log-probabilities to shares of right answers. */
#include "host/stage/capability.h"

#include <math.h>
#include <stdio.h>

#include "data/base/mem.h"
#include "data/base/statistics.h"
#include "host/cli/json_lines.h"
#include "host/stage/agree.h"
#include "host/stage/nll.h"
#include "host/stage/same_input.h"

enum { TEXTS = 1 << 30 }; /* bytes of another result */

/* ------------------------------------------------------------------------------- documents -- */

/* The tokens of context and choice behind <bos>, those from ids of the context on labelled. */
static bool fill(Doc *doc, Tokenizer *t, const TaskQuestion *q, int choice, Err *err) {
    Ids context = {0}, whole = {0};
    Buf text = {0};
    size_t n = strlen(q->context);
    buf_add(&text, q->context, n);
    buf_byte(&text, ' ');
    buf_add(&text, q->choice[choice], strlen(q->choice[choice]));
    bool ok =
        tokenizer_encode(t, q->context, n - question_trailing_space(q->context), &context, err) &&
        tokenizer_encode(t, text.p, text.n, &whole, err);
    if (ok && whole.n <= context.n)
        ok = err_set(err, EXIT_INPUT, "it has no token of its own behind the context");
    if (ok) {
        doc->n = (int)whole.n + 1;
        doc->prompt = (int)context.n + 1;
        doc->token = mem_array((size_t)doc->n, sizeof *doc->token);
        doc->label = mem_array((size_t)doc->n, 1);
        doc->reply = mem_array((size_t)doc->n, 1);
        doc->token[0] = tokenizer_id(t, "<bos>");
        memcpy(doc->token + 1, whole.id, whole.n * sizeof *whole.id);
        memset(doc->label + doc->prompt, 1, (size_t)(doc->n - doc->prompt));
    }
    ids_free(&context), ids_free(&whole);
    buf_free(&text);
    return ok;
}

static bool add(Dataset *d, Tokenizer *t, const TaskQuestion *q, int choice, int max_length,
                Err *err) {
    Record *record = &d->records.record[d->n];
    Doc *doc = &d->doc[d->n];
    bool ok = fill(doc, t, q, choice, err);
    if (ok && doc->n > max_length)
        ok = err_set(err, EXIT_INPUT, "expected at most --max-length %d tokens, got %d; raise it",
                     max_length, doc->n);
    if (!ok) {
        doc_free(doc);
        return err_prefix(err, "question %.80s: choice %d", q->id, choice + 1);
    }
    char number[16];
    snprintf(number, sizeof number, ":%d", choice + 1);
    Buf id = {0};
    buf_add(&id, q->id, strlen(q->id));
    buf_add(&id, number, strlen(number));
    *record = (Record){.form = RECORD_TEXT, .id = id.p, .category = mem_string(q->subject)};
    doc->record = record;
    d->n = ++d->records.n;
    dataset_count(d, doc);
    return true;
}

bool capability_documents(Dataset *d, Tokenizer *t, const Questions *q, int max_length, Err *err) {
    *d = (Dataset){0};
    size_t n = 0;
    for (size_t i = 0; i < q->n; i++) n += (size_t)q->question[i].n;
    d->doc = mem_array(n, sizeof *d->doc);
    d->records.record = mem_array(n, sizeof *d->records.record);
    bool ok = true;
    for (size_t i = 0; i < q->n && ok; i++)
        for (int c = 0; c < q->question[i].n && ok; c++)
            ok = add(d, t, &q->question[i], c, max_length, err);
    if (!ok) dataset_free(d);
    return ok;
}

/* ---------------------------------------------------------------------------------- shares -- */

enum { ACC, NORM, MEASURES };
static const char *const measure_name[MEASURES] = {"acc", "acc_norm"};

static bool keep_sum(void *context, size_t doc, const float *nll, const LogitFacts *logits, int n,
                     Err *err) {
    (void)logits, (void)err;
    double *sum = context;
    for (int i = 0; i < n; i++) sum[doc] -= nll[i];
    return true;
}

/* The choice that a measure takes. */
static int taken(const TaskQuestion *q, const double *sum, int measure) {
    int best = 0;
    double most = -INFINITY;
    for (int c = 0; c < q->n; c++) {
        double x = measure == NORM ? sum[c] / (double)question_characters(q->choice[c]) : sum[c];
        if (x > most) most = x, best = c;
    }
    return best;
}

static json_t *share(size_t hits, size_t n) {
    Interval at = statistics_share(hits, n);
    double p = (double)hits / (double)n;
    return json_pack("{s:f, s:o, s:[f, f], s:I}", "share", p, "stderr",
                     json_number(n > 1 ? sqrt(p * (1 - p) / (double)(n - 1)) : NAN), "interval",
                     at.low, at.high, "n", (json_int_t)n);
}

/* Of the rows whose subject it is; NULL: of all. */
static void put_shares(json_t *to, const json_t *rows, const char *subject) {
    for (int k = 0; k < MEASURES; k++) {
        size_t i, hits = 0, n = 0;
        const json_t *row;
        json_array_foreach (rows, i, row) {
            const char *of = json_string_value(json_object_get(row, "subject"));
            if (subject && strcmp(of, subject) != 0) continue;
            n++, hits += json_is_true(json_object_get(row, measure_name[k]));
        }
        json_object_set_new(to, measure_name[k], share(hits, n));
    }
}

static json_t *row_of(const TaskQuestion *q, const double *sum) {
    json_t *sums = json_array();
    for (int c = 0; c < q->n; c++) json_array_append_new(sums, json_real(sum[c]));
    return json_pack("{s:s, s:s, s:i, s:o, s:b, s:b}", "id", q->id, "subject", q->subject, "answer",
                     q->answer, "sums", sums, measure_name[ACC], taken(q, sum, ACC) == q->answer,
                     measure_name[NORM], taken(q, sum, NORM) == q->answer);
}

static json_t *result_of(const Questions *q, const double *sum, const Settings *s) {
    static const char *const task[TASK_COUNT] = {TASKS(CHOICE_TEXT)};
    json_t *rows = json_array(), *subjects = json_object();
    json_t *all = json_pack("{s:s, s:i, s:I}", "task", task[s->capability.task], "shots",
                            s->capability.shots, "questions", (json_int_t)q->n);
    for (size_t i = 0; i < q->n; sum += q->question[i++].n)
        json_array_append_new(rows, row_of(&q->question[i], sum));
    put_shares(all, rows, NULL);
    for (size_t i = 0; i < q->n; i++) {
        const char *name = q->question[i].subject;
        if (!*name || json_object_get(subjects, name)) continue;
        json_t *one = json_object();
        put_shares(one, rows, name);
        json_object_set_new(subjects, name, one);
    }
    json_object_set_new(all, "subjects", subjects);
    json_object_set_new(all, "rows", rows);
    return all;
}

/* ---------------------------------------------------------------------------------- versus -- */

/* The other result's rows by their ids. */
static bool other_rows(json_t **by_id, const json_t *other, const json_t *mine, const char *path,
                       Err *err) {
    const json_t *rows = json_object_get(other, "rows"), *row;
    if (!json_is_array(rows) ||
        !json_equal(json_object_get(other, "task"), json_object_get(mine, "task")))
        return err_set(err, EXIT_INPUT,
                       "%s: expected a result of sails capability of the same task", path);
    size_t i;
    *by_id = json_object();
    json_array_foreach (rows, i, row) {
        const char *id = json_string_value(json_object_get(row, "id"));
        if (id) json_object_set(*by_id, id, (json_t *)(uintptr_t)row);
    }
    return true;
}

static bool compare(json_t *result, const json_t *by_id, const char *path, Err *err) {
    json_t *versus = json_object();
    json_object_set_new(result, "versus", versus);
    for (int k = 0; k < MEASURES; k++) {
        size_t i, here = 0, there = 0;
        const json_t *row;
        json_array_foreach (json_object_get(result, "rows"), i, row) {
            const char *id = json_string_value(json_object_get(row, "id"));
            const json_t *right = json_object_get(json_object_get(by_id, id), measure_name[k]);
            if (!json_is_boolean(right))
                return err_set(err, EXIT_INPUT,
                               "%s: expected question %.80s there too; compare the same questions",
                               path, id);
            bool mine = json_is_true(json_object_get(row, measure_name[k]));
            here += mine && json_is_false(right);
            there += !mine && json_is_true(right);
        }
        json_object_set_new(versus, measure_name[k],
                            json_pack("{s:I, s:I, s:f}", "here", (json_int_t)here, "there",
                                      (json_int_t)there, "p", statistics_mcnemar(here, there)));
    }
    return true;
}

static bool put_versus(json_t *result, const char *path, Err *err) {
    if (!*path) return true;
    json_t *other = NULL, *by_id = NULL;
    bool ok = files_read_json(&other, path, TEXTS, err) &&
              other_rows(&by_id, other, result, path, err) && compare(result, by_id, path, err);
    json_decref(other), json_decref(by_id);
    return ok;
}

/* -------------------------------------------------------------------------------------------- */

bool capability(json_t **result, const Model *m, const Questions *q, const Dataset *d,
                const Settings *s, Err *err) {
    Comm *comm = m->ex->comm;
    Examples all = dataset_examples(d);
    const NllHow how = {.pack_tokens = settings_pack_tokens(s),
                        .progress = s->run.json ? NULL : "capability"};
    double *sum = mem_array(d->n, sizeof *sum);
    *result = NULL;
    bool ok = same_docs(comm, "what was read as questions", &all, err) &&
              nll_docs(m, &all, &how, keep_sum, sum, err);
    if (ok && comm_root(comm)) {
        *result = result_of(q, sum, s);
        ok = put_versus(*result, s->capability.versus, err);
    }
    free(sum);
    return ok;
}
