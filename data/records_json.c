/* records_json.c - one JSON object to one record, by the first form that its keys fit. */
#include <stdio.h>

#include "data/records_impl.h"
#include "data/utf8.h"

typedef struct Here { /* the object being read, for messages */
    Source *s;
    size_t line;
    Records *all;
} Here;

void chat_add(Chat *chat, enum Role role, const char *text, size_t len) {
    size_t n = (size_t)chat->n, capacity = n; /* room for the power of two at or above n, and 4 */
    if (n == 0 || (n >= 4 && (n & (n - 1)) == 0))
        chat->turn = mem_grow(chat->turn, &capacity, n ? 2 * n : 4, sizeof *chat->turn);
    chat->turn[chat->n++] = (Turn){.role = role, .text = buf_copy(text, len), .len = len};
}

void chat_free(Chat *chat) {
    for (int i = 0; i < chat->n; i++) free(chat->turn[i].text);
    free(chat->turn);
    *chat = (Chat){0};
}

static void drop_last(Chat *chat) {
    free(chat->turn[--chat->n].text);
}

static bool blank(const Turn *turn) {
    size_t n = turn->len;
    utf8_trim(turn->text, &n);
    return n == 0;
}

static bool no_reply(const Chat *chat) {
    const Turn *last = &chat->turn[chat->n - 1];
    return last->role == ROLE_USER || blank(last);
}

static bool role_of(const json_t *message, enum Role *role) {
    static const struct {
        const char *name;
        enum Role role;
    } names[] = {{"user", ROLE_USER},
                 {"human", ROLE_USER},
                 {"assistant", ROLE_MODEL},
                 {"model", ROLE_MODEL}};
    const char *name = json_string_value(json_object_get(message, "role"));
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].name, name) == 0) {
            *role = names[i].role;
            return true;
        }
    return false;
}

static bool add_messages(Chat *chat, const json_t *list, const char *field, Here h) {
    size_t i;
    const json_t *message;
    json_array_foreach(list, i, message) {
        enum Role role, expected = chat->n % 2 ? ROLE_MODEL : ROLE_USER;
        if (!role_of(message, &role) || role != expected)
            return source_fail(h.s, h.line,
                               "\"%s\"[%zu].role: expected %s; roles alternate, start with the "
                               "user, and Gemma has no system role",
                               field, i, expected == ROLE_USER ? "user" : "assistant");
        const json_t *content = json_object_get(message, "content");
        if (!json_is_string(content))
            return source_fail(h.s, h.line,
                               "\"%s\"[%zu].content: expected a string; mend the record", field, i);
        chat_add(chat, role, json_string_value(content), json_string_length(content));
    }
    return true;
}

static bool add_hh(Chat *chat, const json_t *text, const char *field, Here h) {
    int joined = hh_parse(chat, json_string_value(text), json_string_length(text));
    if (joined < 0)
        return source_fail(h.s, h.line,
                           "\"%s\": expected text that starts with \"\\n\\nHuman: \", or a list of "
                           "messages; mend the record",
                           field);
    h.all->merged_turns += (size_t)joined;
    return true;
}

/* The user's side: a text, HH text up to the reply, or messages. Ends with a user's turn. */
static bool add_prompt(Chat *chat, const json_t *prompt, const char *field, Here h) {
    if (json_is_string(prompt)) {
        const char *s = json_string_value(prompt);
        if (strncmp(s, "\n\nHuman:", 8) != 0) {
            chat_add(chat, ROLE_USER, s, json_string_length(prompt));
        } else {
            if (!add_hh(chat, prompt, field, h)) return false;
            if (chat->n % 2 == 0 && blank(&chat->turn[chat->n - 1])) drop_last(chat);
        }
    } else if (json_is_array(prompt)) {
        if (!add_messages(chat, prompt, field, h)) return false;
    }
    if (chat->n % 2 == 0 || blank(&chat->turn[chat->n - 1]))
        return source_fail(
            h.s, h.line,
            "\"%s\": expected text, or messages that end with the user's; mend the record", field);
    return true;
}

/* The model's answer behind a prompt: a text or one message. */
static bool add_reply(Chat *chat, const json_t *reply, const char *field, Here h) {
    if (json_is_string(reply)) {
        chat_add(chat, ROLE_MODEL, json_string_value(reply), json_string_length(reply));
        return true;
    }
    if (json_is_array(reply)) return add_messages(chat, reply, field, h);
    return source_fail(h.s, h.line,
                       "\"%s\": expected a string or a list of messages; mend the record", field);
}

static bool starts_with_model(const json_t *list) {
    enum Role role;
    return role_of(json_array_get(list, 0), &role) && role == ROLE_MODEL;
}

/* One side of a pair. */
static bool add_side(Chat *chat, const json_t *object, const char *field, Here h) {
    const json_t *side = json_object_get(object, field),
                 *prompt = json_object_get(object, "prompt");
    bool answer = prompt && (json_is_string(side) || starts_with_model(side));
    if (answer) return add_prompt(chat, prompt, "prompt", h) && add_reply(chat, side, field, h);
    if (json_is_string(side)) return add_hh(chat, side, field, h);
    if (!json_is_array(side) || json_array_size(side) == 0)
        return source_fail(h.s, h.line,
                           "\"%s\": expected HH-RLHF text or a list of messages; mend the record",
                           field);
    return add_messages(chat, side, field, h);
}

static bool same_prompt(const Chat *a, const Chat *b) {
    if (a->n != b->n) return false;
    for (int i = 0; i + 1 < a->n; i++)
        if (a->turn[i].len != b->turn[i].len ||
            memcmp(a->turn[i].text, b->turn[i].text, a->turn[i].len) != 0)
            return false;
    return true;
}

static bool read_pair(Record *r, bool *keep, const json_t *object, Here h) {
    r->form = RECORD_PAIR;
    if (!add_side(&r->chat, object, "chosen", h) || !add_side(&r->rejected, object, "rejected", h))
        return false;
    h.all->diverging_pairs += !same_prompt(&r->chat, &r->rejected);
    *keep = !no_reply(&r->chat) && !no_reply(&r->rejected);
    h.all->empty_replies += !*keep;
    return true;
}

/* A conversation with an answer to train on, or a prompt. */
static bool read_chat(Record *r, bool *keep, const json_t *object, Here h) {
    const json_t *messages = json_object_get(object, "messages");
    const json_t *completion = json_object_get(object, "completion");
    if (messages) {
        if (!json_is_array(messages) || json_array_size(messages) == 0)
            return source_fail(h.s, h.line,
                               "\"messages\": expected a list of messages; mend the record");
        if (!add_messages(&r->chat, messages, "messages", h)) return false;
    } else {
        const char *field = json_object_get(object, "prompt")        ? "prompt"
                            : json_object_get(object, "instruction") ? "instruction"
                                                                     : "goal";
        bool answered = completion && strcmp(field, "prompt") == 0;
        if (!add_prompt(&r->chat, json_object_get(object, field), field, h) ||
            (answered && !add_reply(&r->chat, completion, "completion", h)))
            return false;
    }
    r->form = r->chat.n % 2 ? RECORD_PROMPT : RECORD_CHAT;
    *keep = r->form == RECORD_PROMPT || !no_reply(&r->chat);
    h.all->empty_replies += !*keep;
    return true;
}

static bool read_text(Record *r, const json_t *text, Here h) {
    if (!json_is_string(text))
        return source_fail(h.s, h.line, "\"text\": expected a string; mend the record");
    r->form = RECORD_TEXT;
    r->text_len = json_string_length(text);
    r->text = buf_copy(json_string_value(text), r->text_len);
    return true;
}

static bool read_tokens(Record *r, const json_t *tokens, Here h) {
    r->form = RECORD_TOKENS;
    r->ntoken = json_array_size(tokens);
    if (r->ntoken == 0)
        return source_fail(h.s, h.line, "\"tokens\": expected a list of ids; mend the record");
    r->token = mem_array(r->ntoken, sizeof *r->token);
    for (size_t i = 0; i < r->ntoken; i++) {
        const json_t *id = json_array_get(tokens, i);
        json_int_t v = json_integer_value(id);
        if (!json_is_integer(id) || v < 0 || v > INT32_MAX)
            return source_fail(h.s, h.line, "\"tokens\"[%zu]: expected a token id; mend the record",
                               i);
        r->token[i] = (int32_t)v;
    }
    return true;
}

static bool read_labels(Record *r, const json_t *labels, Here h) {
    r->label = mem_array(r->ntoken, sizeof *r->label);
    bool ok = json_array_size(labels) == r->ntoken;
    for (size_t i = 0; ok && i < r->ntoken; i++) {
        const json_t *label = json_array_get(labels, i);
        json_int_t v = json_integer_value(label);
        ok = json_is_integer(label) && (v == 0 || v == 1);
        r->label[i] = (uint8_t)v;
    }
    return ok || source_fail(h.s, h.line,
                             "\"labels\": expected 0 or 1 for each of %zu tokens; mend the record",
                             r->ntoken);
}

/* A name that may be a string or a number in the file; *out is NULL where it is missing. */
static bool read_name(char **out, const json_t *object, const char *field, Here h) {
    const json_t *value = json_object_get(object, field);
    char number[32];
    *out = NULL;
    if (!value || json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0))
        return true;
    if (json_is_integer(value))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    else if (!json_is_string(value))
        return source_fail(h.s, h.line,
                           "\"%s\": expected a string or a whole number; mend the record", field);
    *out = mem_string(json_is_string(value) ? json_string_value(value) : number);
    return true;
}

static bool read_names(Record *r, const json_t *object, Here h) {
    if (!read_name(&r->id, object, "id", h) || !read_name(&r->category, object, "category", h))
        return false;
    char line[32];
    snprintf(line, sizeof line, "%zu", h.line);
    if (!r->id) r->id = mem_string(line);
    if (!r->category) r->category = mem_string("");
    return true;
}

static bool has(const json_t *object, const char *key) {
    return json_object_get(object, key) != NULL;
}

bool record_from_json(Record *r, bool *keep, Records *all, const json_t *object, Source *s,
                      size_t line) {
    Here h = {s, line, all};
    *r = (Record){.line = line};
    *keep = true;
    if (!json_is_object(object))
        return source_fail(s, line, "expected a JSON object, one record; mend it");
    bool ok;
    if (has(object, "chosen") || has(object, "rejected"))
        ok = read_pair(r, keep, object, h);
    else if (has(object, "messages") || has(object, "prompt") || has(object, "instruction"))
        ok = read_chat(r, keep, object, h);
    else if (has(object, "text"))
        ok = read_text(r, json_object_get(object, "text"), h);
    else if (has(object, "tokens"))
        ok = read_tokens(r, json_object_get(object, "tokens"), h) &&
             (!has(object, "labels") || read_labels(r, json_object_get(object, "labels"), h));
    else if (has(object, "goal"))
        ok = read_chat(r, keep, object, h);
    else
        ok = source_fail(s, line,
                         "expected one of \"chosen\" and \"rejected\", \"messages\", \"prompt\", "
                         "\"instruction\", \"text\", \"tokens\", \"goal\"; rename its key");
    return ok && read_names(r, object, h);
}

void record_free(Record *r) {
    chat_free(&r->chat), chat_free(&r->rejected);
    free(r->id), free(r->category), free(r->text), free(r->token), free(r->label);
    *r = (Record){0};
}
