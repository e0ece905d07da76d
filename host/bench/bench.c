/* bench.c - what the kinds of bench share: the machine, the shapes, sums by op. */
#include "host/bench/bench.h"

#include <stdio.h>

#include "data/base/mem.h"
#include "model/presets.h"

/* One column of a table for people; returns what follows it. */
static const char *print_cell(const char *p, int width) {
    int n = (int)strcspn(p, ",");
    if (width < 0)
        printf("%-*.*s", -width, n, p);
    else
        printf("%*.*s", width, n, p);
    return p + n + (p[n] == ',');
}

void table_row(const Table *t, const char *first, const char *row) {
    if (t->csv) {
        printf("%s,%s\n", first, row);
    } else {
        for (int i = 0; i < t->columns; i++) row = print_cell(row, t->width[i]);
        putchar('\n');
    }
    fflush(stdout);
}

const char *table_number(double x) {
    enum { TEXTS = 8 };
    static char text[TEXTS][32];
    static int next;
    char *t = text[next++ % TEXTS];
    snprintf(t, sizeof text[0], "%.*f", x >= 1000 ? 0 : x >= 10 ? 1 : x >= 0.1 ? 3 : 6, x);
    return t;
}

static OpSum *sum_of(OpSums *s, const OpCall *call) {
    for (OpSum *o = s->sum; o < s->sum + s->n; o++)
        if (strcmp(o->op, call->op) == 0 && (!s->by_shape || strcmp(o->shape, call->shape) == 0))
            return o;
    CHECK(s->n < OP_SUMS, "more than %d kinds of calls", OP_SUMS);
    OpSum *o = &s->sum[s->n++];
    *o = (OpSum){.op = call->op};
    if (s->by_shape) memcpy(o->shape, call->shape, sizeof o->shape);
    return o;
}

void op_sums_add(void *context, const OpCall *call) {
    OpSums *s = context;
    OpSum *o = sum_of(s, call);
    o->calls++;
    o->seconds += call->seconds;
    o->bytes += call->bytes;
    o->flops += call->flops;
    o->least += device_peak_seconds(s->peak, call);
}

static int falling(double x, double y) {
    return (x < y) - (x > y);
}
static int by_seconds(const void *a, const void *b) {
    return falling(((const OpSum *)a)->seconds, ((const OpSum *)b)->seconds);
}
static int by_least(const void *a, const void *b) {
    return falling(((const OpSum *)a)->least, ((const OpSum *)b)->least);
}

void op_sums_sort(OpSums *s, enum OpOrder order) {
    qsort(s->sum, (size_t)s->n, sizeof *s->sum, order == BY_SECONDS ? by_seconds : by_least);
}

bool bench_config(Config *c, const Settings *s, Err *err) {
    if (*s->model.path) return config_load(c, s->model.path, err);
    json_t *json = preset_config((enum Preset)s->bench.shape);
    bool ok = config_parse(c, json, "--shape", err);
    json_decref(json);
    return ok;
}
