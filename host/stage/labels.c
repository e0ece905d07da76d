/* labels.c - descriptions of features from a file. */
#include "host/stage/labels.h"

#include <ctype.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/cli/json_lines.h"

enum { LABEL_BYTES = 1 << 30 };

/* A whole number, or text that begins with one; -1: neither. */
static int number_of(const json_t *value) {
    if (json_is_integer(value)) {
        json_int_t n = json_integer_value(value);
        return n >= 0 && n <= INT32_MAX ? (int)n : -1;
    }
    const char *text = json_string_value(value);
    int n = -1;
    return text && isdigit((unsigned char)*text) && sscanf(text, "%9d", &n) == 1 ? n : -1;
}

static void add(Labels *l, int layer, int index, const char *text) {
    l->label = mem_grow(l->label, &l->capacity, l->n + 1, sizeof *l->label);
    l->label[l->n++] = (Label){layer, index, mem_string(text)};
}

/* {"index", "description"}; `where` starts the message. */
static bool add_entry(Labels *l, const json_t *entry, const char *where, Err *err) {
    const json_t *layer = json_object_get(entry, "layer");
    const char *text = json_string_value(json_object_get(entry, "description"));
    if (!text) text = json_string_value(json_object_get(entry, "label"));
    int index = number_of(json_object_get(entry, "index")), of = layer ? number_of(layer) : -1;
    if (!text || index < 0 || (layer && of < 0))
        return err_set(err, EXIT_INPUT,
                       "%s: expected {\"index\": 17, \"description\": \"text\"}, perhaps with "
                       "\"layer\"",
                       where);
    add(l, of, index, text);
    return true;
}

static bool key_number(const char *key, int *n) {
    char *end;
    long value = strtol(key, &end, 10);
    *n = (int)value;
    return isdigit((unsigned char)*key) && !*end && value <= INT32_MAX;
}

/* {"17": "text"} of a layer. */
static bool add_map(Labels *l, const json_t *map, int layer, const char *where, Err *err) {
    const char *key;
    json_t *value;
    int index;
    json_object_foreach ((json_t *)map, key, value) {
        bool good = key_number(key, &index);
        if (good && layer < 0 && json_is_object(value)) {
            if (!add_map(l, value, index, where, err)) return false;
        } else if (good && json_is_string(value)) {
            add(l, layer, index, json_string_value(value));
        } else {
            return err_set(err, EXIT_INPUT,
                           "%s: \"%.40s\": expected a feature's index with its text", where, key);
        }
    }
    return true;
}

static bool add_value(Labels *l, const json_t *value, const char *where, Err *err) {
    size_t i;
    json_t *entry;
    if (json_is_object(value) && json_object_get(value, "index"))
        return add_entry(l, value, where, err);
    if (json_is_object(value)) return add_map(l, value, -1, where, err);
    json_array_foreach (value, i, entry) {
        char at[600];
        snprintf(at, sizeof at, "%.500s: entry %zu", where, i + 1);
        if (!add_entry(l, entry, at, err)) return false;
    }
    return true;
}

static bool add_line(void *labels, json_t *line, const char *where, Err *err) {
    return add_entry(labels, line, where, err);
}

char *labels_path(const char *pattern, int layer) {
    const char *mark = strstr(pattern, "{layer}");
    size_t room = strlen(pattern) + 16;
    char *path = mem_array(room, 1);
    if (mark)
        snprintf(path, room, "%.*s%d%s", (int)(mark - pattern), pattern, layer, mark + 7);
    else
        snprintf(path, room, "%s", pattern);
    return path;
}

bool labels_read(Labels *l, const char *pattern, int layer, Err *err) {
    *l = (Labels){0};
    if (!*pattern) return true;
    char *path = labels_path(pattern, layer), *data;
    size_t n;
    bool ok = files_read(&data, &n, path, LABEL_BYTES, err);
    if (ok) {
        json_t *whole = json_loadb(data, n, 0, NULL);
        ok = whole ? add_value(l, whole, path, err) : json_lines_each(path, add_line, l, err);
        json_decref(whole);
        free(data);
    }
    if (!ok) labels_free(l);
    free(path);
    return ok;
}

void labels_free(Labels *l) {
    for (size_t i = 0; i < l->n; i++) free(l->label[i].text);
    free(l->label);
    *l = (Labels){0};
}

const char *labels_find(const Labels *l, int layer, int index) {
    for (size_t i = 0; i < l->n; i++)
        if (l->label[i].index == index && (l->label[i].layer < 0 || l->label[i].layer == layer))
            return l->label[i].text;
    return NULL;
}
