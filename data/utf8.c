/* utf8.c - one code point at a time. */
#include "data/utf8.h"

#include <string.h>

/* Bytes of the valid character at s, 0 if there is none. */
static int valid_char(const unsigned char *s, size_t n) {
    unsigned char c = s[0];
    if (c < 0x80) return 1;
    int len = c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (len == 0 || (size_t)len > n) return 0;
    for (int i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (c == 0xe0 && s[1] < 0xa0) return 0; /* overlong */
    if (c == 0xed && s[1] > 0x9f) return 0; /* surrogate */
    if (c == 0xf0 && s[1] < 0x90) return 0; /* overlong */
    if (c == 0xf4 && s[1] > 0x8f) return 0; /* above U+10FFFF */
    return len;
}

size_t utf8_valid(const char *s, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t w;
        if (i + 8 <= n && (memcpy(&w, s + i, 8), (w & 0x8080808080808080u) == 0)) {
            i += 8; /* eight characters of ASCII */
            continue;
        }
        int len = valid_char((const unsigned char *)s + i, n - i);
        if (len == 0) return i;
        i += (size_t)len;
    }
    return n;
}

uint32_t utf8_decode(const char *s, int *len) {
    const unsigned char *u = (const unsigned char *)s;
    *len = utf8_len(s[0]);
    switch (*len) {
        case 1:
            return u[0];
        case 2:
            return (u[0] & 0x1fu) << 6 | (u[1] & 0x3fu);
        case 3:
            return (u[0] & 0x0fu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu);
        default:
            return (u[0] & 0x07u) << 18 | (u[1] & 0x3fu) << 12 | (u[2] & 0x3fu) << 6 |
                   (u[3] & 0x3fu);
    }
}

bool utf8_is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

static bool python_space(uint32_t c) {
    return utf8_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

const char *utf8_trim(const char *s, size_t *n) {
    const char *end = s + *n;
    int len;
    while (s < end && python_space(utf8_decode(s, &len))) s += len;
    while (s < end) {
        const char *last = end - 1;
        while (last > s && ((unsigned char)*last & 0xc0) == 0x80) last--;
        if (!python_space(utf8_decode(last, &len))) break;
        end = last;
    }
    *n = (size_t)(end - s);
    return s;
}
