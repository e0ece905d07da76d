/* records_csv.c - CSV by RFC 4180: quoted fields may hold commas, newlines and doubled quotes. */
#include "data/records_impl.h"
#include "data/utf8.h"

enum { MAX_COLUMNS = 4096 };

/* What may follow a closing quote. */
static bool end_of_field(Source *s) {
    if (source_peek(s) == '\r') source_next(s);
    int c = source_peek(s);
    if (c == ',' || c == '\n' || c < 0) return !s->failed;
    return source_fail(
        s, s->line, "expected a comma behind the closing quote; double the quotes within a field");
}

/* One field into text, up to and without its comma or line end. */
static bool read_field(Source *s, Buf *text, size_t line) {
    bool quoted = source_peek(s) == '"';
    if (quoted) source_next(s);
    for (int c; (c = source_peek(s)) >= 0;) {
        if (!quoted && (c == ',' || c == '\n')) return true;
        source_next(s);
        if (quoted && c == '"') {
            int after = source_peek(s);
            if (after != '"') return end_of_field(s);
            source_next(s);
        }
        if (!source_keep(s, text, (char)c, line)) return false;
    }
    if (s->failed) return false;
    return !quoted ||
           source_fail(s, line, "expected a closing quote before the file's end; mend the row");
}

/* Field by field: together the halves of a character in two fields would look valid. */
static bool check_utf8(const Csv *csv, Source *s, size_t line) {
    for (size_t i = 0, from = 0; i < csv->n; from = csv->end[i++]) {
        size_t n = csv->end[i] - from, valid = utf8_valid(csv->text.p + from, n);
        if (valid < n)
            return source_fail(s, line,
                               "field %zu, byte offset %zu: expected valid UTF-8; convert the file",
                               i + 1, valid);
    }
    return true;
}

/* Fields of the next row that is not empty. False: no more rows, or a failure. */
static bool read_fields(Csv *csv, Source *s, size_t *line) {
    while (source_peek(s) == '\n' || source_peek(s) == '\r') source_next(s);
    *line = s->line;
    csv->text.n = csv->n = 0;
    buf_add(&csv->text, "", 0);
    for (int c = source_peek(s); c >= 0;) {
        size_t from = csv->text.n;
        bool quoted = c == '"';
        if (!read_field(s, &csv->text, *line)) return false;
        c = source_next(s);
        bool last = c != ',';
        if (last && !quoted && csv->text.n > from && csv->text.p[csv->text.n - 1] == '\r')
            csv->text.n--; /* of a line end in the style of Windows */
        if (csv->n == MAX_COLUMNS)
            return source_fail(s, *line, "expected at most %d fields; is this a CSV file?",
                               MAX_COLUMNS);
        csv->end = mem_grow(csv->end, &csv->capacity, csv->n + 1, sizeof *csv->end);
        csv->end[csv->n++] = csv->text.n;
        if (last) break;
        c = source_peek(s) < 0 ? 0 : source_peek(s); /* a comma at the end opens a last field */
    }
    if (s->failed || csv->n == 0) return false;
    return check_utf8(csv, s, *line);
}

/* Is this a table of records at all? */
static bool check_header(const Csv *csv, Source *s, const char *column, size_t line) {
    for (size_t i = 0; i < csv->n; i++)
        if (strchr(csv->column[i], '\r')) return source_lone_cr(s, line);
    if (column)
        return fields_list(csv->column, csv->n, column) ||
               source_fail(s, line,
                           "expected a column '%s' in the header row; is this the suite's file?",
                           column);
    if (fields_make_record(csv->column, csv->n)) return true;
    return source_fail(s, line,
                       "expected one of a record's fields (sails tokenize --help) as a column; "
                       "rename yours. Plain text is made prompts, one a line, by: jq -R '{prompt: "
                       ".}' FILE > NEW.jsonl");
}

bool csv_open(Csv *csv, Source *s, const char *column) {
    size_t line;
    if (!read_fields(csv, s, &line))
        return s->failed ? false
                         : source_fail(s, s->line, "expected a header row; name the columns");
    csv->ncolumn = csv->n;
    csv->column = mem_array(csv->n, sizeof *csv->column);
    for (size_t i = 0, from = 0; i < csv->n; from = csv->end[i++]) {
        csv->column[i] = buf_copy(csv->text.p + from, csv->end[i] - from);
        for (size_t k = 0; k < i; k++)
            if (*csv->column[i] && strcmp(csv->column[i], csv->column[k]) == 0)
                return source_fail(s, line, "column '%s' is there twice; rename one",
                                   csv->column[i]);
    }
    return check_header(csv, s, column, line);
}

void csv_columns(Csv *csv, const char *const *column, size_t n) {
    csv->ncolumn = n;
    csv->column = mem_array(n, sizeof *csv->column);
    for (size_t i = 0; i < n; i++) csv->column[i] = mem_string(column[i]);
}

bool csv_row(Csv *csv, Source *s, json_t **object, size_t *line) {
    if (!read_fields(csv, s, line)) return false;
    if (csv->n != csv->ncolumn)
        return source_fail(s, *line, "expected %zu fields as in the header, got %zu; mend the row",
                           csv->ncolumn, csv->n);
    *object = json_object();
    for (size_t i = 0, from = 0; i < csv->n; from = csv->end[i++])
        json_object_set_new_nocheck(*object, csv->column[i],
                                    json_stringn_nocheck(csv->text.p + from, csv->end[i] - from));
    return true;
}

void csv_free(Csv *csv) {
    for (size_t i = 0; i < csv->ncolumn && csv->column; i++) free(csv->column[i]);
    free(csv->column), free(csv->end);
    buf_free(&csv->text);
}
