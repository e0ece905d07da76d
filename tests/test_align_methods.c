/* The rows of align's table that are no start of an adapter: `full` and `dpo`. What they leave is
 * what `sails train` makes of the same records at the same default rates; on two ranks, and after a
 * stop, too; and a whole model's weights may go, and come back when they are needed. */
#include <math.h>
#include <signal.h>

#include "host/cli/json_lines.h"
#include "host/stage/dataset.h"
#include "tests/ranks.h"
#include "tests/same_files.h"

#define ALIGN "align recipe.yaml --steps 3 "
#define ROWS ALIGN "--methods base,lora,full,dpo --out run "

/* The records that align trains on, and those that it holds out, as files of their own. */
static void write_split(void) {
    static const char *const name[] = {"train.jsonl", "held.jsonl"};
    char line[WORLD_PAIRS][512];
    Split s;
    FILE *f = fopen("pairs.jsonl", "r");
    CHECK(f, "pairs.jsonl");
    for (int i = 0; i < WORLD_PAIRS; i++) CHECK(fgets(line[i], sizeof line[i], f), "line %d", i);
    fclose(f);
    split_make(&s, WORLD_PAIRS, 0.2, 0);
    for (int part = 0; part < 2; part++) {
        const size_t *index = part ? s.held : s.train, n = part ? s.nheld : s.ntrain;
        CHECK((f = fopen(name[part], "w")), "%s", name[part]);
        for (size_t i = 0; i < n; i++) fputs(line[index[i]], f);
        CHECK(fclose(f) == 0, "%s", name[part]);
    }
    split_free(&s);
}

static json_t *read_value(const char *path) {
    json_t *value;
    Err err;
    MUST(files_read_json(&value, path, 1 << 20, &err), err);
    return value;
}

/* Runs a line that must work; returns how many stages it made, and their names in `names`. */
static int made(const char *line, const char *folder, char names[1024]) {
    char path[64];
    const char *name;
    json_t *stage;
    int n = 0;
    Ended e = program_run(line);
    EXPECT(e.code == 0, "%s: exit %d: %s", line, e.code, e.err);
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    json_t *manifest = read_value(path);
    strcpy(names, " ");
    json_object_foreach (json_object_get(manifest, "stages"), name, stage) {
        if (strcmp(json_string_value(json_object_get(stage, "state")), "made") != 0) continue;
        strncat(names, name, 1000 - strlen(names));
        strcat(names, " ");
        n++;
    }
    json_decref(manifest);
    return n;
}

static double number(const json_t *row, const char *key) {
    const json_t *value = json_object_get(row, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Another command's perplexity of a model over what is held out. */
static double perplexity(const char *model) {
    char line[512];
    double sum = 0, labels = 0;
    json_t *records, *record;
    size_t k;
    Err err;
    snprintf(line, sizeof line,
             "logprob --model %s --dtype f32 --max-length 128 --data held.jsonl --out nll", model);
    program_must(line);
    MUST(json_lines_read(&records, "nll", &err), err);
    json_array_foreach (records, k, record) {
        json_t *p = json_object_get(record, "logprobs"), *label = json_object_get(record, "labels");
        for (size_t i = 0; i < json_array_size(p); i++) /* of the token after it */
            if (json_integer_value(json_array_get(label, i + 1)))
                sum -= json_number_value(json_array_get(p, i)), labels++;
    }
    json_decref(records);
    return exp(sum / labels);
}

/* As the commands do it, at rates that nobody gave. */
static void test_as_commands(void) {
#define TRAIN                                                                               \
    "train --model model --data train.jsonl --dtype f32 --max-length 128 --batch 4 --rank " \
    "4 --steps 3 "
    program_must(
        "train --model model --data train.jsonl --dtype f32 --max-length 128 --batch 4 "
        "--steps 3 --method full --out tuned");
    program_must(TRAIN "--method dpo --init lora --out preferring");
    program_must(TRAIN "--init lora --out adapting");
    expect_same_in("full", "model.safetensors", "run/models/full", "tuned");
    expect_same_in("dpo", "adapter_model.safetensors", "run/adapters/dpo", "preferring");
    expect_same_in("lora", "adapter_model.safetensors", "run/adapters/lora", "adapting");
}

static void test_rows(void) {
    char names[1024];
    Ended e = program_run(ROWS);
    EXPECT(e.code == 0 && strstr(e.out, "the method full writes whole models"), "exit %d: %s%s",
           e.code, e.out, e.err);
    json_t *summary = read_value("run/summary.json"), *rows = json_object_get(summary, "rows");
    const json_t *lora = json_array_get(rows, 1), *full = json_array_get(rows, 2);
    const json_t *dpo = json_array_get(rows, 3);
    size_t parameters = 0;
    Err err;
    StSet *set;
    MUST(st_open_folder(&set, "model", "model", &err), err);
    for (size_t i = 0; i < st_count(set); i++) parameters += st_at(set, i)->count;
    st_close(set);
    EXPECT(
        number(full, "trainable") == (double)parameters && number(full, "trainable_percent") == 100,
        "full trains %g of %zu", number(full, "trainable"), parameters);
    EXPECT(number(full, "rate") == 2e-5 && json_is_null(json_object_get(full, "redundancy")),
           "full: rate %g", number(full, "rate"));
    EXPECT(number(dpo, "trainable") == number(lora, "trainable"), "dpo trains %g",
           number(dpo, "trainable"));
    static const char *const column[] = {"safety_rate", "perplexity", "seconds"};
    for (int i = 0; i < 3; i++)
        EXPECT(isfinite(number(full, column[i])) && isfinite(number(dpo, column[i])), "%s",
               column[i]);
    const json_t *versus = json_object_get(full, "versus");
    const char *other = json_string_value(json_object_get(versus, "row"));
    EXPECT(other && strcmp(other, "lora") == 0 && isfinite(number(versus, "mcnemar")), "versus %s",
           other ? other : "nothing");
    double base = number(json_array_get(rows, 0), "perplexity"), it = number(full, "perplexity");
    EXPECT(fabs(it / perplexity("run/models/full") - 1) <= 1e-6 && it < base,
           "full's perplexity %.9g, base's %.9g", it, base);
    json_decref(summary);
    test_as_commands();
    EXPECT(made(ROWS, "run", names) == 0, "made again:%s", names);
    EXPECT(made("align run/recipe.yaml", "run", names) == 0, "of the run's own recipe:%s", names);
}

/* Each has settings of its own. */
static void test_keys(void) {
    char names[1024];
    made(ROWS "--beta 0.2", "run", names);
    EXPECT(strncmp(names, " train-dpo generate-dpo", 23) == 0 && !strstr(names, "lora"), "beta:%s",
           names);
    made(ROWS "--rank 3", "run", names);
    EXPECT(
        strstr(names, " train-lora ") && strstr(names, " train-dpo ") && !strstr(names, "-full "),
        "rank:%s", names);
}

/* Of the run before. */
static void test_missing(void) {
    char names[1024];
    const char *weights = "run/models/full/model.safetensors";
    CHECK(remove(weights) == 0, "%s", weights);
    EXPECT(made(ROWS "--rank 3", "run", names) == 0, "without need:%s", names);
    made(ROWS "--rank 3 --max-new-tokens 5", "run", names);
    EXPECT(strstr(names, " train-full ") && strstr(names, " generate-full ") &&
               !strstr(names, " train-lora "),
           "other replies:%s", names);
    expect_same("trained again", weights, "tuned/model.safetensors");
    FILE *f = fopen(weights, "a");
    CHECK(f && fputc('x', f) == 'x' && fclose(f) == 0, "%s", weights);
    made(ROWS "--rank 3", "run", names);
    EXPECT(strstr(names, " train-full "), "damaged weights were used:%s", names);
    expect_same("trained again", weights, "tuned/model.safetensors");
}

/* Of two rates and two seeds the weights of one rate are left, and all else. */
static void test_grid(void) {
#define GRID ALIGN "--methods full --rates 1e-2,1e-3 --seeds 2 --validation 0.4 --out grid"
    static const char *const rate[] = {"0.01", "0.001"};
    char names[1024], path[96];
    json_t *lines;
    Err err;
    made(GRID, "grid", names);
    json_t *summary = read_value("grid/summary.json");
    double best = number(json_array_get(json_object_get(summary, "rows"), 0), "rate");
    for (int i = 0; i < 4; i++) {
        bool stays = strtod(rate[i / 2], NULL) == best;
        snprintf(path, sizeof path, "grid/models/full.%s.seed%d/model.safetensors", rate[i / 2],
                 i % 2);
        EXPECT(files_exists(path) == stays, "%s: the rate is %g", path, best);
        strcpy(strrchr(path, '/'), "/metrics.jsonl");
        EXPECT(files_exists(path), "no %s", path);
    }
    MUST(json_lines_read(&lines, "grid/metrics.jsonl", &err), err);
    EXPECT(json_array_size(lines) == 4 * 3, "%zu steps", json_array_size(lines));
    json_decref(lines);
    json_decref(summary);
    EXPECT(made(GRID, "grid", names) == 0, "made again:%s", names);
}

static void refused(const char *flags, int code, const char *says) {
    char line[512];
    snprintf(line, sizeof line, ALIGN "--out refused %s", flags);
    Ended e = program_run(line);
    EXPECT(e.code == code && program_one_line(e.err, says), "%s: exit %d: %s", flags, e.code,
           e.err);
    EXPECT(!files_exists("refused"), "%s left a folder", flags);
}

static void test_refused(void) {
    write_text("chats.jsonl",
               "{\"prompt\": \"Why?\", \"completion\": \"So.\"}\n"
               "{\"prompt\": \"When?\", \"completion\": \"Now.\"}\n");
    refused("--methods base,dpo --data chats.jsonl", EXIT_INPUT, "the method dpo needs pairs");
    refused("--methods dpo --pack-tokens 200", EXIT_USAGE, "at least 256 for pairs");
    refused("--methods dpo --loss-type exo_pair", EXIT_USAGE, "--label-smoothing above 0");
}

static void test_ranks(void) {
    Ended one = program_run(ALIGN "--methods full,dpo --out one");
    Ended two = ranks_run(2, "SAILS " ALIGN "--methods full,dpo --out two");
    EXPECT(one.code == 0 && two.code == 0, "exits %d and %d: %s%s", one.code, two.code, one.err,
           two.err);
    static const char *const result[] = {"models/full/model.safetensors", "models/full.json",
                                         "adapters/dpo/adapter_model.safetensors",
                                         "responses/full.jsonl", "responses/dpo.jsonl"};
    for (int i = 0; i < 5; i++) expect_same_in("two ranks", result[i], "two", "one");
    setenv("SAILS_MACHINE_RANKS", "1", 1);
    two = ranks_run(2, "SAILS " ALIGN "--methods full,dpo --out apart");
    unsetenv("SAILS_MACHINE_RANKS");
    EXPECT(two.code == EXIT_USAGE && strstr(two.err, "--method full: expected the ranks of one"),
           "ranks apart: exit %d: %s", two.code, two.err);
}

/* Stopped within the training of all weights; the same command goes on. */
static void test_stop(void) {
#define LONG "align recipe.yaml --methods full --steps 20 --out "
    static char out[1 << 16];
    program_must(LONG "straight");
    Program p = program_start(LONG "stopped", NULL);
    while (!program_ended(&p) && !strstr(out, "step 5/")) {
        program_text(out, sizeof out, p.out);
        usleep(500);
    }
    kill(p.pid, SIGUSR1);
    Ended e = program_end(&p);
    EXPECT(e.code == EXIT_STOPPED, "exit %d: %s", e.code, e.err);
    EXPECT(files_exists("stopped/unfinished/train-full"), "nothing was kept");
    program_must(LONG "stopped");
    expect_same_in("stopped", "models/full/model.safetensors", "stopped", "straight");
    EXPECT(!files_exists("stopped/unfinished"), "what was kept stays");
}

int main(void) {
    world_make();
    CHECK(chdir(world) == 0, "%s", world);
    write_text("recipe.yaml",
               "model: {path: model, dtype: f32}\n"
               "data: {path: pairs.jsonl, heldout: 0.2, max-length: 128}\n"
               "train: {batch: 4, rank: 4}\n"
               "generate: {prompts: prompts.jsonl, max-new-tokens: 4, batch: 4}\n");
    write_split();
    test_rows();
    test_keys();
    test_missing();
    test_grid();
    test_refused();
    test_ranks();
    test_stop();
    world_remove();
    return test_done("align_methods");
}
