/* test.c - what every test shares: devices to run on, noise, comparisons, the count of failures. */
#include "tests/test.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/check.h"
#include "kernels/ops.h"
#include "kernels/device.h"

int test_failures, test_quiet;
static bool one_is_enough, brief_level;
enum { GUARD = 64 };

static bool is(const char *variable, const char *value) {
    const char *now = getenv(variable);
    return now && strcmp(now, value) == 0;
}

void test_fail(void) {
    test_failures++;
    if (one_is_enough) exit(test_done("first failure"));
}

int test_done(const char *name) {
    printf("%s: %s\n", name, test_failures ? "FAIL" : "ok");
    return test_failures != 0;
}

static void run_on(void (*body)(Exec *ex), bool cuda, enum CpuLevel level) {
    for (int t = 0; t < DTYPE_COUNT; t++) {
        Exec ex;
        const char *why = cuda ? exec_open(&ex, DEVICE_CUDA, (enum Dtype)t)
                               : exec_open_cpu(&ex, level, (enum Dtype)t);
        CHECK(!why, "%s", why);
        body(&ex);
        exec_close(&ex);
    }
}

void test_each_exec(void (*body)(Exec *ex)) {
    one_is_enough = getenv("SAILS_FIRST_FAILURE") != NULL;
    if (is("SAILS_TEST_DEVICE", "cuda"))
        run_on(body, true, CPU_AUTO);
    else {
        run_on(body, false, CPU_AUTO);
        brief_level = true;
        for (int l = CPU_LEAST; l < CPU_LEVEL_COUNT && is("SAILS_TEST_LEVELS", "all"); l++)
            if (device_cpu((enum CpuLevel)l) && l != (int)exec_cpu_level())
                run_on(body, false, (enum CpuLevel)l);
        brief_level = false;
    }
}

bool test_on_cpu(const Exec *ex) {
    return strcmp(ex->device->name, "cpu") == 0;
}

bool test_brief(void) {
    return brief_level || is("SAILS_TEST_BRIEF", "1");
}

double test_noise(uint64_t seed, uint64_t i) {
    uint64_t z = seed * 0x9e3779b97f4a7c15u + i * 0xbf58476d1ce4e5b9u + 1; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) / 4503599627370496.0 - 1;
}

double *test_noise_array(uint64_t seed, size_t n, double scale) {
    double *a = malloc((n + 1) * sizeof *a);
    CHECK(a, "out of memory");
    for (size_t i = 0; i < n; i++) a[i] = scale * test_noise(seed, i);
    return a;
}

/* A buffer is [size][guard bytes][payload][guard bytes]; the payload starts at GUARD. */
void *test_alloc(Exec *ex, size_t bytes) {
    unsigned char *host = malloc(bytes + 2 * GUARD);
    CHECK(host, "out of memory");
    memset(host, 0xa5, GUARD);
    memcpy(host, &bytes, sizeof bytes);
    memset(host + GUARD, 0xff, bytes);
    memset(host + GUARD + bytes, 0xa5, GUARD);
    unsigned char *p = exec_alloc(ex, bytes + 2 * GUARD, "test");
    exec_copy_in(ex, p, host, bytes + 2 * GUARD);
    free(host);
    return p + GUARD;
}

void test_spoil_scratch(Exec *ex) {
    if (ex->scratch_bytes == 0) return;
    unsigned char *nan = malloc(ex->scratch_bytes);
    CHECK(nan, "out of memory");
    memset(nan, 0xff, ex->scratch_bytes);
    exec_copy_in(ex, ex->scratch, nan, ex->scratch_bytes);
    free(nan);
}

void test_free(Exec *ex, void *payload) {
    unsigned char *p = (unsigned char *)payload - GUARD, before[GUARD], after[GUARD];
    size_t bytes;
    exec_copy_out(ex, before, p, GUARD);
    memcpy(&bytes, before, sizeof bytes);
    exec_copy_out(ex, after, p + GUARD + bytes, GUARD);
    for (int i = 0; i < GUARD; i++) {
        EXPECT(i < (int)sizeof bytes || before[i] == 0xa5, "wrote before a buffer of %zu bytes",
               bytes);
        EXPECT(after[i] == 0xa5, "wrote past a buffer of %zu bytes", bytes);
    }
    exec_free(ex, p);
}

store *test_store(Exec *ex, double *values, size_t n) {
    size_t size = dtype_size(ex->dtype);
    char *host = malloc(n * size + 1);
    CHECK(host, "out of memory");
    for (size_t i = 0; i < n; i++) {
        if (ex->dtype == DTYPE_F32) {
            float f = (float)values[i];
            memcpy(host + i * size, &f, size);
            values[i] = f;
        } else {
            bf16 h = bf16_from_f32((float)values[i]);
            memcpy(host + i * size, &h, size);
            values[i] = bf16_to_f32(h);
        }
    }
    store *p = test_alloc(ex, n * size);
    exec_copy_in(ex, p, host, n * size);
    free(host);
    return p;
}

float *test_f32(Exec *ex, double *values, size_t n) {
    float *host = malloc((n + 1) * sizeof *host);
    CHECK(host, "out of memory");
    for (size_t i = 0; i < n; i++) values[i] = host[i] = (float)values[i];
    float *p = test_alloc(ex, n * sizeof *p);
    exec_copy_in(ex, p, host, n * sizeof *p);
    free(host);
    return p;
}

int32_t *test_i32(Exec *ex, const int32_t *values, size_t n) {
    int32_t *p = test_alloc(ex, n * sizeof *p);
    exec_copy_in(ex, p, values, n * sizeof *p);
    return p;
}

static void *copy_out(Exec *ex, const void *p, size_t bytes) {
    void *host = malloc(bytes + 1);
    CHECK(host, "out of memory");
    exec_copy_out(ex, host, p, bytes);
    return host;
}

double *test_get_f64(Exec *ex, const double *p, size_t n) {
    return copy_out(ex, p, n * sizeof *p);
}

double *test_get_f32(Exec *ex, const float *p, size_t n) {
    float *host = copy_out(ex, p, n * sizeof *p);
    double *d = malloc((n + 1) * sizeof *d);
    CHECK(d, "out of memory");
    for (size_t i = 0; i < n; i++) d[i] = host[i];
    free(host);
    return d;
}

double *test_get_store(Exec *ex, const store *p, size_t n) {
    if (ex->dtype == DTYPE_F32) return test_get_f32(ex, (const float *)p, n);
    bf16 *host = copy_out(ex, p, n * sizeof *host);
    double *d = malloc((n + 1) * sizeof *d);
    CHECK(d, "out of memory");
    for (size_t i = 0; i < n; i++) d[i] = bf16_to_f32(host[i]);
    free(host);
    return d;
}

double test_roundoff(enum Dtype t) {
    return t == DTYPE_F32 ? ldexp(1, -24) : ldexp(1, -8);
}

double test_product_roundoff(const Exec *ex) {
    return ex->op->rounds ? test_roundoff(ex->dtype) : 0;
}

int test_close(const char *what, const double *got, const double *ref, size_t n, double atol,
               double rtol) {
    size_t worst = 0, bad = 0;
    double over = -1;
    for (size_t i = 0; i < n; i++) {
        double e = fabs(got[i] - ref[i]), lim = atol + rtol * fabs(ref[i]);
        if (!(e <= lim)) bad++; /* written so that NaN is bad */
        double o = !isfinite(e) ? INFINITY : e > 0 ? e / lim : 0;
        if (o > over) over = o, worst = i;
    }
    int ok = bad == 0;
    if (!test_quiet && n > 0 && (!ok || getenv("TEST_VERBOSE")))
        printf("%s %s: %zu of %zu off, worst [%zu] got %.9g want %.9g (%.3g of tolerance)\n",
               ok ? "ok  " : "FAIL", what, bad, n, worst, got[worst], ref[worst], over);
    if (!ok && !test_quiet) test_fail();
    return ok;
}

int test_close_each(const char *what, const double *got, const double *ref, const double *tol,
                    size_t n) {
    size_t worst = 0, bad = 0;
    double over = -1;
    for (size_t i = 0; i < n; i++) {
        double e = fabs(got[i] - ref[i]), o = !isfinite(e) ? INFINITY : e > 0 ? e / tol[i] : 0;
        if (!(e <= tol[i])) bad++; /* written so that NaN is bad */
        if (o > over) over = o, worst = i;
    }
    int ok = bad == 0;
    if (!test_quiet && n > 0 && (!ok || getenv("TEST_VERBOSE")))
        printf("%s %s: %zu of %zu off, worst [%zu] got %.9g want %.9g (%.3g of tolerance)\n",
               ok ? "ok  " : "FAIL", what, bad, n, worst, got[worst], ref[worst], over);
    if (!ok && !test_quiet) test_fail();
    return ok;
}

int test_same(const char *what, Exec *ex, const void *a, const void *b, size_t bytes) {
    char *x = copy_out(ex, a, bytes), *y = copy_out(ex, b, bytes);
    int ok = memcmp(x, y, bytes) == 0;
    if (!ok && !test_quiet) printf("FAIL %s: bits differ\n", what), test_fail();
    free(x), free(y);
    return ok;
}

int test_child(Exec *ex, const char *call) {
    if (!test_on_cpu(ex) && !getenv("SIMT_SEED")) return 0;
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0, "fork failed");
    if (child == 0) {
        CHECK(freopen("/dev/null", "w", stderr), "/dev/null does not open");
        return 1;
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child, "waitpid failed");
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "expected to die: %s", call);
    return 0;
}

void test_child_end(Exec *ex) {
    exec_sync(ex);
    _exit(0);
}

void test_detects(const char *what, int passed) {
    test_quiet = 0;
    if (passed) printf("FAIL planted fault not detected by %s\n", what), test_fail();
}

void test_expect(int ok, const char *file, int line, const char *cond, const char *fmt, ...) {
    if (ok) return;
    char msg[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    printf("FAIL %s:%d: %s: %s\n", file, line, cond, msg);
    test_fail();
}
