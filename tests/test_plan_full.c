/* The plan of training all weights: on pairs, and what a run that goes on keeps for them; on
 * several ranks. Its passes and their workspace: test_memory_plan. */
#include <math.h>

#include "host/stage/preference.h"
#include "host/stage/runtime.h"
#include "host/stage/train.h"
#include "model/grad_tree.h"
#include "tests/plan_items.h"
#include "tests/world.h"

extern const Command cmd_train;

static void expect_start(const Plan *p, double bytes, bool root) {
    EXPECT(item(p, "start, for the reference") == bytes &&
               of_rank_0(p, "start, for the reference") == root,
           "%.0f of the start, expected %.0f", item(p, "start, for the reference"), bytes);
}

/* All weights on pairs: a run that goes on keeps those that the reference is made from, which is
 * rank 0 where several share them. */
static void test_full_pairs(void) {
    Args args;
    Runtime r = {0};
    Dataset d;
    Err err;
    char line[1024];
    snprintf(line, sizeof line,
             "--model %s --data %s --method dpo --weights all --dtype bf16 --batch 9 --max-length "
             "128 --out none --resume",
             in_world("model"), in_world("pairs.jsonl"));
    MUST(world_args(&args, &cmd_train, line, &err), err);
    Settings *s = &args.s;
    MUST(runtime_device(&r, s, NULL, &err) && runtime_tokenizer(&r, s, &err) &&
             preference_load(&d, r.tokenizer, s->data.path, 128, 0, &err),
         err);
    for (int resume = 0; resume < 2; resume++) {
        Plan p = {0};
        s->train.resume = resume, s->train.checkpoint_every = 1;
        MUST(plan_train(&p, s, &r.ex, &d, &err), err);
        double logp = (double)d.n * sizeof(double);
        EXPECT(item(&p, "log-probabilities of the reference") == logp, "%.0f of the reference",
               item(&p, "log-probabilities of the reference"));
        expect_start(&p, resume ? 2 * item(&p, "weights") : -1, false);
        EXPECT(item(&p, "adapters") < 0 && item(&p, "low halves") > 0, "of adapters");
        Plan two = {0};
        s->plan.ranks = 2;
        MUST(plan_train(&two, s, &r.ex, &d, &err), err);
        expect_start(&two, item(&p, "start, for the reference"), resume);
        s->plan.ranks = 1;
    }
    dataset_free(&d);
    runtime_close(&r, true);
    args_free(&args);
}

/* Of all weights on several ranks, of which that with the most is planned: each class by itself,
 * and that the parts are parts. */
static void test_shared(int ranks) {
    Args args;
    Runtime r = {0};
    Dataset d;
    Plan p = {0};
    Err err;
    char line[1024];
    size_t weights = 0, lows = 0, moments = 0, grads = 0, rows = 0, sum = 0;
    snprintf(line, sizeof line,
             "--model %s --data %s --method full --dtype bf16 --batch 9 --max-length 128 "
             "--pack-tokens 128 --out none",
             in_world("model"), in_world("pairs.jsonl"));
    MUST(world_args(&args, &cmd_train, line, &err), err);
    args.s.plan.ranks = ranks;
    const Settings *s = &args.s;
    MUST(runtime_device(&r, s, NULL, &err) && runtime_tokenizer(&r, s, &err) &&
             dataset_load(&d, r.tokenizer, s->data.path, SIDE_CHOSEN, 128, 0, &err) &&
             plan_train(&p, s, &r.ex, &d, &err),
         err);
    Config c;
    TrainSetup t;
    MUST(config_load(&c, s->model.path, &err), err);
    train_setup(&t, s, d.n);
    t.doc = d.doc;
    for (int rank = 0; rank < ranks; rank++) {
        Full f;
        GradTree tree;
        full_alloc(&f, &r.ex, &c, ranks, rank);
        size_t before = r.ex.bytes_now;
        grad_tree_init(&tree, &f.params, train_size(&t).packs);
        rows = fmax(rows, r.ex.bytes_now - before);
        lows = fmax(lows, f.params.lows.size), moments = fmax(moments, f.params.moments.size);
        grads = fmax(grads, f.params.grads.size), weights = fmax(weights, f.params.weights.size);
        sum += f.params.moments.size;
        EXPECT(f.params.moments.size <= 8 * (f.params.held + 32), "%zu bytes of moments",
               f.params.moments.size);
        grad_tree_free(&tree);
        full_free(&f);
    }
    near(item(&p, "weights") + item(&p, "gathered weights"), weights, 0);
    near(item(&p, "low halves"), lows, 0);
    near(item(&p, "optimiser"), moments, 0);
    near(item(&p, "gradients") + item(&p, "gradients of a pack"), grads, 0);
    near(item(&p, "gradients of packs") + item(&p, "gradients of ranks"), rows, 2);
    double all = 8.0 * (double)tensors_parameters(&c);
    EXPECT(sum >= all && sum < 1.1 * all, "moments of %zu bytes on %d ranks together", sum, ranks);
    config_free(&c);
    dataset_free(&d);
    runtime_close(&r, true);
    args_free(&args);
}

int main(void) {
    world_make();
    test_full_pairs();
    test_shared(2);
    test_shared(4);
    world_remove();
    return test_done("plan full");
}
