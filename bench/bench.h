/* bench.h - times one statement and prints one CSV row: what ran, how long, how near the roof. */
#ifndef SAILS_BENCH_H
#define SAILS_BENCH_H

/* Rates that no program on this machine passes, measured by all its OpenMP threads together. Zero
 * where the processor, or the compiler's target, lacks the instruction. */
typedef struct Peak {
    double f32, bf16; /* FLOP/s: fused multiply-adds, bf16 pair dot products */
    double bytes;     /* bytes/s read from memory */
} Peak;

Peak peak_measure(void);

double bench_seconds(void); /* a clock that only moves forward */

/* Two warm-ups, then runs until BENCH_MIN_RUNS and BENCH_SECONDS are both reached. */
enum { BENCH_MIN_RUNS = 15, BENCH_MAX_RUNS = 1000 };
#define BENCH_SECONDS 0.5

typedef struct Bench {
    double seconds[BENCH_MAX_RUNS];
    int runs;
    double end; /* when the least time is over */
} Bench;

int bench_more(Bench *b); /* whether another run is due */

/* bytes and flops: what the op must move and compute at least, so that rates never flatter; roof:
 * the fastest that `peak` allows for them. */
void bench_print(Bench *b, const char *twin, const char *op, const char *shape, double bytes,
                 double flops, double roof_seconds);
void bench_header(void);

#define BENCH(twin, op, shape, bytes, flops, roof_seconds, stmt, sync)                    \
    do {                                                                                  \
        Bench bench_ = {.runs = -2};                                                      \
        while (bench_more(&bench_)) {                                                     \
            double start_ = bench_seconds();                                              \
            stmt;                                                                         \
            sync;                                                                         \
            if (bench_.runs >= 0) bench_.seconds[bench_.runs] = bench_seconds() - start_; \
            bench_.runs++;                                                                \
        }                                                                                 \
        bench_print(&bench_, twin, op, shape, bytes, flops, roof_seconds);                \
    } while (0)

#endif
