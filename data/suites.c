/* suites.c - rows of a suite's file as records with the fields that this program knows. */
#include "data/suites.h"

#include <stdio.h>

#include "data/base/files.h"
#include "data/records_impl.h"
#include "data/utf8.h"

#define ROW(value, name, shape, id, prompt, context, category, expected, source, licence) \
    {name, SUITE_##shape, id, prompt, context, category, SUITE_##expected, source, licence},
const Suite suite_table[SUITE_COUNT] = {SUITES(ROW)};

typedef struct Reading {
    const Suite *suite;
    Records *all;
    json_t *seen;                  /* ids */
    size_t capacity, limit, first; /* the record that the file being read began with */
    bool benign;                   /* those alone */
} Reading;

/* Adds a prompt, by the fields of a record. */
static bool add(Reading *r, json_t *fields, Source *s, size_t line) {
    Record record;
    bool keep;
    if (!record_from_json(&record, &keep, r->all, fields, s, line)) {
        record_free(&record);
        return false;
    }
    bool twice = json_object_get(r->seen, record.id) != NULL;
    if (twice)
        source_fail(s, line, "id '%s' is there twice; is the file two in one? Remove one",
                    record.id);
    json_object_set_new_nocheck(r->seen, record.id, json_true());
    records_add(r->all, &r->capacity, &record);
    return !twice && (r->limit == 0 || r->all->n - r->first < r->limit);
}

/* -------------------------------------------------------------------------------- tables -- */

/* A column's text, which must be there and say something. */
static const char *text_of(Fields *f, const char *column) {
    const json_t *value = fields_take(f, column);
    if (json_is_string(value) && !fields_blank(value)) return json_string_value(value);
    fields_fail(f, column, "expected text, as the suite's authors have it; mend the row");
    return NULL;
}

/* Should the row's prompt be answered? -1: it does not say. */
static int answered(const Suite *suite, Fields *f) {
    if (suite->expected != SUITE_AS_LABELLED) return suite->expected == SUITE_ANSWERS;
    if (!fields_has(f, "label")) {
        const char *type = text_of(f, suite->category);
        return type ? strncmp(type, "contrast_", strlen("contrast_")) != 0 : -1;
    }
    const char *label = text_of(f, "label");
    if (label && strcmp(label, "safe") == 0) return 1;
    if (label && strcmp(label, "unsafe") == 0) return 0;
    if (label) fields_fail(f, "label", "expected safe or unsafe; mend the row");
    return -1;
}

/* "benign/CATEGORY", and its parts alone. */
static json_t *category_of(const char *category, bool benign) {
    return json_sprintf("%s%s%s", benign ? SUITE_BENIGN : "", benign && *category ? "/" : "",
                        category);
}

static void append(Buf *to, const json_t *text) {
    const char *s = json_string_value(text);
    if (s) buf_add(to, s, json_string_length(text));
}

/* The prompt, behind its context; NULL: the row is bad. */
static json_t *prompt_of(const Suite *suite, Fields *f) {
    static const char line[] = "\n\n---\n\n";
    const json_t *context = *suite->context ? fields_take(f, suite->context) : NULL;
    bool blank = fields_blank(context);
    if (!text_of(f, suite->prompt) || (!blank && !text_of(f, suite->context))) return NULL;
    Buf text = {0};
    if (!blank) append(&text, context), buf_add(&text, line, strlen(line));
    append(&text, fields_take(f, suite->prompt));
    json_t *whole = json_stringn_nocheck(text.p, text.n);
    buf_free(&text);
    return whole;
}

/* The row as a record's fields; NULL: it is bad. */
static json_t *fields_of(const Suite *suite, Fields *f) {
    const char *category = *suite->category ? text_of(f, suite->category) : "";
    int benign = category ? answered(suite, f) : -1;
    json_t *prompt = benign >= 0 ? prompt_of(suite, f) : NULL;
    if (!prompt) return NULL;
    json_t *fields = json_object(), *id = NULL;
    json_object_set_new(fields, "prompt", prompt);
    json_object_set_new(fields, "category", category_of(category, benign));
    if (*suite->id) id = json_incref((json_t *)(uintptr_t)fields_take(f, suite->id));
    if (id) json_object_set_new(fields, "id", id);
    if (*suite->id && fields_blank(id)) {
        fields_fail(f, suite->id, "expected an id; mend the row");
        json_decref(fields);
        return NULL;
    }
    return fields;
}

static bool add_row(void *context, const json_t *object, Source *s, size_t line) {
    Reading *r = context;
    Fields f;
    if (!fields_open(&f, object, r->all, s, line)) return false;
    json_t *fields = fields_of(r->suite, &f);
    bool other = fields && r->benign && answered(r->suite, &f) == 0;
    bool more = other || (fields && add(r, fields, s, line));
    json_decref(fields);
    fields_close(&f);
    return more;
}

/* ------------------------------------------------------------------------------- HEx-PHI -- */

/* Its second category was withdrawn by its authors. */
static const struct {
    int number;
    const char *name;
} hex_phi[] = {{1, "Illegal Activity"},
               {3, "Hate/Harass/Violence"},
               {4, "Malware"},
               {5, "Physical Harm"},
               {6, "Economic Harm"},
               {7, "Fraud/Deception"},
               {8, "Adult Content"},
               {9, "Political Campaigning"},
               {10, "Privacy Violation Activity"},
               {11, "Tailored Financial Advice"}};
enum { HEX_PHI = sizeof hex_phi / sizeof *hex_phi };

/* Is it in quotes, and those within are doubled? Else they are the prompt's own. */
static bool in_quotes(const Buf *text) {
    size_t end = text->n - 1;
    if (text->n < 2 || text->p[0] != '"' || text->p[end] != '"') return false;
    for (size_t i = 1; i < end; i++)
        if (text->p[i] == '"' && (++i == end || text->p[i] != '"')) return false;
    return true;
}

/* A line is a prompt, with commas or without; one in quotes doubles those within. */
static bool unquote(Buf *text, Source *s, size_t line) {
    size_t n = 0, quotes = 0;
    for (size_t i = 0; i < text->n; i++) quotes += text->p[i] == '"';
    if (text->n == 0 || *text->p != '"') return true;
    if (quotes % 2)
        return source_fail(s, line,
                           "expected a prompt on one line, its quotes do not end; mend the row");
    if (!in_quotes(text)) return true;
    for (size_t i = 1; i + 1 < text->n; i++) {
        i += text->p[i] == '"';
        text->p[n++] = text->p[i];
    }
    text->n = n;
    return true;
}

static bool add_line(Reading *r, int k, Buf *text, Source *s, size_t line) {
    if (!unquote(text, s, line)) return false;
    size_t valid = utf8_valid(text->p, text->n);
    if (valid < text->n)
        return source_fail(s, line, "byte offset %zu: expected valid UTF-8; convert the file",
                           valid);
    json_t *fields =
        json_pack("{s:o, s:s, s:o}", "prompt", json_stringn_nocheck(text->p, text->n), "category",
                  hex_phi[k].name, "id", json_sprintf("%d/%zu", hex_phi[k].number, line));
    bool more = add(r, fields, s, line);
    json_decref(fields);
    return more;
}

static bool read_category(Reading *r, int k, const char *path, Err *err) {
    Source s;
    Buf text = {0};
    size_t line;
    r->first = r->all->n;
    if (!files_exists(path))
        return err_set(err, EXIT_INPUT,
                       "%s: expected this category, '%s', beside the other %d; fetch it", path,
                       hex_phi[k].name, HEX_PHI - 1);
    if (!source_open(&s, path, err)) return false;
    while (source_line(&s, &text, &line) && add_line(r, k, &text, &s, line)) continue;
    bool ok = !s.failed;
    if (ok && r->all->n == r->first)
        ok = source_fail(&s, s.line, "expected at least one prompt; fetch the file again");
    buf_free(&text);
    source_close(&s);
    return ok;
}

static bool read_folder(Reading *r, const char *folder, Err *err) {
    bool ok = true;
    for (int k = 0; k < HEX_PHI && ok; k++) {
        char name[32];
        snprintf(name, sizeof name, "category_%d.csv", hex_phi[k].number);
        char *path = files_join(folder, name);
        ok = read_category(r, k, path, err);
        free(path);
    }
    return ok;
}

/* -------------------------------------------------------------------------------------------- */

static bool read_table(Reading *r, const char *path, Err *err) {
    size_t end;
    return rows_each(path, r->suite->prompt, add_row, r, &end, err) &&
           (r->all->n > 0 ||
            err_set(err, EXIT_INPUT, "%s:%zu: expected at least one prompt; fetch the file again",
                    path, end));
}

static bool read_part(Records *all, const Suite *suite, bool benign, const char *path, size_t limit,
                      Err *err) {
    *all = (Records){0};
    if (suite->shape == SUITE_RECORDS) return records_read(all, path, limit, err);
    Reading r = {
        .suite = suite, .all = all, .seen = json_object(), .limit = limit, .benign = benign};
    bool ok = (suite->shape == SUITE_FOLDER ? read_folder : read_table)(&r, path, err);
    json_decref(r.seen);
    if (!ok) {
        records_free(all);
        err_prefix(err, "suite %s", suite->name);
    }
    return ok;
}

bool suite_read(Records *all, enum SuiteName name, const char *path, size_t limit, Err *err) {
    return read_part(all, &suite_table[name], false, path, limit, err);
}

bool suite_read_benign(Records *all, enum SuiteName name, const char *path, size_t limit,
                       Err *err) {
    const Suite *suite = &suite_table[name];
    *all = (Records){0};
    if (suite->expected == SUITE_REFUSES)
        return err_set(err, EXIT_USAGE,
                       "suite %s: its prompts should be refused, none is harmless; give them as "
                       "generate.prompts",
                       suite->name);
    return read_part(all, suite, true, path, limit, err);
}
