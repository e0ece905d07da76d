/* pattern.h - the regular expressions of PEFT's configuration, by POSIX ones. */
#ifndef SAILS_PATTERN_H
#define SAILS_PATTERN_H

enum PatternUse {
    PATTERN_WHOLE, /* Python's re.fullmatch(pattern, text) */
    PATTERN_END    /* re.match("(.*\.)?(pattern)$", text): a dotted end of the text */
};

/* 1: matches, 0: does not, -1: the pattern is broken or uses what POSIX expressions lack
 * (look-around, back references, flags); *why then says so. */
int pattern_matches(const char *pattern, enum PatternUse use, const char *text, const char **why);

#endif
