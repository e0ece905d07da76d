/* Reading data files: every form, plain and packed, and one-line errors for what cannot be used. */
#include "data/records.h"

#include <zlib.h>

#include "host/base/mem.h"
#include "tests/files.h"

static bool read_text(Records *r, const char *text, Err *err) {
    return records_read(r, test_file("data", text, strlen(text)), 0, err);
}

/* Reads `text`, which must be good; the caller frees. */
static Records good(const char *text) {
    Records r;
    Err err = {0};
    bool ok = read_text(&r, text, &err);
    EXPECT(ok, "%.60s: %s", text, err.text);
    return r;
}

/* `text` must be refused with "FILE:LINE: ...say...". */
static void bad(const char *text, size_t line, const char *say) {
    Records r;
    Err err = {0};
    char place[1100];
    bool ok = read_text(&r, text, &err);
    EXPECT(!ok && err.code == EXIT_INPUT, "accepted: %.60s", text);
    snprintf(place, sizeof place, "%s:%zu: ", test_path("data"), line);
    EXPECT(ok || strncmp(err.text, place, strlen(place)) == 0, "expected '%s', got '%s'", place,
           err.text);
    EXPECT(ok || strstr(err.text, say), "expected '%s' in '%s'", say, err.text);
    EXPECT(ok || (r.n == 0 && !r.record), "a refused file left records");
    records_free(&r);
}

static void turn_is(const Chat *c, int i, enum Role role, const char *text) {
    bool there = i < c->n;
    EXPECT(there, "turn %d of %d", i, c->n);
    if (!there) return;
    EXPECT(c->turn[i].role == role, "turn %d", i);
    EXPECT(c->turn[i].len == strlen(text) && strcmp(c->turn[i].text, text) == 0,
           "turn %d: '%s', expected '%s'", i, c->turn[i].text, text);
}

static void chat_is(const Chat *c, int n, const char *const *texts) {
    EXPECT(c->n == n, "%d turns, expected %d", c->n, n);
    for (int i = 0; i < n; i++) turn_is(c, i, i % 2 ? ROLE_MODEL : ROLE_USER, texts[i]);
}
#define CHAT_IS(c, ...)                                                       \
    chat_is(c, (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), \
            (const char *[]){__VA_ARGS__})

static void test_forms(void) {
    Records r = good(
        "{\"chosen\":\"\\n\\nHuman: a\\n\\nAssistant: b\",\"rejected\":\"\\n\\nHuman: "
        "a\\n\\nAssistant: c\"}\n"
        "\r\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":"
        "\"m\"}],\"id\":\"x\",\"category\":\"k\"}\r\n"
        "{\"prompt\":\"p\",\"completion\":\"q\",\"id\":17}\n"
        "{\"prompt\":\"p\",\"id\":null}\n{\"instruction\":\"i\",\"category\":3}\n"
        "{\"text\":\"t\\u0000t\"}\n{\"tokens\":[2,0,5],\"labels\":[0,0,1]}\n{\"goal\":\"g\","
        "\"target\":\"Sure\"}");
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
    CHAT_IS(&r.record[0].chat, "a", "b");
    CHAT_IS(&r.record[0].rejected, "a", "c");
    CHAT_IS(&r.record[1].chat, "u", "m");
    CHAT_IS(&r.record[2].chat, "p", "q");
    CHAT_IS(&r.record[7].chat, "g");
    EXPECT(strcmp(r.record[1].category, "k") == 0 && strcmp(r.record[4].category, "3") == 0 &&
               strcmp(r.record[0].category, "") == 0,
           "categories");
    EXPECT(r.record[5].text_len == 3 && memcmp(r.record[5].text, "t\0t", 3) == 0, "a NUL in text");
    EXPECT(r.record[6].ntoken == 3 && r.record[6].token[2] == 5, "tokens");
    EXPECT(r.record[6].label && !r.record[6].label[1] && r.record[6].label[2], "labels");
    records_free(&r);
    records_free(&r); /* twice is allowed */
}

static void test_prompts(void) {
    Records r = good(
        "{\"prompt\":[{\"role\":\"user\",\"content\":\"p\"}],\"completion\":[{\"role\":"
        "\"assistant\""
        ",\"content\":\"q\"}]}\n"
        "{\"prompt\":\"p\",\"chosen\":\"good\",\"rejected\":\"bad\"}\n"
        "{\"prompt\":\"p\",\"chosen\":[{\"role\":\"model\",\"content\":\"good\"}],\"rejected\":[{"
        "\"role\":\"model\",\"content\":\"bad\"}]}\n"
        "{\"prompt\":\"p\",\"chosen\":[{\"role\":\"human\",\"content\":\"h\"},{\"role\":\"model\","
        "\"content\":\"good\"}],\"rejected\":\"bad\"}\n"
        "{\"prompt\":\"\\n\\nHuman: h\\n\\nAssistant:\",\"chosen\":\" yes\",\"rejected\":\" no\"}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"only asks\"}]}\n");
    EXPECT(r.n == 6, "%zu records", r.n);
    CHAT_IS(&r.record[0].chat, "p", "q");
    CHAT_IS(&r.record[1].chat, "p", "good");
    CHAT_IS(&r.record[1].rejected, "p", "bad");
    CHAT_IS(&r.record[2].chat, "p", "good");
    CHAT_IS(&r.record[2].rejected, "p", "bad");
    CHAT_IS(&r.record[3].chat, "h", "good");
    CHAT_IS(&r.record[3].rejected, "p", "bad");
    CHAT_IS(&r.record[4].chat, "h", " yes");
    EXPECT(r.record[5].form == RECORD_PROMPT && r.diverging_pairs == 1, "diverging %zu",
           r.diverging_pairs);
    records_free(&r);
}

/* One HH text as both sides of a pair. */
static Records hh(const char *chosen, const char *rejected) {
    char line[2000];
    snprintf(line, sizeof line, "{\"chosen\":\"%s\",\"rejected\":\"%s\"}\n{\"text\":\"\"}\n",
             chosen, rejected);
    return good(line);
}

static void test_hh(void) {
    Records r =
        hh("\\n\\nHuman: a \\n\\nb\\n\\nAssistant:  Human: no\\nHuman: x\\n\\nHumans: y"
           "\\n\\nHuman:z\\n\\nAssistant, w",
           "\\n\\nHuman: a \\n\\nb\\n\\nAssistant: r");
    EXPECT(r.n == 2 && r.diverging_pairs == 0 && r.empty_replies == 0 && r.merged_turns == 0, "hh");
    CHAT_IS(&r.record[0].chat, "a \n\nb",
            " Human: no\nHuman: x\n\nHumans: y\n\nHuman:z\n\nAssistant, w");
    records_free(&r);
    r = hh("\\n\\nHuman: a\\n\\nAssistant: b\\n\\nAssistant: c",
           "\\n\\nHuman: a\\n\\nAssistant: d");
    EXPECT(r.n == 2 && r.merged_turns == 1 && r.diverging_pairs == 0, "joined turns");
    CHAT_IS(&r.record[0].chat, "a", "b\n\nc");
    records_free(&r);
    r = hh("\\n\\nHuman: a\\n\\nHuman: b\\n\\nAssistant: c\\n\\nHuman: \\n\\nAssistant: d",
           "\\n\\nHuman: a\\n\\nAssistant: d");
    EXPECT(r.n == 2 && r.merged_turns == 1 && r.diverging_pairs == 1, "%zu", r.diverging_pairs);
    CHAT_IS(&r.record[0].chat, "a\n\nb", "c", "", "d");
    records_free(&r);
    static const char *const empty[] = {
        "\\n\\nHuman: a\\n\\nAssistant: ", "\\n\\nHuman: a\\n\\nAssistant:",
        "\\n\\nHuman: a\\n\\nAssistant: \\n \\u00a0", "\\n\\nHuman: a"};
    for (int i = 0; i < 8; i++) {
        const char *fine = "\\n\\nHuman: a\\n\\nAssistant: d";
        r = hh(i % 2 ? fine : empty[i / 2], i % 2 ? empty[i / 2] : fine);
        EXPECT(r.n == 1 && r.empty_replies == 1 && r.record[0].form == RECORD_TEXT, "empty %d", i);
        records_free(&r);
    }
}

static void test_list(void) {
    Records r = good(
        "\n [ {\"goal\":\"a,]}\\\"[\"} ,\n{\"tokens\":[1,[],{}]\n,\"goal\":3, \"text\":"
        "\"b\"}\n ]\n");
    EXPECT(r.n == 2 && r.record[0].line == 2 && r.record[1].line == 3, "%zu in list", r.n);
    CHAT_IS(&r.record[0].chat, "a,]}\"[");
    records_free(&r);
    bad("[]", 1, "at least one record");
    bad("[", 1, "ends in ']'");
    bad("[{\"text\":\"a\"}", 1, "ends in ']'");
    bad("[{\"text\":\"a\"},]", 1, "ends in ']'");
    bad("[{\"text\":\"a\"}\n\n x]", 1, "expected a JSON object");
    bad("[{\"text\":\"a\"}]\n[", 2, "nothing behind");
    bad("[{\"text\":\"a\"} {\"text\":\"a\"}]", 1, "JSON object");
    bad("[\n[1]]", 2, "one record");
}

static void test_csv(void) {
    Records r = good(
        "\xef\xbb\xbfid,goal,category,\"x,y\",\n"
        "7,\"a \"\"q\"\", b\nc\r\nd\",k,,\r\n"
        "\n"
        ",plain \"text\",,\"\",1\n"
        "\"9\",last\r,\"\",2,\"e\"");
    EXPECT(r.n == 3, "%zu rows", r.n);
    CHAT_IS(&r.record[0].chat, "a \"q\", b\nc\r\nd");
    CHAT_IS(&r.record[1].chat, "plain \"text\"");
    CHAT_IS(&r.record[2].chat, "last\r");
    EXPECT(strcmp(r.record[0].id, "7") == 0 && strcmp(r.record[0].category, "k") == 0, "names");
    EXPECT(r.record[0].line == 2 && strcmp(r.record[1].id, "6") == 0, "lines");
    records_free(&r);
    r = good("prompt,completion\r\nq,a\r\nq2,\r\n");
    EXPECT(r.n == 1 && r.empty_replies == 1 && r.record[0].form == RECORD_CHAT, "answers");
    CHAT_IS(&r.record[0].chat, "q", "a");
    records_free(&r);
    bad("a,b\n1,2\n", 2, "expected one of");
    bad("goal,b\n1\n", 2, "expected 2 fields");
    bad("goal,b\n1,2\n1,2,\n", 3, "got 3");
    bad("goal,goal\n1,2\n", 1, "twice");
    bad("goal\n\"a\nb", 2, "closing quote before");
    bad("goal,b\n\"a\nb\"c,2\n", 3, "behind the closing quote");
    bad("goal,b\n\"a\"\r\"b,2\n", 2, "behind the closing quote");
    bad("id,goal\n1,a\xff\n", 2, "field 2, byte offset 1: expected valid UTF-8");
    bad("id,goal\n\"1\xe2\",\x81\x96\n", 2, "field 1, byte offset 1: expected valid UTF-8");
    bad("goal\n", 2, "at least one record");
}

static void test_bad_json(void) {
    bad("", 1, "at least one record");
    bad("\n\n", 3, "at least one record");
    bad("{\"text\":\"a\"}\n{\"text\":\"a\",}\n", 2, "on each line");
    bad("{\"text\":\"a\"}\n{\"text\":\"a\" \"b\"}\n", 2, "on each line");
    bad("{\"text\":\"a\",\"text\":\"b\"}\n", 1, "duplicate");
    bad("{\"text\":\"a\"} {\"text\":\"b\"}\n", 1, "on each line");
    bad("{\"text\":\"a\"}\n\n{\"text\":\"b\xc3(\"}\n", 3, "byte offset 10: expected valid UTF-8");
    bad("{\"text\":\"\\ud800\"}\n", 1, "on each line");
    bad("{\"x\":1}\n", 1, "expected one of");
    bad("{\"text\":7}\n", 1, "\"text\"");
    bad("{\"text\":\"a\"}\n7\n", 2, "on each line");
    bad("{\"tokens\":[]}\n", 1, "\"tokens\"");
    bad("{\"tokens\":\"1\"}\n", 1, "\"tokens\"");
    bad("{\"tokens\":[1,-1]}\n", 1, "\"tokens\"[1]");
    bad("{\"tokens\":[2147483648]}\n", 1, "\"tokens\"[0]");
    bad("{\"tokens\":[1.0]}\n", 1, "\"tokens\"[0]");
    bad("{\"text\":\"a\",\"id\":[]}\n", 1, "\"id\"");
    bad("{\"text\":\"a\",\"category\":1.5}\n", 1, "\"category\"");
}

static void test_bad_chats(void) {
    bad("{\"chosen\":\"\\n\\nHuman: a\\n\\nAssistant: b\"}\n", 1, "\"rejected\"");
    bad("{\"chosen\":\"a\",\"rejected\":\"b\"}\n", 1, "\"chosen\"");
    bad("{\"chosen\":\"\\n\\nAssistant: b\",\"rejected\":\"\"}\n", 1, "\"chosen\"");
    bad("{\"chosen\":[],\"rejected\":[]}\n", 1, "\"chosen\"");
    bad("{\"messages\":[]}\n", 1, "\"messages\"");
    bad("{\"messages\":\"a\"}\n", 1, "\"messages\"");
    bad("{\"messages\":[7]}\n", 1, "\"messages\"[0].role");
    bad("{\"messages\":[{\"role\":\"system\",\"content\":\"s\"}]}\n", 1, "no system role");
    bad("{\"messages\":[{\"role\":\"assistant\",\"content\":\"s\"}]}\n", 1, "[0].role");
    bad("{\"messages\":[{\"role\":\"user\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"s\"}"
        "]}\n",
        1, "\"messages\"[1].role");
    bad("{\"messages\":[{\"role\":\"user\",\"content\":[]}]}\n", 1, "\"messages\"[0].content");
    bad("{\"prompt\":\"\"}\n", 1, "\"prompt\"");
    bad("{\"prompt\":\" \\n\"}\n", 1, "\"prompt\"");
    bad("{\"prompt\":7}\n", 1, "\"prompt\"");
    bad("{\"prompt\":null,\"completion\":\"a\"}\n", 1, "\"prompt\"");
    bad("{\"prompt\":\"a\",\"completion\":7}\n", 1, "\"completion\"");
    bad("{\"prompt\":\"a\",\"completion\":[{\"role\":\"user\",\"content\":\"x\"}]}\n", 1,
        "\"completion\"[0].role");
}

/* A gzip file of `head` and `times` copies of the text, without its last `cut` bytes. Few copies
 * are stored, many are packed well. */
static const char *packed(const char *head, const char *text, size_t n, size_t times, size_t cut) {
    const char *path = test_path("data.gz");
    gzFile gz = gzopen(path, times > 100 ? "wb9" : "wb0");
    CHECK(gz && gzputs(gz, head) >= 0, "cannot write %s", path);
    for (size_t i = 0; i < times; i++)
        CHECK(gzwrite(gz, text, (unsigned)n) == (int)n, "cannot write %s", path);
    CHECK(gzclose(gz) == Z_OK, "cannot write %s", path);
    if (cut == 0) return path;
    Err err;
    char *bytes;
    size_t size;
    CHECK(files_read(&bytes, &size, path, 1 << 30, &err), "%s", err.text);
    CHECK(cut < size && files_write(path, bytes, size - cut, &err), "%s", err.text);
    free(bytes);
    return path;
}

static void test_packed(void) {
    static const char two[] = "{\"text\":\"a\"}\n{\"text\":\"b\"}\n";
    Records r;
    Err err;
    EXPECT(records_read(&r, packed("", two, strlen(two), 50000, 0), 0, &err), "%s", err.text);
    EXPECT(r.n == 100000 && r.record[99999].line == 100000, "%zu records", r.n);
    records_free(&r);
    EXPECT(records_read(&r, test_path("data.gz"), 3, &err) && r.n == 3, "a limit");
    records_free(&r);
    EXPECT_REFUSED(records_read(&r, packed("", two, strlen(two), 9, 4), 0, &err), err, EXIT_INPUT,
                   "ends too early");
    EXPECT_REFUSED(records_read(&r, packed("", two, strlen(two), 50000, 1500), 0, &err), err,
                   EXIT_INPUT, "ends too early");
    EXPECT_REFUSED(records_read(&r, "/no/such/file", 0, &err), err, EXIT_INPUT, "/no/such/file");
    EXPECT_REFUSED(records_read(&r, "/tmp", 0, &err), err, EXIT_INPUT, "/tmp: expected a file");
}

/* Small files that unpack to much: one endless line, one endless row, and nothing but empty lines.
 */
static void test_bombs(void) {
    enum { MB = 1 << 20 };
    char *block = mem_array(MB, 1);
    Records r;
    Err err;
    static const struct {
        char fill;
        const char *head, *say;
        size_t mb;
    } bomb[] = {{' ', "{", "at most 64 MB", 65},
                {'a', "goal\n\"", "at most 64 MB", 65},
                {',', "a,b\n", "at most 4096", 1},
                {'[', "[", "at most 64 MB", 65},
                {'\n', "", "times its size", 101}};
    for (size_t i = 0; i < sizeof bomb / sizeof *bomb; i++) {
        memset(block, bomb[i].fill, MB);
        EXPECT_REFUSED(records_read(&r, packed(bomb[i].head, block, MB, bomb[i].mb, 0), 0, &err),
                       err, EXIT_INPUT, bomb[i].say);
    }
    free(block);
}

int main(void) {
    test_forms();
    test_prompts();
    test_hh();
    test_list();
    test_csv();
    test_bad_json();
    test_bad_chats();
    test_packed();
    test_bombs();
    return test_done("test_records");
}
