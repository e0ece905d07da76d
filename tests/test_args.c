/* Command line and recipe to settings: what is accepted, and that each kind of mistake is refused
 * as usage, in one line that names the flag or key, what was expected, and the nearest name. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/cli/args.h"

#include "host/cli/command.h"
#include "host/cli/paths.h"
#include "tests/files.h"

static const Use some_use[] = {{"out", USE_OPTIONAL},      {"run.none", USE_OPTIONAL},
                               {"model.path", USE_NEEDED}, {"model.dtype", USE_OPTIONAL},
                               {"train.*", USE_OPTIONAL},  {"generate.*", USE_OPTIONAL},
                               {"json", USE_OPTIONAL},     {NULL, USE_OPTIONAL}};
static const Command some = {.name = "some", .positional = POSITIONAL_RECIPE, .use = some_use + 0};
static const Command whole = {
    .name = "whole", .positional = POSITIONAL_RECIPE_NEEDED, .whole_recipe = true, .use = some_use};
static const Use path_use[] = {{"json", USE_OPTIONAL}, {NULL, USE_OPTIONAL}};
static const Command paths = {.name = "paths", .positional = POSITIONAL_PATHS, .use = path_use};

enum { WORDS = 16 };

/* Splits a line at spaces and parses it. */
static bool parse(Args *a, const Command *c, const char *line, Err *err) {
    static char text[1024]; /* paths are borrowed from argv */
    char *argv[WORDS];
    int n = 0;
    snprintf(text, sizeof text, "%s", line);
    for (char *w = strtok(text, " "); w && n < WORDS; w = strtok(NULL, " ")) argv[n++] = w;
    memset(err, 0, sizeof *err);
    return args_parse(a, c, n, argv, err);
}

static void test_good(void) {
    Args a;
    Err err;
    bool ok = parse(&a, &some,
                    "--model m --lr 3e-5 --rank=8 --freeze-basis --json false --targets q,up "
                    "--set train.batch=3 --train.init lora --schedule constant",
                    &err);
    EXPECT(ok, "%s", err.text);
    if (!ok) return;
    EXPECT(strcmp(a.s.model.path, "m") == 0, "%s", a.s.model.path);
    EXPECT(a.s.train.lr == 3e-5 && a.s.train.rank == 8 && a.s.train.freeze_basis, "numbers");
    EXPECT(!a.s.run.json && a.s.train.batch == 3 && a.s.train.init == 0, "set, dotted, switch");
    EXPECT(a.s.train.schedule == 2 && strcmp(a.s.train.targets, "q,up") == 0, "choice, list");
    EXPECT(a.s.train.clip == 1.0 && a.s.generate.max_new_tokens == 256, "defaults");
    args_free(&a);

    ok = parse(&a, &some, "--model m --rank auto", &err);
    EXPECT(ok && a.s.train.rank == 0, "%s", err.text);
    args_free(&a);
    ok = parse(&a, &paths, "one --json two", &err);
    EXPECT(ok && a.npath == 2 && strcmp(a.path[1], "two") == 0 && a.s.run.json, "%s", err.text);
    args_free(&a);
    ok = parse(&a, &whole, "--nonsense --help", &err);
    EXPECT(ok && a.help, "help wins over everything");
    args_free(&a);
}

/* Each line is refused as usage, and the message holds all of the words. */
static void test_bad(void) {
    static const struct {
        const Command *c;
        const char *line, *says, *too;
    } bad[] = {
        {&some, "", "--model is needed", "Hugging Face"},
        {&some, "--model m --lrr 1", "unknown flag --lrr", "did you mean --lr?"},
        {&some, "--model m --rnak 1", "unknown flag --rnak", "did you mean --rank?"},
        {&some, "--model m --xyzzyplugh 1", "unknown flag --xyzzyplugh", "sails some --help"},
        {&some, "--model m --max_new_tokens 1", "--max_new_tokens", "--max-new-tokens?"},
        {&some, "--model m --lr", "--lr", "expected a value"},
        {&some, "--model m --lr --json", "--lr", "expected a value"},
        {&some, "--model m --lr fast", "expected a number", "'fast'"},
        {&some, "--model m --lr 0x1p-3", "expected a number", "'0x1p-3'"},
        {&some, "--model m --lr nan", "expected a number", "'nan'"},
        {&some, "--model m --lr 1e999", "expected a number", "1e999"},
        {&some, "--model m --lr -1", "expected 0 to 100", "-1"},
        {&some, "--model m --rank 1.5", "expected a whole number", "1.5"},
        {&some, "--model m --rank 99999999999999999999", "expected a whole number", "999"},
        {&some, "--model m --rank 5000", "expected 0 to 4096", "5000"},
        {&some, "--model m --rank=", "expected a whole number", "''"},
        {&some, "--model m --schedule cosin", "cosine|linear|constant", "'cosin'"},
        {&some, "--model m --targets q,,v", "without empty elements", "--targets"},
        {&some, "--model m --targets q,x", "list of q|k|v|o|gate|up|down", "'x'"},
        {&some, "--model m --json=maybe", "true or false", "'maybe'"},
        {&some, "--model m --lr 1 --lr 1", "--lr", "given twice"},
        {&some, "--model m --lr 1 --set train.lr=1", "train.lr", "given twice"},
        {&some, "--model m --batch 1", "--batch is a key of several sections",
         "write --train.batch or --generate.batch"},
        {&some, "--model m --rank automatic", "expected a whole number or auto", "'automatic'"},
        {&some, "--model m --steps auto", "expected a whole number", "'auto'"},
        {&some, "--model m --set lr=1", "unknown key lr", "train.lr"},
        {&some, "--model m --set model.lr=1", "unknown key model.lr", "train.lr"},
        {&some, "--model m --set train.lr", "section.key=value", "train.lr"},
        {&some, "--model m --set", "section.key=value", "nothing"},
        {&some, "--model m -x", "unknown flag -x", "long"},
        {&some, "--model m a.yaml b.yaml", "unexpected word 'b.yaml'", "one recipe"},
        {&some, "--model a\xe9", "--model", "expected UTF-8, byte offset 1"},
        {&some, "--model m --set out=\xc3", "--out", "expected UTF-8"},
        {&paths, "a \xff", "path", "expected UTF-8"},
        {&whole, "--model m", "expected a recipe", "sails whole RECIPE.yaml"},
        {&paths, "--json", "expected a path", "sails paths PATH"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Args a;
        Err err;
        bool ok = parse(&a, bad[i].c, bad[i].line, &err);
        EXPECT(!ok && err.code == EXIT_USAGE, "'%s' was not refused", bad[i].line);
        EXPECT(!ok && strstr(err.text, bad[i].says) && strstr(err.text, bad[i].too),
               "'%s' gave: %s", bad[i].line, err.text);
        if (ok) args_free(&a);
    }
}

/* What --help prints (malloc). */
static char *help_of(const Command *c) {
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    args_help(c, f);
    fclose(f);
    return text;
}

static void test_help(void) {
    char *text = help_of(&some);
    EXPECT(strstr(text, "\n  --train.batch N ") && strstr(text, "\n  --generate.batch N ") &&
               !strstr(text, "--batch N"),
           "a flag that would not be understood: %s", text);
    EXPECT(strstr(text, "\n  --lr X ") && strstr(text, "recipe key train.lr"), "%s", text);
    EXPECT(strstr(text, "\n  --rank N|auto "), "%s", text);
    free(text);
    text = help_of(&paths);
    EXPECT(strstr(text, "\n  --json ") && !strstr(text, "recipe"), "no recipe is taken: %s", text);
    free(text);
}

static char folder[] = "/tmp/sails-test-args-XXXXXX";
static char recipe_path[64];

static void write_recipe(const char *text) {
    FILE *f = fopen(recipe_path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0) abort();
}

/* Where a recipe's path leads, seen from its folder. */
static const char *beside(const char *path) {
    static char text[4][128];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(text[turn], sizeof text[turn], "%s/%s", folder, path);
    return text[turn];
}

static void expect_paths(const char *recipe, const char *flags, const char *model,
                         const char *out) {
    Args a;
    Err err;
    char line[512];
    write_recipe(recipe);
    snprintf(line, sizeof line, "%s %s", recipe_path, flags);
    bool ok = parse(&a, &some, line, &err);
    EXPECT(ok, "%s", err.text);
    if (!ok) return;
    EXPECT(strcmp(a.s.model.path, model) == 0, "model %s, expected %s", a.s.model.path, model);
    EXPECT(strcmp(a.s.run.out, out) == 0, "out %s, expected %s", a.s.run.out, out);
    args_free(&a);
}

/* A recipe's paths are seen from its folder, a flag's from here; "~" is the home for both. */
static void test_paths(void) {
    char home[128];
    snprintf(home, sizeof home, "%s/home", folder);
    setenv("HOME", home, 1);
    expect_paths("out: a/b\nmodel: ./m\n", "", beside("m"), beside("a/b"));
    expect_paths("out: .\nmodel: ../m\n", "", beside("../m"), folder);
    expect_paths("out: /tmp/none/x\nmodel: m\n", "--model m --out ./x", "m", "./x");
    expect_paths("out: ~/x\nmodel: \"~\"\n", "", home, beside("home/x"));
    expect_paths("out: x\nmodel: m\n", "--model=~/m --out ~root/x", beside("home/m"), "~root/x");
    expect_paths("out: \"\"\nmodel: m\n", "", beside("m"), "");
}

static void make(const char *path) {
    char command[256];
    snprintf(command, sizeof command, "mkdir -p '%s'", beside(path));
    EXPECT(system(command) == 0, "%s", command);
}

static void put(const char *path, const char *text) {
    FILE *f = fopen(beside(path), "w");
    EXPECT(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s", path);
}

/* A repository in the hub's cache: refs/main decides, else there must be one version. */
static void test_hub_cache(void) {
    Args a;
    Err err;
    char line[256];
    static const char hub[] = "hub/models--google--g";
    make("hub/models--google--g/snapshots/aa/sae");
    make("hub/models--google--g/refs");
    expect_paths("out: x\nmodel: hub/models--google--g\n", "",
                 beside("hub/models--google--g/snapshots/aa"), beside("x"));
    make("hub/models--google--g/snapshots/bb");
    snprintf(line, sizeof line, "--model %s", beside(hub));
    EXPECT_REFUSED(parse(&a, &some, line, &err), err, EXIT_INPUT, "found 2: ");
    put("hub/models--google--g/refs/main", "bb\n");
    expect_paths("out: x\nmodel: hub/models--google--g/\n", "",
                 beside("hub/models--google--g/snapshots/bb"), beside("x"));
    put("hub/models--google--g/refs/main", "aa");
    expect_paths("out: x\nmodel: hub/models--google--g/sae/{layer}\n", "",
                 beside("hub/models--google--g/snapshots/aa/sae/{layer}"), beside("x"));
    expect_paths("out: x\nmodel: hub/models--google--g/snapshots/bb\n", "",
                 beside("hub/models--google--g/snapshots/bb"), beside("x"));
    put("hub/models--google--g/refs/main", "../refs");
    EXPECT_REFUSED(parse(&a, &some, line, &err), err, EXIT_INPUT, "found 2: ");
    expect_paths("out: x\nmodel: hub/models--none\n", "", beside("hub/models--none"), beside("x"));
}

static void test_recipe(void) {
    Args a;
    Err err;
    char line[256];
    write_recipe(
        "out: somewhere\nmodel: short/form\ntrain:\n  lr: 0.5\n  rank: 4\n  targets: [q, o]\n"
        "score:\n  layers: [1, 2]\n");
    snprintf(line, sizeof line, "%s --rank 5", recipe_path);
    bool ok = parse(&a, &some, line, &err);
    EXPECT(ok, "%s", err.text);
    if (!ok) return;
    EXPECT(a.s.train.rank == 5 && a.s.train.lr == 0.5, "the flag wins, the rest is the recipe's");
    EXPECT(strcmp(a.s.model.path, beside("short/form")) == 0 &&
               strcmp(a.s.run.out, beside("somewhere")) == 0,
           "short form and top level");
    EXPECT(strcmp(a.s.train.targets, "q,o") == 0, "list");
    EXPECT(strcmp(a.s.score.layers, "") == 0, "keys of other commands are let pass");
    args_free(&a);
    EXPECT(!parse(&a, &whole, line, &err) && strstr(err.text, "line 8: score.layers is set by"),
           "a whole recipe refuses them: %s", err.text);
}

static void test_bad_recipe(void) {
    static const struct {
        const char *text, *says, *too;
    } bad[] = {
        {"train: 5\n", "line 1: train is a section", "got a value"},
        {"train: [5]\n", "line 1: train is a section", "got a list"},
        {"trian:\n  lr: 1\n", "line 2: unknown key trian.lr", "train.lr"},
        {"train:\n  lr: 1\n  ranks: 1\n", "line 3: unknown key train.ranks", "train.rank"},
        {"train:\n  lr: big\n", "line 2: train.lr: expected a number", "'big'"},
        {"train:\n  lr: [1, 2]\n", "line 2: train.lr: expected one value", "list"},
        {"model: a\ntrain:\n  lr: 1\nmodel.path: b\n", "line 4: model.path: set twice", ""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Args a;
        Err err;
        write_recipe(bad[i].text);
        char line[256];
        snprintf(line, sizeof line, "%s --lr 1", recipe_path); /* overridden values count too */
        bool ok = parse(&a, &some, line, &err);
        EXPECT(!ok && err.code == EXIT_USAGE, "recipe %zu was not refused", i);
        EXPECT(!ok && strstr(err.text, bad[i].says) && strstr(err.text, bad[i].too), "%zu gave: %s",
               i, err.text);
        if (ok) args_free(&a);
    }
    Args a;
    Err err;
    EXPECT(!parse(&a, &some, "/nowhere/x.yaml", &err) && err.code == EXIT_INPUT, "missing file: %s",
           err.text);
}

/* Settings written as a recipe read back to the same values, hostile texts included. */
static void test_write_back(void) {
    static const char *const out[] = {
        "", "a b", "no", "- x", "\"q\" \\ #: {}", "null", "über", "tab\there", "1e3.", "~",
        /* line breaks of YAML that are none of C's, control characters, a byte order mark */
        "a\xc2\x85", "\xe2\x80\xa8 b\xe2\x80\xa9", "\xc2\x9b\x7f", "\xef\xbb\xbf", "\U0001f512"};
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
        Args a, b;
        Err err = {0};
        args_defaults(&a);
        a.command = &some;
        char where[] = "test";
        EXPECT(args_set(&a, args_find("out"), out[i], where, &err) &&
                   args_set(&a, args_find("model.path"), "m", where, &err) &&
                   args_set(&a, args_find("train.lr"), "0.1234567890123", where, &err) &&
                   args_set(&a, args_find("train.targets"), "o,down", where, &err) &&
                   args_set(&a, args_find("train.rank"), "0", where, &err) &&
                   args_set(&a, args_find("json"), "true", where, &err),
               "%s", err.text);
        FILE *f = fopen(recipe_path, "w");
        args_write_recipe(&a, f);
        fclose(f);
        bool ok = parse(&b, &some, recipe_path, &err);
        EXPECT(ok, "%s", err.text);
        if (ok) {
            char *absolute = path_absolute(a.s.run.out); /* "~" is the home by now */
            EXPECT(strcmp(b.s.run.out, absolute) == 0, "wrote '%s', read '%s'", absolute,
                   b.s.run.out);
            free(absolute);
            EXPECT(b.s.train.lr == a.s.train.lr, "%.17g", b.s.train.lr);
            EXPECT(strcmp(b.s.train.targets, "o,down") == 0, "%s", b.s.train.targets);
            EXPECT(b.s.train.rank == 0, "%d", b.s.train.rank);
            EXPECT(!b.s.run.json, "how results were shown became part of the recipe");
            args_free(&b);
        }
        args_free(&a);
    }
}

static void test_table(void) {
    char key[SETTING_KEY];
    Args a;
    args_defaults(&a); /* CHECKs that every default parses and lies in its range */
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        setting_key(&settings_table[i], key);
        EXPECT(args_find(key) == i, "%s is not found under its own key", key);
        EXPECT(!strchr(key, '_') && *settings_table[i].help, "%s", key);
    }
    args_free(&a);
    static const char *const names[] = {"score", "train", "generate"};
    const char *near = nearest_name("trian", names, 3);
    EXPECT(near && strcmp(near, "train") == 0, "a swap is one edit");
    static const char *const short_names[] = {"lr"};
    near = nearest_name("rl", short_names, 1);
    EXPECT(near && strcmp(near, "lr") == 0, "two letters, swapped");
    EXPECT(!nearest_name("doctor", names, 3), "another word has no neighbour");
}

/* A result that could not be written is refused before the work, and nothing is left there. */
static void test_outputs(void) {
    Args a;
    Err err;
    char line[200];
    snprintf(line, sizeof line, "--model m --generate.out %s/none/r.jsonl", folder);
    EXPECT_REFUSED(parse(&a, &some, line, &err), err, EXIT_INPUT, "none/r.jsonl: cannot write");
    snprintf(line, sizeof line, "--model m --generate.out %s", folder);
    EXPECT_REFUSED(parse(&a, &some, line, &err), err, EXIT_INPUT, "expected a file to write");
    snprintf(line, sizeof line, "--model m --generate.out %s/r.jsonl", folder);
    EXPECT(parse(&a, &some, line, &err), "%s", err.text);
    args_free(&a);
    EXPECT(parse(&a, &some, "--model m --generate.out /dev/null", &err), "%s", err.text);
    args_free(&a);
}

int main(void) {
    if (!mkdtemp(folder)) return 1;
    snprintf(recipe_path, sizeof recipe_path, "%s/r.yaml", folder);
    test_table();
    test_good();
    test_bad();
    test_help();
    test_recipe();
    test_paths();
    test_hub_cache();
    test_bad_recipe();
    test_write_back();
    test_outputs();
    char command[64];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    EXPECT(system(command) == 0, "%s", command);
    return test_done("args");
}
