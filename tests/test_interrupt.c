/* Ctrl-C, SIGTERM and SIGHUP at any moment: the program says so in one line, dies by the signal
 * within a step, and leaves what was there and nothing else. Each long command is stopped at
 * moments spread over its run, and align in each of its stages, until all are done. */
#include "host/cli/command.h"

#include <signal.h>
#include <time.h>

#include "tests/bad_rows.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void wait_seconds(double s) {
    struct timespec t = {(time_t)s, (long)(1e9 * (s - (double)(time_t)s))};
    nanosleep(&t, NULL);
}

static const int sent[] = {SIGINT, SIGTERM, SIGHUP}; /* in turn */
enum { SENT = sizeof sent / sizeof *sent };

static void expect_stopped(const char *line, const Ended *e, int signal_number) {
    char words[80];
    snprintf(words, sizeof words, "interrupted by SIG%s; finished outputs are kept",
             sigabbrev_np(signal_number));
    EXPECT(e->code == 128 + signal_number && program_one_line(e->err, words),
           "sails %s: SIG%s gave exit %d: %s", line, sigabbrev_np(signal_number), e->code, e->err);
}

/* ---------------------------------------------------------------------------- long commands -- */

/* Each takes some tenths of a second at least; {work, and under a sanitizer} for its %d. */
static const struct {
    const char *line;
    int work[2];
} command[] = {
    {"tokenize --tokenizer model --data many.jsonl --data.limit %d --out new/tokens", {8000, 2000}},
    {"logprob --model model --dtype f32 --max-length 128 --data many.jsonl --data.limit %d --out "
     "new/logprobs",
     {400, 200}},
    {"score --model model --dtype f32 --max-length 128 --data many.jsonl --data.limit %d --sae "
     "sae/{layer} --layers 1,2 --out new/scores",
     {400, 200}},
    {"train --model model --dtype f32 --max-length 128 --data pairs.jsonl --init lora --batch 4 "
     "--steps %d --out new/adapter",
     {40, 20}},
    {"generate --model model --dtype f32 --prompts prompts.jsonl --max-new-tokens %d --out "
     "new/replies",
     {200, 100}},
    {"init --layers 8 --hidden %d --ffn 2048 --vocab 20000 --out new/model", {512, 64}},
    {"merge --model large --adapter large-adapter --out new/merged", {0, 0}},
};

/* Sent after a share of the time that a whole run takes; one that has ended before is no miss, nor
 * is one on a busy machine that has not even begun, and so has nothing to say. */
static bool stopped_at(const char *line, double seconds, int signal_number) {
    CHECK(rename("new", "aside") == 0 && mkdir("new", 0777) == 0, "new");
    Tree before = tree_read(".");
    Program p = program_start(line, NULL);
    wait_seconds(seconds);
    kill(p.pid, signal_number);
    Ended e = program_end(&p);
    bool begun = e.code != 128 + signal_number || *e.err, stopped = e.code != 0 && begun;
    if (e.code != 0) {
        Tree after = tree_read(".");
        const char *change = tree_difference(&before, &after);
        if (begun) expect_stopped(line, &e, signal_number);
        EXPECT(!change, "sails %s: a signal left %s", line, change ? change : "");
        tree_free(&after);
    }
    tree_free(&before);
    CHECK(system("rm -r new") == 0 && rename("aside", "new") == 0, "new");
    return stopped;
}

static void test_command(const char *format, int work) {
    int moments = test_brief() ? 2 : 5;
    char line[256];
    snprintf(line, sizeof line, format, work);
    double start = now();
    program_must(line);
    double whole = now() - start;
    int stopped = 0;
    for (int i = 0; i < moments; i++)
        stopped += stopped_at(line, whole * (i + 2) / (moments + 3), sent[i % SENT]);
    for (double t = whole / 4; stopped == 0 && t > 0.005; t /= 2) /* the whole run met neighbours */
        stopped += stopped_at(line, t, SIGTERM);
    EXPECT(stopped > 0, "sails %s: always done before the signal", line);
}

/* Nobody reads stdout any more, once it held a word: the program ends as silently as others in a
 * pipe, but cleanly. */
static void test_unread(const char *line, const char *word) {
    static char out[1 << 16];
    Tree before = tree_read(".");
    Program p = program_start(line, NULL);
    *out = 0;
    while (!program_ended(&p) && !strstr(out, word)) {
        program_text(out, sizeof out, p.out);
        wait_seconds(0.001);
    }
    close(p.out);
    p.out = -1;
    Ended e = program_end(&p);
    Tree after = tree_read(".");
    const char *change = tree_difference(&before, &after);
    EXPECT(e.code == 128 + SIGPIPE && !*e.err, "sails %s | true: exit %d: %s", line, e.code, e.err);
    EXPECT(!change, "sails %s | true: left %s", line, change ? change : "");
    tree_free(&before), tree_free(&after);
}

/* ------------------------------------------------------------------------------------ align -- */

static const char *const stage[] = {"score",          "subspace-sails",  "generate-base",
                                    "eval-base",      "perplexity-base", "train-sails",
                                    "generate-sails", "eval-sails",      "perplexity-sails"};
enum { STAGES = sizeof stage / sizeof *stage };

/* How many stages have said that they are done or kept. */
static int stages_told(const char *out) {
    int n = 0;
    while (n < STAGES && strstr(out, stage[n])) n++;
    return n;
}

/* Every run writes these anew. */
static bool of_the_last_run(const char *entry) {
    return strstr(entry, "run/manifest.json") || strstr(entry, "run/recipe.yaml") ||
           strstr(entry, "run/metrics.jsonl") || strstr(entry, "run/summary.json") ||
           strstr(entry, "run/unfinished"); /* and goes on from these */
}

/* What was finished before must be there as it was, and nothing unfinished beside it. */
static void expect_kept(const Tree *before, const char *where) {
    Tree after = tree_read("run");
    const char *left = tree_temporary(&after);
    EXPECT(!left, "stopped after %s: left %s", where, left ? left : "");
    for (size_t i = 0; i < before->n; i++) {
        bool there = of_the_last_run(before->entry[i]);
        for (size_t j = 0; j < after.n && !there; j++)
            there = strcmp(before->entry[i], after.entry[j]) == 0;
        EXPECT(there, "stopped after %s: lost or changed %s", where, before->entry[i]);
    }
    tree_free(&after);
}

/* Runs align until so many stages have spoken, then stops it. Returns whether that came in time. */
static bool stop_align(int told, int signal_number) {
    static char out[1 << 16];
    Program p = program_start("align run.yaml", NULL);
    *out = 0;
    while (!program_ended(&p) &&
           (told == 0 ? !files_exists("run/stages") : stages_told(out) < told)) {
        program_text(out, sizeof out, p.out);
        wait_seconds(0.001);
    }
    kill(p.pid, signal_number);
    Ended e = program_end(&p);
    if (e.code != 0 && signal_number == SIGTERM)
        EXPECT(e.code == EXIT_STOPPED && program_one_line(e.err, "the same command goes on"),
               "align, SIGTERM: exit %d: %s", e.code, e.err);
    else if (e.code != 0)
        expect_stopped("align run.yaml", &e, signal_number);
    return e.code != 0;
}

static void expect_same(const char *name) {
    char path[2][256];
    Buf bytes[2];
    snprintf(path[0], sizeof path[0], "run/%s", name);
    snprintf(path[1], sizeof path[1], "straight/%s", name);
    CHECK(read_bytes(&bytes[0], path[0]) && read_bytes(&bytes[1], path[1]), "%s", name);
    EXPECT(bytes[0].n == bytes[1].n && memcmp(bytes[0].p, bytes[1].p, bytes[0].n) == 0,
           "%s differs from that of a run without a stop", name);
    buf_free(&bytes[0]), buf_free(&bytes[1]);
}

static void test_align(void) {
    int stopped = 0;
    for (int told = 0; told < STAGES; told++) {
        Tree before = {0};
        if (files_exists("run")) before = tree_read("run");
        stopped += stop_align(told, sent[told % SENT]);
        expect_kept(&before, told ? stage[told - 1] : "the start");
        tree_free(&before);
    }
    EXPECT(stopped >= STAGES - 2, "align was stopped %d times", stopped);
    program_must("align run.yaml");
    program_must("align run.yaml --out straight");
    expect_same("scores.safetensors");
    expect_same("adapters/sails/adapter_model.safetensors");
    expect_same("responses/sails.jsonl");
    expect_same("eval/sails.json");
}

static void write_many(void) {
    FILE *f = fopen("many.jsonl", "w");
    CHECK(f, "many.jsonl");
    for (int i = 0; i < 8000; i++)
        fprintf(f,
                "{\"chosen\": \"\\n\\nHuman: What of number %d?\\n\\nAssistant: I cannot say "
                "anything about it.\", \"rejected\": \"\\n\\nHuman: What of number %d?\\n\\n"
                "Assistant: It is a number, as good as any.\"}\n",
                i, i);
    CHECK(fclose(f) == 0, "many.jsonl");
}

int main(void) {
    bad_world();
    write_many();
    write_text("run.yaml",
               "out: run\nmodel: {path: model, dtype: f32}\n"
               "data: {path: pairs.jsonl, heldout: 0.2, max-length: 128}\n"
               "score: {sae: 'sae/{layer}', layers: [1, 2]}\nsubspace: {top-k: 4}\n"
               "train: {batch: 4, rank: 2, steps: 20, methods: [base, sails]}\n"
               "generate: {prompts: prompts.jsonl, max-new-tokens: 60}\n");
    program_must(test_brief()
                     ? "init --layers 4 --hidden 128 --ffn 512 --vocab 20000 --out large"
                     : "init --layers 4 --hidden 512 --ffn 2048 --vocab 20000 --out large");
    program_must(
        "train --model large --tokenizer model --max-length 64 --data pairs.jsonl "
        "--init lora --data.limit 2 --steps 1 --batch 2 --out large-adapter");
    test_align();
    test_unread("tokenize --tokenizer model --data many.jsonl", "{");
    test_unread("train " MODEL SOME_DATA
                "--data pairs.jsonl --init lora --steps 400 --out new/adapter",
                "step 1/");
    for (size_t i = 0; i < sizeof command / sizeof *command; i++)
        test_command(command[i].line, command[i].work[test_brief()]);
    world_remove();
    return test_done("interrupt");
}
