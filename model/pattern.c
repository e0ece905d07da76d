/* pattern.c - Python's notation turned into the POSIX one. Only whether a match exists is asked,
 * so lazy and greedy repetition are the same, and so are all kinds of groups. */
#include "model/pattern.h"

#include <ctype.h>
#include <regex.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PATTERN = 1024, ROOM = 16 * MAX_PATTERN, MAX_BRACES = 2 };

typedef struct Translation {
    const char *in;
    char out[ROOM];
    size_t n;
    int braces;
    bool quantified; /* the last thing written was a quantifier */
} Translation;

static void put(Translation *t, const char *s) {
    size_t n = strlen(s);
    memcpy(t->out + t->n, s, n + 1); /* one character of input gives at most 12 of output */
    t->n += n;
}

static void put_char(Translation *t, char c) {
    put(t, (char[]){c, 0});
}

/* \d and its like, inside a class and outside. NULL: no such escape. */
static const char *shorthand(char c, bool in_class) {
    switch (c) {
        case 'd':
            return in_class ? "0-9" : "[0-9]";
        case 'w':
            return in_class ? "[:alnum:]_" : "[[:alnum:]_]";
        case 's':
            return in_class ? "[:space:]" : "[[:space:]]";
        case 'D':
            return in_class ? NULL : "[^0-9]";
        case 'W':
            return in_class ? NULL : "[^[:alnum:]_]";
        case 'S':
            return in_class ? NULL : "[^[:space:]]";
        default:
            return NULL;
    }
}

static bool translate_escape(Translation *t) {
    char c = *++t->in;
    const char *s = shorthand(c, false);
    if (s) {
        put(t, s);
    } else {
        if (c == 0 || isalnum((unsigned char)c)) return false; /* \b, \A, \1 ... */
        if (strchr("\\.[]()*+?{}|^$", c)) put_char(t, '\\');
        put_char(t, c);
    }
    t->in++;
    return true;
}

static bool translate_class(Translation *t) {
    put_char(t, *t->in++);
    if (*t->in == '^') put_char(t, *t->in++);
    for (bool first = true; *t->in != ']' || first; first = false) {
        const char *s = NULL;
        if (*t->in == 0 || *t->in == '[') return false;
        if (*t->in == '\\') {
            t->in++;
            s = shorthand(*t->in, true);
            if (!s && (*t->in == 0 || isalnum((unsigned char)*t->in) || strchr("]^-\\", *t->in)))
                return false; /* POSIX classes have no escapes: their order would have to change */
        }
        if (s)
            put(t, s);
        else
            put_char(t, *t->in);
        t->in++;
    }
    put_char(t, *t->in++);
    return true;
}

static bool translate_group(Translation *t) {
    put_char(t, *t->in++);
    if (*t->in != '?') return true;
    if (t->in[1] == ':') {
        t->in += 2;
        return true;
    }
    if (t->in[1] != 'P' || t->in[2] != '<') return false; /* look-around, flags */
    t->in += 3;
    while (isalnum((unsigned char)*t->in) || *t->in == '_') t->in++;
    return *t->in++ == '>';
}

/* {m}, {m,} or {m,n}; few and below 100, because an expression grows with their product. */
static bool translate_braces(Translation *t) {
    int low, high, used = 0;
    if (++t->braces > MAX_BRACES) return false;
    bool pair = sscanf(t->in, "{%2d,%2d}%n", &low, &high, &used) == 2 && used > 0;
    if (!pair && !(sscanf(t->in, "{%2d}%n", &low, &used) == 1 && used > 0) &&
        !(sscanf(t->in, "{%2d,}%n", &low, &used) == 1 && used > 0))
        return false;
    for (int i = 0; i < used; i++) put_char(t, *t->in++);
    return true;
}

static bool translate_one(Translation *t) {
    char c = *t->in;
    bool repeats = c == '*' || c == '+' || c == '?' || c == '{';
    if (repeats && t->quantified) { /* lazy means the same here; possessive does not */
        t->quantified = false;
        t->in++;
        return c == '?';
    }
    if (repeats && (t->n == 0 || strchr("(|", t->out[t->n - 1]))) return false;
    t->quantified = repeats;
    switch (c) {
        case '\\':
            return translate_escape(t);
        case '[':
            return translate_class(t);
        case '(':
            return translate_group(t);
        case '{':
            return translate_braces(t);
        default:
            put_char(t, c), t->in++;
            return true;
    }
}

/* The common case, and with a pattern for each of hundreds of modules one that must be quick:
 * letters, digits, "_" and ".", where a dot stands for any character. */
static bool is_plain(const char *pattern) {
    for (; *pattern; pattern++)
        if (!isalnum((unsigned char)*pattern) && *pattern != '_' && *pattern != '.') return false;
    return true;
}

static int plain_matches(const char *pattern, enum PatternUse use, const char *text) {
    size_t n = strlen(pattern), m = strlen(text);
    if (n > m || (use == PATTERN_WHOLE && n != m)) return 0;
    const char *end = text + m - n;
    if (end != text && end[-1] != '.') return 0;
    for (size_t i = 0; i < n; i++)
        if (pattern[i] != '.' && pattern[i] != end[i]) return 0;
    return 1;
}

int pattern_matches(const char *pattern, enum PatternUse use, const char *text, const char **why) {
    *why =
        "expected a regular expression of at most 1024 characters without look-around, back "
        "references or flags";
    if (strlen(pattern) > MAX_PATTERN) return -1;
    if (is_plain(pattern)) return plain_matches(pattern, use, text);
    Translation *t = calloc(1, sizeof *t);
    if (!t) return -1;
    put(t, use == PATTERN_WHOLE ? "^(" : "^(.*\\.)?(");
    t->in = pattern;
    bool ok = true;
    while (ok && *t->in) ok = translate_one(t);
    put(t, ")$");
    regex_t re;
    int hit = -1;
    if (ok && regcomp(&re, t->out, REG_EXTENDED | REG_NOSUB) == 0) {
        hit = regexec(&re, text, 0, NULL, 0) == 0;
        regfree(&re);
    }
    free(t);
    return hit;
}
