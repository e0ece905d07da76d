/* batch.c - the lines of a batch. */
#include "host/judge/batch.h"

#include <string.h>

#include "data/base/mem.h"

json_t *batch_request(const char *id, const Settings *s, const Exchange *e) {
    int chosen = s->eval.judge_dialect; /* 0: auto */
    enum JudgeDialect d = chosen ? (enum JudgeDialect)(chosen - 1) : DIALECT_SCHEMA;
    json_t *line = json_pack(
        "{s:s, s:s, s:s, s:o}", "custom_id", id, "method", "POST", "url", "/v1/chat/completions",
        "body", completion_request(s->eval.judge_model, d, s->eval.judge_max_tokens, e));
    CHECK(line, "a JSON value could not be made");
    return line;
}

bool batch_is_answer(const json_t *line) {
    return json_is_string(json_object_get(line, "custom_id"));
}

void batch_reply(CompletionReply *r, const json_t *line) {
    const json_t *response = json_object_get(line, "response");
    const json_t *status = json_object_get(response, "status_code");
    json_t *body = json_object_get(response, "body");
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    bool ok = text && (!status || json_integer_value(status) == 200);
    if (ok) {
        completion_reply(r, text, strlen(text));
    } else {
        char *whole = text ? NULL : json_dumps(line, JSON_COMPACT); /* has "error" */
        const char *from = text ? text : whole;
        CompletionError e = completion_error(from, strlen(from));
        *r = (CompletionReply){.end = REPLY_REJECTED, .reason = mem_string(e.message)};
        free(whole);
    }
    free(text);
}
