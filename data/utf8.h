/* utf8.h - UTF-8 as Unicode defines it: no surrogates, no overlong forms, nothing above U+10FFFF.
 */
#ifndef SAILS_UTF8_H
#define SAILS_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Offset of the first byte that is not part of a valid character; n when all of s is valid. */
size_t utf8_valid(const char *s, size_t n);

/* The character at s, which is valid UTF-8 and not empty; *len receives its 1 to 4 bytes. */
uint32_t utf8_decode(const char *s, int *len);

/* Length of the character that starts with this byte of valid UTF-8. */
static inline int utf8_len(char first) {
    unsigned char c = (unsigned char)first;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* Unicode's White_Space property, what a regular expression's \s matches. */
bool utf8_is_space(uint32_t c);

/* Cuts white space off both ends of valid UTF-8, as Python's str.strip and so Jinja's `trim` do:
 * Unicode white space and the separators U+001C..U+001F. Returns the new start and sets *n. */
const char *utf8_trim(const char *s, size_t *n);

#endif
