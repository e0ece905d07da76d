/* device_peak.c - loops that do nothing but multiply or read, and the best of their times. */
#include "host/bench/device_peak.h"

#include <math.h>
#include <omp.h>

#include "data/base/mem.h"
#include "host/stage/noise.h"
#include "host/stage/flops.h"
#include "host/cli/print.h"
#include "kernels/cpu/tile.h"
#include "kernels/device.h"

double device_peak_seconds(const Peak *peak, const OpCall *call) {
    double rate = call->unit == UNIT_PRODUCT ? peak->products : peak->vectors;
    double memory = peak->bytes > 0 ? call->bytes / peak->bytes : 0;
    return fmax(memory, rate > 0 ? call->flops / rate : 0);
}

/* --------------------------------------------------------------------------- the processor -- */

/* Chains of the instructions that tile.h has decided on for the kernels, whatever else the
 * processor could do. Fourteen independent ones hide the latency of any current processor. Inline
 * assembly, because compilers fold loops of intrinsics whose result is known. */
#define CHAINS(op, r)                                                                         \
    op(r, 0) op(r, 1) op(r, 2) op(r, 3) op(r, 4) op(r, 5) op(r, 6) op(r, 7) op(r, 8) op(r, 9) \
        op(r, 10) op(r, 11) op(r, 12) op(r, 13)
#define FMA(r, i) "vfmadd231ps %%" r "14, %%" r "15, %%" r #i "\n\t"
#define DOT(r, i) "vdpbf16ps %%" r "14, %%" r "15, %%" r #i "\n\t"
#define CLEAR(r, i) "vpxor %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n\t"
#define CLOBBERS                                                                             \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
enum { STEPS = 2000000, CHAIN_COUNT = 14, TRIES = 30 };

#define CHAIN_LOOP(name, op, r)                                                      \
    static void name(void) {                                                         \
        __asm__ volatile(CHAINS(CLEAR, r) CLEAR(r, 14) CLEAR(r, 15)::: CLOBBERS);    \
        for (int i = 0; i < STEPS; i++) __asm__ volatile(CHAINS(op, r)::: CLOBBERS); \
    }

#if defined TILE_FMA
CHAIN_LOOP(fma_chains, FMA, TILE_REGISTER)
#endif
#if defined TILE_PAIRS
CHAIN_LOOP(dot_chains, DOT, TILE_REGISTER)
#endif

/* The best of several: what is wanted is the machine's limit, not its average. */
static double fastest(void work(void), int tries) {
    double best = INFINITY;
    for (int i = 0; i < tries; i++) {
        double start = clock_seconds();
#pragma omp parallel
        work();
        best = fmin(best, clock_seconds() - start);
    }
    return best;
}

static double *big, sink;
enum { BIG = 1 << 25 }; /* doubles: 256 MB, more than any cache */

static void read_big(void) {
    size_t share = BIG / (size_t)omp_get_num_threads(),
           first = share * (size_t)omp_get_thread_num();
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = first; i < first + share; i++) sum += big[i];
#pragma omp atomic
    sink += sum;
}

static double read_rate(void) {
    big = mem_array(BIG, sizeof *big);
    memset(big, 0, BIG * sizeof *big); /* touched: real pages, not the shared zero page */
    double rate = BIG * sizeof *big / fastest(read_big, 3);
    free(big);
    return sink == 0 ? rate : 0; /* keeps the sum alive */
}

static Peak measure_processor(enum Dtype dtype) {
    Peak p = {0};
    (void)dtype;
#if defined TILE_FMA
    const double lanes = (double)omp_get_max_threads() * TILE_VEC * CHAIN_COUNT * STEPS;
    p.vectors = 2 * lanes / fastest(fma_chains, TRIES);
#endif
    p.products = p.vectors;
#if defined TILE_PAIRS
    if (dtype == DTYPE_BF16) p.products = 4 * lanes / fastest(dot_chains, TRIES);
#endif
    p.bytes = read_rate();
    return p;
}

/* -------------------------------------------------------------------------- another device -- */

static double copy_rate(Exec *ex) {
    enum { RUNS = 5 };
    const size_t bytes = (size_t)256 << 20; /* more than its cache */
    char *from = exec_alloc(ex, bytes, "peak measurement");
    char *to = exec_alloc(ex, bytes, "peak measurement");
    noise_fill(ex, from, bytes / sizeof(float), DTYPE_F32, 1);
    double best = INFINITY;
    for (int i = 0; i < RUNS; i++) {
        exec_timer_start(ex);
        exec_copy(ex, to, from, bytes);
        best = fmin(best, exec_timer_stop(ex));
    }
    exec_free(ex, to);
    exec_free(ex, from);
    return 2.0 * (double)bytes / best;
}

Peak device_peak_measure(Exec *ex) {
    if (ex->device == &device_cpu) return measure_processor(ex->dtype);
    return (Peak){.products = flops_peak(ex), .bytes = copy_rate(ex)};
}
