/* salora.c - the directions that outputs keep, and adapters that start beside them. */
#include "model/salora.h"

#include <math.h>
#include <stdio.h>

#include "data/base/mem.h"
#include "model/adapter_start_impl.h"

#define NAMES(value, word, path) word ".kept", word ".task",
const char *const output_name[OUTPUT_NAMES] = {PROJECTIONS(NAMES)};

/* ------------------------------------------------------------------------------- the bases -- */

static enum Group group_of(enum Proj p) {
    int g = 0;
    while (group_first[g + 1] <= p) g++;
    return (enum Group)g;
}

/* G (out,out) = W M W^T / n, with M (in,in) and W (out,in): row by row, each by one thread. */
static void outputs_moment(double *G, const double *W, const double *M, double n, int out, int in) {
    double *T = mem_array((size_t)out * (size_t)in, sizeof *T);
#pragma omp parallel for
    for (int o = 0; o < out; o++) {
        double *t = T + (size_t)o * (size_t)in;
        for (int j = 0; j < in; j++) {
            double w = W[(size_t)o * (size_t)in + (size_t)j];
            const double *row = M + (size_t)j * (size_t)in;
            for (int i = 0; i < in; i++) t[i] += w * row[i];
        }
    }
#pragma omp parallel for
    for (int o = 0; o < out; o++)
        for (int q = 0; q < out; q++) {
            const double *t = T + (size_t)o * (size_t)in, *w = W + (size_t)q * (size_t)in;
            double sum = 0;
            for (int i = 0; i < in; i++) sum += t[i] * w[i];
            G[(size_t)o * (size_t)out + (size_t)q] = sum / n;
        }
    free(T);
}

/* Random fill is no direction of the outputs. */
static void drop_fill(Basis *b) {
    for (int d = 0; d < b->D; d++)
        for (int j = 0; j < b->m; j++)
            b->U[(size_t)d * (size_t)b->m + (size_t)j] = b->U[(size_t)d * (size_t)b->R + (size_t)j];
    b->R = b->m;
}

static bool one_basis(Basis *b, const Model *m, const Inputs *in, int layer, enum Proj p, int R,
                      Err *err) {
    enum Group g = group_of(p);
    int width = proj_in(&m->c, p), out = proj_out(&m->c, p);
    char what[64];
    snprintf(what, sizeof what, "what %s writes", proj_name[p]);
    double *W = start_weight(m, layer, p, width), size = 0;
    double *G = mem_array((size_t)out * (size_t)out, sizeof *G);
    const double *sum = in->sum[layer * GROUP_COUNT + (int)g];
    outputs_moment(G, W, sum + width, (double)in->rows, out, width);
    for (int o = 0; o < out; o++) size += G[(size_t)o * (size_t)out + (size_t)o];
    bool ok = basis_of_matrix(b, m->ex, layer, G, out, out, R, sqrt(GRAD_CHUNK) * 0x1p-24 * size, 0,
                              what, err);
    if (ok) drop_fill(b);
    free(G), free(W);
    return ok;
}

void salora_places(Subspace *to, const Config *c, const bool target[PROJ_COUNT]) {
    int n = 0;
    for (int p = 0; p < PROJ_COUNT; p++) n += target[p] ? c->L * OUTPUT_SIDES : 0;
    *to = (Subspace){.basis = mem_array((size_t)n, sizeof *to->basis), .n = n};
}

bool salora_bases(Subspace *to, const Model *m, const Inputs *in, const bool target[PROJ_COUNT],
                  enum OutputSide side, int R, Err *err) {
    if (in->rows < 1)
        return err_set(err, EXIT_INPUT, "expected a token or more that is to be predicted");
    Basis *b = &to->basis[side];
    for (int layer = 0; layer < m->c.L; layer++)
        for (enum Proj p = 0; p < PROJ_COUNT; p++) {
            if (!target[p]) continue;
            CHECK(R > 0 && R < proj_out(&m->c, p), "%d of %d directions", R, proj_out(&m->c, p));
            if (!basis_next(m->ex, err) || !one_basis(b, m, in, layer, p, R, err)) return false;
            b->of = output_name[(int)p * OUTPUT_SIDES + (int)side];
            b += OUTPUT_SIDES;
        }
    return true;
}

size_t salora_scratch(Exec *ex, const Config *c, const bool target[PROJ_COUNT], int R) {
    size_t most = 0;
    for (enum Proj p = 0; p < PROJ_COUNT; p++) {
        int out = proj_out(c, p);
        size_t need = target[p] ? basis_scratch(ex, out, out, R) : 0;
        most = need > most ? need : most;
    }
    return most;
}

BasisBytes salora_bases_bytes(const Config *c, enum Dtype dtype, const bool target[PROJ_COUNT],
                              int R) {
    BasisBytes all = {0};
    for (enum Proj p = 0; p < PROJ_COUNT; p++) {
        size_t out = (size_t)proj_out(c, p), n = out * (size_t)proj_in(c, p);
        size_t W = n * sizeof(double), weight = n * (sizeof(float) + dtype_size(dtype));
        if (!target[p]) continue;
        BasisBytes one = basis_bytes((int)out, (int)out, R);
        one.host = W + out * out * sizeof(double) + (W > one.host ? W : one.host); /* W, G; T */
        one.device = weight > one.device ? weight : one.device;
        all.host = one.host > all.host ? one.host : all.host;
        all.device = one.device > all.device ? one.device : all.device;
        all.basis += (size_t)(c->L * OUTPUT_SIDES) * one.basis;
    }
    return all;
}

const Basis *salora_basis(const Subspace *s, int layer, enum Proj p, enum OutputSide side) {
    const char *name = output_name[(int)p * OUTPUT_SIDES + (int)side];
    for (const Basis *b = s->basis; b < s->basis + s->n; b++)
        if (b->layer == layer && b->of && strcmp(b->of, name) == 0) return b;
    return NULL;
}

bool salora_check(const Config *c, const bool target[PROJ_COUNT], const Subspace *s, Err *err) {
    for (int i = 0; i < c->L * PROJ_COUNT * OUTPUT_SIDES; i++) {
        int layer = i / OUTPUT_NAMES, out;
        enum Proj p = (enum Proj)(i % OUTPUT_NAMES / OUTPUT_SIDES);
        if (!target[p]) continue;
        const Basis *b = salora_basis(s, layer, p, (enum OutputSide)(i % OUTPUT_SIDES));
        out = proj_out(c, p);
        if (!b)
            return err_set(err, EXIT_INPUT,
                           "there is no basis of what %s of layer %d writes; make it for these "
                           "--targets",
                           proj_name[p], layer);
        if (b->D != out)
            return err_set(err, EXIT_INPUT,
                           "the subspace has width %d, what %s writes %d; make one for this model",
                           b->D, proj_name[p], out);
        if (i % OUTPUT_SIDES == OUTPUT_KEPT && b->R >= out)
            return err_set(err, EXIT_INPUT,
                           "all %d directions of what %s of layer %d writes are kept; make it with "
                           "a lower --preserve-rank",
                           out, proj_name[p], layer);
    }
    return true;
}

/* ------------------------------------------------------------------------------- the start -- */

/* B (out,R) = V V^T B, or what that leaves of it. */
static void project(double *B, int R, const Basis *v, bool within) {
    double *t = mem_array((size_t)v->R * (size_t)R, sizeof *t);
    for (int d = 0; d < v->D; d++)
        for (int j = 0; j < v->R; j++)
            for (int r = 0; r < R; r++)
                t[j * R + r] += v->U[(size_t)d * (size_t)v->R + (size_t)j] *
                                B[(size_t)d * (size_t)R + (size_t)r];
    for (int d = 0; d < v->D; d++)
        for (int r = 0; r < R; r++) {
            double along = 0, *b = &B[(size_t)d * (size_t)R + (size_t)r];
            for (int j = 0; j < v->R; j++)
                along += v->U[(size_t)d * (size_t)v->R + (size_t)j] * t[j * R + r];
            *b = within ? along : *b - along;
        }
    free(t);
}

/* V_s^T, as what is trained leaves it alone. */
static void put_kept(Lora *l, const Adapter *a, const Basis *b) {
    float *v = mem_array((size_t)b->R * (size_t)b->D, sizeof *v);
    for (int d = 0; d < b->D; d++)
        for (int j = 0; j < b->R; j++)
            v[(size_t)j * (size_t)b->D + (size_t)d] =
                (float)b->U[(size_t)d * (size_t)b->R + (size_t)j];
    params_set_kept(&l->params, a->B, v);
    exec_sync(l->ex);
    free(v);
}

static void salora_adapter(Lora *l, const Model *m, Adapter *a, int layer, enum Proj p,
                           const Subspace *s) {
    size_t R = (size_t)a->R;
    double *A = mem_array(R * (size_t)a->in, sizeof *A);
    double *B = mem_array((size_t)a->out * R, sizeof *B);
    start_pissa(A, B, m, a, layer, p);
    project(B, a->R, salora_basis(s, layer, p, OUTPUT_TASK), true);
    project(B, a->R, salora_basis(s, layer, p, OUTPUT_KEPT), false);
    start_put(l, a, A, B);
    put_kept(l, a, salora_basis(s, layer, p, OUTPUT_KEPT));
    free(B), free(A);
}

bool salora_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s, Err *err) {
    (void)o;
    return start_each(l, m, salora_adapter, s, err);
}
