/* checkpoint_run.h - a small run that saves, what it leaves in one piece, and the demand on every
 * run that goes on: exactly the old or the new state, said in a line; the same result in the end;
 * nothing unfinished left behind. */
#ifndef SAILS_TEST_CHECKPOINT_RUN_H
#define SAILS_TEST_CHECKPOINT_RUN_H

#include "tests/same_files.h"

/* A save after each step but the last. A test may ask for more than the usual three. */
#ifndef STEPS
#define STEPS 4
#endif
enum { SAVES = STEPS - 1 };
#define DIGITS_OF(n) #n
#define DIGITS(n) DIGITS_OF(n)
#define RUN                                                                                       \
    "train --model model --dtype f32 --threads 1 --max-length 64 --init lora --batch 1 --rank 1 " \
    "--targets o --lr 1e-2 --warmup 0 --data pairs.jsonl --steps " DIGITS(STEPS) " "
#define SAVING RUN "--checkpoint-every 1 --keep 1 "
#define PLACE "run/checkpoints"

/* The longest path of a state, "/tmp/../step-00000001/state.safetensors", fits. */
typedef char RunPath[256];

/* Are there more cases to try than usual? */
static inline bool run_long(void) {
    const char *s = getenv("SAILS_TEST_LONG");
    return s && strcmp(s, "1") == 0;
}

/* straight/: the result of a run in one piece, and saved/: the states on its way. */
static inline void run_world(void) {
    world_make();
    CHECK(chdir(world) == 0, "%s", world);
    program_must(RUN "--out straight");
    program_must(RUN "--checkpoint-every 1 --keep 99 --out saved");
    CHECK(same_bytes("straight/adapter_model.safetensors", "saved/adapter_model.safetensors"),
          "saves change the result");
}

/* ----------------------------------------------------------------------------- what is there -- */

/* The steps that have a checkpoint's folder, as bits. */
static inline unsigned run_saved(void) {
    unsigned steps = 0;
    for (int step = 1; step < 32; step++) {
        RunPath path;
        snprintf(path, sizeof path, PLACE "/step-%08d", step);
        if (files_exists(path)) steps |= 1u << step;
    }
    return steps;
}

static inline int newest_of(unsigned steps) {
    return steps ? 31 - __builtin_clz(steps) : 0;
}

/* The steps and losses of metrics.jsonl: its times differ between runs. */
static inline bool same_losses(const char *one, const char *other) {
    FILE *f[2] = {fopen(one, "r"), fopen(other, "r")};
    char line[2][1024];
    bool same = f[0] && f[1];
    for (bool more = same; same && more;) {
        bool there[2] = {fgets(line[0], sizeof line[0], f[0]),
                         fgets(line[1], sizeof line[1], f[1])};
        more = there[0];
        same = there[0] == there[1];
        for (int i = 0; more && same && i < 2; i++) {
            char *end = strstr(line[i], "\"grad_norm\"");
            same = end != NULL;
            if (end) *end = 0;
        }
        same = same && (!more || strcmp(line[0], line[1]) == 0);
    }
    for (int i = 0; i < 2; i++)
        if (f[i]) fclose(f[i]);
    return same;
}

static inline void expect_nothing_left(const char *after) {
    if (!files_exists("run")) return;
    Tree t = tree_read("run");
    const char *left = tree_temporary(&t);
    EXPECT(!left, "%s: left %s", after, left ? left : "");
    tree_free(&t);
}

/* The result of a run that has come to its end. */
static inline void expect_result(const char *after) {
    EXPECT(same_bytes("run/adapter_model.safetensors", "straight/adapter_model.safetensors"),
           "%s: the adapter differs from that of a run in one piece", after);
    EXPECT(same_losses("run/metrics.jsonl", "straight/metrics.jsonl"), "%s: other losses", after);
    expect_nothing_left(after);
}

/* The newest checkpoint is of this step, and its state the one that it should be. */
static inline void expect_newest(const char *after, int step) {
    RunPath is, should;
    snprintf(is, sizeof is, PLACE "/step-%08d/state.safetensors", step);
    snprintf(should, sizeof should, "saved/checkpoints/step-%08d/state.safetensors", step);
    EXPECT(newest_of(run_saved()) == step, "%s: expected step %d as the newest, found %d", after,
           step, newest_of(run_saved()));
    EXPECT(same_bytes(is, should), "%s: another state in %s", after, is);
}

/* ------------------------------------------------------------------------------- going on -- */

static inline int count_of(const char *text, const char *word) {
    int n = 0;
    for (; (text = strstr(text, word)); text++) n++;
    return n;
}

/* Which step a run that goes on has said that it begins behind; -1: it has not said so once. */
static inline int step_taken(const char *err) {
    static const char going_on[] = "going on after step ";
    const char *at = strstr(err, going_on);
    if (count_of(err, going_on) + count_of(err, "nothing to resume; beginning at step 1") != 1)
        return -1;
    return at ? atoi(at + strlen(going_on)) : 0;
}

/* Goes on from what is in run/; which step it began behind. */
static inline int run_resume(const char *after) {
    unsigned saved = run_saved();
    Ended e = program_run(SAVING "--resume --out run");
    int taken = step_taken(e.err), newer = 0;
    EXPECT(e.code == 0 && taken >= 0, "%s: exit %d: %s", after, e.code, e.err);
    for (int step = taken + 1; step >= 1 && step < 32; step++) {
        char words[64];
        if (!(saved >> step & 1)) continue;
        snprintf(words, sizeof words, "step-%08d: passed over: ", step);
        EXPECT(count_of(e.err, words) == 1, "%s: expected \"%s\" in: %s", after, words, e.err);
        newer++;
    }
    EXPECT(taken <= 0 || saved >> taken & 1, "%s: step %d is not there", after, taken);
    EXPECT(count_of(e.err, "\n") == newer + 1, "%s: expected %d lines: %s", after, newer + 1,
           e.err);
    expect_result(after);
    return taken;
}

#endif
