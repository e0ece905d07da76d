/* chat.c - the template's markers around each turn, and which tokens are labels. */
#include "data/chat.h"

#include <limits.h>

#include "data/utf8.h"

typedef struct Marks {
    int32_t bos, eos, start, end; /* ids; -1: the tokenizer has none */
} Marks;

static Marks marks_of(const Tokenizer *t) {
    return (Marks){.bos = tokenizer_id(t, "<bos>"),
                   .eos = tokenizer_id(t, "<eos>"),
                   .start = tokenizer_id(t, "<start_of_turn>"),
                   .end = tokenizer_id(t, "<end_of_turn>")};
}

static bool check_turns(const Chat *chat, bool generate, Err *err) {
    for (int i = 0; i < chat->n; i++) {
        if (chat->turn[i].role != (i % 2 ? ROLE_MODEL : ROLE_USER))
            return err_set(err, EXIT_INPUT,
                           "turn %d: expected the %s's; roles alternate and start with the user",
                           i + 1, i % 2 ? "model" : "user");
        size_t valid = utf8_valid(chat->turn[i].text, chat->turn[i].len);
        if (valid < chat->turn[i].len)
            return err_set(err, EXIT_INPUT,
                           "turn %d, byte offset %zu: expected valid UTF-8; convert the text",
                           i + 1, valid);
    }
    if (chat->n == 0)
        return err_set(err, EXIT_INPUT, "expected a conversation, got no turn; leave it out");
    if (!generate && chat->n % 2)
        return err_set(
            err, EXIT_INPUT,
            "expected a conversation that ends with the model's turn to train on; leave it "
            "out");
    return true;
}

/* Appends ids of text that must not hold a BOS. */
static bool add_text(Ids *ids, Tokenizer *t, int32_t bos, const char *s, size_t n, Err *err) {
    size_t from = ids->n;
    if (!tokenizer_encode(t, s, n, ids, err)) return false;
    for (size_t i = from; i < ids->n; i++)
        if (ids->id[i] == bos)
            return err_set(err, EXIT_INPUT,
                           "the text holds <bos>, which sails adds itself: a double BOS; give text "
                           "that is not rendered yet");
    return true;
}

/* Appends ids of a turn's content, which must not hold what the template puts around it. */
static bool add_content(Ids *ids, Tokenizer *t, const Marks *m, const char *s, size_t n, Err *err) {
    const struct {
        int32_t id;
        const char *name;
    } marks[] = {{m->start, "<start_of_turn>"}, {m->end, "<end_of_turn>"}, {m->eos, "<eos>"}};
    size_t from = ids->n;
    if (!add_text(ids, t, m->bos, s, n, err)) return false;
    for (size_t i = from; i < ids->n; i++)
        for (size_t k = 0; k < sizeof marks / sizeof *marks; k++)
            if (marks[k].id >= 0 && ids->id[i] == marks[k].id)
                return err_set(err, EXIT_INPUT,
                               "the text holds %s, which the chat template adds itself; give text "
                               "that is not rendered yet",
                               marks[k].name);
    return true;
}

/* Role, newline and content of one turn. The reply to train on begins at a token of its own. */
static bool add_turn(Ids *ids, Tokenizer *t, const Marks *m, const Turn *turn, bool final_reply,
                     int *reply_at, Err *err) {
    size_t n = turn->len;
    const char *content = utf8_trim(turn->text, &n);
    const char *header = turn->role == ROLE_USER ? "user\n" : "model\n";
    Buf text = {0};
    buf_add(&text, header, strlen(header));
    bool ok = true;
    if (final_reply) {
        ok = add_content(ids, t, m, text.p, text.n, err);
        *reply_at = (int)ids->n;
        text.n = 0;
    }
    buf_add(&text, content, n);
    ok = ok && add_content(ids, t, m, text.p, text.n, err);
    buf_free(&text);
    return ok;
}

/* Takes the ids over: the document's labels are tokens [prompt, n), its reply [prompt, reply_end).
 */
static bool finish(Doc *doc, Ids *ids, int prompt, int reply_end, int max_length, Err *err) {
    if (ids->n > INT_MAX / 2) {
        ids_free(ids);
        return err_set(err, EXIT_INPUT, "document of more than %d tokens; split it", INT_MAX / 2);
    }
    int n = (int)ids->n;
    *doc = (Doc){.token = ids->id, .n = n};
    if (max_length > 0 && n > max_length) doc->n = max_length, doc->truncated = true;
    doc->prompt = prompt < doc->n ? prompt : doc->n;
    doc->label = mem_array((size_t)n, 1);
    doc->reply = mem_array((size_t)n, 1);
    for (int i = prompt; i < doc->n; i++) doc->label[i] = 1, doc->reply[i] = i < reply_end;
    return true;
}

static bool render(Ids *ids, Tokenizer *t, const Chat *chat, bool generate, int *prompt,
                   int *reply_end, Err *err) {
    if (!tokenizer_reads_text(t, err)) return false;
    Marks m = marks_of(t);
    if (m.bos < 0 || m.start < 0 || m.end < 0)
        return err_set(err, EXIT_INPUT,
                       "the tokenizer lacks <bos>, <start_of_turn> or <end_of_turn>: expected one "
                       "for Gemma chats; use the model's own");
    if (!check_turns(chat, generate, err)) return false;
    int turns = chat->n - (generate && chat->n % 2 == 0);
    ids_add(ids, m.bos);
    for (int i = 0; i < turns; i++) {
        bool final_reply = i == turns - 1 && !generate;
        ids_add(ids, m.start);
        if (!add_turn(ids, t, &m, &chat->turn[i], final_reply, prompt, err)) return false;
        *reply_end = (int)ids->n;
        ids_add(ids, m.end);
        if (!tokenizer_encode(t, "\n", 1, ids, err)) return false;
    }
    if (!generate) return true;
    ids_add(ids, m.start);
    if (!tokenizer_encode(t, "model\n", 6, ids, err)) return false;
    *prompt = *reply_end = (int)ids->n;
    return true;
}

bool chat_render(Doc *doc, Tokenizer *t, const Chat *chat, bool generate, int max_length,
                 Err *err) {
    Ids ids = {0};
    int prompt = 0, reply_end = 0;
    bool ok = render(&ids, t, chat, generate, &prompt, &reply_end, err);
    if (ok && generate && max_length > 0 && ids.n > (size_t)max_length)
        ok = err_set(err, EXIT_INPUT,
                     "prompt of %zu tokens: expected at most %d; shorten it or allow more", ids.n,
                     max_length);
    if (ok) return finish(doc, &ids, prompt, reply_end, max_length, err);
    ids_free(&ids);
    return false;
}

static bool from_text(Doc *doc, Tokenizer *t, const Record *r, int max_length, Err *err) {
    Ids ids = {0};
    int32_t bos = tokenizer_id(t, "<bos>");
    if (!tokenizer_reads_text(t, err)) return false;
    if (bos < 0) return err_set(err, EXIT_INPUT, "the tokenizer lacks <bos>; use the model's own");
    ids_add(&ids, bos);
    if (add_text(&ids, t, bos, r->text, r->text_len, err))
        return finish(doc, &ids, 1, INT_MAX, max_length, err);
    ids_free(&ids);
    return false;
}

static bool from_tokens(Doc *doc, Tokenizer *t, const Record *r, int max_length, Err *err) {
    int32_t bos = tokenizer_id(t, "<bos>");
    Ids ids = {0};
    for (size_t i = 0; i < r->ntoken; i++) {
        int32_t id = r->token[i];
        bool doubled = i == 1 && id == bos && r->token[0] == bos;
        if (id >= 0 && id < tokenizer_vocab(t) && !doubled) {
            ids_add(&ids, id);
            continue;
        }
        ids_free(&ids);
        if (doubled)
            return err_set(err, EXIT_INPUT, "\"tokens\" start with a double BOS; remove one");
        return err_set(
            err, EXIT_INPUT,
            "\"tokens\"[%zu]: expected an id from 0 to %d, got %d; is it another tokenizer's?", i,
            tokenizer_vocab(t) - 1, id);
    }
    /* Nothing predicts a document's first token, BOS or not. */
    int first = 1;
    while (r->label && first < (int)r->ntoken && !r->label[first]) first++;
    if (!finish(doc, &ids, first, INT_MAX, max_length, err)) return false;
    for (int i = first; r->label && i < doc->n; i++) doc->label[i] = doc->reply[i] = r->label[i];
    return true;
}

bool doc_from_record(Doc *doc, Tokenizer *t, const Record *r, int max_length, Err *err) {
    bool ok = false;
    switch (r->form) {
        case RECORD_PAIR:
        case RECORD_CHAT:
            ok = chat_render(doc, t, &r->chat, false, max_length, err);
            break;
        case RECORD_PROMPT:
            ok = chat_render(doc, t, &r->chat, true, max_length, err);
            break;
        case RECORD_TEXT:
            ok = from_text(doc, t, r, max_length, err);
            break;
        case RECORD_TOKENS:
            ok = from_tokens(doc, t, r, max_length, err);
            break;
    }
    if (!ok) return err_prefix(err, "line %zu", r->line);
    doc->record = r;
    return true;
}

bool doc_pair(Doc *chosen, Doc *rejected, int *shared, Tokenizer *t, const Record *r,
              int max_length, Err *err) {
    if (r->form != RECORD_PAIR)
        return err_set(err, EXIT_INPUT,
                       "line %zu: expected \"chosen\" and \"rejected\"; leave it out", r->line);
    if (!doc_from_record(chosen, t, r, max_length, err)) return false;
    if (!chat_render(rejected, t, &r->rejected, false, max_length, err)) {
        doc_free(chosen);
        return err_prefix(err, "line %zu: \"rejected\"", r->line);
    }
    rejected->record = r;
    int limit = chosen->prompt < rejected->prompt ? chosen->prompt : rejected->prompt;
    int shorter = chosen->n < rejected->n ? chosen->n : rejected->n;
    if (limit > shorter - 1) limit = shorter - 1;
    int n = 0;
    while (n < limit && chosen->token[n] == rejected->token[n]) n++;
    *shared = n;
    return true;
}

void doc_label_all(Doc *doc) {
    for (int i = 1; i < doc->n; i++) doc->label[i] = 1;
    if (doc->prompt > 1) doc->prompt = 1;
}

int doc_labels(const Doc *doc) {
    int n = 0;
    for (int i = 0; i < doc->n; i++) n += doc->label[i] != 0;
    return n;
}

void doc_free(Doc *doc) {
    free(doc->token), free(doc->label), free(doc->reply);
    *doc = (Doc){0};
}
