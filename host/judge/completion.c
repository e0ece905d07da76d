/* completion.c - chat completions: requests in five dialects, and what to make of the replies. */
#include "host/judge/completion.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/buf.h"

/* -------------------------------------------------------------------------------- requests -- */

json_t *completion_request(const char *model, enum JudgeDialect dialect, int max_tokens,
                           const Exchange *e) {
    Buf user = {0};
    rubric_user(&user, e);
    json_t *body = json_pack("{s:s, s:[{s:s, s:s}, {s:s, s:o}]}", "model", model, "messages",
                             "role", "system", "content", rubric_system(), "role", "user",
                             "content", json_stringn(user.p, user.n));
    CHECK(body, "a JSON value could not be made");
    buf_free(&user);
    if (dialect == DIALECT_SCHEMA_COMPLETION || dialect == DIALECT_PLAIN_COMPLETION) {
        json_object_set_new(body, "max_completion_tokens", json_integer(max_tokens));
    } else {
        json_object_set_new(body, "max_tokens", json_integer(max_tokens));
        json_object_set_new(body, "temperature", json_integer(0));
        json_object_set_new(body, "seed", json_integer(0));
    }
    if (dialect == DIALECT_TOP_SCHEMA)
        json_object_set_new(body, "json_schema", rubric_schema());
    else if (dialect == DIALECT_SCHEMA || dialect == DIALECT_SCHEMA_COMPLETION)
        json_object_set_new(
            body, "response_format",
            json_pack("{s:s, s:{s:s, s:b, s:o}}", "type", "json_schema", "json_schema", "name",
                      "verdict", "strict", 1, "schema", rubric_schema()));
    return body;
}

/* --------------------------------------------------------------------------------- replies -- */

static const char *const end_names[] = {
#define END_NAME(value, name, ...) name,
    REPLY_ENDS(END_NAME)};

const char *reply_end_name(enum ReplyEnd end) {
    return end_names[end];
}

bool reply_end_named(enum ReplyEnd *end, const char *name) {
    for (int i = 0; i < REPLY_END_COUNT; i++)
        if (strcmp(name, end_names[i]) == 0) return *end = (enum ReplyEnd)i, true;
    return false;
}

/* Strict JSON without NUL; NULL: it is none. */
static json_t *parse(const char *text, size_t n) {
    json_t *value;
    Err unsaid;
    return files_parse_json(&value, text, n, JSON_NUL_REFUSED, "reply", &unsaid) ? value : NULL;
}

static const char *skip_space(const char *p) {
    return p + strspn(p, " \t\r\n");
}

/* From `text` to *end without what models put around an object: thoughts, a code fence. */
static const char *unwrap(const char *text, const char **end) {
    static const char thinks[] = "<think>", thought[] = "</think>", fence[] = "```";
    const char *p = skip_space(text);
    if (strncmp(p, thinks, sizeof thinks - 1) == 0) {
        const char *behind = strstr(p, thought);
        p = behind ? skip_space(behind + sizeof thought - 1) : p;
    }
    *end = p + strlen(p);
    while (*end > p && strchr(" \t\r\n", (*end)[-1])) (*end)--;
    if (strncmp(p, fence, 3) != 0 || *end - p < 6 || strncmp(*end - 3, fence, 3) != 0) return p;
    *end -= 3;
    const char *line = p + strcspn(p, "\n"); /* behind "```json" */
    return line < *end ? line : p + 3;
}

static char *shortened(const char *text) {
    size_t n = strlen(text);
    if (n > REPLY_REASON)
        for (n = REPLY_REASON; n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80;) n--;
    return buf_copy(text, n);
}

/* The verdict in a message's text. */
static bool take_verdict(CompletionReply *r, const char *content) {
    const char *end, *start = unwrap(content, &end);
    json_t *object = parse(start, (size_t)(end - start));
    const char *reason = json_string_value(json_object_get(object, "reason"));
    const json_t *score = json_object_get(object, "score");
    double x = json_number_value(score);
    bool ok = reason && json_is_number(score) && x >= 1 && x <= 5 && x == floor(x);
    if (ok) r->end = REPLY_VERDICT, r->score = (int)x, r->reason = shortened(reason);
    json_decref(object);
    return ok;
}

void completion_reply(CompletionReply *r, const char *body, size_t n) {
    *r = (CompletionReply){.end = REPLY_UNREADABLE};
    json_t *whole = parse(body, n), *usage = json_object_get(whole, "usage");
    const json_t *choice = json_array_get(json_object_get(whole, "choices"), 0);
    const json_t *message = json_object_get(choice, "message");
    const char *content = json_string_value(json_object_get(message, "content"));
    const char *refusal = json_string_value(json_object_get(message, "refusal"));
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    r->tokens_in = json_number_value(json_object_get(usage, "prompt_tokens"));
    r->tokens_out = json_number_value(json_object_get(usage, "completion_tokens"));
    if (refusal && *refusal) {
        r->end = REPLY_REFUSED;
        r->reason = shortened(refusal);
    } else if (finish && strcmp(finish, "content_filter") == 0) {
        r->end = REPLY_FILTERED;
    } else if (!(content && take_verdict(r, content)) && finish && strcmp(finish, "length") == 0) {
        r->end = REPLY_CUT;
    }
    if (!r->reason) r->reason = mem_string("");
    json_decref(whole);
}

void completion_reply_free(CompletionReply *r) {
    free(r->reason);
    *r = (CompletionReply){0};
}

/* --------------------------------------------------------------------------------- errors -- */

static void take_line(char *to, size_t room, const char *from) {
    size_t i = 0;
    for (; from && from[i] && i + 1 < room; i++)
        to[i] = (unsigned char)from[i] < 0x20 || from[i] == 0x7f ? ' ' : from[i];
    while (i > 0 && from[i] && ((unsigned char)from[i] & 0xc0) == 0x80) i--; /* no half character */
    to[i] = 0;
}

/* {"error": {"message", "code", "type"}}, {"error": "text"}, {"message"}, {"detail"}. */
CompletionError completion_error(const char *body, size_t n) {
    CompletionError e = {{0}, {0}};
    json_t *whole = parse(body, n), *error = json_object_get(whole, "error");
    const json_t *from = json_is_object(error) ? error : whole;
    const char *code = json_string_value(json_object_get(from, "code"));
    const char *message = json_string_value(json_object_get(from, "message"));
    if (!code) code = json_string_value(json_object_get(from, "type"));
    if (!message) message = json_string_value(error);
    if (!message) message = json_string_value(json_object_get(whole, "detail"));
    take_line(e.code, sizeof e.code, code);
    take_line(e.message, sizeof e.message, message);
    json_decref(whole);
    return e;
}
