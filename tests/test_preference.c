/* Training on pairs: it starts where the reference is, its loss is that of the pairs however they
 * are packed, and what is said of other pairs is what their whole documents have. */
#include <math.h>
#include <omp.h>

#include "data/batch.h"
#include "host/cli/json_lines.h"
#include "host/stage/adapting.h"
#include "host/stage/nll.h"
#include "host/stage/preference.h"
#include "host/stage/train.h"
#include "tests/world.h"

enum { STEPS = 5, BATCH = 7, DOCS = 2 * WORLD_PAIRS };
#define RATE "--lr 5e-3 --schedule constant --warmup 0 "

/* A model with an adapter and the pairs, trained and measured on. */
typedef struct Bench {
    Args args;
    Runtime r;
    Dataset d;
    TrainSetup t;
    json_t *lines; /* of metrics.jsonl */
} Bench;

static void bench_open(Bench *b, const char *flags) {
    extern const Command cmd_train;
    Err err;
    char text[1024];
    snprintf(text, sizeof text,
             "--model %s --data %s --out none --method dpo --rank 4 --batch %d --max-length 128 "
             "--dtype f32 --json " RATE "%s",
             in_world("model"), in_world("pairs.jsonl"), BATCH, flags);
    *b = (Bench){0};
    MUST(world_args(&b->args, &cmd_train, text, &err), err);
    const Settings *s = &b->args.s;
    MUST(runtime_device(&b->r, s, NULL, &err) && runtime_tokenizer(&b->r, s, &err) &&
             runtime_model(&b->r, s, 0, &err) &&
             (*s->train.init_adapter
                  ? runtime_adapter(&b->r, s->train.init_adapter, true, &err)
                  : adapting_fresh(&b->r, s, (enum StartKind)s->train.init, NULL, &err)) &&
             preference_load(&b->d, b->r.tokenizer, s->data.path, s->data.max_length, 0, &err),
         err);
    train_setup(&b->t, s, b->d.n / 2);
    b->t.doc = b->t.eval = b->d.doc;
    b->t.shared = b->t.eval_shared = b->d.shared;
    b->t.neval = b->t.n;
    b->t.metrics_path = in_world("metrics.jsonl");
}

static void bench_close(Bench *b) {
    json_decref(b->lines);
    dataset_free(&b->d);
    runtime_close(&b->r, true);
    args_free(&b->args);
}

static void bench_train(Bench *b, int steps, int threads) {
    Err err;
    TrainResult result;
    omp_set_num_threads(threads);
    b->t.steps = steps;
    MUST(train(&result, &b->r.model, &b->t, &err), err);
    MUST(json_lines_read(&b->lines, b->t.metrics_path, &err), err);
    size_t evaluations = b->t.eval_every ? (size_t)steps : 1;
    EXPECT(json_array_size(b->lines) == (size_t)steps + evaluations, "%zu lines of metrics",
           json_array_size(b->lines));
}

/* Of step i, from 0; the evaluation comes behind the last. */
static double fact(const Bench *b, int i, const char *key) {
    const json_t *value = json_object_get(json_array_get(b->lines, (size_t)i), key);
    EXPECT(json_is_number(value), "line %d has no %s", i, key);
    return json_number_value(value);
}

/* A training run's losses and norms, and a sum over the final adapter's bits. */
typedef struct Curve {
    double loss[STEPS], norm[STEPS];
    uint64_t bits;
} Curve;

static Curve run(const char *flags, int steps, int threads) {
    Bench b;
    bench_open(&b, flags);
    bench_train(&b, steps, threads);
    Curve c = {.bits = 0xcbf29ce484222325u};
    const Params *p = &b.r.lora.params;
    uint32_t *w = mem_array(p->size, sizeof *w);
    exec_copy_out(&b.r.ex, w, p->master, p->size * sizeof *w);
    for (size_t i = 0; i < p->size; i++) c.bits = (c.bits ^ w[i]) * 0x100000001b3u;
    for (int i = 0; i < steps; i++)
        c.loss[i] = fact(&b, i, "loss"), c.norm[i] = fact(&b, i, "grad_norm");
    free(w);
    bench_close(&b);
    return c;
}

/* -------------------------------------------------------------------------------- the start -- */

/* The policy is the reference, to the bit, however it was made: ln 2, no reward, no pair won. */
static void expect_start(const Bench *b, double loss, double tolerance) {
    static const char *const none[] = {"rewards/chosen", "rewards/rejected", "rewards/margins"};
    EXPECT(fabs(fact(b, 0, "loss") - loss) <= tolerance + 0x1p-50 * loss, "loss %.17g",
           fact(b, 0, "loss"));
    for (int i = 0; i < 3; i++)
        EXPECT(fabs(fact(b, 0, none[i])) <= tolerance, "%s: %g", none[i], fact(b, 0, none[i]));
    if (tolerance == 0)
        EXPECT(fact(b, 0, "rewards/accuracies") == 0, "accuracy %g",
               fact(b, 0, "rewards/accuracies"));
}

static void test_start(void) {
    static const struct {
        const char *flags;
        double loss;
    } kind[] = {
        {"", .69314718055994530942},
        {"--loss-type ipo", 25},
        {"--loss-type ipo --beta 0.5", 1},
        {"--loss-type sigmoid_norm", .69314718055994530942},
        {"--loss-type robust --label-smoothing 0.1", .69314718055994530942},
        /* (log(0.5/0.9) + log(0.5/0.1)) / 2 */
        {"--loss-type exo_pair --label-smoothing 0.1", .51082562376599068321},
    };
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) {
        Bench b;
        char flags[128];
        snprintf(flags, sizeof flags, "--init lora %s", kind[i].flags);
        bench_open(&b, flags);
        bench_train(&b, 1, 2);
        expect_start(&b, kind[i].loss, 0);
        bench_close(&b);
    }
}

/* A start that is taken off again is the base up to rounding: 1e-4 a label at most, as logits may
 * be off, of replies of 40 labels at most, times beta. */
static void test_start_of_weights(void) {
    Bench b;
    bench_open(&b, "--init pissa");
    bench_train(&b, 1, 2);
    expect_start(&b, log(2), 0.1 * 40 * 1e-4);
    bench_close(&b);
}

/* ----------------------------------------------------------------------- what is measured -- */

static bool add_up(void *context, size_t doc, const float *nll, const LogitFacts *logits, int n,
                   Err *err) {
    double *logp = context;
    EXPECT(!logits, "numbers that nobody asked for");
    (void)err;
    for (int i = 0; i < n; i++) logp[doc] -= nll[i];
    return true;
}

/* log p of each reply, of whole documents that share nothing. */
static void measure(Bench *b, double logp[DOCS], bool worn) {
    Err err;
    const Examples documents = {.doc = b->d.doc, .n = b->d.n};
    const NllHow how = {.pack_tokens = 2048};
    memset(logp, 0, DOCS * sizeof *logp);
    b->r.model.lora = worn ? &b->r.lora : NULL;
    MUST(nll_docs(&b->r.model, &documents, &how, add_up, logp, &err), err);
    b->r.model.lora = &b->r.lora;
}

/* The loss and the facts of all pairs, from their definitions; 0: they are not what is said. */
static int evaluation_right(const Bench *b, const double logp[DOCS], const double reference[DOCS]) {
    double beta = b->t.pair_loss.beta, loss = 0, reward[2] = {0}, won = 0, mean[2] = {0},
           labels = 0;
    for (int i = 0; i < WORLD_PAIRS; i++) {
        double r[2];
        for (int s = 0; s < 2; s++) {
            int d = 2 * i + s;
            r[s] = beta * (logp[d] - reference[d]);
            reward[s] += r[s] / WORLD_PAIRS, mean[s] += logp[d] / WORLD_PAIRS;
            labels = fmax(labels, doc_labels(&b->d.doc[d]));
        }
        loss += log1p(exp(r[1] - r[0])) / WORLD_PAIRS;
        won += r[0] > r[1];
    }
    const struct {
        const char *key;
        double want, tolerance; /* 1e-4 a label, as logits may be off */
    } row[] = {{"eval_loss", loss, beta * labels * 2e-4},
               {"eval_rewards/chosen", reward[0], beta * labels * 1e-4},
               {"eval_rewards/rejected", reward[1], beta * labels * 1e-4},
               {"eval_rewards/margins", reward[0] - reward[1], beta * labels * 2e-4},
               {"eval_rewards/accuracies", won / WORLD_PAIRS, 1.5 / WORLD_PAIRS},
               {"eval_logps/chosen", mean[0], labels * 1e-4},
               {"eval_logps/rejected", mean[1], labels * 1e-4}};
    int ok = 1;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        double got = fact(b, b->t.steps, row[i].key);
        int near = fabs(got - row[i].want) <= row[i].tolerance;
        if (!test_quiet) EXPECT(near, "%s: %.9g, expected %.9g", row[i].key, got, row[i].want);
        ok = ok && near;
    }
    return ok;
}

/* From no adapter: the base is the reference, and its preferences are learned. */
static void test_evaluation(void) {
    Bench b;
    double logp[DOCS], base[DOCS];
    bench_open(&b, "--init lora");
    measure(&b, base, false);
    bench_train(&b, 2 * STEPS, 2);
    measure(&b, logp, true);
    evaluation_right(&b, logp, base);
    for (int d = 0; d < DOCS; d++) base[d] += d % 2 ? -1 : 1;
    TEST_DETECTS(evaluation_right(&b, logp, base));
    int last = 2 * STEPS;
    EXPECT(fact(&b, last, "eval_rewards/margins") > 0.1 &&
               fact(&b, last, "eval_rewards/accuracies") > 0.6 &&
               fact(&b, last, "eval_loss") < log(2),
           "it does not learn: margin %g", fact(&b, last, "eval_rewards/margins"));
    bench_close(&b);
}

/* From an adapter: that one is the reference. */
static void test_worn_reference(void) {
    extern const Command cmd_train;
    Bench b;
    Err err;
    char line[1024];
    double logp[DOCS], start[DOCS], base[DOCS];
    snprintf(
        line, sizeof line,
        "--model %s --data %s --init lora --rank 4 --dtype f32 --json --steps 4 --lr 1e-2 --out "
        "%s",
        in_world("model"), in_world("pairs.jsonl"), in_world("first"));
    MUST(world_run(&cmd_train, line, &err), err);
    snprintf(line, sizeof line, "--init-adapter %s", in_world("first"));
    bench_open(&b, line);
    measure(&b, base, false);
    measure(&b, start, true);
    bench_train(&b, STEPS, 2);
    expect_start(&b, log(2), 0);
    measure(&b, logp, true);
    evaluation_right(&b, logp, start);
    TEST_DETECTS(evaluation_right(&b, logp, base));
    bench_close(&b);
}

/* -------------------------------------------------------------------------------- the curve -- */

static bool same_curve(const Curve *a, const Curve *b, int steps, double tolerance) {
    for (int i = 0; i < steps; i++)
        if (!(fabs(a->loss[i] - b->loss[i]) <= tolerance * fabs(b->loss[i])) ||
            !(fabs(a->norm[i] - b->norm[i]) <= tolerance * fabs(b->norm[i])))
            return false;
    return true;
}

/* As of documents (test_train): sums over some 300 labels, in another order, for five steps. */
static void test_any_packing(void) {
    Curve whole = run("--init lora --pack-tokens 4096", STEPS, 2);
    Curve split = run("--init lora --pack-tokens 256", STEPS, 2);
    double tolerance = 300 * ldexp(1, -24) * 4;
    EXPECT(whole.bits != split.bits, "the split did not reach the arithmetic");
    EXPECT(same_curve(&whole, &split, STEPS, tolerance), "losses %.9g %.9g, norms %.9g %.9g",
           whole.loss[STEPS - 1], split.loss[STEPS - 1], whole.norm[STEPS - 1],
           split.norm[STEPS - 1]);
    Curve other = run("--init lora --seed 1", STEPS, 2);
    TEST_DETECTS(same_curve(&whole, &other, STEPS, tolerance));
    for (int threads = 1; threads <= 4; threads += 3) {
        Curve again = run("--init lora --pack-tokens 256", STEPS, threads);
        EXPECT(again.bits == split.bits, "other bits with %d threads", threads);
    }
}

/* Steps of all pairs, each behind an evaluation of the same: two ways to the same numbers, which
 * are sums of the same log-probabilities in other orders. */
static void test_step_facts(void) {
    static const char *const key[] = {"loss",
                                      "rewards/chosen",
                                      "rewards/rejected",
                                      "rewards/margins",
                                      "logps/chosen",
                                      "logps/rejected",
                                      "rewards/accuracies",
                                      "logits/chosen",
                                      "logits/rejected",
                                      "entropy"};
    enum { ALL = 3 };
    Bench b;
    bench_open(&b, "--init lora --pack-tokens 256");
    b.t.batch = WORLD_PAIRS, b.t.steps_per_epoch = b.t.eval_every = 1;
    bench_train(&b, ALL, 2);
    for (int step = 1; step < ALL; step++)
        for (size_t i = 0; i < sizeof key / sizeof *key; i++) {
            char name[48];
            snprintf(name, sizeof name, "eval_%s", key[i]);
            double got = fact(&b, 2 * step, key[i]), want = fact(&b, 2 * step - 1, name);
            EXPECT(fabs(got - want) <= 1e-12 * fabs(want) && want != 0,
                   "%s: %.17g, evaluated %.17g", key[i], got, want);
        }
    bench_close(&b);
}

/* The logits' own numbers, of the first step: the entropy lies below that of an even guess, the
 * mean logit within the cap, and of some hundred guesses some are right and most are wrong. */
static void test_logits(void) {
    Bench b;
    bench_open(&b, "--init lora");
    bench_train(&b, 1, 2);
    double entropy = fact(&b, 0, "entropy"), accuracy = fact(&b, 0, "mean_token_accuracy");
    double even = log(b.r.model.c.V), cap = b.r.model.c.final_cap;
    EXPECT(entropy > 0.5 && entropy < even, "entropy %g of %g", entropy, even);
    EXPECT(accuracy >= 0 && accuracy < 0.5, "accuracy %g", accuracy);
    EXPECT(fabs(fact(&b, 0, "logits/chosen")) < cap && fabs(fact(&b, 0, "logits/rejected")) < cap &&
               fact(&b, 0, "logits/chosen") != fact(&b, 0, "logits/rejected"),
           "logits %g and %g", fact(&b, 0, "logits/chosen"), fact(&b, 0, "logits/rejected"));
    bench_close(&b);
}

/* Fewer steps than an epoch has: the reference is there for what they see. */
static void test_few_steps(void) {
    Curve all = run("--init lora", STEPS, 2), two = run("--init lora", 2, 2);
    EXPECT(same_curve(&all, &two, 2, 0), "losses %.17g %.17g", all.loss[1], two.loss[1]);
}

/* A step counts its pairs' tokens, and those that are trained. */
static void test_counts(void) {
    Bench b;
    bench_open(&b, "--init lora");
    size_t tokens = 0, labels = 0;
    int number[BATCH], n = batch_docs(number, b.t.n, BATCH, b.t.seed, 0);
    for (int i = 0; i < 2 * n; i++) {
        const Doc *d = &b.d.doc[2 * number[i / 2] + i % 2];
        tokens += (size_t)d->n, labels += (size_t)doc_labels(d);
    }
    bench_train(&b, 1, 2);
    EXPECT(fact(&b, 0, "step_tokens") == (double)tokens &&
               fact(&b, 0, "label_tokens") == (double)labels,
           "%g tokens of %zu, %g labels of %zu", fact(&b, 0, "step_tokens"), tokens,
           fact(&b, 0, "label_tokens"), labels);
    bench_close(&b);
}

int main(void) {
    world_make();
    test_start();
    test_start_of_weights();
    test_evaluation();
    test_worn_reference();
    test_any_packing();
    test_step_facts();
    test_logits();
    test_few_steps();
    test_counts();
    world_remove();
    return test_done("preference");
}
