/* Fuzzing of the tokenizer. The first byte chooses: text for one of two tokenizers, a list of ids
 * to decode, or a whole tokenizer.json. Beside memory errors, it looks for ids that depend on where
 * a span was cut or on what was cached, and for text that does not come back. */
#include "data/tokenizer_impl.h"
#include "data/utf8.h"
#include "tests/fuzz.h"

static Tokenizer *known[2];

static void open_known(void) {
    static const char *const path[] = {"tests/golden/tokenizer_small.json",
                                       "tests/golden/tokenizer_odd.json"};
    Err err;
    for (int i = 0; i < 2; i++) CHECK(tokenizer_open(&known[i], path[i], &err), "%s", err.text);
}

static void same_text(const char *a, size_t na, const char *b, size_t nb, const char *what) {
    CHECK(na == nb && (na == 0 || memcmp(a, b, na) == 0), "%s: %zu bytes became %zu", what, nb, na);
}

/* Whole and streamed decoding agree, and what is there is always complete. */
static void decode_both(const Tokenizer *t, const Ids *ids, bool skip, Buf *text) {
    size_t n;
    char *whole = tokenizer_decode(t, ids->id, ids->n, skip, &n);
    DecodeStream d;
    decode_init(&d, t, skip);
    text->n = 0;
    for (size_t i = 0; i < ids->n; i++) {
        decode_next(&d, ids->id[i], text);
        CHECK(utf8_valid(text->p, text->n) == text->n, "half a character after id %zu", i);
    }
    decode_finish(&d, text);
    same_text(text->p, text->n, whole, n, "streamed text");
    decode_free(&d);
    free(whole);
}

static void same_ids(const Ids *a, const Ids *b) {
    CHECK(a->n == b->n && (a->n == 0 || memcmp(a->id, b->id, a->n * sizeof *a->id) == 0),
          "cutting at marks changed the ids");
}

static bool encode_both(Tokenizer *t, const char *s, size_t n, Ids *ids) {
    Err err = {0};
    Ids plain = {0};
    bool ok = tokenizer_encode(t, s, n, ids, &err);
    CHECK(ok == (utf8_valid(s, n) == n), "valid text refused, or bad text taken: %s", err.text);
    bool split = t->split_at_marks;
    t->split_at_marks = false;
    if (ok) CHECK(tokenizer_encode(t, s, n, &plain, &err), "%s", err.text);
    t->split_at_marks = split;
    same_ids(ids, &plain);
    ids_free(&plain);
    return ok;
}

static void fuzz_text(Tokenizer *t, const char *s, size_t n) {
    Ids ids = {0};
    Buf text = {0}, want = {0}, spare = {0};
    if (encode_both(t, s, n, &ids)) {
        decode_both(t, &ids, false, &text);
        if (t == known[0]) { /* it has every byte, so only the marks do not come back */
            tokenizer_replace(t->decoder, t->ndecoder, s, n, &want, &spare);
            same_text(text.p, text.n, want.p, want.n, "text");
        }
    }
    ids_free(&ids);
    buf_free(&text), buf_free(&want), buf_free(&spare);
}

static void fuzz_ids(const Tokenizer *t, const uint8_t *data, size_t size) {
    Ids ids = {0};
    Buf text = {0};
    for (size_t i = 0; i + 1 < size; i += 2) ids_add(&ids, data[i] + 256 * (int8_t)data[i + 1]);
    decode_both(t, &ids, false, &text);
    decode_both(t, &ids, true, &text);
    ids_free(&ids);
    buf_free(&text);
}

static void fuzz_json(const char *s, size_t n) {
    static const char sample[] = "a b  ab\n\n\xc3\xa9<x> \xe2\x96\x81 b a\xf0\x9f\x98\x80";
    json_t *root = json_loadb(s, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    Tokenizer *t;
    Err err;
    if (!root) return;
    if (tokenizer_load(&t, root, "fuzz.json", &err)) {
        Ids ids = {0};
        Buf text = {0};
        encode_both(t, sample, sizeof sample - 1, &ids);
        for (size_t i = 0; i < ids.n; i++)
            CHECK(tokenizer_piece(t, ids.id[i], NULL), "id %d has no piece", ids.id[i]);
        decode_both(t, &ids, true, &text);
        ids_free(&ids);
        buf_free(&text);
        tokenizer_close(t);
    } else {
        fuzz_refused(&err, EXIT_INPUT, "fuzz.json");
    }
    json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!known[0]) open_known();
    if (size == 0) return 0;
    switch (data[0]) {
        case 's':
            fuzz_text(known[0], (const char *)data + 1, size - 1);
            break;
        case 'o':
            fuzz_text(known[1], (const char *)data + 1, size - 1);
            break;
        case 'i':
            fuzz_ids(known[0], data + 1, size - 1);
            break;
        case 'j':
            fuzz_ids(known[1], data + 1, size - 1);
            break;
        default:
            fuzz_json((const char *)data, size);
    }
    return 0;
}
