/* estimate.c - estimators of the task's subspace. */
#include "host/theory/estimate.h"

#include <math.h>

#include "data/base/mem.h"
#include "host/theory/draws.h"
#include "model/subspace.h"

/* Of A's columns (H,m): the sum of squares of what the columns of B (H,n) leave of them, and in
 * *kept what they keep. */
static double left_over(double *kept, const double *A, int m, const double *B, int n, int H) {
    double left = 0, *x = mem_array((size_t)H, sizeof *x);
    *kept = 0;
    for (int i = 0; i < m; i++) {
        for (int h = 0; h < H; h++) x[h] = A[(size_t)h * m + i];
        for (int j = 0; j < n; j++) {
            double dot = 0;
            for (int h = 0; h < H; h++) dot += B[(size_t)h * n + j] * x[h];
            for (int h = 0; h < H; h++) x[h] -= dot * B[(size_t)h * n + j];
            *kept += dot * dot;
        }
        for (int h = 0; h < H; h++) left += x[h] * x[h];
    }
    free(x);
    return left;
}

Recovery recovery_of(const World *w, const double *U, int m) {
    int H = w->s.H, r = w->s.r;
    double shared, ignored;
    double more = left_over(&shared, U, m, w->V, r, H);
    double missed = left_over(&ignored, w->V, r, U, m, H);
    return (Recovery){m, sqrt(more + missed), shared / r, shared / m};
}

/* -------------------------------------------------------------------------------------- rows -- */

/* The k largest of by (n), which is freed. */
static void choose(int32_t *feature, Exec *ex, double *by, int n, int k) {
    double *value = exec_alloc(ex, (size_t)n * sizeof *value, "theory");
    int32_t *index = exec_alloc(ex, (size_t)k * sizeof *index, "theory");
    exec_copy_in(ex, value, by, (size_t)n * sizeof *value);
    ex->op->top_k(ex, index, value, n, k);
    exec_copy_out(ex, feature, index, (size_t)k * sizeof *feature);
    exec_free(ex, index);
    exec_free(ex, value);
    free(by);
}

void estimate_choose(int32_t *feature, Exec *ex, const World *w, const Tally *t, int k) {
    double *by = mem_array((size_t)w->s.n, sizeof *by);
    for (int j = 0; j < w->s.n; j++) by[j] = fabs(t->code[ALIGNED][j] - t->code[UNALIGNED][j]);
    choose(feature, ex, by, w->s.n, k);
}

/* (H) The corpora's sums of x, aligned minus unaligned. From malloc. */
static double *difference(const World *w, const Tally *t) {
    int H = w->s.H;
    double *x = mem_array((size_t)H, sizeof *x);
    memcpy(x, t->noise, (size_t)H * sizeof *x);
    for (int j = 0; j < w->s.n; j++) {
        double z = t->code[ALIGNED][j] - t->code[UNALIGNED][j];
        for (int h = 0; h < H; h++) x[h] += z * w->d[(size_t)j * H + h];
    }
    return x;
}

void estimate_heard(double *by, const World *w, const Tally *t, double eps) {
    int H = w->s.H;
    double *x = difference(w, t), *row = mem_array((size_t)H, sizeof *row);
    for (int j = 0; j < w->s.n; j++) {
        double sum = 0;
        world_row(row, w, j, eps, ERROR_RANDOM);
        for (int h = 0; h < H; h++) sum += row[h] * x[h];
        by[j] = fabs(sum) / t->documents;
    }
    free(row), free(x);
}

void estimate_choose_heard(int32_t *feature, Exec *ex, const World *w, const double *by, int k) {
    double *copy = mem_array((size_t)w->s.n, sizeof *copy);
    memcpy(copy, by, (size_t)w->s.n * sizeof *copy);
    choose(feature, ex, copy, w->s.n, k);
}

void estimate_random(int32_t *feature, Exec *ex, const World *w, int k) {
    double *by = mem_array((size_t)w->s.n, sizeof *by);
    Draws draws = draws_of(&w->s, DRAW_CHOICE, 0);
    for (int j = 0; j < w->s.n; j++) by[j] = draw_uniform(&draws);
    choose(feature, ex, by, w->s.n, k);
}

int estimate_right(const World *w, const int32_t *feature, int k) {
    int right = 0;
    for (int i = 0; i < k; i++) right += feature[i] < w->s.r;
    return right;
}

/* weight (k); NULL: all the same. */
static Recovery span_of(Exec *ex, const World *w, const double *rows, const int32_t *feature, int k,
                        double variance, const double *weight) {
    SubspaceOptions o = {.rank = 0, .variance = variance, .weight = weight};
    Basis b;
    Err err;
    CHECK(basis_build(&b, ex, 0, rows, feature, k, w->s.H, &o, &err), "%s", err.text);
    Recovery found = recovery_of(w, b.U, b.R);
    basis_free(&b);
    return found;
}

static double *rows_of(const World *w, const int32_t *feature, int k, double eps,
                       enum RowError error) {
    double *rows = mem_array((size_t)k * (size_t)w->s.H, sizeof *rows);
    for (int i = 0; i < k; i++) world_row(rows + (size_t)i * w->s.H, w, feature[i], eps, error);
    return rows;
}

Recovery estimate_sae(Exec *ex, const World *w, const int32_t *feature, int k, double eps,
                      enum RowError error, double variance) {
    double *rows = rows_of(w, feature, k, eps, error);
    Recovery found = span_of(ex, w, rows, feature, k, variance, NULL);
    free(rows);
    return found;
}

Recovery estimate_weighted(Exec *ex, const World *w, const Tally *t, const int32_t *feature, int k,
                           double eps, double variance) {
    double *rows = rows_of(w, feature, k, eps, ERROR_RANDOM);
    double *weight = mem_array((size_t)k, sizeof *weight);
    for (int i = 0; i < k; i++)
        weight[i] = fabs(t->code[ALIGNED][feature[i]] - t->code[UNALIGNED][feature[i]]);
    Recovery found = span_of(ex, w, rows, feature, k, variance, weight);
    free(weight), free(rows);
    return found;
}

Recovery estimate_rows(Exec *ex, const World *w, const double *rows, const double *by, int n) {
    size_t H = (size_t)w->s.H, r = (size_t)w->s.r;
    double *size = mem_array((size_t)n, sizeof *size), *chosen = mem_array(r * H, sizeof *chosen);
    int32_t *feature = mem_array(r, sizeof *feature);
    for (int j = 0; j < n; j++) size[j] = fabs(by[j]);
    choose(feature, ex, size, n, w->s.r);
    for (size_t i = 0; i < r; i++)
        memcpy(chosen + i * H, rows + (size_t)feature[i] * H, H * sizeof *chosen);
    Recovery found = span_of(ex, w, chosen, feature, w->s.r, 1, NULL);
    free(feature), free(chosen);
    return found;
}

Recovery estimate_mean(const World *w, const Tally *t) {
    int H = w->s.H;
    double *x = difference(w, t), square = 0;
    for (int h = 0; h < H; h++) square += x[h] * x[h];
    if (square == 0) { /* nothing fired: there is no vector */
        free(x);
        return (Recovery){0, sqrt(w->s.r), 0, 0};
    }
    for (int h = 0; h < H; h++) x[h] /= sqrt(square);
    Recovery found = recovery_of(w, x, 1);
    free(x);
    return found;
}

/* ------------------------------------------------------------------------------ eigenvectors -- */

Recovery estimate_leading(Exec *ex, const World *w, const double *A) {
    Basis b;
    Err err;
    CHECK(basis_of_symmetric(&b, ex, 0, A, w->s.H, w->s.r, -INFINITY, 0, "A", &err), "%s",
          err.text);
    Recovery found = recovery_of(w, b.U, b.R);
    basis_free(&b);
    return found;
}

Recovery estimate_pairs(Exec *ex, const World *w, const Moments *pairs) {
    return estimate_leading(ex, w, pairs->square); /* not centred; any multiple will do */
}

/* Element (i,j) of a covariance times the number of documents. */
static double centred(const Moments *m, int i, int j, int H) {
    return m->square[(size_t)i * H + j] - m->sum[i] / m->documents * m->sum[j];
}

Recovery estimate_pooled(Exec *ex, const World *w, const Moments *unaligned,
                         const Moments *aligned) {
    Moments both;
    moments_init(&both, w);
    both.documents = unaligned->documents + aligned->documents;
    int H = w->s.H;
    double *C = mem_array((size_t)H * (size_t)H, sizeof *C);
    for (int i = 0; i < H; i++) both.sum[i] = unaligned->sum[i] + aligned->sum[i];
    for (int i = 0; i < H * H; i++) both.square[i] = unaligned->square[i] + aligned->square[i];
    for (int i = 0; i < H; i++)
        for (int j = 0; j < H; j++) C[(size_t)i * H + j] = centred(&both, i, j, H);
    Recovery found = estimate_leading(ex, w, C);
    free(C);
    moments_free(&both);
    return found;
}

Recovery estimate_contrast(Exec *ex, const World *w, const Moments *unaligned,
                           const Moments *aligned) {
    CHECK(unaligned->documents == aligned->documents, "corpora of %d and %d documents",
          unaligned->documents, aligned->documents);
    int H = w->s.H;
    double *C = mem_array((size_t)H * (size_t)H, sizeof *C);
    for (int i = 0; i < H; i++)
        for (int j = 0; j < H; j++)
            C[(size_t)i * H + j] = centred(aligned, i, j, H) - centred(unaligned, i, j, H);
    Recovery found = estimate_leading(ex, w, C);
    free(C);
    return found;
}
