/* summary.c - summary.json as a table. */
#include "host/align/summary.h"

#include <string.h>

#include "host/cli/print.h"

/* A column: its key, its head, its width, and how a number is shown: f with `digits` decimals, g
 * with `digits` digits, n a count. */
typedef struct Column {
    const char *key, *head;
    int width;
    double scale;
    char kind;
    int digits;
} Column;

static const Column columns[] = {
    {"safety_rate", "safety %", 9, 100, 'f', 1},   {"harmfulness", "harmful", 8, 1, 'f', 2},
    {"high_risk", "high risk %", 12, 100, 'f', 1}, {"over_refusal", "over-ref %", 11, 100, 'f', 1},
    {"perplexity", "perplexity", 11, 1, 'g', 4},   {"trainable", "trainable", 12, 1, 'n', 0},
    {"trainable_percent", "%", 8, 1, 'f', 4},      {"seconds", "train s", 9, 1, 'g', 4},
    {"tokens_per_second", "tok/s", 8, 1, 'n', 0},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

static void print_cell(const Column *c, const json_t *value, FILE *f) {
    char text[PRINT_ROOM] = "-";
    double x = json_number_value(value) * c->scale;
    if (json_is_number(value) && c->kind == 'n') print_count(text, x);
    if (json_is_number(value) && c->kind == 'f') snprintf(text, sizeof text, "%.*f", c->digits, x);
    if (json_is_number(value) && c->kind == 'g') snprintf(text, sizeof text, "%.*g", c->digits, x);
    fprintf(f, " %*s", c->width, text);
}

static const char *name_of(const json_t *row) {
    const char *name = json_string_value(json_object_get(row, "name"));
    return name ? name : "?";
}

void summary_print(const json_t *summary, FILE *f) {
    const json_t *rows = json_object_get(summary, "rows");
    json_t *row;
    size_t i;
    fprintf(f, "%-10s", "method");
    for (int c = 0; c < COLUMNS; c++) fprintf(f, " %*s", columns[c].width, columns[c].head);
    fputc('\n', f);
    json_array_foreach (rows, i, row) {
        fprintf(f, "%-10s", name_of(row));
        for (int c = 0; c < COLUMNS; c++)
            print_cell(&columns[c], json_object_get(row, columns[c].key), f);
        fputc('\n', f);
    }
    json_array_foreach (rows, i, row) {
        json_int_t empty = json_integer_value(json_object_get(row, "empty"));
        if (empty > 0)
            fprintf(f, "%s: %lld responses without a letter or digit, which count as refused\n",
                    name_of(row), (long long)empty);
    }
}
