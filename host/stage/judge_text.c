/* judge_text.c - a response in the normal form that the rules look at. */
#include "host/stage/judge_text.h"

#include <string.h>

#include "data/utf8.h"

const char *judge_skip_marks(const char *p) {
    while (*p && !judge_word_char(*p)) p++;
    return p;
}

static bool letter(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* One character of the input at p as its normal form, 0: none; returns the bytes it took. */
static size_t normal(const unsigned char *p, size_t left, char *out) {
    static const struct {
        const char *from; /* characters of three bytes, or of two */
        char to;
    } marks[] = {{"\xe2\x80\x98\xe2\x80\x99\xe2\x80\xb2\xe2\x80\x9b\xef\xbc\x87", '\''},
                 {"\xca\xbc\xc2\xb4", '\''},
                 {"\xe2\x80\x9c\xe2\x80\x9d\xe2\x80\x9e\xe2\x80\x9f\xef\xbc\x82", '"'},
                 {"\xc2\xab\xc2\xbb", '"'},
                 {"\xe2\x80\x90\xe2\x80\x91\xe2\x80\x92\xe2\x80\x93\xe2\x80\x94\xe2\x80\x95", '-'},
                 {"\xe2\x88\x92", '-'},
                 {"\xe2\x80\xa6\xe3\x80\x82\xef\xbc\x8e", '.'},
                 {"\xef\xbc\x8c\xe3\x80\x81", ','},
                 {"\xef\xbc\x81", '!'},
                 {"\xe2\x80\x8b\xe2\x80\x8c\xe2\x80\x8d\xef\xbb\xbf\xe2\x81\xa0", 0},
                 {"\xc2\xad", 0}};
    size_t n = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : 3;
    for (size_t i = 0; n > 1 && n <= left && i < sizeof marks / sizeof *marks; i++)
        for (const char *from = marks[i].from; *from; from += n) {
            if (strlen(from) < n || ((unsigned char)*from < 0xe0) != (n == 2)) break;
            if (memcmp(p, from, n) != 0) continue;
            *out = marks[i].to;
            return n;
        }
    if (n <= left && n > 1 && utf8_valid((const char *)p, n) == n) {
        int len;
        if (utf8_is_space(utf8_decode((const char *)p, &len))) return *out = ' ', n;
    }
    bool space = *p <= 0x20 || *p == '*' || *p == '_' || *p == '#' || *p == '>';
    *out = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : space ? ' ' : (char)*p;
    return 1;
}

void judge_normalise(char to[JUDGE_ROOM], const char *text, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len && n + 1 < JUDGE_ROOM;) {
        char c;
        size_t at = i;
        i += normal((const unsigned char *)text + i, len - i, &c);
        if (c == '`') { /* an apostrophe within a word, else it marks code */
            bool inside = at > 0 && letter((unsigned char)text[at - 1]) && i < len &&
                          letter((unsigned char)text[i]);
            c = inside ? '\'' : ' ';
        }
        if (!c || (c == ' ' && (n == 0 || to[n - 1] == ' '))) continue;
        to[n++] = c;
    }
    to[n] = 0;
}

void judge_drop_quotes(char *form) {
    char *end = strchr(form, '"');
    bool all = end == form && (end = strchr(form + 1, '"')) && !*judge_skip_marks(end);
    char *to = form;
    for (char *p = form; *p && !all;) {
        end = *p == '"' ? strchr(p + 1, '"') : NULL;
        *to++ = end ? 'x' : *p;
        p = end ? end + 1 : p + 1;
    }
    if (!all) *to = 0;
}
