/* metrics.h - the record of a training run: one line per step for people, one JSON object per
 * step in metrics.jsonl under the names that TRL uses. */
#ifndef SAILS_METRICS_H
#define SAILS_METRICS_H

#include <stdio.h>

#include "data/base/err.h"
#include "host/stage/events.h"
#include "model/pair_loss.h"

typedef struct StepMetrics {
    int step, total; /* from 1 */
    double loss, grad_norm, learning_rate, epoch;
    double redundancy;     /* of the adapter before this step; NAN: not measured */
    double seconds;        /* of this step */
    size_t tokens, labels; /* of this step */
    double flops;          /* of this step */
    size_t pairs;          /* of this step; 0: it was one of documents */
    PairFacts facts;       /* means over them */
    int ranks;
    double waited;  /* seconds of this step (and of the last one's end) for other ranks: mean */
    double carried; /* .. while bytes moved: mean, or of a device that goes on meanwhile the least
                     * of any rank, for the others stood still for that one as well */
} StepMetrics;

/* Gets each step's record in place of its line on stdout. */
typedef void step_sink(void *context, const StepMetrics *s);

/* Of all steps of a run so far, also those before it was resumed. */
typedef struct RunTotals {
    size_t steps, tokens, labels;
    double seconds, mean_step; /* in all; moving average of one step */
    double loss_sum, first_loss, last_loss;
} RunTotals;

typedef struct Metrics {
    FILE *file;     /* NULL: none kept */
    Events *events; /* the same lines for TensorBoard; NULL: none */
    char *path;
    bool json;          /* step lines on stdout are JSON too */
    step_sink *sink;    /* NULL: lines on stdout */
    void *sink_context; /* borrowed */
    double peak;        /* flops per second; 0: unknown */
    RunTotals totals;
} Metrics;

/* Starts new files, for TensorBoard the second; a path NULL keeps none. Lines reach the file at
 * once, so that it can be watched. */
bool metrics_open(Metrics *m, const char *path, const char *events, bool json, double peak,
                  Err *err);

/* Goes on from steps that an earlier process did, whose n bytes of lines begin the file. */
bool metrics_resume(Metrics *m, const RunTotals *totals, const char *lines, size_t n, Err *err);
bool metrics_step(Metrics *m, const StepMetrics *s, Err *err);

/* The mean loss over so many labels of documents that are not trained on, or over pairs, after a
 * step. */
typedef struct EvalMetrics {
    int step, total;
    double loss, seconds;
    size_t labels, pairs; /* pairs 0: they were documents */
    PairFacts facts;      /* means over pairs */
} EvalMetrics;
bool metrics_eval(Metrics *m, const EvalMetrics *e, Err *err);
bool metrics_close(Metrics *m, Err *err); /* accepts a zeroed struct */

#endif
