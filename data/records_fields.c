/* records_fields.c - the forms of a record, and what becomes of fields that no form takes. */
#include <stdarg.h>
#include <stdio.h>

#include "data/records_impl.h"
#include "data/utf8.h"

/* The order in which record_from_json tries them. */
const RecordHelp record_forms[] = {
    {"chosen, rejected", "a pair: two HH-RLHF texts, or two lists of messages",
     "{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: b\","
     " \"rejected\": \"\\n\\nHuman: a\\n\\nAssistant: c\"}",
     RECORD_PAIR},
    {"prompt, chosen, rejected", "a pair: two replies to a prompt",
     "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", RECORD_PAIR},
    {"prompt, response_0, response_1",
     "PKU-SafeRLHF, a pair: safer_response_id, else better_response_id, decides",
     "{\"prompt\": \"a\", \"response_0\": \"c\", \"response_1\": \"b\", \"safer_response_id\": 1}",
     RECORD_PAIR},
    {"messages", "a chat: [{\"role\", \"content\"} ..], user (human) and assistant (model)",
     "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"},"
     " {\"role\": \"assistant\", \"content\": \"b\"}]}",
     RECORD_CHAT},
    {"conversations", "ShareGPT, a chat: [{\"from\", \"value\"} ..], human and gpt",
     "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"},"
     " {\"from\": \"gpt\", \"value\": \"b\"}]}",
     RECORD_CHAT},
    {"prompt, completion", "a chat; the reply may be called response or output too",
     "{\"prompt\": \"a\", \"completion\": \"b\"}", RECORD_CHAT},
    {"instruction, output",
     "Alpaca, Dolly, a chat; input or context goes on a new line, history in front",
     "{\"instruction\": \"a\", \"input\": \"\", \"output\": \"b\"}", RECORD_CHAT},
    {"prompt or instruction", "a prompt", "{\"prompt\": \"a\"}", RECORD_PROMPT},
    {"text", "a text behind <bos>, all of it a target", "{\"text\": \"a\"}", RECORD_TEXT},
    {"tokens", "ids as they are, no tokenizer needed; labels: 1 for a target, else 0",
     "{\"tokens\": [2, 5, 6], \"labels\": [0, 0, 1]}", RECORD_TOKENS},
    {"goal", "AdvBench and JailbreakBench, a prompt; target is not used",
     "{\"Goal\": \"a\", \"Target\": \"b\"}", RECORD_PROMPT},
    {NULL, NULL, NULL, RECORD_TEXT},
};

/* One of these makes a record. */
static const char *const first_fields[] = {"chosen",   "rejected",      "response_0", "response_1",
                                           "messages", "conversations", "prompt",     "instruction",
                                           "text",     "tokens",        "goal"};

/* These say something that the model would have to see. */
static const char *const content_fields[] = {
    "answer",   "completion", "context", "contextstring", "conversation", "document", "functions",
    "history",  "image",      "images",  "input",         "output",       "passage",  "query",
    "question", "response",   "suffix",  "tools",         "audio",        "videos"};

/* So do these, in a role that Gemma does not have. */
static const char *const system_fields[] = {"system", "system_prompt", "system_message"};

/* These are about the record. */
static const char *const record_fields[] = {
    "id",        "index",   "category", "source",  "score",    "type", "label",
    "focus",     "note",    "tag",      "tags",    "split",    "lang", "language",
    "prompt_id", "dataset", "model",    "stop",    "behavior", "url",  "pieces",
    "truncated", "date",    "target",   "is_safe", "rating"};

#define LISTS(list, name) listed(list, sizeof(list) / sizeof *(list), name)
static bool listed(const char *const *list, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], name) == 0) return true;
    return false;
}

static char *lower(const char *name) {
    char *copy = mem_string(name);
    for (char *p = copy; *p; p++)
        if (*p >= 'A' && *p <= 'Z') *p = (char)(*p - 'A' + 'a');
    return copy;
}

bool fields_make_record(char *const *name, size_t n) {
    bool found = false;
    for (size_t i = 0; i < n && !found; i++) {
        char *key = lower(name[i]);
        found = LISTS(first_fields, key);
        free(key);
    }
    return found;
}

bool fields_list(char *const *name, size_t n, const char *column) {
    bool found = false;
    for (size_t i = 0; i < n && !found; i++) {
        char *key = lower(name[i]);
        found = strcmp(key, column) == 0;
        free(key);
    }
    return found;
}

bool fields_fail(const Fields *f, const char *field, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    int n = (int)strcspn(field, "["); /* "messages[1].role" is the field and a place in it */
    return source_fail(f->s, f->line, "\"%.*s\"%s: %s", n, field, field + n, text);
}

bool fields_open(Fields *f, const json_t *object, Records *all, Source *s, size_t line) {
    *f = (Fields){.s = s, .line = line, .all = all};
    if (!json_is_object(object))
        return source_fail(s, line, "expected a JSON object, one record; mend it");
    f->object = json_object();
    const char *key;
    json_t *value;
    bool ok = true;
    json_object_foreach ((json_t *)object, key, value) {
        char *name = lower(key);
        if (ok && json_object_get(f->object, name))
            ok = fields_fail(f, key, "the same field is there in another case; remove one");
        json_object_set_nocheck(f->object, name, value);
        free(name);
    }
    if (!ok) fields_close(f);
    return ok;
}

void fields_close(Fields *f) {
    json_decref(f->object);
    f->object = NULL;
}

const json_t *fields_take(Fields *f, const char *name) {
    if (!listed(f->taken, (size_t)f->ntaken, name)) {
        CHECK(f->ntaken < FIELDS_TAKEN, "%d fields taken", f->ntaken);
        f->taken[f->ntaken++] = name;
    }
    return json_object_get(f->object, name);
}

bool fields_has(const Fields *f, const char *name) {
    return json_object_get(f->object, name) != NULL;
}

bool fields_blank(const json_t *value) {
    if (json_is_string(value)) {
        size_t n = json_string_length(value);
        utf8_trim(json_string_value(value), &n);
        return n == 0;
    }
    if (json_is_array(value)) return json_array_size(value) == 0;
    if (json_is_object(value)) return json_object_size(value) == 0;
    return !value || json_is_null(value);
}

/* Notes the name once; a file with very many names is not worth listing them all. */
static void note_ignored(Records *all, const char *name) {
    enum { SHOWN_BYTES = 40, LIST_BYTES = 400 };
    const char *old = all->ignored ? all->ignored : "";
    size_t n = strlen(name), room = strlen(old) + SHOWN_BYTES + 3;
    if (n == 0 || room > LIST_BYTES) return; /* a CSV column may have no name */
    for (const char *hit = old; (hit = strstr(hit, name)); hit += n)
        if ((hit == old || hit[-1] == ' ') && (!hit[n] || hit[n] == ',')) return;
    char *list = mem_array(room, 1);
    snprintf(list, room, "%s%s%.*s", old, *old ? ", " : "", SHOWN_BYTES, name);
    free(all->ignored);
    all->ignored = list;
}

bool fields_check_rest(const Fields *f) {
    const char *key;
    json_t *value;
    json_object_foreach (f->object, key, value) {
        if (listed(f->taken, (size_t)f->ntaken, key) || fields_blank(value)) continue;
        if (LISTS(system_fields, key))
            return fields_fail(f, key,
                               "Gemma has no system role; put its text in front of the first "
                               "user's, or remove it");
        bool number = json_is_number(value) || json_is_boolean(value); /* says nothing to a model */
        if (!number && (LISTS(content_fields, key) || LISTS(first_fields, key)))
            return fields_fail(f, key,
                               "this form of record has no place for it, and the model would not "
                               "see it; put its text where it belongs, or remove it");
        if (!LISTS(record_fields, key)) note_ignored(f->all, key);
    }
    return true;
}
