/* align_run.h - a recipe for align on the small world (world.h), and which stages a run of it
 * makes. */
#ifndef SAILS_TEST_ALIGN_RUN_H
#define SAILS_TEST_ALIGN_RUN_H

#include "data/buf.h"
#include "host/align/run_folder.h"
#include "tests/world.h"

extern const Command cmd_align;

/* `more` is for the section train. Nothing is explained unless EXPLAINED is among a run's flags. */
#define EXPLAINED " --parts features,energy,causal"
static inline void write_recipe(const char *limit, const char *more) {
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
                  "generate: {prompts: %s, benign: %s, max-new-tokens: 6}\n"
                  "explain: {parts: []}\n",
                  in_world("prompts.jsonl"), in_world("benign.jsonl"));
    MUST(files_write(in_world("recipe.yaml"), text, (size_t)n, &err), err);
}

static inline json_t *read_json(const char *name) {
    json_t *value;
    Err err;
    MUST(files_read_json(&value, in_world("run/%s", name), 1 << 20, &err), err);
    return value;
}

/* Runs with extra flags; returns the names of the stages that were made, in a fixed order. */
static inline const char *align(const char *flags) {
    static char made[1200];
    static const char *const stage[] = {"score",
                                        "subspace-sails",
                                        "subspace-sails-span",
                                        "subspace-random-features",
                                        "subspace-random-basis",
                                        "moments",
                                        "subspace-direct-mean",
                                        "subspace-direct-pairs",
                                        "subspace-direct-covariance",
                                        "subspace-landmarks",
                                        "subspace-eva",
                                        "subspace-salora",
                                        "generate-base",
                                        "eval-base",
                                        "perplexity-base",
                                        "train-lora",
                                        "generate-lora",
                                        "eval-lora",
                                        "perplexity-lora",
                                        "train-sails",
                                        "train-sails-span",
                                        "train-random-features",
                                        "train-random-basis",
                                        "train-direct-mean",
                                        "train-direct-pairs",
                                        "train-direct-covariance",
                                        "train-landmarks",
                                        "train-eva",
                                        "train-salora",
                                        "generate-sails",
                                        "eval-sails",
                                        "perplexity-sails",
                                        "explain-features",
                                        "energy-lora",
                                        "energy-sails",
                                        "causal-base",
                                        "causal-lora",
                                        "causal-sails"};
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

static inline bool same(const char *what, const char *got, const char *want) {
    bool ok = strcmp(got, want) == 0;
    EXPECT(test_quiet || ok, "%s made '%s', expected '%s'", what, got, want);
    return ok;
}

static inline Buf file_bytes(const char *path) {
    Err err;
    Buf b = {0};
    MUST(files_read(&b.p, &b.n, path, 1 << 24, &err), err);
    return b;
}

#endif
