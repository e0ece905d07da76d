/* Fuzzing of what a judge behind HTTP, its user and a killed process may leave. The first byte
 * chooses what the rest is: v a file of verdicts, c a chat completion, e the body of an error,
 * h header lines, b a batch's output or scores, u an address. */
#include <math.h>
#include <stdlib.h>

#include "host/judge/batch.h"
#include "host/judge/endpoint.h"
#include "host/judge/retry.h"
#include "host/judge/verdicts.h"
#include "host/stage/judges.h"
#include "tests/fuzz.h"

static FuzzFile file;

static void fuzz_verdicts(const char *text, size_t n) {
    Verdicts v;
    Err err;
    const char *key;
    json_t *line;
    (void)text, (void)n;
    if (!verdicts_read(&v, file.path, &err)) {
        fuzz_refused(&err, EXIT_INPUT, file.path);
        return;
    }
    json_object_foreach (v.by_key, key, line) {
        double score = json_number_value(json_object_get(line, "score"));
        bool judged = verdicts_end(line) == REPLY_VERDICT;
        CHECK(judged ? score >= 1 && score <= 5 : score == 0, "%s: %g", key, score);
    }
    verdicts_close(&v, true, &err);
}

static void fuzz_completion(const char *text, size_t n) {
    CompletionReply r;
    completion_reply(&r, text, n);
    CHECK(r.end == REPLY_VERDICT ? r.score >= 1 && r.score <= 5 : r.score == 0, "%d", r.score);
    CHECK(strlen(r.reason) <= REPLY_REASON, "%zu bytes", strlen(r.reason));
    json_t *valid = json_string(r.reason);
    CHECK(valid, "a reason that is no UTF-8");
    json_decref(valid);
    completion_reply_free(&r);
}

static void fuzz_error(const char *text, size_t n) {
    CompletionError e = completion_error(text, n);
    json_t *code = json_string(e.code), *message = json_string(e.message);
    CHECK(code && message && !strpbrk(e.message, "\r\n"), "%s", e.message);
    json_decref(code), json_decref(message);
}

static void fuzz_headers(const char *text, size_t n) {
    RateLimits r = rate_limits_unknown();
    (void)n;
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1) {
        rate_limits_take(&r, line, 1e9);
        if (!strchr(line, '\n')) break;
    }
    CHECK(rate_limits_wait(&r, true) >= 0 && rate_limits_wait(&r, false) >= 0, "a wait below 0");
}

static void fuzz_judgements(const char *text, size_t n) {
    Settings s = {
        .eval = {.judge = "file", .judgements = file.path, .judge_export = "", .out = ""}};
    Judges j;
    Err err;
    (void)text, (void)n;
    if (!judges_open(&j, "", &s, &err)) {
        fuzz_refused(&err, EXIT_INPUT, file.path);
        return;
    }
    const char *id;
    json_t *line, *response = json_string("r");
    json_object_foreach (j.judge[0].by_id, id, line) {
        Score score;
        CHECK(judge_score(&score, &j.judge[0], id, response, &err), "%s", err.text);
        CHECK(isnan(score.score) || (score.score >= 1 && score.score <= 5), "%g", score.score);
    }
    json_decref(response);
    judges_close(&j);
}

static void fuzz_address(const char *text, size_t n) {
    Settings s = {
        .eval = {.judge_model = "m", .judge_url = text, .judge_key_env = "", .judge_ca = ""}};
    Endpoint e;
    Err err;
    (void)n;
    if (endpoint_open(&e, &s, &err)) {
        CHECK(strstr(e.url, "/chat/completions") && !strpbrk(e.url, " \r\n?#"), "%s", e.url);
        endpoint_close(&e);
    } else {
        fuzz_refused(&err, EXIT_USAGE, "--judge");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct {
        char first;
        void (*fuzz)(const char *text, size_t n);
    } kind[] = {{'v', fuzz_verdicts}, {'c', fuzz_completion}, {'e', fuzz_error},
                {'h', fuzz_headers},  {'b', fuzz_judgements}, {'u', fuzz_address}};
    if (!file.path[0]) fuzz_file_open(&file, "judge");
    if (size == 0) return 0;
    fuzz_file_set(&file, NULL, 0, data + 1, size - 1);
    char *text = calloc(1, size);
    CHECK(text, "out of memory");
    memcpy(text, data + 1, size - 1);
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++)
        if (data[0] == kind[i].first) kind[i].fuzz(text, size - 1);
    free(text);
    return 0;
}
