/* The training loop: a step's loss and gradient belong to the global batch, not to how it was
 * packed; the same bits for any number of threads; numbers that go bad are named. */
#include <dirent.h>
#include <float.h>
#include <math.h>
#include <omp.h>

#include "data/buf.h"
#include "host/stage/adapting.h"
#include "host/stage/dataset.h"
#include "host/cli/json_lines.h"
#include "host/stage/train.h"
#include "tests/world.h"

enum { STEPS = 5 };

/* A model with a fresh adapter and the pairs, trained for STEPS steps. */
typedef struct Bench {
    Args args;
    Runtime r;
    Dataset d;
    TrainSetup t;
} Bench;

static void bench_open(Bench *b, const char *flags) {
    extern const Command cmd_train;
    Err err;
    char text[1024];
    snprintf(text, sizeof text,
             "--model %s --data %s --out none --init lora --rank 4 --batch 7 --lr 5e-3 --steps %d "
             "--dtype f32 --json %s",
             in_world("model"), in_world("pairs.jsonl"), STEPS, flags);
    *b = (Bench){0};
    MUST(world_args(&b->args, &cmd_train, text, &err), err);
    const Settings *s = &b->args.s;
    MUST(runtime_device(&b->r, s, NULL, &err) && runtime_tokenizer(&b->r, s, &err) &&
             runtime_model(&b->r, s, 0, &err) && adapting_fresh(&b->r, s, START_LORA, NULL, &err) &&
             dataset_load(&b->d, b->r.tokenizer, s->data.path, SIDE_CHOSEN, s->data.max_length, 0,
                          &err),
         err);
    train_setup(&b->t, s, b->d.n);
    b->t.doc = b->d.doc;
    b->t.metrics_path = in_world("metrics.jsonl");
}

static void bench_close(Bench *b) {
    dataset_free(&b->d);
    runtime_close(&b->r, true);
    args_free(&b->args);
}

/* Losses and gradient norms of the steps, what they tell of redundancy (NAN: nothing) and what it
 * is at the end, and a sum over the final adapter's bits. */
typedef struct Curve {
    double loss[STEPS], norm[STEPS], told[STEPS], redundancy;
    uint64_t bits;
} Curve;

static double number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

static Curve run(const char *flags, int threads) {
    Bench b;
    Err err;
    TrainResult result;
    bench_open(&b, flags);
    omp_set_num_threads(threads);
    MUST(train(&result, &b.r.model, &b.t, &err), err);
    EXPECT(result.steps == STEPS, "%d steps", result.steps);
    Curve c = {.bits = 0xcbf29ce484222325u, .redundancy = result.redundancy};
    uint32_t *w = mem_array(b.r.lora.params.size, sizeof *w);
    exec_copy_out(&b.r.ex, w, b.r.lora.params.master, b.r.lora.params.size * sizeof *w);
    for (size_t i = 0; i < b.r.lora.params.size; i++) c.bits = (c.bits ^ w[i]) * 0x100000001b3u;
    free(w);
    bench_close(&b);
    json_t *lines, *line;
    size_t i;
    MUST(json_lines_read(&lines, in_world("metrics.jsonl"), &err), err);
    EXPECT(json_array_size(lines) == STEPS, "%zu lines of metrics", json_array_size(lines));
    double tokens = 0;
    json_array_foreach (lines, i, line)
        if (i < STEPS) {
            c.loss[i] = number(line, "loss");
            c.norm[i] = number(line, "grad_norm");
            c.told[i] = json_object_get(line, "redundancy") ? number(line, "redundancy") : NAN;
            tokens += number(line, "step_tokens");
            EXPECT(number(line, "step") == (double)i + 1, "step %g", number(line, "step"));
            EXPECT(number(line, "num_tokens") == tokens && tokens > 0, "%g tokens so far, not %g",
                   number(line, "num_tokens"), tokens);
            EXPECT(number(line, "learning_rate") == schedule_lr(&b.t.schedule, (int)i), "rate %g",
                   number(line, "learning_rate"));
            EXPECT(fabs(number(line, "epoch") - ((double)i + 1) * 7 / 28) < 1e-12, "epoch %g",
                   number(line, "epoch")); /* 23 pairs: 4 steps of 7 */
        }
    EXPECT(tokens == (double)result.tokens, "%zu tokens in all", result.tokens);
    json_decref(lines);
    return c;
}

static bool same_curve(const Curve *a, const Curve *b, double tolerance) {
    for (int i = 0; i < STEPS; i++)
        if (!(fabs(a->loss[i] - b->loss[i]) <= tolerance * fabs(b->loss[i])) ||
            !(fabs(a->norm[i] - b->norm[i]) <= tolerance * fabs(b->norm[i])))
            return false;
    return true;
}

/* One pack, many packs, documents shifted among batches: a mean over packs instead of tokens, a
 * skipped or doubled pack, or documents that see each other would all change the curve. The sums
 * of a step run over some 300 label tokens in another order, each f32 sum of n terms being off by
 * n 2^-24 at most; over five steps of AdamW, which divides by the gradient's own size, that grows
 * by a small factor. */
static void test_any_packing(void) {
    Curve whole = run("--max-length 128 --pack-tokens 2048", 2);
    Curve split = run("--max-length 128 --pack-tokens 128", 2);
    double tolerance = 300 * ldexp(1, -24) * 4;
    EXPECT(whole.bits != split.bits, "the split did not reach the arithmetic");
    EXPECT(same_curve(&whole, &split, tolerance), "losses %.9g %.9g, norms %.9g %.9g",
           whole.loss[STEPS - 1], split.loss[STEPS - 1], whole.norm[STEPS - 1],
           split.norm[STEPS - 1]);
    Curve other = run("--max-length 128 --seed 1", 2);
    TEST_DETECTS(same_curve(&whole, &other, tolerance));
    EXPECT(whole.loss[STEPS - 1] < whole.loss[0], "it does not learn: %g to %g", whole.loss[0],
           whole.loss[STEPS - 1]);
}

/* --clip reaches the step: far above every norm it changes nothing. Adam divides by the gradient's
 * own size, so that it must lie far below eps to show. */
static void test_clipped(void) {
    Curve none = run("--max-length 128 --clip 0", 2), far = run("--max-length 128 --clip 1e5", 2);
    Curve tight = run("--max-length 128 --clip 1e-14", 2);
    EXPECT(none.bits == far.bits, "a bound far away changed the training");
    EXPECT(none.bits != tight.bits && tight.loss[STEPS - 1] > none.loss[STEPS - 1],
           "a tight bound did not slow the training: %g, %g", tight.loss[STEPS - 1],
           none.loss[STEPS - 1]);
}

/* A penalty is no part of the loss, but of its gradient, and is told with each step: the adapter
 * repeats less at the end. At the start B is zero, and of A's random rows in D dimensions two have
 * a squared cosine of 1 / D on the average. */
static void test_penalised(void) {
    Curve none = run("--max-length 128", 2), some = run("--max-length 128 --redundancy 300", 2);
    EXPECT(some.loss[0] == none.loss[0] && some.norm[0] > 1.1 * none.norm[0],
           "first step: loss %.9g of %.9g, norm %g of %g", some.loss[0], none.loss[0], some.norm[0],
           none.norm[0]);
    EXPECT(some.told[0] > 0.3 / WORLD_D && some.told[0] < 3.0 / WORLD_D, "told %g", some.told[0]);
    EXPECT(isnan(none.told[0]) && some.told[STEPS - 1] != some.told[0], "told %g", none.told[0]);
    EXPECT(some.redundancy > 0 && some.redundancy < 0.7 * none.redundancy, "%g, penalised %g",
           none.redundancy, some.redundancy);
}

static void test_any_threads(void) {
    Curve one = run("--max-length 128", 1);
    for (int threads = 2; threads <= 4; threads += 2) {
        Curve more = run("--max-length 128", threads);
        EXPECT(more.bits == one.bits, "other bits with %d threads", threads);
        EXPECT(same_curve(&one, &more, 0), "other losses with %d threads", threads);
    }
}

/* A weight of the base, then one of the adapter, is made infinite; each is named. */
static void test_bad_numbers(void) {
    Bench b;
    Err err;
    TrainResult result;
    float bad = INFINITY;
    bench_open(&b, "--max-length 128");
    Adapter *a = lora_at(&b.r.lora, 2, PROJ_K);
    exec_copy_in(&b.r.ex, a->A->master + 3, &bad, sizeof bad);
    params_sync(&b.r.lora.params);
    bool ok = train(&result, &b.r.model, &b.t, &err);
    EXPECT(!ok && err.code == EXIT_NUMBERS, "an infinite weight was not noticed");
    EXPECT(!ok && strstr(err.text, "model.layers.2.self_attn.k_proj.lora_A.weight, element 3"),
           "%s", err.text);
    EXPECT(result.steps == 0, "%d steps were counted", result.steps);
    bench_close(&b);
}

static void fill(Bench *b, const Param *t, float value) {
    float *x = mem_array(t->n, sizeof *x);
    for (size_t i = 0; i < t->n; i++) x[i] = value;
    exec_copy_in(&b->r.ex, t->master, x, t->n * sizeof *x);
    params_sync(&b->r.lora.params);
    free(x);
}

/* Zeros behind numbers of whatever size leave a loss; the gradient of the zeros overflows. */
static void test_bad_gradient(void) {
    Bench b;
    Err err;
    TrainResult result;
    bench_open(&b, "--max-length 128");
    Adapter *a = lora_at(&b.r.lora, 1, PROJ_V);
    fill(&b, a->A, 0), fill(&b, a->B, FLT_MAX / 4);
    a->scale = 1e9f;
    EXPECT(!train(&result, &b.r.model, &b.t, &err) && err.code == EXIT_NUMBERS &&
               strstr(err.text, "step 1: loss ") && !strstr(err.text, "nan,") &&
               strstr(err.text, "layers.1.self_attn.v_proj.lora_A.weight gradient, element 0"),
           "%s", err.text);
    bench_close(&b);
}

/* The pack whose loss is not finite is looked at, whichever of its step: rope's table is bad where
 * the longest document alone gets to, so that other packs are sound. */
static void test_bad_pack(void) {
    Bench b;
    Err err;
    TrainResult result;
    float bad = NAN;
    bench_open(&b, "--max-length 128 --pack-tokens 128");
    int longest = 0;
    for (size_t i = 0; i < b.d.n; i++) longest = b.d.doc[i].n > longest ? b.d.doc[i].n : longest;
    const Model *m = &b.r.model; /* what the last row makes reaches no label */
    exec_copy_in(&b.r.ex, m->cos + (longest - 2) * m->c.E / 2, &bad, sizeof bad);
    EXPECT(!train(&result, &b.r.model, &b.t, &err) && err.code == EXIT_NUMBERS &&
               strstr(err.text, ": first bad tensor layer 0: rope(q)") && !strstr(err.text, "norm"),
           "%s", err.text);
    bench_close(&b);
}

/* What the files of an adapter folder hold, one after the other; nothing of no folder. */
static Buf contents(const char *folder) {
    static const char *const name[] = {"adapter_config.json", "adapter_model.safetensors",
                                       "README.md", "metrics.jsonl", EVENTS_FILE};
    Err err;
    Buf all = {0};
    for (int i = 0; i < 5 && files_exists(folder); i++) {
        char *data, *path = files_join(folder, name[i]);
        size_t n;
        MUST(files_read(&data, &n, path, 1 << 24, &err), err);
        buf_add(&all, data, n);
        free(data);
        free(path);
    }
    return all;
}

static bool same_bytes(const Buf *a, const Buf *b) {
    return a->n == b->n && memcmp(a->p, b->p, a->n) == 0;
}

static int files_in(const char *folder) {
    struct dirent **name;
    int n = scandir(folder, &name, NULL, NULL);
    for (int i = 0; i < n; i++) free(name[i]);
    if (n >= 0) free(name);
    return n - 2; /* . and .. */
}

/* A run into a folder that holds an adapter already: that one is there, whole, until the new one
 * is. A run that fails leaves nothing of its own. */
static void test_folder(void) {
    Bench b;
    Err err;
    TrainResult result;
    float bad = INFINITY;
    char folder[600];
    snprintf(folder, sizeof folder, "%s", in_world("trained"));
    for (int i = 0; i < 4; i++) { /* fails without a folder, good, fails over it, good again */
        Buf before = contents(folder);
        bench_open(&b, i < 2 ? "--max-length 128" : "--max-length 128 --seed 9");
        Adapter *a = lora_at(&b.r.lora, 2, PROJ_K);
        if (i % 2 == 0) exec_copy_in(&b.r.ex, a->A->master + 3, &bad, sizeof bad);
        params_sync(&b.r.lora.params);
        bool ok = train_folder(&result, &b.r.model, &b.t, folder, "base", &err);
        EXPECT(ok == (i % 2 == 1), "run %d: %s", i, ok ? "no error" : err.text);
        bench_close(&b);
        if (i == 0) {
            EXPECT(!files_exists(folder), "a failed run left a folder");
            continue;
        }
        Buf after = contents(folder);
        EXPECT(files_in(folder) == 5, "run %d left %d files", i, files_in(folder));
        if (i == 2) EXPECT(same_bytes(&before, &after), "a failed run changed the earlier adapter");
        if (i == 3) EXPECT(!same_bytes(&before, &after), "the new adapter did not arrive");
        buf_free(&before);
        buf_free(&after);
    }
}

/* Documents cut before their reply have no target: a step of such alone must not divide by zero.
 */
static void test_no_targets(void) {
    Bench b;
    Err err;
    TrainResult result;
    bench_open(&b, "--max-length 4");
    EXPECT(b.d.labels == 0 && b.d.truncated == b.d.n && b.d.unlabelled == b.d.n,
           "%zu labels, %zu of %zu cut", b.d.labels, b.d.truncated, b.d.n);
    MUST(train(&result, &b.r.model, &b.t, &err), err);
    EXPECT(result.mean_loss == 0, "loss %g of nothing", result.mean_loss);
    bench_close(&b);
}

/* The optimiser gets the numbers that were asked for: 1 - 0.999f is off by 1e-5. */
static void test_hyperparameters(void) {
    Bench b;
    bench_open(&b, "--max-length 128 --beta1 0.93 --weight-decay 0.1");
    const AdamW *a = &b.t.adamw;
    const Schedule *s = &b.t.schedule; /* 3 % of 5 steps are one, rounded up as transformers does */
    EXPECT(s->warmup == 1 && s->total == STEPS && s->lr == 5e-3 && s->kind == SCHEDULE_COSINE,
           "%d of %d steps of warm-up to %g", s->warmup, s->total, s->lr);
    EXPECT(a->beta1 == 0.93 && a->beta2 == 0.999 && a->eps == 1e-8 && a->weight_decay == 0.1,
           "beta %.17g %.17g, eps %.17g, decay %.17g", a->beta1, a->beta2, a->eps, a->weight_decay);
    bench_close(&b);
}

int main(void) {
    world_make();
    test_hyperparameters();
    test_any_packing();
    test_clipped();
    test_penalised();
    test_any_threads();
    test_bad_numbers();
    test_bad_gradient();
    test_bad_pack();
    test_folder();
    test_no_targets();
    world_remove();
    return test_done("train");
}
