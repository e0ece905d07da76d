/* Scoring, generating and the stages of align go on where a stop or kill -9 left them, on another
 * number of ranks too, to the bytes of a run in one piece; what is kept of another run is refused,
 * what has changed since it was kept is seen, and so is another program. */
#include "host/cli/command.h"

#include <glob.h>
#include <signal.h>

#include "host/cli/print.h"
#include "tests/ranks.h"
#include "tests/same_files.h"

#define SCORE                                                                               \
    "score --model model --dtype f32 --max-length 128 --data many.jsonl --sae sae/{layer} " \
    "--layers 1,2 "
#define GENERATE \
    "generate --model model --dtype f32 --prompts many.jsonl --max-new-tokens 9 --batch 2 "
#define TRAIN                                                                                  \
    "train --model model --dtype f32 --max-length 64 --data pairs.jsonl --init lora --rank 2 " \
    "--batch 2 --steps 3 --checkpoint-every 1 "

static Program start_on(int ranks, const char *line) {
    char ours[2048];
    snprintf(ours, sizeof ours, "SAILS %s", line);
    return ranks > 1 ? ranks_start(ranks, ours) : program_start(line, NULL);
}

/* mpirun passes no signal on to ranks that it has yet to start. */
static bool has_ranks(const Program *p) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)p->pid, (int)p->pid);
    FILE *f = fopen(path, "r");
    bool has = !f || fgetc(f) != EOF;
    if (f) fclose(f);
    return has;
}

/* Starts a command and sends a signal so many milliseconds after its ranks are there; how it ended.
 * Ranks whose mpirun was killed live on for a moment: what comes next waits for their folder, if
 * they have it by then. So that one comes at any time. */
static Ended signalled(int ranks, const char *line, int ms, int number) {
    Program p = start_on(ranks, line);
    while (ranks > 1 && number != SIGKILL && !has_ranks(&p) && !program_ended(&p)) usleep(1000);
    for (int i = 0; i < ms && !program_ended(&p); i++) usleep(1000);
    kill(p.pid, number);
    return program_end(&p);
}

/* Was it stopped, or killed, or hit before it had a handler? */
static bool fine(const Ended *e, const char *words) {
    return e->code == EXIT_DONE || e->code == 128 + SIGKILL || e->code == 128 + SIGUSR1 ||
           e->code == 128 + SIGTERM || (e->code == EXIT_STOPPED && strstr(e->err, words));
}

/* mpirun leaves its ranks a second at SIGTERM: that one is for one rank. Signals come ever later,
 * each to a process that goes on from the one before, until one ends by itself; then what it has
 * made is what a run in one piece has made. Returns how many were stopped with something done. */
static int stop_and_go(const char *line, const char *out, const char *whole, int number) {
    int stopped = 0;
    Ended e = {.code = -1};
    forget(out);
    for (int ms = 10; e.code != EXIT_DONE; ms += (test_brief() ? ms : ms / 2) + 5) {
        e = signalled(number == SIGTERM ? 1 : 1 + stopped % 2, line, ms, number);
        stopped += number == SIGKILL ? e.code != 0 : e.code == EXIT_STOPPED;
        EXPECT(fine(&e, "goes on"), "%.20s: exit %d: %s", line, e.code, e.err);
        if (!fine(&e, "goes on")) break;
    }
    expect_same(line, out, whole);
    char partial[64];
    snprintf(partial, sizeof partial, "%s.partial", out);
    EXPECT(!files_exists(partial), "%s is left", partial);
    return stopped;
}

static void test_score(void) {
    program_must(SCORE "--out whole");
    int stopped = stop_and_go(SCORE "--resume --out out", "out", "whole", SIGUSR1);
    EXPECT(stopped > 0, "no score was stopped");
    if (!test_brief()) stop_and_go(SCORE "--resume --out out", "out", "whole", SIGKILL);
}

static void test_generate(void) {
    program_must(GENERATE "--out replies");
    int stopped = stop_and_go(GENERATE "--resume --out out", "out", "replies", SIGTERM);
    EXPECT(stopped > 0, "no generate was stopped");
    if (test_brief()) return;
    stopped = stop_and_go(GENERATE "--resume --out out", "out", "replies", SIGKILL);
    EXPECT(stopped > 1, "no generate was killed");
}

/* What is kept belongs to its run. */
static void test_other_run(void) {
    forget("out");
    for (int ms = 20; !files_exists("out.partial/run.json") && ms < 5000; ms += 20)
        signalled(1, GENERATE "--resume --out out", ms, SIGKILL);
    Ended e = program_run(GENERATE "--seed 8 --resume --out out");
    EXPECT(e.code == EXIT_USAGE && strstr(e.err, "out.partial: of another run: seed was 0, is 8"),
           "another seed: exit %d: %s", e.code, e.err);
    forget("out");
}

/* ------------------------------------------------------------------- kept, and then harmed -- */

#define REPLIES "out.partial/replies.*.jsonl"

/* The file of a process that has kept a reply. */
static bool kept_file(char *path, size_t room, const char *pattern) {
    glob_t found;
    struct stat st;
    if (glob(pattern, 0, NULL, &found) != 0) return false;
    snprintf(path, room, "%s", found.gl_pathv[0]);
    globfree(&found);
    return stat(path, &st) == 0 && st.st_size > 0;
}

/* kept/: what a process has left that was killed. path: its replies, where put_back puts them. */
static void leave_some(char *path, size_t room) {
    Ended e = {.code = EXIT_DONE};
    for (int i = 0; i < 20 && e.code == EXIT_DONE; i++) {
        forget("out");
        Program p = program_start(GENERATE "--resume --out out", NULL);
        while (!kept_file(path, room, REPLIES) && !program_ended(&p)) usleep(500);
        kill(p.pid, SIGKILL);
        e = program_end(&p);
    }
    CHECK(e.code == 128 + SIGKILL && system("rm -rf kept && cp -r out.partial kept") == 0,
          "exit %d: %s", e.code, e.err);
}

static void put_back(void) {
    forget("out");
    CHECK(system("cp -r kept out.partial") == 0, "kept");
}

/* Flips a bit of the byte behind the first such words of a file. */
static void flip_behind(const char *path, const char *words) {
    Buf b;
    CHECK(read_bytes(&b, path), "%s", path);
    char *at = memmem(b.p, b.n, words, strlen(words));
    CHECK(at && at + strlen(words) < b.p + b.n, "%s: no %s", path, words);
    at[strlen(words)] ^= 1;
    write_bytes(path, &b);
    buf_free(&b);
}

/* A reply that is not as it was written is made again. */
static void test_flipped_reply(const char *path) {
    static const char *const words[] = {"\"tokens\":", "\"text\":\"", "\"prompt\":"};
    for (int i = 0; i < (test_brief() ? 1 : 3); i++) {
        put_back();
        flip_behind(path, words[i]);
        program_must(GENERATE "--resume --out out");
        expect_same(words[i], "out", "replies");
    }
}

static void expect_refused(const char *words) {
    Ended e = program_run(GENERATE "--resume --out out");
    EXPECT(e.code == EXIT_INPUT && program_one_line(e.err, words), "%s: exit %d: %s", words, e.code,
           e.err);
}

/* Of which work the replies are: not as it was written, as earlier versions wrote it, and gone. */
static void test_run_json(void) {
    put_back();
    flip_behind("out.partial/run.json", "\"setting");
    expect_refused("out.partial/run.json: expected SHA-256 ");
    write_text("out.partial/run.json", "{\"settings\": {}, \"inputs\": {}}\n");
    expect_refused("out.partial/run.json: expected format \"sails replies 1\", found none; remove");
    for (int seed = 0; seed < 9; seed += 8) {
        char line[512];
        put_back();
        CHECK(unlink("out.partial/run.json") == 0, "run.json");
        snprintf(line, sizeof line, GENERATE "--resume --out out --seed %d", seed);
        Ended e = program_run(line);
        bool none = strstr(e.err, "out.partial: 0 of ");
        EXPECT(e.code == EXIT_DONE && none == (seed != 0), "no run.json, seed %d: exit %d: %s",
               seed, e.code, e.err);
    }
}

/* Ours with a byte more. */
static Ended run_other(const char *line) {
    char text[1024];
    CHECK(files_exists("other") || system("cp \"$SAILS\" other && printf x >>other") == 0, "other");
    snprintf(text, sizeof text, "./other %s", line);
    Program p = program_start_line(text, NULL);
    return program_end(&p);
}

static void expect_warned(const char *line, const char *folder) {
    Ended e = run_other(line);
    EXPECT(e.code == EXIT_DONE && strstr(e.err, folder) && strstr(e.err, ": program was ") &&
               strstr(e.err, "bits may differ"),
           "%.20s: exit %d: %s", line, e.code, e.err);
}

/* What another program has kept is gone on with, and that is said. */
static void test_other_program(void) {
    char path[256];
    leave_some(path, sizeof path);
    expect_warned(GENERATE "--resume --out out", "sails: out.partial: ");
    expect_same("another program", "out", "replies");
    program_must(TRAIN "--out adapted");
    expect_warned(TRAIN "--resume --out adapted", "sails: adapted/checkpoints/step-00000002: ");
    forget("out");
    Program p = program_start(SCORE "--resume --out out", NULL);
    while (!files_exists("out.partial") && !program_ended(&p)) usleep(500);
    kill(p.pid, SIGUSR1);
    Ended e = program_end(&p);
    CHECK(e.code == EXIT_STOPPED, "exit %d: %s", e.code, e.err);
    expect_warned(SCORE "--resume --out out", "sails: out.partial/step-");
    expect_same("another program", "out", "whole");
    forget("out");
}

/* The process of rank 1, once it has kept a reply; 0: it has not. */
static int rank_1_at_work(void) {
    char pattern[64], path[256];
    int pid = 0;
    FILE *f = fopen("asked", "r");
    if (!f) return 0;
    if (fscanf(f, "%d", &pid) != 1) pid = 0;
    fclose(f);
    snprintf(pattern, sizeof pattern, "out.partial/replies.*.%d.jsonl", pid);
    return kept_file(path, sizeof path, pattern) ? pid : 0;
}

/* Where one rank is asked to stop, all do, at once. */
static void test_one_asked(void) {
    static const char words[] = "sails: stopped by SIGUSR1 after ";
    int pid = 0;
    forget("out");
    write_text("asked.sh", "[ $OMPI_COMM_WORLD_RANK = 0 ] || echo $$ >asked\nexec \"$@\"\n");
    Program p = ranks_start(2,
                            "sh asked.sh SAILS generate --model model --dtype f32 --prompts "
                            "many.jsonl --max-new-tokens 100 --batch 2 --resume --out out");
    while (!(pid = rank_1_at_work()) && !program_ended(&p)) usleep(1000);
    double start = clock_seconds();
    if (pid) kill(pid, SIGUSR1);
    Ended e = program_end(&p);
    double took = clock_seconds() - start;
    EXPECT(pid && e.code == EXIT_STOPPED && strstr(e.err, words), "process %d: exit %d: %s", pid,
           e.code, e.err);
    EXPECT(took < 5, "a stop took %.1f s", took);
    forget("out");
}

static void test_harm(void) {
    char path[256];
    leave_some(path, sizeof path);
    test_flipped_reply(path);
    test_run_json();
    forget("out");
}

/* ------------------------------------------------------------------------------------ align -- */

static void write_recipe(void) {
    static const char recipe[] =
        "model: {path: model, dtype: f32}\ndata: {path: many.jsonl, heldout: 0.1, max-length: "
        "128}\n"
        "score: {sae: 'sae/{layer}', layers: [1, 2]}\nsubspace: {top-k: 6}\n"
        "train: {methods: [base, sails], batch: 4, steps: 20, rank: 4, checkpoint-every: 5}\n"
        "generate: {prompts: many.jsonl, limit: 40, max-new-tokens: 4, batch: 4}\n";
    Err err;
    MUST(files_write("recipe.yaml", recipe, sizeof recipe - 1, &err), err);
}

static void expect_straight(const char *what) {
    static const char *const file[] = {"scores.safetensors",
                                       "subspaces/sails.safetensors",
                                       "adapters/sails/adapter_model.safetensors",
                                       "responses/base.jsonl",
                                       "responses/sails.jsonl",
                                       "eval/sails.json"};
    for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
        char path[2][128];
        snprintf(path[0], sizeof path[0], "run/%s", file[i]);
        snprintf(path[1], sizeof path[1], "straight/%s", file[i]);
        expect_same(what, path[0], path[1]);
    }
    EXPECT(!files_exists("run/unfinished"), "%s: run/unfinished is left", what);
}

static void test_align(int number) {
    int stopped = 0;
    Ended e = {.code = -1};
    forget("run");
    for (int ms = 100; e.code != EXIT_DONE; ms += test_brief() ? ms : ms / 2) {
        e = signalled(1 + stopped % 2, "align recipe.yaml --out run", ms, number);
        stopped += e.code != EXIT_DONE;
        EXPECT(fine(&e, "the same command goes on"), "align: exit %d: %s", e.code, e.err);
        if (!fine(&e, "the same command goes on")) break;
    }
    EXPECT(stopped > 1, "align was stopped %d times", stopped);
    expect_straight("align");
}

/* A stage is one program's, as its stamp says: what another has kept of it is removed. pattern: of
 * the file that it has kept when it is killed. */
static void test_other_stage(const char *pattern) {
    char path[256];
    bool left = false;
    for (int i = 0; i < 20 && !left; i++) {
        forget("run");
        Program p = program_start("align recipe.yaml --out run", NULL);
        while (!kept_file(path, sizeof path, pattern) && !program_ended(&p)) usleep(500);
        kill(p.pid, SIGKILL);
        program_end(&p);
        left = kept_file(path, sizeof path, pattern);
    }
    CHECK(left, "nothing is left of %s", pattern);
    Ended e = run_other("align recipe.yaml --out run");
    EXPECT(e.code == EXIT_DONE && strstr(e.err, ": removed: program was "), "%s: exit %d: %s",
           pattern, e.code, e.err);
    expect_straight(pattern);
}

int main(void) {
    bad_world();
    CHECK(system("for i in $(seq 12); do cat pairs.jsonl | sed \"s/number/No.$i/g\"; done "
                 ">many.jsonl") == 0,
          "many.jsonl");
    test_score();
    test_generate();
    test_other_run();
    test_harm();
    test_other_program();
    test_one_asked();
    write_recipe();
    program_must("align recipe.yaml --out straight");
    test_align(SIGKILL);
    if (!test_brief()) test_align(SIGUSR1);
    test_other_stage("run/unfinished/generate-base/replies.*");
    if (!test_brief())
        test_other_stage("run/unfinished/train-sails/step-000000[0-9][0-9]/manifest.json");
    world_remove();
    return test_done("resume");
}
