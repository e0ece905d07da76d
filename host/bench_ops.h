/* bench_ops.h - what the benches of ops share: the device, tensors on it, the timing of one op. */
#ifndef SAILS_BENCH_OPS_H
#define SAILS_BENCH_OPS_H

#include "host/bench.h"

/* LoRA rank, SAE features, and the most rows of logits and SAE activations. */
enum { RANK = 16, FEATURES = 16384, HEAD_ROWS = 256 };
enum { BENCH_MIN_RUNS = 5, BENCH_MAX_RUNS = 1000 };

typedef struct OpsBench {
    const Bench *b;
    Exec *ex;
    const Config *c;
    int N; /* rows of a pack */
    Table table;
    char first[192]; /* columns in front of each row of CSV */
    int printed;     /* rows */
    /* Of the op being timed: */
    OpCall call; /* its first call, which was watched */
    int calls;   /* between two waits for the device, so many that waiting is not what is timed */
    double seconds[BENCH_MAX_RUNS]; /* of a call, on average over those of a run */
    int runs;
    double start, end; /* of this run; when the least time is over */
} OpsBench;

/* Device tensors: noise in [-scale,scale), copies of host data, or all NaN, to see that an op
 * writes every element. Freed by BENCH_FREE. */
store *bench_store(OpsBench *o, size_t n, double scale);
float *bench_f32(OpsBench *o, size_t n, double scale);
void *bench_copy(OpsBench *o, const void *host, size_t bytes);
void *bench_blank(OpsBench *o, size_t bytes);
store *bench_blank_store(OpsBench *o, size_t n);
void bench_free(OpsBench *o, void **p, size_t n);
#define BENCH_FREE(o, ...) \
    bench_free(o, (void *[]){__VA_ARGS__}, sizeof((void *[]){__VA_ARGS__}) / sizeof(void *))

/* What an op writes: elements that must be finite after its first call. */
typedef struct Output {
    const void *p;
    size_t n;
    bool f32; /* else of the storage type */
} Output;
#define OUT_STORE(p, n) ((Output){p, n, false})
#define OUT_F32(p, n) ((Output){p, n, true})
#define OUT_OTHER ((Output){NULL, 0, false}) /* of another type: not looked at */

/* Times ex->op->name(ex, ...) and prints its row, if the filter lets it. */
#define BENCH_OP(o, name, output, ...)                       \
    do {                                                     \
        if (!bench_wants(o, #name)) break;                   \
        bench_watch(o);                                      \
        (o)->ex->op->name((o)->ex, __VA_ARGS__);             \
        bench_begin(o, output);                              \
        while (bench_more(o))                                \
            for (int call_ = 0; call_ < (o)->calls; call_++) \
                (o)->ex->op->name((o)->ex, __VA_ARGS__);     \
        bench_row(o);                                        \
    } while (0)
bool bench_wants(const OpsBench *o, const char *op);
void bench_watch(OpsBench *o);
void bench_begin(OpsBench *o, Output output);
bool bench_more(OpsBench *o);
void bench_row(OpsBench *o);

/* Benches, each of the ops that it names, separated by spaces; ends with NULL. */
typedef struct OpsCase {
    const char *ops;
    void (*run)(OpsBench *o);
} OpsCase;
extern const OpsCase bench_products[], bench_rows[], bench_others[];

#endif
