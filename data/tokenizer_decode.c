/* tokenizer_decode.c - ids to text, whole or one at a time. */
#include "data/tokenizer_impl.h"
#include "data/utf8.h"

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The byte that a piece <0xHH> stands for, -1: another piece. */
static int byte_of_piece(const char *s, size_t len) {
    if (len != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>') return -1;
    int high = s[3] == '+' ? 0 : hex_digit(s[3]), low = hex_digit(s[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* The bytes that wait leave as they are if they form valid UTF-8 together, else one U+FFFD each. */
static void flush_bytes(DecodeStream *d, Buf *out) {
    Buf *wait = &d->wait;
    if (wait->n == 0) return;
    if (utf8_valid(wait->p, wait->n) == wait->n)
        buf_add(out, wait->p, wait->n);
    else
        for (size_t i = 0; i < wait->n; i++) buf_add(out, "\xef\xbf\xbd", 3);
    wait->n = 0;
}

void decode_init(DecodeStream *d, const Tokenizer *t, bool skip_special) {
    *d = (DecodeStream){.t = t, .skip_special = skip_special};
}

void decode_next(DecodeStream *d, int32_t id, Buf *out) {
    const Tokenizer *t = d->t;
    size_t len;
    const char *s = tokenizer_piece(t, id, &len);
    if (!s || (d->skip_special && t->piece[id].special)) return;
    tokenizer_replace(t->decoder, t->ndecoder, s, len, &d->piece, &d->spare);
    int byte = t->decode_bytes ? byte_of_piece(d->piece.p, d->piece.n) : -1;
    if (byte >= 0) {
        buf_byte(&d->wait, (char)byte);
        return;
    }
    flush_bytes(d, out);
    buf_add(out, d->piece.p, d->piece.n);
}

void decode_finish(DecodeStream *d, Buf *out) {
    flush_bytes(d, out);
}

void decode_free(DecodeStream *d) {
    buf_free(&d->wait), buf_free(&d->piece), buf_free(&d->spare);
}

char *tokenizer_decode(const Tokenizer *t, const int32_t *id, size_t n, bool skip_special,
                       size_t *len) {
    DecodeStream d;
    Buf out = {0};
    decode_init(&d, t, skip_special);
    for (size_t i = 0; i < n; i++) decode_next(&d, id[i], &out);
    decode_finish(&d, &out);
    decode_free(&d);
    buf_add(&out, "", 0); /* a NUL even where nothing was added */
    if (len) *len = out.n;
    return out.p;
}
