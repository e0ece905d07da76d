/* op_cost.h - what each call of an op must move and compute at least, and how long it took.
 *
 * A watched Exec has another table of ops: each of them works out the cost of the call from its
 * arguments, calls the device's own op, waits for it, and hands on what it saw. The formulas stand
 * there once, for benches of single ops, for whole steps, and for steps that only run on paper. */
#ifndef SAILS_OP_COST_H
#define SAILS_OP_COST_H

#include "kernels/ops.h"

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

/* From now on calls through ex->op go to the sink. One Exec at a time. A device without ops (its
 * table is NULL) has nothing to run. */
void op_cost_begin(Exec *ex, op_sink *sink, void *context);
void op_cost_end(Exec *ex);

#endif
