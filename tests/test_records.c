/* Reading data files: every form, plain and packed, and one-line errors for what cannot be used. */
#include "data/records.h"

#include <zlib.h>

#include "data/base/mem.h"
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
        "{\"prompt\":\" p\",\"chosen\":[{\"role\":\"human\",\"content\":\"p "
        "\"},{\"role\":\"model\","
        "\"content\":\"good\"}],\"rejected\":\"bad\"}\n"
        "{\"prompt\":\"\\n\\nHuman: h\\n\\nAssistant:\",\"chosen\":\" yes\",\"rejected\":\" no\"}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"only asks\"}]}\n");
    EXPECT(r.n == 6, "%zu records", r.n);
    CHAT_IS(&r.record[0].chat, "p", "q");
    CHAT_IS(&r.record[1].chat, "p", "good");
    CHAT_IS(&r.record[1].rejected, "p", "bad");
    CHAT_IS(&r.record[2].chat, "p", "good");
    CHAT_IS(&r.record[2].rejected, "p", "bad");
    CHAT_IS(&r.record[3].chat, "p ", "good");
    CHAT_IS(&r.record[3].rejected, " p", "bad");
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
        "\n [ {\"goal\":\"a,]}\\\"[\"} ,\n{\"scores\":[1,[],{}]\n,\"is_safe\":3, \"text\":"
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
    bad("a,b\n1,2\n", 1, "expected one of");
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
                {',', "goal,b\n", "at most 4096", 1},
                {'[', "[", "at most 64 MB", 65},
                {'\n', "", "times its size", 101}};
    for (size_t i = 0; i < sizeof bomb / sizeof *bomb; i++) {
        memset(block, bomb[i].fill, MB);
        EXPECT_REFUSED(records_read(&r, packed(bomb[i].head, block, MB, bomb[i].mb, 0), 0, &err),
                       err, EXIT_INPUT, bomb[i].say);
    }
    free(block);
}

/* The table that --help prints: each of its examples is a record of its form. */
static void test_table(void) {
    for (const RecordHelp *h = record_forms; h->fields; h++) {
        Records r = good(h->example);
        if (r.n != 1) continue; /* good has said so */
        const Record *x = &r.record[0];
        EXPECT(x->form == h->form && !r.ignored, "%s: form %d", h->fields, x->form);
        if (x->form == RECORD_PAIR) CHAT_IS(&x->chat, "a", "b"), CHAT_IS(&x->rejected, "a", "c");
        if (x->form == RECORD_CHAT) CHAT_IS(&x->chat, "a", "b");
        if (x->form == RECORD_PROMPT) CHAT_IS(&x->chat, "a");
        records_free(&r);
    }
}

/* The forms in which data sets are published. */
static void test_published(void) {
    Records r = good(
        "{\"instruction\":\"Say it in Latin.\",\"input\":\"good night\",\"output\":\"bonam "
        "noctem\","
        "\"text\":\"### Instruction: Say ..\"}\n"
        "{\"instruction\":\"Name a river.\",\"input\":\" \",\"output\":\"Rhine\",\"system\":\"\","
        "\"history\":[[\"Hi\",\"Hello\"],[\"Well?\",\"Yes\"]]}\n"
        "{\"instruction\":\"Who?\",\"context\":\"Ann "
        "came.\",\"response\":\"Ann\",\"category\":\"qa\"}\n"
        "{\"id\":\"x\",\"conversations\":[{\"from\":\"system\",\"value\":\"\"},{\"from\":\"human\","
        "\"value\":\"h\"},{\"from\":\"gpt\",\"value\":\"g\"}]}\n"
        "{\"prompt\":\"p\",\"response\":\"r\"}\n{\"prompt\":\"p\",\"output\":\"o\"}\n"
        "{\"prompt\":\"p\",\"prompt_id\":\"8\",\"messages\":[{\"role\":\"user\",\"content\":\"p\"},"
        "{\"role\":\"assistant\",\"content\":\"m\"}]}\n"
        "{\"Index\":0,\"Goal\":\"g\",\"Target\":\"Sure\",\"Behavior\":\"b\",\"Category\":\"c\","
        "\"Source\":\"s\"}\n");
    EXPECT(r.n == 8 && !r.ignored, "%zu records, ignored %s", r.n, r.ignored ? r.ignored : "-");
    if (r.n == 8) {
        CHAT_IS(&r.record[0].chat, "Say it in Latin.\ngood night", "bonam noctem");
        CHAT_IS(&r.record[1].chat, "Hi", "Hello", "Well?", "Yes", "Name a river.", "Rhine");
        CHAT_IS(&r.record[2].chat, "Who?\nAnn came.", "Ann");
        CHAT_IS(&r.record[3].chat, "h", "g");
        CHAT_IS(&r.record[4].chat, "p", "r");
        CHAT_IS(&r.record[5].chat, "p", "o");
        CHAT_IS(&r.record[6].chat, "p", "m");
        CHAT_IS(&r.record[7].chat, "g");
        EXPECT(strcmp(r.record[7].category, "c") == 0, "category %s", r.record[7].category);
    }
    records_free(&r);
    r = good("PROMPT,Response,output\nq,a,\nq,,b\n");
    EXPECT(r.n == 2, "%zu rows", r.n);
    CHAT_IS(&r.record[0].chat, "q", "a");
    CHAT_IS(&r.record[1].chat, "q", "b");
    records_free(&r);
}

#define TWO "{\"prompt\":\"p\",\"response_0\":\"zero\",\"response_1\":\"one\","

static void test_two_responses(void) {
    Records r = good(TWO "\"better_response_id\":0,\"safer_response_id\":1}\n" TWO
                         "\"better_response_id\":0}\n" TWO
                         "\"is_response_0_safe\":false,\"is_response_1_safe\":true}\n" TWO
                         "\"safer_response_id\":1,\"is_response_1_safe\":false,"
                         "\"is_response_0_safe\":false,\"response_0_source\":\"m\"}\n");
    EXPECT(r.n == 3 && r.unsafe_pairs == 1, "%zu records, %zu unsafe", r.n, r.unsafe_pairs);
    CHAT_IS(&r.record[0].chat, "p", "one");
    CHAT_IS(&r.record[0].rejected, "p", "zero");
    CHAT_IS(&r.record[1].chat, "p", "zero");
    CHAT_IS(&r.record[2].chat, "p", "one");
    EXPECT(r.ignored && strcmp(r.ignored, "response_0_source") == 0, "ignored %s", r.ignored);
    records_free(&r);
    r = good(
        "prompt,response_0,response_1,is_response_0_safe,is_response_1_safe\np,a,b,True,False\n");
    CHAT_IS(&r.record[0].chat, "p", "a");
    records_free(&r);
    bad(TWO "\"safer_response_id\":2}", 1, "\"safer_response_id\": expected 0 or 1");
    bad(TWO "\"is_response_0_safe\":true,\"is_response_1_safe\":true}", 1, "which reply is chosen");
    bad("{\"prompt\":\"p\",\"response_0\":\"a\",\"safer_response_id\":0}", 1, "\"response_1\"");
}

/* Nothing that the model would have to see is dropped, and nothing else is in the way. */
static void test_fields(void) {
    static const char *const content[] = {"context", "input", "document", "question", "history",
                                          "suffix",  "tools", "images",   "text",     "tokens"};
    char line[200];
    for (size_t i = 0; i < sizeof content / sizeof *content; i++) {
        snprintf(line, sizeof line, "{\"prompt\":\"p\",\"%s\":[7]}", content[i]);
        char say[64];
        snprintf(say, sizeof say, "\"%s\"", content[i]);
        bad(line, 1, say);
        snprintf(line, sizeof line, "{\"prompt\":\"p\",\"%s\":%s}", content[i],
                 i % 2 ? "null" : "\" \"");
        Records r = good(line);
        CHAT_IS(&r.record[0].chat, "p");
        EXPECT(!r.ignored, "ignored %s", r.ignored);
        records_free(&r);
    }
    bad("{\"system\":\"s\",\"prompt\":\"p\"}", 1,
        "\"system\": Gemma has no system role; put its text");
    bad("{\"conversations\":[{\"from\":\"system\",\"value\":\"s\"}]}", 1, "put its text in front");
    bad("{\"prompt\":\"p\",\"response\":\"a\",\"output\":\"b\"}", 1, "\"output\": ");
    bad("{\"instruction\":\"p\",\"input\":\"a\",\"context\":\"b\"}", 1, "\"context\": ");
    bad("{\"instruction\":\"p\",\"input\":7}", 1, "\"input\": expected a string");
    bad("{\"instruction\":\"p\",\"history\":[[\"a\"]]}", 1, "\"history\"[0]: expected [user");
    bad("{\"prompt\":\"p\",\"Prompt\":\"q\"}", 1, "in another case");
    bad("{\"prompt\":\"q\",\"messages\":[{\"role\":\"user\",\"content\":\"p\"}]}", 1,
        "differs from");
    bad("{\"messages\":[{\"role\":\"user\",\"content\":\"p\",\"tool_calls\":[1]}]}", 1,
        "\"tool_calls\"");
    bad("{\"messages\":[{\"role\":\"tool\",\"content\":\"p\"}]}", 1, "got \"tool\"");
    Records r = good(
        "{\"prompt\":\"p\",\"id\":{},\"category\":{\"a\":true},\"upvotes\":3,\"mood\":\"x\"}\n"
        "{\"prompt\":\"p\",\"id\":1.5,\"category\":2,\"votes\":[],\"up\":1,\"mood\":1}\n");
    EXPECT(strcmp(r.record[0].id, "1") == 0 && strcmp(r.record[0].category, "") == 0, "names");
    EXPECT(strcmp(r.record[1].id, "1.5") == 0 && strcmp(r.record[1].category, "2") == 0, "numbers");
    EXPECT(r.ignored && strcmp(r.ignored, "upvotes, mood, up") == 0, "ignored %s", r.ignored);
    records_free(&r);
}

/* Text that a template has rendered already is not rendered again. */
static void test_rendered(void) {
    Records r = good(
        "{\"prompt\":\"\\n\\nHuman: a\\n\\nAssistant:\",\"chosen\":\"\\n\\nHuman: "
        "a\\n\\nAssistant: b\","
        "\"rejected\":\" Human: a\\n\\nAssistant: c\"}\n"
        "{\"prompt\":\"Human: a\\n\\nAssistant: b\\n\\nHuman: "
        "c\\n\\nAssistant:\",\"completion\":\"d\"}\n"
        "{\"prompt\":\"Human: a word\",\"completion\":\"So:\\n\\nHuman: b\"}\n");
    EXPECT(r.n == 3 && r.marked_replies == 1, "%zu records, %zu marked", r.n, r.marked_replies);
    CHAT_IS(&r.record[0].chat, "a", "b");
    CHAT_IS(&r.record[0].rejected, "a", "c");
    CHAT_IS(&r.record[1].chat, "a", "b", "c", "d");
    CHAT_IS(&r.record[2].chat, "Human: a word", "So:\n\nHuman: b");
    records_free(&r);
    bad("{\"prompt\":\"x\",\"chosen\":\"\\n\\nHuman: a\\n\\nAssistant: b\",\"rejected\":\"c\"}", 1,
        "\"prompt\": differs from");
    bad("{\"prompt\":\"a\",\"completion\":\"\\n\\nHuman: a\\n\\nAssistant: b\"}", 1,
        "\"completion\": \"Human:\" says that it is rendered");
    bad("{\"prompt\":\"a\",\"response\":\"Assistant: b\"}", 1, "give the assistant's text alone");
    bad("{\"messages\":[{\"role\":\"user\",\"content\":\"Human: a\\n\\nAssistant:\"}]}", 1,
        "\"messages\"[0].content: \"Human:\"");
    bad("{\"prompt\":\"<|im_start|>user\\nHi\"}", 1, "give the user's text alone");
    bad("{\"prompt\":\"Below is ..\\n### Response:\\n\",\"completion\":\"a\"}", 1, "### Response:");
    bad("{\"prompt\":\"a\",\"completion\":\"b<|im_end|>\"}", 1, "<|im_end|>");
}

static void bad_bytes(const char *bytes, size_t n, const char *say) {
    Records r;
    Err err = {0};
    char text[1024] = {0};
    memcpy(text, bytes, n);
    EXPECT_REFUSED(records_read(&r, test_file("data", text, 300), 0, &err), err, EXIT_INPUT, say);
}

/* What is no text of records says how to make it one. */
static void test_other_kinds(void) {
    bad("goal,target\rhello,ok\rfoo,bar\r", 1, "found CR alone; convert the file: tr ");
    bad("{\"text\":\"a\"}\r{\"text\":\"b\"}\r", 1, "found CR alone");
    bad("Once there was a king, and\nhe had a son.\n", 1, "Plain text is made prompts");
    bad("{\n  \"text\": \"a\"\n}\n", 1, "jq -c . FILE");
    bad("{\"data\":[{\"prompt\":\"a\"}]}\n", 1, "\"data\": expected records, not a list of them");
    bad_bytes("PAR1\x15", 5, "this is Parquet; convert it: ");
    bad_bytes("ARROW1\0\0", 8, "this is Arrow; convert it: ");
    bad_bytes("\x28\xb5\x2f\xfd", 4, "this is zstd; convert it: zstd -d");
    bad_bytes("PK\3\4", 4, "a zip archive; convert it: unzip");
    bad_bytes("\xff\xfe{\0", 4, "UTF-16; convert it: iconv");
}

int main(void) {
    test_table();
    test_published();
    test_two_responses();
    test_fields();
    test_rendered();
    test_other_kinds();
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
