/* judge_text.h - a response in the normal form that the judge's rules read (judge.h). */
#ifndef SAILS_JUDGE_TEXT_H
#define SAILS_JUDGE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

enum { JUDGE_ROOM = 8192 }; /* bytes of the normal form; rules look no further than this */

/* The first JUDGE_ROOM - 1 bytes of the text's normal form, and a NUL. Any bytes may come in. */
void judge_normalise(char to[JUDGE_ROOM], const char *text, size_t len);

/* What is quoted, somebody else says: it becomes the one word x, unless it is all there is. */
void judge_drop_quotes(char *form);

static inline bool judge_word_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '\'' ||
           (unsigned char)c >= 0x80;
}

/* The next word's first character from p on, or the end. */
const char *judge_skip_marks(const char *p);

#endif
