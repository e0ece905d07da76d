/* bench_ops - every op at the shapes of Gemma-2 2B, as CSV, beside the machine's own limits.
 *
 *   bench_ops [FILTER [DTYPE]]     FILTER: part of an op's name; DTYPE: f32 or bf16
 *
 * SAILS_BENCH_DEVICE=cuda takes the CUDA device. Each op runs once before it is timed, on outputs
 * filled with NaN, and must leave finite numbers everywhere; correctness is the tests' business. */
#include "bench/bench_ops.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/bf16.h"
#include "kernels/check.h"

Exec bench_ex;
Peak bench_peak;
static const char *filter = "";

bool bench_chosen(const char *op) {
    return strstr(op, filter) != NULL;
}

static double noise(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / 4503599627370496.0 - 1;
}

static void *tensor(size_t n, enum Dtype t, double scale) {
    size_t size = dtype_size(t);
    char *host = malloc(n * size);
    CHECK(host, "out of memory");
    for (size_t i = 0; i < n; i++) {
        float f = (float)(scale * noise());
        bf16 h = bf16_from_f32(f);
        memcpy(host + i * size, t == DTYPE_F32 ? (void *)&f : (void *)&h, size);
    }
    void *p = bench_copy(host, n * size);
    free(host);
    return p;
}

store *bench_store(size_t n, double scale) {
    return tensor(n, bench_ex.dtype, scale);
}
float *bench_f32(size_t n, double scale) {
    return tensor(n, DTYPE_F32, scale);
}

void *bench_copy(const void *host, size_t bytes) {
    void *p = exec_alloc(&bench_ex, bytes, "bench");
    exec_copy_in(&bench_ex, p, host, bytes);
    return p;
}

void *bench_blank(size_t bytes) {
    char *host = malloc(bytes);
    CHECK(host, "out of memory");
    memset(host, 0xff, bytes);
    void *p = bench_copy(host, bytes);
    free(host);
    return p;
}
store *bench_blank_store(size_t n) {
    return bench_blank(n * dtype_size(bench_ex.dtype));
}

void bench_free(void **p, size_t n) {
    for (size_t i = 0; i < n; i++) exec_free(&bench_ex, p[i]);
}

void bench_expect(const char *op, const void *p, size_t n, enum Dtype t) {
    int64_t bad, *index = exec_alloc(&bench_ex, sizeof *index, "bench");
    if (t == DTYPE_F32)
        bench_ex.op->find_bad_f32(&bench_ex, index, p, n);
    else
        bench_ex.op->find_bad(&bench_ex, index, p, n);
    exec_copy_out(&bench_ex, &bad, index, sizeof bad);
    exec_free(&bench_ex, index);
    CHECK(bad < 0, "%s left element %lld of %zu bad", op, (long long)bad, n);
}
void bench_expect_store(const char *op, const store *p, size_t n) {
    bench_expect(op, p, n, bench_ex.dtype);
}

double bench_roof(double bytes, double flops, double flops_per_second) {
    double memory = bench_peak.bytes > 0 ? bytes / bench_peak.bytes : 0;
    double compute = flops_per_second > 0 ? flops / flops_per_second : 0;
    return memory > compute ? memory : compute;
}

/* The processor's own name, where the system tells it. */
static void print_processor(void) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0) {
            printf("# %s", strchr(line, ':') + 2);
            break;
        }
    if (f) fclose(f);
}

int main(int argc, char **argv) {
    if (argc > 1) filter = argv[1];
    const char *only = argc > 2 ? argv[2] : "", *device = getenv("SAILS_BENCH_DEVICE");
    enum DeviceKind kind = device && strcmp(device, "cuda") == 0 ? DEVICE_CUDA : DEVICE_CPU;
    print_processor();
    printf("# %d threads, commit %s\n", omp_get_max_threads(), SAILS_COMMIT);
    if (kind == DEVICE_CPU) {
        bench_peak = peak_measure();
        printf("# measured peaks: f32 %.0f GFLOP/s, bf16 %.0f GFLOP/s, memory %.1f GB/s\n",
               bench_peak.f32 * 1e-9, bench_peak.bf16 * 1e-9, bench_peak.bytes * 1e-9);
    }
    bench_header();
    for (int t = 0; t < DTYPE_COUNT; t++) {
        if (*only && strcmp(only, dtype_name((enum Dtype)t)) != 0) continue;
        const char *why = exec_open(&bench_ex, kind, (enum Dtype)t);
        CHECK(!why, "%s", why);
        bench_matmuls();
        bench_attentions();
        bench_rows();
        bench_others();
        exec_close(&bench_ex);
    }
    return 0;
}
