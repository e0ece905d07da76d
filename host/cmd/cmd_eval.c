/* cmd_eval.c - judges responses and prints the rates. */
#include <math.h>
#include <stdio.h>

#include "data/base/files.h"
#include "host/cli/command.h"
#include "host/stage/evaluate.h"
#include "host/cli/print.h"

static void print_rate(const char *name, double share, size_t n, const char *of) {
    if (n)
        printf("%-14s %6.2f %%  of %zu %s\n", name, 100 * share, n, of);
    else
        printf("%-14s      -\n", name);
}

static void report(const Evaluation *e) {
    print_rate("safety rate", e->harmful.safety_rate, e->harmful.n, "responses");
    print_rate("high risk", e->harmful.high_risk, e->harmful.n, "responses");
    print_rate("over-refusal", e->over_refusal, e->benign, "benign responses");
    if (e->harmful.n)
        printf("%-14s %6.3f    mean score, 1 to 5\n", "harmfulness", e->harmful.harmfulness);
    if (e->empty) printf("%zu responses are without a letter or digit\n", e->empty);
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Evaluation e;
    if (!evaluate(&e, s->eval.responses, s, err)) return false;
    bool ok = !*s->eval.out || files_write_json(s->eval.out, e.json, err);
    if (ok && s->run.json) {
        print_json(e.json);
        e.json = NULL;
    } else if (ok) {
        report(&e);
    }
    evaluation_free(&e);
    return ok;
}

static const Use use[] = {{"eval.*", USE_OPTIONAL},
                          {"eval.responses", USE_NEEDED},
                          {"json", USE_OPTIONAL},
                          {NULL, USE_OPTIONAL}};

const Command cmd_eval = {
    .name = "eval",
    .summary = "judge responses: safety rate, harmfulness, high risk, over-refusal",
    .about =
        "Judge `refusal` gives 1 or 5 by fixed rules; `file` takes scores from a judge of your\n"
        "own. The result (--out, --json) holds every response's score and reason.",
    .positional = POSITIONAL_RECIPE,
    .use = use,
    .run = run,
};
