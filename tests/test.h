/* test.h - the whole test framework. A test is a function; main returns test_done(). */
#ifndef SAILS_TEST_H
#define SAILS_TEST_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/bf16.h"
#include "kernels/ops.h"

extern int test_failures;

/* Counts a failure, which the caller has printed. With SAILS_FIRST_FAILURE=1 the first one ends a
 * test of ops: tools/mutate.sh asks no more of a test than to be red. */
void test_fail(void);

/* Prints "NAME: ok" or "NAME: FAIL" and gives main's return value: a red test must turn CI red. */
int test_done(const char *name);

/* Runs `body` once on every device and storage type under test: cpu f32, cpu bf16, and with
 * SAILS_TEST_DEVICE=cuda the plug-in's two instead. With SAILS_TEST_LEVELS=all also at the CPU's
 * other levels that run here, where test_brief is true. The Exec is open; what the body allocates
 * it must free. */
void test_each_exec(void (*body)(Exec *ex));

/* Is this the CPU device? What tells of the test or of the host's code and not of the device, such
 * as a reference changed a little, is tried there alone: a simulated device would take minutes. */
bool test_on_cpu(const Exec *ex);

/* With SAILS_TEST_BRIEF=1: a sanitizer watches, for which code and sizes count and values do not. A
 * slow test then takes each shape once, and small rows; the release build tries the rest. */
bool test_brief(void);

/* Reproducible noise in [-1,1) from (seed, i). Same seed, same data, any platform. */
double test_noise(uint64_t seed, uint64_t i);

/* Device buffers with 64 guard bytes either side. The payload starts as NaN (0xff bytes), so an
 * op that reads what it should overwrite is seen. test_free fails the test if a guard changed. */
void *test_alloc(Exec *ex, size_t bytes);
void test_free(Exec *ex, void *p);

/* Makes the workspace NaN: an op that takes what an earlier one left there for its own is seen,
 * whichever thread had that part. */
void test_spoil_scratch(Exec *ex);

/* A device tensor of n elements with the given values, rounded to storage; `values` receives what
 * the rounding left, so that a reference computed from it sees the op's true inputs. */
store *test_store(Exec *ex, double *values, size_t n);
float *test_f32(Exec *ex, double *values, size_t n);
int32_t *test_i32(Exec *ex, const int32_t *values, size_t n);

/* Host copies of device tensors as doubles, from malloc. */
double *test_get_store(Exec *ex, const store *p, size_t n);
double *test_get_f32(Exec *ex, const float *p, size_t n);
double *test_get_f64(Exec *ex, const double *p, size_t n);

/* n doubles from malloc: scale * noise. */
double *test_noise_array(uint64_t seed, size_t n, double scale);

/* Passes if |got - ref| <= atol + rtol*|ref| for all i; NaN and Inf in got always fail.
 * Reports the worst element only. Returns 1 on pass. */
int test_close(const char *what, const double *got, const double *ref, size_t n, double atol,
               double rtol);

/* The same with a tolerance for each element: |got[i] - ref[i]| <= tol[i]. */
int test_close_each(const char *what, const double *got, const double *ref, const double *tol,
                    size_t n);

/* Passes if the device buffers hold the same bytes. */
int test_same(const char *what, Exec *ex, const void *a, const void *b, size_t bytes);

/* Passes if `call`, or waiting for what it began, aborts the process; tried in a child process. A
 * GPU cannot be used after fork, unless it is simulated: on one nothing is tried. */
#define TEST_DIES(ex, call)          \
    do {                             \
        if (test_child(ex, #call)) { \
            call;                    \
            test_child_end(ex);      \
        }                            \
    } while (0)
int test_child(Exec *ex, const char *call); /* 1 in the child; 0 in the parent, after its end */
__attribute__((noreturn)) void test_child_end(Exec *ex);

/* Unit roundoff of a storage type: rounding a value changes it by at most this, relatively. */
double test_roundoff(enum Dtype t);

/* By how much what an op computed in f32 is rounded before it multiplies it, relatively: in bf16
 * where the device multiplies bf16 alone (op_attn_fwd in ops.h), else not at all. */
double test_product_roundoff(const Exec *ex);

/* Passes if the wrapped check FAILS: proof that the checker can see the fault just planted. */
#define TEST_DETECTS(check) test_detects(#check, (test_quiet = 1, (check)))
extern int test_quiet;
void test_detects(const char *what, int passed);

#define EXPECT(cond, ...) test_expect(!!(cond), __FILE__, __LINE__, #cond, __VA_ARGS__)
__attribute__((format(printf, 5, 6))) void test_expect(int ok, const char *file, int line,
                                                       const char *cond, const char *fmt, ...);

#endif
