/* Training on pairs by the program: on 1, 2 and 3 ranks, and from any of its checkpoints on, the
 * same bytes, from no adapter, from one, and of all weights; with numbers that say so. */
#include "host/cli/command.h"

#include <math.h>
#include <signal.h>

#include "tests/ranks.h"
#include "tests/same_files.h"

#define STEPS 6
#define TRAIN                                                                                   \
    "train --model model --dtype f32 --max-length 64 --pack-tokens 128 --method dpo --batch 5 " \
    "--data pairs.jsonl --eval-data few.jsonl --eval-every 3 --steps 6 --seed 3 "
#define SAVING "--checkpoint-every 1 --keep 9 "

static const struct Kind {
    const char *from, *result;
} kind[] = {{"--init lora --rank 4 --lr 1e-2 ", "adapter_model.safetensors"},
            {"--init-adapter adapter --lr 1e-2 ", "adapter_model.safetensors"},
            {"--weights all --lr 1e-3 ", "model.safetensors"}};
static const struct Kind *now; /* of those behind the first the cases that differ most, alone */

/* Without what tells of time and ranks. */
static json_t *lasting(const char *line) {
    static const char *const passing[] = {
        "ms",      "tokens_per_second", "tokens_per_second_per_rank",
        "wait_ms", "exchange_ms",       "eval_ms",
        "ranks"};
    json_t *j = json_loads(line, 0, NULL);
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++) json_object_del(j, passing[i]);
    return j;
}

/* metrics.jsonl; *facts: numbers of pairs in it. */
static bool same_metrics(const char *folder, const char *other, int *facts) {
    char path[300], line[2][4096];
    FILE *f[2];
    bool same = true;
    *facts = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/metrics.jsonl", i ? other : folder);
        CHECK((f[i] = fopen(path, "r")), "%s", path);
    }
    for (bool more = true; more && same;) {
        bool there[2] = {fgets(line[0], sizeof line[0], f[0]),
                         fgets(line[1], sizeof line[1], f[1])};
        more = there[0] && there[1];
        same = there[0] == there[1];
        json_t *a = more ? lasting(line[0]) : NULL, *b = more ? lasting(line[1]) : NULL, *value;
        const char *key;
        same = same && (!more || (a && json_equal(a, b)));
        json_object_foreach (a, key, value)
            *facts += json_is_real(value) && strstr(key, "rewards/") != NULL;
        json_decref(a), json_decref(b);
    }
    fclose(f[0]), fclose(f[1]);
    return same;
}

static void expect_same_run(const char *what, const char *folder, const char *other) {
    int facts;
    expect_same_in(what, now->result, folder, other);
    EXPECT(same_metrics(folder, other, &facts), "%s: other metrics", what);
    EXPECT(facts == 4 * (STEPS + 2), "%s: %d numbers of rewards", what, facts);
}

static void train_on(int ranks, const char *flags, const char *out) {
    char line[1024];
    snprintf(line, sizeof line, "SAILS " TRAIN "%s--out %s", flags, out);
    Ended e = ranks > 1 ? ranks_run(ranks, line) : program_run(line + 6);
    EXPECT(e.code == 0, "%d ranks, %s: exit %d: %s", ranks, flags, e.code, e.err);
}

/* The first step is at the reference. */
static void test_start(void) {
    char line[4096];
    FILE *f = fopen("straight/metrics.jsonl", "r");
    CHECK(f && fgets(line, sizeof line, f), "no metrics");
    fclose(f);
    json_t *first = json_loads(line, 0, NULL);
    double loss = json_number_value(json_object_get(first, "loss"));
    EXPECT(fabs(loss - log(2)) <= 0x1p-50, "%s: the first loss is %.17g", now->from, loss);
    json_decref(first);
}

static void test_ranks(void) {
    const char *from = now->from;
    char what[64];
    for (int ranks = 2; ranks <= (test_brief() || now > kind ? 2 : 3); ranks++) {
        snprintf(what, sizeof what, "%s, %d ranks", from, ranks);
        forget("run");
        train_on(ranks, from, "run");
        expect_same_run(what, "run", "straight");
    }
}

/* As a run leaves it that was killed behind this step. */
static void leave_at(int step) {
    char command[300];
    forget("run");
    snprintf(command, sizeof command,
             "mkdir -p run/checkpoints && cp -r saved/checkpoints/step-%08d run/checkpoints/",
             step);
    CHECK(system(command) == 0, "%s", command);
}

static void test_resume(void) {
    const char *from = now->from;
    char flags[128], what[96];
    forget("saved");
    snprintf(flags, sizeof flags, "%s" SAVING, from);
    train_on(1, flags, "saved");
    expect_same_run("with checkpoints", "saved", "straight");
    snprintf(flags, sizeof flags, "%s" SAVING "--resume ", from);
    for (int step = now > kind ? 5 : 2; step < STEPS; step += 3) {
        snprintf(what, sizeof what, "%s, from step %d", from, step);
        leave_at(step);
        train_on(step == 2 ? 1 : 2, flags, "run");
        expect_same_run(what, "run", "straight");
    }
}

/* Before there is a step there is nothing to save, and many pairs to measure. */
static void test_stopped(void) {
    char out[4096] = "";
    forget("run");
    CHECK(system("for i in $(seq 99); do cat pairs.jsonl; done >many.jsonl") == 0, "many.jsonl");
    Program p = program_start(
        "train --model model --dtype f32 --max-length 64 --method dpo --init lora --rank 4 "
        "--data pairs.jsonl --eval-data many.jsonl --checkpoint-every 1 --threads 1 --out run",
        NULL);
    while (!program_ended(&p) && !strstr(out, "trainable params")) {
        program_text(out, sizeof out, p.out);
        usleep(500);
    }
    kill(p.pid, SIGUSR1);
    Ended e = program_end(&p);
    EXPECT(e.code == EXIT_STOPPED &&
               program_one_line(e.err, "stopped by SIGUSR1 while the reference was measured; the"),
           "SIGUSR1: exit %d: %s", e.code, e.err);
}

int main(void) {
    bad_world();
    test_stopped();
    CHECK(system("head -9 pairs.jsonl >few.jsonl") == 0, "few.jsonl");
    for (now = kind; now < kind + sizeof kind / sizeof *kind; now++) {
        forget("straight");
        train_on(1, now->from, "straight");
        test_start();
        test_ranks();
        test_resume();
    }
    world_remove();
    return test_done("dpo_ranks");
}
