#include "bench/bench.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double bench_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int bench_more(Bench *b) {
    if (b->runs < 0) return 1;
    if (b->runs == 0) b->end = bench_seconds() + BENCH_SECONDS;
    if (b->runs == BENCH_MAX_RUNS) return 0;
    return b->runs < BENCH_MIN_RUNS || bench_seconds() < b->end;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_header(void) {
    puts("twin,op,shape,runs,min_us,median_us,max_us,GB/s,GFLOP/s,percent_of_roof");
}

void bench_print(Bench *b, const char *twin, const char *op, const char *shape, double bytes,
                 double flops, double roof_seconds) {
    qsort(b->seconds, (size_t)b->runs, sizeof *b->seconds, by_value);
    double median = b->seconds[b->runs / 2];
    printf("%s,%s,%s,%d,%.1f,%.1f,%.1f,%.1f,%.1f,%.0f\n", twin, op, shape, b->runs,
           1e6 * b->seconds[0], 1e6 * median, 1e6 * b->seconds[b->runs - 1], 1e-9 * bytes / median,
           1e-9 * flops / median, 100 * roof_seconds / median);
    fflush(stdout);
}

/* Fourteen independent chains hide the latency of any current processor. Inline assembly, because
 * compilers fold loops of intrinsics whose result is known. */
#define CHAINS(op, r)                                                                         \
    op(r, 0) op(r, 1) op(r, 2) op(r, 3) op(r, 4) op(r, 5) op(r, 6) op(r, 7) op(r, 8) op(r, 9) \
        op(r, 10) op(r, 11) op(r, 12) op(r, 13)
#define FMA(r, i) "vfmadd231ps %%" r "14, %%" r "15, %%" r #i "\n\t"
#define DOT(r, i) "vdpbf16ps %%" r "14, %%" r "15, %%" r #i "\n\t"
#define CLEAR(r, i) "vpxor %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n\t"
#define CLOBBERS                                                                             \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
enum { STEPS = 20000000, CHAIN_COUNT = 14 };

#define CHAIN_LOOP(name, op, r)                                                      \
    static void name(void) {                                                         \
        __asm__ volatile(CHAINS(CLEAR, r) CLEAR(r, 14) CLEAR(r, 15)::: CLOBBERS);    \
        for (int i = 0; i < STEPS; i++) __asm__ volatile(CHAINS(op, r)::: CLOBBERS); \
    }

#if defined __AVX512F__
enum { LANES = 16 };
CHAIN_LOOP(fma_chains, FMA, "zmm")
#elif defined __FMA__
enum { LANES = 8 };
CHAIN_LOOP(fma_chains, FMA, "ymm")
#endif
#if defined __AVX512BF16__
CHAIN_LOOP(dot_chains, DOT, "zmm")
#endif

/* Best of three: what is wanted is the machine's limit, not its average. */
static double fastest(void work(void)) {
    double best = 1e30;
    for (int i = 0; i < 3; i++) {
        double start = bench_seconds();
#pragma omp parallel
        work();
        double took = bench_seconds() - start;
        if (took < best) best = took;
    }
    return best;
}

static double *big, sink;
enum { BIG = 1 << 25 }; /* doubles: 256 MB, more than any cache */

static void read_big(void) {
    size_t share = BIG / (size_t)omp_get_num_threads(), first = share * omp_get_thread_num();
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = first; i < first + share; i++) sum += big[i];
#pragma omp atomic
    sink += sum;
}

Peak peak_measure(void) {
    Peak p = {0};
#if defined __FMA__
    p.f32 = omp_get_max_threads() * 2.0 * LANES * CHAIN_COUNT * STEPS / fastest(fma_chains);
#endif
#if defined __AVX512BF16__
    p.bf16 = omp_get_max_threads() * 4.0 * LANES * CHAIN_COUNT * STEPS / fastest(dot_chains);
#endif
    big = malloc(BIG * sizeof *big);
    if (!big) return p;
    memset(big, 0, BIG * sizeof *big); /* touched: real pages, not the shared zero page */
    p.bytes = BIG * sizeof *big / fastest(read_big);
    free(big);
    if (sink != 0) p.bytes = 0; /* also keeps the sum alive */
    return p;
}
