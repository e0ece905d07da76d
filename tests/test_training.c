/* Twenty AdamW steps on one repeated batch against PEFT with torch.optim.AdamW, clip_grad_norm_
 * and transformers' cosine schedule: every loss and rate. Each hyperparameter changed a
 * little must break the bound, else the bound would prove nothing. */
#include <omp.h>

#include "model/schedule.h"
#include "model/gemma2.h"
#include "model/optim.h"
#include "tests/golden.h"

/* Relative, at every step. The norm at the first alone, where the weights are equal: as far off as
 * gradients may be (test_gradients). */
static const double LOSS = 1e-6, NORM = 1e-5;

enum { MAX_STEPS = 32 };

/* Everything that a training run is told; the golden file says what PEFT was told. */
typedef struct Recipe {
    AdamW how;
    double clip, alpha; /* alpha: factor on every adapter's scale */
    Schedule schedule;
} Recipe;

typedef struct Curve {
    int steps;
    double loss[MAX_STEPS], norm[MAX_STEPS], lr[MAX_STEPS];
} Curve;

static Recipe golden_recipe(const Golden *g) {
    double *h = golden_f64(golden_ref(g, "train.hyper"));
    Recipe r = {
        .how = {.beta1 = h[1], .beta2 = h[2], .eps = h[3], .weight_decay = h[4]},
        .clip = h[5],
        .alpha = 1,
        .schedule = {.kind = SCHEDULE_COSINE, .lr = h[0], .warmup = (int)h[6], .total = (int)h[7]}};
    free(h);
    return r;
}

static size_t elements; /* of the last run's weights */

/* Runs the recipe from adapter "adapter". The final weights go to `weights` when it is not NULL. */
static Curve train(Golden *g, Recipe r, float **weights) {
    Lora l;
    Optim o;
    Pack p;
    Curve c = {.steps = r.schedule.total};
    float nll[GOLDEN_ROWS];
    golden_adapter(g, &l, "adapter", true);
    for (int i = 0; i < g->m.c.L * PROJ_COUNT; i++) l.adapter[i].scale *= (float)r.alpha;
    golden_pack(g, &p);
    Acts *a = acts_create(&g->m, p.N, p.nseg, p.nlabel, ACTS_TRAIN);
    optim_init(&o, &l.params, r.how);
    Objective sft = objective_sft(p.nlabel);
    for (int i = 0; i < c.steps; i++) {
        c.loss[i] = model_loss(&g->m, a, &p, &sft, nll);
        model_backward(&g->m, a, &p);
        c.norm[i] = optim_norm(&o);
        c.lr[i] = schedule_lr(&r.schedule, i);
        optim_step(&o, c.norm[i], c.lr[i], r.clip);
    }
    elements = l.params.size;
    if (weights) {
        *weights = mem_array(elements, sizeof **weights);
        exec_copy_out(l.ex, *weights, l.params.master, elements * sizeof **weights);
    }
    optim_free(&o);
    acts_destroy(a);
    pack_free(&p);
    lora_free(&l);
    g->m.lora = NULL;
    return c;
}

/* The largest relative error of a step's value; infinite where one is not a number. */
static double worst_error(const Golden *g, const char *what, const double *got, int steps) {
    double *want = golden_f64(golden_ref(g, "train.%s", what)), worst = 0;
    for (int i = 0; i < steps; i++) {
        double e = fabs(got[i] - want[i]) / want[i];
        if (!(e <= worst)) worst = isnan(e) ? INFINITY : e;
    }
    free(want);
    if (getenv("TEST_VERBOSE")) printf("%s: worst %s %.3g\n", g->folder, what, worst);
    return worst;
}

static int losses_close(const Golden *g, const Curve *c) {
    return worst_error(g, "loss", c->loss, c->steps) <= LOSS;
}

static void test_curve(Golden *g) {
    Curve c = train(g, golden_recipe(g), NULL);
    EXPECT(losses_close(g, &c), "%s: a loss is off", g->folder);
    EXPECT(worst_error(g, "norm", c.norm, 1) <= NORM, "%s: the norm is off", g->folder);
    double *lr = golden_f64(golden_ref(g, "train.lr"));
    for (int i = 0; i < c.steps; i++)
        EXPECT(fabs(c.lr[i] - lr[i]) <= 1e-15, "%s: step %d: rate %.17g, PEFT's %.17g", g->folder,
               i, c.lr[i], lr[i]);
    free(lr);
}

static int mutant(Golden *g, Recipe r) {
    Curve c = train(g, r, NULL);
    return losses_close(g, &c);
}

/* A slip in any one hyperparameter is seen in the losses. */
static void test_mutants(Golden *g) {
    const Recipe r = golden_recipe(g);
    Recipe beta1 = r, beta2 = r, eps = r, decay = r, clip = r, off = r, line = r, warm = r, al = r;
    beta1.how.beta1 = 0.91f;
    beta2.how.beta2 = 0.981f;
    eps.how.eps = 1e-8f;
    decay.how.weight_decay = 0;
    clip.clip *= 1.5;
    off.clip = 0;
    line.schedule.kind = SCHEDULE_LINEAR;
    warm.schedule.warmup--;
    al.alpha = 1.01;
    TEST_DETECTS(mutant(g, beta1));
    TEST_DETECTS(mutant(g, beta2));
    TEST_DETECTS(mutant(g, eps));
    TEST_DETECTS(mutant(g, decay));
    TEST_DETECTS(mutant(g, clip));
    TEST_DETECTS(mutant(g, off));
    TEST_DETECTS(mutant(g, line));
    TEST_DETECTS(mutant(g, warm));
    TEST_DETECTS(mutant(g, al));
}

/* The weights after a whole training are the same bits for 1, 2 and 4 threads. */
static void test_threads(Golden *g) {
    int before = omp_get_max_threads();
    Recipe r = golden_recipe(g);
    float *w[3];
    Curve c[3];
    for (int i = 0; i < 3; i++) {
        omp_set_num_threads(1 << i);
        c[i] = train(g, r, &w[i]);
        EXPECT(memcmp(c[0].loss, c[i].loss, sizeof c[0].loss) == 0, "%s: loss with %d threads",
               g->folder, 1 << i);
        EXPECT(memcmp(w[0], w[i], elements * sizeof *w[0]) == 0, "%s: weights with %d threads",
               g->folder, 1 << i);
    }
    for (int i = 0; i < 3; i++) free(w[i]);
    omp_set_num_threads(before);
}

static void body(Exec *ex) {
    if (ex->dtype != DTYPE_F32) { /* no reference, but the bits */
        if (!test_on_cpu(ex)) return;
        Golden g;
        golden_open(&g, ex, golden_models[1]);
        test_threads(&g);
        golden_close(&g);
        return;
    }
    for (int i = 0; i < GOLDEN_MODELS; i++) {
        Golden g;
        golden_open(&g, ex, golden_models[i]);
        test_curve(&g);
        if (test_on_cpu(ex) && i == 0) test_mutants(&g);
        if (test_on_cpu(ex) && i == 2) test_threads(&g);
        golden_close(&g);
    }
}

int main(void) {
    test_each_exec(body);
    return test_done("test_training");
}
