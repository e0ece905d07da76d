/* recipe.c - YAML events to settings, with the line of each. */
#include "host/cli/recipe.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "data/utf8.h"
#include "data/base/files.h"
#include "data/base/mem.h"

enum { RECIPE_BYTES = 1 << 20, KEY_BYTES = 256 };

/* Parser state. A recipe is read event by event; `event` is the current one. */
typedef struct Reader {
    yaml_parser_t parser;
    yaml_event_t event;
    bool have; /* event holds memory */
    const char *name;
    Recipe *to;
    Err *err;
} Reader;

static int line_of(const Reader *r) {
    return (int)r->event.start_mark.line + 1;
}

static bool refuse(Reader *r, const char *what) {
    return err_set(r->err, EXIT_USAGE, "%s: line %d: %s", r->name, line_of(r), what);
}

/* Advances to the next event; what the subset leaves out is refused here, in one place. */
static bool next(Reader *r) {
    if (r->have) yaml_event_delete(&r->event);
    r->have = yaml_parser_parse(&r->parser, &r->event);
    if (!r->have)
        return err_set(r->err, EXIT_USAGE, "%s: line %d: not YAML: %s", r->name,
                       (int)r->parser.problem_mark.line + 1,
                       r->parser.problem ? r->parser.problem : "invalid UTF-8");
    const yaml_event_t *e = &r->event;
    if (e->type == YAML_ALIAS_EVENT) return refuse(r, "aliases (*name) are not supported");
    bool scalar = e->type == YAML_SCALAR_EVENT, seq = e->type == YAML_SEQUENCE_START_EVENT;
    bool map = e->type == YAML_MAPPING_START_EVENT;
    if ((scalar && e->data.scalar.anchor) || (seq && e->data.sequence_start.anchor) ||
        (map && e->data.mapping_start.anchor))
        return refuse(r, "anchors (&name) are not supported");
    if ((scalar && e->data.scalar.tag) || (seq && e->data.sequence_start.tag) ||
        (map && e->data.mapping_start.tag))
        return refuse(r, "tags (!name) are not supported");
    if (scalar && memchr(e->data.scalar.value, 0, e->data.scalar.length))
        return refuse(r, "a NUL byte is not allowed");
    return true;
}

static bool is(const Reader *r, yaml_event_type_t type) {
    return r->event.type == type;
}

static const char *scalar_text(const Reader *r) {
    return (const char *)r->event.data.scalar.value;
}

/* An unquoted nothing ("key:") is YAML's null: a forgotten value, not an empty text. */
static bool scalar_null(const Reader *r) {
    const char *text = scalar_text(r);
    return r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (*text == 0 || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

static bool add(Reader *r, const char *key, const char *value, int line, bool list) {
    Recipe *to = r->to;
    for (int i = 0; i < to->n; i++)
        if (strcmp(to->entry[i].key, key) == 0)
            return err_set(r->err, EXIT_USAGE, "%s: line %d: %s is already set on line %d", r->name,
                           line, key, to->entry[i].line);
    to->entry = realloc(to->entry, ((size_t)to->n + 1) * sizeof *to->entry);
    CHECK(to->entry, "out of memory");
    RecipeEntry *e = &to->entry[to->n++];
    *e = (RecipeEntry){strdup(key), strdup(value), line, list};
    CHECK(e->key && e->value, "out of memory");
    return true;
}

static bool read_list(Reader *r, const char *key) {
    int line = line_of(r);
    size_t used = 0, capacity = 0;
    char *joined = mem_grow(NULL, &capacity, 1, 1);
    bool ok;
    while ((ok = next(r)) && !is(r, YAML_SEQUENCE_END_EVENT)) {
        const char *text = is(r, YAML_SCALAR_EVENT) ? scalar_text(r) : NULL;
        if (!text || scalar_null(r) || strchr(text, ',')) {
            ok = refuse(r, "expected a list of plain values without commas");
            break;
        }
        size_t n = strlen(text);
        joined = mem_grow(joined, &capacity, used + n + 2, 1); /* a comma, and a NUL at the end */
        if (used) joined[used++] = ',';
        memcpy(joined + used, text, n);
        used += n;
    }
    joined[used] = 0;
    ok = ok && add(r, key, joined, line, true);
    free(joined);
    return ok;
}

/* The pairs of a mapping up to its end; `section` is NULL at the top. */
static bool read_mapping(Reader *r, const char *section) {
    for (;;) {
        if (!next(r)) return false;
        if (is(r, YAML_MAPPING_END_EVENT)) return true;
        if (!is(r, YAML_SCALAR_EVENT)) return refuse(r, "expected a plain key");
        char key[KEY_BYTES];
        int n = snprintf(key, sizeof key, "%s%s%s", section ? section : "", section ? "." : "",
                         scalar_text(r));
        if (n >= (int)sizeof key || n == 0) return refuse(r, "the key is empty or too long");
        int line = line_of(r);
        if (!next(r)) return false;
        if (is(r, YAML_SEQUENCE_START_EVENT)) {
            if (!read_list(r, key)) return false;
        } else if (is(r, YAML_MAPPING_START_EVENT)) {
            if (section) return refuse(r, "expected a value, got another level of sections");
            if (!read_mapping(r, key)) return false;
        } else if (scalar_null(r)) {
            return err_set(r->err, EXIT_USAGE, "%s: line %d: %s has no value (\"\" is empty text)",
                           r->name, line, key);
        } else if (!add(r, key, scalar_text(r), line, false)) {
            return false;
        }
    }
}

static bool read_document(Reader *r) {
    if (!next(r) || !next(r)) return false;        /* start of stream, then of document */
    if (is(r, YAML_STREAM_END_EVENT)) return true; /* an empty recipe sets nothing */
    if (!next(r)) return false;
    if (!is(r, YAML_MAPPING_START_EVENT)) return refuse(r, "expected `key: value` lines");
    if (!read_mapping(r, NULL) || !next(r) || !next(r)) return false;
    return is(r, YAML_STREAM_END_EVENT) || refuse(r, "expected one document, got another `---`");
}

bool recipe_parse(Recipe *r, const char *text, size_t len, const char *name, Err *err) {
    memset(r, 0, sizeof *r);
    if (len > RECIPE_BYTES)
        return err_set(err, EXIT_USAGE, "%s: expected a recipe of at most 1 MB, got %zu bytes",
                       name, len);
    Reader reader = {.name = name, .to = r, .err = err};
    CHECK(yaml_parser_initialize(&reader.parser), "out of memory");
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, len);
    bool ok = read_document(&reader);
    if (reader.have) yaml_event_delete(&reader.event);
    yaml_parser_delete(&reader.parser);
    if (!ok) recipe_free(r);
    return ok;
}

bool recipe_read(Recipe *r, const char *path, Err *err) {
    char *text;
    size_t len;
    memset(r, 0, sizeof *r);
    if (!files_read(&text, &len, path, RECIPE_BYTES, err)) return false;
    bool ok = recipe_parse(r, text, len, path, err);
    free(text);
    return ok;
}

void recipe_free(Recipe *r) {
    for (int i = 0; i < r->n; i++) {
        free(r->entry[i].key);
        free(r->entry[i].value);
    }
    free(r->entry);
    memset(r, 0, sizeof *r);
}

/* Control characters, YAML's line breaks beside \n, which a quoted text folds to spaces, and what a
 * YAML file must not hold. */
static bool yaml_needs_escape(uint32_t c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff ||
           c == 0xfffe || c == 0xffff;
}

/* Plain only where no reader of YAML could see anything but text or a number. */
void recipe_write_scalar(FILE *f, const char *text) {
    static const char safe[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-";
    size_t n = strlen(text);
    bool plain = n && strspn(text, safe) == n && text[0] != '-' && text[n - 1] != '.';
    static const char *const words[] = {"null", "Null", "NULL", "yes", "no", "on",  "off",
                                        "y",    "n",    "Yes",  "No",  "On", "Off", "YES",
                                        "NO",   "ON",   "OFF",  "Y",   "N"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(text, words[i]) == 0) plain = false;
    if (plain) {
        fputs(text, f);
        return;
    }
    fputc('"', f);
    for (int len; *text; text += len) {
        uint32_t c = utf8_decode(text, &len);
        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", (int)c);
        else if (yaml_needs_escape(c))
            fprintf(f, c < 0x100 ? "\\x%02X" : "\\u%04X", c);
        else
            fwrite(text, 1, (size_t)len, f);
    }
    fputc('"', f);
}
