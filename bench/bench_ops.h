/* bench_ops.h - what the benchmarks of ops share: the device, tensors on it, one row of the CSV. */
#ifndef SAILS_BENCH_OPS_H
#define SAILS_BENCH_OPS_H

#include <stdbool.h>

#include "bench/bench.h"
#include "kernels/ops.h"

/* Gemma-2 2B. N: rows of a typical pack; R: LoRA rank. */
enum { N = 1024, D = 2304, F = 9216, H = 8, K = 4, E = 256, R = 16, VOCAB = 256000 };

extern Exec bench_ex;
extern Peak bench_peak;

bool bench_chosen(const char *op); /* the user's filter lets this op run */

/* Tensors in device memory: noise in [-scale,scale), copies of host data, or all NaN, to see that
 * an op writes every element. Freed by BENCH_FREE. */
store *bench_store(size_t n, double scale);
float *bench_f32(size_t n, double scale);
void *bench_copy(const void *host, size_t bytes);
void *bench_blank(size_t bytes);
store *bench_blank_store(size_t n);
void bench_free(void **p, size_t n);
#define BENCH_FREE(...) \
    bench_free((void *[]){__VA_ARGS__}, sizeof((void *[]){__VA_ARGS__}) / sizeof(void *))

/* Stops with the op's name if an element is NaN or infinite. */
void bench_expect(const char *op, const void *p, size_t n, enum Dtype t);
void bench_expect_store(const char *op, const store *p, size_t n);

/* Seconds that the machine needs at least. */
double bench_roof(double bytes, double flops, double flops_per_second);

#define BENCH_OP(what, shape, bytes, flops, stmt)                             \
    BENCH(bench_ex.op->name, what, shape, (double)(bytes), (double)(flops),   \
          bench_roof((double)(bytes), (double)(flops), bench_peak.f32), stmt, \
          exec_sync(&bench_ex))

/* The same for ops that may use bf16 arithmetic when that is the storage type. */
#define BENCH_PRODUCT(what, shape, bytes, flops, stmt)                                      \
    BENCH(bench_ex.op->name, what, shape, (double)(bytes), (double)(flops),                 \
          bench_roof((double)(bytes), (double)(flops),                                      \
                     bench_ex.dtype == DTYPE_BF16 && bench_peak.bf16 > 0 ? bench_peak.bf16  \
                                                                         : bench_peak.f32), \
          stmt, exec_sync(&bench_ex))

void bench_matmuls(void);
void bench_attentions(void);
void bench_rows(void);   /* ops on rows and elements */
void bench_others(void); /* loss, sampling, SAE, factorisations */

#endif
