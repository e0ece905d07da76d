/* AMX adds in the order that tile_amx.h states, whatever the shape: its products, bit by bit,
 * against that order in plain C. Nothing is tested where the processor has no AMX. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/bf16.h"
#include "kernels/check.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/test.h"

/* Denormal numbers become zeros of their sign. */
static float flush(float f) {
    return fpclassify(f) == FP_SUBNORMAL ? copysignf(0, f) : f;
}
static float number(bf16 h) {
    return flush(bf16_to_f32(h));
}

/* sum over k of a[k] b[k]; what is short of a step of 32 elements is completed with zeros. */
static float model_dot(const bf16 *a, const bf16 *b, int K) {
    const bf16 zero = {0};
    float sum = 0;
    for (int k0 = 0; k0 < K; k0 += 32) {
        float half[2] = {0, 0};
        for (int k = k0; k < k0 + 32; k++) {
            float x = number(k < K ? a[k] : zero), y = number(k < K ? b[k] : zero);
            half[k % 2] = flush(fmaf(x, y, half[k % 2]));
        }
        sum = flush(sum + flush(half[0] + half[1]));
    }
    return sum;
}

/* Mantissas and exponents such that almost every addition rounds; now and then one that is denormal
 * or that overflows bf16's neighbours. */
static bf16 element(uint64_t seed, size_t i) {
    double x = test_noise(seed, 2 * i), e = test_noise(seed, 2 * i + 1);
    if (e > 0.995) return bf16_from_f32((float)ldexp(x, -130));
    return bf16_from_f32((float)ldexp(x, (int)(12 * e)));
}

static void *on_device(Exec *ex, const bf16 *host, size_t n) {
    bf16 *p = test_alloc(ex, n * sizeof *p);
    exec_copy_in(ex, p, host, n * sizeof *p);
    return p;
}

/* C = A B^T, by the form NT. */
static void test_shape(Exec *ex, int M, int N, int K) {
    size_t na = (size_t)M * K, nb = (size_t)N * K, nc = (size_t)M * N;
    bf16 *a = malloc(na * sizeof *a), *b = malloc(nb * sizeof *b);
    float *c = malloc(nc * sizeof *c);
    CHECK(a && b && c, "out of memory");
    for (size_t i = 0; i < na; i++) a[i] = element(1, i);
    for (size_t i = 0; i < nb; i++) b[i] = element(2, i);
    store *A = on_device(ex, a, na), *B = on_device(ex, b, nb);
    float *C = test_alloc(ex, nc * sizeof *C);
    ex->op->gemm_f32(ex, C, N, A, K, B, K, M, N, K, GEMM_NT, 1, 0);
    exec_copy_out(ex, c, C, nc * sizeof *c);
    size_t differ = 0;
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float want = model_dot(a + (size_t)i * K, b + (size_t)j * K, K);
            differ += memcmp(&want, &c[(size_t)i * N + j], sizeof want) != 0;
        }
    EXPECT(differ == 0, "%d x %d x %d: %zu of %zu elements have other bits", M, N, K, differ, nc);
    test_free(ex, A), test_free(ex, B), test_free(ex, C);
    free(a), free(b), free(c);
}

int main(void) {
    static const int shape[][3] = {{1, 1, 1},     {16, 16, 32},    {17, 31, 33},  {32, 64, 256},
                                   {33, 65, 257}, {47, 130, 1025}, {70, 17, 2304}};
    Exec ex;
    if (exec_open_cpu(&ex, CPU_AMX, DTYPE_BF16)) {
        printf("no AMX here: nothing is tested\n");
        return 0;
    }
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        test_shape(&ex, shape[i][0], shape[i][1], shape[i][2]);
    exec_close(&ex);
    return test_done("amx");
}
