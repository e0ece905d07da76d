/* Full fine-tuning as a command: the model that it leaves, the same on one, two and four ranks,
 * which share its state out, and after kill -9, on another number of them too; masters that move
 * where bf16 would stand still; and what is refused. */
#include "host/cli/command.h"

#include <math.h>
#include <signal.h>

#include "kernels/halves.h"
#include "tests/ranks.h"
#include "tests/same_files.h"

#define TRAIN                                                                                  \
    "train --model model --method full --max-length 128 --pack-tokens 128 --batch 7 --seed 3 " \
    "--data pairs.jsonl "
#define RUN TRAIN "--dtype bf16 --steps 30 --lr 1e-3 "
#define SAVING RUN "--checkpoint-every 2 "

static Ended on(int ranks, const char *line) {
    char ours[2048];
    snprintf(ours, sizeof ours, "SAILS %s", line);
    return ranks > 1 ? ranks_run(ranks, ours) : program_run(line);
}

static StSet *opened(const char *path) {
    StSet *set;
    Err err;
    MUST(st_open(&set, path, &err), err);
    return set;
}

/* ------------------------------------------------------------------------------ the result -- */

/* The loss of a step from metrics.jsonl. */
static double loss_of(const char *path, int step) {
    char line[2048];
    double loss = NAN;
    FILE *f = fopen(path, "r");
    CHECK(f, "%s", path);
    while (fgets(line, sizeof line, f)) {
        json_t *record = json_loads(line, 0, NULL);
        if (json_integer_value(json_object_get(record, "step")) == step)
            loss = json_number_value(json_object_get(record, "loss"));
        json_decref(record);
    }
    fclose(f);
    return loss;
}

/* The mean loss that another command finds with a model over what it was trained on. */
static double mean_nll(const char *model) {
    char line[512];
    double sum = 0, labels = 0;
    snprintf(line, sizeof line,
             "logprob --model %s --dtype f32 --max-length 128 --data pairs.jsonl --out nll", model);
    program_must(line);
    static char text[1 << 16];
    FILE *f = fopen("nll", "r");
    CHECK(f, "nll");
    while (fgets(text, sizeof text, f)) {
        json_t *record = json_loads(text, 0, NULL), *p = json_object_get(record, "logprobs");
        json_t *label = json_object_get(record, "labels");
        for (size_t i = 0; i < json_array_size(p); i++) /* of the token after it */
            if (json_integer_value(json_array_get(label, i + 1)))
                sum -= json_number_value(json_array_get(p, i)), labels++;
        json_decref(record);
    }
    fclose(f);
    return sum / labels;
}

/* Trained on all pairs at once: what the last step began with is what the rate 0 of a further one
 * would find, and the model on disk is a little better than that. */
static void test_result(const char *dtype, enum StType type, const char *named) {
    static const char *const file[] = {"config.json", "generation_config.json", "tokenizer.json",
                                       "metrics.jsonl"};
    char line[512], path[64], text[32];
    forget("tuned");
    snprintf(line, sizeof line,
             "train --model model --method full --max-length 128 --batch 23 --data pairs.jsonl "
             "--dtype %s --steps 10 --lr 2e-3 --out tuned",
             dtype);
    Ended e = program_run(line);
    EXPECT(e.code == 0 && strstr(e.out, "trainable%: 100.0000"), "exit %d: %s%s", e.code, e.out,
           e.err);
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "tuned/%s", file[i]);
        EXPECT(files_exists(path), "no %s", path);
    }
    StSet *set = opened("tuned/model.safetensors"), *base = opened("model/model.safetensors");
    EXPECT(st_count(set) == st_count(base), "%zu tensors", st_count(set));
    for (size_t i = 0; i < st_count(base); i++) {
        const StTensor *was = st_at(base, i), *is = st_find(set, was->name);
        EXPECT(is && is->type == type && is->count == was->count, "%s", was->name);
        size_t moved = 0;
        for (size_t k = 0; is && k < is->count; k++) {
            float x, y;
            st_read_f32(was, &x, k, 1), st_read_f32(is, &y, k, 1);
            moved += x != y;
        }
        EXPECT(moved * 2 > was->count, "%s: %zu of %zu have moved", was->name, moved, was->count);
    }
    st_close(set), st_close(base);
    json_t *config;
    Err err;
    MUST(files_read_json(&config, "tuned/config.json", 1 << 20, &err), err);
    snprintf(text, sizeof text, "%s", json_string_value(json_object_get(config, "torch_dtype")));
    EXPECT(strcmp(text, named) == 0, "config.json says %s", text);
    json_decref(config);
    /* bf16: other roundings, of 2^-9 each, in each of two passes */
    double slack = type == ST_F32 ? 1e-5 : 10 * ldexp(1, -9);
    double first = loss_of("tuned/metrics.jsonl", 1), last = loss_of("tuned/metrics.jsonl", 10);
    double base_loss = mean_nll("model"), tuned = mean_nll("tuned");
    EXPECT(fabs(first - base_loss) <= slack * base_loss, "%s: step 1 began at %g, the model has %g",
           dtype, first, base_loss);
    EXPECT(tuned < last * (1 + slack) && last < 0.95 * first, "%s: %g, %g, then %g", dtype, first,
           last, tuned);
}

/* A rate of 0 leaves every bit of an F32 model. */
static void test_still(void) {
    program_must(TRAIN "--dtype f32 --steps 2 --lr 0 --out still");
    StSet *set = opened("still/model.safetensors"), *base = opened("model/model.safetensors");
    for (size_t i = 0; i < st_count(base); i++) {
        const StTensor *was = st_at(base, i), *is = st_find(set, was->name);
        EXPECT(is && memcmp(is->data, was->data, was->bytes) == 0, "%s has moved", was->name);
    }
    st_close(set), st_close(base);
}

/* At a rate that few bf16 weights would notice the masters of a checkpoint have moved from the
 * file's, which was F32; and what is saved is those masters rounded. */
static void test_masters(void) {
    enum { STEPS = 3 };
    program_must(TRAIN
                 "--dtype bf16 --steps 4 --warmup 0 --lr 1e-6 --checkpoint-every 3 --out tiny");
    StSet *state = opened("tiny/checkpoints/step-00000003/state.safetensors");
    StSet *base = opened("model/model.safetensors");
    size_t moved = 0, all = 0, coarse = 0;
    for (size_t i = 0; i < st_count(base); i++) {
        const StTensor *was = st_at(base, i);
        char name[160];
        snprintf(name, sizeof name, "master/%s@%012d", was->name, 0);
        const StTensor *is = st_find(state, name);
        CHECK(is && is->count == was->count, "%s", name);
        for (size_t k = 0; k < is->count; k++, all++) {
            float x, y;
            st_read_f32(was, &x, k, 1), st_read_f32(is, &y, k, 1);
            double most = STEPS * 1.1e-6 + 1e-6 * fabs(x);
            EXPECT(fabs(x - y) <= most, "%s: %g to %g", was->name, x, y);
            moved += x != y;
            coarse += halves_high(x).bits != halves_high(y).bits;
        }
    }
    EXPECT(moved * 10 > all * 9, "%zu masters of %zu have moved", moved, all);
    EXPECT(coarse * 10 < all, "%zu weights of %zu have moved: this test shows nothing", coarse,
           all);
    st_close(state), st_close(base);
}

/* ------------------------------------------------------------------------ ranks, stopping -- */

static void test_ranks(const char *dtype) {
    for (int ranks = 1; ranks <= (test_brief() ? 2 : 4); ranks *= 2) {
        char line[512], folder[32], what[64];
        snprintf(folder, sizeof folder, "%s%d", dtype, ranks);
        snprintf(line, sizeof line, TRAIN "--dtype %s --steps 3 --lr 1e-3 --out %s", dtype, folder);
        snprintf(what, sizeof what, "%s on %d ranks", dtype, ranks);
        Ended e = on(ranks, line);
        EXPECT(e.code == 0, "%s: exit %d: %s", what, e.code, e.err);
        char first[32];
        snprintf(first, sizeof first, "%s1", dtype);
        if (ranks > 1) expect_same_in(what, "model.safetensors", folder, first);
    }
}

/* The same bytes where backward makes activations again, of layers that ranks gather. */
static void test_recomputing(void) {
    Ended e = on(2, TRAIN "--dtype bf16 --steps 3 --lr 1e-3 --recompute --deadline 60 --out again");
    EXPECT(e.code == 0, "--recompute: exit %d: %s", e.code, e.err);
    expect_same_in("--recompute on two ranks", "model.safetensors", "again", "bf161");
}

/* Packs that not every rank has, in steps and in the loss on other documents. */
static void test_together(void) {
    Ended e = on(2, TRAIN
                 "--dtype bf16 --steps 3 --lr 1e-3 --eval-data pairs.jsonl --eval-every 2 "
                 "--deadline 60 --out with_eval");
    EXPECT(e.code == 0, "with --eval-data: exit %d: %s", e.code, e.err);
    expect_same_in("--eval-data on two ranks", "model.safetensors", "with_eval", "bf161");
}

/* Starts a run that saves, and sends a signal once it has said that `step` is done. */
static Ended stopped_after(int ranks, int step, int signal_number) {
    static char out[1 << 16];
    char word[32];
    snprintf(word, sizeof word, "step %d/", step);
    Program p = ranks > 1 ? ranks_start(ranks, "SAILS " SAVING "--out run")
                          : program_start(SAVING "--out run", NULL);
    *out = 0;
    while (!program_ended(&p) && !strstr(out, word)) {
        program_text(out, sizeof out, p.out);
        usleep(500);
    }
    kill(p.pid, signal_number);
    return program_end(&p);
}

static void test_resume(void) {
    static const struct {
        int ranks, step, signal, then;
        const char *what;
    } stop[] = {{1, 5, SIGKILL, 1, "kill -9 on one rank"},
                {1, 4, SIGUSR1, 2, "SIGUSR1 on one rank, then two"},
                {2, 6, SIGKILL, 3, "kill -9 on two ranks, then three"},
                {2, 3, SIGUSR1, 1, "SIGUSR1 on two ranks, then one"}};
    program_must(RUN "--out straight");
    for (size_t i = 0; i < sizeof stop / sizeof *stop && (i < 1 || !test_brief()); i++) {
        forget("run");
        Ended e = stopped_after(stop[i].ranks, stop[i].step, stop[i].signal);
        EXPECT(stop[i].signal == SIGKILL || e.code == EXIT_STOPPED, "%s: exit %d: %s", stop[i].what,
               e.code, e.err);
        EXPECT(stop[i].ranks > 1 || !files_exists("run/model.safetensors"), "%s: a result",
               stop[i].what); /* ranks whose mpirun is killed live on for a moment */
        e = on(stop[i].then, SAVING "--resume --out run");
        EXPECT(e.code == 0 && strstr(e.err, "going on after step"), "%s: exit %d: %s", stop[i].what,
               e.code, e.err);
        expect_same_in(stop[i].what, "model.safetensors", "run", "straight");
    }
    Ended e = program_run(SAVING "--resume --out run"); /* its result is there */
    EXPECT(e.code == 0, "once more: exit %d: %s", e.code, e.err);
    expect_same_in("once more", "model.safetensors", "run", "straight");
    forget("run/checkpoints/*"); /* nothing says whose the model is */
    e = program_run(SAVING "--resume --out run");
    EXPECT(e.code == EXIT_USAGE &&
               program_one_line(e.err,
                                "run/model.safetensors: a finished result, with no "
                                "checkpoint to go on from; remove it"),
           "no checkpoint: exit %d: %s", e.code, e.err);
    expect_same_in("no checkpoint", "model.safetensors", "run", "straight");
}

/* -------------------------------------------------------------------------------- refusals -- */

static void refused(int code, const char *line, const char *words) {
    Ended e = program_run(line);
    EXPECT(e.code == code && program_one_line(e.err, words), "sails %s: exit %d: %s", line, e.code,
           e.err);
}

static void test_refused(void) {
    static const char *const of_adapters[] = {"--init lora",      "--init-adapter adapter",
                                              "--subspace basis", "--rank 4",
                                              "--alpha 8",        "--targets q",
                                              "--gain norm",      "--only-scored",
                                              "--basis-scale 2",  "--freeze-basis",
                                              "--redundancy 1"};
    char line[512];
    for (size_t i = 0; i < sizeof of_adapters / sizeof *of_adapters; i++) {
        char flag[32] = "", words[96];
        sscanf(of_adapters[i], "%31s", flag);
        snprintf(line, sizeof line, TRAIN "%s --out new/refused", of_adapters[i]);
        snprintf(words, sizeof words, "%s: it is for adapters, and --method full", flag);
        refused(EXIT_USAGE, line, words);
    }
    refused(EXIT_USAGE, TRAIN "--method fall --out new/refused", "given twice");
    refused(EXIT_USAGE, "train --model model --data pairs.jsonl --method fall --out new/refused",
            "--method: expected one of lora|full");
    refused(EXIT_USAGE, TRAIN "--out straight", "already holds a model");
    refused(EXIT_USAGE, TRAIN "--out model", "would write over");
    refused(EXIT_USAGE, SAVING "--resume --lr 2e-3 --out new/refused", "given twice");
    EXPECT(!files_exists("new/refused"), "a refusal has left something");
}

/* Two ranks, each on a node of its own: said once, before anything is read. */
static void test_nodes(void) {
    static const char *const how[] = {"--method full", "--method dpo --weights all"};
    for (int i = 0; i < 2; i++) {
        char first[512], line[512];
        snprintf(line, sizeof line, "train --model model --data pairs.jsonl %s --out new/refused",
                 how[i]);
        setenv("SAILS_MACHINE_RANKS", "1", 1);
        Ended e = on(2, line);
        unsetenv("SAILS_MACHINE_RANKS");
        int lines = ranks_lines(e.err, first, sizeof first);
        EXPECT(e.code == EXIT_USAGE && lines == 1 &&
                   strstr(first, i ? "--weights all: expected" : "--method full: expected") &&
                   strstr(first,
                          "the ranks of one node, got 2 ranks on several; start them on "
                          "one, or train an adapter"),
               "exit %d, %d lines: %s", e.code, lines, e.err);
        EXPECT(!files_exists("new/refused"), "a refusal has left something");
    }
}

/* A number of the file that is none is the file's fault, in either type, and where all ranks look
 * for it. */
static void test_bad_file(void) {
    CHECK(system("cp -r model bad && head -c 64 /dev/zero | tr '\\0' '\\377' | dd "
                 "of=bad/model.safetensors bs=1 seek=100000 conv=notrunc status=none") == 0,
          "weights that are no numbers");
    for (int wide = 0; wide < 2; wide++) {
        char line[512];
        snprintf(line, sizeof line,
                 "train --model bad --method full --data pairs.jsonl --dtype %s --out new/refused",
                 wide ? "f32" : "bf16");
        refused(EXIT_NUMBERS, line, "in bad/model.safetensors; use another checkpoint");
    }
    char first[512];
    Ended e = on(2,
                 "train --model bad --method full --data pairs.jsonl --dtype f32 --deadline 60 "
                 "--out new/refused");
    int lines = ranks_lines(e.err, first, sizeof first);
    EXPECT(e.code == EXIT_NUMBERS && lines == 1 &&
               strstr(first, "in bad/model.safetensors; use another checkpoint"),
           "two ranks: exit %d, %d lines: %s", e.code, lines, e.err);
}

/* Without --lr each method has a rate of its own, which is said before the first step. */
static void test_rate(void) {
    static const struct {
        const char *flags, *said;
        double rate;
    } method[] = {{"--init lora", ", rate 0.0002\n", 2e-4},
                  {"--method full", ", rate 2e-05\n", 2e-5},
                  {"--method dpo --init lora", ", rate 1e-05\n", 1e-5},
                  {"--method dpo --init lora --lr 2e-4", ", rate 0.0002\n", 2e-4},
                  {"--method dpo --weights all", ", rate 1e-06\n", 1e-6}};
    for (size_t i = 0; i < sizeof method / sizeof *method; i++) {
        char line[512];
        snprintf(line, sizeof line,
                 "train --model model --dtype f32 --max-length 128 --data pairs.jsonl --batch 7 "
                 "--steps 1 --warmup 0 %s --out rate%zu",
                 method[i].flags, i);
        Ended e = program_run(line);
        EXPECT(e.code == 0 && strstr(e.out, method[i].said), "%s: exit %d: %s%s", line, e.code,
               e.out, e.err);
        snprintf(line, sizeof line, "rate%zu/metrics.jsonl", i);
        Buf text;
        CHECK(read_bytes(&text, line), "%s", line);
        json_t *record = json_loads(text.p, JSON_DISABLE_EOF_CHECK, NULL);
        double rate = json_number_value(json_object_get(record, "learning_rate"));
        EXPECT(rate == method[i].rate, "%s: a rate of %g", method[i].flags, rate);
        json_decref(record);
        buf_free(&text);
    }
}

int main(void) {
    world_make();
    CHECK(chdir(world) == 0 && mkdir("new", 0777) == 0, "%s", world);
    test_result("bf16", ST_BF16, "bfloat16");
    test_ranks("bf16");
    test_recomputing();
    test_together();
    if (!test_brief()) {
        test_result("f32", ST_F32, "float32");
        test_still();
        test_masters();
        test_ranks("f32");
    }
    test_resume();
    test_refused();
    test_nodes();
    test_bad_file();
    test_rate();
    world_remove();
    return test_done("full_run");
}
