/* The tokenizer against what the `tokenizers` library gives (tools/make_golden_tokenizer.py): ids
 * of hostile texts, decoding whole and one id at a time; and files that must be refused by name.
 * With SAILS_GEMMA_TOKENIZER=FILE also Gemma-2's own file, which is not part of this repository. */
#include "data/tokenizer.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "data/tokenizer_impl.h"
#include "tests/test.h"

static json_t *load(const char *path) {
    json_error_t e;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &e);
    CHECK(root, "%s:%d: %s", path, e.line, e.text);
    return root;
}

static Tokenizer *open_or_die(const char *path) {
    Tokenizer *t;
    Err err;
    CHECK(tokenizer_open(&t, path, &err), "%s", err.text);
    return t;
}

static int same_ids(const Ids *got, const json_t *want) {
    if (got->n != json_array_size(want)) return 0;
    for (size_t i = 0; i < got->n; i++)
        if (got->id[i] != json_integer_value(json_array_get(want, i))) return 0;
    return 1;
}

static void check_encode(Tokenizer *t, const json_t *row, size_t number) {
    const json_t *text = json_object_get(row, "text"), *ids = json_object_get(row, "ids");
    const char *s = json_string_value(text);
    size_t n = json_string_length(text);
    for (int again = 0; again < 2; again++) { /* the second time from the cache */
        Ids got = {0};
        Err err;
        bool ok = tokenizer_encode(t, s, n, &got, &err);
        EXPECT(ok, "case %zu: %s", number, err.text);
        EXPECT(same_ids(&got, ids), "case %zu, pass %d: '%.60s' gave other ids", number, again, s);
        if (got.n > 0) {
            got.id[got.n - 1]++;
            EXPECT(!same_ids(&got, ids), "a wrong id was not seen");
        }
        ids_free(&got);
    }
}

static int same_text(const char *got, size_t n, const json_t *want) {
    return n == json_string_length(want) && memcmp(got, json_string_value(want), n) == 0;
}

/* What is there of the text after every id must be valid UTF-8 and a prefix of the whole. */
static void check_decode(const Tokenizer *t, const json_t *row, size_t number, bool skip,
                         const json_t *want) {
    const json_t *ids = json_object_get(row, "ids");
    size_t n = json_array_size(ids), len;
    int32_t *id = mem_array(n, sizeof *id);
    for (size_t i = 0; i < n; i++) id[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    char *text = tokenizer_decode(t, id, n, skip, &len);
    EXPECT(same_text(text, len, want), "case %zu, skip %d: decoded '%.60s'", number, skip, text);
    DecodeStream d;
    Buf out = {0};
    decode_init(&d, t, skip);
    for (size_t i = 0; i < n; i++) {
        decode_next(&d, id[i], &out);
        EXPECT(out.n <= len && memcmp(out.p ? out.p : "", text, out.n) == 0 &&
                   (out.n == len || ((unsigned char)text[out.n] & 0xc0) != 0x80),
               "case %zu: after id %zu no prefix of whole characters", number, i);
    }
    decode_finish(&d, &out);
    EXPECT(out.n == len && memcmp(out.p ? out.p : "", text, len) == 0, "case %zu: streamed text",
           number);
    decode_free(&d);
    buf_free(&out);
    free(text), free(id);
}

static void check_cases(const char *tokenizer, const char *cases) {
    Tokenizer *t = open_or_die(tokenizer);
    json_t *root = load(cases), *row;
    size_t i, n = 0;
    static const char *const lists[] = {"encode", "decode"};
    for (int k = 0; k < 2; k++) {
        json_array_foreach (json_object_get(root, lists[k]), i, row) {
            const json_t *text = json_object_get(row, "text");
            const json_t *decoded = json_object_get(row, "decoded");
            const json_t *plain = json_object_get(row, "plain");
            if (text) check_encode(t, row, i);
            if (!decoded) decoded = text;
            check_decode(t, row, i, false, decoded);
            check_decode(t, row, i, true, plain ? plain : decoded);
            n++;
        }
    }
    printf("%s: %zu cases\n", tokenizer, n);
    json_decref(root);
    tokenizer_close(t);
}

static void test_pieces(void) {
    Tokenizer *t = open_or_die("tests/golden/tokenizer_small.json");
    size_t len = 0;
    EXPECT(tokenizer_id(t, "<bos>") == 2 && tokenizer_id(t, "<end_of_turn>") == 6, "ids");
    EXPECT(tokenizer_id(t, "no such piece") == -1 && tokenizer_id(t, "") == -1, "no such piece");
    EXPECT(strcmp(tokenizer_piece(t, 2, &len), "<bos>") == 0 && len == 5, "a piece");
    EXPECT(!tokenizer_piece(t, -1, &len) && !tokenizer_piece(t, tokenizer_vocab(t), &len),
           "pieces outside the vocabulary");
    for (int32_t id = 0; id < tokenizer_vocab(t); id++) {
        const char *piece = tokenizer_piece(t, id, &len);
        EXPECT(piece && tokenizer_id(t, piece) == id, "piece %d", id);
    }
    tokenizer_close(t);
}

static void test_bad_text(void) {
    static const struct {
        const char *text;
        size_t n, at;
    } bad[] = {{"ab\xff", 3, 2},           {"\xc3", 1, 0},
               {"x\xc0\x80", 3, 1},        {"abcdefgh\xed\xa0\x80", 11, 8},
               {"\xf4\x90\x80\x80", 4, 0}, {"\xe2\x96", 2, 0},
               {"\xe0\x9f\xbf", 3, 0},     {"\xf0\x8f\xbf\xbf", 4, 0},
               {"0123456\x80", 8, 7}};
    Tokenizer *t = open_or_die("tests/golden/tokenizer_small.json");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Ids ids = {0};
        Err err = {0};
        char place[40];
        snprintf(place, sizeof place, "byte offset %zu:", bad[i].at);
        bool ok = tokenizer_encode(t, bad[i].text, bad[i].n, &ids, &err);
        EXPECT(!ok && err.code == EXIT_INPUT && strncmp(err.text, place, strlen(place)) == 0,
               "text %zu: '%s'", i, err.text);
        ids_free(&ids);
    }
    tokenizer_close(t);
}

/* A change of tokenizer_small.json: the value at `key` of the object at `where` ("" is the root,
 * else "a.b") becomes `json`. The message must hold `say`. */
static void refused(const json_t *good, const char *where, const char *key, const char *json,
                    const char *say) {
    json_t *root = json_deep_copy(good), *object = root;
    char name[64];
    for (const char *s = where; *s;) {
        size_t n = strcspn(s, ".");
        snprintf(name, sizeof name, "%.*s", (int)n, s);
        object = json_is_array(object) ? json_array_get(object, (size_t)atoi(name))
                                       : json_object_get(object, name);
        s += n + (s[n] == '.');
    }
    CHECK(json_is_object(object), "no object %s", where);
    json_object_set_new(object, key, json_loads(json, JSON_DECODE_ANY, NULL));
    Tokenizer *t = NULL;
    Err err = {0};
    bool ok = tokenizer_load(&t, root, "small.json", &err);
    EXPECT(!ok && err.code == EXIT_INPUT, "accepted %s.%s = %s", where, key, json);
    EXPECT(strstr(err.text, say) && strncmp(err.text, "small.json: ", 12) == 0,
           "%s.%s = %s: expected '%s' in '%s'", where, key, json, say, err.text);
    if (ok) tokenizer_close(t);
    json_decref(root);
}

/* Where, key, what stands there then, and what is said of it. */
static const char *const REFUSED[][4] = {
    {"", "surprise", "1", "surprise"},
    {"", "model", "null", "model"},
    {"", "normalizer", "{\"type\":\"NFC\"}", "NFC"},
    {"", "normalizer", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]}",
     "Lowercase"},
    {"normalizer", "pattern", "{\"Regex\":\" +\"}", "no regular expression"},
    {"normalizer", "pattern", "{\"String\":\"\"}", "Replace"},
    {"", "pre_tokenizer", "{\"type\":\"Metaspace\"}", "Metaspace"},
    {"pre_tokenizer", "behavior", "\"Isolated\"", "MergedWithPrevious"},
    {"pre_tokenizer", "invert", "true", "not inverted"},
    {"", "decoder", "null", "decoder"},
    {"", "decoder", "{\"type\":\"Metaspace\"}", "Metaspace"},
    {"", "decoder",
     "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":"
     "\"ByteFallback\"}]}",
     "ByteFallback"},
    {"", "post_processor", "{\"type\":\"ByteLevel\"}", "ByteLevel"},
    {"", "post_processor",
     "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":"
     "\"A\"}},{\"SpecialToken\":{\"id\":\"<eos>\"}}]}",
     "post_processor"},
    {"", "post_processor",
     "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<bos>\"}},{"
     "\"SpecialToken\":{\"id\":\"<bos>\"}},{\"Sequence\":{\"id\":\"A\"}}]}",
     "post_processor"},
    {"", "added_tokens", "{}", "added_tokens"},
    {"added_tokens.0", "single_word", "true", "single_word"},
    {"added_tokens.0", "content", "\"\"", "content"},
    {"added_tokens.0", "content", "7", "content"},
    {"added_tokens.0", "content", "\"<new>\"", "<new>"},
    {"added_tokens.0", "id", "1", "<pad>"},
    {"added_tokens.0", "id", "-1", "added_tokens"},
    {"added_tokens.0", "id", "4294967298", "added_tokens"},
    {"model", "type", "\"Unigram\"", "Unigram"},
    {"model", "dropout", "0.1", "dropout"},
    {"model", "continuing_subword_prefix", "\"##\"", "continuing_subword_prefix"},
    {"model", "end_of_word_suffix", "\"</w>\"", "end_of_word_suffix"},
    {"model", "unk_token", "\"<nothing>\"", "<nothing>"},
    {"model", "vocab", "[]", "vocab"},
    {"model.vocab", "<pad>", "1", "two pieces"},
    {"model.vocab", "new", "4194304", "vocab"},
    {"model.vocab", "new", "-1", "vocab"},
    {"model.vocab", "new", "1e3", "vocab"},
    {"model.vocab", "new", "99999999999999", "vocab"},
    {"model", "merges", "{}", "merges"},
    {"model", "merges", "[\"a\"]", "merges[0]"},
    {"model", "merges", "[\"a b c\"]", "merges[0]"},
    {"model", "merges", "[[\"a\"]]", "merges[0]"},
    {"model", "merges", "[[\"a\",7]]", "merges[0]"},
    {"model", "merges", "[\"th q\"]", "merges[0]"},
};

static void test_refused(void) {
    json_t *good = load("tests/golden/tokenizer_small.json");
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++)
        refused(good, REFUSED[i][0], REFUSED[i][1], REFUSED[i][2], REFUSED[i][3]);
    json_decref(good);
    Tokenizer *t;
    Err err = {0};
    EXPECT(!tokenizer_open(&t, "tests/golden/no_such_file.json", &err) && err.code == EXIT_INPUT,
           "a file that is not there");
}

int main(void) {
    check_cases("tests/golden/tokenizer_small.json", "tests/golden/tokenizer_small_cases.json");
    check_cases("tests/golden/tokenizer_odd.json", "tests/golden/tokenizer_odd_cases.json");
    const char *gemma = getenv("SAILS_GEMMA_TOKENIZER");
    if (gemma)
        check_cases(gemma, "tests/golden/tokenizer_gemma_cases.json");
    else
        printf("Gemma-2's tokenizer: not tested, SAILS_GEMMA_TOKENIZER is not set\n");
    test_pieces();
    test_bad_text();
    test_refused();
    return test_done("test_tokenizer");
}
