/* Documents from records: the template's ids, label and reply masks, cuts and what is refused.
 * Expected documents are written as text, one part of it for each group of tokens, or come from
 * transformers and TRL (tools/make_golden_tokenizer.py). */
#include "data/chat.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "data/utf8.h"
#include "tests/test.h"

static Tokenizer *tok;

/* Builds the expected document: each part of text with the mask of its tokens. */
enum Mask { PROMPT, REPLY, CLOSING };

static void expect_part(Doc *doc, const char *text, enum Mask mask) {
    Ids ids = {0};
    Err err;
    CHECK(tokenizer_encode(tok, text, strlen(text), &ids, &err), "%s", err.text);
    size_t n = (size_t)doc->n + ids.n;
    doc->token = realloc(doc->token, (n + 1) * sizeof *doc->token);
    doc->label = realloc(doc->label, n + 1);
    doc->reply = realloc(doc->reply, n + 1);
    for (size_t i = 0; i < ids.n; i++) {
        doc->token[doc->n] = ids.id[i];
        doc->label[doc->n] = mask != PROMPT;
        doc->reply[doc->n++] = mask == REPLY;
    }
    ids_free(&ids);
}

static int same_doc(const Doc *got, const Doc *want) {
    size_t n = (size_t)want->n;
    return got->n == want->n && memcmp(got->token, want->token, n * sizeof *got->token) == 0 &&
           memcmp(got->label, want->label, n) == 0 && memcmp(got->reply, want->reply, n) == 0;
}

static Turn turn(enum Role role, const char *text) {
    return (Turn){.role = role, .text = (char *)text, .len = strlen(text)};
}

static void check_doc(const char *what, const Doc *got, Doc *want, int prompt) {
    EXPECT(same_doc(got, want), "%s: got %d tokens, expected %d", what, got->n, want->n);
    EXPECT(got->prompt == prompt, "%s: prompt %d, expected %d", what, got->prompt, prompt);
    for (int i = 0; i < want->n; i += 3) { /* each mask and token counts */
        want->label[i] ^= 1;
        EXPECT(!same_doc(got, want), "%s: a wrong label was not seen", what);
        want->label[i] ^= 1, want->reply[i] ^= 1;
        EXPECT(!same_doc(got, want), "%s: a wrong reply mark was not seen", what);
        want->reply[i] ^= 1;
    }
    doc_free(want);
}

static void test_train(void) {
    Turn turns[] = {turn(ROLE_USER, " \n Is it safe?\t"), turn(ROLE_MODEL, "\u00a0No.\u2003\x1f"),
                    turn(ROLE_USER, "Why  not"), turn(ROLE_MODEL, "\n\nIt sinks.\n\nOften. ")};
    Chat chat = {turns, 4};
    Doc doc, want = {0};
    Err err;
    EXPECT(chat_render(&doc, tok, &chat, false, 0, &err), "%s", err.text);
    expect_part(&want, "<bos>", PROMPT);
    expect_part(&want, "<start_of_turn>user\nIs it safe?<end_of_turn>\n", PROMPT);
    expect_part(&want, "<start_of_turn>model\nNo.<end_of_turn>\n", PROMPT);
    expect_part(&want, "<start_of_turn>user\nWhy  not<end_of_turn>\n", PROMPT);
    expect_part(&want, "<start_of_turn>model\n", PROMPT);
    int prompt = want.n;
    expect_part(&want, "It sinks.\n\nOften.", REPLY);
    expect_part(&want, "<end_of_turn>\n", CLOSING);
    EXPECT(!doc.truncated, "nothing was cut");
    check_doc("train", &doc, &want, prompt);
    doc_free(&doc);
}

/* Ids and labels of one conversation against apply_chat_template and TRL's training template. */
static void check_golden(const json_t *row, size_t number) {
    const json_t *turns = json_object_get(row, "turns"), *ids = json_object_get(row, "ids");
    const json_t *labels = json_object_get(row, "labels");
    Turn turn_of[8];
    Chat chat = {turn_of, (int)json_array_size(turns)};
    for (int i = 0; i < chat.n; i++) {
        const json_t *text = json_array_get(turns, (size_t)i);
        turn_of[i] = (Turn){i % 2 ? ROLE_MODEL : ROLE_USER, (char *)json_string_value(text),
                            json_string_length(text)};
    }
    Doc doc;
    Err err;
    bool ok = chat_render(&doc, tok, &chat, false, 0, &err);
    EXPECT(ok, "case %zu: %s", number, err.text);
    if (!ok) return;
    int n = (int)json_array_size(ids), same = doc.n == n;
    for (int i = 0; same && i < n; i++) {
        bool label = json_integer_value(json_array_get(labels, (size_t)i)) != 0;
        same = doc.token[i] == json_integer_value(json_array_get(ids, (size_t)i)) &&
               doc.label[i] == label && doc.reply[i] == (label && i < n - 2);
    }
    EXPECT(same, "case %zu: other ids, labels or reply tokens", number);
    EXPECT(doc.prompt == json_integer_value(json_object_get(row, "prompt")), "case %zu", number);
    doc_free(&doc);
}

static void test_golden(void) {
    json_error_t e;
    json_t *root = json_load_file("tests/golden/chat_cases.json", JSON_ALLOW_NUL, &e), *row;
    CHECK(root, "chat_cases.json:%d: %s", e.line, e.text);
    size_t i;
    json_array_foreach (json_object_get(root, "encode"), i, row) check_golden(row, i);
    EXPECT(i > 50, "only %zu cases", i);
    json_decref(root);
}

static void test_generate(void) {
    Turn turns[] = {turn(ROLE_USER, "Hello"), turn(ROLE_MODEL, "Good day")};
    for (int n = 1; n <= 2; n++) { /* an answer that is there is left out */
        Chat chat = {turns, n};
        Doc doc, want = {0};
        Err err;
        EXPECT(chat_render(&doc, tok, &chat, true, 0, &err), "%s", err.text);
        expect_part(&want, "<bos><start_of_turn>user\nHello<end_of_turn>\n", PROMPT);
        expect_part(&want, "<start_of_turn>model\n", PROMPT);
        int n_want = want.n;
        check_doc("generate", &doc, &want, n_want);
        doc_free(&doc);
        EXPECT(!chat_render(&doc, tok, &chat, true, n_want - 1, &err), "a prompt too long");
        EXPECT(strstr(err.text, "prompt of"), "%s", err.text);
    }
}

static void test_cut(void) {
    Turn turns[] = {turn(ROLE_USER, "Hello"), turn(ROLE_MODEL, "one two three four")};
    Chat chat = {turns, 2};
    Doc whole, doc;
    Err err;
    EXPECT(chat_render(&whole, tok, &chat, false, 0, &err), "%s", err.text);
    for (int max = 1; max <= whole.n + 1; max++) {
        EXPECT(chat_render(&doc, tok, &chat, false, max, &err), "%s", err.text);
        int n = max < whole.n ? max : whole.n;
        EXPECT(doc.n == n && doc.truncated == (max < whole.n), "cut at %d", max);
        EXPECT(doc.prompt == (whole.prompt < n ? whole.prompt : n), "cut at %d", max);
        size_t bytes = (size_t)n;
        EXPECT(memcmp(doc.token, whole.token, bytes * sizeof *doc.token) == 0 &&
                   memcmp(doc.label, whole.label, bytes) == 0 &&
                   memcmp(doc.reply, whole.reply, bytes) == 0,
               "cut at %d", max);
        doc_free(&doc);
    }
    doc_free(&whole);
}

static void refused(Chat chat, const char *say) {
    Doc doc;
    Err err = {0};
    EXPECT(!chat_render(&doc, tok, &chat, false, 0, &err) && err.code == EXIT_INPUT, "%s", say);
    EXPECT(strstr(err.text, say), "expected '%s' in '%s'", say, err.text);
}

static void test_refused(void) {
    Turn hello = turn(ROLE_USER, "Hello"), fine = turn(ROLE_MODEL, "Fine");
    refused((Chat){0}, "no turn");
    refused((Chat){(Turn[]){hello}, 1}, "model's turn");
    refused((Chat){(Turn[]){fine, hello}, 2}, "turn 1");
    refused((Chat){(Turn[]){hello, hello}, 2}, "turn 2");
    refused((Chat){(Turn[]){hello, turn(ROLE_MODEL, "a <bos> b")}, 2}, "double BOS");
    refused((Chat){(Turn[]){turn(ROLE_USER, "<bos>"), fine}, 2}, "double BOS");
    refused((Chat){(Turn[]){hello, turn(ROLE_MODEL, "ok \xe2\x80")}, 2}, "byte offset 3");
    /* rendered before */
    refused((Chat){(Turn[]){hello, turn(ROLE_MODEL, "Fine<end_of_turn>")}, 2}, "<end_of_turn>");
    refused((Chat){(Turn[]){hello, turn(ROLE_MODEL, "Fine<eos>")}, 2}, "holds <eos>");
    refused((Chat){(Turn[]){turn(ROLE_USER, "<start_of_turn>user\nHello"), fine}, 2},
            "holds <start_of_turn>");
    refused((Chat){(Turn[]){hello, turn(ROLE_MODEL, "a<end_of_turn>"), hello, fine}, 4},
            "not rendered yet");
}

/* Ids without a tokenizer: token records are documents, text says why it cannot be one. */
static void test_ids_only(void) {
    Tokenizer *real = tok;
    Turn turns[] = {turn(ROLE_USER, "Hello"), turn(ROLE_MODEL, "Fine")};
    Chat chat = {turns, 2};
    int32_t ids[] = {2, 40, 49};
    Record r = {.form = RECORD_TOKENS, .line = 3, .token = ids, .ntoken = 3};
    Record text = {.form = RECORD_TEXT, .line = 4, .text = "a", .text_len = 1};
    Doc doc;
    Err err;
    tok = tokenizer_ids_only(50, 2, "no tokenizer here");
    EXPECT(tokenizer_vocab(tok) == 50 && tokenizer_id(tok, "<bos>") == 2, "ids");
    EXPECT(tokenizer_id(tok, "<eos>") == -1 && !tokenizer_piece(tok, 40, NULL), "pieces");
    EXPECT(doc_from_record(&doc, tok, &r, 0, &err), "%s", err.text);
    EXPECT(doc.n == 3 && doc.token[2] == 49, "tokens");
    doc_free(&doc);
    ids[2] = 50;
    EXPECT(!doc_from_record(&doc, tok, &r, 0, &err) && strstr(err.text, "from 0 to 49"), "range");
    ids[1] = 2;
    EXPECT(!doc_from_record(&doc, tok, &r, 0, &err) && strstr(err.text, "double BOS"), "BOS");
    refused(chat, "no tokenizer here");
    EXPECT(!doc_from_record(&doc, tok, &text, 0, &err) && err.code == EXIT_INPUT &&
               strcmp(err.text, "line 4: no tokenizer here") == 0,
           "%s", err.text);
    tokenizer_close(tok);
    tok = real;
}

static void test_text(void) {
    Record r = {.form = RECORD_TEXT, .line = 7, .text = "Every token.", .text_len = 12};
    Doc doc, want = {0};
    Err err;
    EXPECT(doc_from_record(&doc, tok, &r, 0, &err), "%s", err.text);
    expect_part(&want, "<bos>", PROMPT);
    expect_part(&want, "Every token.", REPLY);
    check_doc("text", &doc, &want, 1);
    EXPECT(doc.record == &r, "the record");
    doc_free(&doc);
    r.text = "<bos>Every", r.text_len = 10;
    EXPECT(!doc_from_record(&doc, tok, &r, 0, &err), "a double BOS");
    EXPECT(strncmp(err.text, "line 7: ", 8) == 0 && strstr(err.text, "double BOS"), "%s", err.text);
}

static void test_tokens(void) {
    int32_t ids[] = {2, 40, 41, 2};
    Record r = {.form = RECORD_TOKENS, .line = 9, .token = ids, .ntoken = 4};
    Doc doc;
    Err err;
    EXPECT(doc_from_record(&doc, tok, &r, 3, &err), "%s", err.text);
    EXPECT(doc.n == 3 && doc.truncated && doc.token[2] == 41, "tokens");
    EXPECT(!doc.label[0] && doc.label[1] && doc.reply[2] && doc.prompt == 1, "labels of tokens");
    doc_free(&doc);
    r.label = (uint8_t[]){1, 0, 1, 0};
    EXPECT(doc_from_record(&doc, tok, &r, 0, &err), "%s", err.text);
    EXPECT(!doc.label[0] && !doc.label[1] && doc.label[2] && !doc.label[3] && doc.prompt == 2 &&
               doc.reply[2] && !doc.reply[3],
           "labels that the record gives");
    doc_free(&doc);
    r.label = NULL;
    static const struct {
        int32_t first, second;
        const char *say;
    } bad[] = {{2, 2, "double BOS"}, {2, -1, "[1]"}, {2, 1 << 21, "[1]"}};
    for (size_t i = 0; i < 3; i++) {
        ids[0] = bad[i].first, ids[1] = bad[i].second;
        EXPECT(!doc_from_record(&doc, tok, &r, 0, &err), "%s", bad[i].say);
        EXPECT(strncmp(err.text, "line 9: ", 8) == 0 && strstr(err.text, bad[i].say), "%s",
               err.text);
    }
}

static void check_pair(const char *prompt, const char *chosen, const char *rejected,
                       const char *rejected_prompt, int max_length) {
    Turn a[] = {turn(ROLE_USER, prompt), turn(ROLE_MODEL, chosen)};
    Turn b[] = {turn(ROLE_USER, rejected_prompt ? rejected_prompt : prompt),
                turn(ROLE_MODEL, rejected)};
    Record r = {.form = RECORD_PAIR, .line = 1, .chat = {a, 2}, .rejected = {b, 2}};
    Doc c, d;
    Err err;
    int shared = -1;
    EXPECT(doc_pair(&c, &d, &shared, tok, &r, max_length, &err), "%s", err.text);
    EXPECT(shared >= 1 && shared < c.n && shared < d.n, "shared %d of %d, %d", shared, c.n, d.n);
    EXPECT(memcmp(c.token, d.token, (size_t)shared * sizeof *c.token) == 0, "shared tokens differ");
    for (int i = 0; i < shared; i++)
        EXPECT(!c.reply[i] && !d.reply[i] && !c.label[i] && !d.label[i], "token %d is scored", i);
    if (!rejected_prompt && max_length == 0)
        EXPECT(shared == c.prompt && shared == d.prompt, "shared %d of prompt %d", shared,
               c.prompt);
    if (rejected_prompt)
        EXPECT(c.token[shared] != d.token[shared], "more than %d tokens are shared", shared);
    doc_free(&c), doc_free(&d);
}

static void test_pair(void) {
    check_pair("Can I?", "No, sorry.", "No, never.", NULL, 0); /* the replies begin alike */
    check_pair("Can I?", "No", "No", NULL, 0);
    check_pair("Can I?", "No", "Yes", "Can you?", 0);
    check_pair("Can I?", "No, sorry.", "Yes", NULL, 5); /* cut within the prompt: all is shared */
    check_pair("Can I?", "No, sorry.", "No, sorry, no.", NULL, 12);
}

static void test_label_all(void) {
    Turn turns[] = {turn(ROLE_USER, "Hello"), turn(ROLE_MODEL, "Fine")};
    Chat chat = {turns, 2};
    Doc doc;
    Err err;
    EXPECT(chat_render(&doc, tok, &chat, false, 0, &err), "%s", err.text);
    doc_label_all(&doc);
    EXPECT(!doc.label[0] && doc.prompt == 1, "BOS is no target");
    for (int i = 1; i < doc.n; i++) EXPECT(doc.label[i], "token %d", i);
    doc_free(&doc);
}

/* Every character of Unicode against Python's str.isspace, which str.strip uses. */
static void test_trim(void) {
    static const uint32_t spaces[] = {
        0x09,   0x0a,   0x0b,   0x0c,   0x0d,   0x1c,   0x1d,   0x1e,   0x1f,   0x20,
        0x85,   0xa0,   0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006,
        0x2007, 0x2008, 0x2009, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000};
    size_t k = 0, nspaces = sizeof spaces / sizeof *spaces;
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xd800 && c < 0xe000) continue;
        char s[12];
        int len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        for (int i = len - 1, rest = (int)c; i >= 0; i--, rest >>= 6)
            s[i] = (char)(i ? 0x80 | (rest & 0x3f) : rest | (len == 1 ? 0 : 0xf00 >> len));
        s[len] = 'x';
        memcpy(s + len + 1, s, (size_t)len);
        size_t n = 2 * (size_t)len + 1;
        const char *t = utf8_trim(s, &n);
        bool space = k < nspaces && spaces[k] == c;
        k += space;
        EXPECT(n == (space ? 1 : 2 * (size_t)len + 1) && t == s + (space ? len : 0), "U+%04X",
               (unsigned)c);
        EXPECT(utf8_valid(s, 2 * (size_t)len + 1) == 2 * (size_t)len + 1, "U+%04X", (unsigned)c);
    }
    EXPECT(k == nspaces, "only %zu spaces", k);
}

int main(void) {
    Err err;
    CHECK(tokenizer_open(&tok, "tests/golden/tokenizer_small.json", &err), "%s", err.text);
    test_train();
    test_golden();
    test_generate();
    test_cut();
    test_refused();
    test_ids_only();
    test_text();
    test_tokens();
    test_pair();
    test_label_all();
    test_trim();
    tokenizer_close(tok);
    return test_done("test_chat");
}
