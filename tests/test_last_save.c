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

/* After the first step, which is about to be saved: the second has a loss, and its gradient
 * overflows, as all ranks see. */
static void spoil(void *runtime, const StepMetrics *s) {
    Runtime *r = runtime;
    Adapter *a = lora_at(&r->lora, 1, PROJ_V);
    CHECK(s->step == 1, "step %d", s->step);
    fill(r, a->A, 0), fill(r, a->B, FLT_MAX / 4);
    a->scale = 1e9f;
    atomic_store(&slow, comm_root(r->ex.comm));
}

static bool run(const Args *a, Comm *comm, Err *err) {
    const Settings *s = &a->s;
    char folder[512];
    Runtime r = {0};
    Dataset d = {0};
    TrainSetup t;
    TrainResult result;
    json_t *key = result_key_new(), *maker = json_object();
    snprintf(folder, sizeof folder, "%s", in_world("saves"));
    const CheckpointPlan plan = {
        .kept = {.folder = folder, .run = key, .maker = maker}, .steps = 1, .keep = 1};
    bool ok = runtime_device(&r, s, comm, err) && runtime_tokenizer(&r, s, err) &&
              runtime_model(&r, s, 0, err) && adapting_fresh(&r, s, START_LORA, NULL, err) &&
              dataset_load(&d, r.tokenizer, s->data.path, SIDE_CHOSEN, s->data.max_length, 0, err);
    if (ok) {
        train_setup(&t, s, d.n);
        t.doc = d.doc;
        t.checkpoints = &plan;
        t.sink = spoil, t.sink_context = &r;
        ok = train(&result, &r.model, &t, err);
    }
    dataset_free(&d);
    runtime_close(&r, ok);
    json_decref(key), json_decref(maker);
    return ok;
}

static int rank_body(void) {
    extern const Command cmd_train;
    char text[1024], *argv[64];
    int n = 0;
    Args a;
    Job job;
    Err err = {0};
    alarm(60); /* a job that does not end fails, too */
    snprintf(world, sizeof world, "%s", getenv("SAILS_TEST_WORLD"));
    snprintf(text, sizeof text,
             "--model %s --data %s --out none --init lora --rank 4 --batch 7 --lr 5e-3 --steps 3 "
             "--dtype f32 --max-length 128 --pack-tokens 128",
             in_world("model"), in_world("pairs.jsonl"));
    for (char *w = strtok(text, " "); w && n < 64; w = strtok(NULL, " ")) argv[n++] = w;
    MUST(args_parse(&a, &cmd_train, n, argv, &err), err);
    job_begin(&job);
    bool ok = job_join(&job, &a, &err) && run(&a, job.comm, &err);
    args_free(&a);
    return job_end(&job, ok, &err);
}

int main(int argc, char **argv) {
    static const char words[] = "sails: step 2: loss ";
    char line[1024];
    if (argc > 1 && strcmp(argv[1], "rank") == 0) return rank_body();
    world_make();
    setenv("SAILS_TEST_WORLD", world, 1);
    Ended e = ranks_self(2, "rank");
    int n = ranks_lines(e.err, line, sizeof line);
    EXPECT(e.code == EXIT_NUMBERS && n == 1 && strncmp(line, words, strlen(words)) == 0,
           "exit %d, %d lines: %s", e.code, n, e.err);
    EXPECT(files_exists(in_world("saves/step-00000001/manifest.json")), "the save is lost: %s",
           e.err);
    world_remove();
    return test_done("last save");
}
