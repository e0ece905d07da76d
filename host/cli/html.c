/* html.c - markup with escaped texts. */
#include "host/cli/html.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "kernels/check.h"

static const char REPLACEMENT[] = "\xef\xbf\xbd";

/* Characters that are not shown but act: controls, separators of lines, and marks that turn the
 * direction of text. */
static bool acts(uint32_t c) {
    bool control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0);
    return control || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) ||
           (c & 0xfffe) == 0xfffe;
}

static void put_character(FILE *f, const char *at, int len) {
    switch (*at) {
        case '&':
            fputs("&amp;", f);
            return;
        case '<':
            fputs("&lt;", f);
            return;
        case '>':
            fputs("&gt;", f);
            return;
        case '"':
            fputs("&quot;", f);
            return;
        case '\'':
            fputs("&#39;", f);
            return;
        default:
            fwrite(at, 1, (size_t)len, f);
    }
}

void html_part(FILE *f, const char *text, size_t n) {
    while (n > 0) {
        size_t valid = utf8_valid(text, n);
        for (size_t i = 0; i < valid;) {
            int len;
            uint32_t c = utf8_decode(text + i, &len);
            if (acts(c))
                fputs(REPLACEMENT, f);
            else
                put_character(f, text + i, len);
            i += (size_t)len;
        }
        if (valid < n) fputs(REPLACEMENT, f), valid++;
        text += valid, n -= valid;
    }
}

void html_text(FILE *f, const char *text) {
    html_part(f, text, strlen(text));
}

void html(FILE *f, const char *format, ...) {
    va_list args;
    va_start(args, format);
    for (const char *at = format; *at; at++) {
        if (*at != '%') {
            putc(*at, f);
            continue;
        }
        CHECK(at[1] == 's', "html knows %%s alone: %s", format);
        html_text(f, va_arg(args, const char *));
        at++;
    }
    va_end(args);
}

void html_json(FILE *f, const json_t *value) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
    CHECK(text, "a JSON value could not be written");
    for (const char *at = text; *at; at++) {
        bool markup = *at == '<' || *at == '>' || *at == '&';
        if (markup)
            fprintf(f, "\\u%04x", (unsigned)*at);
        else
            putc(*at, f);
    }
    free(text);
}

static const char *number(char text[HTML_NUMBER], const json_t *x, double scale, const char *format,
                          int digits) {
    snprintf(text, HTML_NUMBER, "\xe2\x80\x93");
    if (json_is_number(x))
        snprintf(text, HTML_NUMBER, format, digits, scale * json_number_value(x));
    return text;
}

const char *html_fixed(char text[HTML_NUMBER], const json_t *x, int digits) {
    return number(text, x, 1, "%.*f", digits);
}

const char *html_digits(char text[HTML_NUMBER], const json_t *x, int digits) {
    return number(text, x, 1, "%.*g", digits);
}

const char *html_percent(char text[HTML_NUMBER], const json_t *share) {
    return number(text, share, 100, "%.*f", 1);
}

const json_t *html_at(const json_t *object, const char *key, const char *then) {
    const json_t *value = json_object_get(object, key);
    return then ? json_object_get(value, then) : value;
}

const char *html_word(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}
