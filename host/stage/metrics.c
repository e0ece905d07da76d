/* metrics.c - the step line and metrics.jsonl. */
#include "host/stage/metrics.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/cli/print.h"

bool metrics_open(Metrics *m, const char *path, const char *events, bool json, double peak,
                  Err *err) {
    *m = (Metrics){.json = json, .peak = peak};
    if (!path) return true;
    m->file = fopen(path, "w");
    if (!m->file) return files_failed(err, path, "write");
    m->path = mem_string(path);
    if (!events || events_open(&m->events, events, (double)time(NULL), err)) return true;
    Err late;
    metrics_close(m, &late);
    return false;
}

/* The lines of an earlier process as events. */
static bool resume_events(Metrics *m, const char *lines, size_t n, Err *err) {
    bool ok = true;
    for (const char *at = lines, *end; ok && at < lines + n; at = end + 1) {
        end = memchr(at, '\n', (size_t)(lines + n - at));
        if (!end) end = lines + n;
        json_t *line = json_loadb(at, (size_t)(end - at), 0, NULL);
        ok = !line || events_line(m->events, line, (double)time(NULL), err);
        json_decref(line);
    }
    return ok;
}

bool metrics_resume(Metrics *m, const RunTotals *totals, const char *lines, size_t n, Err *err) {
    m->totals = *totals;
    if (!m->file) return true;
    bool ok = fwrite(lines, 1, n, m->file) == n && fflush(m->file) == 0;
    if (!ok) return files_failed(err, m->path, "write");
    return !m->events || resume_events(m, lines, n, err);
}

/* Under TRL's names, behind a prefix. */
static void put_facts(json_t *line, const char *prefix, const PairFacts *f) {
    const struct {
        const char *name;
        double value;
        bool of_logits;
    } fact[] = {{"rewards/chosen", f->reward[CHOSEN], false},
                {"rewards/rejected", f->reward[REJECTED], false},
                {"rewards/accuracies", f->accuracy, false},
                {"rewards/margins", f->margin, false},
                {"logps/chosen", f->logp[CHOSEN], false},
                {"logps/rejected", f->logp[REJECTED], false},
                {"logits/chosen", f->logit[CHOSEN], true},
                {"logits/rejected", f->logit[REJECTED], true},
                {"entropy", f->entropy, true},
                {"mean_token_accuracy", f->hits, true}};
    for (size_t i = 0; line && i < sizeof fact / sizeof *fact; i++) {
        char name[48];
        if (fact[i].of_logits && !(f->labels[CHOSEN] > 0)) continue; /* nobody has asked */
        snprintf(name, sizeof name, "%s%s", prefix, fact[i].name);
        json_object_set_new(line, name, json_real(fact[i].value));
    }
}

static json_t *step_json(const Metrics *m, const StepMetrics *s) {
    json_t *line = json_pack(
        "{s:i, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:f, s:f, s:f}", "step", s->step, "loss", s->loss,
        "grad_norm", s->grad_norm, "learning_rate", s->learning_rate, "epoch", s->epoch,
        "num_tokens", (json_int_t)m->totals.tokens, "step_tokens", (json_int_t)s->tokens,
        "label_tokens", (json_int_t)s->labels, "ms", 1e3 * s->seconds, "tokens_per_second",
        (double)s->tokens / s->seconds, "flops", s->flops);
    if (s->pairs) put_facts(line, "", &s->facts);
    if (line && isfinite(s->redundancy))
        json_object_set_new(line, "redundancy", json_real(s->redundancy));
    if (line && s->ranks > 1)
        json_object_update_new(
            line, json_pack("{s:i, s:f, s:f, s:f}", "ranks", s->ranks, "tokens_per_second_per_rank",
                            (double)s->tokens / s->seconds / s->ranks, "wait_ms", 1e3 * s->waited,
                            "exchange_ms", 1e3 * s->carried));
    return line;
}

static void print_facts(const PairFacts *f) {
    printf(" | margin %.4f | accuracy %.2f", f->margin, f->accuracy);
}

static void print_step(const Metrics *m, const StepMetrics *s) {
    char left[PRINT_ROOM], rate[PRINT_ROOM], label_rate[PRINT_ROOM];
    printf("step %d/%d | loss %.4f", s->step, s->total, s->loss);
    if (s->pairs) print_facts(&s->facts);
    printf(" | grad %.4f | lr %.2e | %.0f ms | %s tok/s (%s label)", s->grad_norm, s->learning_rate,
           1e3 * s->seconds, print_count(rate, (double)s->tokens / s->seconds),
           print_count(label_rate, (double)s->labels / s->seconds));
    if (s->ranks > 1)
        printf(" | %d ranks, %s tok/s each, waited %.0f ms", s->ranks,
               print_count(rate, (double)s->tokens / s->seconds / s->ranks), 1e3 * s->waited);
    if (m->peak > 0) printf(" | %.0f%% of peak", 100 * s->flops / s->seconds / m->peak);
    printf(" | ETA %s\n", print_seconds(left, m->totals.mean_step * (s->total - s->step)));
    fflush(stdout);
}

/* Into the file, and with --json to stdout; takes the reference. */
static bool put_line(Metrics *m, json_t *line, Err *err) {
    CHECK(line, "a JSON value could not be made");
    bool ok = true;
    if (m->file) {
        json_dumpf(line, m->file, JSON_COMPACT);
        putc('\n', m->file);
        if (fflush(m->file) != 0) ok = files_failed(err, m->path, "write");
    }
    if (ok && m->events) ok = events_line(m->events, line, (double)time(NULL), err);
    if (m->json && !m->sink)
        print_json(line);
    else
        json_decref(line);
    return ok;
}

bool metrics_eval(Metrics *m, const EvalMetrics *e, Err *err) {
    if (!m->json && !m->sink) {
        char labels[PRINT_ROOM], took[PRINT_ROOM];
        printf("step %d/%d | eval loss %.4f", e->step, e->total, e->loss);
        if (e->pairs) print_facts(&e->facts);
        printf(" over %s labels in %s\n", print_count(labels, (double)e->labels),
               print_seconds(took, e->seconds));
        fflush(stdout);
    }
    json_t *line =
        json_pack("{s:i, s:f, s:I, s:f}", "step", e->step, "eval_loss", e->loss,
                  "eval_label_tokens", (json_int_t)e->labels, "eval_ms", 1e3 * e->seconds);
    if (e->pairs) put_facts(line, "eval_", &e->facts);
    return put_line(m, line, err);
}

bool metrics_step(Metrics *m, const StepMetrics *s, Err *err) {
    RunTotals *t = &m->totals;
    t->steps++;
    t->seconds += s->seconds;
    t->loss_sum += s->loss;
    t->tokens += s->tokens;
    t->labels += s->labels;
    t->mean_step = t->steps == 1 ? s->seconds : 0.9 * t->mean_step + 0.1 * s->seconds;
    if (t->steps == 1) t->first_loss = s->loss;
    t->last_loss = s->loss;
    bool ok = put_line(m, step_json(m, s), err);
    if (m->sink)
        m->sink(m->sink_context, s);
    else if (!m->json)
        print_step(m, s);
    return ok;
}

bool metrics_close(Metrics *m, Err *err) {
    bool ok = true;
    if (m->file && fclose(m->file) != 0) ok = files_failed(err, m->path, "write");
    m->file = NULL;
    ok = events_close(m->events, err) && ok;
    m->events = NULL;
    free(m->path);
    m->path = NULL;
    return ok;
}
