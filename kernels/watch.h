/* watch.h - what somebody who watches an Exec is told of each call of an op. */
#ifndef SAILS_WATCH_H
#define SAILS_WATCH_H

#include <stdbool.h>

/* Which arithmetic does the work: one element at a time in f32, or matrix products, for which
 * devices have units of their own. */
enum OpUnit { UNIT_VECTOR, UNIT_PRODUCT };

typedef struct OpCall {
    const char *op; /* static */
    char shape[64]; /* for people and CSV: no comma */
    /* Least there is to do: every tensor moves once, nothing is computed twice but what the
     * contract makes an op compute again. A call that only moves has no FLOPs. */
    double bytes, flops;
    enum OpUnit unit;
    double seconds; /* until the device had done it */
} OpCall;

typedef void op_sink(void *context, const OpCall *call);

/* Exec.watch. */
typedef struct OpWatch {
    op_sink *sink; /* NULL: nobody watches */
    void *context;
    bool count_only; /* ops return before they touch memory */
    bool inside;     /* an op runs: those that it calls are part of it */
} OpWatch;

#endif
