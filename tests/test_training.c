/* Twenty AdamW steps on one repeated batch against PEFT with torch.optim.AdamW, clip_grad_norm_
 * and transformers' cosine schedule: every loss, norm and rate. Each hyperparameter changed a
 * little must break the bound, else the bound would prove nothing. */
#include <omp.h>

#include "host/schedule.h"
#include "model/gemma2.h"
#include "model/optim.h"
#include "tests/golden.h"

static const double LOSS = 1e-6; /* relative, at every step */

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
    optim_init(&o, &l, r.how);
    for (int i = 0; i < c.steps; i++) {
        model_forward(&g->m, a, &p, g->m.c.L, NULL, NULL);
        c.loss[i] = model_loss(&g->m, a, &p, 1.0f / (float)p.nlabel, nll) / p.nlabel;
        model_backward(&g->m, a, &p);
        c.norm[i] = optim_norm(&o);
        c.lr[i] = schedule_lr(&r.schedule, i);
        optim_step(&o, c.norm[i], c.lr[i], r.clip);
    }
    elements = l.n;
    if (weights) {
        *weights = mem_array(l.n, sizeof **weights);
        exec_copy_out(l.ex, *weights, l.master, l.n * sizeof **weights);
    }
    optim_free(&o);
    acts_destroy(a);
    pack_free(&p);
    lora_free(&l);
    g->m.lora = NULL;
    return c;
}

static int curve_close(const Golden *g, const Curve *c) {
    double *loss = golden_f64(golden_ref(g, "train.loss"));
    double *norm = golden_f64(golden_ref(g, "train.norm"));
    double *lr = golden_f64(golden_ref(g, "train.lr"));
    int ok = 1;
    double worst = 0, worst_norm = 0;
    for (int i = 0; i < c->steps; i++) {
        double e = fabs(c->loss[i] - loss[i]) / loss[i];
        double n = fabs(c->norm[i] - norm[i]) / norm[i];
        if (!(e <= worst)) worst = e;
        if (!(n <= worst_norm)) worst_norm = n;
        ok &= e <= LOSS && fabs(c->lr[i] - lr[i]) <= 1e-12;
    }
    if (getenv("TEST_VERBOSE"))
        printf("%s: worst loss %.3g, worst norm %.3g\n", g->folder, worst, worst_norm);
    if (!test_quiet) EXPECT(ok, "%s: worst relative loss error %.3g", g->folder, worst);
    free(loss), free(norm), free(lr);
    return ok;
}

static void test_curve(Golden *g) {
    Recipe r = golden_recipe(g);
    Curve c = train(g, r, NULL);
    curve_close(g, &c);
}

static int mutant(Golden *g, Recipe r) {
    Curve c = train(g, r, NULL);
    return curve_close(g, &c);
}

/* A slip in any one hyperparameter is seen. */
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
        if (i == 0) test_mutants(&g);
        if (i == 2) test_threads(&g);
        golden_close(&g);
    }
}

int main(void) {
    test_each_exec(body);
    return test_done("test_training");
}
