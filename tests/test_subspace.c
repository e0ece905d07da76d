/* Subspaces: what PCA and an orthonormal basis are by definition, planted directions found to 1e-7,
 * angles that are known, and the file. */
#include "model/subspace.h"

#include <math.h>

#include "data/base/mem.h"
#include "data/base/safetensors.h"
#include "tests/files.h"

static const SubspaceOptions PLAIN = {.rank = 0, .variance = 0.8, .seed = 3};

static int32_t *numbers(int k) {
    int32_t *f = mem_array((size_t)k, sizeof *f);
    for (int i = 0; i < k; i++) f[i] = 100 + i;
    return f;
}

static Basis make(Exec *ex, const double *rows, int k, int D, SubspaceOptions o) {
    Basis b;
    Err err;
    int32_t *f = numbers(k);
    CHECK(basis_build(&b, ex, 4, rows, f, k, D, &o, &err), "%s", err.text);
    free(f);
    return b;
}

static double column_dot(const Basis *b, int i, int j) {
    double dot = 0;
    for (int d = 0; d < b->D; d++) dot += b->U[(size_t)d * b->R + i] * b->U[(size_t)d * b->R + j];
    return dot;
}

/* Householder QR leaves columns orthonormal to a few u times the size; 1e-13 is 450 u. */
static void expect_basis(const Basis *b) {
    for (int j = 0; j < b->R; j++) {
        double largest = 0;
        for (int i = 0; i <= j; i++)
            EXPECT(fabs(column_dot(b, i, j) - (i == j)) <= 1e-13, "columns %d %d: %g", i, j,
                   column_dot(b, i, j));
        for (int d = 0; d < b->D; d++)
            if (fabs(b->U[(size_t)d * b->R + j]) > fabs(largest))
                largest = b->U[(size_t)d * b->R + j];
        EXPECT(largest > 0, "column %d: its largest entry is %g", j, largest);
    }
}

/* Rows as the build is to see them: unit length, and centred if asked for. */
static double *prepared(const double *rows, int k, int D, bool center) {
    double *x = mem_array((size_t)k * D, sizeof *x);
    for (int i = 0; i < k; i++) {
        double n = 0;
        for (int d = 0; d < D; d++) n += rows[i * D + d] * rows[i * D + d];
        for (int d = 0; d < D; d++) x[i * D + d] = rows[i * D + d] / sqrt(n);
    }
    for (int d = 0; d < D && center; d++) {
        double mean = 0;
        for (int i = 0; i < k; i++) mean += x[i * D + d] / k;
        for (int i = 0; i < k; i++) x[i * D + d] -= mean;
    }
    return x;
}

/* Each of the first m columns u solves X^T X u = lambda u, with lambda / trace its share; shares
 * fall and add up to 1; m is the least number that reaches tau. No factorisation is used here. */
static int expect_pca(const Basis *b, const double *x, double tau) {
    int k = b->k, D = b->D, m = b->m < b->R ? b->m : b->R, ok = 1;
    double trace = 0, sum = 0;
    for (int i = 0; i < k * D; i++) trace += x[i] * x[i];
    for (int j = 0; j < m; j++) {
        double *y = mem_array((size_t)D, sizeof *y), worst = 0;
        for (int i = 0; i < k; i++) {
            double dot = 0;
            for (int d = 0; d < D; d++) dot += x[i * D + d] * b->U[(size_t)d * b->R + j];
            for (int d = 0; d < D; d++) y[d] += dot * x[i * D + d];
        }
        for (int d = 0; d < D; d++) {
            double e = fabs(y[d] - b->variance[j] * trace * b->U[(size_t)d * b->R + j]);
            if (!(e <= worst)) worst = e;
        }
        ok &= worst <= 1e-12 * trace;
        free(y);
    }
    for (int j = 0; j < k; j++) {
        ok &= j == 0 || b->variance[j] <= b->variance[j - 1];
        if (j < b->m - 1) ok &= sum + b->variance[j] < tau;
        sum += b->variance[j];
        if (j == b->m - 1) ok &= sum >= tau - 1e-12;
    }
    ok &= fabs(sum - 1) <= 1e-12;
    if (!test_quiet) EXPECT(ok, "not the principal directions: k=%d D=%d m=%d", k, D, b->m);
    return ok;
}

/* ||sum over j of (v . q_j) q_j||^2 for n orthonormal vectors of D, one every `step` elements with
 * `stride` between their own. */
static double length_within(const double *v, const double *q, int n, int D, int step, int stride) {
    double sum = 0;
    for (int j = 0; j < n; j++) {
        double dot = 0;
        for (int d = 0; d < D; d++) dot += v[d] * q[j * step + d * stride];
        sum += dot * dot;
    }
    return sum;
}

/* An orthonormal basis (n,D) of the rows' span by Gram-Schmidt, twice; returns n. */
static int span_of(double *q, const double *x, int k, int D) {
    int n = 0;
    for (int i = 0; i < k; i++) {
        double *v = q + n * D, left = 0;
        memcpy(v, x + i * D, sizeof *v * (size_t)D);
        for (int j = 0; j < 2 * n; j++) {
            const double *u = q + j % n * D;
            double dot = 0;
            for (int d = 0; d < D; d++) dot += u[d] * v[d];
            for (int d = 0; d < D; d++) v[d] -= dot * u[d];
        }
        for (int d = 0; d < D; d++) left += v[d] * v[d];
        if (left < 1e-20) continue; /* it lies in the span of those before */
        for (int d = 0; d < D; d++) v[d] /= sqrt(left);
        n++;
    }
    return n;
}

/* What U holds of the unit rows and of their span, by the definition. */
static int expect_measures(const Basis *b, const double *unit) {
    int k = b->k, D = b->D, ok = 1;
    double *q = mem_array((size_t)k * D, sizeof *q), captured = 0;
    int n = span_of(q, unit, k, D);
    for (int i = 0; i < n; i++) captured += length_within(q + i * D, b->U, b->R, D, 1, b->R) / n;
    ok &= fabs(b->captured - captured) <= 1e-12;
    for (int i = 0; i < k; i++) {
        double want = length_within(unit + i * D, b->U, b->R, D, 1, b->R);
        ok &= fabs(b->coverage[i] - want) <= 1e-13;
    }
    if (!test_quiet) EXPECT(ok, "k=%d D=%d: captured %g, expected %g", k, D, b->captured, captured);
    free(q);
    return ok;
}

/* Orthogonal rows: every share is 1/k, and 0.8 of them are enough however their sum rounds. */
static void test_equal_shares(Exec *ex) {
    for (int k = 5; k <= 20; k *= 2) {
        double *rows = mem_array((size_t)k * 24, sizeof *rows);
        for (int i = 0; i < k; i++) rows[i * 24 + i] = 1 + i % 3;
        Basis b = make(ex, rows, k, 24, (SubspaceOptions){.variance = 0.8});
        EXPECT(b.m == k * 4 / 5, "%d of %d equal directions, expected %d", b.m, k, k * 4 / 5);
        basis_free(&b);
        free(rows);
    }
}

static void test_pca(Exec *ex, int k, int D, double tau, bool center) {
    double *rows = test_noise_array(5, (size_t)k * D, 3), *x = prepared(rows, k, D, center);
    double *unit = prepared(rows, k, D, false);
    Basis b = make(ex, rows, k, D, (SubspaceOptions){.variance = tau, .center = center});
    EXPECT(b.R == b.m && b.feature[k - 1] == 99 + k && b.layer == 4, "form");
    expect_basis(&b);
    expect_pca(&b, x, tau);
    expect_measures(&b, unit);
    b.U[0] += 1e-9;
    TEST_DETECTS(expect_pca(&b, x, tau));
    b.U[0] -= 1e-9;
    b.captured *= 1 + 1e-9;
    TEST_DETECTS(expect_measures(&b, unit));
    b.captured /= 1 + 1e-9;
    b.coverage[k - 1] *= 1 + 1e-9;
    TEST_DETECTS(expect_measures(&b, unit));
    if (k > 1 && b.m > 1) {
        b.m--;
        TEST_DETECTS(expect_pca(&b, x, tau));
    }
    basis_free(&b);
    free(rows), free(x), free(unit);
}

/* Weights act as if the unit rows had these lengths, in any unit; what is measured is still of the
 * unit rows. A row of weight 0 has no part in the columns. */
static void test_weights(Exec *ex) {
    enum { K = 8, D = 30 };
    double *rows = test_noise_array(11, K * D, 2), *x = prepared(rows, K, D, false);
    double *unit = prepared(rows, K, D, false), *kept = prepared(rows, K, D, false);
    double weight[K] = {3, 0.25, 1, 0.5, 2, 0.125, 1.5, 0};
    SubspaceOptions o = {.variance = 0.9, .weight = weight};
    Basis b = make(ex, rows, K, D, o),
          plain = make(ex, rows, K, D, (SubspaceOptions){.variance = 0.9});
    for (int i = 0; i < K; i++)
        for (int d = 0; d < D; d++) x[i * D + d] *= weight[i];
    expect_basis(&b);
    expect_pca(&b, x, 0.9);
    TEST_DETECTS(expect_pca(&plain, x, 0.9));
    expect_measures(&b, unit);
    EXPECT(b.coverage[0] > plain.coverage[0] && b.m < plain.m, "weights do nothing: %g %g, %d %d",
           b.coverage[0], plain.coverage[0], b.m, plain.m);
    for (int i = 0; i < K; i++) weight[i] *= 1e-200;
    Basis tiny = make(ex, rows, K, D, o);
    EXPECT(tiny.m == b.m && tiny.m > 1, "in another unit %d of %d directions", tiny.m, b.m);
    o.variance = 1;
    Basis all = make(ex, rows, K, D, o);
    EXPECT(all.m == K - 1, "%d directions have a weight", all.m);
    double within = length_within(kept + (K - 1) * D, all.U, all.R, D, 1, all.R);
    EXPECT(within < 0.9 && fabs(all.coverage[K - 1] - within) <= 1e-13, "the row without: %g",
           all.coverage[K - 1]);
    Basis *basis[] = {&b, &plain, &tiny, &all};
    for (int i = 0; i < 4; i++) basis_free(basis[i]);
    free(rows), free(x), free(unit), free(kept);
}

/* A random basis is all fill: a function of seed and layer. */
static void test_random(Exec *ex) {
    enum { D = 24, R = 5 };
    Basis b[4];
    for (int i = 0; i < 4; i++) basis_random(&b[i], ex, i == 2 ? 7 : 4, D, R, i == 3 ? 2 : 1);
    for (int i = 0; i < 4; i++) {
        expect_basis(&b[i]);
        EXPECT(b[i].m == 0 && b[i].k == 0 && b[i].R == R && !b[i].feature && !b[i].coverage,
               "form");
    }
    size_t bytes = sizeof *b->U * D * R;
    EXPECT(memcmp(b[0].U, b[1].U, bytes) == 0, "not reproducible");
    EXPECT(memcmp(b[0].U, b[2].U, bytes) && memcmp(b[0].U, b[3].U, bytes), "always the same");
    for (int i = 0; i < 4; i++) basis_free(&b[i]);
}

/* Ranks above and below m: the first columns do not move, the fill is orthonormal and a function of
 * the seed. */
static void test_ranks(Exec *ex) {
    enum { K = 6, D = 20 };
    double *rows = test_noise_array(6, K * D, 1);
    SubspaceOptions o = PLAIN;
    Basis own = make(ex, rows, K, D, o);
    EXPECT(own.m > 2 && own.m < K, "m is %d", own.m);
    for (int rank = 1; rank <= D; rank++) {
        o.rank = rank;
        Basis b = make(ex, rows, K, D, o), again = make(ex, rows, K, D, o);
        o.seed++;
        Basis other = make(ex, rows, K, D, o);
        o.seed--;
        expect_basis(&b);
        EXPECT(b.R == rank && b.m == own.m, "rank %d, m %d", b.R, b.m);
        EXPECT(memcmp(b.U, again.U, sizeof *b.U * D * (size_t)rank) == 0, "not reproducible");
        double moved = 0, changed = 0;
        for (int d = 0; d < D; d++)
            for (int j = 0; j < rank; j++) {
                double u = b.U[d * rank + j];
                if (j < own.m) moved = fmax(moved, fabs(u - own.U[d * own.R + j]));
                if (j < own.m) moved = fmax(moved, fabs(u - other.U[d * rank + j]));
                if (j == own.m) changed = fmax(changed, fabs(u - other.U[d * rank + j]));
            }
        EXPECT(moved <= 1e-13, "rank %d: columns moved by %g", rank, moved);
        EXPECT(rank <= own.m || changed > 1e-3, "rank %d: the seed changes nothing", rank);
        basis_free(&b), basis_free(&again), basis_free(&other);
    }
    basis_free(&own);
    free(rows);
}

/* Rows mixed from planted directions: all of these are found, however unequal the mix. */
static void test_planted(Exec *ex) {
    enum { K = 9, D = 64, R = 4 };
    double *plant = test_noise_array(7, D * R, 1), *mix = test_noise_array(8, K * R, 1);
    double *rows = mem_array(K * D, sizeof *rows), angle[R];
    basis_orthonormalise(ex, plant, D, R);
    for (int i = 0; i < K; i++)
        for (int d = 0; d < D; d++)
            for (int r = 0; r < R; r++)
                rows[i * D + d] += mix[i * R + r] * pow(0.1, r) * plant[d * R + r];
    Basis b = make(ex, rows, K, D, (SubspaceOptions){.variance = 1});
    EXPECT(b.m == R, "%d directions, planted %d", b.m, R);
    EXPECT(fabs(b.captured - 1) <= 1e-12, "nine rows span four dimensions: %g", b.captured);
    subspace_angles(ex, angle, b.U, b.R, plant, R, D);
    EXPECT(angle[R - 1] <= 1e-7, "largest angle %g", angle[R - 1]);
    rows[5] += 1e-3;
    Basis off = make(ex, rows, K, D, (SubspaceOptions){.variance = 1, .rank = R});
    subspace_angles(ex, angle, off.U, off.R, plant, R, D);
    EXPECT(angle[R - 1] > 1e-6, "a planted error does not show: %g", angle[R - 1]);
    basis_free(&b), basis_free(&off);
    free(plant), free(mix), free(rows);
}

static void test_angles(Exec *ex) {
    enum { D = 7 };
    static const double known[] = {0, 1e-12, 1e-7, 0.3, 0.785398, 1, 1.5707, M_PI / 2};
    for (int i = 0; i < 8; i++) {
        double A[D * 2] = {0}, B[D * 3] = {0}, angle[2];
        A[0 * 2 + 0] = 2, A[1 * 2 + 1] = 1, A[0 * 2 + 1] = 0.5; /* spans e0, e1; not orthonormal */
        B[1 * 3 + 2] = 3;                                       /* e1, and e0 turned towards e4 */
        B[0 * 3 + 0] = cos(known[i]), B[4 * 3 + 0] = sin(known[i]);
        B[6 * 3 + 1] = 1;
        for (int turn = 0; turn < 2; turn++) {
            subspace_angles(ex, angle, turn ? B : A, turn ? 3 : 2, turn ? A : B, turn ? 2 : 3, D);
            EXPECT(fabs(angle[0]) <= 1e-15, "shared direction: %g", angle[0]);
            EXPECT(fabs(angle[1] - known[i]) <= 1e-15 + 4e-16 * known[i], "%.17g for %.17g",
                   angle[1], known[i]);
        }
    }
}

static void test_refused(Exec *ex) {
    Basis b;
    Err err;
    SubspaceOptions o = PLAIN;
    int32_t f[2] = {8, 9};
    double rows[2 * 3] = {1, 2, 3, 0, 0, 0};
    EXPECT_REFUSED(basis_build(&b, ex, 4, rows, f, 2, 3, &o, &err), err, EXIT_INPUT,
                   "layer 4: the decoder row of feature 9 is zero");
    rows[4] = NAN;
    EXPECT_REFUSED(basis_build(&b, ex, 4, rows, f, 2, 3, &o, &err), err, EXIT_INPUT, "not finite");
    o.center = true;
    EXPECT_REFUSED(basis_build(&b, ex, 4, rows, f, 1, 3, &o, &err), err, EXIT_INPUT,
                   "do not vary around their mean");
    memcpy(rows + 3, rows, 3 * sizeof *rows);
    EXPECT_REFUSED(basis_build(&b, ex, 4, rows, f, 2, 3, &o, &err), err, EXIT_INPUT, "do not vary");
    o.center = false;
    o.weight = (double[2]){0, 0};
    EXPECT_REFUSED(basis_build(&b, ex, 4, rows + 3, f, 1, 3, &o, &err), err, EXIT_INPUT,
                   "layer 4: none of the 1 features has a weight above 0");
    o.rank = 4;
    EXPECT_REFUSED(basis_build(&b, ex, 4, rows, f, 2, 3, &o, &err), err, EXIT_USAGE,
                   "at most the model's width 3");
    EXPECT(!b.U && !b.feature, "something was left behind");
}

static void test_nearest(void) {
    Basis basis[3] = {{.layer = 5}, {.layer = 10}, {.layer = 20}};
    Subspace s = {.basis = basis, .n = 3};
    static const int pair[][2] = {{-1, 0}, {0, 0},  {5, 0},  {7, 0},  {8, 1},
                                  {10, 1}, {15, 1}, {16, 2}, {20, 2}, {99, 2}};
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++)
        EXPECT(subspace_nearest(&s, pair[i][0]) == pair[i][1], "layer %d", pair[i][0]);
}

static int same(const Subspace *a, const Subspace *b) {
    int ok = a->n == b->n && strcmp(a->made, b->made) == 0;
    for (int i = 0; ok && i < a->n; i++) {
        const Basis *x = &a->basis[i], *y = &b->basis[i];
        ok = x->layer == y->layer && x->D == y->D && x->R == y->R && x->m == y->m && x->k == y->k &&
             !memcmp(x->U, y->U, sizeof *x->U * (size_t)x->D * (size_t)x->R);
        size_t shares = sizeof *x->variance * (size_t)basis_shares(x);
        ok = ok && (shares == 0 || !memcmp(x->variance, y->variance, shares));
        ok = ok && !x->scale == !y->scale &&
             (!x->scale || !memcmp(x->scale, y->scale, sizeof *x->scale * (size_t)x->R));
        if (x->k == 0) continue;
        ok =
            ok && !memcmp(x->feature, y->feature, sizeof *x->feature * (size_t)x->k) &&
            !x->coverage == !y->coverage && x->captured == y->captured &&
            (!x->coverage || !memcmp(x->coverage, y->coverage, sizeof *x->coverage * (size_t)x->k));
    }
    return ok;
}

static void expect_load_refused(const Subspace *s, const char *message) {
    Subspace back;
    Err err;
    CHECK(subspace_save(s, test_path("bad"), &err), "%s", err.text);
    EXPECT_REFUSED(subspace_load(&back, test_path("bad"), &err), err, EXIT_INPUT, message);
    EXPECT(!back.basis && back.n == 0, "something was left behind");
}

/* What a file tells of what the columns hold; those from before that was measured tell nothing. */
static void test_saved_measures(const Subspace *s) {
    Basis *b = &s->basis[0];
    double *coverage = b->coverage, was = coverage[1], captured = b->captured;
    Subspace back;
    Err err;
    coverage[1] = 1.5;
    expect_load_refused(s, "layer 4: expected coverage");
    coverage[1] = was;
    b->captured = NAN;
    expect_load_refused(s, "layer 4: expected coverage and captured share");
    b->coverage = NULL, b->captured = 0;
    CHECK(subspace_save(s, test_path("old"), &err) && subspace_load(&back, test_path("old"), &err),
          "%s", err.text);
    EXPECT(same(s, &back) && !back.basis[0].coverage && back.basis[1].coverage, "an old file");
    subspace_free(&back);
    b->coverage = coverage, b->captured = captured;
}

static void test_saved(Exec *ex) {
    enum { K = 5, D = 12 };
    double *rows = test_noise_array(9, K * D, 1);
    Basis basis[4] = {make(ex, rows, K, D, PLAIN),
                      make(ex, rows, 1, D, (SubspaceOptions){.rank = 3, .variance = 1})};
    basis[1].layer = 9;
    basis_random(&basis[2], ex, 11, D, 2, 1);
    char made[] = "top 5 by delta";
    Subspace s = {.basis = basis, .n = 4, .made = made}, back;
    Err err;
    CHECK(basis_of_landmarks(&basis[3], ex, 12, rows, rows + D, 2, D, 3, 1, &err), "%s", err.text);
    CHECK(subspace_save(&s, test_path("good"), &err), "%s", err.text);
    if (subspace_load(&back, test_path("good"), &err)) {
        EXPECT(same(&s, &back), "changed on the way through a file");
        back.basis[0].U[1] += 1e-12;
        EXPECT(!same(&s, &back), "the comparison is blind");
        subspace_free(&back);
    } else {
        EXPECT(0, "%s", err.text);
    }
    test_saved_measures(&s);
    double kept = basis[0].U[0];
    basis[0].U[0] += 1e-4;
    expect_load_refused(&s, "layer 4: expected orthonormal columns");
    basis[0].U[0] = NAN;
    expect_load_refused(&s, "orthonormal");
    basis[0].U[0] = kept;
    basis[1].feature[0] = -1;
    expect_load_refused(&s, "layer 9: expected");
    basis[1].feature[0] = 1;
    basis[1].m = 2;
    expect_load_refused(&s, "layer.9.directions");
    basis[1].m = 1;
    basis[1].D = 4;
    expect_load_refused(&s, "layer 9: expected orthonormal");
    basis[1].D = D;
    basis[3].variance[1] = NAN;
    expect_load_refused(&s, "layer 12: expected shares of variance");
    basis[3].variance[1] = 0.1, basis[3].scale[2] = 0;
    expect_load_refused(&s, "layer 12: expected scales above 0");
    basis[3].scale[2] = 1;
    EXPECT_REFUSED(subspace_load(&back, test_file("text", "hello, hello", 12), &err), err,
                   EXIT_INPUT, "safetensors header");
    StWriter *w;
    CHECK(st_writer_open(&w, test_path("other"), &err) && st_writer_finish(w, &err), "%s",
          err.text);
    EXPECT_REFUSED(subspace_load(&back, test_path("other"), &err), err, EXIT_INPUT,
                   "written by sails subspace");
    for (int i = 0; i < 4; i++) basis_free(&basis[i]);
    free(rows);
}

static void body(Exec *ex) {
    test_pca(ex, 20, 64, 0.8, false);
    test_pca(ex, 20, 64, 0.8, true);
    test_pca(ex, 7, 5, 0.95, false); /* more features than dims */
    test_pca(ex, 1, 9, 0.8, false);
    test_pca(ex, 3, 2304, 1, false);
    test_equal_shares(ex);
    test_weights(ex);
    test_random(ex);
    test_ranks(ex);
    test_planted(ex);
    test_angles(ex);
    test_refused(ex);
    test_saved(ex);
}

int main(void) {
    test_each_exec(body);
    test_nearest();
    return test_done("test_subspace");
}
