/* Whatever befalls one rank of a run, in whichever phase, ends the whole job: with the launcher's
 * code, at most one line of ours, which names the rank, within the deadline and five seconds, with
 * nothing left running and nothing lost: one rank goes on from there to the very same adapter.
 *
 * Where the phases are is read from what a watchdog has written about a run that was stopped at its
 * very last call. With SAILS_TEST_LONG=1 every cause is tried in every phase. */
#include "host/cli/command.h"

#include <math.h>
#include <signal.h>

#include "data/base/files.h"
#include "host/cli/print.h"
#include "tests/checkpoint_run.h"
#include "tests/ranks.h"

enum { RANKS = 3 };
#define TRAIN                                                                                  \
    "train --model model --dtype f32 --threads 1 --max-length 64 --pack-tokens 64 --batch 3 "  \
    "--init lora --rank 2 --seed 3 --data pairs.jsonl --eval-data pairs.jsonl --eval-every 2 " \
    "--steps 5 --checkpoint-every 2 "

static bool on_device;  /* whose moves between ranks are no calls of the plug-in */
static char train[512]; /* the line, up to --out */
static double deadline; /* seconds: what a healthy run takes, so that a slow machine is none */
static double usual;    /* seconds of a run, with its end by the launcher: more on a busy machine */

/* ------------------------------------------------------------------------------- moments -- */

/* The first call of a kind, by its number among those of a Comm and among those of the plug-in. */
typedef struct Moment {
    const char *name, *phase, *what; /* what NULL: any */
    int step;                        /* 0: any */
    int number, call;
} Moment;

enum { START, FIRST_STEP, STEP, EVALUATION, CHECKPOINT, WRITING, END, MOMENTS };
enum { NEWS = MOMENTS, NOTED }; /* where nothing befalls a rank, but one is slow */
static Moment moment[NOTED] = {
    [START] = {.name = "start", .phase = "start"},
    [FIRST_STEP] = {.name = "first step", .phase = "step", .step = 1},
    [STEP] = {.name = "step", .phase = "step", .step = 4},
    [EVALUATION] = {.name = "evaluation", .phase = "logprob", .what = "log-probabilities"},
    [CHECKPOINT] = {.name = "checkpoint", .phase = "logprob", .what = "digests"},
    [WRITING] = {.name = "writing", .phase = "after training"},
    [END] = {.name = "end", .phase = "end"},
    [NEWS] = {.name = "news of a step", .phase = "step", .what = "losses", .step = 3}};

static const char *word(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    CHECK(text, "no %s", key);
    return text;
}
static int number(const json_t *object, const char *key) {
    return (int)json_integer_value(json_object_get(object, key));
}

/* The calls of the plug-in that a call of a Comm is made of. */
static int plugin_calls(const json_t *call) {
    static const char *const two[] = {"exchange", "all-gather", "broadcast"};
    const char *op = word(call, "op");
    bool moves = strcmp(op, "exchange") == 0 || strcmp(op, "all-gather") == 0;
    if (strcmp(op, "meeting of devices") == 0 || (on_device && moves)) return 0;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (strcmp(op, two[i]) == 0) return 2;
    return 1;
}

static void note_moments(const json_t *call, int at) {
    for (int i = 0; i < NOTED && plugin_calls(call); i++) {
        Moment *m = &moment[i];
        if (strcmp(m->phase, word(call, "phase")) != 0) continue;
        if ((m->what && strcmp(m->what, word(call, "what")) != 0) ||
            (m->step && m->step != number(call, "step")))
            continue;
        m->call = at, m->number = number(call, "call"); /* the earlier, since they come backwards */
    }
}

/* The file that the line names; NULL: it names none, or there is none. */
static json_t *dump_of(const char *line) {
    char path[128];
    json_t *dump = NULL;
    Err err;
    const char *at = strstr(line, "--dumps ");
    if (at && sscanf(at, "--dumps %127s", path) == 1 && files_exists(path))
        MUST(files_read_json(&dump, path, (size_t)1 << 30, &err), err);
    if (dump) remove(path);
    return dump;
}

static void find_moments(const json_t *dump, int all) {
    const json_t *calls =
        json_object_get(json_array_get(json_object_get(dump, "seats"), 0), "calls");
    for (size_t i = json_array_size(calls); i-- > 0;) {
        const json_t *call = json_array_get(calls, i);
        all -= plugin_calls(call);
        note_moments(call, all + 1);
    }
    for (int i = 0; i < NOTED; i++)
        CHECK(moment[i].call > 0, "no call of the phase %s was seen", moment[i].name);
}

/* -------------------------------------------------------------------------------- causes -- */

typedef struct Cause {
    const char *name;
    int code;
    const char *words;
    bool must; /* all is said and written; else the launcher may be faster, at any moment */
} Cause;

enum { KILLED, STOPPED, LATE, LEFT, EXITED, FAILED, CAUSES };
static const Cause cause[CAUSES] = {[KILLED] = {"killed", 128 + SIGKILL, "gone: rank 1 (", false},
                                    [STOPPED] = {"stopped", EXIT_RANK, "stopped: rank 1 (", true},
                                    [LATE] = {"late", EXIT_RANK, "missing: rank 1 (", true},
                                    [LEFT] = {"left", EXIT_RANK, "left: rank 1 (", true},
                                    [EXITED] = {"exited", EXIT_INTERNAL, "left: rank 1 (", false},
                                    [FAILED] = {"failed", EXIT_RANK, "transport: rank 1 (", true}};

/* Ranks of this test that still run. */
static int running(void) {
    char command[512], text[32] = "";
    snprintf(command, sizeof command, "pgrep -fc -- '^%s .*--out %s/[r]un'", program_path(), world);
    FILE *p = popen(command, "r");
    CHECK(p && fgets(text, sizeof text, p), "%s", command);
    pclose(p);
    return atoi(text);
}

/* Of Open MPI 4.1, at times, after an abort on a busy machine: all ranks have gone, and mpirun
 * waits for itself for ever, in PMIx_server_finalize. */
static bool launcher_hangs;

static bool ends_within(const Program *p, double seconds) {
    for (double until = clock_seconds() + seconds; clock_seconds() < until; usleep(10000))
        if (program_ended(p)) return true;
    return false;
}

/* The end of a job, and after how long; one that does not end by itself is ended. */
static Ended end_of(const Program *p, double *took) {
    double start = clock_seconds(), patience = usual > 0 ? usual + deadline + 15 : 300;
    bool ended = ends_within(p, patience);
    *took = clock_seconds() - start;
    launcher_hangs = !ended && running() == 0;
    if (!ended) kill(p->pid, SIGTERM);
    if (!ended && !ends_within(p, 10)) kill(p->pid, SIGKILL);
    return program_end(p);
}

static void be_patient(double seconds) {
    CHECK(seconds <= 30, "a run of %.0f s: the fault `late` sleeps for 60", seconds);
    deadline = seconds;
    snprintf(train, sizeof train, TRAIN "--deadline %g %s", deadline,
             on_device ? "--device cuda " : "");
}

static Ended run_ranks(const char *fault, double *took) {
    char line[1024];
    snprintf(line, sizeof line, "SAILS %s--out %s/run", train, world);
    forget("run");
    if (fault) setenv("SAILS_TEST_FAULT", fault, 1);
    Program p = ranks_start(RANKS, line);
    unsetenv("SAILS_TEST_FAULT");
    return end_of(&p, took);
}

/* One rank goes on from what is there. */
static void expect_resumable(const char *what) {
    char line[1024];
    snprintf(line, sizeof line, "%s--resume --out run", train);
    Ended e = program_run(line);
    EXPECT(e.code == 0, "%s: --resume: exit %d: %s", what, e.code, e.err);
    EXPECT(same_bytes("run/adapter_model.safetensors", "whole/adapter_model.safetensors"),
           "%s: another adapter", what);
    Tree t = tree_read("run");
    const char *left = tree_temporary(&t);
    EXPECT(!left, "%s: %s is left", what, left ? left : "");
    tree_free(&t);
}

/* It fell where it should have: rank 1's last call by what the watchdog has written. */
static void expect_moment(const char *what, const json_t *dump, const Moment *m) {
    const json_t *seat = json_array_get(json_object_get(dump, "seats"), 1);
    const json_t *calls = json_object_get(seat, "calls");
    const json_t *call = json_array_get(calls, json_array_size(calls) - 1);
    EXPECT(call && number(call, "call") == m->number && strcmp(word(call, "phase"), m->phase) == 0,
           "%s: in call %d of phase %s, expected %d of %s", what, call ? number(call, "call") : -1,
           call ? word(call, "phase") : "?", m->number, m->phase);
}

/* What holds for every cause; *e: of the job that took so long. */
static void expect_end(const char *what, const Ended *e, int code, double took) {
    EXPECT(e->code == code, "%s: exit %d, expected %d: %s", what, e->code, code, e->err);
    EXPECT(took <= usual + deadline + 5, "%s: %.1f s, usually %.1f", what, took, usual);
    int left = running();
    EXPECT(left == 0, "%s: %d processes are left", what, left);
    if (getenv("SAILS_TEST_SAY")) printf("%s: %.1f s: exit %d: %s\n", what, took, e->code, e->err);
}

/* Who has said that it is done is not looked for: it goes, however it does, and is missing. */
static const char *words_for(const Cause *c, const Moment *m) {
    bool goes = c == &cause[KILLED] || c == &cause[LEFT] || c == &cause[EXITED];
    return goes && m == &moment[END] ? cause[LATE].words : c->words;
}

/* Returns the dump, if there is one. */
static json_t *befall(const Cause *c, const Moment *m, const char *when, double *took) {
    char fault[64], what[96], line[1024];
    snprintf(fault, sizeof fault, "1:%d:%s%s", m->call, c->name, when);
    snprintf(what, sizeof what, "%s at %s (%s)", c->name, m->name, fault);
    ranks_end_mpi_alone(c == &cause[LEFT]);
    Ended e = run_ranks(fault, took);
    int n = ranks_lines(e.err, line, sizeof line);
    bool first = !c->must && n > 0 && e.code == EXIT_RANK; /* before the launcher */
    if (launcher_hangs)
        printf("%s: all ranks have ended, mpirun hangs\n", what);
    else
        expect_end(what, &e, first ? EXIT_RANK : c->code, *took);
    EXPECT(n == 1 ? strstr(line, words_for(c, m)) != NULL : n == 0 && !c->must,
           "%s: %d lines of ours: %s%s", what, n, line, n > 1 ? e.err : "");
    return n == 1 ? dump_of(line) : NULL;
}

static void test_cause(int which, int where, const char *when) {
    char what[96];
    double took;
    const Cause *c = &cause[which];
    if (which == LEFT && where == END && *when) return; /* that is how a job ends well */
    snprintf(what, sizeof what, "%s%s at %s", c->name, when, moment[where].name);
    json_t *dump = befall(c, &moment[where], when, &took);
    EXPECT(dump || !c->must, "%s: no dump", what);
    if (c->must && dump) expect_moment(what, dump, &moment[where]);
    json_decref(dump);
    expect_resumable(what);
}

/* ------------------------------------------------------------------- what a rank has not got -- */

/* A sanitizer needs memory of its own, and says so in its words. */
#ifdef __SANITIZE_ADDRESS__
enum { OWN_MEMORY = false };
#else
enum { OWN_MEMORY = true };
#endif

/* It says what it was for want of, as any bug does; the others may come to say who has gone. */
static void test_memory(int where) {
    char fault[64], what[96], line[1024];
    double took;
    snprintf(fault, sizeof fault, "1:%d:memory", moment[where].call);
    snprintf(what, sizeof what, "no memory at %s", moment[where].name);
    Ended e = run_ranks(fault, &took);
    int n = ranks_lines(e.err, line, sizeof line);
    expect_end(what, &e, 128 + SIGABRT, took);
    EXPECT(strstr(e.err, "out of memory") || strstr(e.err, " do not fit in "), "%s: %s", what,
           e.err);
    EXPECT(n == 1 || (n == 2 && strstr(e.err, "sails: gone: rank 1 (")), "%s: %d lines of ours: %s",
           what, n, e.err);
    expect_resumable(what);
}

static void expect_no_input(const char *what, const Ended *e, double took, const char *words) {
    char line[1024];
    int n = ranks_lines(e->err, line, sizeof line);
    expect_end(what, e, EXIT_INPUT, took);
    EXPECT(n == 1 && strncmp(line, "sails: rank 1: ", 15) == 0 && strstr(line, words),
           "%s: %d lines of ours: %s", what, n, e->err);
}

/* Rank 1 works in a folder of its own, whose model has no weights. */
static void test_no_model(void) {
    char line[2048];
    CHECK(system("mkdir there && cp -r pairs.jsonl model there/") == 0 &&
              remove("there/model/model.safetensors") == 0,
          "there");
    snprintf(line, sizeof line, "SAILS %s--out %s/run : -np 1 -wdir there SAILS %s--out %s/run",
             train, world, train, world);
    forget("run");
    double took;
    Program p = ranks_start(1, line);
    Ended e = end_of(&p, &took);
    expect_no_input("no weights", &e, took, "model");
}

/* Rank 1 comes a second late to where the ranks tell each other how long they have waited. */
static void test_slow(void) {
    char fault[64], line[2048];
    double took, ms = 0;
    snprintf(fault, sizeof fault, "1:%d:slow", moment[NEWS].call);
    Ended e = run_ranks(fault, &took);
    EXPECT(e.code == 0, "a slow rank: exit %d: %s", e.code, e.err);
    FILE *f = e.code ? NULL : fopen("run/metrics.jsonl", "r");
    while (f && fgets(line, sizeof line, f)) {
        json_t *step = json_loads(line, 0, NULL);
        ms += json_number_value(json_object_get(step, "wait_ms"));
        json_decref(step);
    }
    if (f) fclose(f);
    EXPECT(ms > 500, "two of three ranks waited a second, and all %.0f ms in the mean", ms);
}

static void test_no_files(void) {
    char fault[64];
    double took;
    snprintf(fault, sizeof fault, "1:%d:files", moment[START].call);
    Ended e = run_ranks(fault, &took);
    expect_no_input("no more files", &e, took, "Too many open files");
}

/* ---------------------------------------------------------------------------------- all of it */

/* The run that nothing befalls: how long it takes, what it makes, how many calls the plug-in sees.
 */
static int run_whole(void) {
    char path[300];
    Buf text;
    snprintf(path, sizeof path, "%s/calls", world);
    setenv("SAILS_TEST_CALLS", path, 1);
    Ended e = run_ranks(NULL, &usual);
    unsetenv("SAILS_TEST_CALLS");
    CHECK(e.code == 0, "exit %d: %s", e.code, e.err);
    CHECK(rename("run", "whole") == 0 && read_bytes(&text, path), "%s", path);
    buf_byte(&text, 0);
    int calls = atoi(text.p);
    buf_free(&text);
    return calls;
}

static void test_causes(void) {
    test_cause(KILLED, STEP, "");
    test_cause(LATE, FIRST_STEP, ":after");
    test_cause(LATE, END, ":after");
    for (int i = 0; i < CAUSES && run_long(); i++)
        for (int k = 0; k < MOMENTS; k++) test_cause(i, k, ""), test_cause(i, k, ":after");
}

int main(void) {
    const char *device = getenv("SAILS_TEST_DEVICE");
    on_device = device && strcmp(device, "cuda") == 0;
    world_make();
    CHECK(chdir(world) == 0, "%s", world);
    be_patient(30);
    Moment last = {.name = "the last call", .call = run_whole()};
    be_patient(fmax(2, ceil(usual)));
    usual *= 1.5; /* the next one may find the machine busier */
    double stopped;
    json_t *dump = befall(&cause[STOPPED], &last, "", &stopped);
    find_moments(dump, last.call);
    usual = fmax(usual, stopped - deadline);
    json_decref(dump);
    test_causes();
    test_slow();
    test_no_model();
    if (!on_device) { /* whose plug-in would be the first not to load */
        if (OWN_MEMORY) test_memory(START);
        if (OWN_MEMORY && run_long()) test_memory(STEP);
        test_no_files();
    }
    world_remove();
    return test_done("phases");
}
