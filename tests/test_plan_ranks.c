/* What the plan says of several ranks, against what two of them really allocate: rank 0 alone has
 * sums and a copy from each of what all bring; gradients on their way have a place of their own
 * where bytes move while ops work. */
#include <math.h>

#include "host/stage/inputs.h"
#include "host/stage/moments.h"
#include "host/stage/plan.h"
#include "host/stage/scoring.h"
#include "kernels/device.h"
#include "model/grad_tree.h"
#include "tests/counted_heap.h"
#include "tests/ranks.h"

/* CommWatch: passes over documents have memory of their own, which is none of these items'. */
static void on_call(void *context, const CommCall *call) {
    (void)context;
    atomic_store(&heap_watched, call->op == COMM_COLLECT);
}

/* ---------------------------------------------------------------------------- the two ranks -- */

static double item(const Plan *p, const char *name) {
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->item[i].name, name) == 0) return p->item[i].bytes;
    return 0;
}

/* By how much rank 0's peak is above rank 1's, against the items that it alone has. The first is
 * what it gets from both ranks: half of one of these may be off, so that none is missing, too many,
 * or counted on both ranks. gone: what rank 1 has at its peak, and rank 0 no more at its own. */
static void expect(const char *stage, const Plan *p, long start, Comm *comm,
                   const char *const *name, long gone) {
    long peak[2];
    double planned = -(double)gone, copy = item(p, *name) / 2;
    peak[comm_rank(comm)] = atomic_load(&heap_most) - start;
    comm_share(comm, "peaks", peak, sizeof *peak);
    for (; *name; name++) {
        bool root = false;
        for (int i = 0; i < p->n; i++)
            if (strcmp(p->item[i].name, *name) == 0) root = p->item[i].root;
        EXPECT(root && item(p, *name) > 0, "%s: %s: %.0f", stage, *name, item(p, *name));
        planned += item(p, *name);
    }
    double more = (double)(peak[0] - peak[1]);
    EXPECT(!HEAP_COUNTED || fabs(more - planned) < copy / 2,
           "%s: planned %.0f more on rank 0, are %.0f", stage, planned, more);
}

static void test_moments(Runtime *r, const Settings *s, const Records *pairs) {
    Plan p = {0};
    Err err;
    Layers layers;
    StreamMoments m;
    MomentsWork work;
    MUST(plan_moments(&p, s, &r->ex, NULL, &err) &&
             layers_parse(&layers, s->score.layers, r->model.c.L, &err),
         err);
    long start = heap_begin();
    MUST(moments_run(&m, &work, r, &layers, s, pairs, NULL, pairs->n, &err), err);
    expect("moments", &p, start, r->ex.comm,
           (const char *const[]){"blocks of all ranks", "moments", NULL}, 0);
    stream_free(&m);
    layers_free(&layers);
}

static void test_score(Runtime *r, const Settings *s, const Records *pairs) {
    Plan p = {0};
    Err err;
    Layers layers;
    SaeSet saes;
    Scores scores;
    ScoringWork work;
    MUST(plan_score(&p, s, &r->ex, NULL, &err) &&
             layers_parse(&layers, s->score.layers, r->model.c.L, &err) &&
             saes_open(&saes, &r->ex, s, &layers, r->model.c.D, &err),
         err);
    long start = heap_begin();
    MUST(scoring_run(&scores, &work, r, &saes, s, pairs, NULL, pairs->n, NULL, &err), err);
    expect("score", &p, start, r->ex.comm,
           (const char *const[]){"parts of results of all ranks", "results", NULL}, 0);
    scores_free(&scores);
    saes_close(&saes);
    layers_free(&layers);
}

static void make_bases(Subspace *bases, Runtime *r, const Settings *s, const Dataset *d) {
    Err err;
    int64_t rows[2];
    const Examples all = dataset_examples(d);
    MUST(*s->inputs.preserve ? inputs_run_outputs(bases, rows, r, s, &all, &all, &err)
                             : inputs_run(bases, rows, r, s, d->doc, NULL, d->n, &err),
         err);
}

/* Host bytes that the pass has, beside what it brings. */
static long pass_bytes(Runtime *r, const Settings *s) {
    long before = atomic_load(&heap_live);
    InputsRun *run = inputs_run_open(&r->model, inputs_of(s), settings_pack_tokens(s));
    long bytes = atomic_load(&heap_live) - before;
    inputs_run_close(run);
    return bytes;
}

/* Bases are made after the pass; of the device that takes what the factors of one need. */
static void test_inputs(Runtime *r, const Settings *s, const Dataset *d) {
    Plan p = {0};
    Err err;
    Subspace bases;
    const char *stage = *s->inputs.preserve ? "inputs --preserve" : "inputs";
    MUST(plan_inputs(&p, s, &r->ex, d, &err), err);
    size_t before = r->ex.bytes_now - r->ex.scratch_bytes;
    long gone = pass_bytes(r, s), start = heap_begin();
    r->ex.bytes_peak = r->ex.bytes_now;
    make_bases(&bases, r, s, d);
    expect(stage, &p, start, r->ex.comm,
           (const char *const[]){"sums of all ranks", "moments of inputs", "making of bases",
                                 "bases", NULL},
           gone);
    double took = (double)(r->ex.bytes_peak - r->ex.scratch_bytes - before);
    double planned = item(&p, "sums and activations");
    if (comm_root(r->ex.comm)) planned += item(&p, "factors of bases");
    EXPECT(took <= planned && took > 0.9 * planned, "%s: planned %.0f of the device, took %.0f",
           stage, planned, took);
    subspace_free(&bases);
}

/* As a card, that moves bytes behind its work's back. Never called: nothing is moved here. */
static const char *join(Exec *ex, const char id[DEVICE_JOB_ID], const DeviceJob *job) {
    (void)ex, (void)id, (void)job;
    return "";
}

static void test_tree(Runtime *r, const Settings *s, const Dataset *d) {
    enum { PACKS = 6 };
    const Device *real = r->ex.device;
    Device card = *real;
    Params params;
    (void)s, (void)d;
    for (int behind = 0; behind < 2; behind++) {
        GradTree tree;
        card.join = behind ? join : NULL;
        r->ex.device = &card;
        params_init(&params, &r->ex, 1);
        params_add(&params, PARAM_ALIGNED, 1000, 10, "weight");
        params_allocate(&params, true);
        size_t before = r->ex.bytes_now, planned = grad_tree_bytes(&params, &r->ex, 2, PACKS);
        grad_tree_init(&tree, &params, PACKS);
        EXPECT(r->ex.bytes_now - before == planned, "planned %zu, allocated %zu", planned,
               r->ex.bytes_now - before);
        EXPECT((tree.outbox != NULL) == behind, "gradients on their way");
        grad_tree_free(&tree);
        params_free(&params);
    }
    r->ex.device = real;
}

static bool run(const Args *a, Comm *comm, Err *err) {
    Settings s = a->s;
    char sae[512];
    Runtime r = {0};
    Dataset d = {0};
    Records pairs = {0};
    snprintf(sae, sizeof sae, "%s", in_world("sae/{layer}"));
    s.score.sae = sae, s.score.layers = "1,2";
    bool ok =
        runtime_device(&r, &s, comm, err) && runtime_tokenizer(&r, &s, err) &&
        runtime_model(&r, &s, 0, err) && records_read(&pairs, s.data.path, 0, err) &&
        dataset_load_training(&d, r.tokenizer, s.data.path, SIDE_CHOSEN, s.data.max_length, 0, err);
    if (ok) {
        test_moments(&r, &s, &pairs);
        test_score(&r, &s, &pairs);
        test_inputs(&r, &s, &d);
        s.inputs.preserve = s.data.path, s.inputs.preserve_rank = 4;
        test_inputs(&r, &s, &d);
        test_tree(&r, &s, &d);
    }
    records_free(&pairs);
    dataset_free(&d);
    runtime_close(&r, ok);
    return ok;
}

static int rank_body(void) {
    extern const Command cmd_train;
    char text[1024];
    Args a;
    Comm *comm;
    Err err = {0};
    alarm(60); /* ranks that do not end fail, too */
    snprintf(world, sizeof world, "%s", getenv("SAILS_TEST_WORLD"));
    snprintf(text, sizeof text,
             "--model %s --data %s --out none --init lora --rank 4 --targets down --json "
             "--dtype f32 --max-length 128 --pack-tokens 128",
             in_world("model"), in_world("pairs.jsonl"));
    MUST(world_args(&a, &cmd_train, text, &err), err);
    const char *why = comm_open(&comm);
    CHECK(!why && comm_size(comm) == 2, "%s", why ? why : "not two ranks");
    comm_watch(comm, &(CommWatch){.begin = on_call});
    MUST(run(&a, comm, &err), err);
    args_free(&a);
    comm_close(comm);
    return test_failures ? EXIT_FAILURE : 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "rank") == 0) return rank_body();
    world_make();
    setenv("SAILS_TEST_WORLD", world, 1);
    Ended e = ranks_self(2, "rank");
    EXPECT(e.code == 0, "exit %d: %s%s", e.code, e.out, e.err);
    world_remove();
    return test_done("plan of ranks");
}
