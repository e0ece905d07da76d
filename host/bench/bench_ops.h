/* bench_ops.h - what the benches of ops share: the device, tensors on it, the timing of one op. */
#ifndef SAILS_BENCH_OPS_H
#define SAILS_BENCH_OPS_H

#include "host/bench/bench.h"

/* LoRA rank, SAE features, and the most rows of logits and SAE activations. */
enum { RANK = 16, FEATURES = 16384, HEAD_ROWS = 256 };
enum { BENCH_MIN_RUNS = 5, BENCH_MAX_RUNS = 1000, BENCH_TENSORS = 16 };

/* A device tensor. While an op is timed, the variable that points to it steps through copies. */
typedef struct BenchTensor {
    void *variable; /* address of a pointer of any type */
    char *p;        /* the tensor itself */
    size_t bytes;
} BenchTensor;

/* What a bench of an op does next. */
enum BenchStage { BENCH_COLD, BENCH_WARM, BENCH_TIMED };

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
    BenchTensor tensor[BENCH_TENSORS];
    int tensors;
    char *copies;  /* of all tensors, set behind set */
    int sets, set; /* with the tensors themselves; the one that the variables point to */
    enum BenchStage stage;
    int calls; /* of a run, so many that the clock's steps are nothing beside them */
    double seconds[BENCH_MAX_RUNS]; /* of a call, on average over those of a run */
    int runs;
    double end; /* when the least time is over */
} OpsBench;

/* Device tensors: noise in [-scale,scale), copies of host data, zeros, or all NaN, to see that an
 * op writes every element. Each is put where `variable` points, which must be a pointer and live
 * until bench_free frees all. */
void bench_store(OpsBench *o, void *variable, size_t n, double scale);
void bench_f32(OpsBench *o, void *variable, size_t n, double scale);
void bench_copy(OpsBench *o, void *variable, const void *host, size_t bytes);
void bench_zero(OpsBench *o, void *variable, size_t bytes);
void bench_blank(OpsBench *o, void *variable, size_t bytes);
void bench_blank_store(OpsBench *o, void *variable, size_t n);
void bench_free(OpsBench *o);

/* What an op writes: elements that must be finite after its first call. */
typedef struct Output {
    const void *p;
    size_t n;
    bool f32; /* else of the storage type */
} Output;
#define OUT_STORE(p, n) ((Output){p, n, false})
#define OUT_F32(p, n) ((Output){p, n, true})
#define OUT_OTHER ((Output){NULL, 0, false}) /* of another type: not looked at */

/* Times ex->op->name(ex, ...) and prints its row, if the filter lets it.
 *
 * The first call is not timed: it is cold, a library may choose its algorithm in it, and its output
 * is looked at. The next tells how many calls make a run. From call to call the arguments, which
 * are evaluated each time, name another copy of the tensors: so many copies that together they are
 * several times the device's last cache, for in a step, too, an op finds there little of what it
 * reads. Times are the device's own (exec_timer_start). With --once only one call is timed, in the
 * range "timed" like all that are. */
#define BENCH_OP(o, name, output, ...)                                  \
    do {                                                                \
        if (!bench_wants(o, #name)) break;                              \
        bench_watch(o);                                                 \
        (o)->ex->op->name((o)->ex, __VA_ARGS__);                        \
        bench_begin(o, output);                                         \
        while (bench_more(o))                                           \
            for (int call_ = 0; call_ < (o)->calls; call_++)            \
                bench_next(o), (o)->ex->op->name((o)->ex, __VA_ARGS__); \
        bench_row(o);                                                   \
    } while (0)
bool bench_wants(const OpsBench *o, const char *op);
void bench_watch(OpsBench *o);
void bench_begin(OpsBench *o, Output output);
bool bench_more(OpsBench *o);
void bench_next(OpsBench *o);
void bench_row(OpsBench *o);

/* Benches, each of the ops that it names, separated by spaces; ends with NULL. */
typedef struct OpsCase {
    const char *ops;
    void (*run)(OpsBench *o);
} OpsCase;
extern const OpsCase bench_products[], bench_rows[], bench_others[];

#endif
