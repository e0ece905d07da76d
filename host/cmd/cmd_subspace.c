/* cmd_subspace.c - scores to an orthonormal basis per layer. */
#include <stdio.h>

#include "host/stage/adapting.h"
#include "host/cli/command.h"
#include "host/cli/print.h"
#include "host/stage/runtime.h"

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Scores scores = {0};
    Subspace subspace = {0};
    Exec ex;
    if (!runtime_cpu(&ex, s, err)) return false; /* all of it is in double */
    bool ok = scores_load(&scores, s->subspace.scores, err) &&
              adapting_subspace(&subspace, &ex, &scores, s->score.sae, s, err) &&
              subspace_save(&subspace, s->subspace.out, err);
    if (ok && s->run.json)
        print_json(json_pack("{s:s, s:i, s:o}", "out", s->subspace.out, "layers", subspace.n,
                             "bases", adapting_describe(&subspace)));
    else if (ok)
        adapting_print(stdout, &subspace);
    subspace_free(&subspace);
    scores_free(&scores);
    exec_close(&ex);
    return ok;
}

static const Use use[] = {
    {"subspace.*", USE_OPTIONAL}, {"subspace.scores", USE_NEEDED}, {"subspace.out", USE_NEEDED},
    {"score.sae", USE_OPTIONAL},  {"train.rank", USE_OPTIONAL},    {"seed", USE_OPTIONAL},
    {"cpu", USE_OPTIONAL},        {"json", USE_OPTIONAL},          {NULL, USE_OPTIONAL}};

const Command cmd_subspace = {
    .name = "subspace",
    .summary = "the best features' decoder directions to a basis per layer",
    .about =
        "Takes the top features of each layer, finds by SVD how many directions explain the\n"
        "wanted variance, and keeps --rank orthonormal columns. It says how much of each "
        "feature's\n"
        "direction these hold (coverage), and of the span of them all. --sae is needed only when\n"
        "the SAEs have moved since they were scored.",
    .positional = POSITIONAL_RECIPE,
    .use = use,
    .run = run,
};
