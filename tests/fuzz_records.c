/* Fuzzing of data files: any bytes as a JSONL, list, CSV or gzip file, and documents from what was
 * read. A file is refused with one line that names it, or its records keep their promises. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data/chat.h"
#include "data/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Tokenizer *tok;
static int file;
static char path[64];

static void open_once(void) {
    Err err;
    CHECK(tokenizer_open(&tok, "tests/golden/tokenizer_small.json", &err), "%s", err.text);
    file = memfd_create("records", 0);
    CHECK(file >= 0, "memfd_create");
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
}

static void check_err(const Err *err, const char *start) {
    CHECK(err->code == EXIT_INPUT && !strchr(err->text, '\n') &&
              strncmp(err->text, start, strlen(start)) == 0,
          "code %d: %s", (int)err->code, err->text);
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
            check_err(&err, "line ");
        }
    } else if (r->form == RECORD_CHAT || r->form == RECORD_PROMPT) {
        check_chat(&r->chat, r->form == RECORD_CHAT);
    }
    if (doc_from_record(&doc, tok, r, max_length, &err)) {
        check_doc(&doc, max_length);
        doc_free(&doc);
    } else {
        check_err(&err, "line ");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!tok) open_once();
    CHECK(ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) == (ssize_t)size, "memfd");
    Records r;
    Err err;
    size_t limit = size % 3;
    int max_length = size % 5 ? (int)(size % 40) : 0;
    if (!records_read(&r, path, limit, &err)) {
        check_err(&err, path);
        return 0;
    }
    CHECK(r.n > 0 && (limit == 0 || r.n <= limit), "%zu records", r.n);
    for (size_t i = 0; i < r.n; i++) check_record(&r.record[i], max_length);
    records_free(&r);
    return 0;
}
