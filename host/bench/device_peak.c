/* device_peak.c - loops that do nothing but multiply or read, and the best of their times. */
#include "host/bench/device_peak.h"

#include <math.h>
#include <omp.h>

#include "data/base/mem.h"
#include "host/stage/noise.h"
#include "host/stage/flops.h"
#include "host/cli/print.h"
#include "kernels/device.h"

double device_peak_seconds(const Peak *peak, const OpCall *call) {
    double rate = call->unit == UNIT_PRODUCT ? peak->products : peak->vectors;
    double memory = peak->bytes > 0 ? call->bytes / peak->bytes : 0;
    return fmax(memory, rate > 0 ? call->flops / rate : 0);
}

/* --------------------------------------------------------------------------- the processor -- */

enum { TRIES = 30 };

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

enum { CHAINS = 16 }; /* of additions: one alone waits for itself, not for memory */
static double *big, sink;
static size_t elements;

static size_t own_share(size_t *first) {
    size_t share = elements / (size_t)omp_get_num_threads() / CHAINS * CHAINS;
    *first = share * (size_t)omp_get_thread_num();
    return share;
}

/* Each thread its own part, which so lies near it. The bytes are not zero: for those the compiler
 * leaves what calloc gave, and all pages are one. */
static void touch_big(void) {
    size_t first, share = own_share(&first);
    memset(big + first, 1, share * sizeof *big);
}

static void read_big(void) {
    size_t first, share = own_share(&first);
    double sum[CHAINS] = {0};
    for (size_t i = first; i < first + share; i += CHAINS)
#pragma omp simd
        for (int chain = 0; chain < CHAINS; chain++) sum[chain] += big[i + (size_t)chain];
    for (int chain = 1; chain < CHAINS; chain++) sum[0] += sum[chain];
#pragma omp atomic
    sink += sum[0];
}

/* Of memory twice as large as the caches, and of 256 MB at least. */
static double read_rate(size_t cache) {
    size_t bytes = cache > (size_t)1 << 27 ? 2 * cache : (size_t)1 << 28;
    elements = bytes / sizeof *big;
    big = mem_array(elements, sizeof *big);
    fastest(touch_big, 1);
    double rate = (double)bytes / fastest(read_big, 3);
    free(big);
    return sink == 0 ? 0 : rate; /* keeps the sums alive */
}

static double loop_rate(const PeakLoop *loop) {
    return omp_get_max_threads() * loop->flops / fastest(loop->run, TRIES);
}

static Peak measure_processor(const PeakLoops *loops, size_t cache) {
    return (Peak){.products = loop_rate(&loops->products),
                  .vectors = loop_rate(&loops->vectors),
                  .bytes = read_rate(cache)};
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
    const PeakLoops *loops = ex->device->peak[ex->dtype];
    if (loops) return measure_processor(loops, exec_cache(ex));
    return (Peak){.products = flops_peak(ex), .bytes = copy_rate(ex)};
}
