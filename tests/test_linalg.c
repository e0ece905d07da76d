/* Factorisations: their defining properties, checked in double. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "tests/test.h"

/* LAPACK's bounds are a low-degree polynomial of the size times the roundoff; 4 (M + N) covers its
 * Householder sums with room for the test's own products. */
static double tol(int M, int N) {
    return 4.0 * (M + N) * ldexp(1, -53);
}

static double *zeros(size_t n) {
    double *a = calloc(n + 1, sizeof *a);
    CHECK(a, "out of memory");
    return a;
}

static double *f64_in(Exec *ex, const double *values, size_t n) {
    double *p = test_alloc(ex, n * sizeof *p);
    exec_copy_in(ex, p, values, n * sizeof *p);
    return p;
}

static double norm(const double *a, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * a[i];
    return sqrt(sum);
}

/* (M,N) A (M,K) times B (K,N). */
static double *multiply(const double *a, const double *b, int M, int K, int N) {
    double *c = zeros((size_t)M * N);
    for (int i = 0; i < M; i++)
        for (int k = 0; k < K; k++)
            for (int j = 0; j < N; j++)
                c[(size_t)i * N + j] += a[(size_t)i * K + k] * b[(size_t)k * N + j];
    return c;
}

static double *transpose(const double *a, int M, int N) {
    double *t = zeros((size_t)M * N);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) t[(size_t)j * M + i] = a[(size_t)i * N + j];
    return t;
}

/* Columns of a (M,N) are orthonormal. */
static int orthonormal(const char *what, const double *a, int M, int N) {
    double *t = transpose(a, M, N), *gram = multiply(t, a, N, M, N), *eye = zeros((size_t)N * N);
    for (int i = 0; i < N; i++) eye[(size_t)i * N + i] = 1;
    int ok = test_close(what, gram, eye, (size_t)N * N, tol(M, N), 0);
    free(t), free(gram), free(eye);
    return ok;
}

static int falling(const double *s, int m) {
    for (int i = 0; i < m; i++)
        if (!(s[i] >= 0) || (i > 0 && !(s[i] <= s[i - 1]))) return 0;
    return 1;
}

static int rebuilds(const char *what, const double *u, const double *s, const double *vt,
                    const double *a, int M, int N) {
    int m = M < N ? M : N;
    double *us = zeros((size_t)M * m);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < m; j++) us[(size_t)i * m + j] = u[(size_t)i * m + j] * s[j];
    double *back = multiply(us, vt, M, m, N);
    int ok = test_close(what, back, a, (size_t)M * N, tol(M, N) * norm(a, (size_t)M * N), 0);
    free(us), free(back);
    return ok;
}

/* rank < min(M,N): the last rows repeat the first ones; rank 0: a zero matrix. */
static double *sample(uint64_t seed, int M, int N, int rank) {
    double *a = test_noise_array(seed, (size_t)M * N, 3);
    for (int i = rank; i < M; i++)
        for (int j = 0; j < N; j++) a[(size_t)i * N + j] = rank ? a[(size_t)(i % rank) * N + j] : 0;
    return a;
}

static void svd(Exec *ex, int M, int N, int rank) {
    char what[96];
    snprintf(what, sizeof what, "%s svd %dx%d rank %d", ex->op->name, M, N, rank);
    int m = M < N ? M : N;
    double *a = sample(1, M, N, rank), *A = f64_in(ex, a, (size_t)M * N);
    double *U = test_alloc(ex, (size_t)M * m * 8), *s = test_alloc(ex, (size_t)m * 8);
    double *Vt = test_alloc(ex, (size_t)m * N * 8);
    ex->op->svd(ex, U, s, Vt, A, M, N);
    double *u = test_get_f64(ex, U, (size_t)M * m), *sv = test_get_f64(ex, s, (size_t)m);
    double *vt = test_get_f64(ex, Vt, (size_t)m * N), *v = transpose(vt, m, N);
    EXPECT(falling(sv, m), "%s", what);
    orthonormal(what, u, M, m);
    orthonormal(what, v, N, m);
    rebuilds(what, u, sv, vt, a, M, N);
    for (int i = rank; i < m; i++)
        EXPECT(sv[i] <= tol(M, N) * sv[0], "%s: singular value %d is %g", what, i, sv[i]);
    if (m > 1 && rank > 1) {
        double keep = sv[0];
        sv[0] = sv[1], sv[1] = keep;
        TEST_DETECTS(falling(sv, m));
        TEST_DETECTS(rebuilds(what, u, sv, vt, a, M, N));
    }
    u[0] = NAN;
    TEST_DETECTS(orthonormal(what, u, M, m));
    free(a), free(u), free(sv), free(vt), free(v);
    test_free(ex, A), test_free(ex, U), test_free(ex, s), test_free(ex, Vt);
}

/* Singular values of a matrix that was built to have them: I - 2 x x^T / (x.x) is orthogonal. */
static void svd_known(Exec *ex) {
    enum { M = 9, N = 6 };
    static const double want[N] = {7, 5, 5, 0.25, 1e-3, 0};
    double a[M * N], *x = test_noise_array(5, M, 1), *y = test_noise_array(6, N, 1);
    double xx = norm(x, M), yy = norm(y, N);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            a[i * N + j] = 0;
            for (int k = 0; k < N; k++)
                a[i * N + j] += ((i == k) - 2 * x[i] * x[k] / (xx * xx)) * want[k] *
                                ((j == k) - 2 * y[j] * y[k] / (yy * yy));
        }
    double *A = f64_in(ex, a, M * N), *s = test_alloc(ex, sizeof want);
    double *U = test_alloc(ex, M * N * 8), *Vt = test_alloc(ex, N * N * 8);
    ex->op->svd(ex, U, s, Vt, A, M, N);
    double *got = test_get_f64(ex, s, N);
    test_close("svd of known values", got, want, N, 7 * tol(M, N), 0);
    free(x), free(y), free(got);
    test_free(ex, A), test_free(ex, s), test_free(ex, U), test_free(ex, Vt);
}

/* Q^T A is upper triangular and gives A back: the columns span the same nested spaces. */
static int nested(const char *what, const double *q, const double *a, int M, int N) {
    double scale = tol(M, N) * norm(a, (size_t)M * N);
    double *qt = transpose(q, M, N), *r = multiply(qt, a, N, M, N), *upper = zeros((size_t)N * N);
    for (int i = 0; i < N; i++)
        for (int j = i; j < N; j++) upper[(size_t)i * N + j] = r[(size_t)i * N + j];
    int ok = test_close(what, r, upper, (size_t)N * N, scale, 0);
    double *back = multiply(q, upper, M, N, N);
    ok &= test_close(what, back, a, (size_t)M * N, scale, 0);
    free(qt), free(r), free(upper), free(back);
    return ok;
}

static void qr(Exec *ex, int M, int N, int rank) {
    char what[96];
    snprintf(what, sizeof what, "%s qr %dx%d rank %d", ex->op->name, M, N, rank);
    double *a = sample(2, M, N, rank), *A = f64_in(ex, a, (size_t)M * N);
    ex->op->qr(ex, A, M, N);
    double *q = test_get_f64(ex, A, (size_t)M * N);
    orthonormal(what, q, M, N);
    nested(what, q, a, M, N);
    if (N > 1 && rank > 1) {
        for (int i = 0; i < M; i++) { /* two columns exchanged: orthonormal, but not nested */
            double keep = q[(size_t)i * N];
            q[(size_t)i * N] = q[(size_t)i * N + 1], q[(size_t)i * N + 1] = keep;
        }
        TEST_DETECTS(nested(what, q, a, M, N));
    }
    q[0] += 1e-6;
    TEST_DETECTS(orthonormal(what, q, M, N));
    free(a), free(q), test_free(ex, A);
}

static void thread_bits(Exec *ex) {
    enum { M = 400, N = 90 };
    int before = omp_get_max_threads();
    double *a = sample(3, M, N, M), *first = NULL;
    for (int threads = 1; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        double *A = f64_in(ex, a, M * N), *U = test_alloc(ex, M * N * 8);
        double *s = test_alloc(ex, N * 8), *Vt = test_alloc(ex, N * N * 8);
        ex->op->svd(ex, U, s, Vt, A, M, N);
        ex->op->qr(ex, U, M, N);
        double *got = test_get_f64(ex, U, M * N);
        if (!first)
            first = got;
        else {
            EXPECT(memcmp(first, got, M * N * 8) == 0, "%d threads", threads);
            free(got);
        }
        test_free(ex, A), test_free(ex, U), test_free(ex, s), test_free(ex, Vt);
    }
    omp_set_num_threads(before);
    free(a), free(first);
}

static void all_linalg(Exec *ex) {
    static const int shapes[][3] = {{1, 1, 1},      {1, 7, 1},   {7, 1, 7},    {2, 2, 2},
                                    {5, 3, 5},      {3, 5, 3},   {33, 32, 33}, {16, 300, 16},
                                    {300, 16, 300}, {40, 40, 3}, {24, 10, 1},  {6, 9, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int M = shapes[i][0], N = shapes[i][1], rank = shapes[i][2];
        svd(ex, M, N, rank);
        if (M >= N) qr(ex, M, N, rank);
    }
    svd_known(ex);
    thread_bits(ex);
}

int main(void) {
    test_each_exec(all_linalg);
    return test_done("linalg");
}
