/* json_lines.c - JSON Lines, written and read one object at a time. */
#include "host/cli/json_lines.h"

#include <math.h>
#include <stdio.h>

#include "data/base/mem.h"

enum { FILE_BYTES = 1 << 30 };

bool json_lines_open(JsonLines *j, const char *path, Err *err) {
    *j = (JsonLines){0};
    if (*path && !files_create(&j->file, path, err)) return false;
    return j->open = true;
}

bool json_lines_put(JsonLines *j, json_t *value, Err *err) {
    CHECK(value, "a JSON value could not be made");
    char *text = json_dumps(value, JSON_COMPACT);
    CHECK(text, "a JSON value could not be written");
    json_decref(value);
    bool ok = true;
    if (j->file)
        ok = files_put(j->file, text, strlen(text), err) && files_put(j->file, "\n", 1, err);
    else if (puts(text) < 0)
        ok = err_set(err, EXIT_INTERNAL, "stdout: could not be written; is the disk full?");
    free(text);
    return ok;
}

bool json_lines_close(JsonLines *j, bool ok, Err *err) {
    if (!j->open) return ok;
    j->open = false;
    if (!j->file) return ok;
    if (ok) return files_commit(j->file, err);
    files_abandon(j->file);
    return false;
}

static bool read_line(json_line_sink *sink, void *context, const char *line, size_t n,
                      const char *where, Err *err) {
    if (strspn(line, " \t\r") >= n) return true;
    json_t *value;
    if (!files_parse_json(&value, line, n, JSON_NUL_ALLOWED, where, err)) return false;
    bool ok = json_is_object(value)
                  ? sink(context, value, where, err)
                  : err_set(err, EXIT_INPUT, "%s: expected a JSON object; mend the line", where);
    json_decref(value);
    return ok;
}

bool json_lines_each(const char *path, json_line_sink *sink, void *context, Err *err) {
    char *text, where[600];
    size_t n;
    if (!files_read(&text, &n, path, FILE_BYTES, err)) return false;
    bool ok = true;
    size_t number = 1;
    for (const char *p = text; p < text + n && ok; number++) {
        const char *end = memchr(p, '\n', (size_t)(text + n - p));
        size_t len = end ? (size_t)(end - p) : (size_t)(text + n - p);
        snprintf(where, sizeof where, "%.500s: line %zu", path, number);
        ok = read_line(sink, context, p, len, where, err);
        p += len + (end != NULL);
    }
    free(text);
    return ok;
}

static bool collect(void *context, json_t *line, const char *where, Err *err) {
    (void)where, (void)err;
    return json_array_append(context, line) == 0;
}

bool json_lines_read(json_t **array, const char *path, Err *err) {
    *array = json_array();
    if (json_lines_each(path, collect, *array, err)) return true;
    json_decref(*array);
    return false;
}

json_t *json_number(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

bool json_text(const char **text, const json_t *object, const char *key, const char *fallback,
               const char *where, Err *err) {
    json_t *value = json_object_get(object, key);
    *text = value ? json_string_value(value) : fallback;
    if (*text) return true;
    return err_set(err, EXIT_INPUT, "%s: expected a text \"%s\", %s; mend it", where, key,
                   value ? "got another type" : "found none");
}
