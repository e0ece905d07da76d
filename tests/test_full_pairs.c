/* All weights trained on preference pairs: the loss and the gradient of every tensor, of pairs
 * whose replies share their prompt's rows, against those of whole documents in double, whose
 * derivatives a tape takes; and what is said of pairs in one pack or in several. */
#include "model/acts.h"
#include "model/pair_loss.h"
#include "tests/gemma2_tape.h"
#include "tests/golden.h"
#include "tests/pair_docs.h"

static const char *const loss_name[] = {PAIR_LOSSES(CHOICE_TEXT)};
enum { LOSSES = sizeof loss_name / sizeof *loss_name };
/* As against PEFT, relative: the loss is the sum of some 40 labels, a gradient the difference of
 * two replies'. */
static const double ALLOWED = 1e-5;

typedef struct Run {
    Golden g; /* its model's weights are trained */
    Full full;
    Acts *a;
    PairDocs docs;
    /* What each document has by itself, in double: the slopes of -log p (weights). */
    RefModel ref;
    double *slope[DOCS];
} Run;

static void run_open(Run *r, Exec *ex) {
    Err err;
    *r = (Run){0};
    golden_open(&r->g, ex, golden_models[0]);
    model_close(&r->g.m);
    MUST(model_open_trained(&r->g.m, &r->full, ex, r->g.folder, 0, &err), err);
    r->a = acts_create(&r->g.m, DOCS * LEN, 3 * PAIRS, DOCS * LEN, ACTS_TRAIN);
    ref_read(&r->ref, &r->g.m.c, r->g.folder);
    pair_docs_make(&r->docs, &r->g);
}

static void run_close(Run *r) {
    for (int d = 0; d < DOCS; d++) free(r->slope[d]);
    ref_close(&r->ref);
    acts_destroy(r->a);
    golden_close(&r->g);
    full_free(&r->full);
}

/* ref_loss is a mean over labels, of which a document's are behind the prompt. */
static void measure_alone(Run *r) {
    for (int d = 0; d < DOCS; d++) {
        int32_t *token = r->docs.token[d];
        uint8_t *label = r->docs.label;
        double labels = r->docs.n[d] - PROMPT;
        r->docs.logp[d] = -labels * ref_loss(&r->ref, &token, &label, &r->docs.n[d], 1);
        r->docs.reference[d] = r->docs.logp[d] + 4 * test_noise(9, (uint64_t)d);
        r->slope[d] = mem_array(r->ref.n, sizeof *r->slope[d]);
        for (size_t i = 0; i < r->ref.n; i++) r->slope[d][i] = labels * r->ref.slope[i];
    }
}

/* The mean over the pairs, and its slopes, from each document's. */
static double want(Run *r, const PairLoss *loss, double *slope) {
    double sum = 0;
    memset(slope, 0, r->ref.n * sizeof *slope);
    for (int c = 0; c < DOCS; c += 2) {
        Pair pair = pair_docs_pair(&r->docs, c / 2);
        PairValue v = pair_loss(loss, &pair);
        sum += v.loss / PAIRS;
        for (int s = 0; s < PAIR_SIDES; s++)
            for (size_t i = 0; i < r->ref.n; i++)
                slope[i] -= v.slope[s] / PAIRS * r->slope[c + s][i];
    }
    return sum;
}

/* Gradients of all pairs in one pack, or in one each; returns the loss. */
static double batch(Run *r, const PairObjective *pairs, int packs, PairFacts *facts) {
    Params *p = &r->full.params;
    Objective o = objective_pairs(pairs, PAIRS);
    float nll[DOCS * LEN], fact[3][DOCS * LEN];
    LogitFacts logits = {fact[0], fact[1], fact[2]};
    double loss = 0;
    exec_zero(p->ex, p->grad, p->size * sizeof *p->grad);
    acts_tell_facts(r->a, &logits);
    for (int k = 0; k < packs; k++) {
        Pack pack;
        pack_init(&pack, DOCS * LEN, 3 * PAIRS, DOCS * LEN);
        for (int i = k; i < PAIRS; i += packs) pair_docs_add(&r->docs, &pack, i);
        loss += model_loss(&r->g.m, r->a, &pack, &o, nll);
        model_backward(&r->g.m, r->a, &pack);
        pair_facts_of_pack(facts, pairs, &pack, nll, &logits);
        pack_free(&pack);
    }
    return loss;
}

static int near(const char *loss, const char *name, const double *got, const double *want,
                size_t n) {
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++)
        d += (got[i] - want[i]) * (got[i] - want[i]), s += want[i] * want[i];
    double e = sqrt(d) / sqrt(s);
    int ok = e <= ALLOWED; /* not where it is no number */
    if (getenv("TEST_VERBOSE") && !test_quiet) printf("%s: %s: %.3g\n", loss, name, e);
    if (!test_quiet) EXPECT(ok, "%s: %s: relative error %.3g", loss, name, e);
    return ok;
}

static void test_loss(Run *r, enum PairLossKind kind, int packs) {
    bool smooth = kind == PAIR_ROBUST || kind == PAIR_EXO;
    PairObjective pairs = {{kind, 0.3, smooth ? 0.1 : 0}, r->docs.reference};
    double *slope = mem_array(r->ref.n, sizeof *slope);
    double true_loss = want(r, &pairs.loss, slope);
    PairFacts facts = {.accuracy = 0};
    double loss = batch(r, &pairs, packs, &facts);
    EXPECT(fabs(loss - true_loss) <= ALLOWED * fabs(true_loss), "%s: loss %.9g, expected %.9g",
           loss_name[kind], loss, true_loss);
    for (int s = 0; s < PAIR_SIDES; s++)
        EXPECT(facts.labels[s] == r->docs.n[s] + r->docs.n[2 + s] - 2 * PROMPT,
               "%g labels were told of", facts.labels[s]);
    for (int i = 0; i < r->full.params.n; i++) {
        const Param *p = &r->full.params.param[i];
        double *got = test_get_f32(r->g.m.ex, p->grad, p->n), *by = slope + r->ref.at[i];
        near(loss_name[kind], p->name, got, by, p->n);
        for (size_t k = 0; k < p->n; k++) got[k] *= 1 + 3 * ALLOWED;
        TEST_DETECTS(near(loss_name[kind], p->name, got, by, p->n));
        free(got);
    }
    free(slope);
}

static void body(Exec *ex) {
    if (ex->dtype != DTYPE_F32) return;
    Run r;
    run_open(&r, ex);
    measure_alone(&r);
    for (int kind = 0; kind < LOSSES; kind++)
        test_loss(&r, (enum PairLossKind)kind, kind % PAIRS + 1);
    run_close(&r);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_full_pairs");
}
