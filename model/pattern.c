/* pattern.c - Python's notation where PCRE2's differs. The texts are names of modules: ASCII, one
 * line, so that the two agree on letters, digits and ends of lines. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/pattern.h"

#include <ctype.h>
#include <pcre2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"

/* A match on a module's name of some fifty characters takes hundreds of steps; `.*` five times in a
 * row takes a million. */
enum { MAX_PATTERN = 4096, MATCH_STEPS = 50000, MATCH_DEPTH = 5000, MATCH_KIB = 4096 };

struct Pattern {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

/* ---------------------------------------------------------------------------- translation -- */

typedef struct Translation {
    const char *start, *in;
    char *out; /* room for three characters of each that comes in, and the frame */
    size_t n;
    const char *why; /* NULL: fine so far */
} Translation;

static void put(Translation *t, const char *s, size_t n) {
    memcpy(t->out + t->n, s, n);
    t->n += n;
    t->out[t->n] = 0;
}

static void put_text(Translation *t, const char *s) {
    put(t, s, strlen(s));
}

static void copy(Translation *t, size_t n) {
    put(t, t->in, n);
    t->in += n;
}

static size_t hex_digits(const char *s, size_t most) {
    size_t n = 0;
    while (n < most && isxdigit((unsigned char)s[n])) n++;
    return n;
}

/* \xhh, \uhhhh, \Uhhhhhhhh: PCRE2 has \x{h} for all of them. */
static void translate_code(Translation *t) {
    size_t digits = t->in[1] == 'x' ? 2 : t->in[1] == 'u' ? 4 : 8;
    if (hex_digits(t->in + 2, digits) != digits) {
        t->why = "an escape ends too early";
        return;
    }
    t->in += 2;
    put_text(t, "\\x{");
    copy(t, digits);
    put_text(t, "}");
}

/* Python knows few letters behind a backslash; PCRE2 gives many more a meaning. */
static void translate_escape(Translation *t, bool in_class) {
    char c = t->in[1];
    const char *letters = in_class ? "abdDfnrsStvwW" : "abdDfnrsStvwWABZ";
    if (c == 0) {
        t->why = "it ends with a backslash";
    } else if (c == 'x' || c == 'u' || c == 'U') {
        translate_code(t);
    } else if (isalpha((unsigned char)c) && !strchr(letters, c)) {
        t->why = "a backslash stands before a letter that Python gives no meaning";
    } else if (c == 'Z' || c == 'v') { /* the end itself; one character, not a class */
        put_text(t, c == 'Z' ? "\\z" : "\\x0b");
        t->in += 2;
    } else {
        copy(t, 2);
    }
}

/* In PCRE2 "[:alpha:]" has a meaning within a class, in Python it has none. */
static void translate_class(Translation *t) {
    copy(t, 1);
    if (*t->in == '^') copy(t, 1);
    for (bool first = true; !t->why && (*t->in != ']' || first); first = false) {
        if (*t->in == 0) {
            t->why = "a class has no end";
        } else if (*t->in == '\\') {
            translate_escape(t, true);
        } else {
            if (*t->in == '[' || *t->in == ']') put_text(t, "\\");
            copy(t, 1);
        }
    }
    if (!t->why) copy(t, 1);
}

/* "(?ai)", "(?i-s:": of the flags a and u say nothing about ASCII, and L is for bytes alone. Flags
 * at the start of a pattern for PATTERN_END stand within the frame, as Python before 3.11 let pass.
 */
static void translate_flags(Translation *t, size_t n) {
    char end = t->in[2 + n];
    bool both = memchr(t->in + 2, 'a', n) && memchr(t->in + 2, 'u', n);
    if ((end != ')' && end != ':') || both || memchr(t->in + 2, 'L', n)) {
        t->why = "flags of a group that Python does not know";
    } else if (end == ')' && t->in != t->start) {
        t->why = "flags for the whole pattern stand behind its start";
    } else {
        put_text(t, "(?");
        for (t->in += 2; *t->in != end; t->in++)
            if (*t->in != 'a' && *t->in != 'u') put(t, t->in, 1);
        copy(t, 1);
    }
}

/* "(?(1)yes|no)", "(?(name)yes|no)". PCRE2 gives some names another meaning. */
static void translate_condition(Translation *t) {
    size_t n = strspn(t->in + 3, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    bool number = isdigit((unsigned char)t->in[3]);
    if (n == 0 || t->in[3 + n] != ')') {
        t->why = "a condition names no group";
        return;
    }
    put_text(t, number ? "(?(" : "(?(<");
    t->in += 3;
    copy(t, n);
    if (!number) put_text(t, ">");
    copy(t, 1);
}

static void translate_group(Translation *t) {
    const char *s = t->in;
    size_t flags = s[1] == '?' ? strspn(s + 2, "aiLmsux-") : 0;
    if (s[1] == '*') {
        t->why = "there is nothing to repeat";
    } else if (s[1] != '?') {
        copy(t, 1);
    } else if (flags > 0) {
        translate_flags(t, flags);
    } else if (s[2] == '(') {
        translate_condition(t);
    } else if (s[2] == '#') {
        size_t n = strcspn(s, ")");
        copy(t, s[n] ? n + 1 : n);           /* PCRE2 complains about one without end */
        if (s == t->start) t->start = t->in; /* a remark is not yet a start */
    } else if (s[2] && strchr(":=!>", s[2])) {
        copy(t, 3);
    } else if ((s[2] == '<' && (s[3] == '=' || s[3] == '!')) ||
               (s[2] == 'P' && (s[3] == '<' || s[3] == '='))) {
        copy(t, 4);
    } else {
        t->why = "a group of a kind that Python does not know";
    }
}

/* {m}, {m,}, {,n} and {m,n} repeat; any other brace is itself. */
static void translate_brace(Translation *t) {
    const char *s = t->in + 1;
    size_t low = strspn(s, "0123456789"), comma = s[low] == ',';
    size_t high = comma ? strspn(s + low + 1, "0123456789") : 0, n = low + comma + high;
    if (n == 0 || s[n] != '}') {
        put_text(t, "\\{");
        t->in++;
        return;
    }
    put_text(t, low ? "{" : "{0");
    t->in++;
    copy(t, n + 1);
}

static void translate_one(Translation *t) {
    switch (*t->in) {
        case '\\':
            translate_escape(t, false);
            break;
        case '[':
            translate_class(t);
            break;
        case '(':
            translate_group(t);
            break;
        case '{':
            translate_brace(t);
            break;
        default:
            copy(t, 1);
    }
}

/* -------------------------------------------------------------------------------- matching -- */

static void explain(char why[PATTERN_WHY], const char *what) {
    snprintf(why, PATTERN_WHY, "expected a regular expression of Python's re: %s", what);
}

static bool compile(Pattern *p, const char *text, size_t n, enum PatternUse use,
                    char why[PATTERN_WHY]) {
    uint32_t options = PCRE2_UTF | PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C;
    if (use == PATTERN_WHOLE) options |= PCRE2_ENDANCHORED;
    int code;
    PCRE2_SIZE at;
    p->code = pcre2_compile((PCRE2_SPTR)text, n, options, &code, &at, NULL);
    if (!p->code) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(code, message, sizeof message);
        explain(why, (const char *)message);
        return false;
    }
    p->match = pcre2_match_data_create(2, NULL);
    p->limits = pcre2_match_context_create(NULL);
    CHECK(p->match && p->limits, "out of memory");
    pcre2_set_match_limit(p->limits, MATCH_STEPS);
    pcre2_set_depth_limit(p->limits, MATCH_DEPTH);
    pcre2_set_heap_limit(p->limits, MATCH_KIB);
    return true;
}

Pattern *pattern_compile(const char *pattern, enum PatternUse use, char why[PATTERN_WHY]) {
    static const char *const frame[][2] = {
        [PATTERN_WHOLE] = {"", ""},
        [PATTERN_END] = {"(.*\\.)?(", ")$"},
        [PATTERN_LAYER] = {".*\\.", "\\.(\\d+)\\."},
    };
    size_t n = strlen(pattern);
    if (n > MAX_PATTERN) {
        explain(why, "it is longer than 4096 characters");
        return NULL;
    }
    Translation t = {.start = pattern, .in = pattern, .out = malloc(3 * n + 32)};
    Pattern *p = calloc(1, sizeof *p);
    CHECK(t.out && p, "out of memory");
    put_text(&t, frame[use][0]);
    while (*t.in && !t.why) translate_one(&t);
    put_text(&t, frame[use][1]);
    if (t.why) explain(why, t.why);
    bool ok = !t.why && compile(p, t.out, t.n, use, why);
    free(t.out);
    if (ok) return p;
    pattern_free(p);
    return NULL;
}

void pattern_free(Pattern *p) {
    if (!p) return;
    pcre2_match_context_free(p->limits);
    pcre2_match_data_free(p->match);
    pcre2_code_free(p->code);
    free(p);
}

int pattern_matches(Pattern *p, const char *text, char why[PATTERN_WHY]) {
    int rc = pcre2_match(p->code, (PCRE2_SPTR)text, strlen(text), 0, 0, p->match, p->limits);
    if (rc >= 0) return 1;
    if (rc == PCRE2_ERROR_NOMATCH) return 0;
    PCRE2_UCHAR message[128];
    pcre2_get_error_message(rc, message, sizeof message);
    snprintf(why, PATTERN_WHY, "expected a regular expression that is quick to match: %s",
             (const char *)message);
    return -1;
}

int pattern_layer(const Pattern *p, const char *text) {
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(p->match) + 2;
    if (at[0] == PCRE2_UNSET || at[1] - at[0] > 6 || at[1] == at[0]) return -1;
    int layer = 0;
    for (size_t i = at[0]; i < at[1]; i++) {
        if (!isdigit((unsigned char)text[i])) return -1;
        layer = 10 * layer + text[i] - '0';
    }
    return layer;
}
