/* What the method's own step from features to columns holds of a subspace that is known: the
 * figures that `sails subspace` is to be judged by. */
#include "model/subspace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/check.h"
#include "tests/test.h"

/* Rows of a dictionary in 256 dimensions, whose task directions are known: r of them, orthonormal,
 * and then others. Each row is off its direction by the angle arctan 0.05. */
enum { DICT_D = 256, DICT_K = 20 };
static const double DICT_EPS = 0.05;
static void dictionary(Exec *ex, double *task, double *rows, int r, uint64_t seed) {
    double *other = test_noise_array(seed, DICT_K * DICT_D, 1);
    double *q = test_noise_array(seed + 1, (size_t)DICT_D * (size_t)r, 1);
    double *e = test_noise_array(seed + 2, DICT_K * DICT_D, 1);
    basis_orthonormalise(ex, q, DICT_D, r);
    for (int i = 0; i < DICT_K; i++) {
        double *d = other + i * DICT_D, *off = e + i * DICT_D, dd = 0, de = 0, ee = 0;
        for (int j = 0; i < r && j < DICT_D; j++) d[j] = task[i * DICT_D + j] = q[j * r + i];
        for (int j = 0; j < DICT_D; j++) dd += d[j] * d[j], de += d[j] * off[j];
        for (int j = 0; j < DICT_D; j++) off[j] -= de / dd * d[j], ee += off[j] * off[j];
        for (int j = 0; j < DICT_D; j++)
            rows[i * DICT_D + j] = d[j] / sqrt(dd) + DICT_EPS * off[j] / sqrt(ee);
    }
    free(other), free(q), free(e);
}

/* The share of the r task directions that a basis of k rows has: the task's, and then others of
 * this weight; and how many directions it asked for. */
typedef struct Held {
    double captured;
    int m;
} Held;
static double share_in(const Basis *b, const double *v) {
    double sum = 0;
    for (int j = 0; j < b->R; j++) {
        double dot = 0;
        for (int d = 0; d < b->D; d++) dot += v[d] * b->U[d * b->R + j];
        sum += dot * dot;
    }
    return sum;
}

static Held held(Exec *ex, int r, int k, SubspaceOptions o, double others, uint64_t draw) {
    double task[DICT_K * DICT_D], rows[DICT_K * DICT_D], weight[DICT_K], mean = 0;
    int32_t feature[DICT_K] = {0};
    Held h = {0};
    Basis b;
    Err err;
    dictionary(ex, task, rows, r, 1000 * (uint64_t)r + 3 * draw);
    for (int i = 0; i < DICT_K; i++) weight[i] = i < r ? 1 : others;
    o.weight = others == 1 ? NULL : weight;
    CHECK(basis_build(&b, ex, 1, rows, feature, k, DICT_D, &o, &err), "%s", err.text);
    for (int i = 0; i < r; i++) h.captured += share_in(&b, task + i * DICT_D) / r;
    h.m = b.m;
    /* the rows' variance that is explained is what U holds of them, on the average */
    for (int i = 0; i < k; i++) mean += b.coverage[i] / k;
    EXPECT(others < 1 || mean >= o.variance - 1e-12, "mean coverage %g", mean);
    basis_free(&b);
    return h;
}

/* The method's own floor. k = 20 with tau = 0.8 keeps some 15 directions of 20 that are nearly
 * orthogonal, whichever those are: 0.77 to 0.87 of the task, on the average over dictionaries. k =
 * 16 with tau = 1 keeps whole spans: with phi the angle by which a row is off, a task direction
 * that has a row is kept to cos^2 phi = 0.9975 or better; of 20 there are rows for 16, and of the
 * other four the 16 columns hold what chance gives, 16 / 256, or less. Weights that tell the task's
 * rows from the others keep tau = 0.99 from cutting any: with the others' energy 12 w^2 at most,
 * and 1 - 2 eps below the task's own, its span turns by arcsin(12 w^2 / (1 - 2 eps - 12 w^2)) or
 * less. */
static void test_captured(Exec *ex) {
    enum { DRAWS = 16 };
    const SubspaceOptions cut = {.rank = 16, .variance = 0.8, .seed = 1};
    const SubspaceOptions whole = {.rank = 16, .variance = 1, .seed = 1};
    double cos2 = 1 / (1 + DICT_EPS * DICT_EPS), all = 0;
    for (int r = 4; r <= 20; r += 4) {
        double mean = 0, kept = r <= 16 ? cos2 : 16 * cos2 / r;
        for (int draw = 0; draw < DRAWS; draw++) {
            mean += held(ex, r, 20, cut, 1, (uint64_t)draw).captured / DRAWS;
            Held w = held(ex, r, 16, whole, 1, (uint64_t)draw);
            EXPECT(w.m == 16 && w.captured >= kept - 1e-12 && w.captured <= kept + 0.02,
                   "r = %d, k 16, tau 1: %d directions, %g", r, w.m, w.captured);
        }
        printf("r = %d: captured %.3f with k 20 and tau 0.8, at least %.4f with k 16 and tau 1\n",
               r, mean, kept);
        all += mean / 5;
    }
    EXPECT(all >= 0.77 && all <= 0.87, "k 20, tau 0.8: captured %g on the average", all);
    double energy = 12 * 0.05 * 0.05, turn = asin(energy / (1 - 2 * DICT_EPS - energy));
    double phi = atan(DICT_EPS) + turn;
    Held h = held(ex, 8, 20, (SubspaceOptions){.rank = 8, .variance = 0.99}, 0.05, 0);
    EXPECT(h.m == 8 && h.captured >= cos(phi) * cos(phi), "weighted: %d, %g", h.m, h.captured);
    h = held(ex, 8, 20, (SubspaceOptions){.rank = 20, .variance = 0.99}, 1, 0);
    EXPECT(h.m >= 18, "without weights tau 0.99 asks for %d of 20 directions", h.m);
}

int main(void) {
    test_each_exec(test_captured);
    return test_done("test_captured");
}
