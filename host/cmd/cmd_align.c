/* cmd_align.c - the whole method by one recipe. */
#include "host/align/align.h"
#include "host/cli/command.h"

static const Use use[] = {{"out", USE_NEEDED},
                          {"model.path", USE_NEEDED},
                          {"data.path", USE_NEEDED},
                          {"generate.prompts", USE_NEEDED},
                          ONLY("seed"),
                          ONLY("threads"),
                          ONLY("cpu"),
                          ONLY("json"),
                          ONLY("model.tokenizer"),
                          ONLY("model.device"),
                          ONLY("model.dtype"),
                          ONLY("data.limit"),
                          ONLY("data.max-length"),
                          ONLY("data.pack-tokens"),
                          ONLY("data.heldout"),
                          ONLY("data.text"),
                          ONLY("score.sae"),
                          ONLY("score.layers"),
                          ONLY("score.aligned"),
                          ONLY("score.unaligned"),
                          ONLY("score.tokens"),
                          ONLY("score.pool"),
                          ONLY("score.products"),
                          ONLY("subspace.by"),
                          ONLY("subspace.top-k"),
                          ONLY("subspace.variance"),
                          ONLY("subspace.center"),
                          ONLY("train.methods"),
                          USE_TRAINING,
                          ONLY("generate.benign"),
                          ONLY("generate.limit"),
                          ONLY("generate.max-new-tokens"),
                          ONLY("generate.batch"),
                          ONLY("generate.temperature"),
                          ONLY("generate.top-k"),
                          ONLY("generate.top-p"),
                          ONLY("eval.benign-categories"),
                          {NULL, USE_OPTIONAL}};

const Command cmd_align = {
    .name = "align",
    .summary = "the whole method: score, subspace, train, generate, eval, one table",
    .about =
        "Everything lands in the run folder that `out` names. Run again, it keeps each stage\n"
        "whose inputs have not changed, nor this program, and makes the others.",
    .positional = POSITIONAL_RECIPE_NEEDED,
    .whole_recipe = true,
    .use = use,
    .run = align_run,
};
