/* bench_ops.c - `sails bench --ops`: tensors and the timing of one op. */
#include "host/bench/bench_ops.h"

#include <math.h>
#include <stdio.h>

#include "data/base/mem.h"
#include "host/stage/noise.h"
#include "host/cli/print.h"

/* -------------------------------------------------------------------------------- tensors -- */

enum { APART = 256 }; /* sets and tensors within one begin at multiples of it, as allocations do */

static size_t room(size_t bytes) {
    return (bytes + APART - 1) / APART * APART;
}

static char *add_tensor(OpsBench *o, void *variable, size_t bytes) {
    CHECK(o->tensors < BENCH_TENSORS, "expected at most %d tensors", BENCH_TENSORS);
    char *p = exec_alloc(o->ex, bytes, "bench");
    o->tensor[o->tensors++] = (BenchTensor){variable, p, bytes};
    memcpy(variable, &p, sizeof p);
    return p;
}

void bench_store(OpsBench *o, void *variable, size_t n, double scale) {
    enum Dtype t = o->ex->dtype;
    noise_fill(o->ex, add_tensor(o, variable, n * dtype_size(t)), n, t, scale);
}
void bench_f32(OpsBench *o, void *variable, size_t n, double scale) {
    noise_fill(o->ex, add_tensor(o, variable, n * sizeof(float)), n, DTYPE_F32, scale);
}

void bench_copy(OpsBench *o, void *variable, const void *host, size_t bytes) {
    exec_copy_in(o->ex, add_tensor(o, variable, bytes), host, bytes);
}

void bench_blank(OpsBench *o, void *variable, size_t bytes) {
    enum { PIECE = 1 << 20 };
    char *host = mem_array(PIECE, 1), *p = add_tensor(o, variable, bytes);
    memset(host, 0xff, PIECE);
    for (size_t at = 0; at < bytes; at += PIECE)
        exec_copy_in(o->ex, p + at, host, bytes - at < PIECE ? bytes - at : PIECE);
    free(host);
}
void bench_blank_store(OpsBench *o, void *variable, size_t n) {
    bench_blank(o, variable, n * dtype_size(o->ex->dtype));
}

void bench_zero(OpsBench *o, void *variable, size_t bytes) {
    exec_zero(o->ex, add_tensor(o, variable, bytes), bytes);
}

void bench_free(OpsBench *o) {
    while (o->tensors > 0) exec_free(o->ex, o->tensor[--o->tensors].p);
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
    exec_watch(o->ex, note, o);
}

/* ----- copies that the timed calls step through */

static size_t set_bytes(const OpsBench *o) {
    size_t bytes = 0;
    for (int i = 0; i < o->tensors; i++) bytes += room(o->tensor[i].bytes);
    return bytes;
}

/* How many sets of the tensors: what the calls touch is then SEVERAL times the cache. An op that
 * touches little has enough of MOST: it waits for its launch, and in a step, too, finds a few
 * kilobytes where the op before left them. */
static int count_sets(OpsBench *o) {
    enum { SEVERAL = 4, MOST = 32 };
    double bytes = set_bytes(o), free_bytes = 4e9, wanted = SEVERAL * (double)exec_cache(o->ex);
    size_t available, all;
    if (exec_memory(o->ex, &available, &all)) free_bytes = 0.5 * (double)available;
    double sets = ceil(wanted / fmax(o->call.bytes, 1));
    return (int)fmax(1, fmin(fmin(sets, MOST), 1 + floor(free_bytes / fmax(bytes, 1))));
}

/* The variables point into this set. */
static void point_to(OpsBench *o, int set) {
    char *p = o->copies + (size_t)(set > 0 ? set - 1 : 0) * set_bytes(o);
    o->set = set;
    for (BenchTensor *t = o->tensor; t < o->tensor + o->tensors; p += room(t++->bytes))
        memcpy(t->variable, set > 0 ? &p : &t->p, sizeof p);
}

static void make_sets(OpsBench *o) {
    size_t bytes = set_bytes(o);
    o->sets = count_sets(o);
    o->copies = exec_alloc(o->ex, (size_t)(o->sets - 1) * bytes, "bench");
    char *p = o->copies;
    for (int set = 1; set < o->sets; set++)
        for (BenchTensor *t = o->tensor; t < o->tensor + o->tensors; p += room(t++->bytes))
            exec_copy(o->ex, p, t->p, t->bytes);
}

static void drop_sets(OpsBench *o) {
    point_to(o, 0);
    exec_free(o->ex, o->copies);
    o->copies = NULL;
}

void bench_next(OpsBench *o) {
    point_to(o, (o->set + 1) % o->sets);
}

/* ----- runs */

void bench_begin(OpsBench *o, Output output) {
    exec_watch_end(o->ex);
    expect_finite(o, output);
    make_sets(o);
    o->stage = BENCH_COLD;
    o->runs = 0;
    exec_sync(o->ex);
}

/* A run of calls is over, none at BENCH_COLD; says whether another is to begin. */
static bool advance(OpsBench *o, double seconds) {
    const double run = 1e-3; /* seconds: a clock's steps are some of the last digits of these */
    const int most = 100;
    if (o->stage == BENCH_COLD) {
        o->stage = o->b->s->bench.once ? BENCH_TIMED : BENCH_WARM;
        o->calls = 1;
        return true;
    }
    if (o->stage == BENCH_WARM) {
        o->stage = BENCH_TIMED;
        o->calls = seconds * most > run ? (int)(run / seconds) : most;
        if (o->calls < 1) o->calls = 1;
        o->end = clock_seconds() + o->b->s->bench.seconds;
        return true;
    }
    o->seconds[o->runs++] = seconds;
    if (o->b->s->bench.once) return false;
    return o->runs < BENCH_MIN_RUNS || (o->runs < BENCH_MAX_RUNS && clock_seconds() < o->end);
}

bool bench_more(OpsBench *o) {
    double seconds = 0;
    if (o->stage != BENCH_COLD) {
        seconds = exec_timer_stop(o->ex) / o->calls;
        exec_range_pop(o->ex);
    }
    if (!advance(o, seconds)) return false;
    exec_range_push(o->ex, "%s", o->stage == BENCH_TIMED ? "timed" : "warm");
    exec_timer_start(o->ex);
    return true;
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
             table_number(100 * device_peak_seconds(&o->b->peak, c) / median));
    table_row(&o->table, o->first, row);
    o->printed++;
    drop_sets(o);
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
