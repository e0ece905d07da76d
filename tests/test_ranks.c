/* Adapters of ranks that no device likes: 1, 3, 4, 12, alone and mixed, on a model of odd widths.
 * Each must do what the same adapter does among zeros, in 16 ranks: losses and gradients. */
#include "model/gemma2.h"
#include "tests/golden.h"

enum { WIDE = 16 };

/* f32: as far as test_gradients allows. bf16: what is rounded may fall to the other side of a tie;
 * were it all of it, at each of the 10 roundings from an adapter to the loss and back, 10 * 2^-9.
 */
static double tolerance(enum Dtype t) {
    return t == DTYPE_F32 ? 1e-5 : 10 * ldexp(1, -9);
}

typedef struct Result {
    double loss;
    float *grad; /* all of them, as they lie in Lora.grad */
    Lora l;
} Result;

/* Element (r, i) of factor A, or (i, r) of B, of adapter number `adapter`: of any rank the same. */
static float element(int adapter, bool is_B, int r, int i) {
    uint64_t seed = (uint64_t)(2 * adapter + is_B);
    return (float)(0.2 * test_noise(seed, (uint64_t)r * 4096 + (uint64_t)i));
}

/* A (R,in), B (out,R); zero from rank `own` on. */
static void fill(Lora *l, int adapter, int own) {
    const Adapter *a = &l->adapter[adapter];
    float *A = mem_array(a->A->n, sizeof *A);
    float *B = mem_array(a->B->n, sizeof *B);
    for (int r = 0; r < own; r++) {
        for (int i = 0; i < a->in; i++) A[r * a->in + i] = element(adapter, false, r, i);
        for (int i = 0; i < a->out; i++) B[i * a->R + r] = element(adapter, true, r, i);
    }
    exec_copy_in(l->ex, a->A->master, A, a->A->n * sizeof *A);
    exec_copy_in(l->ex, a->B->master, B, a->B->n * sizeof *B);
    free(A), free(B);
}

/* own: the ranks of each projection. wide: each lies in WIDE ranks. */
static Result run(Golden *g, const int own[PROJ_COUNT], bool wide) {
    Result res;
    LoraShape shape;
    lora_shape_init(&shape, &g->m.c);
    for (int i = 0; i < g->m.c.L * PROJ_COUNT; i++) { /* a scale of 2 in either case */
        shape.rank[i] = wide ? WIDE : own[i % PROJ_COUNT];
        shape.alpha[i] = 2.0f * (float)shape.rank[i];
    }
    lora_alloc(&res.l, g->m.ex, &g->m.c, &shape, true);
    lora_shape_free(&shape);
    for (int i = 0; i < g->m.c.L * PROJ_COUNT; i++) fill(&res.l, i, own[i % PROJ_COUNT]);
    params_sync(&res.l.params);
    g->m.lora = &res.l;
    Pack p;
    float nll[GOLDEN_ROWS];
    golden_pack(g, &p);
    Acts *a = acts_create(&g->m, p.N, p.nseg, p.nlabel, ACTS_TRAIN);
    Objective sft = objective_sft(p.nlabel);
    res.loss = model_loss(&g->m, a, &p, &sft, nll);
    model_backward(&g->m, a, &p);
    res.grad = mem_array(res.l.params.size, sizeof *res.grad);
    exec_copy_out(g->m.ex, res.grad, res.l.params.grad, res.l.params.size * sizeof *res.grad);
    acts_destroy(a);
    pack_free(&p);
    g->m.lora = NULL;
    return res;
}

/* |x - y| / |y| over the ranks that adapter number i has in both, Frobenius; and *rest, the largest
 * gradient of the ranks that only `wide` has. */
static double apart(const Result *narrow, const Result *wide, int i, bool is_B, double *rest) {
    const Adapter *n = &narrow->l.adapter[i], *w = &wide->l.adapter[i];
    const float *x = narrow->grad + (is_B ? n->B : n->A)->at;
    const float *y = wide->grad + (is_B ? w->B : w->A)->at;
    int length = is_B ? n->out : n->in;
    double d = 0, s = 0;
    for (int r = 0; r < WIDE; r++)
        for (int k = 0; k < length; k++) {
            double b = is_B ? y[k * WIDE + r] : y[r * length + k];
            double a = r >= n->R ? 0 : is_B ? x[k * n->R + r] : x[r * length + k];
            if (r >= n->R && !(fabs(b) <= *rest)) *rest = fabs(b);
            d += (a - b) * (a - b), s += b * b;
        }
    return sqrt(d) / sqrt(s);
}

static int same(const Golden *g, const Result *narrow, const Result *wide) {
    double worst = 0, rest = 0, most = tolerance(g->m.ex->dtype);
    for (int k = 0; k < 2 * g->m.c.L * PROJ_COUNT; k++) {
        double e = apart(narrow, wide, k / 2, k % 2, &rest);
        if (!(e <= worst)) worst = isnan(e) ? INFINITY : e;
    }
    double loss = fabs(narrow->loss / wide->loss - 1);
    int ok = worst <= most && rest == 0 && loss <= most;
    if (getenv("TEST_VERBOSE")) printf("%s: %.3g, loss %.3g\n", g->folder, worst, loss);
    if (!test_quiet)
        EXPECT(ok, "%s %s: gradients differ by %.3g of %.3g, losses by %.3g; zeros have %.3g",
               g->m.ex->op->name, g->folder, worst, most, loss, rest);
    return ok;
}

static void test_ranks(Golden *g, const int own[PROJ_COUNT]) {
    Result narrow = run(g, own, false), wide = run(g, own, true);
    same(g, &narrow, &wide);
    narrow.grad[narrow.l.adapter[1].A->at] *= 2; /* as a wrong column would */
    narrow.loss *= 1 + 2 * tolerance(g->m.ex->dtype);
    TEST_DETECTS(same(g, &narrow, &wide));
    free(narrow.grad), free(wide.grad);
    lora_free(&narrow.l), lora_free(&wide.l);
}

static void body(Exec *ex) {
    static const int ranks[][PROJ_COUNT] = {{1, 1, 1, 1, 1, 1, 1},
                                            {4, 4, 4, 4, 4, 4, 4},
                                            {12, 12, 12, 12, 12, 12, 12},
                                            {3, 1, 12, 4, 5, 3, 1}};
    Golden g;
    golden_open(&g, ex, golden_models[0]);
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) test_ranks(&g, ranks[i]);
    golden_close(&g);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_ranks");
}
