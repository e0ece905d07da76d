/* adapter_start.c - the ways in which adapters start, and the table of them. */
#include "model/adapter_start_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "data/base/rng.h"
#include "kernels/comm.h"
#include "model/adapter_start_impl.h"
#include "model/salora.h"

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

const Basis *adapter_basis(const Subspace *s, int layer, enum Proj p) {
    return &s->basis[subspace_nearest(s, adapter_writes_stream(p) ? layer : layer - 1)];
}

static bool has_basis(const Subspace *s, int layer) {
    return s->basis[subspace_nearest(s, layer)].layer == layer;
}

/* The stream's, or that which a group of projections reads. */
static int width_of(const Config *c, const Basis *b) {
    int g = 0;
    while (b->of && g + 1 < GROUP_COUNT && strcmp(group_name[g], b->of) != 0) g++;
    return b->of ? proj_in(c, group_first[g]) : c->D;
}

static bool check_basis(const Config *c, const StartOptions *o, const Basis *b, Err *err) {
    if (b->D != width_of(c, b))
        return err_set(err, EXIT_INPUT,
                       "the subspace has width %d, the model %d; make one for this model", b->D,
                       width_of(c, b));
    if (b->layer >= c->L)
        return err_set(err, EXIT_INPUT,
                       "the subspace has layer %d, the model only 0 to %d; make one for this model",
                       b->layer, c->L - 1);
    if (subspace_source(adapter_start[o->kind].subspace) == SOURCE_INPUTS)
        return eva_check(o, b, err);
    return !o->rank || b->R == o->rank ||
           err_set(err, EXIT_INPUT,
                   "the subspace of layer %d has rank %d, --rank asks for %d; make it again with "
                   "this rank, or use --rank auto",
                   b->layer, b->R, o->rank);
}

static bool check_inputs(const Config *c, const StartOptions *o, const Subspace *s, Err *err) {
    for (int l = 0; l < c->L; l++)
        for (enum Proj p = 0; p < PROJ_COUNT; p++)
            if (o->target[p] && !eva_basis(s, l, p))
                return err_set(err, EXIT_INPUT,
                               "there is no basis of what %s of layer %d reads; make it for these "
                               "--targets",
                               proj_name[p], l);
    return true;
}

/* What a subspace is of, and what makes one. */
static const char *const is_of[] = {"the stream", "what projections read",
                                    "what projections write"};
static const char *const made_by[] = {"sails subspace", "sails inputs", "sails inputs --preserve"};

static enum BasisOf wanted(enum SubspaceKind kind) {
    return kind == SUBSPACE_INPUTS    ? BASIS_OF_INPUTS
           : kind == SUBSPACE_OUTPUTS ? BASIS_OF_OUTPUTS
                                      : BASIS_OF_STREAM;
}

static bool check_subspace(const Config *c, const StartOptions *o, const Subspace *s, Err *err) {
    enum BasisOf is = subspace_of(s), want = wanted(adapter_start[o->kind].subspace);
    bool ok =
        is == want || err_set(err, EXIT_INPUT, "a subspace of %s; --init %s takes one of %s: %s",
                              is_of[is], adapter_start[o->kind].name, is_of[want], made_by[want]);
    for (int i = 0; ok && want != BASIS_OF_OUTPUTS && i < s->n; i++)
        ok = check_basis(c, o, &s->basis[i], err);
    ok = ok && (want != BASIS_OF_INPUTS || check_inputs(c, o, s, err)) &&
         (want != BASIS_OF_OUTPUTS || salora_check(c, o->target, s, err));
    return ok || (s->file ? err_prefix(err, "%s", s->file) : false);
}

bool adapter_start_check_rank(const AdapterStart *start, int rank, const char *what, Err *err) {
    bool features =
        subspace_source(start->subspace) == SOURCE_SCORES && start->subspace != SUBSPACE_RANDOM;
    return features || rank > 0 ||
           err_set(err, EXIT_USAGE,
                   "--rank auto takes the rank from features' directions; %s needs a number", what);
}

bool adapter_start_check_freeze(const AdapterStart *start, const char *what, Err *err) {
    return !start->start ||
           err_set(
               err, EXIT_USAGE,
               "--freeze-basis trains only the factor that starts at zero; with %s neither does",
               what);
}

/* The start takes `parts` times R directions of a matrix. */
static bool check_fits(const Config *c, int R, int parts, enum Proj p, const char *what, Err *err) {
    int in = proj_in(c, p), out = proj_out(c, p), most = (in < out ? in : out) / parts;
    return R <= most ||
           err_set(err, EXIT_USAGE, "--rank %d: expected at most %d with %s: %s is %d x %d", R,
                   most, what, proj_name[p], out, in);
}

bool adapter_start_check_fits(const Config *c, const StartOptions *o, Err *err) {
    char what[64];
    snprintf(what, sizeof what, "--init %s", adapter_start[o->kind].name);
    int parts = o->kind == START_LORA_GA ? 2 : 1; /* of the directions, R each */
    for (enum Proj p = 0; p < PROJ_COUNT && adapter_start[o->kind].start; p++)
        if (o->target[p] && !check_fits(c, o->rank, parts, p, what, err)) return false;
    return true;
}

bool adapter_start_shape(LoraShape *shape, const Config *c, const StartOptions *o,
                         const Subspace *s, Err *err) {
    const AdapterStart *start = &adapter_start[o->kind];
    char what[64];
    snprintf(what, sizeof what, "--init %s", start->name);
    if (!adapter_start_check_rank(start, o->rank, what, err)) return false;
    if (o->freeze_basis && !adapter_start_check_freeze(start, what, err)) return false;
    if (!adapter_start_check_fits(c, o, err)) return false;
    if (start->subspace && !check_subspace(c, o, s, err)) return false;
    lora_shape_init(shape, c);
    shape->rslora = o->rslora;
    shape->start = start->start;
    for (int l = 0; l < c->L; l++)
        for (int p = 0; p < PROJ_COUNT; p++) {
            size_t i = (size_t)l * PROJ_COUNT + (size_t)p;
            if (!o->target[p]) continue;
            shape->rank[i] = start->rank(o, s, l, (enum Proj)p);
            if (start->subspace == SUBSPACE_OUTPUTS)
                shape->keep[i] = salora_basis(s, l, (enum Proj)p, OUTPUT_KEPT)->R;
            shape->alpha[i] = o->alpha;
        }
    if (o->kind == START_EVA && o->rho > 1) eva_share(shape, c, o, s);
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
    return o->only_scored && !has_basis(s, layer) ? 0 : adapter_basis(s, layer, p)->R;
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
        for (int r = 0; ok && r < b->R; r++)
            U[(size_t)d * b->R + r] *= adapter_writes_stream(p) ? 1 / g : g;
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
    int D = adapter_writes_stream(p) ? a->out : a->in;
    size_t n = (size_t)D * (size_t)a->R;
    float *f = mem_array(n, sizeof *f);
    for (int d = 0; d < D; d++)
        for (int r = 0; r < a->R; r++) {
            size_t at = adapter_writes_stream(p) ? (size_t)d * (size_t)a->R + (size_t)r
                                                 : (size_t)r * (size_t)D + (size_t)d;
            f[at] = (float)(scale * U[(size_t)d * (size_t)a->R + (size_t)r]);
        }
    exec_copy_in(l->ex, (adapter_writes_stream(p) ? a->B : a->A)->master, f, n * sizeof *f);
    free(f);
}

static bool sails_adapter(Lora *l, const Model *m, const StartOptions *o, const Subspace *s,
                          int layer, enum Proj p, Err *err) {
    Adapter *a = lora_at(l, layer, p);
    const Basis *b = adapter_basis(s, layer, p);
    if (a->R == 0) return true;
    CHECK(a->R == b->R && (adapter_writes_stream(p) ? a->out : a->in) == b->D,
          "layer %d %s: rank %d of %d", layer, proj_name[p], a->R, b->R);
    size_t n = (size_t)b->D * (size_t)b->R;
    double *U = mem_array(n, sizeof *U);
    memcpy(U, b->U, n * sizeof *U);
    bool ok = o->gain == GAIN_NONE || apply_gain(U, b, m, layer, p, err);
    for (size_t i = 0; i < n && b->scale; i++) U[i] *= b->scale[i % (size_t)b->R];
    if (ok) put_basis(l, a, U, p, o->basis_scale);
    if (o->freeze_basis) (adapter_writes_stream(p) ? a->B : a->A)->trained = false;
    free(U);
    return ok;
}

/* A gain bends the basis, which is made orthonormal again. */
static size_t sails_scratch(Exec *ex, const Config *c, int R) {
    return ex->op->qr_scratch(ex, c->D, R);
}

static bool sails_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s,
                       Err *err) {
    for (int layer = 0; layer < m->c.L; layer++)
        for (int p = 0; p < PROJ_COUNT; p++)
            if (!sails_adapter(l, m, o, s, layer, (enum Proj)p, err)) return false;
    return true;
}

/* ---------------------------------------------------------------------------------- lora -- */

int lora_rank(const StartOptions *o, const Subspace *s, int layer, enum Proj p) {
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

/* ------------------------------------------------------------------- pissa and olora -- */

double *start_weight(const Model *m, int layer, enum Proj p, int cols) {
    Exec *ex = m->ex;
    size_t in = (size_t)proj_in(&m->c, p), out = (size_t)proj_out(&m->c, p), n = in * out;
    float *wide = exec_alloc(ex, n * sizeof *wide, "a weight"), *host = mem_array(n, sizeof *host);
    double *W = mem_array(out * (size_t)cols, sizeof *W);
    store *w = exec_alloc(ex, n * dtype_size(ex->dtype), "a weight");
    exec_copy(ex, w, m->layer[layer].proj[p], n * dtype_size(ex->dtype));
    ex->op->uncast(ex, wide, w, n);
    exec_copy_out(ex, host, wide, n * sizeof *host);
    for (size_t o = 0; o < out; o++)
        for (size_t i = 0; i < (size_t)cols; i++) W[o * (size_t)cols + i] = host[o * in + i];
    exec_free(ex, w);
    exec_free(ex, wide);
    free(host);
    return W;
}

double start_sign(const double *x, size_t n, size_t step) {
    double most = 0;
    for (size_t i = 0; i < n; i++)
        if (fabs(x[i * step]) > fabs(most)) most = x[i * step];
    return most < 0 ? -1 : 1;
}

void start_put(Lora *l, Adapter *a, const double *A, const double *B) {
    size_t R = (size_t)a->R, in = (size_t)a->in, out = (size_t)a->out;
    float *fA = mem_array(R * in, sizeof *fA), *fB = mem_array(out * R, sizeof *fB);
    for (size_t r = 0; r < R; r++) {
        double sign = start_sign(A + r * in, in, 1);
        for (size_t i = 0; i < in; i++) fA[r * in + i] = (float)(sign * A[r * in + i]);
        for (size_t o = 0; o < out; o++) fB[o * R + r] = (float)(sign * B[o * R + r]);
    }
    const Param *to[] = {a->A, a->A0, a->B, a->B0};
    for (int i = 0; i < 4; i++)
        exec_copy_in(l->ex, to[i]->master, i < 2 ? fA : fB, to[i]->n * sizeof(float));
    exec_sync(l->ex);
    free(fA), free(fB);
}

Factors start_factors(Exec *ex, const double *W, const Adapter *a) {
    size_t in = (size_t)a->in, out = (size_t)a->out, n = in < out ? in : out;
    double *host = mem_array(n * (in + out + 1), sizeof *host);
    Factors f = {.u = host, .v = host + out * n, .s = host + out * n + n * in, .n = n};
    double *dw = exec_alloc(ex, in * out * sizeof *dw, "a weight");
    double *d = exec_alloc(ex, n * (in + out + 1) * sizeof *d, "its factors");
    exec_copy_in(ex, dw, W, in * out * sizeof *W);
    ex->op->svd(ex, d, d + (f.s - host), d + (f.v - host), dw, a->out, a->in);
    exec_copy_out(ex, host, d, n * (in + out + 1) * sizeof *host);
    exec_free(ex, d), exec_free(ex, dw);
    return f;
}

void start_pissa(double *A, double *B, const Model *m, const Adapter *a, int layer, enum Proj p) {
    size_t in = (size_t)a->in, out = (size_t)a->out, R = (size_t)a->R;
    double *W = start_weight(m, layer, p, a->in);
    Factors f = start_factors(m->ex, W, a);
    for (size_t r = 0; r < R; r++) {
        double root = sqrt(f.s[r] / (double)a->scale);
        for (size_t i = 0; i < in; i++) A[r * in + i] = root * f.v[r * in + i];
        for (size_t o = 0; o < out; o++) B[o * R + r] = root * f.u[o * f.n + r];
    }
    free(f.u), free(W);
}

static void pissa_adapter(Lora *l, const Model *m, Adapter *a, int layer, enum Proj p,
                          const Subspace *s) {
    size_t R = (size_t)a->R;
    double *A = mem_array(R * (size_t)a->in, sizeof *A);
    double *B = mem_array((size_t)a->out * R, sizeof *B);
    (void)s;
    start_pissa(A, B, m, a, layer, p);
    start_put(l, a, A, B);
    free(B), free(A);
}

/* The first R columns of Q follow from those of W, and the first R rows of the triangle are their
 * products with W. */
static void olora_adapter(Lora *l, const Model *m, Adapter *a, int layer, enum Proj p,
                          const Subspace *s) {
    size_t in = (size_t)a->in, out = (size_t)a->out, R = (size_t)a->R;
    double *W = start_weight(m, layer, p, a->in), *Q = start_weight(m, layer, p, a->R);
    (void)s;
    double *A = mem_array(R * in, sizeof *A);
    basis_orthonormalise(m->ex, Q, a->out, a->R);
    for (size_t o = 0; o < out; o++)
        for (size_t r = 0; r < R; r++)
            for (size_t i = 0; i < in; i++) A[r * in + i] += Q[o * R + r] * W[o * in + i];
    start_put(l, a, A, Q);
    free(A), free(Q), free(W);
}

bool start_each(Lora *l, const Model *m, start_adapter *fill, const Subspace *s, Err *err) {
    for (int layer = 0; layer < m->c.L; layer++)
        for (enum Proj p = 0; p < PROJ_COUNT; p++) {
            if (interrupted(err)) return false;
            comm_beat(l->ex->comm);
            if (lora_at(l, layer, p)->R > 0) fill(l, m, lora_at(l, layer, p), layer, p, s);
        }
    return true;
}

static bool pissa_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s,
                       Err *err) {
    (void)o;
    return start_each(l, m, pissa_adapter, s, err);
}

static bool olora_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s,
                       Err *err) {
    (void)o;
    return start_each(l, m, olora_adapter, s, err);
}

size_t pissa_scratch(Exec *ex, const Config *c, int R) {
    size_t most = 0;
    (void)R;
    for (enum Proj p = 0; p < PROJ_COUNT; p++) {
        size_t need = ex->op->svd_scratch(ex, proj_out(c, p), proj_in(c, p));
        most = need > most ? need : most;
    }
    return most;
}

StartBytes start_bytes_most(const Config *c, const bool target[PROJ_COUNT], int R,
                            start_weight_bytes *of) {
    StartBytes most = {0};
    for (enum Proj p = 0; p < PROJ_COUNT; p++) {
        if (!target[p]) continue;
        StartBytes n = of((size_t)proj_in(c, p), (size_t)proj_out(c, p), (size_t)R);
        most.host = n.host > most.host ? n.host : most.host;
        most.device = n.device > most.device ? n.device : most.device;
    }
    return most;
}

/* A and B in double, and again in f32 while they are put. */
static size_t put_bytes(size_t in, size_t out, size_t R) {
    return R * (in + out) * (sizeof(double) + sizeof(float));
}

StartBytes start_factors_bytes(size_t in, size_t out, size_t R) {
    size_t n = in < out ? in : out, factors = n * (in + out + 1) * sizeof(double);
    return (StartBytes){.host = factors + put_bytes(in, out, R),
                        .device = factors + in * out * sizeof(double)};
}

static StartBytes pissa_weight(size_t in, size_t out, size_t R) {
    StartBytes n = start_factors_bytes(in, out, R);
    n.host += in * out * sizeof(double); /* W */
    return n;
}

StartBytes pissa_bytes(const Config *c, const bool target[PROJ_COUNT], int R) {
    return start_bytes_most(c, target, R, pissa_weight);
}

/* W twice while its columns are read into Q, the second time in f32; on the device at most twice in
 * f32, or Q. */
static StartBytes olora_weight(size_t in, size_t out, size_t R) {
    size_t put = put_bytes(in, out, R), wide = in * out * sizeof(float),
           Q = out * R * sizeof(double);
    return (StartBytes){.host = 2 * wide + Q + (wide > put ? wide : put),
                        .device = 2 * wide > Q ? 2 * wide : Q};
}

static StartBytes olora_bytes(const Config *c, const bool target[PROJ_COUNT], int R) {
    return start_bytes_most(c, target, R, olora_weight);
}

static size_t olora_scratch(Exec *ex, const Config *c, int R) {
    size_t most = 0;
    for (enum Proj p = 0; p < PROJ_COUNT; p++) {
        size_t need = ex->op->qr_scratch(ex, proj_out(c, p), R);
        most = need > most ? need : most;
    }
    return most;
}

/* ----------------------------------------------------------------------------- the table -- */

#define ROW(value, name, about, ...) [value] = {name, __VA_ARGS__},
const AdapterStart adapter_start[START_COUNT] = {ADAPTER_STARTS(ROW)};
