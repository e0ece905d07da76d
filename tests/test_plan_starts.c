/* What an adapter's start is planned with, against what it really allocates for one weight at a
 * time; and what a plan says of a subspace that is still to come. */
#include <math.h>

#include "data/batch.h"
#include "host/stage/adapting.h"
#include "host/stage/dataset.h"
#include "host/stage/plan.h"
#include "host/stage/planned_card.h"
#include "model/inputs.h"
#include "tests/counted_heap.h"
#include "tests/plan_items.h"
#include "tests/world.h"

extern const Command cmd_train;

enum { R = 4, PACK = 128 };

typedef struct Opened {
    Args args;
    Runtime r;
    Dataset d;
} Opened;

static void open_world(Opened *o) {
    char line[1024];
    Err err;
    *o = (Opened){0};
    snprintf(line, sizeof line,
             "--model %s --data %s --dtype f32 --rank %d --targets up --init lora --batch 9 "
             "--max-length 128 --pack-tokens %d --out none",
             in_world("model"), in_world("pairs.jsonl"), R, PACK);
    MUST(world_args(&o->args, &cmd_train, line, &err), err);
    const Settings *s = &o->args.s;
    MUST(runtime_device(&o->r, s, NULL, &err) && runtime_tokenizer(&o->r, s, &err) &&
             runtime_model(&o->r, s, 0, &err) &&
             dataset_load_training(&o->d, o->r.tokenizer, s->data.path, SIDE_CHOSEN, PACK, 0, &err),
         err);
}

static void close_world(Opened *o) {
    dataset_free(&o->d);
    runtime_close(&o->r, true);
    args_free(&o->args);
}

/* ----------------------------------------------------------------------- beside an adapter -- */

/* Passes over the first batch are over when factors are made: what they had is none of these. */
static const Ops *real;
static void svd(Exec *ex, double *U, double *S, double *Vt, double *A, int M, int N) {
    if (!atomic_exchange(&heap_watched, true)) heap_begin();
    real->svd(ex, U, S, Vt, A, M, N);
}

/* Bytes of the host, and of the device, at the most. */
static long filled(Opened *o, const StartOptions *how, size_t *device) {
    Model *m = &o->r.model;
    Exec *ex = m->ex;
    Ops hooked = *ex->op;
    LoraShape shape;
    Lora l;
    Err err;
    real = ex->op;
    hooked.svd = svd;
    MUST(adapter_start_shape(&shape, &m->c, how, NULL, &err), err);
    lora_alloc(&l, ex, &m->c, &shape, true);
    lora_shape_free(&shape);
    MUST(adapter_start_fill(&l, m, how, NULL, &err), err); /* ex has its workspace from now on */
    ex->op = &hooked;
    atomic_store(&heap_watched, !adapter_start_of_batch(how->kind));
    size_t before = ex->bytes_now;
    ex->bytes_peak = before;
    long start = heap_begin();
    MUST(adapter_start_fill(&l, m, how, NULL, &err), err);
    long most = atomic_load(&heap_most) - start;
    atomic_store(&heap_watched, false);
    *device = ex->bytes_peak - before;
    ex->op = real;
    lora_free(&l);
    return most;
}

/* No array may be missing: the least of those that grow with a weight, corda's sums, is a 22nd of
 * all. Packs and lists of documents, and that A and B are put when factors have left the device,
 * are less than half of that. */
static bool is_planned(double got, double planned) {
    bool ok = !HEAP_COUNTED || fabs(got / planned - 1) < 0.025;
    EXPECT(test_quiet || ok, "planned %.0f, allocated %.0f", planned, got);
    return ok;
}

/* Of the host while corda's pass is open: its batch's, not the weight's. */
static long pass_bytes(const Model *m, const bool target[PROJ_COUNT]) {
    long before = atomic_load(&heap_live);
    InputsRun *run = inputs_run_open(m, inputs_groups(target), PACK);
    long bytes = atomic_load(&heap_live) - before;
    inputs_run_close(run);
    return bytes;
}

static void test_start(Opened *o, enum StartKind kind) {
    const Config *c = &o->r.model.c;
    StartOptions how = {.kind = kind, .rank = R, .alpha = 4, .target = {[PROJ_UP] = true}};
    const Doc *doc[9];
    for (int i = 0; i < 9; i++) doc[i] = &o->d.doc[i];
    const StartBatch batch = {doc, 9, PACK};
    how.batch = &batch;
    StartBytes n = adapter_start[kind].bytes(c, how.target, R);
    size_t device;
    double planned = (double)n.host, got = (double)filled(o, &how, &device);
    if (kind == START_CORDA) got -= (double)pass_bytes(&o->r.model, how.target);
    is_planned(got, planned);
    bool alone = !adapter_start_of_batch(kind); /* no pass had memory of the device */
    EXPECT(!alone || device == n.device, "planned %zu of the device, allocated %zu", n.device,
           device);
    double least = (double)proj_in(c, PROJ_UP) * proj_in(c, PROJ_UP) * sizeof(float);
    if (HEAP_COUNTED) TEST_DETECTS(is_planned(got, planned - least));
}

/* ------------------------------------------------------------------------------- in a plan -- */

/* On a card the host has what the host does alone, and later memory is elsewhere. */
static void test_plan(Opened *o) {
    Settings s = o->args.s;
    const bool up[PROJ_COUNT] = {[PROJ_UP] = true};
    Exec card;
    Err err;
    MUST(planned_card_open(&card, 1e9, DTYPE_BF16, &err), err);
    for (enum StartKind kind = START_LORA; kind <= START_CORDA; kind++) {
        Plan p = {0};
        s.train.init = kind;
        MUST(plan_train(&p, &s, &card, &o->d, &err), err);
        StartBytes n = {0};
        if (adapter_start[kind].bytes) n = adapter_start[kind].bytes(&o->r.model.c, up, R);
        EXPECT(item(&p, "making of the start") == (n.host ? (double)n.host : -1),
               "%s: %.0f, expected %zu", adapter_start[kind].name, item(&p, "making of the start"),
               n.host);
    }
    exec_close(&card);
}

/* The subspace's making, where align will make it; covariances are copied and shifted. */
static void test_to_come(Opened *o) {
    Settings s = o->args.s;
    double D2 = (double)WORLD_D * WORLD_D * sizeof(double);
    BasisBytes pairs = adapting_bytes(&s, SUBSPACE_PAIRS, WORLD_D, R);
    BasisBytes covariance = adapting_bytes(&s, SUBSPACE_COVARIANCE, WORLD_D, R);
    EXPECT((double)pairs.host == 2 * D2 + WORLD_D * sizeof(double) &&
               (double)(covariance.host - pairs.host) == D2,
           "%zu and %zu", pairs.host, covariance.host);
}

/* Whose ranks are whose is not known: each adapter may have rho times its own. */
static void test_shared_ranks(Opened *o) {
    Settings s = o->args.s;
    Plan one = {0}, two = {0};
    Err err;
    s.train.init = START_EVA;
    MUST(plan_train(&one, &s, &o->r.ex, &o->d, &err), err);
    s.train.rho = 2;
    MUST(plan_train(&two, &s, &o->r.ex, &o->d, &err), err);
    double each = item(&one, "adapters"), more = item(&two, "adapters");
    EXPECT(each > 0 && fabs(more / each - 2) < 0.01, "adapters: %.0f with rho 2, %.0f without",
           more, each);
}

int main(void) {
    static const enum StartKind kind[] = {START_PISSA, START_OLORA, START_LORA_GA, START_CORDA};
    Opened o;
    world_make();
    open_world(&o);
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) test_start(&o, kind[i]);
    test_plan(&o);
    test_to_come(&o);
    test_shared_ranks(&o);
    close_world(&o);
    world_remove();
    return test_done("plan of starts");
}
