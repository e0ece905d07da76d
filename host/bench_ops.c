/* bench_ops.c - `sails bench --ops`: tensors and the timing of one op. */
#include "host/bench_ops.h"

#include <stdio.h>

#include "host/base/mem.h"
#include "host/base/rng.h"
#include "host/print.h"
#include "kernels/bf16.h"

/* -------------------------------------------------------------------------------- tensors -- */

enum { TILE = (1 << 20) + 7 }; /* elements of noise that repeat: no divisor of a row's length */

static void *noise(OpsBench *o, size_t n, enum Dtype t, double scale) {
    size_t size = dtype_size(t), tile = n < TILE ? n : TILE;
    char *host = mem_array(tile, size), *p = exec_alloc(o->ex, n * size, "bench");
    for (size_t i = 0; i < tile; i++) {
        float f = (float)(scale * ((double)(rng_u64(0, 0, i) >> 11) * 0x1p-52 - 1));
        bf16 h = bf16_from_f32(f);
        memcpy(host + i * size, t == DTYPE_F32 ? (void *)&f : (void *)&h, size);
    }
    for (size_t at = 0; at < n; at += tile)
        exec_copy_in(o->ex, p + at * size, host, (n - at < tile ? n - at : tile) * size);
    free(host);
    return p;
}

store *bench_store(OpsBench *o, size_t n, double scale) {
    return noise(o, n, o->ex->dtype, scale);
}
float *bench_f32(OpsBench *o, size_t n, double scale) {
    return noise(o, n, DTYPE_F32, scale);
}

void *bench_copy(OpsBench *o, const void *host, size_t bytes) {
    void *p = exec_alloc(o->ex, bytes, "bench");
    exec_copy_in(o->ex, p, host, bytes);
    return p;
}

void *bench_blank(OpsBench *o, size_t bytes) {
    enum { PIECE = 1 << 20 };
    char *host = mem_array(PIECE, 1), *p = exec_alloc(o->ex, bytes, "bench");
    memset(host, 0xff, PIECE);
    for (size_t at = 0; at < bytes; at += PIECE)
        exec_copy_in(o->ex, p + at, host, bytes - at < PIECE ? bytes - at : PIECE);
    free(host);
    return p;
}
store *bench_blank_store(OpsBench *o, size_t n) {
    return bench_blank(o, n * dtype_size(o->ex->dtype));
}

void bench_free(OpsBench *o, void **p, size_t n) {
    for (size_t i = 0; i < n; i++) exec_free(o->ex, p[i]);
}

static void expect_finite(OpsBench *o, Output output) {
    if (!output.p) return;
    int64_t bad, *index = exec_alloc(o->ex, sizeof *index, "bench");
    if (output.f32)
        o->ex->op->find_bad_f32(o->ex, index, output.p, output.n);
    else
        o->ex->op->find_bad(o->ex, index, output.p, output.n);
    exec_copy_out(o->ex, &bad, index, sizeof bad);
    exec_free(o->ex, index);
    CHECK(bad < 0, "%s left element %lld of %zu bad", o->call.op, (long long)bad, output.n);
}

/* --------------------------------------------------------------------------------- timing -- */

bool bench_wants(const OpsBench *o, const char *op) {
    return strstr(op, o->b->s->bench.filter) != NULL;
}

static void note(void *context, const OpCall *call) {
    ((OpsBench *)context)->call = *call;
}

void bench_watch(OpsBench *o) {
    watch_begin(o->ex, note, o);
}

void bench_begin(OpsBench *o, Output output) {
    const double run = 1e-3; /* seconds: waiting for a GPU costs some of the last digit of these */
    const int most = 100;
    watch_end(o->ex);
    expect_finite(o, output);
    o->calls = o->call.seconds * most > run ? (int)(run / o->call.seconds) : most;
    if (o->calls < 1) o->calls = 1;
    o->runs = -2; /* one more to warm up, and the call of bench_more that begins it */
    exec_sync(o->ex);
}

bool bench_more(OpsBench *o) {
    exec_sync(o->ex);
    double now = clock_seconds();
    if (o->runs >= 0) o->seconds[o->runs] = (now - o->start) / o->calls;
    o->runs++;
    if (o->runs == 0) o->end = now + o->b->s->bench.seconds;
    o->start = now;
    return o->runs < BENCH_MIN_RUNS || (o->runs < BENCH_MAX_RUNS && now < o->end);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_row(OpsBench *o) {
    char row[256];
    const OpCall *c = &o->call;
    qsort(o->seconds, (size_t)o->runs, sizeof *o->seconds, by_value);
    double median = o->seconds[o->runs / 2];
    snprintf(row, sizeof row, "%s,%s,%d,%s,%s,%s,%s,%s,%s", c->op, c->shape, o->runs * o->calls,
             table_number(1e6 * o->seconds[0]), table_number(1e6 * median),
             table_number(1e6 * o->seconds[o->runs - 1]), table_number(1e-9 * c->bytes / median),
             table_number(1e-9 * c->flops / median),
             table_number(100 * peak_seconds(&o->b->peak, c) / median));
    table_row(&o->table, o->first, row);
    o->printed++;
}

/* ------------------------------------------------------------------------------- the bench -- */

static void run_cases(OpsBench *o, const OpsCase *cases) {
    for (const OpsCase *c = cases; c->ops; c++)
        if (strstr(c->ops, o->b->s->bench.filter)) c->run(o);
}

bool bench_ops(const Bench *b, Err *err) {
    static const int width[] = {-18, -34, 8, 11, 11, 11, 10, 11, 17};
    Config c;
    if (!bench_config(&c, b->s, err)) return false;
    OpsBench o = {.b = b, .ex = &b->r->ex, .c = &c, .N = b->s->bench.rows};
    o.table = (Table){b->s->bench.csv, width, sizeof width / sizeof *width};
    snprintf(o.first, sizeof o.first, "%s,%s", b->machine, o.ex->op->name);
    table_row(&o.table, "device,twin",
              "op,shape,calls,min_us,median_us,max_us,GB/s,GFLOP/s,percent_of_peak");
    run_cases(&o, bench_products);
    run_cases(&o, bench_rows);
    run_cases(&o, bench_others);
    config_free(&c);
    return o.printed > 0 ||
           err_set(err, EXIT_USAGE, "--filter: no op's name holds '%s'", b->s->bench.filter);
}
