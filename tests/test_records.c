/* Reading data files: every form, plain and packed, and one-line errors for what cannot be used. */
#include "data/records.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "host/base/files.h"
#include "tests/test.h"

static char path[64];

static void put(const char *bytes, size_t n) {
    Err err;
    bool ok = files_write(path, bytes, n, &err);
    EXPECT(ok, "%s", err.text);
}

static bool read_text(Records *r, const char *text, Err *err) {
    put(text, strlen(text));
    return records_read(r, path, 0, err);
}

/* Reads `text`, which must be good; the caller frees. */
static Records good(const char *text) {
    Records r;
    Err err = {0};
    bool ok = read_text(&r, text, &err);
    EXPECT(ok, "%s", err.text);
    return r;
}

/* Reads `text`, which must be refused with a message that holds `say` and "LINE:". */
static void bad(const char *text, size_t line, const char *say) {
    Records r;
    Err err = {0};
    char place[96];
    bool ok = read_text(&r, text, &err);
    EXPECT(!ok && err.code == EXIT_INPUT, "accepted: %.60s", text);
    if (ok) {
        records_free(&r);
        return;
    }
    snprintf(place, sizeof place, "%s:%zu: ", path, line);
    EXPECT(strncmp(err.text, place, strlen(place)) == 0, "expected '%s', got '%s'", place,
           err.text);
    EXPECT(strstr(err.text, say), "expected '%s' in '%s'", say, err.text);
    EXPECT(r.n == 0 && !r.record, "a failed read left records");
}

static void turn_is(const Chat *c, int i, enum Role role, const char *text) {
    bool there = i < c->n;
    EXPECT(there, "turn %d of %d", i, c->n);
    if (!there) return;
    EXPECT(c->turn[i].role == role, "turn %d", i);
    EXPECT(c->turn[i].len == strlen(text) && memcmp(c->turn[i].text, text, strlen(text)) == 0,
           "turn %d: '%s', expected '%s'", i, c->turn[i].text, text);
}

static void test_forms(void) {
    Records r = good(
        "{\"chosen\":\"\\n\\nHuman: a\\n\\nAssistant: b\",\"rejected\":\"\\n\\nHuman: "
        "a\\n\\nAssistant: c\"}\n"
        "\r\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":"
        "\"m\"}],\"id\":\"x\",\"category\":\"k\"}\r\n"
        "{\"prompt\":\"p\",\"completion\":\"q\",\"id\":17}\n"
        "{\"prompt\":\"p\",\"id\":null}\n{\"instruction\":\"i\",\"category\":3}\n"
        "{\"text\":\"t\\u0000t\"}\n{\"tokens\":[2,0,5]}\n{\"goal\":\"g\",\"target\":\"Sure\"}");
    static const enum RecordForm form[] = {RECORD_PAIR,   RECORD_CHAT,   RECORD_CHAT,
                                           RECORD_PROMPT, RECORD_PROMPT, RECORD_TEXT,
                                           RECORD_TOKENS, RECORD_PROMPT};
    static const char *const id[] = {"1", "x", "17", "5", "6", "7", "8", "9"};
    EXPECT(r.n == 8, "%zu records", r.n);
    for (size_t i = 0; i < r.n && i < 8; i++) {
        EXPECT(r.record[i].form == form[i], "record %zu", i);
        EXPECT(strcmp(r.record[i].id, id[i]) == 0, "record %zu: id %s", i, r.record[i].id);
        EXPECT(r.record[i].line == i + 1 + (i > 0), "record %zu: line %zu", i, r.record[i].line);
    }
    turn_is(&r.record[0].chat, 0, ROLE_USER, "a");
    turn_is(&r.record[0].chat, 1, ROLE_MODEL, "b");
    turn_is(&r.record[0].rejected, 1, ROLE_MODEL, "c");
    turn_is(&r.record[1].chat, 1, ROLE_MODEL, "m");
    turn_is(&r.record[2].chat, 1, ROLE_MODEL, "q");
    EXPECT(strcmp(r.record[1].category, "k") == 0 && strcmp(r.record[4].category, "3") == 0,
           "names");
    EXPECT(r.record[5].text_len == 3 && memcmp(r.record[5].text, "t\0t", 3) == 0, "a NUL in text");
    EXPECT(r.record[6].ntoken == 3 && r.record[6].token[2] == 5, "tokens");
    turn_is(&r.record[7].chat, 0, ROLE_USER, "g");
    records_free(&r);
}

int main(void) {
    snprintf(path, sizeof path, "/tmp/sails_test_records.%ld", (long)getpid());
    test_forms();
    bad("{\"x\":1}\n", 1, "expected one of");
    unlink(path);
    return test_done("test_records");
}
