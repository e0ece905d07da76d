/* Starts without an SAE: bases from a matrix whose eigenvectors are known, and what each kind finds
 * of a task that is planted among louder nuisance. */
#include <math.h>
#include <string.h>

#include "data/base/mem.h"
#include "host/stage/adapting.h"
#include "tests/files.h"

#define MUST(call, err) CHECK(call, "%s", (err).text)

static double dot(const double *a, int step_a, const double *b, int step_b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i * step_a] * b[i * step_b];
    return sum;
}

/* ----------------------------------------------------------------------------- eigenvectors -- */

enum { D = 40, VALUES = 6 };
static const double value[VALUES] = {5, -4, 3, -2, 1.5, -1};

/* Q (D,VALUES), A = Q diag(value) Q^T. */
static void planted(Exec *ex, double *Q, double *A) {
    double *noise = test_noise_array(5, D * VALUES, 1);
    memcpy(Q, noise, sizeof *noise * D * VALUES);
    basis_orthonormalise(ex, Q, D, VALUES);
    for (int a = 0; a < D; a++)
        for (int b = 0; b < D; b++) {
            A[a * D + b] = 0;
            for (int j = 0; j < VALUES; j++)
                A[a * D + b] += value[j] * Q[a * VALUES + j] * Q[b * VALUES + j];
        }
    free(noise);
}

/* Gaps of 0.5 hold eigenvectors to some roundings; shares are those of |value|, which add up to
 * 16.5. */
static int is_leading(const Basis *b, const double *Q, int m) {
    int ok = b->m == m && b->k == 0 && !b->coverage;
    for (int j = 0; ok && j < m; j++) {
        double c = dot(b->U + j, b->R, Q + j, VALUES, D);
        ok &= fabs(fabs(c) - 1) <= 1e-12 && fabs(b->variance[j] - fabs(value[j]) / 16.5) <= 1e-12;
    }
    for (int i = 0; i < b->R; i++)
        for (int j = 0; j <= i; j++)
            ok &= fabs(dot(b->U + i, b->R, b->U + j, b->R, D) - (i == j)) <= 1e-13;
    EXPECT(test_quiet || ok, "not the leading eigenvectors: %d of %d columns", b->m, b->R);
    return ok;
}

static void test_matrix(Exec *ex) {
    double Q[D * VALUES], A[D * D], x[D];
    Basis b, other, few;
    Err err;
    planted(ex, Q, A);
    MUST(basis_of_matrix(&b, ex, 7, A, D, D, 8, 1e-13, 1, "A", &err), err);
    MUST(basis_of_matrix(&other, ex, 7, A, D, D, 8, 1e-13, 2, "A", &err), err);
    MUST(basis_of_matrix(&few, ex, 7, A, D, D, 4, 1e-13, 1, "A", &err), err);
    EXPECT(b.layer == 7 && b.D == D && b.R == 8, "layer %d, %d x %d", b.layer, b.D, b.R);
    is_leading(&b, Q, VALUES), is_leading(&other, Q, VALUES), is_leading(&few, Q, 4);
    TEST_DETECTS(is_leading(&few, Q + 1, 4));
    EXPECT(fabs(dot(b.U + 7, 8, other.U + 7, 8, D)) < 0.9, "the fill does not depend on the seed");
    basis_free(&other), basis_free(&few), basis_free(&b);
    MUST(basis_of_matrix(&few, ex, 7, A, D, D, 8, 2.5, 1, "A", &err), err);
    is_leading(&few, Q, 3); /* what is 2 may be rounding */
    basis_free(&few);
    for (int i = 0; i < D; i++) x[i] = 3 * Q[i * VALUES + 2];
    MUST(basis_of_matrix(&b, ex, 7, x, 1, D, 2, 1e-13, 1, "x", &err), err);
    EXPECT(b.m == 1 && b.variance[0] == 1 && fabs(fabs(dot(b.U, 2, Q + 2, VALUES, D)) - 1) <= 1e-12,
           "not the vector");
    basis_free(&b);
    EXPECT_REFUSED(basis_of_matrix(&b, ex, 7, x, 1, D, 2, 3.5, 1, "the x", &err), err, EXIT_INPUT,
                   "layer 7: the x: nothing above rounding");
}

/* By eigenvalues, not by their sizes: -4 and -2 are none. With -INFINITY they come last. */
static void test_symmetric(Exec *ex) {
    static const int above[] = {0, 2, 4}; /* 5, 3 and 1.5 of 9.5 */
    double Q[D * VALUES], A[D * D];
    Basis b;
    Err err;
    planted(ex, Q, A);
    MUST(basis_of_symmetric(&b, ex, 7, A, D, 5, 1e-13, 1, "A", &err), err);
    EXPECT(b.m == 3 && b.R == 5, "%d of %d columns", b.m, b.R);
    for (int j = 0; j < 3 && j < b.m; j++) {
        double c = dot(b.U + j, b.R, Q + above[j], VALUES, D);
        EXPECT(fabs(fabs(c) - 1) <= 1e-12, "eigenvector %d: %.15g", j, c);
        EXPECT(fabs(b.variance[j] - value[above[j]] / 9.5) <= 1e-12, "share: %g", b.variance[j]);
    }
    basis_free(&b);
    MUST(basis_of_symmetric(&b, ex, 7, A, D, D, -INFINITY, 1, "A", &err), err);
    double last = dot(b.U + D - 1, b.R, Q + 1, VALUES, D);
    EXPECT(b.m == D && fabs(fabs(last) - 1) <= 1e-12, "%d columns, the last %.15g", b.m, last);
    basis_free(&b);
    for (int i = 0; i < D * D; i++) A[i] = i % (D + 1) ? 0 : -1;
    EXPECT_REFUSED(basis_of_symmetric(&b, ex, 7, A, D, 5, 1e-13, 1, "the A", &err), err, EXIT_INPUT,
                   "layer 7: the A: nothing above rounding");
}

/* X (5,D) = diag(s) V^T of orthonormal V (D,VALUES): its singular values are s. */
static void of_spectrum(double *X, const double *V, const double *s) {
    for (int i = 0; i < 5; i++)
        for (int d = 0; d < D; d++) X[i * D + d] = s[i] * V[d * VALUES + i];
}

/* The aligned directions, whatever the unaligned ones are; scales are the spectra's ratios,
 * clipped, with mean 1. Falling, though not given in order. */
static void test_landmarks(Exec *ex) {
    static const double aligned[] = {3, 8, 0.02, 1, 5}, unaligned[] = {0.1, 2, 16, 7, 0.4};
    static const int order[] = {1, 4, 0, 3, 2}; /* 8 5 3 1 .02 and 16 7 2 .4 .1 */
    static const double ratio[] = {2, 1.4, 2.0 / 3, 0.4, 5, 1};
    double Q[D * VALUES], P[D * VALUES], A[D * D], X[2][5 * D], mean = 0;
    Basis b;
    Err err;
    planted(ex, Q, A);
    for (int i = 0; i < D * VALUES; i++) P[i] = Q[(i + 77) % (D * VALUES)];
    basis_orthonormalise(ex, P, D, VALUES);
    of_spectrum(X[0], Q, aligned), of_spectrum(X[1], P, unaligned);
    MUST(basis_of_landmarks(&b, ex, 7, X[0], X[1], 5, D, 6, 1, &err), err);
    EXPECT(b.m == 5 && b.R == 6 && b.scale[5] == 1, "%d of %d columns", b.m, b.R);
    for (int j = 0; j < 5; j++) mean += ratio[j] / 5;
    for (int j = 0; j < 5; j++) {
        double c = dot(b.U + j, 6, Q + order[j], VALUES, D);
        EXPECT(fabs(fabs(c) - 1) <= 1e-12, "direction %d: %.15g", j, c);
        EXPECT(fabs(b.scale[j] - ratio[j] / mean) <= 1e-11, "scale %d: %.15g", j, b.scale[j]);
    }
    basis_free(&b);
    for (int i = 0; i < 5 * D; i++) X[1][i] *= 100; /* ratios from 40 on */
    MUST(basis_of_landmarks(&b, ex, 7, X[0], X[1], 5, D, 5, 1, &err), err);
    for (int j = 0; j < 5; j++) EXPECT(fabs(b.scale[j] - 1) <= 1e-12, "clipped: %g", b.scale[j]);
    basis_free(&b);
    for (int i = 0; i < 5 * D; i++) X[1][i] *= 4e-4; /* 0.08 and below, but the last: 0.2 */
    MUST(basis_of_landmarks(&b, ex, 7, X[0], X[1], 5, D, 5, 1, &err), err);
    EXPECT(fabs(b.scale[4] / b.scale[0] - 2) <= 1e-11 && b.scale[2] == b.scale[0], "clipped: %g %g",
           b.scale[4], b.scale[0]);
    basis_free(&b);
}

/* ------------------------------------------------------------------------------- the starts -- */

/* A task of three directions, which aligned documents alone have, among five of nuisance that are
 * ten times as loud. Documents come in twos with opposite nuisance, so that nothing of it is in the
 * sums of task times nuisance, and the corpora have the same of it in their second moments. A
 * pair has it in common, or each its own. */
enum { WIDTH = 24, TASK = 3, NUISANCE = 5, PAIRS = 40 };

typedef struct Planted {
    double T[WIDTH * (TASK + NUISANCE)]; /* (WIDTH,TASK + NUISANCE) orthonormal */
    double v[PAIRS][2][WIDTH];
} Planted;

static double nuisance(int document, int j) {
    return (document % 2 ? -10 : 10) * test_noise(21, (uint64_t)(document / 2 * NUISANCE + j));
}

static Planted *planted_pairs(Exec *ex, bool common) {
    Planted *p = mem_array(1, sizeof *p);
    double *noise = test_noise_array(20, WIDTH * (TASK + NUISANCE), 1);
    memcpy(p->T, noise, sizeof p->T);
    free(noise);
    basis_orthonormalise(ex, p->T, WIDTH, TASK + NUISANCE);
    for (int i = 0; i < PAIRS; i++)
        for (int c = 0; c < 2; c++)
            for (int k = 0; k < WIDTH; k++) {
                const double *row = p->T + k * (TASK + NUISANCE);
                double x = 0;
                for (int j = 0; j < TASK && c == 0; j++)
                    x += row[j] * (1 + test_noise(22, (uint64_t)(i / 2 * TASK + j)));
                int of = common || c == 0 ? i : (i + 2) % PAIRS;
                for (int j = 0; j < NUISANCE; j++) x += row[TASK + j] * nuisance(of, j);
                p->v[i][c][k] = x;
            }
    return p;
}

static StreamMoments moments_of(const Planted *p, const uint8_t *has) {
    StreamMoments m;
    Err err;
    stream_init(&m, WIDTH, (int[]){2}, 1);
    stream_add(&m, has, &p->v[0][0][0], PAIRS);
    MUST(stream_finish(&m, &err), err);
    return m;
}

/* How much of the task the first m columns hold: 1, all of it. */
static double captured(const Planted *p, const Basis *b) {
    double sum = 0;
    for (int j = 0; j < b->m; j++)
        for (int t = 0; t < TASK; t++) {
            double c = dot(b->U + j, b->R, p->T + t, TASK + NUISANCE, WIDTH);
            sum += c * c / TASK;
        }
    return sum;
}

static double found(Exec *ex, const Planted *p, const StreamMoments *m, enum StartKind start,
                    int directions) {
    Settings s = {.train = {.rank = TASK}};
    Subspace to;
    Err err;
    MUST(adapting_direct(&to, ex, m, &s, start, &err), err);
    const Basis *b = &to.basis[0];
    double share = captured(p, b);
    EXPECT(to.n == 1 && b->layer == 2 && b->R == TASK && b->m == directions, "%s: %d of %d columns",
           adapter_start[start].name, b->m, b->R);
    EXPECT(strncmp(to.made, adapter_start[start].name, strlen(adapter_start[start].name)) == 0,
           "made: %s", to.made);
    subspace_free(&to);
    return share;
}

/* The share of their variance that pairs have in common, from its definition. */
static double common_share(const Planted *p) {
    double both = 0, apart = 0, mean[2][WIDTH] = {{0}};
    for (int i = 0; i < 2 * PAIRS * WIDTH; i++)
        mean[i / WIDTH % 2][i % WIDTH] += (&p->v[0][0][0])[i] / PAIRS;
    for (int i = 0; i < PAIRS; i++)
        for (int k = 0; k < WIDTH; k++) {
            double a = p->v[i][0][k] - mean[0][k], b = p->v[i][1][k] - mean[1][k];
            both += 2 * a * b, apart += a * a + b * b;
        }
    return both / apart;
}

/* One vector has a third of three directions, whatever the rest; pairs find them all where nuisance
 * is common, and only nuisance where it is not; the contrast finds them either way. Their
 * eigenvalues are some 0.3, and what rounding leaves of 80 vectors of squared length 200 moves them
 * by 1e-11 at most. */
static void test_kinds(Exec *ex, bool common) {
    Planted *p = planted_pairs(ex, common);
    uint8_t has[PAIRS];
    memset(has, 3, sizeof has);
    StreamMoments m = moments_of(p, has);
    double mean = found(ex, p, &m, START_DIRECT_MEAN, 1);
    double pairs = found(ex, p, &m, START_DIRECT_PAIRS, TASK);
    double contrast = found(ex, p, &m, START_DIRECT_COVARIANCE, TASK);
    EXPECT(fabs(mean - 1.0 / TASK) <= 1e-12, "mean: %.15g", mean);
    EXPECT(fabs(contrast - 1) <= 1e-12, "contrast: %.15g", contrast);
    EXPECT(common ? fabs(pairs - 1) <= 1e-12 : pairs < 0.1, "pairs: %.15g", pairs);
    double shared = stream_shared(&m, 0);
    EXPECT(fabs(shared - common_share(p)) <= 1e-12, "pairs share %.15g, not %.15g", shared,
           common_share(p));
    EXPECT(common ? shared > 0.99 : shared < 0.3, "pairs share %g", shared);
    stream_free(&m);
    free(p);
}

/* What the unaligned vary more in is no direction of the contrast, though its eigenvalues have the
 * largest sizes: 0.44 of the nuisance's variance, 33. */
static void test_louder_unaligned(Exec *ex) {
    Planted *p = planted_pairs(ex, true);
    uint8_t has[PAIRS];
    memset(has, 3, sizeof has);
    for (int i = 0; i < PAIRS; i++)
        for (int k = 0; k < WIDTH; k++) p->v[i][1][k] *= 1.2;
    StreamMoments m = moments_of(p, has);
    double contrast = found(ex, p, &m, START_DIRECT_COVARIANCE, TASK);
    EXPECT(fabs(contrast - 1) <= 1e-12, "contrast: %.15g", contrast);
    stream_free(&m);
    free(p);
}

static void test_refused(Exec *ex) {
    Planted *p = planted_pairs(ex, true);
    uint8_t has[PAIRS];
    Settings s = {.train = {.rank = TASK}};
    Subspace to;
    Err err;
    for (int i = 0; i < PAIRS; i++) has[i] = 3;
    for (int i = 0; i < PAIRS; i++) memcpy(p->v[i][0], p->v[i][1], sizeof p->v[i][0]);
    StreamMoments m = moments_of(p, has); /* the corpora are one */
    for (int k = START_DIRECT_MEAN; k <= START_DIRECT_COVARIANCE; k++)
        EXPECT_REFUSED(adapting_direct(&to, ex, &m, &s, (enum StartKind)k, &err), err, EXIT_INPUT,
                       "nothing above rounding");
    m.file = mem_string("moments.st");
    EXPECT_REFUSED(adapting_direct(&to, ex, &m, &s, START_LANDMARKS, &err), err, EXIT_INPUT,
                   "moments.st: layer 2: the aligned landmarks are all zero: expected");
    m.layer[0].landmark[5] = 1;
    EXPECT_REFUSED(adapting_direct(&to, ex, &m, &s, START_LANDMARKS, &err), err, EXIT_INPUT,
                   "layer 2: the unaligned landmarks are all zero: expected");
    s.train.rank = WIDTH + 1;
    EXPECT_REFUSED(adapting_direct(&to, ex, &m, &s, START_DIRECT_MEAN, &err), err, EXIT_USAGE,
                   "at most the model's width 24");
    m.pairs = 0, s.train.rank = TASK;
    EXPECT_REFUSED(adapting_direct(&to, ex, &m, &s, START_DIRECT_PAIRS, &err), err, EXIT_INPUT,
                   "corpora without pairs");
    stream_free(&m);
    free(p);
}

static void body(Exec *ex) {
    test_matrix(ex);
    test_symmetric(ex);
    test_landmarks(ex);
    test_kinds(ex, true);
    test_kinds(ex, false);
    test_louder_unaligned(ex);
    test_refused(ex);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_direct");
}
