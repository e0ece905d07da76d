/* op_scope.c - what a watched call of an op does before and after its work.
 *
 * The CUDA plug-in carries a second copy of this file, so nothing here may have static state. */
#include "kernels/op_scope.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

double op_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void op_price(OpScope *s, double bytes, double flops, enum OpUnit unit, const char *shape, ...) {
    va_list args;
    s->call = (OpCall){.op = s->op, .bytes = bytes, .flops = flops, .unit = unit};
    va_start(args, shape);
    vsnprintf(s->call.shape, sizeof s->call.shape, shape, args);
    va_end(args);
}

bool op_start_watched(OpScope *s) {
    s->ex->watch.inside = true;
    s->start = op_clock();
    return !s->ex->watch.count_only;
}

void op_report(OpScope *s) {
    OpWatch *watch = &s->ex->watch;
    exec_sync(s->ex);
    s->call.seconds = op_clock() - s->start;
    watch->inside = false;
    watch->sink(watch->context, &s->call);
}
