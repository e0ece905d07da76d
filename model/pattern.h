/* pattern.h - the regular expressions of PEFT's configuration, which are those of Python's re. They
 * are matched by PCRE2, after what the two spell differently has been rewritten; what Python's re
 * refuses is refused. */
#ifndef SAILS_PATTERN_H
#define SAILS_PATTERN_H

enum PatternUse {
    PATTERN_WHOLE, /* re.fullmatch(pattern, text) */
    PATTERN_END,   /* re.match("(.*\.)?(pattern)$", text): a dotted end of the text */
    PATTERN_LAYER  /* re.match(".*\.pattern\.(\d+)\.", text): the list that a layer is counted in */
};

typedef struct Pattern Pattern;

/* NULL: the pattern is broken or too large, or uses what Python's re does not know; `why` says so.
 * The work that a match may take is bounded, so that no pattern can keep the program busy. */
enum { PATTERN_WHY = 256 };
Pattern *pattern_compile(const char *pattern, enum PatternUse use, char why[PATTERN_WHY]);
void pattern_free(Pattern *p); /* NULL is allowed */

/* 1: matches, 0: does not, -1: the bound was reached, and `why` says so. */
int pattern_matches(Pattern *p, const char *text, char why[PATTERN_WHY]);

/* After a match for PATTERN_LAYER: the text's first group as a number, -1 where it is none (a group
 * of the pattern itself comes first, as in PEFT). */
int pattern_layer(const Pattern *p, const char *text);

#endif
