/* The plan's items against what the program really allocates, byte for byte where it is device
 * memory. That the sum is near the process's peak: test_plan.sh. */
#include "host/stage/plan.h"

#include <math.h>

#include "host/stage/adapting.h"
#include "host/stage/generating.h"
#include "host/stage/nll.h"
#include "host/stage/planned_card.h"
#include "host/stage/preference.h"
#include "host/stage/train.h"
#include "model/grad_tree.h"
#include "tests/plan_items.h"
#include "tests/world.h"

extern const Command cmd_generate, cmd_score, cmd_subspace, cmd_train;

typedef struct Opened {
    Args args;
    Runtime r;
} Opened;

static void open_with(Opened *o, const Command *c, const char *flags) {
    Err err;
    char line[2048];
    *o = (Opened){0};
    snprintf(line, sizeof line, "--model %s --dtype f32 %s", in_world("model"), flags);
    MUST(world_args(&o->args, c, line, &err), err);
    const Settings *s = &o->args.s;
    MUST(runtime_device(&o->r, s, NULL, &err) && runtime_tokenizer(&o->r, s, &err) &&
             runtime_model(&o->r, s, 0, &err),
         err);
}

static void close_it(Opened *o) {
    runtime_close(&o->r, true);
    args_free(&o->args);
}

/* Beside what no shape decides, a stage is planned with the workspace that its ops ask for. */
static void test_workspace(const Plan *train, Opened *o, const Dataset *d, PackSize size) {
    Plan logprob = {0};
    Err err;
    Exec *ex = &o->r.ex;
    AttnShape a = config_attn(&o->r.model.c, 0);
    MUST(plan_logprob(&logprob, &o->args.s, ex, d, &err), err);
    Examples docs = dataset_examples(d);
    PackSize all = nll_pack_size(&docs, settings_pack_tokens(&o->args.s));
    int wide = o->r.model.c.F;
    double fwd = fmax((double)ex->op->attn_fwd_scratch(ex, all.segs, all.rows, a),
                      (double)ex->op->gemm_scratch(ex, all.rows, wide, GEMM_NN));
    double more = fmax((double)ex->op->attn_bwd_scratch(ex, size.segs, size.rows, a),
                       (double)ex->op->gemm_grad_scratch(ex, size.rows, wide, 10)) -
                  fmax(fwd, (double)ex->op->xent_scratch(ex, all.rows - 1, o->r.model.c.V));
    double planned = item(train, "workspace") - item(&logprob, "workspace");
    EXPECT(planned == more && more > 0, "planned %.0f more than for logprob, expected %.0f",
           planned, more);
}

/* ---------------------------------------------------------------------- whom the plan asks -- */

/* Whichever op takes most, the plan has heard of it: here one at a time takes a GB. */
enum { MUCH = 1 << 30 };
#define MUCH_OF(scratch, ...)                             \
    static size_t much_##scratch(Exec *ex, __VA_ARGS__) { \
        return ex ? MUCH : 0;                             \
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter" /* what is taken depends on none of them */
/* clang-format off */
MUCH_OF(rmsnorm_grad_scratch, int N, int D)
MUCH_OF(rope_table_scratch, int E)
MUCH_OF(attn_fwd_scratch, int nseg, int N, AttnShape a)
MUCH_OF(attn_bwd_scratch, int nseg, int N, AttnShape a)
MUCH_OF(attn_decode_scratch, int N, int T, AttnShape a)
MUCH_OF(gemm_scratch, int M, int K, enum GemmForm form)
MUCH_OF(gemm_grad_scratch, int T, int M, int N)
MUCH_OF(xent_scratch, int N, int V)
MUCH_OF(sample_scratch, int N, int V, Sampling how)
MUCH_OF(project_out_scratch, int R, int k)
MUCH_OF(sae_encode_scratch, const SaeEncoder *sae, int N)
MUCH_OF(sae_stats_scratch, const SaeEncoder *sae, int N)
MUCH_OF(top_k_scratch, int n)
MUCH_OF(svd_scratch, int M, int N)
MUCH_OF(qr_scratch, int M, int N)
/* clang-format on */
#pragma GCC diagnostic pop

static int head_depth; /* V: only the gradient of the head's input sums over it */
static size_t much_head(Exec *ex, int M, int K, enum GemmForm form) {
    return ex && M > 0 && form == GEMM_NN && K == head_depth ? MUCH : 0;
}
static size_t much_few(Exec *ex, int M, int K, enum GemmForm form) {
    return ex && M > 0 && K > 0 && form == GEMM_NT_FEW ? MUCH : 0;
}

#define X(scratch) ASKS_##scratch,
enum { SAILS_SCRATCHES(X) ASKS_head, ASKS_few, ASKED };
#undef X
#define ASKS(op) (1u << ASKS_##op##_scratch)
#define ASKS_GEMM(form) (1u << ASKS_##form)

typedef bool PlanOf(Plan *p, const Settings *s, Exec *ex, const Dataset *d, Err *err);

static bool plan_of_generate(Plan *p, const Settings *s, Exec *ex, const Dataset *d, Err *err) {
    GenOptions how = {.slots = 4, .prefill_rows = 64, .max_len = (int)d->longest};
    return plan_generate(p, s, ex, &how, err);
}

/* The set of those whose GB a stage's plan has. */
static unsigned asked(PlanOf *plan, const Settings *s, Exec *ex, const Dataset *d) {
    const Ops *real = ex->op;
    Ops one[ASKED];
    unsigned set = 0;
    for (int i = 0; i < ASKED; i++) one[i] = *real;
#define X(scratch) one[ASKS_##scratch].scratch = much_##scratch;
    SAILS_SCRATCHES(X)
#undef X
    one[ASKS_head].gemm_scratch = much_head;
    one[ASKS_few].gemm_scratch = much_few;
    for (int i = 0; i < ASKED; i++) {
        Plan p = {0};
        Err err;
        ex->op = &one[i];
        MUST(plan(&p, s, ex, d, &err), err);
        if (item(&p, "workspace") >= MUCH) set |= 1u << i;
    }
    ex->op = real;
    return set;
}

static void expect_asked(const char *stage, unsigned got, unsigned want) {
    EXPECT(got == want, "%s: asked are %#x, expected %#x", stage, got, want);
}

/* f32 of each weight that is a target: q and up. */
static void expect_start_gradients(const Config *c, const Settings *s, Exec *ex, const Dataset *d) {
    Plan p = {0};
    double q = (double)proj_out(c, PROJ_Q) * c->D, up = (double)c->F * c->D;
    double bytes = (q + up) * c->L * sizeof(float);
    Err err;
    MUST(plan_train(&p, s, ex, d, &err), err);
    double got = item(&p, "gradients of the start");
    EXPECT(got >= bytes && got <= 1.1 * bytes, "gradients of the start: %.0f of %.0f", got, bytes);
}

/* Exactly those that a stage calls. */
static void test_each_asked(Opened *o, const Dataset *d) {
    Exec *ex = &o->r.ex;
    Settings s = o->args.s;
    const unsigned pass = ASKS(rope_table) | ASKS(attn_fwd) | ASKS(gemm);
    const unsigned score = pass | ASKS(sae_stats) | ASKS(top_k);
    const unsigned train = pass | ASKS(attn_bwd) | ASKS(gemm_grad) | ASKS(xent) | ASKS_GEMM(head);
    head_depth = o->r.model.c.V;
    expect_asked("train", asked(plan_train, &s, ex, d), train);
    s.train.init = START_PISSA, s.train.rank = 4;
    expect_asked("train, of pissa", asked(plan_train, &s, ex, d), train | ASKS(svd));
    s.train.init = START_OLORA;
    expect_asked("train, of olora", asked(plan_train, &s, ex, d), train | ASKS(qr));
    s.train.init = START_LORA_GA;
    expect_asked("train, of lora-ga", asked(plan_train, &s, ex, d), train | ASKS(svd));
    expect_start_gradients(&o->r.model.c, &s, ex, d);
    s.train.init = START_CORDA;
    expect_asked("train, of corda", asked(plan_train, &s, ex, d), train | ASKS(svd));
    s.train.init = START_SAILS;
    expect_asked("train, of a subspace to come", asked(plan_train, &s, ex, d),
                 train | ASKS(qr) | ASKS(svd));
    s.train.init = START_DIRECT_MEAN;
    expect_asked("train, of a direct one to come", asked(plan_train, &s, ex, d),
                 train | ASKS(qr) | ASKS(svd));
    s.train.init = START_EVA;
    expect_asked("train, of inputs to come", asked(plan_train, &s, ex, d), train);
    s.train.init = START_SALORA, s.inputs.preserve_rank = 4;
    expect_asked("train, of outputs to come", asked(plan_train, &s, ex, d),
                 train | ASKS(svd) | ASKS(project_out));
    s.train.init = START_SAILS;
    s.train.subspace = in_world("subspace");
    s.train.rank = 0;
    expect_asked("train, of a subspace", asked(plan_train, &s, ex, d), train | ASKS(qr));
    s.train.init_adapter = in_world("first");
    expect_asked("train, of an adapter", asked(plan_train, &s, ex, d), train);
    expect_asked("logprob", asked(plan_logprob, &s, ex, d), pass | ASKS(xent));
    expect_asked("generate", asked(plan_of_generate, &s, ex, d),
                 pass | ASKS(attn_decode) | ASKS(sample) | ASKS_GEMM(few));
    s.score.sae = in_world("sae/{layer}");
    s.score.layers = "1,2";
    expect_asked("score", asked(plan_score, &s, ex, d), score);
    expect_asked("moments", asked(plan_moments, &s, ex, d), pass | ASKS(gemm_grad));
    s.train.rank = 4;
    expect_asked("inputs", asked(plan_inputs, &s, ex, d),
                 pass | ASKS(gemm_grad) | ASKS(svd) | ASKS(qr));
    s.inputs.preserve = in_world("pairs.jsonl");
    expect_asked("inputs, with what is preserved", asked(plan_inputs, &s, ex, d),
                 pass | ASKS(gemm_grad) | ASKS(svd) | ASKS(qr));
    s.score.products = SAE_FAST;
    expect_asked("score, fast", asked(plan_score, &s, ex, d), score | ASKS(sae_encode));
}

/* What training can start from: a subspace and an adapter. */
static void make_starts(void) {
    Err err;
    char line[2048], inputs[1024];
    snprintf(inputs, sizeof inputs, "--model %s --data %s --max-length 128 --dtype f32 --json",
             in_world("model"), in_world("pairs.jsonl"));
    snprintf(line, sizeof line, "%s --sae %s --layers 1,2 --out %s", inputs,
             in_world("sae/{layer}"), in_world("scores"));
    MUST(world_run(&cmd_score, line, &err), err);
    snprintf(line, sizeof line, "--scores %s --json --out %s", in_world("scores"),
             in_world("subspace"));
    MUST(world_run(&cmd_subspace, line, &err), err);
    snprintf(line, sizeof line, "%s --init lora --rank 2 --steps 1 --out %s", inputs,
             in_world("first"));
    MUST(world_run(&cmd_train, line, &err), err);
}

/* -------------------------------------------------------------------------------- stages -- */

static void test_train(void) {
    Opened o;
    Dataset d;
    Plan p = {0};
    Err err;
    char flags[512];
    snprintf(flags, sizeof flags,
             "--data %s --init lora --rank 5 --targets q,up --batch 9 --max-length 128 "
             "--pack-tokens 128 --out %s",
             in_world("pairs.jsonl"), in_world("adapter"));
    open_with(&o, &cmd_train, flags);
    const Settings *s = &o.args.s;
    MUST(dataset_load(&d, o.r.tokenizer, s->data.path, SIDE_CHOSEN, 128, 0, &err) &&
             plan_train(&p, s, &o.r.ex, &d, &err) &&
             adapting_fresh(&o.r, s, START_LORA, NULL, &err),
         err);
    near(item(&p, "adapters"), o.r.lora.params.weights.size, 2);
    near(item(&p, "adapter gradients"), o.r.lora.params.grads.size, 1);
    near(item(&p, "optimiser"), o.r.lora.params.moments.size, 2);
    TEST_DETECTS(near(item(&p, "optimiser") * 0.99, o.r.lora.params.moments.size, 2));
    TrainSetup t;
    train_setup(&t, s, d.n);
    t.doc = d.doc;
    TrainSize most = train_size(&t);
    PackSize size = most.pack;
    size_t before = o.r.ex.bytes_now;
    Acts *acts = acts_create(&o.r.model, size.rows, size.segs, size.labels, ACTS_TRAIN);
    EXPECT(item(&p, "activations") == (double)(o.r.ex.bytes_now - before), "activations");
    acts_destroy(acts);
    GradTree tree;
    before = o.r.ex.bytes_now;
    grad_tree_init(&tree, &o.r.lora.params, most.packs);
    EXPECT(most.packs > 2, "%d packs a step: the tree needs no room", most.packs);
    near(item(&p, "gradients of packs"), o.r.ex.bytes_now - before, most.packs);
    grad_tree_free(&tree);
    /* an F32 file is used in place: all of it is mapped, nothing converted */
    double parameters = (double)tensors_parameters(&o.r.model.c);
    EXPECT(item(&p, "weights, mapped") == 4 * parameters && item(&p, "weights, converted") < 0,
           "%.0f mapped", item(&p, "weights, mapped"));
    test_workspace(&p, &o, &d, size);
    test_each_asked(&o, &d);
    Plan half = {0};
    Exec narrow;
    CHECK(!exec_open(&narrow, DEVICE_CPU, DTYPE_BF16), "no device");
    MUST(plan_train(&half, s, &narrow, &d, &err), err);
    exec_close(&narrow);
    EXPECT(
        item(&half, "weights, converted") == 2 * parameters && item(&half, "weights, mapped") < 0,
        "%.0f converted", item(&half, "weights, converted"));
    dataset_free(&d);
    close_it(&o);
}

/* Of pairs: packs with both documents, and the reference, which needs more than the steps where a
 * step is small. */
static void test_pairs(void) {
    Opened o;
    Dataset d;
    Plan p = {0};
    Err err;
    char flags[512];
    snprintf(flags, sizeof flags,
             "--data %s --method dpo --init lora --rank 5 --batch 1 --max-length 128 --out %s",
             in_world("pairs.jsonl"), in_world("adapter"));
    open_with(&o, &cmd_train, flags);
    const Settings *s = &o.args.s;
    MUST(preference_load(&d, o.r.tokenizer, s->data.path, 128, 16, &err), err);
    p.eval = &d;
    MUST(plan_train(&p, s, &o.r.ex, &d, &err) && adapting_fresh(&o.r, s, START_LORA, NULL, &err),
         err);
    TrainSetup t;
    train_setup(&t, s, d.n / 2);
    t.doc = d.doc, t.shared = d.shared;
    PackSize size = train_size(&t).pack, all = {0};
    EXPECT(size.segs == 3, "%d segments of a pair", size.segs);
    size_t before = o.r.ex.bytes_now;
    Acts *acts = acts_create(&o.r.model, size.rows, size.segs, size.labels, ACTS_TRAIN);
    double trained = (double)(o.r.ex.bytes_now - before);
    EXPECT(item(&p, "activations") == trained, "activations");
    acts_destroy(acts);
    Examples pairs = dataset_examples(&d);
    for (size_t i = 0; i < pairs.n; i++) all = pack_size_sum(all, example_size(&pairs, i));
    EXPECT(all.rows <= 2048, "%d rows", all.rows); /* so that they are one pack */
    o.r.model.lora = NULL;
    acts = acts_create(&o.r.model, all.rows, all.segs, all.labels, ACTS_INFER);
    double more = (double)(o.r.ex.bytes_now - before) - trained;
    EXPECT(item(&p, "activations of the reference") == more && more > 0, "planned %.0f, not %.0f",
           item(&p, "activations of the reference"), more);
    EXPECT(item(&p, "log-probabilities of the reference") == 2.0 * (double)d.n * sizeof(double),
           "log-probabilities");
    acts_destroy(acts);
    o.r.model.lora = &o.r.lora;
    dataset_free(&d);
    close_it(&o);
}

/* All weights, of either storage type. */
static void test_full(const char *dtype) {
    Args args;
    Runtime r = {0};
    Dataset d;
    Plan p = {0};
    Err err;
    char line[1024];
    snprintf(line, sizeof line,
             "--model %s --data %s --method full --dtype %s --batch 9 --max-length 128 "
             "--pack-tokens 128 --checkpoint-every 1 --out none",
             in_world("model"), in_world("pairs.jsonl"), dtype);
    MUST(world_args(&args, &cmd_train, line, &err), err);
    const Settings *s = &args.s;
    MUST(runtime_device(&r, s, NULL, &err) && runtime_tokenizer(&r, s, &err) &&
             dataset_load(&d, r.tokenizer, s->data.path, SIDE_CHOSEN, 128, 0, &err) &&
             plan_train(&p, s, &r.ex, &d, &err),
         err);
    size_t before = r.ex.bytes_now;
    MUST(runtime_trained_model(&r, s, (int)d.longest, &err), err);
    const Params *full = &r.full.params;
    bool halves = r.ex.dtype == DTYPE_BF16;
    near(item(&p, "weights"), full->weights.size, 0);
    near(halves ? item(&p, "low halves") : 0, full->lows.size, 0);
    near(item(&p, "gradients"), full->grads.size, 0);
    near(item(&p, "optimiser"), full->moments.size, 0);
    EXPECT((full->lows.size > 0) == halves, "%zu bytes of halves in %s", full->lows.size, dtype);
    EXPECT(full->weights.size >= dtype_size(r.ex.dtype) * tensors_parameters(&r.model.c), "few");
    double planned = item(&p, "weights") + fmax(0, item(&p, "low halves")) + item(&p, "gradients") +
                     item(&p, "optimiser") + item(&p, "rope table");
    size_t taken = r.ex.bytes_now - before - r.ex.scratch_bytes; /* that is workspace */
    near(planned, taken, 2);
    TEST_DETECTS(near(planned * 0.99, taken, 2));
    EXPECT(item(&p, "copy for checkpoints") >= 12.0 * (double)tensors_parameters(&r.model.c),
           "%.0f for checkpoints", item(&p, "copy for checkpoints"));
    EXPECT(of_rank_0(&p, "copy for checkpoints") && !of_rank_0(&p, "gradients"), "whose it is");
    EXPECT(item(&p, "weights, mapped") < 0 && item(&p, "adapters") < 0, "what is not there");
    TrainSetup t;
    train_setup(&t, s, d.n);
    t.doc = d.doc;
    TrainSize most = train_size(&t);
    GradTree tree;
    before = r.ex.bytes_now;
    grad_tree_init(&tree, &r.full.params, most.packs);
    near(item(&p, "gradients of packs"), r.ex.bytes_now - before, most.packs);
    grad_tree_free(&tree);
    before = r.ex.bytes_now;
    Acts *a = acts_create(&r.model, most.pack.rows, most.pack.segs, most.pack.labels, ACTS_TRAIN);
    EXPECT(item(&p, "activations") == (double)(r.ex.bytes_now - before), "activations");
    acts_destroy(a);
    head_depth = r.model.c.V;
    expect_asked("train, in full", asked(plan_train, s, &r.ex, &d),
                 ASKS(rope_table) | ASKS(attn_fwd) | ASKS(gemm) | ASKS(attn_bwd) | ASKS(gemm_grad) |
                     ASKS(xent) | ASKS_GEMM(head) | ASKS(rmsnorm_grad));
    dataset_free(&d);
    runtime_close(&r, true);
    args_free(&args);
}

/* A card that is not here, on one rank and on four: these add up a quarter each, of four rows, and
 * what is on its way to the others lies apart, but of all weights, of which a section at a time is
 * on its way and a round is one leaf. And a subspace, which is the host's. */
static void test_card(void) {
    Args args;
    Runtime r = {0};
    Dataset d;
    Err err;
    char line[1024];
    snprintf(line, sizeof line,
             "--model %s --data %s --dtype bf16 --batch 9 --max-length 128 --rank 0 "
             "--subspace %s --pack-tokens 128 --out none",
             in_world("model"), in_world("pairs.jsonl"), in_world("subspace"));
    MUST(world_args(&args, &cmd_train, line, &err), err);
    Settings s = args.s;
    MUST(planned_card_open(&r.ex, 1e9, DTYPE_BF16, &err) && runtime_tokenizer(&r, &s, &err) &&
             dataset_load(&d, r.tokenizer, s.data.path, SIDE_CHOSEN, 128, 0, &err),
         err);
    Plan basis = {0}, wide = {0}, one = {0}, four = {0}, host = {0};
    Exec cpu;
    Subspace subspace;
    MUST(
        plan_train(&basis, &s, &r.ex, &d, &err) && subspace_load(&subspace, s.train.subspace, &err),
        err);
    EXPECT(item(&basis, "subspace") == (double)subspace_bytes(&subspace), "planned %.0f, are %zu",
           item(&basis, "subspace"), subspace_bytes(&subspace));
    double U = 0;
    for (int i = 0; i < subspace.n; i++)
        U += (double)subspace.basis[i].R * WORLD_D * sizeof(double);
    EXPECT(U > 0 && item(&basis, "subspace") >= U && item(&basis, "subspace") < 1.2 * U,
           "planned %.0f, the columns alone are %.0f", item(&basis, "subspace"), U);
    subspace_free(&subspace);
    s.train.method = METHOD_FULL;
    MUST(plan_train(&one, &s, &r.ex, &d, &err), err);
    s.plan.ranks = 4;
    MUST(plan_train(&four, &s, &r.ex, &d, &err), err);
    TrainSetup t;
    train_setup(&t, &s, d.n);
    t.doc = d.doc;
    int packs = train_size(&t).packs;
    double levels = grad_tree_levels(packs), all = item(&one, "gradients");
    near(levels * all, (size_t)item(&one, "gradients of packs"), (int)levels + 1);
    double rounds = grad_tree_levels((packs + 3) / 4), part = item(&four, "optimiser") / 2;
    near(rounds * part, (size_t)item(&four, "gradients of packs"), 64);
    CHECK(!exec_open(&cpu, DEVICE_CPU, DTYPE_BF16), "no device");
    MUST(plan_train(&host, &s, &cpu, &d, &err), err);
    exec_close(&cpu);
    EXPECT(item(&four, "gradients of ranks") > 0 &&
               item(&four, "gradients of ranks") == item(&host, "gradients of ranks"),
           "%.0f of ranks", item(&four, "gradients of ranks"));
    s.train.method = METHOD_LORA;
    MUST(plan_train(&wide, &s, &r.ex, &d, &err), err);
    all = item(&wide, "adapter gradients");
    near((levels / 4 + 1 + 1) * all, (size_t)item(&wide, "gradients of packs"), 64);
    dataset_free(&d);
    runtime_close(&r, true);
    args_free(&args);
}

static void test_generate(void) {
    Opened o;
    Prompts prompts;
    Plan p = {0};
    Err err;
    char flags[512];
    snprintf(flags, sizeof flags, "--prompts %s --benign %s --batch 4 --max-new-tokens 20",
             in_world("prompts.jsonl"), in_world("benign.jsonl"));
    open_with(&o, &cmd_generate, flags);
    const Settings *s = &o.args.s;
    MUST(prompts_read(&prompts, o.r.tokenizer, s, o.r.model.c.max_positions, &err), err);
    int longest = 0;
    for (const PromptFile *f = prompts.file; f < prompts.file + PROMPT_FILES; f++)
        for (size_t i = 0; i < f->records.n; i++)
            if (f->doc[i].n > longest) longest = f->doc[i].n;
    EXPECT(prompts.n == WORLD_PROMPTS + 1 && prompts.longest == longest && longest > 0,
           "%zu prompts, the longest of %d tokens", prompts.n, prompts.longest);
    GenOptions how = generating_options(s, &prompts);
    EXPECT(how.slots == 4 && how.max_len == prompts.longest + 20, "%d places of %d tokens",
           how.slots, how.max_len);
    MUST(plan_generate(&p, s, &o.r.ex, &how, &err), err);
    size_t before = o.r.ex.bytes_now;
    Generator *g = gen_create(&o.r.model, &how);
    EXPECT(item(&p, "key/value cache and activations") == (double)(o.r.ex.bytes_now - before),
           "planned %.0f, allocated %zu", item(&p, "key/value cache and activations"),
           o.r.ex.bytes_now - before);
    gen_destroy(g);
    prompts_free(&prompts);
    close_it(&o);
}

/* What this process has grown by since the last call, in its own class. */
static void test_measured(void) {
    enum { BYTES = 64 << 20 };
    Plan p = {0};
    plan_measured(&p, "before");
    volatile char *block = mem_array(BYTES, 1); /* volatile: else nothing would be written */
    for (size_t i = 0; i < BYTES; i += 1024) block[i] = 1;
    plan_measured(&p, "block");
    EXPECT(item(&p, "block") >= BYTES && item(&p, "block") < 1.1 * BYTES, "%.0f of %d",
           item(&p, "block"), BYTES);
    EXPECT(plan_total(&p, PLAN_ANONYMOUS) == p.seen[PLAN_ANONYMOUS],
           "the items add up to %.0f, the process has %.0f", plan_total(&p, PLAN_ANONYMOUS),
           p.seen[PLAN_ANONYMOUS]);
    free((void *)block);
}

int main(void) {
    world_make();
    make_starts();
    test_train();
    test_pairs();
    test_full("f32");
    test_full("bf16");
    test_card();
    test_generate();
    test_measured();
    world_remove();
    return test_done("memory plan");
}
