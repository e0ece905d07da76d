/* inputs.c - moments of what projections read: their sums, and principal components. */
#include "model/inputs.h"

#include <math.h>
#include <string.h>

#include "data/base/mem.h"

InputGroups inputs_groups(const bool target[PROJ_COUNT]) {
    InputGroups groups = {{false}};
    for (int g = 0; g < GROUP_COUNT; g++)
        for (enum Proj p = group_first[g]; p < group_first[g + 1]; p++)
            groups.has[g] = groups.has[g] || target[p];
    return groups;
}

int inputs_width(const Config *c, enum Group g) {
    return proj_in(c, group_first[g]);
}

size_t inputs_numbers(const Config *c, enum Group g) {
    size_t W = (size_t)inputs_width(c, g);
    return W + W * W;
}

void inputs_init(Inputs *in, const Config *c, InputGroups groups) {
    *in = (Inputs){.c = c, .groups = groups};
    in->sum = mem_array((size_t)c->L * GROUP_COUNT, sizeof *in->sum);
    for (int i = 0; i < c->L * GROUP_COUNT; i++)
        if (groups.has[i % GROUP_COUNT])
            in->sum[i] =
                mem_array(inputs_numbers(c, (enum Group)(i % GROUP_COUNT)), sizeof *in->sum[i]);
}

void inputs_free(Inputs *in) {
    for (int i = 0; in->sum && i < in->c->L * GROUP_COUNT; i++) free(in->sum[i]);
    free(in->sum);
    memset(in, 0, sizeof *in);
}

size_t inputs_bytes(const Config *c, InputGroups groups) {
    size_t n = 0;
    for (int g = 0; g < GROUP_COUNT; g++)
        if (groups.has[g]) n += inputs_numbers(c, (enum Group)g);
    return (size_t)c->L * n * sizeof(double);
}

void inputs_add(Inputs *in, int layer, enum Group g, const float *sums) {
    double *to = in->sum[layer * GROUP_COUNT + (int)g];
    size_t n = inputs_numbers(in->c, g);
    for (size_t i = 0; i < n; i++) to[i] += sums[i];
}

/* ------------------------------------------------------------------- the components -- */

/* C (W,W) of a layer's input; returns the mean square of its rows' lengths. */
static double covariance(double *C, const Inputs *in, int layer, enum Group g) {
    size_t W = (size_t)inputs_width(in->c, g);
    const double *sum = in->sum[layer * GROUP_COUNT + (int)g], *square = sum + W;
    double n = (double)in->rows, size = 0;
    for (size_t a = 0; a < W; a++)
        for (size_t b = 0; b < W; b++)
            C[a * W + b] = square[a * W + b] / n - sum[a] / n * (sum[b] / n);
    for (size_t a = 0; a < W; a++) size += square[a * W + a] / n;
    return size;
}

static bool one_basis(Basis *b, Exec *ex, const Inputs *in, int layer, enum Group g, int R,
                      uint64_t seed, Err *err) {
    int W = inputs_width(in->c, g);
    char what[64];
    CHECK(R > 0, "%d components", R);
    R = R < W ? R : W;
    snprintf(what, sizeof what, "what %s reads", group_name[g]);
    double *C = mem_array((size_t)W * (size_t)W, sizeof *C);
    double rounding = sqrt(GRAD_CHUNK) * 0x1p-24 * covariance(C, in, layer, g);
    bool ok = basis_of_matrix(b, ex, layer, C, W, W, R, rounding, seed, what, err);
    b->of = group_name[g];
    free(C);
    return ok;
}

bool inputs_bases(Subspace *to, Exec *ex, const Inputs *in, int R, uint64_t seed, Err *err) {
    *to = (Subspace){.basis = mem_array((size_t)in->c->L * GROUP_COUNT, sizeof *to->basis)};
    bool ok = in->rows >= 2 ||
              err_set(err, EXIT_INPUT, "expected two tokens or more that are to be predicted");
    for (int i = 0; ok && i < in->c->L * GROUP_COUNT; i++) {
        enum Group g = (enum Group)(i % GROUP_COUNT);
        if (!in->groups.has[g]) continue;
        ok = basis_next(ex, err) &&
             one_basis(&to->basis[to->n], ex, in, i / GROUP_COUNT, g, R, seed, err);
        if (ok) to->n++;
    }
    if (!ok) subspace_free(to);
    return ok;
}

BasisBytes inputs_bases_bytes(const Config *c, InputGroups groups, int R) {
    BasisBytes all = {0};
    for (int g = 0; g < GROUP_COUNT; g++) {
        size_t W = (size_t)inputs_width(c, (enum Group)g);
        if (!groups.has[g]) continue;
        BasisBytes one = basis_bytes((int)W, (int)W, R < (int)W ? R : (int)W);
        one.host += W * W * sizeof(double); /* the covariance */
        all.host = one.host > all.host ? one.host : all.host;
        all.device = one.device > all.device ? one.device : all.device;
        all.basis += (size_t)c->L * one.basis;
    }
    return all;
}

size_t inputs_bases_scratch(Exec *ex, const Config *c, InputGroups groups, int R) {
    size_t most = 0;
    for (int g = 0; g < GROUP_COUNT; g++) {
        int W = inputs_width(c, (enum Group)g);
        size_t need = groups.has[g] ? basis_scratch(ex, W, W, R < W ? R : W) : 0;
        most = need > most ? need : most;
    }
    return most;
}
