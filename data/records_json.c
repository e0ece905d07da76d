/* records_json.c - one JSON object to one record, by the first form that its fields fit. */
#include <stdio.h>

#include "data/records_impl.h"

static bool no_reply(const Chat *chat) {
    const Turn *last = &chat->turn[chat->n - 1];
    return last->role == ROLE_USER || chat_blank(last);
}

/* ------------------------------------------------------------------ what the user asks for -- */

static const char *question_field(const Fields *f) {
    static const char *const names[] = {"prompt", "instruction", "goal"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (fields_has(f, names[i])) return names[i];
    return NULL;
}

/* "\n" and the text, behind the user's. */
static bool extend(Chat *chat, const json_t *text, const char *field, const Fields *f) {
    if (!json_is_string(text)) return fields_fail(f, field, "expected a string; mend the record");
    Turn *turn = &chat->turn[chat->n - 1];
    size_t n = json_string_length(text);
    char *joined = mem_array(turn->len + n + 2, 1);
    memcpy(joined, turn->text, turn->len);
    joined[turn->len] = '\n';
    memcpy(joined + turn->len + 1, json_string_value(text), n);
    free(turn->text);
    turn->text = joined;
    turn->len += n + 1;
    return true;
}

/* What an instruction is about: Alpaca's "input", Dolly's "context". */
static bool add_input(Chat *chat, Fields *f) {
    static const char *const names[] = {"input", "context"};
    for (int i = 0; i < 2; i++) {
        if (fields_blank(json_object_get(f->object, names[i]))) continue;
        return extend(chat, fields_take(f, names[i]), names[i], f); /* the other one is refused */
    }
    return true;
}

/* Everything in front of the reply; `field` is what question_field found. */
static bool add_question(Chat *chat, const char *field, Fields *f) {
    const json_t *history = fields_take(f, "history");
    if (!fields_blank(history) && !chat_add_history(chat, history, f)) return false;
    if (!chat_add_prompt(chat, fields_take(f, field), field, f)) return false;
    return strcmp(field, "instruction") != 0 || add_input(chat, f);
}

/* A field that says again how the conversation starts, as some data sets have it. */
static bool check_repeated(const Chat *chat, const char *field, Fields *f) {
    const json_t *value = fields_take(f, field);
    Chat said = {0};
    if (fields_blank(value)) return true;
    bool ok = json_is_array(value) ? chat_add_messages(&said, value, field, f)
                                   : chat_add_prompt(&said, value, field, f);
    if (ok && !chat_starts_with(chat, &said))
        ok = fields_fail(f, field, "differs from the conversation beside it; remove one of them");
    chat_free(&said);
    return ok;
}

/* ----------------------------------------------------------------------------------- pairs -- */

/* One side of a pair: a reply to the question beside it, or the whole conversation. */
static bool add_side(Chat *chat, const char *field, Fields *f) {
    const json_t *side = fields_take(f, field);
    const char *question = question_field(f), *s = json_string_value(side);
    bool whole = s ? hh_whole(s, json_string_length(side)) : !messages_start_with_model(side);
    if (question && !whole)
        return add_question(chat, question, f) && chat_add_reply(chat, side, field, f);
    if (s) {
        if (!chat_add_hh(chat, side, field, f)) return false;
    } else if (!json_is_array(side) || json_array_size(side) == 0) {
        return fields_fail(f, field,
                           "expected HH-RLHF text or a list of messages; mend the record");
    } else if (!chat_add_messages(chat, side, field, f)) {
        return false;
    }
    return !question || check_repeated(chat, question, f);
}

static bool same_prompt(const Chat *a, const Chat *b) {
    if (a->n != b->n) return false;
    for (int i = 0; i + 1 < a->n; i++)
        if (a->turn[i].len != b->turn[i].len ||
            memcmp(a->turn[i].text, b->turn[i].text, a->turn[i].len) != 0)
            return false;
    return true;
}

static bool add_pair(Record *r, bool *keep, const char *chosen, const char *rejected, Fields *f) {
    r->form = RECORD_PAIR;
    if (!add_side(&r->chat, chosen, f) || !add_side(&r->rejected, rejected, f)) return false;
    if (r->chat.n == 0 || r->rejected.n == 0)
        return fields_fail(f, r->chat.n ? rejected : chosen, "expected a reply; mend the record");
    f->all->diverging_pairs += !same_prompt(&r->chat, &r->rejected);
    *keep = !no_reply(&r->chat) && !no_reply(&r->rejected);
    f->all->empty_replies += !*keep;
    return true;
}

static bool read_pair(Record *r, bool *keep, Fields *f) {
    return add_pair(r, keep, "chosen", "rejected", f) && check_repeated(&r->chat, "messages", f);
}

/* A number or truth value of JSON, or as CSV spells it; -1: something else. */
static int as_bit(const json_t *value) {
    static const char *const no[] = {"0", "false", "False"}, *const yes[] = {"1", "true", "True"};
    if (json_is_boolean(value)) return json_is_true(value);
    json_int_t v = json_integer_value(value);
    if (json_is_integer(value) && (v == 0 || v == 1)) return (int)v;
    const char *s = json_string_value(value);
    for (int i = 0; s && i < 3; i++)
        if (strcmp(s, no[i]) == 0 || strcmp(s, yes[i]) == 0) return strcmp(s, yes[i]) == 0;
    return -1;
}

/* Two responses of which one is the safer. One that is unsafe all the same is no example. */
static bool read_responses(Record *r, bool *keep, Fields *f) {
    static const char *const reply[] = {"response_0", "response_1"};
    static const char *const better[] = {"safer_response_id", "better_response_id"};
    int safe[2] = {as_bit(fields_take(f, "is_response_0_safe")),
                   as_bit(fields_take(f, "is_response_1_safe"))};
    int chosen = -1;
    for (int i = 0; i < 2; i++) {
        const json_t *id = fields_take(f, better[i]);
        if (fields_blank(id) || chosen >= 0) continue;
        chosen = as_bit(id);
        if (chosen < 0) return fields_fail(f, better[i], "expected 0 or 1; mend the record");
    }
    if (chosen < 0 && safe[0] >= 0 && safe[1] >= 0 && safe[0] != safe[1]) chosen = safe[1];
    if (chosen < 0)
        return fields_fail(f, better[0], "expected 0 or 1, which reply is chosen; add it");
    if (!add_pair(r, keep, reply[chosen], reply[1 - chosen], f)) return false;
    bool unsafe = *keep && safe[chosen] == 0;
    f->all->unsafe_pairs += unsafe;
    *keep = *keep && !unsafe;
    return true;
}

/* ----------------------------------------------------------------------- chats and prompts -- */

static void set_chat_form(Record *r, bool *keep, Fields *f) {
    r->form = r->chat.n % 2 ? RECORD_PROMPT : RECORD_CHAT;
    *keep = r->form == RECORD_PROMPT || !no_reply(&r->chat);
    f->all->empty_replies += !*keep;
}

static bool read_messages(Record *r, bool *keep, const char *field, Fields *f) {
    const json_t *messages = fields_take(f, field);
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return fields_fail(f, field, "expected a list of messages; mend the record");
    if (!chat_add_messages(&r->chat, messages, field, f)) return false;
    if (r->chat.n == 0)
        return fields_fail(f, field, "expected a message of the user's; mend the record");
    set_chat_form(r, keep, f);
    return check_repeated(&r->chat, "prompt", f);
}

/* The reply's field: the one that says something, or the first that is there. */
static const char *reply_field(const Fields *f) {
    static const char *const names[] = {"completion", "response", "output"};
    const char *found = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *value = json_object_get(f->object, names[i]);
        if (!fields_blank(value)) return names[i]; /* a second one is refused as not taken */
        if (!found && value && !json_is_null(value)) found = names[i];
    }
    return found;
}

static bool read_chat(Record *r, bool *keep, const char *question, Fields *f) {
    const char *reply = reply_field(f);
    if (!add_question(&r->chat, question, f)) return false;
    if (reply && !chat_add_reply(&r->chat, fields_take(f, reply), reply, f)) return false;
    if (reply && strcmp(question, "instruction") == 0)
        fields_take(f, "text"); /* Alpaca: the same, rendered */
    if (r->chat.n == 0) return fields_fail(f, question, "expected text; mend the record");
    set_chat_form(r, keep, f);
    return true;
}

/* ------------------------------------------------------------------------- texts and tokens -- */

static bool read_text(Record *r, const json_t *text, const Fields *f) {
    if (!json_is_string(text)) return fields_fail(f, "text", "expected a string; mend the record");
    r->form = RECORD_TEXT;
    r->text_len = json_string_length(text);
    r->text = buf_copy(json_string_value(text), r->text_len);
    return true;
}

static bool read_tokens(Record *r, const json_t *tokens, const Fields *f) {
    r->form = RECORD_TOKENS;
    r->ntoken = json_array_size(tokens);
    if (r->ntoken == 0) return fields_fail(f, "tokens", "expected a list of ids; mend the record");
    r->token = mem_array(r->ntoken, sizeof *r->token);
    for (size_t i = 0; i < r->ntoken; i++) {
        const json_t *id = json_array_get(tokens, i);
        json_int_t v = json_integer_value(id);
        if (!json_is_integer(id) || v < 0 || v > INT32_MAX)
            return source_fail(f->s, f->line,
                               "\"tokens\"[%zu]: expected a token id; mend the record", i);
        r->token[i] = (int32_t)v;
    }
    return true;
}

static bool read_labels(Record *r, const json_t *labels, const Fields *f) {
    r->label = mem_array(r->ntoken, sizeof *r->label);
    bool ok = json_array_size(labels) == r->ntoken;
    for (size_t i = 0; ok && i < r->ntoken; i++) {
        const json_t *label = json_array_get(labels, i);
        json_int_t v = json_integer_value(label);
        ok = json_is_integer(label) && (v == 0 || v == 1);
        r->label[i] = (uint8_t)v;
    }
    return ok || fields_fail(f, "labels", "expected 0 or 1 for each of %zu tokens; mend the record",
                             r->ntoken);
}

/* --------------------------------------------------------------------------------- names -- */

/* A string or a number; anything else names nothing, and counts as missing (NULL). */
static char *read_name(Fields *f, const char *field) {
    const json_t *value = fields_take(f, field);
    if (json_is_string(value) && json_string_length(value) > 0)
        return mem_string(json_string_value(value));
    if (!json_is_number(value)) return NULL;
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    char *name = mem_string(text);
    free(text);
    return name;
}

static void read_names(Record *r, Fields *f) {
    char line[32];
    snprintf(line, sizeof line, "%zu", f->line);
    r->id = read_name(f, "id");
    r->category = read_name(f, "category");
    if (!r->id) r->id = mem_string(line);
    if (!r->category) r->category = mem_string("");
}

/* A file's records may all be in a list under one name. */
static bool no_form(const Fields *f) {
    const char *key;
    json_t *value;
    json_object_foreach (f->object, key, value)
        if (json_object_size(f->object) == 1 && json_is_object(json_array_get(value, 0)))
            return fields_fail(f, key,
                               "expected records, not a list of them; take "
                               "them out: jq -c "
                               "'.[] | .[]' %s > records.jsonl",
                               f->s->path);
    return source_fail(f->s, f->line,
                       "expected one of \"chosen\" and \"rejected\", \"messages\", \"prompt\", "
                       "\"instruction\", \"text\", \"tokens\", \"goal\"; rename its key, or see "
                       "sails tokenize --help");
}

static bool read_form(Record *r, bool *keep, Fields *f) {
    const char *question = question_field(f);
    if (fields_has(f, "chosen") || fields_has(f, "rejected")) return read_pair(r, keep, f);
    if (fields_has(f, "response_0") || fields_has(f, "response_1"))
        return read_responses(r, keep, f);
    if (fields_has(f, "messages")) return read_messages(r, keep, "messages", f);
    if (fields_has(f, "conversations")) return read_messages(r, keep, "conversations", f);
    if (question && strcmp(question, "goal") != 0) return read_chat(r, keep, question, f);
    if (fields_has(f, "text")) return read_text(r, fields_take(f, "text"), f);
    if (fields_has(f, "tokens"))
        return read_tokens(r, fields_take(f, "tokens"), f) &&
               (!fields_has(f, "labels") || read_labels(r, fields_take(f, "labels"), f));
    return question ? read_chat(r, keep, question, f) : no_form(f);
}

bool record_from_json(Record *r, bool *keep, Records *all, const json_t *object, Source *s,
                      size_t line) {
    Fields f;
    *r = (Record){.line = line};
    *keep = true;
    if (!fields_open(&f, object, all, s, line)) return false;
    bool ok = read_form(r, keep, &f);
    if (ok) read_names(r, &f);
    ok = ok && fields_check_rest(&f);
    fields_close(&f);
    return ok;
}

void record_free(Record *r) {
    chat_free(&r->chat), chat_free(&r->rejected);
    free(r->id), free(r->category), free(r->text), free(r->token), free(r->label);
    *r = (Record){0};
}
