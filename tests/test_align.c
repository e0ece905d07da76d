/* align on a small random world: all outputs are there and agree with each other; a second run
 * keeps every stage, and a change repeats exactly the stages that depend on it. */
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>

#include "data/buf.h"
#include "host/align.h"
#include "host/json_lines.h"
#include "host/run.h"
#include "model/lora.h"
#include "tests/world.h"

extern const Command cmd_align;

/* `more` is for the section train. */
static void write_recipe(const char *limit, const char *more) {
    char text[2048];
    Err err;
    int n = snprintf(text, sizeof text,
                     "out: %s\njson: true\nmodel: {path: %s, dtype: f32}\n"
                     "data: {path: %s, heldout: 0.2, max-length: 128, limit: %s}\n"
                     "score: {sae: \"%s\", layers: [1, 2]}\nsubspace: {top-k: 6}\n"
                     "train: {batch: 4, lr: 1e-2, rank: 4, epochs: 1%s}\n",
                     in_world("run"), in_world("model"), in_world("pairs.jsonl"), limit,
                     in_world("sae/{layer}"), more);
    n += snprintf(text + n, sizeof text - (size_t)n,
                  "generate: {prompts: %s, benign: %s, max-new-tokens: 6}\n",
                  in_world("prompts.jsonl"), in_world("benign.jsonl"));
    MUST(files_write(in_world("recipe.yaml"), text, (size_t)n, &err), err);
}

static json_t *read_json(const char *name) {
    json_t *value;
    Err err;
    MUST(files_read_json(&value, in_world("run/%s", name), 1 << 20, &err), err);
    return value;
}

/* Runs with extra flags; returns the names of the stages that were made, in a fixed order. */
static const char *align(const char *flags) {
    static char made[1200];
    static const char *const stage[] = {
        "score",          "subspace",      "generate-base",   "eval-base",       "perplexity-base",
        "train-lora",     "generate-lora", "eval-lora",       "perplexity-lora", "train-sails",
        "generate-sails", "eval-sails",    "perplexity-sails"};
    char line[6000];
    Err err;
    snprintf(line, sizeof line, "%s %s", in_world("recipe.yaml"), flags);
    *made = 0;
    if (!world_run(&cmd_align, line, &err)) {
        snprintf(made, sizeof made, "error %d: %s", err.code, err.text);
        return made;
    }
    json_t *manifest = read_json("manifest.json");
    json_t *stages = json_object_get(manifest, "stages");
    for (size_t i = 0; i < sizeof stage / sizeof *stage; i++) {
        json_t *state = json_object_get(json_object_get(stages, stage[i]), "state");
        const char *text = json_string_value(state);
        if (text && strcmp(text, "made") == 0) {
            strcat(made, *made ? " " : "");
            strcat(made, stage[i]);
        }
    }
    json_decref(manifest);
    return made;
}

static bool same(const char *what, const char *got, const char *want) {
    bool ok = strcmp(got, want) == 0;
    EXPECT(test_quiet || ok, "%s made '%s', expected '%s'", what, got, want);
    return ok;
}

/* Every column of every row: a number where there must be one. */
static void test_summary(void) {
    static const char *const column[] = {
        "safety_rate", "harmfulness",       "high_risk", "over_refusal",      "perplexity",
        "trainable",   "trainable_percent", "seconds",   "tokens_per_second", "empty"};
    static const char *const name[] = {"base", "lora", "sails"};
    json_t *summary = read_json("summary.json"), *row;
    size_t i;
    EXPECT(json_array_size(json_object_get(summary, "rows")) == 3, "rows");
    json_array_foreach(json_object_get(summary, "rows"), i, row) {
        const char *got = json_string_value(json_object_get(row, "name"));
        EXPECT(got && strcmp(got, name[i]) == 0, "row %zu is %s", i, got ? got : "nameless");
        for (size_t c = 0; c < sizeof column / sizeof *column; c++) {
            json_t *value = json_object_get(row, column[c]);
            bool absent = i == 0 && (c == 7 || c == 8); /* base is not trained */
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
    json_array_foreach(lines, i, line) {
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
    json_array_foreach(lines, i, line) {
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

static Buf file_bytes(const char *path) {
    Err err;
    Buf b = {0};
    MUST(files_read(&b.p, &b.n, path, 1 << 24, &err), err);
    return b;
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
        "score subspace generate-base eval-base perplexity-base train-lora generate-lora eval-lora "
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
         "subspace train-sails generate-sails eval-sails perplexity-sails");
    same("another subspace flag", align("--subspace.top-k 5 --basis-scale 2"),
         "train-sails generate-sails eval-sails perplexity-sails");
    same("back again", align(""),
         "subspace train-sails generate-sails eval-sails perplexity-sails");
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
    char line[1500];
    snprintf(line, sizeof line, "--tokenizer %s", in_world("model"));
    same("the same tokenizer by its folder", align(line), "");
    touch_end("../sae/1/cfg.json", "\n");
    same("another reading of an SAE", align(""), "score subspace");
    put_byte("../prompts.jsonl", -4, 'x'); /* of a category */
    same("prompts of the same size", align(""),
         "generate-base eval-base generate-lora eval-lora generate-sails eval-sails");
    touch_end("../model/tokenizer.json", "\n");
    same("another tokenizer", align(""),
         "score generate-base perplexity-base train-lora generate-lora perplexity-lora train-sails "
         "generate-sails perplexity-sails");
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

static void give_time(const char *path, time_t seconds) {
    struct timespec t[2] = {{seconds, 0}, {seconds, 0}};
    CHECK(utimensat(AT_FDCWD, path, t, 0) == 0, "%s", path);
}

static void lead(const char *link, const char *to) {
    unlink(link);
    CHECK(symlink(to, link) == 0, "%s", link);
}

static void copy_changed(const char *to, const char *from, const char *a, const char *b) {
    Buf bytes = file_bytes(from);
    char *at = memmem(bytes.p, bytes.n, a, strlen(a));
    CHECK(at && strlen(a) == strlen(b), "%s", a);
    memcpy(at, b, strlen(b));
    Err err;
    MUST(files_write(to, bytes.p, bytes.n, &err), err);
    buf_free(&bytes);
}

/* The hash that the manifest has for a path. */
static bool manifest_says(const char *path, const char *want) {
    json_t *manifest = read_json("manifest.json");
    json_t *input = json_object_get(json_object_get(manifest, "inputs"), path);
    const char *got = json_string_value(json_object_get(input, "sha256"));
    bool same_hash = got && strcmp(got, want) == 0;
    json_decref(manifest);
    return same_hash;
}

/* As if the run had been hours ago: what the manifest says of its inputs may be believed. */
static void age_hashes(void) {
    json_t *manifest = read_json("manifest.json"), *input;
    const char *path;
    Err err;
    json_object_foreach(json_object_get(manifest, "inputs"), path, input) {
        json_t *state = json_object_get(input, "state");
        json_int_t ctime = json_integer_value(json_object_get(state, "ctime"));
        json_object_set_new(input, "hashed", json_integer(ctime + 3600000000000));
    }
    MUST(files_write_json(in_world("run/manifest.json"), manifest, &err), err);
    json_decref(manifest);
}

/* Two files of one size and one time of change behind one link, then two checkpoints of one shape,
 * then a file written over in place whose time is put back: the content decides. */
static void test_content(void) {
    char line[1500], hex[65];
    Err err;
    const char *const A = "a.jsonl", *const B = "b.jsonl";
    copy_changed(in_world("a.jsonl"), in_world("prompts.jsonl"), "bread", "bread");
    copy_changed(in_world("b.jsonl"), in_world("prompts.jsonl"), "bread", "broth");
    give_time(in_world("a.jsonl"), 1600000000);
    give_time(in_world("b.jsonl"), 1600000000);
    lead(in_world("link.jsonl"), A);
    snprintf(line, sizeof line, "--methods base --prompts %s", in_world("link.jsonl"));
    align(line);
    same("the same link", align(line), "");
    age_hashes();
    lead(in_world("link.jsonl"), B);
    same("a link to a twin", align(line), "generate-base eval-base");
    MUST(files_sha256(hex, in_world("b.jsonl"), &err), err);
    EXPECT(manifest_says(in_world("link.jsonl"), hex), "the manifest has another file's hash");

    CHECK(rename(in_world("model"), in_world("model-a")) == 0, "model");
    MUST(files_mkdirs(in_world("model-b"), &err), err);
    static const char *const part[] = {"config.json", "generation_config.json", "tokenizer.json"};
    for (int i = 0; i < 3; i++)
        copy_changed(in_world("model-b/%s", part[i]), in_world("model-a/%s", part[i]), "{", "{");
    copy_changed(in_world("model-b/model.safetensors"), in_world("model-a/model.safetensors"),
                 "\x3d", "\x3e"); /* a byte of some weight */
    give_time(in_world("model-a/model.safetensors"), 1600000000);
    give_time(in_world("model-b/model.safetensors"), 1600000000);
    lead(in_world("model"), "model-a");
    align(line);
    age_hashes();
    lead(in_world("model"), "model-b");
    same("another checkpoint", align(line), "generate-base perplexity-base");
    lead(in_world("model"), "model-a");
    align(line);

    age_hashes();
    FILE *f = fopen(in_world("b.jsonl"), "r+"); /* in place: the same inode and size */
    CHECK(f && fseek(f, 20, SEEK_SET) == 0 && fputc('x', f) == 'x' && fclose(f) == 0, "b");
    give_time(in_world("b.jsonl"), 1600000000);
    same("a file written over", align(line), "generate-base eval-base");
    CHECK(rename(in_world("b.jsonl"), in_world("moved.jsonl")) == 0, "b");
    snprintf(line, sizeof line, "--methods base --prompts %s", in_world("moved.jsonl"));
    same("the same file elsewhere", align(line), "");
}

/* A hash is taken from the manifest only when the file had been left alone for longer than a tick
 * of its clock when it was read. */
static void test_saved_hash(void) {
    char path[512], hex[65];
    snprintf(path, sizeof path, "%s", in_world("benign.jsonl"));
    Err err;
    MUST(files_sha256(hex, path, &err), err);
    for (int late = 0; late < 2; late++) {
        align("--methods base");
        json_t *manifest = read_json("manifest.json");
        json_t *input = json_object_get(json_object_get(manifest, "inputs"), path);
        json_int_t ctime =
            json_integer_value(json_object_get(json_object_get(input, "state"), "ctime"));
        json_object_set_new(input, "sha256", json_sprintf("%064d", 0));
        json_object_set_new(input, "hashed",
                            json_integer(ctime + (late ? 10000000000 : 1000000000)));
        MUST(files_write_json(in_world("run/manifest.json"), manifest, &err), err);
        json_decref(manifest);
        align("--methods base");
        EXPECT(manifest_says(path, hex) == !late, "late %d: the saved hash was%s taken", late,
               late ? " not" : "");
    }
    CHECK(remove(in_world("run/manifest.json")) == 0, "manifest");
    align("--methods base");
}

/* What a plug-in computes is the plug-in's: a stage belongs to it as it belongs to the program. */
static void test_plugin(void) {
    Args a;
    Run r;
    Stage st;
    Err err;
    char line[256], *argv[] = {line}, hex[65];
    snprintf(line, sizeof line, "%s", in_world("recipe.yaml"));
    MUST(args_parse(&a, &cmd_align, 1, argv, &err), err);
    MUST(run_open(&r, &a, in_world("pairs.jsonl"), &err), err);
    MUST(files_sha256(hex, in_world("pairs.jsonl"), &err), err);
    stage_begin(&st, &r, "x");
    const char *plugin = json_string_value(json_object_get(st.key, "plugin"));
    EXPECT(plugin && strcmp(plugin, hex) == 0, "the plug-in is %s", plugin ? plugin : "absent");
    stage_free(&st);
    run_close(&r);
    EXPECT(!run_open(&r, &a, in_world("none"), &err) && err.code == EXIT_INPUT, "no such plug-in");
    args_free(&a);
}

/* A stamp belongs to the program that made it: a rebuilt one may give other numbers. */
static void test_other_program(void) {
    Err err;
    char hex[65];
    json_t *stamp = read_json("stages/subspace.json");
    json_t *key = json_object_get(stamp, "key");
    MUST(files_sha256(hex, "/proc/self/exe", &err), err);
    const char *program = json_string_value(json_object_get(key, "program"));
    EXPECT(program && strcmp(program, hex) == 0, "the program is %s", program ? program : "absent");
    hex[0] = hex[0] == '0' ? '1' : '0';
    json_object_set_new(key, "program", json_string(hex));
    MUST(files_write_json(in_world("run/stages/subspace.json"), stamp, &err), err);
    json_decref(stamp);
    same("a stage of another build", align(""), "subspace");
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
    static const char *const without_effect[] = {"threads", "json", "generate.batch",
                                                 "model.device", "model.dtype"};
    char flags[4096] = "--methods sails";
    write_recipe("8", ", steps: 1"); /* as little as possible: it is run some forty times */
    align(flags);
    int tried = 0;
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        const Setting *s = &settings_table[i];
        char key[SETTING_KEY], text[SETTING_KEY] = "";
        setting_key(s, key);
        bool skip = !command_uses(&cmd_align, i);
        for (size_t j = 0; j < sizeof without_effect / sizeof *without_effect; j++)
            skip = skip || strcmp(key, without_effect[j]) == 0;
        const char *value = skip ? "" : another_value(s, key, text);
        if (!*value) continue;
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
    test_content();
    test_saved_hash();
    test_plugin();
    test_other_program();
    test_refused();
    test_does_not_fit();
    test_every_setting_counts();
    world_remove();
    return test_done("align");
}
