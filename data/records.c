/* records.c - a data file from its first record to its last, and what was left out. */
#include "data/records.h"

#include "data/base/files.h"
#include "data/records_impl.h"
#include "data/utf8.h"

typedef struct Reader {
    Source source;
    enum { LINES, LIST, CSV } kind;
    Csv csv;
    Buf text;
} Reader;

/* What the file is, by its first character. */
static bool detect(Reader *r, const char *column) {
    Source *s = &r->source;
    int c;
    while ((c = source_peek(s)) == ' ' || c == '\t' || c == '\n' || c == '\r') source_next(s);
    r->kind = c == '{' ? LINES : c == '[' ? LIST : CSV;
    return !s->failed && (r->kind != CSV || c < 0 || csv_open(&r->csv, s, column));
}

static bool parse(Reader *r, json_t **object, size_t line) {
    Source *s = &r->source;
    size_t valid = utf8_valid(r->text.p, r->text.n);
    if (valid < r->text.n)
        return source_fail(s, line, "byte offset %zu: expected valid UTF-8; convert the file",
                           valid);
    json_error_t e;
    *object = json_loadb(r->text.p, r->text.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    if (*object) return true;
    if (memchr(r->text.p, '\r', r->text.n)) return source_lone_cr(s, line);
    bool spread = r->kind == LINES && (size_t)e.position >= r->text.n; /* it goes on below */
    return source_fail(s, line, "expected a JSON object%s: %s (byte %d); %s",
                       r->kind == LINES ? " on each line" : "", e.text, e.position,
                       spread ? "mend it; objects over several lines: jq -c . FILE" : "mend it");
}

/* The next record's object. False: no more, or a failure. */
static bool next_object(Reader *r, json_t **object, size_t *line) {
    Source *s = &r->source;
    switch (r->kind) {
        case LINES:
            return source_line(s, &r->text, line) && parse(r, object, *line);
        case LIST:
            return source_element(s, &r->text, line) && parse(r, object, *line);
        default:
            return csv_row(&r->csv, s, object, line);
    }
}

void records_add(Records *all, size_t *capacity, const Record *r) {
    all->record = mem_grow(all->record, capacity, all->n + 1, sizeof *all->record);
    all->record[all->n++] = *r;
}

bool rows_each(const char *path, const char *column, row_sink *sink, void *context, size_t *end,
               Err *err) {
    Reader r = {0};
    if (!source_open(&r.source, path, err)) return false;
    size_t line;
    json_t *object;
    bool more = detect(&r, column);
    while (more && next_object(&r, &object, &line)) {
        more = sink(context, object, &r.source, line);
        json_decref(object);
    }
    bool ok = !r.source.failed;
    *end = r.source.line;
    csv_free(&r.csv);
    buf_free(&r.text);
    source_close(&r.source);
    return ok;
}

typedef struct Reading {
    Records *all;
    size_t capacity, limit;
} Reading;

static bool add_record(void *context, const json_t *object, Source *s, size_t line) {
    Reading *r = context;
    Record record;
    bool keep, ok = record_from_json(&record, &keep, r->all, object, s, line);
    if (ok && keep)
        records_add(r->all, &r->capacity, &record);
    else
        record_free(&record);
    return ok && (r->limit == 0 || r->all->n < r->limit);
}

bool records_read(Records *all, const char *path, size_t limit, Err *err) {
    *all = (Records){0};
    Reading r = {.all = all, .limit = limit};
    size_t end;
    bool ok = rows_each(path, NULL, add_record, &r, &end, err);
    if (ok && all->n == 0)
        ok = err_set(err, EXIT_INPUT, "%s:%zu: expected at least one record to use; check the path",
                     path, end);
    if (!ok) records_free(all);
    return ok;
}

void records_keep(Records *all, const bool *keep) {
    size_t n = 0;
    for (size_t i = 0; i < all->n; i++) {
        if (keep[i])
            all->record[n++] = all->record[i];
        else
            record_free(&all->record[i]);
    }
    all->n = n;
}

void records_free(Records *all) {
    for (size_t i = 0; i < all->n; i++) record_free(&all->record[i]);
    free(all->record), free(all->ignored);
    *all = (Records){0};
}
