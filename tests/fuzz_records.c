/* Fuzzing of data files: any bytes as a JSONL, list, CSV or gzip file, and documents from what was
 * read. A file is refused with one line that names it, or its records keep their promises. */
#include "data/chat.h"
#include "data/utf8.h"
#include "tests/fuzz.h"

static Tokenizer *tok;
static FuzzFile file;

static void open_once(void) {
    Err err;
    CHECK(tokenizer_open(&tok, "tests/golden/tokenizer_small.json", &err), "%s", err.text);
    fuzz_file_open(&file, "records");
}

static void check_doc(const Doc *doc, int max_length) {
    CHECK(doc->n >= 1 && (max_length == 0 || doc->n <= max_length), "%d tokens", doc->n);
    CHECK(doc->prompt >= 1 && doc->prompt <= doc->n && !doc->label[0], "prompt %d", doc->prompt);
    for (int i = 0; i < doc->n; i++) {
        CHECK(doc->token[i] >= 0 && doc->token[i] < tokenizer_vocab(tok), "token");
        CHECK(doc->label[i] <= 1 && doc->reply[i] <= doc->label[i], "a reply token is a label");
        CHECK(i >= doc->prompt || !doc->label[i], "a label in the prompt");
    }
}

static void check_chat(const Chat *chat, bool answered) {
    CHECK(chat->n > 0 && (chat->n % 2 == 0) == answered, "%d turns", chat->n);
    for (int i = 0; i < chat->n; i++) {
        CHECK(chat->turn[i].role == (i % 2 ? ROLE_MODEL : ROLE_USER), "roles alternate");
        CHECK(utf8_valid(chat->turn[i].text, chat->turn[i].len) == chat->turn[i].len, "UTF-8");
        CHECK(chat->turn[i].text[chat->turn[i].len] == 0, "a NUL behind the text");
    }
}

static void check_record(const Record *r, int max_length) {
    Doc doc, other;
    Err err;
    int shared;
    CHECK(r->id && r->category && r->line > 0, "names");
    if (r->form == RECORD_PAIR) {
        check_chat(&r->chat, true), check_chat(&r->rejected, true);
        if (doc_pair(&doc, &other, &shared, tok, r, max_length, &err)) {
            check_doc(&doc, max_length), check_doc(&other, max_length);
            CHECK(shared >= 0 && shared < doc.n && shared < other.n, "shared %d", shared);
            for (int i = 0; i < shared; i++)
                CHECK(doc.token[i] == other.token[i] && !doc.label[i] && !other.label[i], "shared");
            doc_free(&doc), doc_free(&other);
        } else {
            fuzz_refused(&err, EXIT_INPUT, "line ");
        }
    } else if (r->form == RECORD_CHAT || r->form == RECORD_PROMPT) {
        check_chat(&r->chat, r->form == RECORD_CHAT);
    }
    if (doc_from_record(&doc, tok, r, max_length, &err)) {
        check_doc(&doc, max_length);
        doc_free(&doc);
    } else {
        fuzz_refused(&err, EXIT_INPUT, "line ");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!tok) open_once();
    fuzz_file_set(&file, NULL, 0, data, size);
    Records r;
    Err err;
    size_t limit = size % 3;
    int max_length = size % 5 ? (int)(size % 40) : 0;
    if (!records_read(&r, file.path, limit, &err)) {
        fuzz_refused(&err, EXIT_INPUT, file.path);
        return 0;
    }
    CHECK(r.n > 0 && (limit == 0 || r.n <= limit), "%zu records", r.n);
    for (size_t i = 0; i < r.n; i++) check_record(&r.record[i], max_length);
    records_free(&r);
    return 0;
}
