/* Starts that are taken off again: what the factors are by definition, that the base stays what it
 * was, and that training, saving and loading see a plain adapter of twice the rank whose second
 * half stands still. */
#include "model/adapter_start.h"

#include <math.h>

#include "model/optim.h"
#include "tests/files.h"
#include "tests/golden.h"

enum { R = 3 };

static Lora start(const Model *m, enum StartKind kind, bool rslora) {
    StartOptions o = {.kind = kind, .rank = R, .alpha = 4.5F, .rslora = rslora};
    for (int p = 0; p < PROJ_COUNT; p++) o.target[p] = true;
    Lora l;
    LoraShape shape;
    Err err;
    MUST(adapter_start_shape(&shape, &m->c, &o, NULL, &err), err);
    lora_alloc(&l, m->ex, &m->c, &shape, true);
    lora_shape_free(&shape);
    MUST(adapter_start_fill(&l, m, &o, NULL, &err), err);
    return l;
}

/* y (out) = W x, or y (in) = W^T x. */
static void times(double *y, const double *W, const double *x, int out, int in, bool transposed) {
    for (int i = 0; i < (transposed ? in : out); i++) y[i] = 0;
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++) y[transposed ? i : o] += W[o * in + i] * x[transposed ? o : i];
}

static double dot(const double *a, const double *b, int n, int step_a, int step_b) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i * step_a] * b[i * step_b];
    return sum;
}

/* The largest singular value of W - scale B A, by iteration; it is reached from below. */
static double largest_left(const double *W, const double *A, const double *B, int out, int in,
                           double scale) {
    double *M = mem_array((size_t)out * in, sizeof *M), *y = mem_array((size_t)out, sizeof *y);
    double *x = test_noise_array(3, (size_t)in, 1), sigma = 0;
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++)
            M[o * in + i] = W[o * in + i] - scale * dot(B + o * R, A + i, R, 1, in);
    for (int turn = 0; turn < 100; turn++) {
        double n = sqrt(dot(x, x, in, 1, 1));
        for (int i = 0; i < in; i++) x[i] /= n;
        times(y, M, x, out, in, false);
        sigma = sqrt(dot(y, y, out, 1, 1));
        times(x, M, y, out, in, true);
    }
    free(M), free(x), free(y);
    return sigma;
}

/* Each row of A and column of B are a singular pair, W a = sigma b and W^T b = sigma a with sigma =
 * scale |a|^2 = scale |b|^2; and nothing larger is left in W. Both are rounded to f32: off by 2^-24
 * of each entry, and so are the products, by 2^-23 of |W|_F |a|. */
static int is_pissa(const double *W, const double *A, const double *B, int out, int in,
                    double scale) {
    double norm = sqrt(dot(W, W, out * in, 1, 1)), smallest = INFINITY;
    double *y = mem_array((size_t)(out > in ? out : in), sizeof *y), b[1024];
    int ok = out <= 1024;
    for (int r = 0; ok && r < R; r++) {
        const double *a = A + r * in;
        for (int o = 0; o < out; o++) b[o] = B[o * R + r];
        double aa = dot(a, a, in, 1, 1), bound = 0x1p-23 * norm * sqrt(aa), sigma = scale * aa;
        ok &= fabs(aa - dot(b, b, out, 1, 1)) <= 0x1p-22 * aa && sigma <= smallest;
        smallest = sigma;
        times(y, W, a, out, in, false);
        for (int o = 0; o < out; o++) ok &= fabs(y[o] - sigma * b[o]) <= bound;
        times(y, W, b, out, in, true);
        for (int i = 0; i < in; i++) ok &= fabs(y[i] - sigma * a[i]) <= bound;
    }
    ok &= largest_left(W, A, B, out, in, scale) <= smallest * (1 + 0x1p-20);
    free(y);
    return ok;
}

/* B has orthonormal columns, A = B^T W is triangular, and B A has the first R columns of W. */
static int is_olora(const double *W, const double *A, const double *B, int out, int in) {
    double norm = sqrt(dot(W, W, out * in, 1, 1)), bound = 0x1p-22 * norm;
    int ok = 1;
    for (int r = 0; r < R; r++) {
        for (int q = 0; q < R; q++) ok &= fabs(dot(B + r, B + q, out, R, R) - (q == r)) <= 0x1p-22;
        for (int i = 0; i < in; i++)
            ok &= fabs(dot(B + r, W + i, out, R, in) - A[r * in + i]) <= bound;
        for (int i = 0; i < r; i++) ok &= fabs(A[r * in + i]) <= bound;
        for (int o = 0; o < out; o++)
            ok &= fabs(dot(B + o * R, A + r, R, 1, in) - W[o * in + r]) <= bound;
    }
    return ok;
}

static void test_factors(const Golden *g) {
    for (int turn = 0; turn < 3; turn++) {
        enum StartKind kind = turn < 2 ? START_PISSA : START_OLORA;
        Lora l = start(&g->m, kind, turn == 1);
        for (int i = 0; i < g->m.c.L * PROJ_COUNT; i++) {
            const Adapter *a = &l.adapter[i];
            double *W = golden_weight(g, i / PROJ_COUNT, (enum Proj)(i % PROJ_COUNT));
            double *A = test_get_f32(l.ex, a->A->master, a->A->n);
            double *B = test_get_f32(l.ex, a->B->master, a->B->n);
            double *A0 = test_get_f32(l.ex, a->A0->master, a->A0->n);
            double *B0 = test_get_f32(l.ex, a->B0->master, a->B0->n);
            bool pissa = kind == START_PISSA;
            EXPECT(pissa ? is_pissa(W, A, B, a->out, a->in, (double)a->scale)
                         : is_olora(W, A, B, a->out, a->in),
                   "%s: %s", adapter_start[kind].name, a->A->name);
            A[a->in + 1] += 1e-3;
            TEST_DETECTS(pissa ? is_pissa(W, A, B, a->out, a->in, (double)a->scale)
                               : is_olora(W, A, B, a->out, a->in));
            A[a->in + 1] = A0[a->in + 1];
            EXPECT(!memcmp(A, A0, sizeof *A * a->A->n) && !memcmp(B, B0, sizeof *B * a->B->n),
                   "another start is taken off");
            EXPECT(a->A->trained && a->B->trained && !a->A0->trained && !a->B0->trained, "trained");
            free(W), free(A), free(B), free(A0), free(B0);
        }
        lora_free(&l);
    }
}

static float *logits(Model *m, Lora *l, const Pack *p) {
    m->lora = l;
    Acts *a = acts_create(m, p->N, p->nseg, p->N, ACTS_INFER);
    float *z = golden_logits(m, a, p);
    acts_destroy(a);
    m->lora = NULL;
    return z;
}

/* The start cancels within one product, in f32: what is left of it is rounding. */
static void test_unchanged(Golden *g) {
    Pack p;
    golden_pack(g, &p);
    size_t n = (size_t)p.N * (size_t)g->m.c.V;
    float *base = logits(&g->m, NULL, &p);
    double *want = mem_array(n, sizeof *want);
    for (size_t i = 0; i < n; i++) want[i] = base[i];
    for (int k = 0; k < 2; k++) {
        Lora l = start(&g->m, k ? START_OLORA : START_PISSA, false);
        float *z = logits(&g->m, &l, &p);
        double most = max_difference(z, want, n);
        printf("%s: logits move by %.1e at the start\n", k ? "olora" : "pissa", most);
        if (g->m.ex->dtype == DTYPE_F32) EXPECT(most <= 1e-5, "the base has changed: %g", most);
        free(z);
        lora_free(&l);
    }
    free(want), free(base);
    pack_free(&p);
}

/* Adds noise to what is trained, as a step would. */
static void move(Lora *l) {
    for (int i = 0; i < l->c->L * PROJ_COUNT; i++)
        for (int k = 0; k < 2; k++) {
            const Param *t = k ? l->adapter[i].B : l->adapter[i].A;
            double *was = test_get_f32(l->ex, t->master, t->n);
            float *now = mem_array(t->n, sizeof *now);
            for (size_t j = 0; j < t->n; j++)
                now[j] = (float)(was[j] + 0.02 * test_noise((uint64_t)(2 * i + k), j));
            exec_copy_in(l->ex, t->master, now, t->n * sizeof *now);
            exec_sync(l->ex);
            free(was), free(now);
        }
    params_sync(&l->params);
}

/* Of (rows,cols) the first `keep` columns. */
static double *columns(const double *a, size_t rows, size_t cols, size_t keep) {
    double *b = mem_array(rows * keep, sizeof *b);
    for (size_t i = 0; i < rows * keep; i++) b[i] = a[i / keep * cols + i % keep];
    return b;
}

/* The gradients of the trained half are the plain adapter's: the same products, but that of B's
 * gradient, whose columns are fewer; f32 sums of at most N terms. */
static void compare_gradients(const Lora *l, const Lora *plain, int N) {
    for (int i = 0; i < l->c->L * PROJ_COUNT; i++) {
        const Adapter *a = &l->adapter[i], *b = &plain->adapter[i];
        double *dA = test_get_f32(l->ex, a->A->grad, a->A->n);
        double *dB = test_get_f32(l->ex, a->B->grad, a->B->n);
        double *wantA = test_get_f32(l->ex, b->A->grad, b->A->n);
        double *all = test_get_f32(l->ex, b->B->grad, b->B->n);
        double *wantB = columns(all, (size_t)a->out, 2 * R, R), most = 0;
        for (size_t j = 0; j < a->B->n; j++) most = fmax(most, fabs(wantB[j]));
        EXPECT(most > 0 && test_close("dA", dA, wantA, a->A->n, 0, 0), "%s", a->A->name);
        EXPECT(test_close("dB", dB, wantB, a->B->n, N * 0x1p-24 * most, 0), "%s", a->B->name);
        free(dA), free(dB), free(wantA), free(wantB), free(all);
    }
}

static void test_as_plain(Golden *g, enum StartKind kind, bool rslora) {
    Pack p;
    Err err;
    Lora l = start(&g->m, kind, rslora), plain;
    golden_pack(g, &p);
    move(&l);
    MUST(lora_save(&l, test_path("adapter"), "base", &err), err);
    MUST(lora_load(&plain, g->m.ex, &g->m.c, test_path("adapter"), true, &err), err);
    for (int i = 0; i < g->m.c.L * PROJ_COUNT; i++)
        EXPECT(plain.adapter[i].R == 2 * R && !plain.adapter[i].A0 &&
                   fabs(plain.adapter[i].scale / l.adapter[i].scale - 1) <= 0x1p-22,
               "saved with rank %d, scale %g of %g", plain.adapter[i].R,
               (double)plain.adapter[i].scale, (double)l.adapter[i].scale);
    float *z = logits(&g->m, &l, &p), *want = logits(&g->m, &plain, &p);
    float *base = logits(&g->m, NULL, &p);
    size_t bytes = sizeof *z * (size_t)p.N * (size_t)g->m.c.V;
    if (!rslora) EXPECT(memcmp(z, want, bytes) == 0, "as saved it computes something else");
    EXPECT(memcmp(z, base, bytes) != 0, "the adapter does nothing");
    golden_pass(g, &l, &p), golden_pass(g, &plain, &p);
    if (!rslora) compare_gradients(&l, &plain, p.N);
    free(z), free(want), free(base);
    lora_free(&plain), lora_free(&l);
    pack_free(&p);
}

/* Steps with weight decay move what is trained and leave the start alone. */
static void test_step(Golden *g) {
    Pack p;
    Optim o;
    Lora l = start(&g->m, START_PISSA, false);
    golden_pack(g, &p);
    optim_init(&o, &l.params,
               (AdamW){.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1});
    double *was[2 * 64], *now;
    int n = g->m.c.L * PROJ_COUNT;
    CHECK(n <= 64, "%d adapters", n);
    for (int i = 0; i < 2 * n; i++) {
        const Param *t = i < n ? l.adapter[i].A0 : l.adapter[i - n].B0;
        was[i] = test_get_f32(l.ex, t->master, t->n);
    }
    for (int step = 0; step < 2; step++) {
        golden_pass(g, &l, &p);
        optim_step(&o, optim_norm(&o), 1e-2, 1);
    }
    for (int i = 0; i < 2 * n; i++) {
        const Adapter *a = &l.adapter[i % n];
        const Param *start_of = i < n ? a->A0 : a->B0, *moved = i < n ? a->A : a->B;
        now = test_get_f32(l.ex, start_of->master, start_of->n);
        EXPECT(memcmp(now, was[i], sizeof *now * start_of->n) == 0, "%s moved", start_of->name);
        free(now);
        now = test_get_f32(l.ex, moved->master, moved->n);
        EXPECT(memcmp(now, was[i], sizeof *now * moved->n) != 0, "%s stayed", moved->name);
        free(now), free(was[i]);
    }
    optim_free(&o);
    lora_free(&l);
    pack_free(&p);
}

static void test_refused(const Model *m) {
    StartOptions o = {.kind = START_PISSA, .rank = 1 << 12, .alpha = 1, .target = {true}};
    LoraShape shape;
    Err err;
    EXPECT_REFUSED(adapter_start_shape(&shape, &m->c, &o, NULL, &err), err, EXIT_USAGE,
                   "--rank 4096: expected at most");
    o.kind = START_OLORA, o.rank = 0;
    EXPECT_REFUSED(adapter_start_shape(&shape, &m->c, &o, NULL, &err), err, EXIT_USAGE,
                   "--init olora needs a number");
    o.rank = R, o.freeze_basis = true;
    EXPECT_REFUSED(adapter_start_shape(&shape, &m->c, &o, NULL, &err), err, EXIT_USAGE,
                   "with --init olora neither does");
}

static void body(Exec *ex) {
    Golden g;
    golden_open(&g, ex, golden_models[0]);
    test_factors(&g);
    test_unchanged(&g);
    test_as_plain(&g, START_PISSA, false);
    test_as_plain(&g, START_OLORA, true);
    test_step(&g);
    test_refused(&g.m);
    golden_close(&g);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_starts");
}
