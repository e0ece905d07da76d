/* records_chat.c - texts and lists of messages to a conversation.
 *
 * A text that was rendered for a model before would be rendered twice. HH-RLHF's turns are read;
 * what starts or ends like other templates is refused. Gemma's own markers are tokens, and are
 * found when the text is encoded (chat.h). */
#include <stdio.h>

#include "data/records_impl.h"
#include "data/utf8.h"

static void drop_last(Chat *chat) {
    free(chat->turn[--chat->n].text);
}

bool chat_starts_with(const Chat *chat, const Chat *start) {
    if (start->n > chat->n) return false;
    for (int i = 0; i < start->n; i++) {
        size_t n = chat->turn[i].len, m = start->turn[i].len;
        const char *a = utf8_trim(chat->turn[i].text, &n), *b = utf8_trim(start->turn[i].text, &m);
        if (chat->turn[i].role != start->turn[i].role || n != m || memcmp(a, b, n) != 0)
            return false;
    }
    return true;
}

/* ------------------------------------------------------------------------- rendered before -- */

/* What other templates put around turns: at the start of a prompt, at its end, in a reply. */
static const char *const at_start[] = {
    "<|im_start|>", "[INST]", "<s>[INST]", "<|begin_of_text|>", "<|start_header_id|>", NULL};
static const char *const at_end[] = {"<|im_start|>assistant", "[/INST]",
                                     "### Response:", "ASSISTANT:", NULL};
static const char *const in_reply[] = {"<|im_start|>", "<|im_end|>",          "[/INST]",
                                       "<|eot_id|>",   "<|start_header_id|>", NULL};

static const char *rendered_prompt(const char *s, size_t n) {
    s = utf8_trim(s, &n);
    for (const char *const *p = at_start; *p; p++)
        if (n >= strlen(*p) && memcmp(s, *p, strlen(*p)) == 0) return *p;
    for (const char *const *p = at_end; *p; p++)
        if (n >= strlen(*p) && memcmp(s + n - strlen(*p), *p, strlen(*p)) == 0) return *p;
    return NULL;
}

static const char *rendered_reply(const char *s, size_t n) {
    for (const char *const *p = in_reply; *p; p++)
        if (memmem(s, n, *p, strlen(*p))) return *p;
    return hh_leading(s, n);
}

/* Appends one turn as it was given. */
static bool add_turn(Chat *chat, enum Role role, const json_t *text, const char *field,
                     const Fields *f) {
    const char *s = json_string_value(text);
    size_t n = json_string_length(text);
    bool user = role == ROLE_USER;
    const char *mark = user ? rendered_prompt(s, n) : rendered_reply(s, n);
    if (user && !mark && hh_whole(s, n)) mark = "Human:";
    if (mark)
        return fields_fail(f, field,
                           "\"%s\" says that it is rendered for a model already; give the %s's "
                           "text alone",
                           mark, user ? "user" : "assistant");
    f->all->marked_replies += !user && hh_inside(s, n);
    chat_add(chat, role, s, n);
    return true;
}

/* -------------------------------------------------------------------------------- messages -- */

/* A message's role or content under either of its names. */
static const json_t *part(const json_t *message, const char *name, const char *other) {
    const json_t *value = json_object_get(message, name);
    return value ? value : json_object_get(message, other);
}

static const char *role_name(const json_t *message) {
    const char *name = json_string_value(part(message, "role", "from"));
    return name ? name : "";
}

static bool role_of(const json_t *message, enum Role *role) {
    static const struct {
        const char *name;
        enum Role role;
    } names[] = {{"user", ROLE_USER},
                 {"human", ROLE_USER},
                 {"assistant", ROLE_MODEL},
                 {"model", ROLE_MODEL},
                 {"gpt", ROLE_MODEL}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].name, role_name(message)) == 0) {
            *role = names[i].role;
            return true;
        }
    return false;
}

bool messages_start_with_model(const json_t *list) {
    enum Role role;
    return role_of(json_array_get(list, 0), &role) && role == ROLE_MODEL;
}

static bool wrong_role(const json_t *message, const char *where, enum Role expected,
                       const Fields *f) {
    const char *name = role_name(message);
    if (strcmp(name, "system") == 0)
        return fields_fail(f, where,
                           "Gemma has no system role; put its text in front of the first user's, "
                           "or remove it");
    return fields_fail(f, where,
                       "expected %s, got \"%.40s\"; roles alternate and start with the user",
                       expected == ROLE_USER ? "user" : "assistant", name);
}

/* Beside role and content: what the model would have to see and cannot. */
static bool check_parts(const json_t *message, const char *where, const Fields *f) {
    static const char *const unseen[] = {"tool_calls", "function_call", "images",
                                         "reasoning_content", "thinking"};
    for (size_t i = 0; i < sizeof unseen / sizeof *unseen; i++)
        if (!fields_blank(json_object_get(message, unseen[i])))
            return fields_fail(
                f, where, "Gemma-2 would not see its \"%s\"; remove it or the record", unseen[i]);
    return true;
}

static bool add_message(Chat *chat, const json_t *message, const char *field, size_t i,
                        const Fields *f) {
    enum Role role, expected = chat->n % 2 ? ROLE_MODEL : ROLE_USER;
    const json_t *content = part(message, "content", "value");
    char where[64];
    bool nothing = chat->n == 0 && strcmp(role_name(message), "system") == 0 &&
                   json_is_string(content) && fields_blank(content);
    if (nothing) return true;
    snprintf(where, sizeof where, "%s[%zu].role", field, i);
    if (!role_of(message, &role) || role != expected)
        return wrong_role(message, where, expected, f);
    snprintf(where, sizeof where, "%s[%zu].content", field, i);
    if (!json_is_string(content))
        return fields_fail(f, where, "expected a string; mend the record");
    return check_parts(message, where, f) && add_turn(chat, role, content, where, f);
}

bool chat_add_messages(Chat *chat, const json_t *list, const char *field, const Fields *f) {
    size_t i;
    const json_t *message;
    json_array_foreach (list, i, message)
        if (!add_message(chat, message, field, i, f)) return false;
    return true;
}

/* ----------------------------------------------------------------------------------- texts -- */

bool chat_add_hh(Chat *chat, const json_t *text, const char *field, const Fields *f) {
    int joined = hh_parse(chat, json_string_value(text), json_string_length(text));
    if (joined < 0)
        return fields_fail(f, field,
                           "expected text that starts with \"\\n\\nHuman: \", a list of messages, "
                           "or a \"prompt\" beside it; mend the record");
    f->all->merged_turns += (size_t)joined;
    return true;
}

bool chat_add_prompt(Chat *chat, const json_t *prompt, const char *field, const Fields *f) {
    if (json_is_string(prompt)) {
        if (!hh_whole(json_string_value(prompt), json_string_length(prompt))) {
            if (!add_turn(chat, ROLE_USER, prompt, field, f)) return false;
        } else {
            if (!chat_add_hh(chat, prompt, field, f)) return false;
            if (chat->n % 2 == 0 && chat_blank(&chat->turn[chat->n - 1])) drop_last(chat);
        }
    } else if (json_is_array(prompt)) {
        if (!chat_add_messages(chat, prompt, field, f)) return false;
    }
    if (chat->n % 2 == 0 || chat_blank(&chat->turn[chat->n - 1]))
        return fields_fail(f, field,
                           "expected text, or messages that end with the user's; mend the record");
    return true;
}

bool chat_add_reply(Chat *chat, const json_t *reply, const char *field, const Fields *f) {
    if (json_is_string(reply)) return add_turn(chat, ROLE_MODEL, reply, field, f);
    if (json_is_array(reply)) return chat_add_messages(chat, reply, field, f);
    return fields_fail(f, field, "expected a string or a list of messages; mend the record");
}

bool chat_add_history(Chat *chat, const json_t *history, const Fields *f) {
    size_t i;
    const json_t *turns;
    if (!json_is_array(history))
        return fields_fail(f, "history",
                           "expected a list of [user, assistant] texts; mend the record");
    json_array_foreach (history, i, turns) {
        const json_t *user = json_array_get(turns, 0), *model = json_array_get(turns, 1);
        char where[64];
        snprintf(where, sizeof where, "history[%zu]", i);
        if (json_array_size(turns) != 2 || !json_is_string(user) || !json_is_string(model))
            return fields_fail(f, where, "expected [user, assistant], two texts; mend the record");
        if (!add_turn(chat, ROLE_USER, user, where, f) ||
            !add_turn(chat, ROLE_MODEL, model, where, f))
            return false;
    }
    return true;
}
