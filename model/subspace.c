/* subspace.c - PCA of decoder rows, and the orthonormal basis of what it keeps. */
#include "model/subspace.h"

#include <math.h>

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "data/base/rng.h"
#include "kernels/comm.h"

/* ----------------------------------------------------------- factorisations by the ops -- */

static double *to_device(Exec *ex, const double *host, size_t n) {
    double *p = exec_alloc(ex, n * sizeof *p, "subspace");
    exec_copy_in(ex, p, host, n * sizeof *p);
    return p;
}

static void from_device(Exec *ex, double *host, double *device, size_t n) {
    if (host) exec_copy_out(ex, host, device, n * sizeof *host);
    exec_free(ex, device);
}

/* Singular values and right vectors (NULL: not wanted) of A (M,N). */
static void svd(Exec *ex, double *s, double *Vt, const double *A, int M, int N) {
    size_t m = (size_t)(M < N ? M : N);
    double *a = to_device(ex, A, (size_t)M * (size_t)N);
    double *u = exec_alloc(ex, (size_t)M * m * sizeof *u, "subspace");
    double *v = exec_alloc(ex, m * (size_t)N * sizeof *v, "subspace");
    double *d = exec_alloc(ex, m * sizeof *d, "subspace");
    ex->op->svd(ex, u, d, v, a, M, N);
    from_device(ex, s, d, m);
    from_device(ex, Vt, v, m * (size_t)N);
    from_device(ex, NULL, u, 0);
    from_device(ex, NULL, a, 0);
}

/* What that allocates. */
static size_t svd_bytes(int M, int N) {
    size_t m = (size_t)(M < N ? M : N), a = (size_t)M, b = (size_t)N;
    return (a * b + a * m + m * b + m) * sizeof(double);
}

static void fix_signs(double *a, int D, int n) {
    for (int j = 0; j < n; j++) {
        double largest = 0;
        for (int d = 0; d < D; d++) {
            double v = a[(size_t)d * n + j];
            if (fabs(v) > fabs(largest)) largest = v;
        }
        if (largest < 0)
            for (int d = 0; d < D; d++) a[(size_t)d * n + j] *= -1;
    }
}

void basis_orthonormalise(Exec *ex, double *a, int D, int n) {
    size_t size = (size_t)D * (size_t)n;
    double *q = to_device(ex, a, size);
    ex->op->qr(ex, q, D, n);
    from_device(ex, a, q, size);
    fix_signs(a, D, n);
}

/* ------------------------------------------------------------------------------------ building */

static bool unit_rows(double *rows, const int32_t *feature, int k, int D, int layer, Err *err) {
    for (int i = 0; i < k; i++) {
        double *r = rows + (size_t)i * D, sum = 0;
        for (int d = 0; d < D; d++) sum += r[d] * r[d];
        if (!(sum > 0 && isfinite(sum)))
            return err_set(err, EXIT_INPUT,
                           "layer %d: the decoder row of feature %d is zero or not finite", layer,
                           (int)feature[i]);
        for (int d = 0; d < D; d++) r[d] /= sqrt(sum);
    }
    return true;
}

/* The largest weight counts as 1: how far shares can be told from rounding does not depend on it.
 */
static bool weigh(double *rows, const double *weight, int k, int D, int layer, Err *err) {
    double most = 0;
    for (int i = 0; i < k; i++) {
        CHECK(weight[i] >= 0 && isfinite(weight[i]), "weight %d: %g", i, weight[i]);
        most = fmax(most, weight[i]);
    }
    if (most == 0)
        return err_set(err, EXIT_INPUT,
                       "layer %d: none of the %d features has a weight above 0: their means are "
                       "the same in both corpora; use --weight-rows none",
                       layer, k);
    for (int i = 0; i < k; i++)
        for (int d = 0; d < D; d++) rows[(size_t)i * D + d] *= weight[i] / most;
    return true;
}

static void centre(double *rows, int k, int D) {
    for (int d = 0; d < D; d++) {
        double mean = 0;
        for (int i = 0; i < k; i++) mean += rows[(size_t)i * D + d] / k;
        for (int i = 0; i < k; i++) rows[(size_t)i * D + d] -= mean;
    }
}

/* Of n singular values of k rows those above the rounding of the largest: the rows' rank. */
static int directions_of(const double *s, int n, int k, int D) {
    double floor = s[0] * 0x1p-52 * (k > D ? k : D);
    int directions = 0;
    for (int i = 0; i < n; i++) directions += s[i] > floor;
    return directions;
}

/* Shares of variance and how many directions reach tau, but for the rounding of their sum: eight of
 * ten equal shares are 0.8. At most as many as there are directions at all. */
static int explain(double *share, const double *s, int n, int k, int D, double tau) {
    double total = 0, sum = 0;
    int directions = directions_of(s, n, k, D), m = 0;
    tau -= 0x1p-50 * k;
    for (int i = 0; i < n; i++) total += s[i] * s[i];
    for (int i = 0; i < n; i++) share[i] = total > 0 ? s[i] * s[i] / total : 0;
    while (m < directions && (m == 0 || sum < tau)) sum += share[m++];
    return m;
}

/* Columns: the first m of V, then noise; QR turns the noise into a random complement. */
static void fill(Basis *b, Exec *ex, const double *Vt, uint64_t seed) {
    for (int d = 0; d < b->D; d++)
        for (int j = 0; j < b->R; j++)
            b->U[(size_t)d * b->R + j] =
                j < b->m ? Vt[(size_t)j * b->D + d]
                         : rng_normal(seed, (uint64_t)b->layer,
                                      (uint64_t)j * (uint64_t)b->D + (uint64_t)d);
    basis_orthonormalise(ex, b->U, b->D, b->R);
}

/* ||U^T v||^2 */
static double held(const Basis *b, const double *v) {
    double sum = 0;
    for (int j = 0; j < b->R; j++) {
        double dot = 0;
        for (int d = 0; d < b->D; d++) dot += v[d] * b->U[(size_t)d * b->R + j];
        sum += dot * dot;
    }
    return sum;
}

/* Of the unit rows as they are: weights and centring decide what is kept, not what there was. */
static void measure(Basis *b, Exec *ex, const double *unit) {
    int n = b->k < b->D ? b->k : b->D;
    double *s = mem_array((size_t)n, sizeof *s), sum = 0;
    double *Vt = mem_array((size_t)n * (size_t)b->D, sizeof *Vt);
    svd(ex, s, Vt, unit, b->k, b->D);
    n = directions_of(s, n, b->k, b->D);
    for (int i = 0; i < n; i++) sum += held(b, Vt + (size_t)i * b->D);
    b->captured = sum / n;
    b->coverage = mem_array((size_t)b->k, sizeof *b->coverage);
    for (int i = 0; i < b->k; i++) b->coverage[i] = held(b, unit + (size_t)i * b->D);
    free(s), free(Vt);
}

static bool build(Basis *b, Exec *ex, double *rows, const SubspaceOptions *o, Err *err) {
    int n = b->k < b->D ? b->k : b->D;
    double *s = mem_array((size_t)n, sizeof *s);
    double *Vt = mem_array((size_t)n * (size_t)b->D, sizeof *Vt);
    bool ok = !o->weight || weigh(rows, o->weight, b->k, b->D, b->layer, err);
    if (ok) {
        if (o->center) centre(rows, b->k, b->D);
        svd(ex, s, Vt, rows, b->k, b->D);
        b->m = explain(b->variance, s, n, b->k, b->D, o->variance);
        /* Centred copies of one row leave rounding errors, which would pass for directions. */
        if (s[0] <= 0x1p-50 * b->k)
            ok = err_set(err, EXIT_INPUT,
                         "layer %d: the %d decoder rows do not vary around their mean; use more "
                         "features or do not centre",
                         b->layer, b->k);
    }
    if (ok) {
        b->R = o->rank ? o->rank : b->m;
        b->U = mem_array((size_t)b->D * (size_t)b->R, sizeof *b->U);
        fill(b, ex, Vt, o->seed);
    }
    free(s), free(Vt);
    return ok;
}

bool basis_next(Exec *ex, Err *err) {
    comm_beat(ex->comm);
    return !interrupted(err);
}

bool basis_build(Basis *b, Exec *ex, int layer, const double *rows, const int32_t *feature, int k,
                 int D, const SubspaceOptions *o, Err *err) {
    CHECK(k > 0 && D > 0 && o->variance > 0 && o->variance <= 1 && o->rank >= 0,
          "k=%d D=%d variance=%g rank=%d", k, D, o->variance, o->rank);
    *b = (Basis){.layer = layer, .D = D, .k = k};
    if (o->rank > D)
        return err_set(err, EXIT_USAGE, "--rank %d: expected at most the model's width %d", o->rank,
                       D);
    size_t size = (size_t)k * (size_t)D;
    double *unit = mem_array(size, sizeof *unit), *bent = mem_array(size, sizeof *bent);
    memcpy(unit, rows, size * sizeof *unit);
    b->variance = mem_array((size_t)k, sizeof *b->variance);
    b->feature = mem_array((size_t)k, sizeof *b->feature);
    memcpy(b->feature, feature, (size_t)k * sizeof *feature);
    bool ok = unit_rows(unit, feature, k, D, layer, err);
    memcpy(bent, unit, size * sizeof *bent);
    ok = ok && build(b, ex, bent, o, err);
    if (ok) measure(b, ex, unit);
    free(bent), free(unit);
    if (!ok) basis_free(b);
    return ok;
}

void basis_random(Basis *b, Exec *ex, int layer, int D, int R, uint64_t seed) {
    CHECK(R > 0 && R <= D, "R=%d D=%d", R, D);
    *b = (Basis){.layer = layer, .D = D, .R = R};
    b->U = mem_array((size_t)D * (size_t)R, sizeof *b->U);
    fill(b, ex, NULL, seed);
}

/* The first of n directions Vt whose size is above `rounding`, at most R of them, then fill; shares
 * of the sum of those sizes that are above 0. */
static bool keep(Basis *b, Exec *ex, const double *Vt, const double *size, int n, double rounding,
                 uint64_t seed, const char *what, Err *err) {
    double total = 0;
    for (int i = 0; i < n; i++) total += fmax(size[i], 0);
    while (b->m < n && b->m < b->R && size[b->m] > rounding) b->m++;
    if (b->m == 0)
        return err_set(err, EXIT_INPUT,
                       "layer %d: %s: nothing above rounding; use other data or another layer",
                       b->layer, what);
    b->variance = mem_array((size_t)b->m, sizeof *b->variance);
    for (int i = 0; i < b->m; i++) b->variance[i] = size[i] / total;
    b->U = mem_array((size_t)b->D * (size_t)b->R, sizeof *b->U);
    fill(b, ex, Vt, seed);
    return true;
}

bool basis_of_matrix(Basis *b, Exec *ex, int layer, const double *A, int k, int D, int R,
                     double rounding, uint64_t seed, const char *what, Err *err) {
    CHECK(R > 0 && R <= D && k > 0, "R=%d D=%d k=%d", R, D, k);
    int n = k < D ? k : D;
    double *s = mem_array((size_t)n, sizeof *s);
    double *Vt = mem_array((size_t)n * (size_t)D, sizeof *Vt);
    *b = (Basis){.layer = layer, .D = D, .R = R};
    svd(ex, s, Vt, A, k, D);
    bool ok = keep(b, ex, Vt, s, n, rounding, seed, what, err);
    free(s), free(Vt);
    return ok;
}

/* Bounds every |eigenvalue| (Gershgorin). */
static double row_sum_norm(const double *A, int D) {
    double most = 0;
    for (int i = 0; i < D; i++) {
        double sum = 0;
        for (int j = 0; j < D; j++) sum += fabs(A[(size_t)i * (size_t)D + (size_t)j]);
        most = fmax(most, sum);
    }
    return most;
}

/* Shifted by more than any eigenvalue is below 0, so that singular vectors come in the order of
 * eigenvalues whatever their signs. That is taken off the values again; what rounding it leaves
 * counts as nothing. */
bool basis_of_symmetric(Basis *b, Exec *ex, int layer, const double *A, int D, int R,
                        double rounding, uint64_t seed, const char *what, Err *err) {
    CHECK(R > 0 && R <= D, "R=%d D=%d", R, D);
    size_t size = (size_t)D * (size_t)D;
    double *s = mem_array((size_t)D, sizeof *s), *shifted = mem_array(size, sizeof *shifted);
    double *Vt = mem_array(size, sizeof *Vt), shift = row_sum_norm(A, D);
    *b = (Basis){.layer = layer, .D = D, .R = R};
    memcpy(shifted, A, size * sizeof *shifted);
    for (int i = 0; i < D; i++) shifted[(size_t)i * (size_t)(D + 1)] += shift;
    svd(ex, s, Vt, shifted, D, D);
    for (int i = 0; i < D; i++) s[i] -= shift;
    bool ok = keep(b, ex, Vt, s, D, rounding + 0x1p-52 * D * shift, seed, what, err);
    free(s), free(shifted), free(Vt);
    return ok;
}

/* Not one of a corpus's documents had a token that counts, or the file is not what it says. */
static bool any_landmark(const double *landmark, int k, int D, int layer, const char *corpus,
                         Err *err) {
    for (size_t i = 0; i < (size_t)k * (size_t)D; i++)
        if (landmark[i] != 0) return true;
    return err_set(err, EXIT_INPUT,
                   "layer %d: the %s landmarks are all zero: expected the stream at tokens of "
                   "replies; make the moments again with sails moments",
                   layer, corpus);
}

bool basis_of_landmarks(Basis *b, Exec *ex, int layer, const double *aligned,
                        const double *unaligned, int k, int D, int R, uint64_t seed, Err *err) {
    if (!any_landmark(aligned, k, D, layer, "aligned", err) ||
        !any_landmark(unaligned, k, D, layer, "unaligned", err))
        return false;
    int n = k < D ? k : D;
    double *sa = mem_array((size_t)n, sizeof *sa), *su = mem_array((size_t)n, sizeof *su), sum = 0;
    svd(ex, sa, NULL, aligned, k, D);
    svd(ex, su, NULL, unaligned, k, D);
    bool ok = basis_of_matrix(b, ex, layer, aligned, k, D, R, sa[0] * 0x1p-52 * (k > D ? k : D),
                              seed, "the aligned landmarks", err);
    if (ok) b->scale = mem_array((size_t)R, sizeof *b->scale);
    for (int i = 0; ok && i < R; i++)
        b->scale[i] = i < b->m ? fmin(fmax(su[i] / sa[i], 0.1), 10) : 1;
    for (int i = 0; ok && i < b->m; i++) sum += b->scale[i] / b->m;
    for (int i = 0; ok && i < b->m; i++) b->scale[i] /= sum;
    free(sa), free(su);
    return ok;
}

size_t basis_scratch(Exec *ex, int k, int D, int R) {
    size_t svd = k > 0 ? ex->op->svd_scratch(ex, k, D) : 0, qr = ex->op->qr_scratch(ex, D, R);
    return svd > qr ? svd : qr;
}

BasisBytes basis_bytes(int k, int D, int R) {
    size_t n = (size_t)(k < D ? k : D), width = (size_t)D, qr = width * (size_t)R * sizeof(double);
    size_t device = svd_bytes(k, D);
    return (BasisBytes){.host = (n * width + n) * sizeof(double),
                        .device = device > qr ? device : qr,
                        .basis = qr + (size_t)R * sizeof(double)};
}

BasisBytes basis_symmetric_bytes(int D, int R) {
    BasisBytes n = basis_bytes(D, D, R);
    n.host += (size_t)D * (size_t)D * sizeof(double);
    return n;
}

size_t subspace_bytes(const Subspace *s) {
    size_t doubles = 0, features = 0;
    for (const Basis *b = s->basis; b < s->basis + s->n; b++) {
        size_t k = (size_t)b->k, R = (size_t)b->R;
        doubles += (size_t)b->D * R + (size_t)basis_shares(b) + (b->scale ? R : 0);
        doubles += b->coverage ? k : 0;
        features += k;
    }
    return doubles * sizeof(double) + features * sizeof(int32_t);
}

void basis_free(Basis *b) {
    free(b->U), free(b->variance), free(b->scale), free(b->feature), free(b->coverage);
    memset(b, 0, sizeof *b);
}

/* -------------------------------------------------------------------------------------- angles */

static double *orthonormal_copy(Exec *ex, const double *a, int D, int n) {
    size_t size = (size_t)D * (size_t)n;
    double *q = mem_array(size, sizeof *q);
    memcpy(q, a, size * sizeof *q);
    basis_orthonormalise(ex, q, D, n);
    return q;
}

/* P (m,n) = A^T B. */
static void project(double *P, const double *A, int m, const double *B, int n, int D) {
    memset(P, 0, (size_t)m * (size_t)n * sizeof *P);
    for (int d = 0; d < D; d++)
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                P[(size_t)i * n + j] += A[(size_t)d * m + i] * B[(size_t)d * n + j];
}

/* With orthonormal A and B the cosines are the singular values of A^T B, and the sines those of
 * what A leaves of B, (1 - A A^T) B. A cosine near 1 says nothing about a small angle. */
void subspace_angles(Exec *ex, double *angle, const double *A, int m, const double *B, int n,
                     int D) {
    CHECK(m > 0 && n > 0 && m <= D && n <= D, "m=%d n=%d D=%d", m, n, D);
    if (m < n) {
        subspace_angles(ex, angle, B, n, A, m, D);
        return;
    }
    double *a = orthonormal_copy(ex, A, D, m), *b = orthonormal_copy(ex, B, D, n);
    double *P = mem_array((size_t)m * (size_t)n, sizeof *P);
    double *cosine = mem_array((size_t)n, sizeof *cosine);
    double *sine = mem_array((size_t)n, sizeof *sine);
    project(P, a, m, b, n, D);
    svd(ex, cosine, NULL, P, m, n);
    for (int d = 0; d < D; d++)
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                b[(size_t)d * n + j] -= a[(size_t)d * m + i] * P[(size_t)i * n + j];
    svd(ex, sine, NULL, b, D, n);
    for (int j = 0; j < n; j++) { /* cosines fall, sines fall: the smallest angle has both ends */
        double c = fmin(cosine[j], 1), s = fmin(sine[n - 1 - j], 1);
        angle[j] = c * c > 0.5 ? asin(s) : acos(c);
    }
    free(a), free(b), free(P), free(cosine), free(sine);
}

int subspace_nearest(const Subspace *s, int layer) {
    CHECK(s->n > 0, "expected a basis");
    int best = 0;
    for (int i = 1; i < s->n; i++)
        if (abs(s->basis[i].layer - layer) < abs(s->basis[best].layer - layer)) best = i;
    return best;
}

void subspace_free(Subspace *s) {
    for (int i = 0; i < s->n; i++) basis_free(&s->basis[i]);
    free(s->basis), free(s->init), free(s->made), free(s->file);
    memset(s, 0, sizeof *s);
}
