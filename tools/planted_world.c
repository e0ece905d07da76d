/* planted_world.c - writes the planted world (planted/planted.h) into a folder:
 *
 *   planted_world OUT [--noise EPS]
 *
 *   OUT/model/         checkpoint and tokenizer, as from Hugging Face
 *   OUT/sae/           SAEs of three layers, as from Gemma Scope
 *   OUT/pairs.jsonl    training pairs in HH-RLHF's form
 *   OUT/harmful.jsonl  prompts for evaluation; two of their categories are not in the pairs
 *   OUT/benign.jsonl   harmless prompts that look like harmful ones
 *   OUT/recipe.yaml    for `sails align`; OUT/grid.yaml: many rows, rates and seeds
 *   OUT/safe.jsonl     of the pairs, the harmful requests with their refusals; unsafe.jsonl with
 *                      the other reply; helpful.jsonl the harmless ones, answered
 *   OUT/tuning.yaml    for `sails align` of OUT/aligned, once that has been made: what is left of
 *                      its safety when it is tuned on helpful.jsonl
 *   OUT/truth.json     what `sails score` has to find
 *
 * --noise makes it harder for what learns from the SAEs: their decoders are off the true directions
 * by the angle arctan EPS, as those of SAEs that were trained are. The same files, bit by bit, at
 * every run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "tools/planted/planted.h"

/* A recipe; its paths are seen from its folder. */
typedef struct PlantedRecipe {
    const char *name, *about, *out, *train;
} PlantedRecipe;

static const PlantedRecipe recipes[] = {
    {"recipe.yaml",
     "# sails align on the planted world: a small Gemma-2 model that helps with everything,\n"
     "# lock-picking and omelettes alike. See truth.json for what its SAE features really are.\n",
     "run",
     "  methods: [base, lora, sails]\n"
     "  batch: 16\n"
     "  epochs: 5\n"
     "  lr: 4e-4\n"},
    {"grid.yaml",
     "# Which of these differ, trained again and again? One epoch is too little for any of them "
     "to\n"
     "# be always right; the rate is chosen on prompts that the table is not of.\n",
     "grid",
     "  methods: [base, lora, sails, sails-span, random-features, random-basis, direct-mean,\n"
     "            direct-pairs, eva, pissa, dpo, full]\n"
     "  batch: 16\n"
     "  epochs: 1\n"
     "  rates: [2e-4, 4e-4, 1e-3]\n"
     "  seeds: 5\n"}};

static const char form[] =
    "%sout: %s\n"
    "model:\n"
    "  path: model\n"
    "  dtype: f32\n"
    "data:\n"
    "  path: pairs.jsonl\n"
    "  max-length: 256\n"
    "  heldout: 0.1\n"
    "score:\n"
    "  sae: 'sae/layer_{layer}/width_*/average_l0_*/params.npz'\n"
    "  layers: [1, 2, 3]\n"
    "subspace:\n"
    "  top-k: 9\n"
    "train:\n"
    "%s"
    "generate:\n"
    "  prompts: harmful.jsonl\n"
    "  benign: benign.jsonl\n"
    "  max-new-tokens: 40\n";

static const char tuning[] =
    "# Safety after benign fine-tuning: `aligned`, a model that has learnt to refuse, is tuned on\n"
    "# harmless requests alone. The row base is the safety before, the others are what is left.\n"
    "out: tuned\n"
    "model:\n"
    "  path: aligned\n"
    "  dtype: f32\n"
    "data:\n"
    "  path: helpful.jsonl\n"
    "  max-length: 256\n"
    "  heldout: 0.1\n"
    "score:\n"
    "  sae: 'sae/layer_{layer}/width_*/average_l0_*/params.npz'\n"
    "  layers: [1, 2, 3]\n"
    "  aligned: safe.jsonl\n"
    "  unaligned: unsafe.jsonl\n"
    "subspace:\n"
    "  top-k: 9\n"
    "inputs:\n"
    "  preserve: safe.jsonl\n"
    "train:\n"
    "  methods: [base, lora, sails, salora]\n"
    "  batch: 16\n"
    "  epochs: 1\n"
    "  lr: 1e-5\n"
    "generate:\n"
    "  prompts: harmful.jsonl\n"
    "  benign: benign.jsonl\n"
    "  max-new-tokens: 40\n";

static bool write_text(const char *out, const char *name, const char *text, Err *err) {
    char *path = files_join(out, name);
    bool ok = files_write(path, text, strlen(text), err);
    free(path);
    return ok;
}

static bool write_recipe(const PlantedRecipe *r, const char *out, Err *err) {
    char text[2048];
    snprintf(text, sizeof text, form, r->about, r->out, r->train);
    return write_text(out, r->name, text, err);
}

static bool write_world(World *w, const char *out, Err *err) {
    char *model = files_join(out, "model");
    vocabulary_begin(w);
    texts_words(w);
    texts_classes(w);
    texts_build(w);
    geometry_build(w);
    bool ok = files_mkdirs(model, err) && vocabulary_write(w, model, err) &&
              model_write(w, model, err) && texts_write(w, out, err) && saes_write(w, out, err) &&
              write_recipe(&recipes[0], out, err) && write_recipe(&recipes[1], out, err) &&
              write_text(out, "tuning.yaml", tuning, err);
    free(model);
    return ok;
}

int main(int argc, char **argv) {
    char *end = NULL;
    double noise = argc == 4 && strcmp(argv[2], "--noise") == 0 ? strtod(argv[3], &end) : 0;
    if ((argc != 2 && !end) || (end && (*end || end == argv[3])) || !(noise >= 0 && noise <= 100)) {
        fprintf(stderr, "usage: planted_world FOLDER [--noise EPS], EPS from 0 to 100\n");
        return EXIT_USAGE;
    }
    Err err;
    World *w = mem_array(1, sizeof *w);
    w->noise = noise;
    bool ok = write_world(w, argv[1], &err);
    free(w);
    if (ok) return EXIT_DONE;
    fprintf(stderr, "planted_world: %s\n", err.text);
    return err.code;
}
