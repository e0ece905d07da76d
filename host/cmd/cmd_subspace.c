/* cmd_subspace.c - scores to an orthonormal basis per layer. */
#include <stdio.h>

#include "host/stage/adapting.h"
#include "host/cli/command.h"
#include "host/cli/print.h"
#include "host/stage/method.h"
#include "host/stage/runtime.h"

static bool check_start(const Settings *s, const AdapterStart *start, Err *err) {
    char what[64];
    snprintf(what, sizeof what, "--init %s", start->name);
    if (!start->subspace)
        return err_set(err, EXIT_USAGE, "%s: has no subspace; expected a start that has one: sails",
                       what);
    if (subspace_source(start->subspace) >= SOURCE_INPUTS)
        return err_set(err, EXIT_USAGE, "%s: its subspace is made by sails inputs", what);
    bool direct = subspace_source(start->subspace) == SOURCE_MOMENTS;
    if (!*(direct ? s->subspace.moments : s->subspace.scores))
        return err_set(err, EXIT_USAGE, "%s: --%s is needed: a file written by sails %s", what,
                       direct ? "moments" : "scores", direct ? "moments" : "score");
    return adapter_start_check_rank(start, s->train.rank, what, err);
}

static bool from_scores(Subspace *to, Exec *ex, const Settings *s, enum StartKind start, Err *err) {
    Scores scores = {0};
    bool ok = scores_load(&scores, s->subspace.scores, err) &&
              adapting_subspace(to, ex, &scores, s->score.sae, s, start, err);
    scores_free(&scores);
    return ok;
}

static bool from_moments(Subspace *to, Exec *ex, const Settings *s, enum StartKind start,
                         Err *err) {
    StreamMoments moments = {0};
    bool ok = stream_load(&moments, s->subspace.moments, err) &&
              adapting_direct(to, ex, &moments, s, start, err);
    stream_free(&moments);
    return ok;
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Subspace subspace = {0};
    Exec ex;
    enum StartKind start = (enum StartKind)s->train.init;
    TrainedRow row = {METHOD_LORA, WEIGHTS_ADAPTER, start};
    if (!check_start(s, &adapter_start[start], err) || !method_flags(a, &row, 1, err) ||
        !method_saes(a, &row, 1, err))
        return false;
    if (!runtime_cpu(&ex, s, err)) return false; /* all of it is in double */
    bool direct = subspace_source(adapter_start[start].subspace) == SOURCE_MOMENTS;
    bool ok = (direct ? from_moments : from_scores)(&subspace, &ex, s, start, err) &&
              subspace_save(&subspace, s->subspace.out, err);
    if (ok && s->run.json)
        print_json(json_pack("{s:s, s:i, s:o}", "out", s->subspace.out, "layers", subspace.n,
                             "bases", adapting_describe(&subspace)));
    else if (ok)
        adapting_print(stdout, &subspace);
    subspace_free(&subspace);
    exec_close(&ex);
    return ok;
}

static const Use use[] = {
    {"subspace.*", USE_OPTIONAL}, {"subspace.out", USE_NEEDED}, {"score.sae", USE_OPTIONAL},
    {"train.rank", USE_OPTIONAL}, {"train.init", USE_OPTIONAL}, {"seed", USE_OPTIONAL},
    {"cpu", USE_OPTIONAL},        {"json", USE_OPTIONAL},       {NULL, USE_OPTIONAL}};

const Command cmd_subspace = {
    .name = "subspace",
    .summary = "the best features' decoder directions to a basis per layer",
    .about =
        "Takes the top features of each layer, finds by SVD how many directions explain the\n"
        "wanted variance, and keeps --rank orthonormal columns. It says how much of each "
        "feature's\n"
        "direction these hold (coverage), and of the span of them all. --sae is needed only when\n"
        "the SAEs have moved since they were scored. --init names the start that it is for: "
        "sails,\n"
        "or a control, which is made otherwise; the direct ones of --moments, without an SAE.",
    .positional = POSITIONAL_RECIPE,
    .use = use,
    .run = run,
};
