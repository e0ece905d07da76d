/* AMX adds in the order that tile_amx.h states, whatever the shape: its products, bit by bit,
 * against that order in plain C. Skipped where the processor has no AMX. */
#include <math.h>
#include <omp.h>
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

/* Mantissas and exponents such that almost every addition rounds; now and then a denormal number.
 * In every fifth row all are so small that products and sums become denormal. */
static bf16 element(uint64_t seed, size_t i, size_t row) {
    double x = test_noise(seed, 2 * i), e = test_noise(seed, 2 * i + 1);
    if (e > 0.995) return bf16_from_f32((float)ldexp(x, -130));
    return bf16_from_f32((float)ldexp(x, (int)(12 * e) - (row % 5 == 4 ? 60 : 0)));
}

static bf16 *matrix(uint64_t seed, int rows, int cols) {
    bf16 *m = malloc((size_t)rows * cols * sizeof *m);
    CHECK(m, "out of memory");
    for (size_t i = 0; i < (size_t)rows * cols; i++) m[i] = element(seed, i, i / (size_t)cols);
    return m;
}

/* On the device, as it lies or transposed. */
static store *uploaded(Exec *ex, const bf16 *m, int rows, int cols, bool transposed) {
    size_t n = (size_t)rows * cols;
    bf16 *copy = malloc(n * sizeof *copy);
    CHECK(copy, "out of memory");
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            copy[transposed ? (size_t)c * rows + r : (size_t)r * cols + c] =
                m[(size_t)r * cols + c];
    store *p = test_alloc(ex, n * sizeof *copy);
    exec_copy_in(ex, p, copy, n * sizeof *copy);
    free(copy);
    return p;
}

/* A (M,K), B (N,K), and C = A B^T in the order of sums that is expected. */
typedef struct Shape {
    int M, N, K;
    bf16 *a, *b;
    float *want;
} Shape;

static Shape shape_make(const int size[3]) {
    Shape s = {.M = size[0], .N = size[1], .K = size[2]};
    s.a = matrix(1, s.M, s.K), s.b = matrix(2, s.N, s.K);
    s.want = malloc((size_t)s.M * s.N * sizeof *s.want);
    CHECK(s.want, "out of memory");
    for (int i = 0; i < s.M; i++)
        for (int j = 0; j < s.N; j++)
            s.want[(size_t)i * s.N + j] =
                model_dot(s.a + (size_t)i * s.K, s.b + (size_t)j * s.K, s.K);
    return s;
}

static void shape_free(Shape *s) {
    free(s->a), free(s->b), free(s->want);
}

/* By a form of the GEMM's; `gradient`: A and B by columns, as gemm_grad takes them. */
static void test_shape(Exec *ex, const Shape *s, enum GemmForm form, bool gradient) {
    int M = s->M, N = s->N, K = s->K;
    store *A = uploaded(ex, s->a, M, K, gradient);
    store *B = uploaded(ex, s->b, N, K, gradient || form == GEMM_NN);
    size_t n = (size_t)M * N, differ = 0;
    double *zero = test_noise_array(3, n, 0);
    float *C = test_f32(ex, zero, n);
    if (gradient)
        ex->op->gemm_grad(ex, C, A, M, B, N, K, M, N, 1);
    else
        ex->op->gemm_f32(ex, C, N, A, K, B, form == GEMM_NN ? N : K, M, N, K, form, 1, 0);
    double *got = test_get_f32(ex, C, n);
    for (size_t i = 0; i < n; i++) differ += (double)s->want[i] != got[i];
    EXPECT(differ == 0, "%d x %d x %d, form %d, gradient %d: %zu of %zu elements differ", M, N, K,
           form, gradient, differ, n);
    test_free(ex, A), test_free(ex, B), test_free(ex, C);
    free(zero), free(got);
}

enum { SKIPPED = 77 }; /* what ctest is told */

int main(void) {
    static const int shape[][3] = {
        {1, 1, 1},       {16, 16, 32},     {17, 31, 33},    {32, 64, 256},
        {33, 65, 257},   {47, 130, 1025},  {70, 17, 2304},  {40, 70, 2400},
        {33, 130, 4700}, {70, 520, 4700},  {40, 520, 2304}, /* groups of pairs */
        {150, 70, 2400}, {2100, 70, 2400}, {2100, 17, 64}}; /* tasks that begin below row 0 */
    Exec ex;
    const char *why = exec_open_cpu(&ex, CPU_AMX, DTYPE_BF16);
    if (why) {
        printf("--cpu amx: %s\n", why);
        return SKIPPED;
    }
    omp_set_num_threads(1); /* how many pairs a task takes is a matter of threads */
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        Shape s = shape_make(shape[i]);
        test_shape(&ex, &s, GEMM_NT, false);
        test_shape(&ex, &s, GEMM_NN, false);
        test_shape(&ex, &s, GEMM_NT_FEW, false);
        if (s.K <= 1024) /* one chunk */
            test_shape(&ex, &s, GEMM_NT, true);
        shape_free(&s);
    }
    exec_close(&ex);
    return test_done("amx");
}
