/* table.h - a study's numbers: rows of named columns, each cell the mean of what repeats gave. */
#ifndef SAILS_THEORY_TABLE_H
#define SAILS_THEORY_TABLE_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

enum ColumnKind {
    COLUMN_KEY,      /* what the study varies */
    COLUMN_MEASURED, /* has a standard error, in CSV as the column NAME_se */
    COLUMN_CLOSED    /* a formula; its mean where it depends on the draw */
};
enum ColumnShown { COLUMN_SHOWN, COLUMN_IN_CSV }; /* in the printed table, too, or not */

typedef struct Column {
    const char *name;
    enum ColumnKind kind;
    enum ColumnShown shown;
} Column;

typedef struct Table {
    const Column *column; /* borrowed */
    int columns, rows;
    struct Cell *cell; /* (rows, columns) */
} Table;

void table_init(Table *t, const Column *column, int columns, int rows);
void table_free(Table *t); /* accepts a zeroed Table */

/* One more value of a cell. */
void table_add(Table *t, int row, const char *column, double value);

/* Mean and standard error of a cell; NAN where it has no values, or only one. */
double table_mean(const Table *t, int row, const char *column);
double table_error(const Table *t, int row, const char *column);

/* A header of names and a line a row; an empty field stands for no number. */
void table_csv(FILE *f, const Table *t);
void table_print(FILE *f, const Table *t);
json_t *table_json(const Table *t); /* an array of objects; null for no number */

#endif
