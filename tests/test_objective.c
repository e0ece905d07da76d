/* Objectives: each label's weight reaches its own gradient, whether weights are known before the
 * pass or follow from its log-probabilities, and however many chunks the logits come in. */
#include "model/acts.h"
#include "tests/golden.h"

typedef struct Run {
    Golden g;
    Lora l;
    Acts *a;
    Pack p;
} Run;

static void run_open(Run *r, Exec *ex) {
    golden_open(&r->g, ex, golden_models[0]);
    golden_adapter(&r->g, &r->l, "adapter", true);
    golden_pack(&r->g, &r->p);
    r->a = acts_create(&r->g.m, r->p.N, r->p.nseg, r->p.nlabel, ACTS_TRAIN);
}

static void run_close(Run *r) {
    acts_destroy(r->a);
    pack_free(&r->p);
    lora_free(&r->l);
    golden_close(&r->g);
}

/* Loss and gradients of the pack, from mem_array. */
static float *gradients(Run *r, const Objective *o, double *loss, float *nll) {
    size_t n = r->l.params.size;
    float *g = mem_array(n, sizeof *g);
    exec_zero(r->l.ex, r->l.params.grad, n * sizeof *g);
    *loss = model_loss(&r->g.m, r->a, &r->p, o, nll);
    model_backward(&r->g.m, r->a, &r->p);
    exec_copy_out(r->l.ex, g, r->l.params.grad, n * sizeof *g);
    return g;
}

/* Weights that the context holds. */
static void given(const Objective *o, const Pack *p, const float *nll, float *weight) {
    (void)nll;
    memcpy(weight, o->context, (size_t)p->nlabel * sizeof *weight);
}
static double no_loss(const Objective *o, const Pack *p, const float *nll) {
    (void)o, (void)p, (void)nll;
    return 0.5;
}
static Objective given_weights(const float *weight, bool ahead) {
    return (Objective){ahead, given, no_loss, 1, weight};
}

/* loss = sum over labels of (i + 1) (-log p)^2 / 2 / denominator: from the pass itself. */
static void curved(const Objective *o, const Pack *p, const float *nll, float *weight) {
    for (int i = 0; i < p->nlabel; i++) weight[i] = (float)(i + 1) * nll[i] / (float)o->denominator;
}
static double curved_loss(const Objective *o, const Pack *p, const float *nll) {
    double sum = 0;
    for (int i = 0; i < p->nlabel; i++) sum += (i + 1) * (double)nll[i] * nll[i] / 2;
    return sum / o->denominator;
}

static bool same(const Run *r, const float *x, const float *y) {
    return memcmp(x, y, r->l.params.size * sizeof *x) == 0;
}

/* What follows from the pass has the bits of the same weights known before it. */
static void test_late(Run *r, int chunk) {
    float nll[GOLDEN_ROWS], again[GOLDEN_ROWS], weight[GOLDEN_ROWS];
    double loss, ignored;
    r->a->chunk = chunk;
    Objective late = {false, curved, curved_loss, 64, NULL};
    float *g = gradients(r, &late, &loss, nll);
    curved(&late, &r->p, nll, weight);
    Objective ahead = given_weights(weight, true);
    float *want = gradients(r, &ahead, &ignored, again);
    EXPECT(same(r, g, want), "chunks of %d: gradients differ", chunk);
    EXPECT(memcmp(nll, again, (size_t)r->p.nlabel * sizeof *nll) == 0, "nll, chunks of %d", chunk);
    EXPECT(loss == curved_loss(&late, &r->p, nll), "loss %g", loss);
    EXPECT(ignored == 0.5, "loss %g of the objective's", ignored);
    float *plain = mem_array((size_t)r->p.nlabel, sizeof *plain);
    model_nll(&r->g.m, r->a, &r->p, plain);
    EXPECT(memcmp(nll, plain, (size_t)r->p.nlabel * sizeof *nll) == 0, "nll without gradients");
    weight[r->p.nlabel / 2] *= 2;
    float *other = gradients(r, &ahead, &ignored, again);
    TEST_DETECTS(same(r, g, other));
    free(g), free(want), free(plain), free(other);
}

/* A label's share of the gradient is its weight times what it has alone, up to f32 sums over the
 * labels' rows: 4 of them, with 24 bits, hold for each of nlabel terms. */
static void test_each(Run *r) {
    if (r->l.ex->dtype != DTYPE_F32) return;
    int n = r->p.nlabel;
    size_t size = r->l.params.size;
    float nll[GOLDEN_ROWS], weight[GOLDEN_ROWS], one[GOLDEN_ROWS] = {0};
    double ignored, error = 0, parts = 0;
    for (int i = 0; i < n; i++) weight[i] = (float)test_noise(5, (uint64_t)i);
    Objective all = given_weights(weight, true), single = given_weights(one, true);
    float *g = gradients(r, &all, &ignored, nll);
    double *sum = mem_array(size, sizeof *sum);
    for (int i = 0; i < n; i++) {
        double square = 0;
        one[i] = 1;
        float *alone = gradients(r, &single, &ignored, nll);
        one[i] = 0;
        for (size_t k = 0; k < size; k++) {
            sum[k] += (double)weight[i] * alone[k];
            square += (double)alone[k] * alone[k];
        }
        parts += fabs((double)weight[i]) * sqrt(square);
        free(alone);
    }
    for (size_t k = 0; k < size; k++) error += (g[k] - sum[k]) * (g[k] - sum[k]);
    double tol = 4 * GOLDEN_ROWS * ldexp(1, -24) * parts;
    EXPECT(sqrt(error) <= tol, "gradients differ by %.3g of %.3g", sqrt(error), tol);
    EXPECT(tol < 1e-3 * parts / n, "a label of %.3g hides in %.3g", parts / n, tol);
    free(g), free(sum);
}

/* The mean of -log p over a batch of which this pack is a part. */
static void test_sft(Run *r) {
    float nll[GOLDEN_ROWS], weight[GOLDEN_ROWS];
    double loss, ignored, sum = 0;
    Objective sft = objective_sft(1000);
    float *g = gradients(r, &sft, &loss, nll);
    for (int i = 0; i < r->p.nlabel; i++) sum += nll[i], weight[i] = 1e-3f;
    EXPECT(loss == sum / 1000, "loss %.17g, expected %.17g", loss, sum / 1000);
    Objective same_weights = given_weights(weight, true);
    float *want = gradients(r, &same_weights, &ignored, nll);
    EXPECT(same(r, g, want), "gradients of sft");
    free(g), free(want);
}

/* Two replies branch off one prompt, whose last row predicts the first token of both: so labels are
 * not worked on in the pack's order. Weights on the second alone leave what it has by itself. */
static void test_branches(Run *r) {
    if (r->l.ex->dtype != DTYPE_F32) return;
    enum { PROMPT = 9, LEN = 15, REPLY = LEN - PROMPT };
    Pack whole = r->p, both, second;
    int32_t doc[2][LEN];
    uint8_t label[LEN] = {0};
    float nll[GOLDEN_ROWS], weight[2 * REPLY] = {0}, error = 0;
    double ignored, square = 0, size = 0;
    for (int i = PROMPT; i < LEN; i++) label[i] = 1, weight[REPLY + i - PROMPT] = 0.25f * (float)i;
    for (int b = 0; b < 2; b++)
        for (int i = 0; i < LEN; i++)
            doc[b][i] =
                i < PROMPT ? r->g.token[3][i] : (r->g.token[3][i] + 5 + 11 * b) % r->g.m.c.V;
    pack_init(&both, GOLDEN_ROWS, 4, GOLDEN_ROWS), pack_init(&second, GOLDEN_ROWS, 4, GOLDEN_ROWS);
    pack_add(&both, doc[0], NULL, PROMPT, 0);
    for (int b = 0; b < 2; b++)
        pack_add_branch(&both, 0, PROMPT, doc[b] + PROMPT, label + PROMPT, REPLY, b);
    pack_add(&second, doc[1], label, LEN, 1);
    Objective on_second = given_weights(weight, true), alone = given_weights(weight + REPLY, true);
    r->p = both;
    float *g = gradients(r, &on_second, &ignored, nll);
    r->p = second;
    float *want = gradients(r, &alone, &ignored, nll + 2 * REPLY);
    r->p = whole;
    for (int i = 0; i < REPLY; i++)
        error = fmaxf(error, fabsf(nll[REPLY + i] - nll[2 * REPLY + i]));
    EXPECT(error <= 1e-4f, "-log p of the second reply differs by %g", (double)error);
    for (size_t k = 0; k < r->l.params.size; k++) {
        square += ((double)g[k] - want[k]) * ((double)g[k] - want[k]);
        size += (double)want[k] * want[k];
    }
    EXPECT(sqrt(square) <= 1e-5 * sqrt(size), "gradients: relative error %.3g",
           sqrt(square) / sqrt(size));
    free(g), free(want);
    pack_free(&both), pack_free(&second);
}

static void body(Exec *ex) {
    Run r;
    run_open(&r, ex);
    int whole = r.a->chunk;
    EXPECT(whole >= r.p.nlabel && r.p.nlabel > 11, "%d labels", r.p.nlabel);
    test_sft(&r);
    test_each(&r);
    test_branches(&r);
    test_late(&r, whole);
    test_late(&r, 5);
    run_close(&r);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_objective");
}
