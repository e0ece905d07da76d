/* What explains a run, on a small random world: cards agree with the scores and the texts that they
 * are of, energies and causal rows hold together, align makes what the command makes and repeats
 * what depends on a change. */
#include <math.h>

#include "host/cli/command.h"
#include "model/score.h"
#include "tests/align_run.h"

extern const Command cmd_explain, cmd_score;

enum { TOP_K = 6 };

static json_t *part_of(const char *folder, const char *name) {
    json_t *value;
    Err err;
    MUST(files_read_json(&value, in_world("%s/%s", folder, name), 1 << 24, &err), err);
    return value;
}

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static double within(const json_t *object, const char *key, const char *name) {
    return number(json_object_get(object, key), name);
}

static size_t size_of(const json_t *object, const char *key) {
    return json_array_size(json_object_get(object, key));
}

/* ---------------------------------------------------------------------------------- cards -- */

/* Cards are written with five digits. */
static bool near(double got, double ref) {
    return fabs(got - ref) <= 6e-5 * fabs(ref) + 1e-12;
}

static void check_contexts(const json_t *card, int feature) {
    const json_t *c;
    size_t i;
    double last = INFINITY;
    int kinds[3] = {0};
    json_array_foreach (json_object_get(card, "contexts"), i, c) {
        const char *kind = json_string_value(json_object_get(c, "kind"));
        const json_t *acts = json_object_get(c, "activations");
        size_t n = json_array_size(acts);
        double a = number(c, "activation");
        size_t at = (size_t)(number(c, "position") - number(c, "first"));
        EXPECT(n == size_of(c, "tokens") && n <= 2 * 20 + 1 && at < n, "%zu tokens, at %zu", n, at);
        EXPECT(number(c, "first") == fmax(0, number(c, "position") - 20), "first token %g of %g",
               number(c, "first"), number(c, "position"));
        EXPECT(json_number_value(json_array_get(acts, at)) == a && a > 0,
               "feature %d: activation %g of a context of %g", feature, a,
               json_number_value(json_array_get(acts, at)));
        int k = *kind == 't' ? 0 : *kind == 'q' ? 1 : 2;
        if (k == 0) {
            EXPECT(a <= last, "feature %d: contexts rise", feature);
            last = a;
        }
        if (k == 0 && kinds[0] == 0) {
            double most = fmax(within(card, "max", "aligned"), within(card, "max", "unaligned"));
            EXPECT(near(a, most), "feature %d: the first context has %g of %g", feature, a, most);
        }
        EXPECT((k == 1) == json_is_array(json_object_get(c, "quantile")), "quantile of %s", kind);
        const char *corpus = json_string_value(json_object_get(c, "corpus"));
        EXPECT((k == 2) == (strcmp(corpus, "benign") == 0), "%s context of %s", kind, corpus);
        kinds[k]++;
    }
    EXPECT(kinds[0] > 0 && kinds[1] > 0, "feature %d: %d top and %d quantile contexts", feature,
           kinds[0], kinds[1]);
}

/* With every document looked at, what the firings say is what the scores say: two passes, one of
 * all features and one of a few, and the texts of two readings. */
static void check_card(const json_t *card, const FeatureStat *s, const json_t *cards, int layer) {
    const json_t *corpora = json_object_get(cards, "corpora");
    double tokens[2] = {within(corpora, "aligned", "tokens"),
                        within(corpora, "unaligned", "tokens")};
    double fires = s->rate[0] * tokens[0] + s->rate[1] * tokens[1], sum = 0;
    EXPECT(number(card, "feature") == s->feature, "layer %d: feature %g, not %d", layer,
           number(card, "feature"), s->feature);
    EXPECT(near(within(card, "delta", "value"), s->diff) &&
               near(within(card, "delta", "low"), s->low) &&
               near(within(card, "delta", "high"), s->high) &&
               near(within(card, "delta", "t"), s->t),
           "layer %d, feature %d: delta %g", layer, s->feature, within(card, "delta", "value"));
    EXPECT(near(within(card, "mean", "aligned"), s->mean[0]) &&
               near(within(card, "rate", "unaligned"), s->rate[1]),
           "layer %d, feature %d: mean and rate", layer, s->feature);
    EXPECT(near(number(card, "density"), fires / (tokens[0] + tokens[1])),
           "layer %d, feature %d: density %g, %g firings", layer, s->feature,
           number(card, "density"), fires);
    const json_t *histogram = json_object_get(card, "histogram"), *count;
    size_t i;
    json_array_foreach (json_object_get(histogram, "count"), i, count)
        sum += json_number_value(count);
    EXPECT(fabs(sum - fires) < 0.5 && size_of(histogram, "edges") == i + 1,
           "layer %d, feature %d: %g in the histogram of %g", layer, s->feature, sum, fires);
    EXPECT(
        size_of(json_object_get(card, "logits"), "top") == 10 && size_of(card, "neighbours") == 5,
        "logits, neighbours");
    EXPECT(json_is_true(json_object_get(card, "token_detector")) ==
               (number(card, "token_share") > 0.8),
           "token detector");
    const json_t *areas = json_object_get(json_object_get(card, "auc"), "categories");
    EXPECT(json_object_size(areas) == 2 && within(card, "auc", "harmful") == WORLD_PROMPTS &&
               number(json_object_get(areas, "c0"), "harmful") == 3,
           "%zu categories", json_object_size(areas));
    check_contexts(card, s->feature);
}

static void test_cards(void) {
    Scores scores;
    Exec ex;
    Err err;
    FeatureStat top[TOP_K];
    json_t *cards = part_of("explained", "features.json"),
           *layers = json_object_get(cards, "layers");
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "the CPU");
    MUST(scores_load(&scores, in_world("scores"), &err), err);
    EXPECT((int)json_array_size(layers) == scores.n && scores.n == 2, "%zu layers",
           json_array_size(layers));
    for (int i = 0; i < scores.n; i++) {
        const json_t *layer = json_array_get(layers, (size_t)i);
        const json_t *features = json_object_get(layer, "features");
        int n = score_top(&ex, top, &scores, i, SCORE_DELTA, TOP_K, 3, 200);
        EXPECT((int)json_array_size(features) == n, "%zu features", json_array_size(features));
        for (int j = 0; j < n; j++) {
            const json_t *card = json_array_get(features, (size_t)j);
            check_card(card, &top[j], cards, scores.layer[i].layer);
            EXPECT(near(number(card, "stability"), top[j].stability), "stability");
        }
    }
    const json_t *first = json_array_get(json_object_get(json_array_get(layers, 0), "features"), 0);
    char label[32];
    snprintf(label, sizeof label, "number %d", (int)number(first, "feature"));
    EXPECT(json_is_null(json_object_get(first, "url")) &&
               strcmp(json_string_value(json_object_get(first, "label")), label) == 0,
           "label and url of the first feature");
    first = json_array_get(json_object_get(json_array_get(layers, 1), "features"), 0);
    EXPECT(json_is_null(json_object_get(first, "label")), "a label of another layer");
    scores_free(&scores);
    exec_close(&ex);
    json_decref(cards);
}

/* ----------------------------------------------------------------------- energy and causal -- */

static void test_energy(void) {
    json_t *energy = part_of("explained", "energy.json"), *one;
    double weight = 0, sum = 0;
    size_t i;
    json_array_foreach (json_object_get(energy, "projections"), i, one) {
        double w = number(one, "norm") * number(one, "norm");
        weight += w, sum += w * number(one, "energy");
        EXPECT(number(one, "columns") == 4 && number(one, "expected") == 4.0 / WORLD_D &&
                   size_of(one, "angles") == 4,
               "%zu angles of %g columns", size_of(one, "angles"), number(one, "columns"));
    }
    EXPECT(i == 4 * WORLD_LAYERS, "%zu projections", i);
    double total = within(energy, "total", "energy");
    EXPECT(fabs(total - sum / weight) <= 1e-12 && total > 0.5, "energy %g, not %g", total,
           sum / weight);
    json_decref(energy);
}

static const json_t *row_of(const json_t *causal, const char *name) {
    size_t i;
    const json_t *row;
    json_array_foreach (json_object_get(causal, "rows"), i, row)
        if (strcmp(json_string_value(json_object_get(row, "row")), name) == 0) return row;
    CHECK(false, "no row %s", name);
}

static void check_row(const json_t *causal, const char *name, int draws, bool changes) {
    const json_t *row = row_of(causal, name), *plain = row_of(causal, "as it is");
    double refusal = within(row, "refusal", "mean"), change = within(row, "change", "mean");
    EXPECT(number(row, "draws") == draws, "%s: %g draws", name, number(row, "draws"));
    EXPECT(within(row, "refusal", "low") <= refusal && refusal <= within(row, "refusal", "high"),
           "%s: refusal %g", name, refusal);
    EXPECT(within(row, "perplexity", "value") > 1 && within(row, "perplexity", "low") > 0 &&
               within(row, "perplexity", "high") > within(row, "perplexity", "value"),
           "%s: perplexity %g", name, within(row, "perplexity", "value"));
    if (row != plain)
        EXPECT(fabs(change - (refusal - within(plain, "refusal", "mean"))) <= 1e-9, "%s: change %g",
               name, change);
    else
        EXPECT(json_is_null(json_object_get(row, "change")), "a change of nothing");
    EXPECT(changes ? number(row, "stream") > 0 : json_is_null(json_object_get(row, "stream")),
           "%s: stream %g", name, number(row, "stream"));
}

static void test_causal(void) {
    json_t *adapted = part_of("explained", "causal.json"), *base = part_of("base", "causal.json");
    check_row(adapted, "as it is", 1, false);
    check_row(adapted, "U ablated", 1, true);
    check_row(adapted, "random ablated", 2, true);
    check_row(adapted, "dW inside U", 1, false);
    check_row(adapted, "dW outside U", 1, false);
    check_row(base, "as it is", 1, false);
    check_row(base, "U ablated", 1, true);
    check_row(base, "U added", 1, true);
    check_row(base, "random added", 2, true);
    EXPECT(size_of(adapted, "rows") == 5 && size_of(base, "rows") == 5, "%zu and %zu rows",
           size_of(adapted, "rows"), size_of(base, "rows"));
    double added = number(row_of(base, "U added"), "stream");
    double random = number(row_of(base, "random added"), "stream");
    EXPECT(fabs(added / random - 1) < 0.2, "added %g, random %g: not as long", added, random);
    EXPECT(size_of(adapted, "layers") == 2 && size_of(adapted, "columns") == 2, "layers, columns");
    EXPECT(size_of(adapted, "refusal_tokens") == 2 && number(adapted, "prompts") == WORLD_PROMPTS,
           "%zu tokens, %g prompts", size_of(adapted, "refusal_tokens"),
           number(adapted, "prompts"));
    json_decref(adapted), json_decref(base);
}

/* ------------------------------------------------------------------------------- the command -- */

#define FILES "--prompts %s --benign %s --text %s --subspace %s/subspaces/sails.safetensors "

static void explain(const char *more, const char *out) {
    char line[4096], run[300];
    Err err;
    snprintf(run, sizeof run, "%s", in_world("run"));
    snprintf(line, sizeof line,
             "--model %s --dtype f32 --max-length 128 --draws 2 --window 20 --seed 3 --json " FILES
             "--out ",
             in_world("model"), in_world("prompts.jsonl"), in_world("benign.jsonl"),
             in_world("pairs.jsonl"), run);
    snprintf(line + strlen(line), sizeof line - strlen(line), "%s %s", in_world("%s", out), more);
    MUST(world_run(&cmd_explain, line, &err), err);
}

static void write_labels(void) {
    char text[4096];
    Err err;
    int n = snprintf(text, sizeof text, "{\"1\": {");
    for (int i = 0; i < WORLD_FEATURES; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s\"%d\": \"number %d\"", i ? ", " : "",
                      i, i);
    n += snprintf(text + n, sizeof text - (size_t)n, "}}");
    MUST(files_write(in_world("labels.json"), text, (size_t)n, &err), err);
}

static void make_all(void) {
    char line[4096];
    Err err;
    snprintf(line, sizeof line,
             "--model %s --dtype f32 --max-length 128 --data %s --sae %s --layers 1,2 --json --out "
             "%s",
             in_world("model"), in_world("pairs.jsonl"), in_world("sae/{layer}"),
             in_world("scores"));
    MUST(world_run(&cmd_score, line, &err), err);
    write_labels();
    int n = snprintf(line, sizeof line, "--data %s --scores %s ", in_world("pairs.jsonl"),
                     in_world("scores"));
    n += snprintf(line + n, sizeof line - (size_t)n, "--sae %s --top-k %d ",
                  in_world("sae/{layer}"), TOP_K);
    snprintf(line + n, sizeof line - (size_t)n, "--labels %s --adapter %s", in_world("labels.json"),
             in_world("run/adapters/sails"));
    explain(line, "explained");
    snprintf(line, sizeof line, "--data %s", in_world("pairs.jsonl"));
    explain(line, "base");
}

static void test_align(void) {
    const char *all =
        "explain-features energy-lora energy-sails causal-base causal-lora "
        "causal-sails";
    align("--methods base,lora,sails");
    same("explaining", align("--methods base,lora,sails" EXPLAINED), all);
    same("again", align("--methods base,lora,sails" EXPLAINED), "");
    same("other draws", align("--methods base,lora,sails --draws 2" EXPLAINED),
         "causal-base causal-lora causal-sails");
    same("another window", align("--methods base,lora,sails --draws 2 --window 3" EXPLAINED),
         "explain-features");
    CHECK(remove(in_world("run/explain/energy/lora.json")) == 0, "no energy");
    same("a lost output", align("--methods base,lora,sails --draws 2 --window 3" EXPLAINED),
         "energy-lora");
    same("other text, of what is held out",
         align("--methods lora,sails --draws 2 --window 3" EXPLAINED), "causal-lora causal-sails");
}

static void refused(const char *flags, int code, const char *words) {
    char line[2048];
    Err err;
    snprintf(line, sizeof line, "--model %s --dtype f32 --out %s ", in_world("model"),
             in_world("none"));
    strcat(line, flags);
    EXPECT(!world_run(&cmd_explain, line, &err) && (int)err.code == code && strstr(err.text, words),
           "%s: %d %s", flags, err.code, err.text);
    EXPECT(!files_exists(in_world("none")), "%s left a folder", flags);
}

static void test_refused(void) {
    char line[2048];
    refused("", EXIT_USAGE, "nothing to explain");
    snprintf(line, sizeof line, "--scores %s", in_world("scores"));
    refused(line, EXIT_USAGE, "--sae and the data that were scored");
    snprintf(line, sizeof line, "--prompts %s --subspace x", in_world("prompts.jsonl"));
    refused(line, EXIT_USAGE, "--benign with harmless prompts and --text");
    snprintf(line, sizeof line, "--prompts %s --benign %s --text %s --subspace %s",
             in_world("prompts.jsonl"), in_world("benign.jsonl"), in_world("pairs.jsonl"),
             in_world("run/subspaces/sails.safetensors"));
    strcat(line, " --set explain.refusals=");
    refused(line, EXIT_USAGE, "--refusals: expected how refusals begin");
}

int main(void) {
    world_make();
    write_recipe("0", "");
    test_align();
    make_all();
    test_cards();
    test_energy();
    test_causal();
    test_refused();
    world_remove();
    return test_done("explain");
}
