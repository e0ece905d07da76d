/* Commands on several ranks: results are those of one rank, byte by byte; a checkpoint is resumed
 * on another number of them, after a stop and after kill -9; a rank that cannot go on ends the job
 * with its own code and one line. */
#include "host/cli/command.h"

#include <math.h>
#include <signal.h>

#include "tests/ranks.h"
#include "tests/same_files.h"

#define MODEL_IS "--model model --dtype f32 --max-length 128 "
#define TRAIN                                                                     \
    "train " MODEL_IS                                                             \
    "--pack-tokens 128 --batch 7 --rank 4 --init lora --seed 3 --redundancy 0.1 " \
    "--data pairs.jsonl --steps 20 --eval-data pairs.jsonl --eval-every 7 "

static bool same_value(const json_t *a, const json_t *b) {
    return a && b ? json_equal(a, b) : a == b;
}

/* metrics.jsonl, but for times and what speaks of ranks. */
static void expect_same_steps(const char *what, const char *folder, const char *other) {
    static const char *const key[] = {
        "step",         "loss",  "grad_norm", "learning_rate",     "num_tokens", "step_tokens",
        "label_tokens", "flops", "eval_loss", "eval_label_tokens", "redundancy"};
    char path[2][300], line[2][2048];
    FILE *f[2];
    int steps = 0, evaluations = 0;
    snprintf(path[0], sizeof path[0], "%s/metrics.jsonl", folder);
    snprintf(path[1], sizeof path[1], "%s/metrics.jsonl", other);
    for (int i = 0; i < 2; i++) CHECK((f[i] = fopen(path[i], "r")), "%s", path[i]);
    while (fgets(line[0], sizeof line[0], f[0]) && fgets(line[1], sizeof line[1], f[1])) {
        json_t *a = json_loads(line[0], 0, NULL), *b = json_loads(line[1], 0, NULL);
        double loss = json_number_value(json_object_get(a, "eval_loss"));
        steps += json_object_get(a, "loss") != NULL;
        evaluations += loss > 0;
        for (size_t k = 0; k < sizeof key / sizeof *key; k++)
            EXPECT(same_value(json_object_get(a, key[k]), json_object_get(b, key[k])),
                   "%s: step %d: another %s", what, steps, key[k]);
        json_decref(a), json_decref(b);
    }
    EXPECT(steps == 20 && evaluations == 3 && !fgets(line[1], sizeof line[1], f[1]),
           "%s: %d steps, %d evaluations", what, steps, evaluations);
    fclose(f[0]), fclose(f[1]);
}

/* ------------------------------------------------------------------------ the same results -- */

static const struct {
    const char *line, *out;
} command[] = {
    {"score " MODEL_IS "--data pairs.jsonl --sae sae/{layer} --layers 1,2 --out %s/scores",
     "scores"},
    {"score " MODEL_IS "--aligned chosen.jsonl --unaligned prompts.jsonl --tokens all --sae "
     "sae/{layer} --layers 2 --out %s/corpora",
     "corpora"},
    {TRAIN "--out %s/adapter", "adapter/adapter_model.safetensors"},
    {"generate --model model --dtype f32 --prompts prompts.jsonl --benign benign.jsonl "
     "--max-new-tokens 5 --temperature 1 --seed 9 --out %s/replies",
     "replies"},
    {"logprob " MODEL_IS "--pack-tokens 128 --data pairs.jsonl --out %s/logprobs", "logprobs"},
    {"eval --responses %s/replies --out %s/eval", "eval"},
    {"moments " MODEL_IS "--pack-tokens 128 --data all.jsonl --layers 0,2 --out %s/moments",
     "moments"},
    {"inputs " MODEL_IS
     "--pack-tokens 128 --data all.jsonl --targets q,o,down --rank 4 --out %s/inputs",
     "inputs"},
    {"inputs " MODEL_IS "--pack-tokens 128 --data pairs.jsonl --preserve all.jsonl --samples 20 "
     "--targets q,o --preserve-rank 4 --out %s/outputs",
     "outputs"},
    {"train " MODEL_IS "--pack-tokens 128 --batch 7 --rank 4 --init salora --targets q,o "
     "--data pairs.jsonl --steps 2 --subspace %s/outputs --out %s/kept",
     "kept/adapter_model.safetensors"},
    {"subspace --scores %s/scores --top-k 6 --rank 4 --out %s/basis", "basis"},
    {"explain " MODEL_IS "--pack-tokens 128 --data all.jsonl --sae sae/{layer} --top-k 6 "
     "--prompts all.jsonl --benign benign.jsonl --text pairs.jsonl --documents 100 --draws 1 "
     "--scores %s/scores --subspace %s/basis --out %s/explain",
     "explain/features.json"},
};
enum { COMMANDS = sizeof command / sizeof *command };

static void run_commands(int ranks) {
    char folder[16], what[64];
    snprintf(folder, sizeof folder, "on%d", ranks);
    CHECK(mkdir(folder, 0777) == 0, "%s", folder);
    for (int i = 0; i < COMMANDS; i++) {
        char line[1024] = "SAILS ";
        snprintf(line + 6, sizeof line - 6, command[i].line, folder, folder, folder);
        Ended e = ranks > 1 ? ranks_run(ranks, line) : program_run(line + 6);
        snprintf(what, sizeof what, "%.20s on %d ranks", line + 6, ranks);
        EXPECT(e.code == 0, "%s: exit %d: %s", what, e.code, e.err);
        if (ranks > 1) expect_same_in(what, command[i].out, folder, "on1");
        if (ranks > 1 && i == 2) {
            char adapter[32];
            snprintf(adapter, sizeof adapter, "%s/adapter", folder);
            expect_same_steps(what, adapter, "on1/adapter");
        }
    }
    if (ranks > 1) expect_same_in("explain", "explain/causal.json", folder, "on1");
    Tree t = tree_read(folder);
    const char *left = tree_temporary(&t);
    EXPECT(!left, "%s is left", left ? left : "");
    tree_free(&t);
}

/* -------------------------------------------------------------------------------- resuming -- */

/* Starts a run that saves, and sends a signal to mpirun once it has said that `step` is done. */
static Ended stopped_after(int ranks, int step, int signal_number) {
    static char out[1 << 16];
    char word[32];
    snprintf(word, sizeof word, "step %d/", step);
    Program p = ranks_start(ranks, "SAILS " TRAIN "--checkpoint-every 3 --out run");
    *out = 0;
    while (!program_ended(&p) && !strstr(out, word)) {
        program_text(out, sizeof out, p.out);
        usleep(500);
    }
    kill(p.pid, signal_number);
    return program_end(&p);
}

static void resume_on(int ranks, const char *after) {
    Ended e = ranks > 1 ? ranks_run(ranks, "SAILS " TRAIN "--checkpoint-every 3 --resume --out run")
                        : program_run(TRAIN "--checkpoint-every 3 --resume --out run");
    EXPECT(e.code == 0, "%s: exit %d: %s", after, e.code, e.err);
    expect_same_in(after, "adapter_model.safetensors", "run", "on1/adapter");
    expect_same_steps(after, "run", "on1/adapter");
}

static void test_resume(void) {
    char line[512];
    forget("run");
    Ended e = stopped_after(2, 5, SIGUSR1);
    EXPECT(e.code == EXIT_STOPPED && ranks_lines(e.err, line, sizeof line) == 1 &&
               strstr(line, "stopped by SIGUSR1 after step"),
           "SIGUSR1: exit %d: %s", e.code, e.err);
    resume_on(3, "a stop on 2 ranks, then 3");
    for (int i = 0; i < (test_brief() ? 1 : 3); i++) {
        forget("run");
        stopped_after(2, 4 + 5 * i, SIGKILL);
        resume_on(i % 2 ? 2 : 1, "kill -9 on 2 ranks");
    }
}

/* ------------------------------------------------------------------------------ bad ranks -- */

static void expect_end(const char *what, const Ended *e, int code, const char *words) {
    char line[1024];
    int n = ranks_lines(e->err, line, sizeof line);
    EXPECT(e->code == code && n == 1 && strstr(line, words), "%s: exit %d, %d lines: %s", what,
           e->code, n, e->err);
}

/* Two ranks, of which rank 1 first runs a line of shell. mpirun's own way, `-np 1 A : -np 1 B`,
 * crashes Debian's Open MPI 5.0.7, whatever A and B are. */
static Ended ranks_apart(const char *rank_1, const char *line) {
    char text[1024];
    FILE *f = fopen("apart.sh", "w");
    CHECK(f && fprintf(f, "[ $OMPI_COMM_WORLD_RANK = 0 ] || %s\nexec \"$@\"\n", rank_1) > 0 &&
              fclose(f) == 0,
          "apart.sh");
    snprintf(text, sizeof text, "sh apart.sh SAILS %s", line);
    return ranks_run(2, text);
}

/* A row of the embedding becomes NaN; row -1: the last. */
static void spoil_row(const char *path, long row) {
    StSet *set;
    Err err;
    uint64_t header;
    MUST(st_open(&set, path, &err), err);
    const StTensor *t = st_find(set, "model.embed_tokens.weight");
    const char *begin = t->data; /* of all data */
    for (size_t i = 0; i < st_count(set); i++)
        if ((const char *)st_at(set, i)->data < begin) begin = st_at(set, i)->data;
    size_t bytes = t->bytes / t->dim[0], at = row < 0 ? t->dim[0] - 1 : (size_t)row;
    Buf nan = {0};
    while (nan.n < bytes) buf_byte(&nan, (char)0xff);
    FILE *f = fopen(path, "r+b");
    CHECK(f && fread(&header, sizeof header, 1, f) == 1, "%s", path);
    long from = (long)(sizeof header + header) + ((const char *)t->data - begin);
    CHECK(fseek(f, from + (long)(at * bytes), SEEK_SET) == 0 &&
              fwrite(nan.p, 1, bytes, f) == bytes && fclose(f) == 0,
          "%s", path);
    buf_free(&nan);
    st_close(set);
}

#define GENERATE "generate --model model --dtype f32 --max-new-tokens 2 --prompts prompts.jsonl "
#define LOGPROB "logprob " MODEL_IS "--data pairs.jsonl --out run.logprobs"
#define SCORE "score " MODEL_IS "--sae sae/{layer} --layers 1 --out run.scores "
#define ONE_STEP "train " MODEL_IS "--data pairs.jsonl --rank 4 --steps 1 --out run "

/* What rank 1 has in the folder `there` is changed by a line of shell. */
static const struct {
    const char *change, *line, *what;
    int code;
} other_input[] = {
    {"sed -i s/number/No./ pairs.jsonl", TRAIN "--out run", "what was read as data", EXIT_INPUT},
    {"sed -i 1d chosen.jsonl", ONE_STEP "--init lora --eval-data chosen.jsonl",
     "what was read as eval data", EXIT_INPUT},
    {"cp ../basis5 basis", ONE_STEP "--init sails --subspace basis", "what is trained", EXIT_RANK},
    {"sed -i s/number/No./ pairs.jsonl", SCORE "--data pairs.jsonl", "what was read as data",
     EXIT_INPUT},
    {"sed -i 1d prompts.jsonl", SCORE "--aligned chosen.jsonl --unaligned prompts.jsonl",
     "what was read as unaligned", EXIT_INPUT},
    {"truncate -s -1 sae/1/sae_weights.safetensors && printf x >>sae/1/sae_weights.safetensors",
     SCORE "--data pairs.jsonl", "what was read as SAEs", EXIT_INPUT},
    {"sed -i 1d prompts.jsonl", GENERATE, "what was read as prompts", EXIT_INPUT},
    {"echo >>adapter/adapter_config.json", GENERATE "--adapter adapter", "the adapter", EXIT_INPUT},
    {"sed -i 1d pairs.jsonl", LOGPROB, "what was read as data", EXIT_INPUT},
    {"sed -i 's/\"sliding_window\": 16/\"sliding_window\": 32/' model/config.json", LOGPROB,
     "the model's configuration", EXIT_INPUT},
    {"echo >>model/tokenizer.json", LOGPROB, "the tokenizer", EXIT_INPUT},
    {"rm model/tokenizer.json", LOGPROB, "tokenizer.json, there or not,", EXIT_INPUT},
    {"sed -i s/number/No./ pairs.jsonl",
     "inputs " MODEL_IS "--data pairs.jsonl --rank 4 --out run.inputs", "what was read as data",
     EXIT_INPUT}};
enum { OTHER_INPUT = sizeof other_input / sizeof *other_input };

static void expect_differs(const char *line, const char *what, int code) {
    char words[128];
    Ended e = ranks_apart("cd there", line);
    snprintf(words, sizeof words, "sails: %s differs between ranks 0 and 1", what);
    expect_end(what, &e, code, words);
}

/* The folder, as rank 0's is. */
static void make_there(void) {
    CHECK(system("rm -rf there && mkdir there && cp -r model sae adapter basis *.jsonl there") == 0,
          "there");
}

/* Machines with copies of their own, which are not the same. */
static void test_other_input(void) {
    program_must("subspace --scores scores --top-k 5 --rank 4 --out basis5");
    for (int i = 0; i < OTHER_INPUT; i += test_brief() ? 4 : 1) {
        char change[256];
        make_there();
        snprintf(change, sizeof change, "cd there && %s", other_input[i].change);
        CHECK(system(change) == 0, "%s", change);
        expect_differs(other_input[i].line, other_input[i].what, other_input[i].code);
    }
    make_there();
    spoil_row("there/model/model.safetensors", -1);
    expect_differs(LOGPROB, "a sample of the model's weights", EXIT_INPUT);
}

/* Rank 0 works here, rank 1 in the folder `there`, or with another setting. */
static void test_bad_ranks(void) {
    CHECK(system("cp -r model there/") == 0, "there");
    Ended e = ranks_apart("cd there", TRAIN "--out run");
    expect_end("no data on rank 1", &e, EXIT_INPUT, "sails: rank 1: pairs.jsonl: cannot open");
    make_there();
    spoil_row("there/model/model.safetensors", 1); /* which the sample leaves out */
    forget("new/run");
    e = ranks_apart("cd there", TRAIN "--out new/run");
    expect_end("numbers of rank 1", &e, EXIT_NUMBERS, "sails: rank 1: step 1: loss ");
    Tree t = tree_read("new");
    const char *left = tree_temporary(&t);
    EXPECT(!left, "numbers of rank 1: %s is left", left ? left : "");
    tree_free(&t);
    e = ranks_apart("set -- \"$@\" --lr 1e-3", TRAIN "--out run");
    expect_end("other settings", &e, EXIT_USAGE, "sails: train.lr differs between ranks 0 and 1");
    e = ranks_run(2, "SAILS " TRAIN "--out run --learning-rate 1");
    expect_end("usage", &e, EXIT_USAGE, "unknown");
    e = ranks_apart("exec sleep 30", ONE_STEP "--init lora --deadline 3"); /* it never comes */
    expect_end("a rank that is no sails", &e, EXIT_RANK, "sails: rank 0: not all of the 2 ranks");
    e = ranks_run(3, "SAILS eval --responses nowhere");
    expect_end("a command of rank 0 alone", &e, EXIT_INPUT, "nowhere: cannot open");
}

static void expect_alone(const char *what, const char *variables, int code, const char *words) {
    char line[1024];
    snprintf(line, sizeof line, "env %s SAILS " TRAIN "--out run", variables);
    Program p = program_start_line(line, NULL);
    Ended e = program_end(&p);
    EXPECT(e.code == code && program_one_line(e.err, words), "%s: exit %d: %s", what, e.code,
           e.err);
}

static void test_launchers(void) {
    expect_alone("srun without MPI", "SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0",
                 EXIT_USAGE, "srun has started 4 processes, of which Open MPI");
    expect_alone("torchrun", "TORCHELASTIC_RUN_ID=x WORLD_SIZE=2 RANK=0 LOCAL_RANK=0", EXIT_USAGE,
                 "torchrun has started this");
    expect_alone("no plug-in",
                 "SAILS_MPI_PLUGIN=/nowhere OMPI_COMM_WORLD_SIZE=2 "
                 "OMPI_COMM_WORLD_RANK=0",
                 EXIT_USAGE, "build it against this machine's MPI");
}

/* ------------------------------------------------------------------- the simulated device -- */

#define CUDA_TRAIN                                                                  \
    "train " MODEL_IS                                                               \
    "--pack-tokens 128 --batch 7 --rank 4 --init lora --seed 3 --data pairs.jsonl " \
    "--steps 2 --device cuda "

static void train_on(int ranks) {
    char line[1024], what[64], folder[16];
    snprintf(what, sizeof what, "CUDA on %d ranks", ranks);
    snprintf(folder, sizeof folder, "cuda%d", ranks);
    snprintf(line, sizeof line, "SAILS " CUDA_TRAIN "--out %s", folder);
    Ended e = ranks > 1 ? ranks_run(ranks, line) : program_run(line + 6);
    EXPECT(e.code == 0, "%s: exit %d: %s", what, e.code, e.err);
    if (ranks > 1) expect_same_in(what, "adapter_model.safetensors", folder, "cuda1");
}

/* What else runs on devices, on data as small as shows anything: on two ranks as on one. */
#define FEW MODEL_IS "--device cuda --data few.jsonl "
static const struct {
    const char *line, *out[3];
} cuda_command[] = {
    {"train " FEW "--method full --batch 4 --steps 1 --out %s/full", {"full/model.safetensors"}},
    {"train " FEW "--method dpo --init lora --rank 2 --batch 4 --steps 2 --out %s/dpo",
     {"dpo/adapter_model.safetensors"}},
    {"score " FEW "--sae sae/{layer} --layers 1 --out %s/scores", {"scores"}},
    {"generate --model model --dtype f32 --device cuda --prompts prompts.jsonl --max-new-tokens 2 "
     "--temperature 1 --seed 9 --out %s/replies",
     {"replies"}},
    {"align few.yaml --device cuda --out %s/run",
     {"run/scores.safetensors", "run/adapters/sails/adapter_model.safetensors",
      "run/responses/sails.jsonl"}}};

static void test_cuda_commands(void) {
    write_text("few.yaml",
               "model: {path: model, dtype: f32}\ndata: {path: few.jsonl, heldout: 0, max-length: "
               "128}\nscore: {sae: 'sae/{layer}', layers: [1]}\nsubspace: {top-k: 2}\n"
               "train: {methods: [sails], batch: 4, steps: 1, rank: 2}\n"
               "generate: {prompts: prompts.jsonl, limit: 2, max-new-tokens: 2}\n");
    CHECK(system("head -4 pairs.jsonl >few.jsonl && mkdir few1 few2") == 0, "few.jsonl");
    for (size_t i = 0; i < sizeof cuda_command / sizeof *cuda_command; i++)
        for (int ranks = 1; ranks <= 2; ranks++) {
            char line[1024] = "SAILS ";
            snprintf(line + 6, sizeof line - 6, cuda_command[i].line, ranks == 1 ? "few1" : "few2");
            Ended e = ranks > 1 ? ranks_run(ranks, line) : program_run(line + 6);
            EXPECT(e.code == 0, "%d ranks, %s: exit %d: %s", ranks, line, e.code, e.err);
            for (int k = 0; k < 3 && ranks > 1 && cuda_command[i].out[k]; k++)
                expect_same_in(line, cuda_command[i].out[k], "few2", "few1");
        }
}

/* A rank that is lost in its moves, by the stand-in's faults: rank:call:kind. */
static void test_lost(const char *fault, int code, const char *words) {
    char line[1024];
    setenv("SAILS_NCCL_FAULT", fault, 1);
    Ended e = ranks_run(2, "SAILS " CUDA_TRAIN "--deadline 10 --out lost");
    unsetenv("SAILS_NCCL_FAULT");
    int n = ranks_lines(e.err, line, sizeof line);
    EXPECT(e.code == code && n >= 1 && strstr(line, words), "%s: exit %d, %d lines: %s", fault,
           e.code, n, e.err);
}

/* The seconds that ranks waited, or stood still for bytes, in a run's steps. */
static double waited_in(const char *path) {
    char line[2048];
    double ms = 0;
    FILE *f = fopen(path, "r");
    CHECK(f, "%s", path);
    while (fgets(line, sizeof line, f)) {
        json_t *step = json_loads(line, 0, NULL);
        ms += json_number_value(json_object_get(step, "wait_ms"));
        json_decref(step);
    }
    fclose(f);
    return 1e-3 * ms;
}

/* Rank 1 comes two seconds late to a move. */
static void test_late(void) {
    setenv("SAILS_NCCL_FAULT", "1:1:late:2", 1);
    Ended e = ranks_run(2, "SAILS " CUDA_TRAIN "--out late");
    unsetenv("SAILS_NCCL_FAULT");
    EXPECT(e.code == 0, "a late rank: exit %d: %s", e.code, e.err);
    if (e.code) return;
    expect_same_in("a late rank", "adapter_model.safetensors", "late", "cuda1");
    double waited = waited_in("late/metrics.jsonl");
    EXPECT(waited > 0.5, "a rank was 2 s late, and two waited %.3f s in the mean", waited);
}

static void test_cuda(const char *more) {
    train_on(1);
    train_on(more ? 4 : 2);
    train_on(more ? 8 : 3);
    if (more) return;
    if (!test_brief()) test_cuda_commands();
    test_late();
    test_lost("1:2:stops", EXIT_RANK, "stopped: rank 1 (");
    test_lost("1:2:error", EXIT_RANK, "transport: rank 1 (");
    setenv("SIMT_GPUS", "2", 1);
    Ended e = ranks_run(3, "SAILS " CUDA_TRAIN "--out few");
    expect_end("more ranks than GPUs", &e, EXIT_USAGE, "this machine shows 2 GPUs");
    setenv("SIMT_GPUS", "1", 1);
    e = ranks_run(2, "SAILS " CUDA_TRAIN "--out few");
    expect_end("one GPU twice", &e, EXIT_USAGE, "ranks 0 and 1 have the same GPU");
}

/* What the bench says of ranks: beside the gradients only losses and wishes move. */
static void test_bench(int ranks, int machines) {
    double sent = 0, formula = 0, signing = -1, crossing = 0;
    int calls = 0, shown = 1;
    char each[8];
    snprintf(each, sizeof each, "%d", ranks / machines);
    setenv("SAILS_MACHINE_RANKS", each, 1);
    Ended e = ranks_run(ranks, "SAILS bench --step --runs 1 " MODEL_IS
                               "--pack-tokens 128 --batch 7 --rank 4 --data pairs.jsonl");
    unsetenv("SAILS_MACHINE_RANKS");
    const char *at = strstr(e.out, "rank 0 sent "), *last = strstr(e.out, " machines: ");
    EXPECT(e.code == 0 && at &&
               sscanf(at,
                      "rank 0 sent %lf MB a step; gradients by the formula %lf MB\n"
                      "%d calls a step; their signatures take %lf ms",
                      &sent, &formula, &calls, &signing) == 4,
           "bench on ranks: exit %d: %s%s", e.code, e.out, e.err);
    EXPECT(sent >= formula - 0.002 * (machines - 1) && sent < formula + 0.004 * (ranks - 1),
           "sent %.4f MB, the formula %.4f", sent, formula);
    EXPECT(calls >= 3 && signing > 0 && signing < 10, "%d calls, %.4f ms", calls, signing);
    if (last) sscanf(last - 1, "%d machines: %lf MB", &shown, &crossing);
    double share = (machines - 1.0) / machines / (ranks / machines) * ranks / (ranks - 1.0);
    EXPECT(shown == machines && fabs(crossing - share * formula) < 0.002,
           "%d machines, %.4f MB between them, of %.4f", shown, crossing, formula);
}

/* The same of all weights, which two ranks share: what is gathered, too. */
static void test_bench_full(void) {
    double sent = 0, sums = 0, weights = 0;
    Ended e = ranks_run(2, "SAILS bench --step --runs 1 --method full " MODEL_IS
                           "--pack-tokens 128 --batch 7 --data pairs.jsonl");
    const char *at = strstr(e.out, "rank 0 sent ");
    EXPECT(
        e.code == 0 && at &&
            sscanf(at, "rank 0 sent %lf MB a step; gradients by the formula %lf MB, weights %lf MB",
                   &sent, &sums, &weights) == 3,
        "bench of all weights: exit %d: %s%s", e.code, e.out, e.err);
    EXPECT(weights > 0 && fabs(sent - sums - weights) < 0.01 * sent,
           "sent %.4f MB, the formulas %.4f and %.4f", sent, sums, weights);
}

int main(void) {
    bad_world();
    CHECK(
        mkdir("there", 0777) == 0 &&
            system(
                "sed 's/.*Assistant: \\([^\"]*\\)\".*rejected.*/{\"text\": \"\\1\"}/' pairs.jsonl "
                ">chosen.jsonl; for i in 1 2 3 4 5 6 7; do cat pairs.jsonl; done >all.jsonl") == 0,
        "files");
    const char *more = getenv("SAILS_TEST_RANKS"); /* "4,8" in place of 2,3 */
    const char *device = getenv("SAILS_TEST_DEVICE");
    if (device && strcmp(device, "cuda") == 0) {
        test_cuda(more);
        world_remove();
        return test_done("many_ranks");
    }
    run_commands(1);
    run_commands(more ? 4 : 2);
    if (!test_brief()) run_commands(more ? 8 : 3);
    if (!more) test_resume();
    if (!more) test_bad_ranks();
    if (!more) test_other_input();
    if (!more) test_launchers();
    if (!more && !test_brief()) test_bench(2, 1), test_bench(4, 2), test_bench_full();
    world_remove();
    return test_done("many_ranks");
}
