/* adapter_start.c - the ways in which adapters start, and the table of them. */
#include "model/adapter_start.h"

#include <math.h>
#include <stdio.h>

#include "data/base/mem.h"
#include "data/base/rng.h"

static bool writes(enum Proj p) {
    return p == PROJ_O || p == PROJ_DOWN;
}

/* The norm whose gain lies between the stream and the projection. */
static const store *norm_of(const LayerWeights *w, enum Proj p) {
    switch (p) {
        case PROJ_O:
            return w->norm[NORM_POST_ATTN];
        case PROJ_GATE:
        case PROJ_UP:
            return w->norm[NORM_PRE_FFN];
        case PROJ_DOWN:
            return w->norm[NORM_POST_FFN];
        default:
            return w->norm[NORM_INPUT];
    }
}

static const Basis *basis_for(const Subspace *s, int layer, enum Proj p) {
    return &s->basis[subspace_nearest(s, writes(p) ? layer : layer - 1)];
}

static bool has_basis(const Subspace *s, int layer) {
    return s->basis[subspace_nearest(s, layer)].layer == layer;
}

static bool check_basis(const Config *c, const StartOptions *o, const Basis *b, Err *err) {
    if (b->D != c->D)
        return err_set(err, EXIT_INPUT,
                       "the subspace has width %d, the model %d; make one for this model", b->D,
                       c->D);
    if (b->layer >= c->L)
        return err_set(err, EXIT_INPUT,
                       "the subspace has layer %d, the model only 0 to %d; make one for this model",
                       b->layer, c->L - 1);
    return !o->rank || b->R == o->rank ||
           err_set(err, EXIT_INPUT,
                   "the subspace of layer %d has rank %d, --rank asks for %d; make it again with "
                   "this rank, or use --rank auto",
                   b->layer, b->R, o->rank);
}

static bool check_subspace(const Config *c, const StartOptions *o, const Subspace *s, Err *err) {
    for (int i = 0; i < s->n; i++)
        if (!check_basis(c, o, &s->basis[i], err))
            return s->file ? err_prefix(err, "%s", s->file) : false;
    return true;
}

bool adapter_start_check_rank(const AdapterStart *start, int rank, const char *what, Err *err) {
    bool features = start->subspace && start->subspace != SUBSPACE_RANDOM;
    return features || rank > 0 ||
           err_set(err, EXIT_USAGE,
                   "--rank auto takes the rank from features' directions; %s needs a number", what);
}

bool adapter_start_shape(LoraShape *shape, const Config *c, const StartOptions *o,
                         const Subspace *s, Err *err) {
    const AdapterStart *start = &adapter_start[o->kind];
    char what[64];
    snprintf(what, sizeof what, "--init %s", start->name);
    if (!adapter_start_check_rank(start, o->rank, what, err)) return false;
    if (start->subspace && !check_subspace(c, o, s, err)) return false;
    lora_shape_init(shape, c);
    shape->rslora = o->rslora;
    for (int l = 0; l < c->L; l++)
        for (int p = 0; p < PROJ_COUNT; p++) {
            size_t i = (size_t)l * PROJ_COUNT + (size_t)p;
            if (!o->target[p]) continue;
            shape->rank[i] = start->rank(o, s, l, (enum Proj)p);
            shape->alpha[i] = o->alpha;
        }
    return true;
}

bool adapter_start_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s,
                        Err *err) {
    exec_zero(l->ex, l->params.master, l->params.size * sizeof *l->params.master);
    if (!adapter_start[o->kind].fill(l, m, o, s, err)) return false;
    params_sync(&l->params);
    return true;
}

/* --------------------------------------------------------------------------------- sails -- */

static int sails_rank(const StartOptions *o, const Subspace *s, int layer, enum Proj p) {
    return o->only_scored && !has_basis(s, layer) ? 0 : basis_for(s, layer, p)->R;
}

/* U with row d multiplied (reading) or divided (writing) by 1 + w[d], orthonormal again. */
static bool apply_gain(double *U, const Basis *b, const Model *m, int layer, enum Proj p,
                       Err *err) {
    Exec *ex = m->ex;
    int D = b->D;
    store *w = exec_alloc(ex, (size_t)D * dtype_size(ex->dtype), "norm gains");
    float *gain = mem_array((size_t)D, sizeof *gain);
    float *wide = exec_alloc(ex, (size_t)D * sizeof *wide, "norm gains");
    exec_copy(ex, w, norm_of(&m->layer[layer], p), (size_t)D * dtype_size(ex->dtype));
    ex->op->uncast(ex, wide, w, (size_t)D);
    exec_copy_out(ex, gain, wide, (size_t)D * sizeof *gain);
    exec_free(ex, wide);
    exec_free(ex, w);
    bool ok = true;
    for (int d = 0; ok && d < D; d++) {
        double g = 1 + (double)gain[d];
        ok = fabs(g) > 1e-6;
        for (int r = 0; ok && r < b->R; r++) U[(size_t)d * b->R + r] *= writes(p) ? 1 / g : g;
        if (!ok)
            err_set(err, EXIT_INPUT,
                    "layer %d, %s: the norm's gain is zero at %d and cannot be corrected for; use "
                    "--gain none",
                    layer, proj_name[p], d);
    }
    free(gain);
    if (ok) basis_orthonormalise(ex, U, D, b->R);
    return ok;
}

/* A (R,D) = scale U^T, or B (D,R) = scale U; the other factor stays zero. */
static void put_basis(Lora *l, Adapter *a, const double *U, enum Proj p, double scale) {
    int D = writes(p) ? a->out : a->in;
    size_t n = (size_t)D * (size_t)a->R;
    float *f = mem_array(n, sizeof *f);
    for (int d = 0; d < D; d++)
        for (int r = 0; r < a->R; r++) {
            size_t at = writes(p) ? (size_t)d * (size_t)a->R + (size_t)r
                                  : (size_t)r * (size_t)D + (size_t)d;
            f[at] = (float)(scale * U[(size_t)d * (size_t)a->R + (size_t)r]);
        }
    exec_copy_in(l->ex, (writes(p) ? a->B : a->A)->master, f, n * sizeof *f);
    free(f);
}

static bool sails_adapter(Lora *l, const Model *m, const StartOptions *o, const Subspace *s,
                          int layer, enum Proj p, Err *err) {
    Adapter *a = lora_at(l, layer, p);
    const Basis *b = basis_for(s, layer, p);
    if (a->R == 0) return true;
    CHECK(a->R == b->R && (writes(p) ? a->out : a->in) == b->D, "layer %d %s: rank %d of %d", layer,
          proj_name[p], a->R, b->R);
    size_t n = (size_t)b->D * (size_t)b->R;
    double *U = mem_array(n, sizeof *U);
    memcpy(U, b->U, n * sizeof *U);
    bool ok = o->gain == GAIN_NONE || apply_gain(U, b, m, layer, p, err);
    if (ok) put_basis(l, a, U, p, o->basis_scale);
    if (o->freeze_basis) (writes(p) ? a->B : a->A)->trained = false;
    free(U);
    return ok;
}

/* A gain bends the basis, which is made orthonormal again. */
static size_t sails_scratch(Exec *ex, int D, int R) {
    return ex->op->qr_scratch(ex, D, R);
}

static bool sails_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s,
                       Err *err) {
    for (int layer = 0; layer < m->c.L; layer++)
        for (int p = 0; p < PROJ_COUNT; p++)
            if (!sails_adapter(l, m, o, s, layer, (enum Proj)p, err)) return false;
    return true;
}

/* ---------------------------------------------------------------------------------- lora -- */

static int lora_rank(const StartOptions *o, const Subspace *s, int layer, enum Proj p) {
    (void)s, (void)layer, (void)p;
    return o->rank;
}

static bool lora_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s, Err *err) {
    (void)m, (void)s, (void)err;
    for (int i = 0; i < l->c->L * PROJ_COUNT; i++) {
        const Adapter *a = &l->adapter[i];
        size_t n = (size_t)a->R * (size_t)a->in;
        double bound = 1 / sqrt((double)a->in);
        if (n == 0) continue;
        float *A = mem_array(n, sizeof *A);
        for (size_t j = 0; j < n; j++)
            A[j] = (float)(bound * (2 * rng_uniform(o->seed, (uint64_t)i, j) - 1));
        exec_copy_in(l->ex, a->A->master, A, n * sizeof *A);
        free(A);
    }
    return true;
}

/* ----------------------------------------------------------------------------- the table -- */

#define ROW(value, name, about, ...) [value] = {name, __VA_ARGS__},
const AdapterStart adapter_start[START_COUNT] = {ADAPTER_STARTS(ROW)};
