/* The start lora-ga: its factors are singular vectors of the batch's gradient, which a tape takes
 * in double; and what the passes before training must leave alone. */
#include "model/adapter_start.h"
#include "tests/files.h"
#include "tests/gemma2_tape.h"

enum { R = 2 };

/* f32 gradients are off by so much of their norm (test_full.c). */
static const double OFF = 1e-5;

static Doc document(const Golden *g, int d) {
    return (Doc){.token = g->token[d], .label = g->label[d], .n = g->n[d]};
}

static StartOptions options(const StartBatch *batch) {
    StartOptions o = {.kind = START_LORA_GA, .rank = R, .alpha = 2 * R, .batch = batch};
    for (int p = 0; p < PROJ_COUNT; p++) o.target[p] = true;
    return o;
}

static Lora allocate(Model *m, const StartOptions *o) {
    Lora l;
    LoraShape shape;
    Err err;
    MUST(adapter_start_shape(&shape, &m->c, o, NULL, &err), err);
    lora_alloc(&l, m->ex, &m->c, &shape, true);
    lora_shape_free(&shape);
    return l;
}

/* An adapter that changes what the model says, as one of a row before may. */
static void fill_with_noise(Lora *l) {
    float *all = mem_array(l->params.size, sizeof *all);
    for (size_t i = 0; i < l->params.size; i++) all[i] = (float)(0.1 * test_noise(5, i));
    params_set(&l->params, PARAM_MASTER, 0, l->params.size, all);
    params_sync(&l->params);
    free(all);
}

/* y (out) = G x, or y (in) = G^T x. */
static void times(double *y, const double *G, const double *x, int out, int in, bool transposed) {
    for (int i = 0; i < (transposed ? in : out); i++) y[i] = 0;
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++) y[transposed ? i : o] += G[o * in + i] * x[transposed ? o : i];
}

static double dot(const double *a, const double *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Of unit x its image y and what G makes of that again must be sigma^2 x: off by as much as the
 * gradient, twice, and the same again for sigma. Takes x's direction away from G. */
static bool is_singular(double *sigma, double *G, const double *x, int out, int in, bool left,
                        double norm) {
    double *y = mem_array((size_t)(out + in), sizeof *y),
           *z = mem_array((size_t)(out + in), sizeof *z);
    int n = left ? out : in, far = left ? in : out;
    double off = 0;
    times(y, G, x, out, in, left);
    times(z, G, y, out, in, !left);
    *sigma = sqrt(dot(y, y, far));
    for (int i = 0; i < n; i++) off += pow(z[i] - *sigma * *sigma * x[i], 2);
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++) G[o * in + i] -= left ? x[o] * y[i] : y[o] * x[i];
    free(y), free(z);
    return sqrt(off) <= 4 * OFF * norm * norm;
}

/* The largest singular value, from below. */
static double largest(const double *G, int out, int in) {
    double *x = test_noise_array(3, (size_t)in, 1), *y = mem_array((size_t)out, sizeof *y), s = 0;
    for (int turn = 0; turn < 60; turn++) {
        double n = sqrt(dot(x, x, in));
        for (int i = 0; i < in; i++) x[i] /= n > 0 ? n : 1;
        times(y, G, x, out, in, false);
        times(x, G, y, out, in, true);
        s = sqrt(dot(y, y, out));
    }
    free(x), free(y);
    return s;
}

/* A's rows are the first R right vectors, B's columns the left ones of the R behind them, all as
 * long as out^(1/4) / 4; then nothing larger than the last is left. */
static int is_lora_ga(const double *slope, const double *A, const double *B, int out, int in) {
    size_t n = (size_t)out * (size_t)in;
    double *G = mem_array(n, sizeof *G), *x = mem_array((size_t)out, sizeof *x);
    double *v = mem_array((size_t)in, sizeof *v), k = sqrt(sqrt((double)out)) / 4;
    double norm = sqrt(dot(slope, slope, (int)n)), before = INFINITY, sigma;
    int ok = 1;
    memcpy(G, slope, n * sizeof *G);
    for (int r = 0; r < 2 * R; r++) {
        bool left = r >= R;
        for (int i = 0; i < in; i++) v[i] = left ? 0 : A[r * in + i] / k;
        for (int o = 0; o < out; o++) x[o] = left ? B[o * R + r - R] / k : 0;
        double *of = left ? x : v;
        ok &= fabs(dot(of, of, left ? out : in) - 1) <= 0x1p-20;
        ok &= is_singular(&sigma, G, of, out, in, left, norm);
        ok &= sigma <= before + 2 * OFF * norm;
        before = sigma;
    }
    ok &= largest(G, out, in) <= before + 2 * OFF * norm;
    free(G), free(x), free(v);
    return ok;
}

static void test_factors(Golden *g, const RefModel *ref, int pack_tokens) {
    Doc all[GOLDEN_DOCS];
    const Doc *doc[GOLDEN_DOCS];
    for (int d = 0; d < GOLDEN_DOCS; d++) all[d] = document(g, d), doc[d] = &all[d];
    const StartBatch batch = {doc, GOLDEN_DOCS, pack_tokens};
    StartOptions o = options(&batch);
    Lora l = allocate(&g->m, &o);
    Err err;
    fill_with_noise(&l);
    g->m.lora = &l; /* as the program has it; none of it may count */
    MUST(adapter_start_fill(&l, &g->m, &o, NULL, &err), err);
    g->m.lora = NULL;
    for (int i = 0; i < g->m.c.L * PROJ_COUNT; i++) {
        const Adapter *a = &l.adapter[i];
        const double *G = ref->slope + ref_proj(ref, i / PROJ_COUNT, (enum Proj)(i % PROJ_COUNT));
        double *A = test_get_f32(l.ex, a->A->master, a->A->n);
        double *B = test_get_f32(l.ex, a->B->master, a->B->n);
        double *A0 = test_get_f32(l.ex, a->A0->master, a->A0->n);
        double *B0 = test_get_f32(l.ex, a->B0->master, a->B0->n);
        EXPECT(is_lora_ga(G, A, B, a->out, a->in), "%s", a->A->name);
        EXPECT(!memcmp(A, A0, sizeof *A * a->A->n) && !memcmp(B, B0, sizeof *B * a->B->n),
               "another start is taken off");
        A[1] += 0.1;
        TEST_DETECTS(is_lora_ga(G, A, B, a->out, a->in));
        free(A), free(B), free(A0), free(B0);
    }
    double *grad = test_get_f32(l.ex, l.params.grad, l.params.size);
    EXPECT(dot(grad, grad, (int)l.params.size) == 0, "gradients are left behind");
    free(grad);
    lora_free(&l);
}

/* One target gives one label's row of the last layer: no second direction. */
static void test_refused(Golden *g) {
    Doc one = document(g, 0);
    const Doc *doc = &one;
    const StartBatch batch = {&doc, 1, one.n};
    uint8_t *label = mem_array((size_t)one.n, 1);
    StartOptions o = options(&batch);
    LoraShape shape;
    Err err;
    label[one.n - 1] = 1;
    one.label = label;
    Lora l = allocate(&g->m, &o);
    EXPECT_REFUSED(adapter_start_fill(&l, &g->m, &o, NULL, &err), err, EXIT_INPUT,
                   "the gradient of the first batch has less than 4 directions");
    lora_free(&l);
    free(label);
    o.rank = 1 << 12;
    EXPECT_REFUSED(adapter_start_shape(&shape, &g->m.c, &o, NULL, &err), err, EXIT_USAGE,
                   "with --init lora-ga");
    o.rank = R, o.freeze_basis = true;
    EXPECT_REFUSED(adapter_start_shape(&shape, &g->m.c, &o, NULL, &err), err, EXIT_USAGE,
                   "with --init lora-ga neither does");
}

static void body(Exec *ex) {
    Golden g;
    RefModel ref;
    if (ex->dtype != DTYPE_F32) return; /* bf16's rounding is no matter of this */
    golden_open(&g, ex, golden_models[0]);
    ref_read(&ref, &g.m.c, g.folder);
    ref_loss(&ref, g.token, g.label, g.n, GOLDEN_DOCS);
    test_factors(&g, &ref, GOLDEN_ROWS);
    int longest = 0; /* as short as packs can be */
    for (int d = 0; d < GOLDEN_DOCS; d++) longest = g.n[d] > longest ? g.n[d] : longest;
    test_factors(&g, &ref, longest);
    test_refused(&g);
    ref_close(&ref);
    golden_close(&g);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_lora_ga");
}
