/* The device interface: memory, copies, order, strict mode, and the choice of a device. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/check.h"
#include "kernels/cpu/gate.h"
#include "kernels/device.h"
#include "tests/test.h"

/* True if `act` does not survive: it runs in a child, whose complaints are not shown. */
static bool dies(Exec *ex, void (*act)(Exec *ex, void *p), void *p) {
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0, "fork failed");
    if (child == 0) {
        CHECK(freopen("/dev/null", "w", stderr), "no /dev/null");
        act(ex, p);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child, "waitpid failed");
    return status != 0;
}

static unsigned char *pattern(size_t bytes, unsigned seed) {
    unsigned char *p = malloc(bytes + 1);
    CHECK(p, "out of memory");
    for (size_t i = 0; i < bytes; i++) p[i] = (unsigned char)((i * 31 + i / 251 + seed) & 0xff);
    return p;
}

/* Sizes about the edges of the buffers through which a device may copy, and several of them. */
static void test_copies(Exec *ex) {
    static const size_t sizes[] = {0, 1, 63, 4096, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 13 << 20};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s];
        unsigned char *host = pattern(n, 1), *want = pattern(n, 1), *got = calloc(n + 1, 1);
        unsigned char *a = exec_alloc(ex, n + 2, "a"), *b = exec_alloc(ex, n + 2, "b");
        exec_copy_in(ex, a + 1, host, n);
        memset(host, 0, n); /* copy_in has taken the bytes */
        exec_copy(ex, b, a + 1, n);
        exec_zero(ex, a + 1, n);
        exec_copy_out(ex, got, b, n);
        EXPECT(memcmp(got, want, n) == 0, "%s: %zu bytes in, across and out", ex->op->name, n);
        exec_copy_out(ex, got, a + 1, n);
        size_t zeros = 0;
        while (zeros < n && got[zeros] == 0) zeros++;
        EXPECT(zeros == n, "%s: %zu of %zu bytes zeroed", ex->op->name, zeros, n);
        exec_free(ex, a), exec_free(ex, b);
        free(host), free(want), free(got);
    }
}

static void overlap(Exec *ex, void *p) {
    exec_copy(ex, p, (char *)p + 8, 16);
}
static void peek(Exec *ex, void *p) {
    (void)ex;
    volatile float *f = p;
    if (f[0] == 3) _exit(0);
}
static void free_twice(Exec *ex, void *p) {
    exec_free(ex, p);
    exec_free(ex, p);
}

/* Large blocks are shut otherwise than small ones. */
static void test_strict(Exec *ex, size_t n) {
    float *p = exec_alloc(ex, n * sizeof *p, "p");
    EXPECT(dies(ex, peek, p + n - 1), "%s: the host reads fresh device memory", ex->op->name);
    double *fresh = test_get_f32(ex, p, n);
    size_t nans = 0;
    for (size_t i = 0; i < n; i++) nans += isnan(fresh[i]);
    EXPECT(nans == n, "%s: %zu of %zu fresh values are NaN", ex->op->name, nans, n);
    EXPECT(dies(ex, peek, p), "%s: the host reads device memory", ex->op->name);
    exec_zero(ex, p, n * sizeof *p);
    exec_sync(ex);
    EXPECT(dies(ex, peek, p), "%s: the host reads device memory after an op", ex->op->name);
    EXPECT(dies(ex, overlap, p), "%s: a copy onto itself", ex->op->name);
    EXPECT(dies(ex, free_twice, p), "%s: freed twice", ex->op->name);
    exec_free(ex, p);
    free(fresh);
}

static void test_accounts(Exec *ex) {
    size_t before = ex->bytes_now;
    void *a = exec_alloc(ex, 1000, "a"), *b = exec_alloc(ex, 500, "b"), *none;
    none = exec_alloc(ex, 0, "nothing");
    EXPECT(none != NULL && (uintptr_t)a % 64 == 0 && (uintptr_t)b % 64 == 0, "alignment");
    EXPECT(ex->bytes_now == before + 1500, "%zu bytes held", ex->bytes_now - before);
    exec_free(ex, a), exec_free(ex, none), exec_free(ex, NULL);
    EXPECT(ex->bytes_now == before + 500, "%zu bytes held", ex->bytes_now - before);
    EXPECT(ex->bytes_peak >= before + 1500, "peak of %zu bytes", ex->bytes_peak);
    exec_free(ex, b);
    EXPECT(ex->bytes_now == before, "%zu bytes left", ex->bytes_now - before);

    size_t first = ex->device->scratch ? ex->device->scratch : SCRATCH_MIN;
    if (ex->device->scratch) before -= first; /* held since the device was opened */
    char *s = exec_scratch(ex, 100);
    EXPECT(exec_scratch(ex, first) == s && ex->scratch_bytes == first, "first room");
    EXPECT(exec_scratch(ex, 50) == s && ex->scratch_bytes == first, "it does not shrink");
    exec_scratch(ex, 2 * first + 1);
    EXPECT(ex->scratch_bytes == 4 * first && ex->bytes_now == before + 4 * first, "it doubles");
}

/* What a device reads in place: on the CPU device files as they are mapped, if they are aligned. */
static void test_reads(Exec *ex) {
    _Alignas(8) static const unsigned char file[16];
    bool cpu = test_on_cpu(ex);
    const char *plugin = exec_plugin(ex);
    EXPECT(cpu ? !plugin : plugin && access(plugin, R_OK) == 0, "%s: came from %s", ex->op->name,
           plugin ? plugin : "the program");
    EXPECT(exec_reads(ex, file) == cpu, "%s: aligned", ex->op->name);
    EXPECT(!exec_reads(ex, file + 4), "%s: not aligned", ex->op->name);
}

/* The device's own memory, if it has any, becomes less by what is allocated. */
static void test_memory(Exec *ex) {
    enum { BYTES = 32 << 20 };
    size_t before, after, all;
    bool own = exec_memory(ex, &before, &all);
    EXPECT(own == !test_on_cpu(ex), "%s", ex->op->name);
    if (!own) return;
    void *p = exec_alloc(ex, BYTES, "block");
    exec_memory(ex, &after, &all);
    EXPECT(before <= all && after <= before - BYTES, "%zu of %zu, then %zu", before, all, after);
    exec_free(ex, p);
}

static void ranges(Exec *ex) {
    exec_range_push(ex, "outer");
    exec_range_push(ex, "inner");
    exec_range_pop(ex);
    exec_range_pop(ex);
}

static double seconds_since(const struct timespec *then) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)(t.tv_sec - then->tv_sec) + 1e-9 * (double)(t.tv_nsec - then->tv_nsec);
}

/* Work takes time, no more of it than passes here, and what came before the start is not in it. */
static void test_timer(Exec *ex) {
    const size_t bytes = 1 << 22;
    const struct timespec pause = {.tv_nsec = 100000000};
    struct timespec start;
    void *p = exec_alloc(ex, bytes, "timed");
    exec_timer_start(ex);
    for (int again = 0; again < 2; again++) {
        nanosleep(&pause, NULL);
        exec_sync(ex);
        clock_gettime(CLOCK_MONOTONIC, &start);
        exec_timer_start(ex);
        for (int i = 0; i < 4; i++) exec_zero(ex, p, bytes);
        double took = exec_timer_stop(ex), here = seconds_since(&start);
        EXPECT(took > 0 && took <= here + 1e-5, "%s: %g s, %g s here", ex->op->name, took, here);
    }
    exec_free(ex, p);
    size_t cache = exec_cache(ex);
    EXPECT(cache >= 1 << 18 && cache <= (size_t)1 << 33, "%s: a cache of %zu bytes", ex->op->name,
           cache);
}

static void body(Exec *ex) {
    test_copies(ex);
    test_strict(ex, 100), test_strict(ex, 600000);
    test_accounts(ex);
    test_reads(ex);
    test_memory(ex);
    test_timer(ex);
    ranges(ex);
}

static const char *said(const char *why) {
    return why ? why : "that it opened";
}

/* An op may call others: its own memory stays open after they have ended. */
static float outer_op(Exec *ex, float *x, store *y) {
    OP_GATE(ex);
    ex->op->cast(ex, y, x, 1);
    ex->op->uncast(ex, x, y, 1);
    return *x;
}

static void test_nested(void) {
    Exec ex;
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_BF16), "no cpu");
    float one = 1, *x = exec_alloc(&ex, sizeof one, "x");
    store *y = exec_alloc(&ex, sizeof one, "y");
    exec_copy_in(&ex, x, &one, sizeof one);
    EXPECT(outer_op(&ex, x, y) == 1, "1 did not come back");
    exec_free(&ex, x), exec_free(&ex, y);
    exec_close(&ex);
}

/* A device that cannot be had says why in one line; asked for any, exec_open takes the CPU. */
static void test_choice(void) {
    const char *device = getenv("SAILS_TEST_DEVICE"), *why;
    Exec ex;
    if (device && strcmp(device, "cuda") == 0) {
        why = exec_open(&ex, DEVICE_AUTO, DTYPE_F32);
        EXPECT(!why && strcmp(ex.op->name, "cuda f32") == 0, "said %s", said(why));
        exec_close(&ex);
    }
    if (getenv("SAILS_CUDA_PLUGIN")) { /* a whole one, though there may be no GPU */
        why = exec_open(&ex, DEVICE_CUDA, DTYPE_F32);
        EXPECT(!why || strstr(why, "GPU"), "said %s", why);
        exec_close(&ex); /* of an Exec that may not have opened: does nothing then */
    }
    setenv("SAILS_CUDA_PLUGIN", "/nonexistent/libsails_cuda.so", 1);
    why = exec_open(&ex, DEVICE_CUDA, DTYPE_F32);
    EXPECT(why && strstr(why, "does not load") && strstr(why, "/nonexistent/"), "said %s",
           said(why));
    EXPECT(!strchr(said(why), '\n'), "one line");
    why = exec_open(&ex, DEVICE_AUTO, DTYPE_BF16);
    EXPECT(!why && strncmp(ex.op->name, "cpu ", 4) == 0, "said %s", said(why));
    EXPECT(ex.dtype == DTYPE_BF16, "storage type");
    exec_close(&ex);
}

int main(void) {
    test_each_exec(body);
    test_nested();
    test_choice();
    return test_done("test_exec");
}
