/* summary.c - summary.json as a table. */
#include "host/align/summary.h"

#include <math.h>
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
    {"trainable_percent", "%", 8, 1, 'f', 4},      {"redundancy", "redundancy", 11, 1, 'g', 3},
    {"seconds", "train s", 9, 1, 'g', 4},          {"tokens_per_second", "tok/s", 8, 1, 'n', 0},
};
enum { COLUMNS = sizeof columns / sizeof *columns, NAME = 17 /* "direct-covariance" */ };

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

/* "88.1-96.4", "-" */
static void print_interval(const json_t *row, const char *key, int width, FILE *f) {
    const json_t *i = json_object_get(json_object_get(row, "interval"), key);
    char text[PRINT_ROOM] = "-";
    if (json_is_array(i))
        snprintf(text, sizeof text, "%.1f-%.1f", 100 * json_number_value(json_array_get(i, 0)),
                 100 * json_number_value(json_array_get(i, 1)));
    fprintf(f, " %*s", width, text);
}

static void print_number(const json_t *value, double scale, const char *format, FILE *f) {
    char text[PRINT_ROOM] = "-";
    if (json_is_number(value))
        snprintf(text, sizeof text, format, scale * json_number_value(value));
    fprintf(f, " %10s", text);
}

/* How sure the rows are, and how they differ from the one that they are held against. */
static void print_comparison(const json_t *rows, FILE *f) {
    json_t *row;
    size_t i;
    const char *against = NULL;
    json_array_foreach (rows, i, row)
        if (!against)
            against = json_string_value(json_object_get(json_object_get(row, "versus"), "row"));
    fprintf(f, "\n%-*s %10s %6s %13s %13s", NAME, "95 %", "rate", "seeds", "safety %",
            "over-ref %");
    if (against) fprintf(f, " %10s %10s %10s", "difference", "p seeds", "p prompts");
    fprintf(f, against ? "   (from %s)\n" : "\n", against);
    json_array_foreach (rows, i, row) {
        const json_t *versus = json_object_get(row, "versus");
        fprintf(f, "%-*s", NAME, name_of(row));
        print_number(json_object_get(row, "rate"), 1, "%.3g", f);
        fprintf(f, " %6d", (int)json_integer_value(json_object_get(row, "seeds")));
        print_interval(row, "safety_rate", 13, f);
        print_interval(row, "over_refusal", 13, f);
        if (versus) print_number(json_object_get(versus, "difference"), 100, "%+.1f", f);
        if (versus) print_number(json_object_get(versus, "paired"), 1, "%.3g", f);
        if (versus) print_number(json_object_get(versus, "mcnemar"), 1, "%.3g", f);
        fputc('\n', f);
    }
    json_array_foreach (rows, i, row) {
        json_int_t n =
            json_integer_value(json_object_get(json_object_get(row, "versus"), "missing"));
        if (n)
            fprintf(f, "%s: %lld prompts without a score in every run are not compared\n",
                    name_of(row), (long long)n);
    }
}

/* Adds the numbers of a list, or one number, to a range; what is null has none. */
static void widen(double range[2], const json_t *value) {
    const json_t *item;
    size_t i;
    json_array_foreach (value, i, item) widen(range, item);
    if (!json_is_number(value)) return;
    double x = 100 * json_number_value(value);
    range[0] = fmin(range[0], x), range[1] = fmax(range[1], x);
}

/* What the two documents of a pair share, over all layers. */
static void print_pairs(const json_t *moments, FILE *f) {
    double shared[2] = {INFINITY, -INFINITY};
    const json_t *layer;
    size_t i;
    json_array_foreach (json_object_get(moments, "layers"), i, layer)
        widen(shared, json_object_get(layer, "shared"));
    if (isfinite(shared[1]))
        fprintf(f, "pairs share %.1f to %.1f %% of their documents' variance in a layer\n",
                shared[0], shared[1]);
}

/* What the columns of a method hold of the features that they were made from, over all layers. */
static void print_subspace(const char *name, const json_t *bases, FILE *f) {
    double captured[2] = {INFINITY, -INFINITY}, coverage[2] = {INFINITY, -INFINITY};
    const json_t *basis;
    size_t i;
    json_array_foreach (bases, i, basis) {
        widen(captured, json_object_get(basis, "captured"));
        widen(coverage, json_object_get(basis, "coverage"));
    }
    if (captured[1] >= 0)
        fprintf(f,
                "%s: its columns hold %.1f to %.1f %% of the features' span in a layer, %.1f to "
                "%.1f %% of a feature\n",
                name, captured[0], captured[1], coverage[0], coverage[1]);
}

/* What cannot be read off the rates: who is without a verdict, and whether two judges agree. */
static void print_judges(const json_t *row, FILE *f) {
    double unjudged = json_number_value(json_object_get(row, "unjudged"));
    if (unjudged > 0)
        fprintf(f, "%s: %.3g responses without a verdict, which count as not safe\n", name_of(row),
                unjudged);
    const json_t *first = json_array_get(json_object_get(row, "runs"), 0);
    const json_t *second = json_object_get(first, "second");
    const json_t *of = json_object_get(second, "agreement"), *safe = json_object_get(of, "safe");
    const json_t *kappa = json_object_get(safe, "kappa");
    const char *name = json_string_value(json_object_get(second, "judge"));
    if (!name) return;
    fprintf(f, "%s: judge %s agrees on who is safe for %.1f %% of %lld responses%s", name_of(row),
            name, 100 * json_number_value(json_object_get(safe, "agreement")),
            (long long)json_integer_value(json_object_get(of, "n")),
            json_array_size(json_object_get(row, "runs")) > 1 ? " of the first seed" : "");
    if (json_is_number(kappa)) fprintf(f, ", kappa %.3f", json_number_value(kappa));
    fputc('\n', f);
}

void summary_print(const json_t *summary, FILE *f) {
    const json_t *rows = json_object_get(summary, "rows");
    json_t *row;
    size_t i;
    fprintf(f, "%-*s", NAME, "method");
    for (int c = 0; c < COLUMNS; c++) fprintf(f, " %*s", columns[c].width, columns[c].head);
    fputc('\n', f);
    json_array_foreach (rows, i, row) {
        fprintf(f, "%-*s", NAME, name_of(row));
        for (int c = 0; c < COLUMNS; c++)
            print_cell(&columns[c], json_object_get(row, columns[c].key), f);
        fputc('\n', f);
    }
    json_array_foreach (rows, i, row) {
        double empty = json_number_value(json_object_get(row, "empty"));
        if (empty > 0)
            fprintf(f, "%s: %.3g responses without a letter or digit, which count as refused\n",
                    name_of(row), empty);
    }
    json_array_foreach (rows, i, row) print_judges(row, f);
    const char *name;
    json_t *bases;
    json_object_foreach (json_object_get(summary, "subspaces"), name, bases)
        print_subspace(name, bases, f);
    print_pairs(json_object_get(summary, "moments"), f);
    if (json_object_get(json_array_get(rows, 0), "interval")) print_comparison(rows, f);
}
