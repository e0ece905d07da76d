/* Losses of preference pairs: values that were worked out elsewhere, slopes against differences,
 * and the gradient of the whole model: what each reply's labels have by themselves, put together in
 * double. */
#include "model/acts.h"
#include "model/pair_loss.h"
#include "tests/golden.h"
#include "tests/pair_docs.h"

static const char *const loss_name[] = {PAIR_LOSSES(CHOICE_TEXT)};
enum { LOSSES = sizeof loss_name / sizeof *loss_name };

static PairLoss loss_of(enum PairLossKind kind, double beta) {
    bool smooth = kind == PAIR_ROBUST || kind == PAIR_EXO;
    return (PairLoss){kind, beta, smooth ? 0.1 : 0};
}

/* --------------------------------------------------------------------------- known values -- */

/* To nine decimals. */
static int is_near(const char *what, double got, double want) {
    int ok = fabs(got - want) <= 0.5e-9;
    if (!test_quiet) EXPECT(ok, "%s: %.12f, expected %.9f", what, got, want);
    return ok;
}

/* Values of TRL's formulas, worked out apart from this program. */
static void test_values(void) {
    static const struct {
        double beta;
        Pair pair;
        double loss, slope;
    } sigmoid[] = {
        {0.1, {{-8, -25}, {-10, -20}, {5, 7}}, .403186049, -.033181223},
        {0.1, {{-30, -25}, {-10, -20}, {5, 7}}, 1.701413278, -.081757448},
        {0.5, {{-8, -25}, {-10, -20}, {5, 7}}, .029750418, -.014656115},
    };
    for (size_t i = 0; i < sizeof sigmoid / sizeof *sigmoid; i++) {
        PairLoss l = loss_of(PAIR_SIGMOID, sigmoid[i].beta);
        PairValue v = pair_loss(&l, &sigmoid[i].pair);
        is_near("sigmoid", v.loss, sigmoid[i].loss);
        is_near("slope", v.slope[CHOSEN], sigmoid[i].slope);
        is_near("slope", v.slope[REJECTED], -sigmoid[i].slope);
        TEST_DETECTS(is_near("sigmoid", v.loss * (1 + 1e-7), sigmoid[i].loss));
    }
    const Pair *first = &sigmoid[0].pair;
    PairLoss robust = loss_of(PAIR_ROBUST, 0.1);
    is_near("robust", pair_loss(&robust, first).loss, .315686049);
    /* r is 2 over 5 labels and -5 over 7: d = 39/35 */
    PairLoss ipo = loss_of(PAIR_IPO, 0.1), norm = loss_of(PAIR_NORM, 0.1);
    double d = 39.0 / 35;
    is_near("ipo", pair_loss(&ipo, first).loss, (d - 5) * (d - 5));
    is_near("sigmoid_norm", pair_loss(&norm, first).loss, log(1 + exp(-0.1 * d)));
    Pair start = {{-3, -4}, {-3, -4}, {1, 2}};
    PairLoss plain = loss_of(PAIR_SIGMOID, 0.1);
    EXPECT(pair_loss(&plain, &start).loss == log(2), "at the start");
}

/* Kullback-Leibler divergence of what the model prefers from what the labels say. */
static void test_exo(void) {
    PairLoss l = loss_of(PAIR_EXO, 0.1);
    for (double gain = -60; gain <= 60; gain += 7) {
        Pair p = {{gain, 0}, {0, 0}, {1, 1}};
        double q[2] = {1 / (1 + exp(-l.beta * gain)), 1 / (1 + exp(l.beta * gain))};
        double want = q[0] * log(q[0] / (1 - l.smoothing)) + q[1] * log(q[1] / l.smoothing);
        is_near("exo_pair", pair_loss(&l, &p).loss, want);
    }
}

/* Central differences are off by h^2 / 6 of a third derivative, which is at most beta^3, and by
 * four roundings of losses of up to 700, over h. */
static void test_slopes(void) {
    const double h = 1e-4, tol = h * h / 6 + 4 * 700 * 0x1p-53 / h;
    for (int kind = 0; kind < LOSSES; kind++)
        for (int i = 0; i < 40; i++) {
            uint64_t seed = (uint64_t)(100 * kind + i);
            PairLoss l = loss_of((enum PairLossKind)kind, i % 2 ? 0.1 : 0.7);
            Pair p = {{30 * test_noise(seed, 0) - 40, 30 * test_noise(seed, 1) - 40},
                      {30 * test_noise(seed, 2) - 40, 30 * test_noise(seed, 3) - 40},
                      {3 + i, 50 - i}};
            PairValue v = pair_loss(&l, &p);
            for (int s = 0; s < PAIR_SIDES; s++) {
                Pair up = p, down = p;
                up.logp[s] += h, down.logp[s] -= h;
                double want = (pair_loss(&l, &up).loss - pair_loss(&l, &down).loss) / (2 * h);
                EXPECT(fabs(v.slope[s] - want) <= tol, "%s: slope %.12g, expected %.12g",
                       loss_name[kind], v.slope[s], want);
            }
        }
}

/* Replies that are as good as certain, or impossible, have finite numbers. */
static void test_far(void) {
    for (int kind = 0; kind < LOSSES; kind++)
        for (int sign = -1; sign <= 1; sign += 2) {
            PairLoss l = loss_of((enum PairLossKind)kind, 10);
            Pair p = {{sign * 1e4, 0}, {0, sign * 1e4}, {1, 1}};
            PairValue v = pair_loss(&l, &p);
            EXPECT(isfinite(v.loss) && isfinite(v.slope[CHOSEN]) && isfinite(v.slope[REJECTED]),
                   "%s: loss %g, slopes %g and %g", loss_name[kind], v.loss, v.slope[CHOSEN],
                   v.slope[REJECTED]);
        }
}

static void test_facts(void) {
    PairLoss l = loss_of(PAIR_SIGMOID, 0.5);
    Pair won = {{-8, -25}, {-10, -20}, {5, 7}}, tie = {{-3, -4}, {-3, -4}, {1, 2}};
    PairFacts one = {0}, both = {0};
    pair_facts_add(&one, &l, &won);
    pair_facts_add(&both, &l, &tie);
    pair_facts_join(&both, &one);
    PairFacts mean = pair_facts_mean(&both, 2);
    EXPECT(mean.reward[CHOSEN] == 0.5 && mean.reward[REJECTED] == -1.25 && mean.accuracy == 0.5 &&
               mean.margin == 1.75 && mean.logp[CHOSEN] == -5.5 && mean.logp[REJECTED] == -14.5,
           "rewards %g %g, accuracy %g, margin %g, log-probabilities %g %g", mean.reward[CHOSEN],
           mean.reward[REJECTED], mean.accuracy, mean.margin, mean.logp[CHOSEN],
           mean.logp[REJECTED]);
}

/* ------------------------------------------------------------------------ the whole model -- */

typedef struct Run {
    Golden g;
    Lora l;
    Acts *a;
    PairDocs docs;
    /* What each document has by itself: its gradient (l.params.size). */
    float *grad[DOCS];
} Run;

static void run_open(Run *r, Exec *ex) {
    *r = (Run){0};
    golden_open(&r->g, ex, golden_models[0]);
    golden_adapter(&r->g, &r->l, "adapter", true);
    r->a = acts_create(&r->g.m, DOCS * LEN, 3 * PAIRS, DOCS * LEN, ACTS_TRAIN);
    pair_docs_make(&r->docs, &r->g);
}

static void run_close(Run *r) {
    for (int d = 0; d < DOCS; d++) free(r->grad[d]);
    acts_destroy(r->a);
    lora_free(&r->l);
    golden_close(&r->g);
}

/* The gradient of a pack's loss, from mem_array. */
static float *gradient(Run *r, const Pack *p, const Objective *o, double *loss, float *nll) {
    size_t n = r->l.params.size;
    float *g = mem_array(n, sizeof *g);
    exec_zero(r->l.ex, r->l.params.grad, n * sizeof *g);
    *loss = model_loss(&r->g.m, r->a, p, o, nll);
    model_backward(&r->g.m, r->a, p);
    exec_copy_out(r->l.ex, g, r->l.params.grad, n * sizeof *g);
    return g;
}

/* -log p of a document that is alone in its pack, as a whole: what test_gradients holds against
 * PEFT. */
static void measure_alone(Run *r) {
    Objective sum = objective_sft(1);
    float nll[LEN];
    Pack p;
    pack_init(&p, LEN, 1, LEN);
    for (int d = 0; d < DOCS; d++) {
        double loss;
        pack_clear(&p);
        pack_add(&p, r->docs.token[d], r->docs.label, r->docs.n[d], d);
        r->grad[d] = gradient(r, &p, &sum, &loss, nll);
        r->docs.logp[d] = -loss;
        r->docs.reference[d] = -loss + 4 * test_noise(9, (uint64_t)d);
    }
    pack_free(&p);
}

static int gradient_near(const char *what, const float *got, const double *want, size_t n) {
    double error = 0, size = 0;
    for (size_t k = 0; k < n; k++) {
        error += (got[k] - want[k]) * (got[k] - want[k]);
        size += want[k] * want[k];
    }
    int ok = sqrt(error) <= 1e-5 * sqrt(size) && size > 0;
    if (!test_quiet) EXPECT(ok, "%s: relative error %.3g", what, sqrt(error) / sqrt(size));
    return ok;
}

/* Of a mean over more pairs than the pack has, as a step of several packs asks for. */
static void test_model(Run *r, enum PairLossKind kind) {
    const double all = 3;
    PairObjective pairs = {loss_of(kind, 0.3), r->docs.reference};
    Objective o = objective_pairs(&pairs, all);
    size_t size = r->l.params.size;
    double *want = mem_array(size, sizeof *want), want_loss = 0, loss;
    float nll[DOCS * LEN];
    Pack p;
    pack_init(&p, DOCS * LEN, 3 * PAIRS, DOCS * LEN);
    for (int i = 0; i < PAIRS; i++) {
        pair_docs_add(&r->docs, &p, i);
        Pair pair = pair_docs_pair(&r->docs, i);
        PairValue v = pair_loss(&pairs.loss, &pair);
        want_loss += v.loss / all;
        for (size_t k = 0; k < size; k++)
            for (int s = 0; s < PAIR_SIDES; s++) /* grad: of -log p */
                want[k] -= v.slope[s] / all * r->grad[2 * i + s][k];
    }
    float *got = gradient(r, &p, &o, &loss, nll);
    EXPECT(fabs(loss - want_loss) <= 1e-5 * fabs(want_loss), "%s: loss %.9g, expected %.9g",
           loss_name[kind], loss, want_loss);
    gradient_near(loss_name[kind], got, want, size);
    for (size_t k = 0; k < size; k++) got[k] *= 1.00002f;
    TEST_DETECTS(gradient_near(loss_name[kind], got, want, size));
    free(got), free(want);
    pack_free(&p);
}

/* What the logits of a pack's labels say, from all its capped logits. */
static PairFacts logit_facts(Run *r, const Pack *p) {
    float *z = golden_logits(&r->g.m, r->a, p);
    int V = r->g.m.c.V;
    PairFacts f = {.accuracy = 0};
    for (int i = 0; i < p->nlabel; i++) {
        const float *row = z + (size_t)p->label_row[i] * (size_t)V;
        int side = p->label_doc[i] % 2, best = 0;
        double e = 0, ed = 0;
        for (int v = 0; v < V; v++) {
            e += exp(row[v]), ed += row[v] * exp(row[v]);
            f.logit[side] += row[v] / V;
            if (row[v] > row[best]) best = v;
        }
        f.entropy += log(e) - ed / e;
        f.hits += side == CHOSEN && best == p->label_target[i];
        f.labels[side]++;
    }
    free(z);
    return f;
}

static int facts_near(const PairFacts *got, const PairFacts *want) {
    double error = fmax(fabs(got->entropy - want->entropy), fabs(got->hits - want->hits));
    for (int s = 0; s < PAIR_SIDES; s++) {
        error = fmax(error, fabs(got->logp[s] - want->logp[s]));
        error = fmax(error, fabs(got->reward[s] - want->reward[s]));
        error = fmax(error, fabs(got->logit[s] - want->logit[s]));
        if (got->labels[s] != want->labels[s]) error = INFINITY;
    }
    int ok = error <= 1e-3 && got->accuracy == want->accuracy; /* sums over some 30 labels */
    if (!test_quiet) EXPECT(ok, "facts are off by %g", error);
    return ok;
}

/* The facts of a pack are those of its pairs, whatever is done with it and in however many chunks.
 */
static void test_pack_facts(Run *r) {
    PairObjective pairs = {loss_of(PAIR_SIGMOID, 0.3), r->docs.reference};
    Objective o = objective_pairs(&pairs, PAIRS);
    float nll[DOCS * LEN], fact[2][3][DOCS * LEN] = {{{0}}};
    int whole = r->a->chunk;
    double loss;
    Pack p;
    pack_init(&p, DOCS * LEN, 3 * PAIRS, DOCS * LEN);
    for (int i = 0; i < PAIRS; i++) pair_docs_add(&r->docs, &p, i);
    for (int i = 0; i < 2; i++) {
        LogitFacts to = {fact[i][0], fact[i][1], fact[i][2]};
        PairFacts got = {.accuracy = 0}, want = logit_facts(r, &p);
        for (int k = 0; k < PAIRS; k++) {
            Pair pair = pair_docs_pair(&r->docs, k);
            pair_facts_add(&want, &pairs.loss, &pair);
        }
        acts_tell_facts(r->a, &to);
        r->a->chunk = i ? 5 : whole;
        if (i == 0)
            model_nll(&r->g.m, r->a, &p, nll);
        else
            free(gradient(r, &p, &o, &loss, nll));
        pair_facts_of_pack(&got, &pairs, &p, nll, &to);
        facts_near(&got, &want);
        PairFacts mean = pair_facts_mean(&got, PAIRS);
        EXPECT(mean.entropy == got.entropy / p.nlabel && mean.hits == got.hits / got.labels[CHOSEN],
               "entropy %g, hits %g", mean.entropy, mean.hits);
        got.logit[CHOSEN] *= 1.01;
        TEST_DETECTS(facts_near(&got, &want));
    }
    EXPECT(memcmp(fact[0], fact[1], sizeof fact[0]) == 0, "other bits in chunks of 5");
    acts_tell_facts(r->a, NULL);
    memset(fact[0], 0, sizeof fact[0]);
    model_nll(&r->g.m, r->a, &p, nll);
    EXPECT(fact[1][0][0] != 0 && memcmp(fact[0], (float[3][DOCS * LEN]){{0}}, sizeof fact[0]) == 0,
           "facts that nobody asked for");
    r->a->chunk = whole;
    pack_free(&p);
}

static void body(Exec *ex) {
    if (ex->dtype != DTYPE_F32) return;
    Run r;
    run_open(&r, ex);
    measure_alone(&r);
    for (int kind = 0; kind < LOSSES; kind++) test_model(&r, (enum PairLossKind)kind);
    test_pack_facts(&r);
    run_close(&r);
}

int main(void) {
    test_values();
    test_exo();
    test_slopes();
    test_far();
    test_facts();
    test_each_exec(body);
    return test_done("test_dpo");
}
