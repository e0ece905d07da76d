/* Matrix products: each twin against a double-precision reference written from the contract. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "tests/test.h"

/* A strided matrix in device memory beside its values. It begins `at` elements into its memory;
 * those and the gaps between rows hold NaN. */
typedef struct Matrix {
    store *all, *p;    /* p: the first element of the matrix */
    double *all_v, *v; /* rows x ld, as rounded to storage */
    int rows, cols, ld;
} Matrix;

static Matrix matrix(Exec *ex, uint64_t seed, int rows, int cols, int ld, int at) {
    size_t n = (size_t)at + (size_t)rows * ld;
    Matrix m = {.all_v = test_noise_array(seed, n, 1), .rows = rows, .cols = cols, .ld = ld};
    m.v = m.all_v + at;
    for (int i = 0; i < at; i++) m.all_v[i] = NAN;
    for (int r = 0; r < rows; r++)
        for (int c = cols; c < ld; c++) m.v[(size_t)r * ld + c] = NAN;
    m.all = test_store(ex, m.all_v, n);
    m.p = store_at(ex->dtype, m.all, (size_t)at);
    return m;
}

static void matrix_free(Exec *ex, Matrix *m) {
    test_free(ex, m->all);
    free(m->all_v);
}

/* The reference and its allowance, element by element. The allowance: a sum of K products in f32
 * errs by 2^-24 of the partial sum at each step; taken as independent these errors grow like
 * sqrt(K), and six standard deviations of that times sum |a b| is out of reach of chance. Then
 * come alpha, the addition of the old C (an f32 rounding each) and the rounding to `roundoff`. */
typedef struct Expected {
    double *c, *limit;
} Expected;

static void expect_element(Expected *e, size_t i, double sum, double sum_abs, double terms,
                           double alpha, double old, double roundoff) {
    double c = alpha * sum + old, f32 = ldexp(1, -24);
    e->c[i] = c;
    e->limit[i] = 6 * sqrt(terms) * f32 * fabs(alpha) * sum_abs + 2 * f32 * (fabs(c) + fabs(old)) +
                  roundoff * fabs(c) + 1e-30;
}

static Expected expected_new(size_t n) {
    Expected e = {malloc((n + 1) * sizeof(double)), malloc((n + 1) * sizeof(double))};
    CHECK(e.c && e.limit, "out of memory");
    return e;
}

static void expected_free(Expected *e) {
    free(e->c);
    free(e->limit);
}

static int close_gemm(const char *what, const double *got, const Expected *e, int M, int N,
                      int ld) {
    double *over = malloc(((size_t)M * N + 1) * sizeof *over), *zero = calloc((size_t)M * N + 1, 8);
    CHECK(over && zero, "out of memory");
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            size_t i = (size_t)m * N + n;
            over[i] = (got[(size_t)m * ld + n] - e->c[i]) / e->limit[i];
        }
    int ok = test_close(what, over, zero, (size_t)M * N, 1, 0);
    free(over), free(zero);
    return ok;
}

/* The gaps of C between its rows keep their bits: they were NaN before. */
static void gaps_kept(const char *what, const double *got, int M, int N, int ld) {
    for (int m = 0; m < M; m++)
        for (int n = N; n < ld; n++)
            EXPECT(isnan(got[(size_t)m * ld + n]), "%s wrote C[%d][%d], row length %d", what, m, n,
                   N);
}

static const char *const form_name[] = {
    [GEMM_NT] = "NT", [GEMM_NN] = "NN", [GEMM_NT_FEW] = "NT_FEW"};

typedef struct Case {
    int M, N, K, pad; /* pad: extra elements from row to row, different for A, B and C */
    float alpha, beta;
} Case;

/* first: elements in front of C, as columns of a wider matrix have them, and more in front of A and
 * B: C may be less aligned than they are. */
static void product(Exec *ex, Case t, int first, enum GemmForm form, bool to_f32, uint64_t seed) {
    char what[128];
    snprintf(what, sizeof what, "%s gemm%s %s %dx%dx%d pad %d at %d alpha %g beta %g", ex->op->name,
             to_f32 ? "_f32" : "", form_name[form], t.M, t.N, t.K, t.pad, first, (double)t.alpha,
             (double)t.beta);
    int ldc = t.N + t.pad, rows_b = form == GEMM_NN ? t.K : t.N,
        cols_b = form == GEMM_NN ? t.N : t.K;
    Matrix a = matrix(ex, seed, t.M, t.K, t.K + 2 * t.pad, 2 * first);
    Matrix b = matrix(ex, seed + 1, rows_b, cols_b, cols_b + 3 * t.pad, 3 * first);
    size_t n = (size_t)t.M * ldc, at = (size_t)first;
    double *all = test_noise_array(seed + 2, at + n, 3), *old = all + at;
    for (size_t i = 0; i < at; i++) all[i] = NAN;
    for (size_t i = 0; i < n; i++)
        if (t.beta == 0 || (int)(i % (size_t)ldc) >= t.N) old[i] = NAN;
    void *c = to_f32 ? (void *)test_f32(ex, all, at + n) : (void *)test_store(ex, all, at + n);
    Expected e = expected_new((size_t)t.M * t.N);
    for (int i = 0; i < t.M; i++)
        for (int j = 0; j < t.N; j++) {
            double sum = 0, sum_abs = 0;
            for (int k = 0; k < t.K; k++) {
                double x = a.v[(size_t)i * a.ld + k];
                double y = form == GEMM_NN ? b.v[(size_t)k * b.ld + j] : b.v[(size_t)j * b.ld + k];
                sum += x * y, sum_abs += fabs(x * y);
            }
            double c0 = t.beta == 0 ? 0 : old[(size_t)i * ldc + j];
            expect_element(&e, (size_t)i * t.N + j, sum, sum_abs, t.K, t.alpha, c0,
                           to_f32 ? 0 : test_roundoff(ex->dtype));
        }
    if (to_f32)
        ex->op->gemm_f32(ex, (float *)c + at, ldc, a.p, a.ld, b.p, b.ld, t.M, t.N, t.K, form,
                         t.alpha, t.beta);
    else
        ex->op->gemm(ex, store_at(ex->dtype, c, at), ldc, a.p, a.ld, b.p, b.ld, t.M, t.N, t.K, form,
                     t.alpha, t.beta);
    double *got_all = to_f32 ? test_get_f32(ex, c, at + n) : test_get_store(ex, c, at + n);
    double *got = got_all + at;
    for (size_t i = 0; i < at; i++) EXPECT(isnan(got_all[i]), "%s wrote before C", what);
    close_gemm(what, got, &e, t.M, t.N, ldc);
    gaps_kept(what, got, t.M, t.N, ldc);
    if (t.M > 0) {
        size_t last = n - 1 - (size_t)t.pad, i = (size_t)t.M * t.N - 1;
        double right = got[last];
        got[last] = right + (right > e.c[i] ? 2.1 : -2.1) * e.limit[i];
        TEST_DETECTS(close_gemm(what, got, &e, t.M, t.N, ldc));
        got[last] = NAN;
        TEST_DETECTS(close_gemm(what, got, &e, t.M, t.N, ldc));
    }
    free(got_all), free(all), expected_free(&e);
    test_free(ex, c), matrix_free(ex, &a), matrix_free(ex, &b);
}

static void gradient(Exec *ex, int T, int M, int N, int pad, int at, float alpha, uint64_t seed) {
    char what[96];
    snprintf(what, sizeof what, "%s gemm_grad %dx%d over %d rows pad %d at %d", ex->op->name, M, N,
             T, pad, at);
    Matrix a = matrix(ex, seed, T, M, M + pad, 2 * at);
    Matrix b = matrix(ex, seed + 1, T, N, N + 2 * pad, 3 * at);
    size_t n = (size_t)M * N;
    double *all = test_noise_array(seed + 2, n + (size_t)at, 3), *old = all + at;
    float *c = test_f32(ex, all, n + (size_t)at);
    Expected e = expected_new(n);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0, sum_abs = 0;
            for (int t = 0; t < T; t++) {
                double p = a.v[(size_t)t * a.ld + i] * b.v[(size_t)t * b.ld + j];
                sum += p, sum_abs += fabs(p);
            }
            expect_element(&e, (size_t)i * N + j, sum, sum_abs, T, alpha, old[(size_t)i * N + j],
                           0);
        }
    ex->op->gemm_grad(ex, c + at, a.p, a.ld, b.p, b.ld, T, M, N, alpha);
    double *got_all = test_get_f32(ex, c, n + (size_t)at), *got = got_all + at;
    EXPECT(memcmp(got_all, all, (size_t)at * sizeof *all) == 0, "%s wrote before C", what);
    close_gemm(what, got, &e, M, N, N);
    got[0] = alpha == 0 ? NAN : 2 * got[0] + 1;
    TEST_DETECTS(close_gemm(what, got, &e, M, N, N));
    free(got_all), free(all), expected_free(&e);
    test_free(ex, c), matrix_free(ex, &a), matrix_free(ex, &b);
}

/* The contract's bits: a row's elements do not depend on M, on the row's place, on threads or on
 * the time of day. Both results are looked at: bf16 would round most differences away. */
typedef struct Rows {
    Matrix a, b;
    double *old;
    enum GemmForm form;
    float beta;
    bool to_f32;
} Rows;

static double *some_rows(Exec *ex, const Rows *r, int row, int rows) {
    int N = r->form == GEMM_NN ? r->b.cols : r->b.rows, K = r->a.cols;
    size_t n = (size_t)rows * N;
    const store *a = store_at_const(ex->dtype, r->a.p, (size_t)row * r->a.ld);
    double *old = r->old + (size_t)row * N; /* rounded already, but for the first time */
    void *c = r->to_f32 ? (void *)test_f32(ex, old, n) : (void *)test_store(ex, old, n);
    if (r->to_f32)
        ex->op->gemm_f32(ex, c, N, a, r->a.ld, r->b.p, r->b.ld, rows, N, K, r->form, 1, r->beta);
    else
        ex->op->gemm(ex, c, N, a, r->a.ld, r->b.p, r->b.ld, rows, N, K, r->form, 1, r->beta);
    double *got = r->to_f32 ? test_get_f32(ex, c, n) : test_get_store(ex, c, n);
    test_free(ex, c);
    return got;
}

static void compare_rows(Exec *ex, const Rows *r, int N, int most) {
    const int counts[] = {1, 7, 64, most};
    int before = omp_get_max_threads();
    double *all = some_rows(ex, r, 0, most);
    for (int threads = 1; threads <= 4; threads *= 2)
        for (int m = 0; m < 4; m++)
            for (int place = 0; place < 3; place++) { /* all rows: the same call again */
                int rows = counts[m], row = (most - rows) * place / 2;
                omp_set_num_threads(threads);
                double *got = some_rows(ex, r, row, rows);
                bool same = memcmp(all + (size_t)row * N, got, (size_t)rows * N * 8) == 0;
                EXPECT(same, "%s gemm%s %s N=%d K=%d ld %d beta=%g: rows %d..+%d with %d threads",
                       ex->op->name, r->to_f32 ? "_f32" : "", form_name[r->form], N, r->a.cols,
                       r->b.ld, (double)r->beta, row, rows, threads);
                free(got);
            }
    omp_set_num_threads(before);
    free(all);
}

static void row_bits(Exec *ex, int N, int K, int pad, int first, enum GemmForm form, float beta) {
    int rows = test_on_cpu(ex) && !test_brief() ? 1000 : 300; /* a simulated one is slow */
    Rows r = {.a = matrix(ex, 11, rows, K, K, first), .form = form, .beta = beta};
    r.b = form == GEMM_NN ? matrix(ex, 12, K, N, N + pad, first)
                          : matrix(ex, 12, N, K, K + pad, first);
    r.old = test_noise_array(13, (size_t)rows * N, 1);
    compare_rows(ex, &r, N, rows);
    r.to_f32 = true;
    compare_rows(ex, &r, N, rows);
    free(r.old), matrix_free(ex, &r.a), matrix_free(ex, &r.b);
}

/* Equal bits for any thread count, and for chunks given one by one. */
static void grad_bits(Exec *ex, int T, int M, int N) {
    static const int threads[] = {1, 2, 4};
    int before = omp_get_max_threads();
    Matrix a = matrix(ex, 21, T, M, M, 0), b = matrix(ex, 22, T, N, N, 0);
    size_t n = (size_t)M * N;
    double *old = test_noise_array(23, n, 1), *first = NULL;
    for (int t = 0; t < 3; t++) {
        omp_set_num_threads(threads[t]);
        float *c = test_f32(ex, old, n);
        int step = t == 1 ? GRAD_CHUNK : T;
        for (int r = 0; r < T; r += step)
            ex->op->gemm_grad(ex, c, store_at_const(ex->dtype, a.p, (size_t)r * M), M,
                              store_at_const(ex->dtype, b.p, (size_t)r * N), N,
                              T - r < step ? T - r : step, M, N, 0.5f);
        double *got = test_get_f32(ex, c, n);
        if (!first)
            first = got;
        else {
            EXPECT(memcmp(first, got, n * 8) == 0, "%s gemm_grad %dx%d over %d rows: %d threads",
                   ex->op->name, M, N, T, threads[t]);
            free(got);
        }
        test_free(ex, c);
    }
    omp_set_num_threads(before);
    free(first), free(old), matrix_free(ex, &a), matrix_free(ex, &b);
}

static void all_gemm(Exec *ex) {
    static const Case cases[] = {
        {0, 5, 3, 0, 1, 0},        {6, 40, 1, 0, 1, 1},      {40, 1, 6, 0, 1, 0},
        {1, 1, 1, 0, 1, 0},        {1, 1, 1, 5, 2, 1},       {2, 3, 8, 1, 1, 0},
        {7, 16, 33, 3, -0.37f, 1}, {15, 17, 31, 0, 1, 1},    {16, 16, 64, 0, 1, 0},
        {17, 15, 65, 7, 1, 0},     {40, 130, 2400, 0, 1, 0}, {64, 64, 64, 0, 0.25f, 1},
        {65, 129, 100, 9, 1, 0},   {5, 2304, 16, 0, 2, 1},   {129, 16, 640, 0, 1, 0},
        {1, 300, 257, 1, 1.5f, 0}, {300, 8, 48, 2, 1, 1},    {97, 48, 1023, 0, 1, 0},
        {31, 257, 127, 13, 0, 1},  {96, 48, 2305, 0, 1, 0},  {31, 257, 127, 0, 0, 1},
        {9, 33, 64, 0, 0, 0},
    };
    static const Case slices[] = {
        /* of low-rank activations, of ranks 1, 3, 4, 5 and 12 */
        {33, 40, 1, 2, 1, 1},   {33, 3, 40, 3, 1, 0}, {33, 40, 4, 8, 0.5f, 1},
        {33, 12, 64, 12, 1, 0}, {20, 5, 41, 6, 1, 1}, {1, 30, 1, 0, 1, 1},
    };
    static const int firsts[] = {1, 1, 4, 2, 3, 5};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int f = GEMM_NT; f <= GEMM_NT_FEW; f++)
            for (int to_f32 = 0; to_f32 < 2; to_f32++)
                product(ex, cases[i], 0, (enum GemmForm)f, to_f32, 100 * i);
    for (size_t i = 0; i < sizeof slices / sizeof *slices; i++)
        for (int f = GEMM_NT; f <= GEMM_NT_FEW; f++)
            for (int to_f32 = 0; to_f32 < 2; to_f32++)
                product(ex, slices[i], firsts[i], (enum GemmForm)f, to_f32, 50 * i);
    static const int grads[][5] = {{0, 3, 5, 0, 0},      {1, 1, 1, 0, 0},      {40, 1, 33, 0, 0},
                                   {40, 33, 1, 0, 0},    {5, 16, 33, 1, 0},    {64, 64, 16, 0, 0},
                                   {1023, 17, 40, 3, 0}, {1024, 16, 96, 0, 0}, {1025, 40, 16, 0, 0},
                                   {2100, 8, 65, 2, 0},  {1030, 4, 30, 8, 4},  {40, 3, 20, 5, 1},
                                   {40, 41, 12, 2, 2}};
    for (size_t i = 0; i < sizeof grads / sizeof *grads; i++)
        gradient(ex, grads[i][0], grads[i][1], grads[i][2], grads[i][3], grads[i][4],
                 i % 2 ? 1 : -0.3f, 7 * i);
    for (int f = GEMM_NT; f <= GEMM_NT_FEW; f++) {
        for (int pad = 0; pad <= 8; pad += 8) {
            row_bits(ex, 330, 64, pad, 0, (enum GemmForm)f, 0);
            row_bits(ex, 65, 2304, pad, 0, (enum GemmForm)f, 1);
            row_bits(ex, 16, 1000, pad, 0, (enum GemmForm)f, 0);
        }
        row_bits(ex, 20, 1002, 1, 0, (enum GemmForm)f, 0); /* rows that begin at any element */
        row_bits(ex, 7, 333, 0, 1, (enum GemmForm)f, 1);
        if (test_on_cpu(ex) && !test_brief()) /* several runs of AMX's over K */
            row_bits(ex, 130, 2400, 0, 0, (enum GemmForm)f, 1);
    }
    grad_bits(ex, 2500, 16, 300);
    grad_bits(ex, 3000, 24, 16);
    grad_bits(ex, 1100, 130, 257);
}

int main(void) {
    test_each_exec(all_gemm);
    return test_done("gemm");
}
