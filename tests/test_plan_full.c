/* The plan of training all weights: on pairs, and what a run that goes on keeps for them. Its
 * passes and their workspace: test_memory_plan. */
#include "host/stage/preference.h"
#include "host/stage/runtime.h"
#include "host/stage/train.h"
#include "tests/plan_items.h"
#include "tests/world.h"

extern const Command cmd_train;

/* All weights on pairs: a run that goes on keeps those that the reference is made from. */
static void test_full_pairs(void) {
    Args args;
    Runtime r = {0};
    Dataset d;
    Err err;
    char line[1024], *argv[64];
    int n = 0;
    snprintf(line, sizeof line,
             "--model %s --data %s --method dpo --weights all --dtype bf16 --batch 9 --max-length "
             "128 --out none --resume",
             in_world("model"), in_world("pairs.jsonl"));
    for (char *w = strtok(line, " "); w && n < 64; w = strtok(NULL, " ")) argv[n++] = w;
    MUST(args_parse(&args, &cmd_train, n, argv, &err), err);
    Settings *s = &args.s;
    MUST(runtime_device(&r, s, NULL, &err) && runtime_tokenizer(&r, s, &err) &&
             preference_load(&d, r.tokenizer, s->data.path, 128, 0, &err),
         err);
    for (int resume = 0; resume < 2; resume++) {
        Plan p = {0};
        s->train.resume = resume, s->train.checkpoint_every = 1;
        MUST(plan_train(&p, s, &r.ex, &d, &err), err);
        double masters = item(&p, "weights") * 2 * resume, logp = (double)d.n * sizeof(double);
        EXPECT(item(&p, "log-probabilities of the reference") == logp + masters && masters >= 0,
               "%.0f of the reference", item(&p, "log-probabilities of the reference"));
        EXPECT(item(&p, "adapters") < 0 && item(&p, "low halves") > 0, "of adapters");
    }
    dataset_free(&d);
    runtime_close(&r, true);
    args_free(&args);
}

int main(void) {
    world_make();
    test_full_pairs();
    world_remove();
    return test_done("plan full");
}
