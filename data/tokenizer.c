/* tokenizer.c - text to ids: added tokens, normalisation, cutting, then each span's merges. */
#include "data/tokenizer.h"

#include "data/tokenizer_impl.h"
#include "data/utf8.h"

int tokenizer_vocab(const Tokenizer *t) {
    return t->npieces;
}

int32_t tokenizer_id(const Tokenizer *t, const char *piece) {
    size_t len = strlen(piece);
    for (int i = 0; i < t->nadded; i++)
        if (t->added[i].len == len && memcmp(t->added[i].content, piece, len) == 0)
            return t->added[i].id;
    return tokenizer_vocab_find(t, piece, len);
}

Tokenizer *tokenizer_ids_only(int vocab, int32_t bos, const char *why) {
    Tokenizer *t = mem_array(1, sizeof *t);
    t->no_text = mem_string(why);
    t->npieces = vocab;
    t->piece = mem_array((size_t)vocab, sizeof *t->piece);
    for (int i = 0; i < vocab; i++) t->piece[i].len = -1;
    tokenizer_vocab_init(t, 0);
    if (bos < 0) return t;
    t->added = mem_array(1, sizeof *t->added);
    t->added[0] = (Added){.id = bos, .content = mem_string("<bos>"), .len = strlen("<bos>")};
    t->nadded = 1;
    return t;
}

bool tokenizer_reads_text(const Tokenizer *t, Err *err) {
    return !t->no_text || err_set(err, EXIT_INPUT, "%s", t->no_text);
}

const char *tokenizer_piece(const Tokenizer *t, int32_t id, size_t *len) {
    if (id < 0 || id >= t->npieces || t->piece[id].len < 0) return NULL;
    if (len) *len = (size_t)t->piece[id].len;
    return t->pool.p + t->piece[id].at;
}

static void replace_one(const Replace *r, const char *s, size_t n, Buf *to) {
    to->n = 0;
    const char *end = s + n;
    while (s < end) {
        const char *hit = r->from_len == 1 ? memchr(s, r->from[0], (size_t)(end - s))
                                           : memmem(s, (size_t)(end - s), r->from, r->from_len);
        buf_add(to, s, (size_t)((hit ? hit : end) - s));
        if (!hit) return;
        buf_add(to, r->to, r->to_len);
        s = hit + r->from_len;
    }
}

void tokenizer_replace(const Replace *list, int n, const char *from, size_t len, Buf *to,
                       Buf *spare) {
    if (n == 0) {
        to->n = 0;
        buf_add(to, from, len);
        return;
    }
    replace_one(&list[0], from, len, to);
    for (int i = 1; i < n; i++) {
        Buf last = *to;
        *to = *spare, *spare = last;
        replace_one(&list[i], spare->p, spare->n, to);
    }
}

/* Calls span(text between tokens) and adds the tokens' ids, left to right. */
typedef void SpanFn(Tokenizer *t, const char *s, size_t n, Ids *out);

static size_t spaces_at_end(const char *s, size_t n) {
    size_t from = n;
    while (from > 0) {
        size_t last = from - 1;
        while (last > 0 && ((unsigned char)s[last] & 0xc0) == 0x80) last--;
        int len;
        if (!utf8_is_space(utf8_decode(s + last, &len))) break;
        from = last;
    }
    return from;
}

static size_t spaces_at_start(const char *s, size_t n) {
    size_t to = 0;
    int len;
    while (to < n && utf8_is_space(utf8_decode(s + to, &len))) to += (size_t)len;
    return to;
}

static void split_added(Tokenizer *t, const Trie *trie, const char *s, size_t n, SpanFn *span,
                        Ids *out) {
    size_t done = 0; /* everything before is in `out` */
    for (size_t i = 0; trie->n > 0 && i < n;) {
        size_t len = 0;
        int32_t token = -1;
        if (!trie->starts[(unsigned char)s[i]] ||
            (token = trie_longest(trie, s + i, n - i, &len)) < 0) {
            i++;
            continue;
        }
        const Added *a = &t->added[token];
        size_t from = i, to = i + len;
        i = to; /* the search goes on behind the token itself, whatever spaces it takes along */
        if (a->lstrip) from = spaces_at_end(s, from);
        if (a->rstrip) to += spaces_at_start(s + to, n - to);
        if (done < from) span(t, s + done, from - done, out);
        ids_add(out, a->id);
        done = to;
    }
    if (done < n) span(t, s + done, n - done, out);
}

static void cut_span(Tokenizer *t, const char *s, size_t n, Ids *out) {
    while (t->split && n > 0) {
        const char *hit = memmem(s, n, t->split, t->split_len);
        if (!hit) break;
        size_t len = (size_t)(hit - s) + t->split_len;
        tokenizer_bpe(t, s, len, out);
        s += len, n -= len;
    }
    if (n > 0) tokenizer_bpe(t, s, n, out);
}

static void normalize_span(Tokenizer *t, const char *s, size_t n, Ids *out) {
    tokenizer_replace(t->normalizer, t->nnormalizer, s, n, &t->text, &t->text2);
    split_added(t, &t->normalized, t->text.p, t->text.n, cut_span, out);
}

bool tokenizer_encode(Tokenizer *t, const char *text, size_t len, Ids *out, Err *err) {
    if (!tokenizer_reads_text(t, err)) return false;
    if (len > TOKENIZER_MAX_TEXT)
        return err_set(err, EXIT_INPUT, "text of %zu bytes: expected at most %d; split it", len,
                       TOKENIZER_MAX_TEXT);
    size_t valid = utf8_valid(text, len);
    if (valid < len)
        return err_set(err, EXIT_INPUT,
                       "byte offset %zu: expected valid UTF-8, got byte 0x%02x; convert the text",
                       valid, (unsigned char)text[valid]);
    split_added(t, &t->raw, text, len, normalize_span, out);
    return true;
}
