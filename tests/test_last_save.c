/* Where all ranks fail alike while a checkpoint is on its way to the disk, nobody ends before it is
 * there. */
#include <float.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "host/stage/adapting.h"
#include "host/stage/dataset.h"
#include "host/stage/job.h"
#include "host/stage/result_key.h"
#include "host/stage/train.h"
#include "tests/ranks.h"

/* The next file that is asked for takes three seconds to reach the disk: longer than ranks that
 * have failed wait for others. */
static atomic_bool slow;
int fsync(int fd) {
    if (atomic_exchange(&slow, false)) sleep(3);
    return (int)syscall(SYS_fsync, fd);
}

static void fill(Runtime *r, const Param *t, float value) {
    float *x = mem_array(t->n, sizeof *x);
    for (size_t i = 0; i < t->n; i++) x[i] = value;
    exec_copy_in(&r->ex, t->master, x, t->n * sizeof *x);
    params_sync(&r->lora.params);
    free(x);
}

/* How it goes wrong while the state after the second step is on its way: what is saved is the same
 * on all ranks, or it would not be. */
enum Fault { GRADIENT, LOSS, LOSS_OF_ONE, EVALUATION, FAULTS };
static const struct {
    const char *name, *words;
    int step; /* after which the adapter is spoilt */
} fault[] = {[GRADIENT] = {"gradient", "sails: step 3: loss ", 2},
             [LOSS] = {"loss", "sails: step 3: loss ", 2},
             [LOSS_OF_ONE] = {"one", "sails: rank 1: step 4: loss ", 3},
             [EVALUATION] = {"evaluation", "sails: document ", 3}};

typedef struct Spoiler {
    Runtime *r;
    enum Fault fault;
} Spoiler;

/* step_sink: after the second step, which is about to be saved, the disk is slow. Zeros behind
 * numbers of whatever size leave a loss, and a gradient that overflows, as all ranks see; others
 * leave no loss. */
static void spoil(void *context, const StepMetrics *s) {
    const Spoiler *w = context;
    Runtime *r = w->r;
    Adapter *a = lora_at(&r->lora, 1, PROJ_V);
    if (s->step == 2) atomic_store(&slow, comm_root(r->ex.comm));
    if (s->step != fault[w->fault].step) return;
    if (w->fault == LOSS_OF_ONE && comm_rank(r->ex.comm) != 1) return;
    fill(r, a->A, w->fault == GRADIENT ? 0 : 1e4f), fill(r, a->B, FLT_MAX / 4);
    a->scale = 1e9f;
}

static bool run(const Args *a, enum Fault which, Comm *comm, Err *err) {
    const Settings *s = &a->s;
    char folder[512];
    Runtime r = {0};
    Dataset d = {0};
    TrainSetup t;
    TrainResult result;
    json_t *key = result_key_new(), *maker = json_object();
    Spoiler spoiler = {&r, which};
    snprintf(folder, sizeof folder, "%s", in_world("%s", fault[which].name));
    const CheckpointPlan plan = {
        .kept = {.folder = folder, .run = key, .maker = maker}, .steps = 2, .keep = 1};
    bool ok = runtime_device(&r, s, comm, err) && runtime_tokenizer(&r, s, err) &&
              runtime_model(&r, s, 0, err) && adapting_fresh(&r, s, START_LORA, NULL, err) &&
              dataset_load(&d, r.tokenizer, s->data.path, SIDE_CHOSEN, s->data.max_length, 0, err);
    if (ok) {
        train_setup(&t, s, d.n);
        t.doc = d.doc;
        t.checkpoints = &plan;
        t.sink = spoil, t.sink_context = &spoiler;
        if (which == EVALUATION) t.eval = d.doc, t.neval = d.n, t.eval_every = 1;
        ok = train(&result, &r.model, &t, err);
    }
    dataset_free(&d);
    runtime_close(&r, ok);
    json_decref(key), json_decref(maker);
    return ok;
}

static int rank_body(enum Fault which) {
    extern const Command cmd_train;
    char text[1024];
    Args a;
    Job job;
    Err err = {0};
    alarm(60); /* a job that does not end fails, too */
    snprintf(world, sizeof world, "%s", getenv("SAILS_TEST_WORLD"));
    snprintf(text, sizeof text,
             "--model %s --data %s --out none --init lora --rank 4 --batch 5 --lr 5e-3 --steps 6 "
             "--dtype f32 --max-length 128 --pack-tokens 128",
             in_world("model"), in_world("pairs.jsonl"));
    MUST(world_args(&a, &cmd_train, text, &err), err);
    job_begin(&job);
    bool ok = job_join(&job, &a, &err) && run(&a, which, job.comm, &err);
    args_free(&a);
    return job_end(&job, ok, &err);
}

static Program start(const char *name) {
    char line[512], self[256];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(len > 0, "/proc/self/exe");
    snprintf(line, sizeof line, "%.*s %s", (int)len, self, name);
    return ranks_start(2, line);
}

static void test_fault(enum Fault which, const Program *p) {
    char line[1024];
    const char *words = fault[which].words;
    Ended e = program_end(p);
    int n = ranks_lines(e.err, line, sizeof line);
    EXPECT(e.code == EXIT_NUMBERS && n == 1 && strncmp(line, words, strlen(words)) == 0,
           "%s: exit %d, %d lines: %s", fault[which].name, e.code, n, e.err);
    EXPECT(files_exists(in_world("%s/step-00000002/manifest.json", fault[which].name)),
           "%s: the save is lost: %s", fault[which].name, e.err);
}

int main(int argc, char **argv) {
    Program p[FAULTS];
    for (int i = 0; argc > 1 && i < FAULTS; i++)
        if (strcmp(argv[1], fault[i].name) == 0) return rank_body((enum Fault)i);
    world_make();
    setenv("SAILS_TEST_WORLD", world, 1);
    for (int i = 0; i < FAULTS; i++) p[i] = start(fault[i].name); /* they sleep most of the time */
    for (int i = 0; i < FAULTS; i++) test_fault((enum Fault)i, &p[i]);
    world_remove();
    return test_done("last save");
}
