/* bench.h - `sails bench`: what ops, training steps and scoring passes cost on this device, beside
 * what its peaks allow; and what a training step would cost on an H100 by the formulas alone. */
#ifndef SAILS_BENCH_H
#define SAILS_BENCH_H

#include "host/bench/device_peak.h"
#include "host/stage/runtime.h"

typedef struct Bench {
    const Settings *s;
    Runtime *r;        /* its device is open */
    Peak peak;         /* of that device */
    char machine[128]; /* the name of its processor or card */
} Bench;

/* Every op at the shapes of a model. Nothing but its config.json is read. */
bool bench_ops(const Bench *b, Err *err);

/* Training steps of a model (--method) and scoring passes over pairs: the whole, then by op. */
bool bench_step(const Bench *b, Err *err);
bool bench_score(const Bench *b, Err *err);

/* The training step of --shape on an H100, call by call, from the calls that the model makes on a
 * device that computes nothing. */
bool bench_derive(const Settings *s, Err *err);

/* --------------------------------------------------------------------- shared by the above -- */

/* A table on stdout, its rows as texts with commas between the columns. With --csv they are printed
 * as they are, behind the columns `first`; else in columns of so many characters, negative ones to
 * the left, without `first`. */
typedef struct Table {
    bool csv;
    const int *width;
    int columns;
} Table;
void table_row(const Table *t, const char *first, const char *row);

/* A number for a row, with three digits or more and never an exponent. Returns text from static
 * storage that the next seven calls leave alone. */
const char *table_number(double x);

/* Sums over calls of one kind. */
typedef struct OpSum {
    const char *op; /* of OpCall */
    char shape[64]; /* "" where shapes are put together */
    size_t calls;
    double seconds, bytes, flops, least; /* least: what a peak leaves, call by call */
} OpSum;
enum { OP_SUMS = 128 };
typedef struct OpSums {
    OpSum sum[OP_SUMS];
    int n;
    bool by_shape;
    const Peak *peak;
} OpSums;
op_sink op_sums_add; /* with an OpSums as context */
enum OpOrder { BY_SECONDS, BY_LEAST };
void op_sums_sort(OpSums *s, enum OpOrder order); /* longest first */

/* The config of --model where there is one, else of --shape. */
bool bench_config(Config *c, const Settings *s, Err *err);

#endif
