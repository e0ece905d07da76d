/* SaLoRA: bases of what projections write, by what defines them; adapters that start within one and
 * never reach the other, by steps that are taken with them; and their file. */
#include "model/salora.h"

#include <math.h>

#include "model/adapter_start.h"
#include "model/optim.h"
#include "tests/files.h"
#include "tests/golden.h"

enum { R = 3, KEPT = 4, TASK = 5, ROWS = 40 };

static const bool targets[PROJ_COUNT] = {[PROJ_Q] = true, [PROJ_O] = true, [PROJ_DOWN] = true};

/* ------------------------------------------------------------------------------- the bases -- */

/* What a group reads of a layer, (ROWS,W) of some corpus: rows that differ in size along each
 * coordinate, so that directions differ in what they explain. */
static double *rows_read(int layer, enum Group g, int W, int corpus) {
    double *x =
        test_noise_array((uint64_t)(100 * corpus + 10 * layer + (int)g), (size_t)ROWS * W, 1);
    for (int i = 0; i < ROWS * W; i++) x[i] /= 1 + i % W;
    return x;
}

static Inputs inputs_of(const Config *c, int corpus) {
    Inputs in;
    inputs_init(&in, c, inputs_groups(targets));
    in.rows = ROWS;
    for (int i = 0; i < c->L * GROUP_COUNT; i++) {
        if (!in.sum[i]) continue;
        enum Group g = (enum Group)(i % GROUP_COUNT);
        int W = inputs_width(c, g);
        double *x = rows_read(i / GROUP_COUNT, g, W, corpus);
        for (int n = 0; n < ROWS; n++)
            for (int a = 0; a < W; a++) {
                in.sum[i][a] += x[n * W + a];
                for (int b = 0; b < W; b++) in.sum[i][W + a * W + b] += x[n * W + a] * x[n * W + b];
            }
        free(x);
    }
    return in;
}

/* What a projection writes of these rows, (ROWS,out). */
static double *rows_written(const Golden *g, int layer, enum Proj p, enum Group group, int corpus) {
    int in = proj_in(&g->m.c, p), out = proj_out(&g->m.c, p);
    double *x = rows_read(layer, group, in, corpus), *W = golden_weight(g, layer, p);
    double *y = mem_array((size_t)ROWS * (size_t)out, sizeof *y);
    for (int n = 0; n < ROWS; n++)
        for (int o = 0; o < out; o++)
            for (int i = 0; i < in; i++) y[n * out + o] += W[o * in + i] * x[n * in + i];
    free(x), free(W);
    return y;
}

/* z = Y^T Y v / ROWS. */
static void moment_times(double *z, const double *y, int out, const double *v) {
    for (int o = 0; o < out; o++) z[o] = 0;
    for (int n = 0; n < ROWS; n++) {
        double dot = 0;
        for (int o = 0; o < out; o++) dot += y[n * out + o] * v[o];
        for (int o = 0; o < out; o++) z[o] += dot * y[n * out + o] / ROWS;
    }
}

/* Each column is an eigenvector of the outputs' second moment, by falling values, and of a vector
 * that the columns leave nothing of, turned sixty times, no larger value comes. In double: 1e-10 of
 * the moment's size is far above what its sums lose. */
static int is_largest(const Basis *b, const double *y, int columns) {
    int D = b->D, ok = b->R == columns && b->m == columns;
    double size = 0, least = INFINITY;
    for (int i = 0; i < ROWS * D; i++) size += y[i] * y[i] / ROWS;
    double *u = mem_array((size_t)D, sizeof *u), *z = mem_array((size_t)D, sizeof *z);
    for (int j = 0; ok && j < b->R; j++) {
        double value = 0, off = 0;
        for (int d = 0; d < D; d++) u[d] = b->U[d * b->R + j];
        moment_times(z, y, D, u);
        for (int d = 0; d < D; d++) value += u[d] * z[d];
        for (int d = 0; d < D; d++) off = fmax(off, fabs(z[d] - value * u[d]));
        ok = off <= 1e-10 * size && value <= least + 1e-10 * size && value > 1e-6 * size;
        least = value;
    }
    for (int d = 0; d < D; d++) u[d] = test_noise(5, (uint64_t)d);
    for (int turn = 0; ok && turn < 60; turn++) {
        double length = 0, value = 0;
        for (int j = 0; j < b->R; j++) {
            double dot = 0;
            for (int d = 0; d < D; d++) dot += b->U[d * b->R + j] * u[d];
            for (int d = 0; d < D; d++) u[d] -= dot * b->U[d * b->R + j];
        }
        for (int d = 0; d < D; d++) length += u[d] * u[d];
        for (int d = 0; d < D; d++) u[d] /= sqrt(length);
        moment_times(z, y, D, u);
        for (int d = 0; d < D; d++) value += u[d] * z[d];
        ok = value <= least + 1e-10 * size;
        memcpy(u, z, sizeof *u * (size_t)D);
    }
    EXPECT(test_quiet || ok, "layer %d, %s: not the largest directions", b->layer, b->of);
    free(u), free(z);
    return ok;
}

static Subspace bases_of(const Golden *g) {
    const Config *c = &g->m.c;
    Subspace s;
    Err err;
    salora_places(&s, c, targets);
    for (int side = 0; side < OUTPUT_SIDES; side++) {
        Inputs in = inputs_of(c, side);
        MUST(salora_bases(&s, &g->m, &in, targets, (enum OutputSide)side, side ? TASK : KEPT, &err),
             err);
        inputs_free(&in);
    }
    return s;
}

static void test_bases(const Golden *g, const Subspace *s) {
    static const enum Proj of[] = {PROJ_Q, PROJ_O, PROJ_DOWN};
    static const enum Group group[] = {GROUP_QKV, GROUP_O, GROUP_DOWN};
    EXPECT(s->n == g->m.c.L * 3 * OUTPUT_SIDES && subspace_of(s) == BASIS_OF_OUTPUTS, "%d bases",
           s->n);
    for (int i = 0; i < s->n; i++) {
        int side = i / (3 * g->m.c.L), layer = i / 3 % g->m.c.L, k = i % 3;
        const Basis *b = salora_basis(s, layer, of[k], (enum OutputSide)side);
        double *y = rows_written(g, layer, of[k], group[k], side);
        double *other = rows_written(g, layer, of[k], group[k], !side);
        is_largest(b, y, side ? TASK : KEPT);
        TEST_DETECTS(is_largest(b, other, side ? TASK : KEPT));
        free(y), free(other);
    }
    EXPECT(!salora_basis(s, 0, PROJ_K, OUTPUT_KEPT), "k is no target");
}

/* Of two rows that are read no more than two directions are written: no others are made up. */
static void test_few_rows(const Golden *g) {
    Subspace s;
    const bool one[PROJ_COUNT] = {[PROJ_Q] = true};
    Inputs in;
    Err err;
    salora_places(&s, &g->m.c, one);
    inputs_init(&in, &g->m.c, inputs_groups(one));
    EXPECT_REFUSED(salora_bases(&s, &g->m, &in, one, OUTPUT_KEPT, KEPT, &err), err, EXIT_INPUT,
                   "expected a token or more");
    in.rows = 2;
    EXPECT_REFUSED(salora_bases(&s, &g->m, &in, one, OUTPUT_KEPT, KEPT, &err), err, EXIT_INPUT,
                   "what q_proj writes: nothing above rounding");
    for (int l = 0, W = g->m.c.D; l < g->m.c.L; l++)
        for (int k = 0; k < 2; k++) in.sum[l * GROUP_COUNT][W + k * W + k] = 1 + k;
    MUST(salora_bases(&s, &g->m, &in, one, OUTPUT_KEPT, KEPT, &err), err);
    for (int i = 0; i < s.n; i += OUTPUT_SIDES)
        EXPECT(s.basis[i].R == 2 && s.basis[i].m == 2, "%d directions of two rows", s.basis[i].R);
    inputs_free(&in);
    subspace_free(&s);
}

/* ------------------------------------------------------------------------------- the start -- */

static StartOptions options(enum StartKind kind) {
    StartOptions o = {.kind = kind, .rank = R, .alpha = 4.5F};
    memcpy(o.target, targets, sizeof targets);
    return o;
}

static Lora start(const Model *m, enum StartKind kind, const Subspace *s) {
    StartOptions o = options(kind);
    LoraShape shape;
    Lora l;
    Err err;
    MUST(adapter_start_shape(&shape, &m->c, &o, s, &err), err);
    lora_alloc(&l, m->ex, &m->c, &shape, true);
    lora_shape_free(&shape);
    MUST(adapter_start_fill(&l, m, &o, s, &err), err);
    return l;
}

/* x (D,R) = V V^T x, or what that leaves of it. */
static void project(double *x, const Basis *b, bool within) {
    for (int r = 0; r < R; r++) {
        double t[TASK] = {0};
        for (int j = 0; j < b->R; j++)
            for (int d = 0; d < b->D; d++) t[j] += b->U[d * b->R + j] * x[d * R + r];
        for (int d = 0; d < b->D; d++) {
            double along = 0;
            for (int j = 0; j < b->R; j++) along += b->U[d * b->R + j] * t[j];
            x[d * R + r] = within ? along : x[d * R + r] - along;
        }
    }
}

/* The largest |V_s^T x| of the columns of x (D,R), by their lengths. */
static double along_kept(const double *x, const Basis *b) {
    double most = 0;
    for (int r = 0; r < R; r++) {
        double norm = 0;
        for (int d = 0; d < b->D; d++) norm += x[d * R + r] * x[d * R + r];
        for (int j = 0; j < b->R; j++) {
            double dot = 0;
            for (int d = 0; d < b->D; d++) dot += b->U[d * b->R + j] * x[d * R + r];
            most = fmax(most, fabs(dot) / sqrt(norm));
        }
    }
    return most;
}

/* Of pissa's factors, which are f32: A is its A, B = C V_t V_t^T B. Both are rounded once more. */
static void test_start(const Golden *g, const Subspace *s) {
    Lora l = start(&g->m, START_SALORA, s), pissa = start(&g->m, START_PISSA, NULL);
    for (int i = 0; i < g->m.c.L * PROJ_COUNT; i++) {
        const Adapter *a = &l.adapter[i];
        int layer = i / PROJ_COUNT;
        enum Proj p = (enum Proj)(i % PROJ_COUNT);
        if (a->R == 0) continue;
        double *A = test_get_f32(l.ex, a->A->master, a->A->n);
        double *B = test_get_f32(l.ex, a->B->master, a->B->n);
        double *B0 = test_get_f32(l.ex, a->B0->master, a->B0->n), size = 0;
        double *wantA = test_get_f32(l.ex, pissa.adapter[i].A->master, a->A->n);
        double *want = test_get_f32(l.ex, pissa.adapter[i].B->master, a->B->n);
        for (size_t k = 0; k < a->B->n; k++) size = fmax(size, fabs(want[k]));
        project(want, salora_basis(s, layer, p, OUTPUT_TASK), true);
        project(want, salora_basis(s, layer, p, OUTPUT_KEPT), false);
        test_close(a->A->name, A, wantA, a->A->n, 0, 0);
        test_close(a->B->name, B, want, a->B->n, a->out * 0x1p-23 * size, 0);
        EXPECT(!memcmp(B, B0, sizeof *B * a->B->n), "another start is taken off");
        EXPECT(a->B->kept == KEPT && a->A->kept == 0 && a->B0->kept == 0, "%d kept", a->B->kept);
        free(A), free(B), free(B0), free(wantA), free(want);
    }
    lora_free(&pissa), lora_free(&l);
}

/* The gradient of T in C T is C times that of C T. B's, of f32 sums, is rounded once more. */
static void expect_gradient(const Lora *l, const Subspace *s, double *const *before) {
    for (int i = 0; i < l->c->L * PROJ_COUNT; i++) {
        const Adapter *a = &l->adapter[i];
        if (a->R == 0) continue;
        double *want = before[i], *got = test_get_f32(l->ex, a->B->grad, a->B->n), size = 0;
        for (size_t k = 0; k < a->B->n; k++) size = fmax(size, fabs(want[k]));
        project(want, salora_basis(s, i / PROJ_COUNT, (enum Proj)(i % PROJ_COUNT), OUTPUT_KEPT),
                false);
        EXPECT(size > 0 && test_close(a->B->name, got, want, a->B->n, a->out * 0x1p-23 * size, 0),
               "%s: not C dB", a->B->name);
        free(got);
    }
}

/* Steps move B, and what it writes along the kept directions stays nothing but f32's rounding of
 * B's elements and of the directions': each of KEPT of these of 2^-24 of the column's length. */
static void test_steps(Golden *g, const Subspace *s) {
    Pack p;
    Optim o;
    Lora l = start(&g->m, START_SALORA, s);
    int n = g->m.c.L * PROJ_COUNT;
    double **before = mem_array((size_t)n, sizeof *before);
    golden_pack(g, &p);
    optim_init(&o, &l.params, (AdamW){.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8});
    for (int step = 0; step < 3; step++) {
        golden_pass(g, &l, &p);
        for (int i = 0; i < n; i++)
            if (l.adapter[i].R > 0)
                before[i] = test_get_f32(l.ex, l.adapter[i].B->grad, l.adapter[i].B->n);
        double norm = optim_norm(&o);
        expect_gradient(&l, s, before);
        optim_step(&o, norm, 1e-2, 1);
        for (int i = 0; i < n; i++) free(before[i]), before[i] = NULL;
    }
    for (int i = 0; i < n; i++) {
        const Adapter *a = &l.adapter[i];
        if (a->R == 0) continue;
        const Basis *b = salora_basis(s, i / PROJ_COUNT, (enum Proj)(i % PROJ_COUNT), OUTPUT_KEPT);
        double *B = test_get_f32(l.ex, a->B->master, a->B->n), bound = (2 * KEPT + 1) * 0x1p-24;
        double *B0 = test_get_f32(l.ex, a->B0->master, a->B0->n);
        EXPECT(along_kept(B, b) <= bound, "%s: %g along what is kept", a->B->name,
               along_kept(B, b));
        EXPECT(memcmp(B, B0, sizeof *B * a->B->n) != 0, "%s has not moved", a->B->name);
        B[R] += 1e-3;
        TEST_DETECTS(along_kept(B, b) <= bound);
        free(B), free(B0);
    }
    optim_free(&o);
    lora_free(&l);
    pack_free(&p);
    free(before);
}

/* -------------------------------------------------------------------------------- the file -- */

static void test_saved(const Subspace *s) {
    Subspace back;
    Err err;
    MUST(subspace_save(s, test_path("outputs"), &err), err);
    MUST(subspace_load(&back, test_path("outputs"), &err), err);
    EXPECT(back.n == s->n && subspace_of(&back) == BASIS_OF_OUTPUTS, "%d bases of %d", back.n,
           s->n);
    for (int i = 0; i < s->n; i++) {
        const Basis *a = &s->basis[i], *b = NULL;
        for (int k = 0; k < back.n; k++)
            if (back.basis[k].layer == a->layer && strcmp(back.basis[k].of, a->of) == 0)
                b = &back.basis[k];
        EXPECT(b && b->D == a->D && b->R == a->R && b->m == a->m &&
                   !memcmp(a->U, b->U, sizeof *a->U * (size_t)a->D * (size_t)a->R),
               "layer %d, %s changed on the way", a->layer, a->of);
    }
    subspace_free(&back);
}

static void expect_refused(const Model *m, const StartOptions *o, const Subspace *s,
                           const char *says) {
    LoraShape shape;
    Err err;
    EXPECT_REFUSED(adapter_start_shape(&shape, &m->c, o, s, &err), err, EXIT_INPUT, says);
}

static void test_refused(const Model *m, Subspace *s) {
    StartOptions o = options(START_SALORA);
    Basis *b = &s->basis[0], stream = {.layer = 1, .D = m->c.D, .R = R};
    const Subspace other = {.basis = &stream, .n = 1};
    expect_refused(m, &o, &other,
                   "a subspace of the stream; --init salora takes one of what "
                   "projections write: sails inputs --preserve");
    o.kind = START_EVA;
    expect_refused(m, &o, s, "a subspace of what projections write; --init eva takes one of what");
    o.kind = START_SALORA;
    b->D++;
    expect_refused(m, &o, s, "what q_proj writes");
    b->D--;
    int kept = b->R;
    b->R = b->D;
    expect_refused(m, &o, s, "are kept; make it with a lower --preserve-rank");
    b->R = kept;
    o.target[PROJ_V] = true;
    expect_refused(m, &o, s, "no basis of what v_proj of layer 0 writes");
}

static void body(Exec *ex) {
    Golden g;
    golden_open(&g, ex, golden_models[0]);
    Subspace s = bases_of(&g);
    if (test_on_cpu(ex)) {
        test_bases(&g, &s);
        test_few_rows(&g);
        test_saved(&s);
        test_refused(&g.m, &s);
    }
    test_start(&g, &s);
    test_steps(&g, &s);
    subspace_free(&s);
    golden_close(&g);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_salora");
}
