/* align on a small random world: all outputs are there and agree with each other; a second run
 * keeps every stage, and a change repeats exactly the stages that depend on it. */
#include "host/cli/json_lines.h"
#include "tests/align_run.h"

/* Every column of every row: a number where there must be one. */
static void test_summary(void) {
    static const char *const column[] = {"safety_rate",       "harmfulness", "high_risk",
                                         "over_refusal",      "perplexity",  "trainable",
                                         "trainable_percent", "seconds",     "tokens_per_second",
                                         "redundancy",        "empty"};
    static const char *const name[] = {"base", "lora", "sails"};
    json_t *summary = read_json("summary.json"), *row;
    size_t i;
    EXPECT(json_array_size(json_object_get(summary, "rows")) == 3, "rows");
    json_array_foreach (json_object_get(summary, "rows"), i, row) {
        const char *got = json_string_value(json_object_get(row, "name"));
        EXPECT(got && strcmp(got, name[i]) == 0, "row %zu is %s", i, got ? got : "nameless");
        for (size_t c = 0; c < sizeof column / sizeof *column; c++) {
            json_t *value = json_object_get(row, column[c]);
            bool absent = i == 0 && c >= 7 && c <= 9;    /* base is not trained */
            if (c == 3 && json_is_null(value)) continue; /* the one harmless reply is degenerate */
            EXPECT(absent ? json_is_null(value) : json_is_number(value), "%s of %s", column[c],
                   name[i]);
        }
        double perplexity = json_number_value(json_object_get(row, "perplexity"));
        double trainable = json_number_value(json_object_get(row, "trainable"));
        /* a random model of 703 pieces is near uniform, and learns */
        EXPECT(perplexity > (i ? 10 : 300) && perplexity < 3000, "perplexity %g", perplexity);
        /* rank 4 on q (64+64), k, v (64+32), o (64+64) of 4 layers */
        EXPECT(trainable == (i ? 4 * 4 * (128 + 96 + 96 + 128) : 0), "trainable %g", trainable);
    }
    json_decref(summary);
}

static void test_outputs(void) {
    static const char *const number[WORLD_PROMPTS] = {"1", "2", "3", "4", "5"};
    Err err;
    json_t *lines, *line;
    size_t i;
    MUST(json_lines_read(&lines, in_world("run/responses/sails.jsonl"), &err), err);
    EXPECT(json_array_size(lines) == WORLD_PROMPTS + 1, "%zu responses", json_array_size(lines));
    json_array_foreach (lines, i, line) {
        const char *category = json_string_value(json_object_get(line, "category"));
        EXPECT(category && strcmp(category, i == WORLD_PROMPTS ? "benign"
                                            : i % 2            ? "c1"
                                                               : "c0") == 0,
               "response %zu has category %s", i, category ? category : "none");
        const char *id = json_string_value(json_object_get(line, "id"));
        EXPECT(id && strcmp(id, i == WORLD_PROMPTS ? "benign/1" : number[i]) == 0,
               "response %zu is %s", i, id ? id : "nameless");
    }
    json_decref(lines);
    MUST(json_lines_read(&lines, in_world("run/metrics.jsonl"), &err), err);
    /* 23 pairs, floor(23 * 0.2) = 4 held out, 19 in batches of 4: 5 steps of 2 methods */
    EXPECT(json_array_size(lines) == 10, "%zu steps", json_array_size(lines));
    json_array_foreach (lines, i, line) {
        const char *method = json_string_value(json_object_get(line, "method"));
        EXPECT(method && strcmp(method, i < 5 ? "lora" : "sails") == 0, "line %zu is of %s", i,
               method ? method : "no method");
    }
    json_decref(lines);
    json_t *eval = read_json("eval/lora.json");
    EXPECT(json_array_size(json_object_get(eval, "responses")) == WORLD_PROMPTS + 1, "eval");
    EXPECT(json_integer_value(json_object_get(eval, "benign")) == 1, "benign prompts");
    json_decref(eval);
}

static void touch_end(const char *name, const char *bytes) {
    FILE *f = fopen(in_world("run/%s", name), "a");
    CHECK(f && fputs(bytes, f) >= 0 && fclose(f) == 0, "%s", name);
}

/* Changes a byte, `at` from the end; the size stays. */
static void put_byte(const char *name, long at, char c) {
    FILE *f = fopen(in_world("run/%s", name), "r+");
    CHECK(f && fseek(f, at, SEEK_END) == 0 && fputc(c, f) == c && fclose(f) == 0, "%s", name);
}

static void test_stages(void) {
    static const char everything[] =
        "score subspace-sails generate-base eval-base perplexity-base train-lora generate-lora "
        "eval-lora "
        "perplexity-lora train-sails generate-sails eval-sails perplexity-sails";
    static const char trained[] =
        "train-lora generate-lora eval-lora perplexity-lora train-sails generate-sails eval-sails "
        "perplexity-sails";
    same("the first run", align(""), everything);
    test_summary();
    test_outputs();
    same("the second run", align(""), "");
    same("other threads", align("--threads 1"), "");
    Err err;
    char own[512];
    snprintf(own, sizeof own, "%s", in_world("run/recipe.yaml"));
    EXPECT(world_run(&cmd_align, own, &err), "the run's own recipe: %s", err.text);
    TEST_DETECTS(same("the second run", align(""), everything));
    same("another learning rate", align("--lr 2e-2"), trained);
    same("back again", align(""), trained);
    same("another k", align("--subspace.top-k 5"),
         "subspace-sails train-sails generate-sails eval-sails perplexity-sails");
    same("another subspace flag", align("--subspace.top-k 5 --basis-scale 2"),
         "train-sails generate-sails eval-sails perplexity-sails");
    same("back again", align(""),
         "subspace-sails train-sails generate-sails eval-sails perplexity-sails");
    same("longer replies", align("--max-new-tokens 7"),
         "generate-base eval-base generate-lora eval-lora generate-sails eval-sails");
    same("other benign categories", align("--max-new-tokens 7 --set eval.benign-categories=c0"),
         "eval-base eval-lora eval-sails");
    align("");
    CHECK(remove(in_world("run/responses/lora.jsonl")) == 0, "no responses");
    same("a lost output", align(""), "generate-lora");
    touch_end("scores.safetensors", "x");
    same("a damaged output", align(""), "score");
    touch_end("stages/eval-base.json", "x");
    same("a damaged stamp", align(""), "eval-base");
}

/* Other inputs, after test_stages. */
static void test_inputs(void) {
    char line[1500];
    snprintf(line, sizeof line, "--tokenizer %s", in_world("model"));
    same("the same tokenizer by its folder", align(line), "");
    touch_end("../sae/1/cfg.json", "\n");
    same("another reading of an SAE", align(""), "score subspace-sails");
    put_byte("../prompts.jsonl", -4, 'x'); /* of a category */
    same("prompts of the same size", align(""),
         "generate-base eval-base generate-lora eval-lora generate-sails eval-sails");
    static const char with_model[] =
        "score generate-base perplexity-base train-lora generate-lora perplexity-lora train-sails "
        "generate-sails perplexity-sails";
    touch_end("../model/tokenizer.json", "\n");
    same("another tokenizer", align(""), with_model);
    touch_end("../model/config.json", "\n");
    same("another configuration", align(""), with_model);
    snprintf(line, sizeof line, "--methods sails --aligned %s --unaligned %s",
             in_world("pairs.jsonl"), in_world("pairs.jsonl"));
    EXPECT(strncmp(align(line), "score ", 6) == 0, "corpora of their own were not scored");
    EXPECT(strncmp(align(line), "score ", 6) != 0, "the same corpora were scored again");
    strcat(line, " --data.limit 7");
    EXPECT(strncmp(align(line), "score ", 6) == 0, "a part of the corpora was not scored");
    FILE *f = fopen(in_world("pairs.jsonl"), "a");
    CHECK(f &&
              fputs("{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: b\", \"rejected\": "
                    "\"\\n\\nHuman: a\\n\\nAssistant: c\"}\n",
                    f) >= 0 &&
              fclose(f) == 0,
          "pairs");
    const char *made = align("");
    EXPECT(strstr(made, "score ") && strstr(made, "train-lora") &&
               strstr(made, "perplexity-base") && !strstr(made, "generate-base"),
           "more data made '%s'", made);
}

/* A model of long texts and many prompts for it, so that MUCH is 2 TB of keys and values. */
#define MUCH "--generate.batch 4096 --max-new-tokens 1000000"
static void make_long(void) {
    Err err;
    char line[1024];
    snprintf(line, sizeof line,
             "--layers 2 --hidden 64 --ffn 96 --heads 4 --kv-heads 2 --head-dim 16 --positions "
             "1048576 --json --tokenizer tests/golden/tokenizer_small.json --out %s",
             in_world("long"));
    MUST(world_run(&cmd_init, line, &err), err);
    FILE *f = fopen(in_world("many.jsonl"), "w");
    for (int i = 0; i < 4096; i++) CHECK(f && fputs("{\"prompt\": \"Why?\"}\n", f) >= 0, "many");
    CHECK(fclose(f) == 0, "many");
}

/* Runs with flags that must be refused with `says`: the run that is there stays as it is, and one
 * that is not does not appear. */
static void refused(const char *flags, const char *says) {
    static const char *const kept[] = {"run/recipe.yaml", "run/manifest.json"};
    char line[2048];
    Buf before[2];
    for (int i = 0; i < 2; i++) before[i] = file_bytes(in_world("%s", kept[i]));
    for (int fresh = 0; fresh < 2; fresh++) {
        snprintf(line, sizeof line, "%s%s%s", flags, fresh ? " --out " : "",
                 fresh ? in_world("fresh") : "");
        const char *made = align(line);
        EXPECT(strncmp(made, says, strlen(says)) == 0, "%s gave '%s'", line, made);
    }
    EXPECT(!files_exists(in_world("fresh")), "%s left a folder behind", flags);
    for (int i = 0; i < 2; i++) {
        Buf after = file_bytes(in_world("%s", kept[i]));
        EXPECT(after.n == before[i].n && memcmp(after.p, before[i].p, after.n) == 0,
               "%s changed %s", flags, kept[i]);
        buf_free(&before[i]);
        buf_free(&after);
    }
}

/* What must be found out before any work, with its exit code. */
static void test_refused(void) {
    static const struct {
        const char *flags, *says;
    } bad[] = {
        {"--sae nowhere/{layer}", "error 3: --sae nowhere/1: no SAE"},
        {"--tokenizer nowhere", "error 3: nowhere"},
        {"--aligned nowhere.jsonl --unaligned nowhere.jsonl", "error 3: nowhere.jsonl"},
        {"--layers 4", "error 2: --layers: expected 0 to 3"},
        {"--layers 2-1", "error 2: --layers: expected numbers"},
        {"--methods base,base", "error 2: train.methods: base is there twice"},
        {"--prompts nowhere.csv", "error 3: nowhere.csv"},
        {"--benign nowhere.csv", "error 3: nowhere.csv"},
        {"--model nowhere", "error 3: nowhere"},
        {"--pack-tokens 64", "error 2: --pack-tokens"},
        {"--rank 0 --methods lora", "error 2: --rank auto"},
        {"--rank 0", "error 2: --rank auto"},
        {"--rank 0 --methods random-basis", "error 2: --rank auto"},
        {"--rank 0 --methods direct-mean", "error 2: --rank auto"},
        {"--rank 65 --methods direct-pairs", "error 2: --rank 65: expected at most the model's"},
        {"--methods direct-pairs --aligned tests/world.h --unaligned tests/world.h",
         "error 2: the method direct-pairs needs pairs"},
        {"--rank 41 --methods sails-span", "error 2: --rank 41: expected at most the 40 features"},
        {"--set score.sae=", "error 2: score.sae and score.layers"},
        /* 16 million rows of activations */
        {"--seed 1 --pack-tokens 16000000", "error 4: score: does not fit"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refused(bad[i].flags, bad[i].says);
    char line[1500];
    snprintf(line, sizeof line, "--methods lora --model %s --prompts %s %s", in_world("long"),
             in_world("many.jsonl"), MUCH);
    refused(line, "error 4: generate: does not fit");
    snprintf(line, sizeof line, "--out %s", in_world("long"));
    const char *made = align(line);
    EXPECT(strstr(made, "holds files but no run"), "a folder that is no run gave '%s'", made);
}

/* Another value that the setting may have; "" where there is none to choose from here. */
static const char *another_value(const Setting *s, const char *key, char text[SETTING_KEY]) {
    static const char *const fixed[][2] = {{"data.limit", "7"},
                                           {"data.max-length", "200"},
                                           {"data.pack-tokens", "400"},
                                           {"generate.max-new-tokens", "3"},
                                           {"train.steps", "2"}};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (strcmp(key, fixed[i][0]) == 0) return fixed[i][1];
    double x = strtod(s->fallback, NULL);
    if (s->type == SET_INT) snprintf(text, SETTING_KEY, "%d", (int)x + 1);
    if (s->type == SET_REAL)
        snprintf(text, SETTING_KEY, "%.9g", x > 0 ? x * 0.875 : (s->least + s->most) / 64);
    if (s->type == SET_FLAG)
        snprintf(text, SETTING_KEY, "%s", *s->fallback == 't' ? "false" : "true");
    if (s->type == SET_CHOICE) {
        size_t n = strlen(s->fallback);
        bool first = strncmp(s->detail, s->fallback, n) == 0 && s->detail[n] == '|';
        setting_choice_name(s->detail, first, text);
    }
    return text;
}

/* Of every number, switch and choice that the recipe may set, a change repeats some stage: a
 * setting that no stage's key has would leave stale results standing. Changes add up, so that each
 * is seen apart from the others. */
static void test_every_setting_counts(void) {
    if (test_brief()) return; /* forty times the lines that other tests have run */
    static const char *const without_effect[] = {
        "threads",
        "json",
        "deadline",
        "generate.batch",
        "model.device",
        "model.dtype",
        "train.eval-every",
        "train.checkpoint-every",
        "train.checkpoint-minutes",
        "train.keep",
        "train.rho",             /* of eva: test_inputs */
        "train.recompute",       /* the same bytes: test_recompute */
        "eval.judge-plain-http", /* of a judge behind HTTP: test_align_judge */
        "eval.judge-dialect",
        "eval.judge-max-tokens",
        "eval.judge-concurrency",
        "eval.judge-timeout",
        "eval.judge-tries",
        "eval.judge-price-in",
        "eval.judge-price-out",
        "eval.judge-budget",
        "train.tensorboard",
        "generate.suite", /* these read other files: test_align_suites */
        "generate.benign-suite",
        "train.loss-type", /* of dpo: test_align_methods */
        "train.beta",
        "train.label-smoothing",
        "inputs.preserve-rank", /* of salora: test_align_starts */
        "inputs.samples",
        "train.seeds", /* of a grid: test_grid */
        "train.validation"};
    char flags[4096] = "--methods sails";
    write_recipe("8", ", steps: 1"); /* as little as possible: it is run some forty times */
    align(flags);
    int tried = 0;
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        const Setting *s = &settings_table[i];
        char key[SETTING_KEY], text[SETTING_KEY] = "";
        setting_key(s, key);
        bool skip = !command_uses(&cmd_align, i);
        if (strcmp(key, "cpu") == 0 && exec_cpu_level() == CPU_LEAST) skip = true; /* no other */
        for (size_t j = 0; j < sizeof without_effect / sizeof *without_effect; j++)
            skip = skip || strcmp(key, without_effect[j]) == 0;
        const char *value = skip ? "" : another_value(s, key, text);
        if (!*value) continue;
        if (strncmp(key, "explain.", 8) == 0 && !strstr(flags, "--parts")) {
            strcat(flags, EXPLAINED); /* only now: its stages take as long as all others */
            align(flags);
        }
        size_t n = strlen(flags);
        snprintf(flags + n, sizeof flags - n, " --%s %s", key, value);
        const char *made = align(flags);
        EXPECT(*made && strncmp(made, "error", 5) != 0, "--%s %s made '%s'", key, value, made);
        tried++;
    }
    EXPECT(tried >= 30, "only %d settings were tried", tried);
}

static void does_not_fit(const Command *c, const char *line) {
    Err err = {0};
    bool ok = world_run(c, line, &err);
    EXPECT(!ok && err.code == EXIT_MEMORY && strstr(err.text, "does not fit"), "%s: %d %s", c->name,
           err.code, err.text);
}

/* Said before anything is allocated: 16 million rows of activations, or 2 TB of keys and values,
 * are far more than there is. */
static void test_does_not_fit(void) {
    extern const Command cmd_score, cmd_generate;
    char line[2048];
    snprintf(line, sizeof line,
             "--model %s --data %s --sae %s --layers 1 --max-length 128 --dtype f32 --pack-tokens "
             "16000000 --out %s",
             in_world("model"), in_world("pairs.jsonl"), in_world("sae/{layer}"), in_world("s"));
    does_not_fit(&cmd_score, line);
    snprintf(line, sizeof line, "--model %s --prompts %s --benign %s --out %s %s", in_world("long"),
             in_world("benign.jsonl"), in_world("many.jsonl"), in_world("r"), MUCH);
    does_not_fit(&cmd_generate, line);
    EXPECT(!files_exists(in_world("r")), "an output of nothing");
}

int main(void) {
    world_make();
    make_long();
    write_recipe("0", "");
    test_stages();
    align("");
    test_inputs();
    test_refused();
    test_does_not_fit();
    test_every_setting_counts();
    world_remove();
    return test_done("align");
}
