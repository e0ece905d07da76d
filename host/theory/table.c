/* table.c - means over repeats, by row and column. */
#include "host/theory/table.h"

#include <math.h>

#include "data/base/mem.h"
#include "host/cli/json_lines.h"

/* Welford's: the variance of equal values is exactly 0. */
typedef struct Cell {
    double mean, squares; /* of deviations from the mean */
    int n;
} Cell;

void table_init(Table *t, const Column *column, int columns, int rows) {
    *t = (Table){column, columns, rows, mem_array((size_t)columns * (size_t)rows, sizeof(Cell))};
}

void table_free(Table *t) {
    free(t->cell);
    memset(t, 0, sizeof *t);
}

static Cell *cell_of(const Table *t, int row, const char *column) {
    CHECK(row >= 0 && row < t->rows, "row %d of %d", row, t->rows);
    for (int c = 0; c < t->columns; c++)
        if (strcmp(t->column[c].name, column) == 0) return &t->cell[row * t->columns + c];
    die(__FILE__, __LINE__, __func__, "no column %s", column);
}

void table_add(Table *t, int row, const char *column, double value) {
    Cell *c = cell_of(t, row, column);
    double off = value - c->mean;
    c->mean += off / ++c->n;
    c->squares += off * (value - c->mean);
}

static double mean(const Cell *c) {
    return c->n ? c->mean : NAN;
}

static double error(const Cell *c) {
    return c->n > 1 ? sqrt(c->squares / (c->n - 1) / c->n) : NAN;
}

double table_mean(const Table *t, int row, const char *column) {
    return mean(cell_of(t, row, column));
}

double table_error(const Table *t, int row, const char *column) {
    return error(cell_of(t, row, column));
}

static void number(FILE *f, double v) {
    if (isfinite(v)) fprintf(f, "%.9g", v);
}

void table_csv(FILE *f, const Table *t) {
    for (int c = 0; c < t->columns; c++) {
        fprintf(f, "%s%s", c ? "," : "", t->column[c].name);
        if (t->column[c].kind == COLUMN_MEASURED) fprintf(f, ",%s_se", t->column[c].name);
    }
    fputc('\n', f);
    for (int i = 0; i < t->rows * t->columns; i++) {
        int c = i % t->columns;
        if (c) fputc(',', f);
        number(f, mean(&t->cell[i]));
        if (t->column[c].kind == COLUMN_MEASURED) fputc(',', f), number(f, error(&t->cell[i]));
        if (c == t->columns - 1) fputc('\n', f);
    }
}

void table_print(FILE *f, const Table *t) {
    enum { NARROWEST = 8 };
    for (int row = -1; row < t->rows; row++) {
        for (int c = 0; c < t->columns; c++) {
            const char *name = t->column[c].name;
            int width = strlen(name) > NARROWEST ? (int)strlen(name) : NARROWEST;
            if (t->column[c].shown != COLUMN_SHOWN) continue;
            if (row < 0)
                fprintf(f, "  %*s", width, name);
            else
                fprintf(f, "  %*.4g", width, mean(&t->cell[row * t->columns + c]));
        }
        fputc('\n', f);
    }
}

json_t *table_json(const Table *t) {
    json_t *rows = json_array();
    for (int row = 0; row < t->rows; row++) {
        json_t *object = json_object();
        for (int c = 0; c < t->columns; c++) {
            const Cell *cell = &t->cell[row * t->columns + c];
            char name[64];
            json_object_set_new(object, t->column[c].name, json_number(mean(cell)));
            if (t->column[c].kind != COLUMN_MEASURED) continue;
            snprintf(name, sizeof name, "%s_se", t->column[c].name);
            json_object_set_new(object, name, json_number(error(cell)));
        }
        json_array_append_new(rows, object);
    }
    return rows;
}
