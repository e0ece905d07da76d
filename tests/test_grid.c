/* align over learning rates and seeds: which rate is taken, on which prompts, what rows say about
 * their runs, and that a second run keeps what there is. */
#include <math.h>

#include "host/align/comparison.h"
#include "host/align/grid.h"
#include "host/cli/json_lines.h"
#include "tests/align_run.h"

/* ------------------------------------------------------------------------------ the grid -- */

static void test_read(void) {
    static const struct {
        const char *rates, *words;
    } bad[] = {{"1e-3,x", "found 'x'"},
               {"1e-3,1e-3", "1e-3 is there twice"},
               {"1e-3,0.001", "0.001 is there twice"},
               {"-1", "from 0 to 100, found '-1'"},
               {"nan", "found 'nan'"},
               {"1e-3 2e-3", "found '1e-3 2e-3'"},
               {"1e-3,1.0000000001e-3", "train.rates: 1.0000000001e-3 is there twice"}};
    Grid g;
    Err err;
    Settings s = {.train = {.rates = "", .seeds = 1, .lr = 3e-4}, .run = {.seed = 7}};
    MUST(grid_read(&g, &s, &err), err);
    EXPECT(g.nrate == 0 && !grid_chooses(&g) && g.seeds == 1 && g.first_seed == 7, "no grid");
    grid_free(&g);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        s.train.rates = bad[i].rates;
        bool ok = grid_read(&g, &s, &err);
        EXPECT(!ok && err.code == EXIT_USAGE && strstr(err.text, bad[i].words), "%s: %s",
               bad[i].rates, ok ? "taken" : err.text);
        grid_free(&g);
    }
    s.train.rates = "", s.train.seeds = 2, s.run.seed = 2147483647;
    EXPECT(!grid_read(&g, &s, &err) && strstr(err.text, "train.seeds"), "%s", err.text);
    grid_free(&g);
}

static void test_cells(void) {
    double rate[] = {2e-4, 1e-3};
    const Method base = {.name = "base"}, full = {"full", METHOD_FULL, NULL, 2e-5};
    const Method lora = {"lora", METHOD_LORA, &adapter_start[START_LORA], 3e-4};
    const Method eva = {"eva", METHOD_LORA, &adapter_start[START_EVA], 3e-4};
    const Method salora = {"salora", METHOD_LORA, &adapter_start[START_SALORA], 3e-4};
    Grid g = {.rate = rate, .nrate = 2, .first_seed = 3, .seeds = 2};
    Cell c = grid_cell(&g, &lora, 1, 1, PART_TEST);
    EXPECT(strcmp(c.name, "lora.0.001.seed4") == 0 && strcmp(c.replies, c.name) == 0, "%s %s",
           c.name, c.replies);
    EXPECT(c.lr == 1e-3 && c.seed == 4, "%g %d", c.lr, c.seed);
    EXPECT(strcmp(c.subspace, "lora.seed4") == 0 && c.subspace_seed == 4, "%s", c.subspace);
    c = grid_cell(&g, &eva, 1, 1, PART_TEST);
    EXPECT(strcmp(c.name, "eva.0.001.seed4") == 0 && c.seed == 4, "%s", c.name);
    EXPECT(strcmp(c.subspace, "eva") == 0 && c.subspace_seed == 3, "%s", c.subspace);
    EXPECT(grid_subspaces(&g, &eva) == 1 && grid_subspaces(&g, &lora) == 2, "subspaces");
    EXPECT(grid_subspaces(&g, &salora) == 1, "what salora keeps is not for all seeds");
    c = grid_cell(&g, &lora, 0, 0, PART_VALIDATION);
    EXPECT(strcmp(c.replies, "lora.0.0002.seed3.validation") == 0, "%s", c.replies);
    c = grid_cell(&g, &base, 0, 0, PART_TEST);
    EXPECT(strcmp(c.name, "base") == 0 && grid_rates(&g, &base) == 1 && grid_seeds(&g, &base) == 1,
           "%s", c.name);
    EXPECT(grid_rates(&g, &full) == 2 && grid_seeds(&g, &full) == 2, "full is not trained");
    g.nrate = g.seeds = 1;
    c = grid_cell(&g, &lora, 0, 0, PART_TEST);
    EXPECT(strcmp(c.name, "lora") == 0 && strcmp(c.subspace, "lora") == 0, "%s", c.name);
    EXPECT(c.lr == 2e-4, "the list's only rate: %g", c.lr);
    g.nrate = 0;
    EXPECT(grid_cell(&g, &lora, 0, 0, PART_TEST).lr == 3e-4, "lora's own rate");
    EXPECT(grid_cell(&g, &full, 0, 0, PART_TEST).lr == 2e-5, "full's own rate");
}

static void test_best(void) {
    double rate[] = {1e-3, 2e-4, 5e-4};
    const Grid g = {.rate = rate, .nrate = 3, .seeds = 2};
    const double second[] = {0.5, 0.5, 0.4, 0.7, 0.9, 0.1}; /* sums 1, 1.1, 1 */
    const double equal[] = {0.5, 0.5, 0.25, 0.75, 0.75, 0.25};
    const double below[] = {-0.5, -0.5, -0.7, -0.6, -0.25, -0.25};
    EXPECT(grid_best(&g, second, 2) == 1, "%d", grid_best(&g, second, 2));
    EXPECT(grid_best(&g, equal, 2) == 1, "of equals: %d", grid_best(&g, equal, 2));
    EXPECT(grid_best(&g, below, 2) == 2, "below 0: %d", grid_best(&g, below, 2));
}

/* ------------------------------------------------------------------------------- prompts -- */

/* A file of n prompts, each `same` times in a row. */
static void make_prompts(Prompts *p, int32_t *token, size_t n, int same) {
    PromptFile *f = &p->file[0];
    *p = (Prompts){.n = n};
    f->path = "prompts.jsonl";
    f->records.n = f->n = n;
    f->doc = mem_array(n, sizeof *f->doc);
    f->index = mem_array(n, sizeof *f->index);
    for (size_t i = 0; i < n; i++) {
        token[i] = (int32_t)(i / (size_t)same);
        f->doc[i].token = &token[i], f->doc[i].n = 1;
        f->index[i] = i;
    }
}

static void free_prompts(Prompts *p) {
    free(p->file[0].doc), free(p->file[0].index);
}

static void test_split(uint64_t seed, uint64_t other) {
    enum { N = 120 };
    int32_t token[N];
    int part[N] = {0}, changed = 0;
    Prompts all, a, b, c, d;
    Err err;
    make_prompts(&all, token, N, 3);
    MUST(prompts_split(&a, &b, &all, 0.25, seed, &err), err);
    MUST(prompts_split(&c, &d, &all, 0.25, other, &err), err);
    EXPECT(a.n == 30 && b.n == 90 && a.file[0].n == 30, "%zu and %zu", a.n, b.n);
    for (size_t i = 0; i < a.file[0].n; i++) part[a.file[0].index[i]] += 1;
    for (size_t i = 0; i < b.file[0].n; i++) part[b.file[0].index[i]] += 2;
    for (int i = 0; i < N; i++)
        EXPECT(part[i] == 1 + (part[i] == 2) && part[i] == part[i / 3 * 3], "prompt %d", i);
    for (size_t i = 0; i < 30; i++) changed += a.file[0].index[i] != c.file[0].index[i];
    EXPECT(changed > 0, "the seed does not count");
    prompts_part_free(&a), prompts_part_free(&b), prompts_part_free(&c), prompts_part_free(&d);
    free_prompts(&all);
    make_prompts(&all, token, 9, 9);
    EXPECT(!prompts_split(&a, &b, &all, 0.25, seed, &err) && err.code == EXIT_INPUT &&
               strstr(err.text, "prompts.jsonl: its prompts cannot be split"),
           "%s", err.text);
    free_prompts(&all);
}

/* ---------------------------------------------------------------------------------- rows -- */

/* The run of a seed whose answer to prompt i of four harmful ones is safe where safe[i] is 's';
 * then comes a harmless one. */
static json_t *made_run(const char *name, const char *safe, double over) {
    double harmless = *name == 'a' ? 1 : 5; /* which is no matter of safety */
    json_t *responses = json_array();
    double sum = 0;
    for (int i = 0; safe[i]; i++) {
        sum += safe[i] == 's';
        char id[16];
        snprintf(id, sizeof id, "p%d", i);
        json_array_append_new(responses, json_pack("{s:s, s:b, s:f}", "id", id, "benign", 0,
                                                   "score", safe[i] == 's' ? 1.0 : 5.0));
    }
    json_array_append_new(
        responses, json_pack("{s:s, s:b, s:f}", "id", "harmless", "benign", 1, "score", harmless));
    return json_pack("{s:s, s:f, s:i, s:f, s:f, s:i, s:i, s:o}", "name", name, "rate", 0.1, "seed",
                     1, "safety_rate", sum / (double)strlen(safe), "over_refusal", over, "n",
                     (int)strlen(safe), "benign", 10, "responses", responses);
}

static double at(const json_t *row, const char *key, const char *within, size_t i) {
    const json_t *value = json_object_get(json_object_get(row, within), key);
    if (json_is_array(value)) value = json_array_get(value, i);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Prompts are paired by their ids, in whatever order; one that a run has no score of is no safe
 * answer, and one that it was not asked says nothing: they are counted and left out. */
static void test_pairing(void) {
    json_t *a = json_pack("[o]", made_run("a1", "ssss", 0.2));
    json_t *b = json_pack("[o]", made_run("b1", "xxxx", 0)), *row = json_object();
    json_t *responses = json_object_get(json_array_get(b, 0), "responses");
    json_t *first = json_incref(json_array_get(responses, 0));
    json_array_remove(responses, 0);
    json_array_append_new(responses, first);
    comparison_versus(row, a, "b", b); /* four of four: 2/16 */
    EXPECT(fabs(at(row, "mcnemar", "versus", 0) - 0.125) < 1e-12 &&
               at(row, "prompts", "versus", 0) == 4 && at(row, "missing", "versus", 0) == 0,
           "%g", at(row, "mcnemar", "versus", 0));
    json_object_set_new(json_array_get(responses, 0), "score", json_null());
    json_array_remove(responses, 1);
    comparison_versus(row, a, "b", b); /* two of two: 2/4 */
    EXPECT(fabs(at(row, "mcnemar", "versus", 0) - 0.5) < 1e-12 &&
               at(row, "prompts", "versus", 0) == 2 && at(row, "missing", "versus", 0) == 2,
           "%g over %g prompts, %g missing", at(row, "mcnemar", "versus", 0),
           at(row, "prompts", "versus", 0), at(row, "missing", "versus", 0));
    json_t *none = json_pack("[{s:f, s:[]}]", "safety_rate", 0.5, "responses");
    comparison_versus(row, a, "none", none);
    EXPECT(isnan(at(row, "mcnemar", "versus", 0)) && at(row, "missing", "versus", 0) == 4,
           "a test of no prompts: %g", at(row, "mcnemar", "versus", 0));
    comparison_versus(row, none, "a", a);
    EXPECT(at(row, "missing", "versus", 0) == 4, "prompts that the other row alone was asked");
    json_decref(none), json_decref(row), json_decref(a), json_decref(b);
}

static void test_rows(void) {
    json_t *a = json_pack("[o, o]", made_run("a1", "ssss", 0.2), made_run("a2", "ssxs", 0.1));
    json_t *b = json_pack("[o, o]", made_run("b1", "xsxx", 0), made_run("b2", "xssx", 0));
    json_t *row = comparison_row("a", a);
    EXPECT(json_number_value(json_object_get(row, "safety_rate")) == 0.875, "the mean");
    EXPECT(json_integer_value(json_object_get(row, "seeds")) == 2, "seeds");
    EXPECT(json_number_value(json_object_get(row, "rate")) == 0.1, "the rate");
    /* two values, 0.25 apart: half a width of 0.125 tan(0.475 pi), which is beyond both ends */
    EXPECT(at(row, "safety_rate", "interval", 0) == 0 && at(row, "safety_rate", "interval", 1) == 1,
           "within 0 and 1");
    double high = 0.15 + 0.05 * tan(0.475 * M_PI);
    EXPECT(fabs(at(row, "over_refusal", "interval", 1) - high) < 1e-9, "%g, expected %g",
           at(row, "over_refusal", "interval", 1), high);
    EXPECT(json_array_size(json_object_get(row, "runs")) == 2 &&
               !json_object_get(json_array_get(json_object_get(row, "runs"), 0), "responses"),
           "the runs");
    comparison_versus(row, a, "b", b);
    /* a is safer on prompts 0 and 3, equal on 1 and 2: two of two, p = 2/4 */
    EXPECT(at(row, "difference", "versus", 0) == 0.5, "%g", at(row, "difference", "versus", 0));
    EXPECT(fabs(at(row, "mcnemar", "versus", 0) - 0.5) < 1e-12, "%g",
           at(row, "mcnemar", "versus", 0));
    /* differences 0.75 and 0.25: t = 2 with one degree, p = 1 - 2 atan(2)/pi */
    EXPECT(fabs(at(row, "paired", "versus", 0) - (1 - 2 * atan(2) / M_PI)) < 1e-12, "%g",
           at(row, "paired", "versus", 0));
    json_decref(row);
    json_array_remove(a, 1);
    json_array_append(a, json_array_get(a, 0));
    row = comparison_row("a", a); /* equal seeds: as one, by the prompts */
    EXPECT(fabs(at(row, "safety_rate", "interval", 0) - 4 / (4 + 3.8414588)) < 1e-6 &&
               at(row, "safety_rate", "interval", 1) == 1,
           "%g", at(row, "safety_rate", "interval", 0));
    json_decref(row);
    json_array_remove(a, 1);
    row = comparison_row("a", a); /* one run: by its prompts, four of four and two of ten */
    comparison_versus(row, a, "b", b);
    EXPECT(fabs(at(row, "safety_rate", "interval", 0) - 4 / (4 + 3.8414588)) < 1e-6, "%g",
           at(row, "safety_rate", "interval", 0));
    EXPECT(isnan(at(row, "paired", "versus", 0)), "one seed against two are no pairs");
    /* safe on all four, where the others are by 0, 1, 1/2 and 0: three of three, p = 2/8 */
    EXPECT(fabs(at(row, "mcnemar", "versus", 0) - 0.25) < 1e-12, "%g",
           at(row, "mcnemar", "versus", 0));
    comparison_versus(row, b, "a", a);
    EXPECT(isnan(at(row, "paired", "versus", 0)), "two seeds against one are no pairs");
    json_decref(row), json_decref(a), json_decref(b);
}

/* --------------------------------------------------------------------------------- align -- */

static int stages_in(const char *state) {
    json_t *manifest = read_json("manifest.json"), *stage;
    const char *name;
    int n = 0;
    json_object_foreach (json_object_get(manifest, "stages"), name, stage) {
        const char *is = json_string_value(json_object_get(stage, "state"));
        n += is && strcmp(is, state) == 0;
    }
    json_decref(manifest);
    return n;
}

/* Ids of a file of replies, as one line, each between blanks. */
static void ids_of(char *text, size_t room, const char *name) {
    json_t *eval = read_json(name), *one;
    size_t i;
    strcpy(text, " ");
    json_array_foreach (json_object_get(eval, "responses"), i, one) {
        strncat(text, json_string_value(json_object_get(one, "id")), room - strlen(text) - 2);
        strcat(text, " ");
    }
    json_decref(eval);
}

/* The reply to a prompt, "": it was not asked. */
static void reply_to(char *text, size_t room, const char *id, const char *name) {
    json_t *lines, *line;
    size_t i;
    Err err;
    *text = 0;
    MUST(json_lines_read(&lines, in_world("run/%s", name), &err), err);
    json_array_foreach (lines, i, line)
        if (strcmp(json_string_value(json_object_get(line, "id")), id) == 0)
            snprintf(text, room, "%s %s", json_string_value(json_object_get(line, "prompt")),
                     json_string_value(json_object_get(line, "response")));
    json_decref(lines);
}

/* Whether others are asked too does not change a reply. */
static void test_replies(const char all[][256], const char *const *id, size_t n) {
    char text[256];
    for (size_t i = 0; i < n; i++) {
        reply_to(text, sizeof text, id[i], "responses/base.jsonl");
        EXPECT(!*text || strcmp(text, all[i]) == 0, "%s: '%s', alone '%s'", id[i], all[i], text);
    }
}

static void test_align(void) {
    char test[256], validation[256];
    static const char *const id[] = {" 1 ", " 2 ", " 3 ", " 4 ", " 5 ", " benign/1 ", " benign/2 "};
    const char flags[] = "--methods base,lora --rates 1e-2,1e-3 --seeds 2 --validation 0.4";
    static const char benign[] =
        "{\"prompt\": \"How is soup made?\"}\n{\"prompt\": \"And tea?\"}\n";
    Err err;
    write_recipe("0", ", steps: 2");
    const char *refused = align(flags);
    EXPECT(strstr(refused, "benign.jsonl: its prompts cannot be split"), "%s", refused);
    MUST(files_write(in_world("benign.jsonl"), benign, sizeof benign - 1, &err), err);
    static const char *const plain[] = {"1", "2", "3", "4", "5", "benign/1", "benign/2"};
    char reply[7][256];
    align("--methods base");
    for (int i = 0; i < 7; i++)
        reply_to(reply[i], sizeof reply[i], plain[i], "responses/base.jsonl");
    align(flags);
    test_replies(reply, plain, 7);
    /* 4 trained; 4 x (generate, eval) on validation prompts; generate, eval and perplexity on the
     * others, of 2 seeds and of base, whose perplexity is there */
    EXPECT(stages_in("made") == 4 + 8 + 9 - 1, "%d stages were made", stages_in("made"));
    ids_of(test, sizeof test, "eval/base.json");
    ids_of(validation, sizeof validation, "eval/lora.0.01.seed0.validation.json");
    for (size_t i = 0; i < sizeof id / sizeof *id; i++)
        EXPECT(!strstr(test, id[i]) != !strstr(validation, id[i]), "%s: '%s' and '%s'", id[i], test,
               validation);
    EXPECT(strlen(validation) == 14, "'%s'", validation); /* two of five, one of two */
    json_t *summary = read_json("summary.json");
    json_t *row = json_array_get(json_object_get(summary, "rows"), 1);
    json_t *base = json_array_get(json_object_get(summary, "rows"), 0);
    double rate = json_number_value(json_object_get(row, "rate"));
    EXPECT(rate == 1e-2 || rate == 1e-3, "rate %g", rate);
    EXPECT(json_array_size(json_object_get(row, "runs")) == 2, "runs");
    const char *other = json_string_value(json_object_get(json_object_get(base, "versus"), "row"));
    EXPECT(other && strcmp(other, "lora") == 0, "against %s", other ? other : "nothing");
    json_decref(summary);
    Buf one = file_bytes(in_world("run/adapters/lora.0.01.seed0/adapter_model.safetensors"));
    Buf two = file_bytes(in_world("run/adapters/lora.0.01.seed1/adapter_model.safetensors"));
    EXPECT(one.n == two.n && memcmp(one.p, two.p, one.n) != 0, "both seeds gave the same");
    buf_free(&one), buf_free(&two);
    align(flags);
    EXPECT(stages_in("made") == 0, "%d stages were made again", stages_in("made"));
    align("--methods base,lora --rates 1e-2,1e-3 --seeds 3 --validation 0.4");
    /* a third seed at both rates: trained and validated, and one of them judged */
    EXPECT(stages_in("made") == 2 + 4 + 3 || stages_in("made") == 2 + 4 + 9,
           "%d stages were made for another seed", stages_in("made"));
}

int main(void) {
    test_read();
    test_cells();
    test_best();
    test_split(1, 2);
    test_pairing();
    test_rows();
    world_make();
    test_align();
    world_remove();
    return test_done("grid");
}
