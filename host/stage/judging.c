/* judging.c - responses as questions, verdicts as scores. */
#include "host/stage/judging.h"

#include <stdio.h>
#include <string.h>

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/cli/json_lines.h"
#include "host/judge/batch.h"
#include "host/stage/wish.h"

/* ------------------------------------------------------------------------------- questions -- */

typedef struct Responses {
    const Settings *s;
    json_t *lines, *seen; /* lines: borrowed from by the questions */
    Question *q;
    size_t n, room;
} Responses;

static bool take_response(void *context, json_t *line, const char *where, Err *err) {
    Responses *r = context;
    const char *id, *unused;
    if (!json_text(&id, line, "id", NULL, where, err) ||
        !json_text(&unused, line, "prompt", NULL, where, err) ||
        !json_text(&unused, line, "response", NULL, where, err))
        return false;
    if (json_object_get(r->seen, id))
        return err_set(err, EXIT_INPUT, "%s: id %s: two responses; make ids distinct", where, id);
    json_object_set_new(r->seen, id, json_true());
    json_array_append(r->lines, line);
    const json_t *prompt = json_object_get(line, "prompt");
    const json_t *response = json_object_get(line, "response");
    r->q = mem_grow(r->q, &r->room, r->n + 1, sizeof *r->q);
    Question *q = &r->q[r->n++];
    q->exchange = (Exchange){json_string_value(prompt), json_string_value(response),
                             json_string_length(prompt), json_string_length(response)};
    rubric_key(q->key, r->s->eval.judge_model, &q->exchange);
    return true;
}

static void responses_free(Responses *r) {
    free(r->q);
    json_decref(r->lines), json_decref(r->seen);
}

static bool responses_read(Responses *r, const char *path, const Settings *s, Err *err) {
    *r = (Responses){.s = s, .lines = json_array(), .seen = json_object()};
    if (json_lines_each(path, take_response, r, err)) return true;
    responses_free(r);
    return false;
}

static const char *id_of(const Responses *r, size_t i) {
    return json_string_value(json_object_get(json_array_get(r->lines, i), "id"));
}

/* -------------------------------------------------------------------------------- settings -- */

bool judging_by(const Settings *s, enum JudgeKind judge) {
    static const char *const name[] = {JUDGES(CHOICE_TEXT)};
    char one[SETTING_KEY];
    for (int i = 0; i < list_count(s->eval.judge); i++)
        if (list_item(s->eval.judge, i, one, sizeof one) && strcmp(one, name[judge]) == 0)
            return true;
    return false;
}

bool judging_check(const Settings *s, Err *err) {
    int n = list_count(s->eval.judge);
    char one[SETTING_KEY] = "", two[SETTING_KEY] = "";
    list_item(s->eval.judge, 0, one, sizeof one);
    if (n > 1) list_item(s->eval.judge, 1, two, sizeof two);
    if (n < 1 || n > 2 || strcmp(one, two) == 0)
        return err_set(err, EXIT_USAGE, "--judge: expected one judge or two different ones, got %s",
                       n ? s->eval.judge : "none");
    if (judging_by(s, JUDGE_FILE) && !*s->eval.judgements)
        return err_set(err, EXIT_USAGE, "--judge file: --judgements is needed");
    if (*s->eval.judge_export && !*s->eval.judge_model)
        return err_set(err, EXIT_USAGE, "--judge-export: --judge-model is needed");
    if (!judging_by(s, JUDGE_HTTP) || *s->eval.judge_export) return true;
    if (!*s->eval.judge_cache && !*s->eval.out)
        return err_set(
            err, EXIT_USAGE,
            "--judge http: --out or --judge-cache is needed: verdicts that were paid for "
            "are kept");
    return asking_check(s, err);
}

/* Where verdicts are kept; malloc. */
static char *cache_of(const Settings *s) {
    static const char tail[] = ".verdicts.jsonl";
    if (*s->eval.judge_cache) return mem_string(s->eval.judge_cache);
    char *path = mem_array(strlen(s->eval.out) + sizeof tail, 1);
    sprintf(path, "%s%s", s->eval.out, tail);
    return path;
}

/* ------------------------------------------------------------------------------------ asks -- */

static bool go_on(void *comm, Err *err) {
    comm_beat(comm);
    if (interrupted(err)) return false;
    int signal = interrupt_requested();
    return !signal ||
           wish_stop_alone(&(Wish){.signal = signal}, "in judging; what was answered is kept",
                           "the same command", err);
}

bool judging_ask(AskingWork *work, const char *responses, const Settings *s, Comm *comm, Err *err) {
    Responses r;
    Verdicts v;
    *work = (AskingWork){0};
    if (!responses_read(&r, responses, s, err)) return false;
    char *cache = cache_of(s);
    const AskingWatch watch = {go_on, comm};
    bool ok = verdicts_open(&v, cache, err);
    if (ok) ok = verdicts_close(&v, asking_run(work, s, r.q, r.n, &v, &watch, err), err);
    free(cache);
    responses_free(&r);
    return ok;
}

/* ------------------------------------------------------------------------------------ scores -- */

/* {"score", "reason"} of an end. */
static json_t *score_json(enum ReplyEnd end, double score, const char *reason) {
    char none[64];
    snprintf(none, sizeof none, "no verdict: %s", reply_end_name(end));
    if (end == REPLY_VERDICT) return json_pack("{s:f, s:s}", "score", score, "reason", reason);
    return json_pack("{s:n, s:s}", "score", "reason", none);
}

json_t *judging_batch_score(const json_t *line) {
    CompletionReply r;
    batch_reply(&r, line);
    json_t *score = score_json(r.end, r.score, r.reason);
    completion_reply_free(&r);
    return score;
}

static void add_about(json_t *about, const json_t *line) {
    json_t *dialects = json_object_get(about, "dialects");
    const char *d = json_string_value(json_object_get(line, "dialect"));
    static const char *const tokens[] = {"in", "out"};
    if (d)
        json_object_set_new(dialects, d,
                            json_integer(1 + json_integer_value(json_object_get(dialects, d))));
    for (int i = 0; i < 2; i++)
        json_object_set_new(about, tokens[i],
                            json_integer(json_integer_value(json_object_get(about, tokens[i])) +
                                         json_integer_value(json_object_get(line, tokens[i]))));
}

bool judging_scores(json_t **by_id, json_t **about, const char *responses, const Settings *s,
                    Err *err) {
    Responses r;
    Verdicts v;
    char rubric[65];
    if (!responses_read(&r, responses, s, err)) return false;
    char *cache = cache_of(s);
    bool ok = verdicts_read(&v, cache, err);
    free(cache);
    if (ok) {
        rubric_hash(rubric);
        *by_id = json_object();
        *about = json_pack("{s:s, s:s, s:{}, s:i, s:i}", "model", s->eval.judge_model, "rubric",
                           rubric, "dialects", "in", 0, "out", 0);
        for (size_t i = 0; i < r.n; i++) {
            const json_t *line = verdicts_find(&v, r.q[i].key);
            const char *reason = json_string_value(json_object_get(line, "reason"));
            if (!line) continue;
            add_about(*about, line);
            json_object_set_new(
                *by_id, id_of(&r, i),
                score_json(verdicts_end(line), json_number_value(json_object_get(line, "score")),
                           reason ? reason : ""));
        }
        verdicts_close(&v, true, err);
    }
    responses_free(&r);
    return ok;
}

bool judging_export(size_t *n, const char *responses, const Settings *s, Err *err) {
    Responses r;
    JsonLines out;
    *n = 0;
    if (!responses_read(&r, responses, s, err)) return false;
    bool ok = json_lines_open(&out, s->eval.judge_export, err);
    for (; *n < r.n && ok; ++*n)
        ok = json_lines_put(&out, batch_request(id_of(&r, *n), s, &r.q[*n].exchange), err);
    ok = json_lines_close(&out, ok, err);
    responses_free(&r);
    return ok;
}
