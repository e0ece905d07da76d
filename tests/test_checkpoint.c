/* A training run that is stopped, killed or damaged goes on from its newest whole checkpoint to the
 * bytes of a run in one piece; a checkpoint of another run is refused by what differs. */
#include "host/cli/command.h"

#include <signal.h>
#include <time.h>

#include "tests/same_files.h"

enum { STEPS = 24 };
#define RUN                                                                               \
    "train --model model --dtype f32 --max-length 128 --init lora-ga --batch 2 --rank 4 " \
    "--data pairs.jsonl --steps 24 "
#define SAVING RUN "--checkpoint-every 2 "
#define SAVES "run/checkpoints"

static void wait_seconds(double s) {
    struct timespec t = {(time_t)s, (long)(1e9 * (s - (double)(time_t)s))};
    nanosleep(&t, NULL);
}

/* ---------------------------------------------------------------------------- what is there -- */

static size_t folders(const char *path) { /* with this beginning */
    char command[300], text[32] = "";
    snprintf(command, sizeof command, "ls -d %s* 2>/dev/null | wc -l", path);
    FILE *p = popen(command, "r");
    CHECK(p && fgets(text, sizeof text, p) && pclose(p) == 0, "%s", command);
    return (size_t)atoi(text);
}

/* The losses of all steps, in order, from metrics.jsonl: times differ between runs. */
static void losses(double loss[STEPS], const char *path) {
    char line[1024];
    int n = 0;
    FILE *f = fopen(path, "r");
    CHECK(f, "%s", path);
    for (; n < STEPS && fgets(line, sizeof line, f); n++) {
        json_t *record = json_loads(line, 0, NULL);
        CHECK(record && json_integer_value(json_object_get(record, "step")) == n + 1, "%s: line %d",
              path, n + 1);
        loss[n] = json_number_value(json_object_get(record, "loss"));
        json_decref(record);
    }
    CHECK(n == STEPS && !fgets(line, sizeof line, f), "%s: expected %d lines", path, STEPS);
    fclose(f);
}

static void expect_whole(const char *after) {
    double one[STEPS], other[STEPS];
    expect_same_in(after, "adapter_model.safetensors", "run", "straight");
    losses(one, "run/metrics.jsonl"), losses(other, "straight/metrics.jsonl");
    EXPECT(memcmp(one, other, sizeof one) == 0, "%s: other losses", after);
    EXPECT(folders(SAVES "/*.tmp.") == 0, "%s: an unfinished checkpoint is left", after);
}

static Ended resume(const char *after) {
    Ended e = program_run(SAVING "--resume --out run");
    EXPECT(e.code == 0, "%s: exit %d: %s", after, e.code, e.err);
    return e;
}

/* ----------------------------------------------------------------------------------- stops -- */

/* Starts a run and sends a signal once it has said that `step` is done; how it ended. */
static Ended stopped_after(int step, int signal_number, const char *line) {
    static char out[1 << 16];
    char word[32];
    snprintf(word, sizeof word, "step %d/", step);
    Program p = program_start(line, NULL);
    *out = 0;
    while (!program_ended(&p) && !strstr(out, word)) {
        program_text(out, sizeof out, p.out);
        wait_seconds(0.0005);
    }
    kill(p.pid, signal_number);
    return program_end(&p);
}

static void test_asked(int signal_number) {
    char after[64];
    snprintf(after, sizeof after, "SIG%s", sigabbrev_np(signal_number));
    forget("run");
    Ended e = stopped_after(5, signal_number, RUN "--checkpoint-every 1000 --out run");
    EXPECT(e.code == EXIT_STOPPED && program_one_line(e.err, "the same with --resume goes on") &&
               strstr(e.err, after),
           "%s: exit %d: %s", after, e.code, e.err);
    EXPECT(!files_exists("run/adapter_model.safetensors"), "%s: a result", after);
    EXPECT(folders(SAVES "/step-") == 1, "%s: %zu checkpoints", after, folders(SAVES "/step-"));
    e = resume(after);
    EXPECT(strstr(e.err, "going on after step "), "%s: %s", after, e.err);
    expect_whole(after);
}

/* Does it ignore SIGXFSZ by now, the last thing that interrupt_catch does? */
static bool catches(pid_t pid) {
    char path[64], line[256];
    unsigned long long ignored = 0;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) sscanf(line, "SigIgn: %llx", &ignored);
    if (f) fclose(f);
    return ignored >> (SIGXFSZ - 1) & 1;
}

/* Does it read the model, or has it done so? */
static bool reads(pid_t pid) {
    char path[64], line[512];
    bool is = files_exists(SAVES);
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *f = fopen(path, "r");
    while (f && !is && fgets(line, sizeof line, f)) is = strstr(line, "/model.safetensors");
    if (f) fclose(f);
    return is;
}

/* While the model is still to be read, or being read: it stops after the first step. */
static void test_early(int signal_number, bool come(pid_t pid)) {
    char words[64];
    snprintf(words, sizeof words, "stopped by SIG%s after step ", sigabbrev_np(signal_number));
    forget("run");
    Program p = program_start(SAVING "--out run", NULL);
    while (!program_ended(&p) && !come(p.pid)) wait_seconds(0.0001);
    kill(p.pid, signal_number);
    Ended e = program_end(&p);
    EXPECT(e.code == EXIT_STOPPED && program_one_line(e.err, words), "early: exit %d: %s", e.code,
           e.err);
    resume(words);
    expect_whole(words);
}

/* At any moment, also while a checkpoint is being written. */
static void test_killed(void) {
    int times = test_brief() ? 3 : 6;
    for (int i = 0; i < times; i++) {
        char after[64];
        snprintf(after, sizeof after, "kill -9 after step %d", 2 + 3 * i);
        forget("run");
        Ended e = stopped_after(2 + 3 * i, SIGKILL, SAVING "--out run");
        EXPECT(e.code == 128 + SIGKILL, "%s: exit %d: %s", after, e.code, e.err);
        resume(after);
        expect_whole(after);
    }
}

/* By steps two stay; the newest may be younger than the run's last multiple only by what is asked.
 */
static void test_kept(void) {
    forget("run");
    Ended e = program_run(SAVING "--keep 3 --out run");
    EXPECT(e.code == 0, "exit %d: %s", e.code, e.err);
    EXPECT(folders(SAVES "/step-") == 3 && files_exists(SAVES "/step-00000022") &&
               files_exists(SAVES "/step-00000018"),
           "%zu checkpoints stay", folders(SAVES "/step-"));
    expect_whole("checkpoints beside training");
    CHECK(mkdir(SAVES "/step-00000030.tmp.1", 0777) == 0, "a torn one");
    e = resume("the end"); /* from step 22 */
    EXPECT(!strstr(e.err, "passed over"), "%s", e.err);
    expect_whole("the end");
}

/* pissa's start is taken off again, at every step: a checkpoint holds it beside what is trained. */
#define PISSA                                                                               \
    "train --model model --dtype f32 --max-length 64 --init pissa --batch 2 --rank 2 --lr " \
    "1e-2 --warmup 0 --data pairs.jsonl --steps 4 "

static void test_pissa(void) {
    forget("run");
    program_must(PISSA "--out whole");
    program_must(PISSA "--checkpoint-every 2 --out run");
    CHECK(remove("run/adapter_model.safetensors") == 0, "run");
    Ended e = program_run(PISSA "--checkpoint-every 2 --resume --out run");
    EXPECT(e.code == 0 && strstr(e.err, "going on after step 2"), "pissa: exit %d: %s", e.code,
           e.err);
    expect_same_in("pissa", "adapter_model.safetensors", "run", "whole");
}

/* Directions that training leaves alone, and what is taken off, are there again. */
static void test_salora(void) {
#define SALORA                                                                                  \
    "train --model model --dtype f32 --max-length 128 --init salora --subspace outputs --rank " \
    "4 --data pairs.jsonl --batch 4 --steps 4 --checkpoint-every 2 "
    program_must(
        "inputs --model model --dtype f32 --max-length 128 --data pairs.jsonl "
        "--preserve pairs.jsonl --preserve-rank 4 --samples 20 --out outputs");
    program_must(SALORA "--out keeps");
    CHECK(rename("keeps/adapter_model.safetensors", "kept_adapter.safetensors") == 0, "no adapter");
    Ended e = program_run(SALORA "--resume --out keeps");
    EXPECT(e.code == 0 && strstr(e.err, "going on after step 2"), "exit %d: %s", e.code, e.err);
    expect_same("salora", "keeps/adapter_model.safetensors", "kept_adapter.safetensors");
}

/* -------------------------------------------------------------------------------- refusals -- */

static void flip(const char *path) {
    Buf bytes;
    Err err;
    CHECK(read_bytes(&bytes, path), "%s", path);
    bytes.p[bytes.n / 2] ^= 4;
    MUST(files_write(path, bytes.p, bytes.n, &err), err);
    buf_free(&bytes);
}

/* A flipped bit anywhere: the next older one is taken, and a line says which was not. */
static void test_damaged(void) {
    static const char *const file[] = {"state.safetensors", "metrics.jsonl", "manifest.json"};
    for (int i = 0; i < 3; i++) {
        char path[128];
        forget("run");
        program_must(SAVING "--out run");
        snprintf(path, sizeof path, SAVES "/step-00000022/%s", file[i]);
        flip(path);
        Ended e = resume(path);
        EXPECT(strstr(e.err, "step-00000022: passed over: ") && strstr(e.err, "after step 20"),
               "%s: %s", path, e.err);
        expect_whole(path);
    }
    forget("run/checkpoints/*/manifest.json");
    Ended e = program_run(SAVING "--resume --out run");
    EXPECT(
        e.code == EXIT_USAGE && strstr(e.err, "run/adapter_model.safetensors: a finished result"),
        "no manifest: exit %d: %s", e.code, e.err);
    expect_whole("no manifest, refused");
    forget("run/adapter_model.safetensors");
    e = resume("no manifest");
    EXPECT(strstr(e.err, "nothing to resume; beginning at step 1"), "%s", e.err);
    expect_whole("no manifest");
}

static void refused(const char *line, const char *words) {
    Ended e = program_run(line);
    EXPECT(e.code == EXIT_USAGE && program_one_line(e.err, words), "sails %s: exit %d: %s", line,
           e.code, e.err);
}

static void test_other_run(void) {
    forget("run");
    program_must(SAVING "--out run");
    Tree before = tree_read("run");
    refused(SAVING "--out run", "has checkpoints of an earlier run; --resume goes on");
    refused(SAVING "--resume --lr 1e-3 --out run", "train.lr was 0.0002, is 0.001");
    refused(SAVING "--resume --seed 7 --out run", "seed was 0, is 7");
    CHECK(system("cp pairs.jsonl pairs.old && sed -i '1s/soup/stew/;1s/door/gate/' pairs.jsonl && "
                 "echo >>pairs.jsonl") == 0,
          "pairs.jsonl");
    refused(SAVING "--resume --out run", "the content of data has changed");
    CHECK(rename("pairs.old", "pairs.jsonl") == 0, "pairs.jsonl");
    Tree after = tree_read("run");
    const char *change = tree_difference(&before, &after);
    EXPECT(!change, "a refusal changed %s", change);
    tree_free(&before), tree_free(&after);
    resume("refusals");
    expect_whole("refusals");
}

int main(void) {
    bad_world();
    program_must(RUN "--out straight");
    test_asked(SIGTERM);
    test_asked(SIGUSR1);
    test_early(SIGUSR1, catches);
    test_early(SIGTERM, reads);
    test_killed();
    test_kept();
    test_pissa();
    test_salora();
    test_damaged();
    test_other_run();
    world_remove();
    return test_done("checkpoint");
}
