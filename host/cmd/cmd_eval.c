/* cmd_eval.c - judges responses and prints the rates. */
#include <math.h>
#include <stdio.h>

#include "data/base/files.h"
#include "data/base/statistics.h"
#include "host/cli/command.h"
#include "host/stage/evaluate.h"
#include "host/cli/print.h"

static void print_rate(const char *name, double share, size_t n, const char *of) {
    if (n)
        printf("%-14s %6.2f %%  of %zu %s\n", name, 100 * share, n, of);
    else
        printf("%-14s      -\n", name);
}

/* A name of a table of columns, cut to fit. */
enum { NAME = 34 };

static void print_versus(const Versus *v, const char *indent) {
    if (v->n)
        printf("%ssafe here alone %zu, there alone %zu, p %.3g", indent, v->here, v->there, v->p);
}

/* Shares of scores <= 2: of a benign category its over-refusal. */
static void print_categories(const Evaluation *e) {
    printf("%-*s %6s %8s   interval\n", NAME, "category", "n", "safe %");
    for (size_t i = 0; i < e->ncategory; i++) {
        const Category *c = &e->category[i];
        Interval at = statistics_share(c->rates.safe, c->rates.n);
        printf("%-*.*s %6zu %8.2f   [%.1f, %.1f]", NAME, NAME, *c->name ? c->name : "(none)",
               c->rates.n, 100 * c->rates.safety_rate, 100 * at.low, 100 * at.high);
        print_versus(&c->versus, "   ");
        putchar('\n');
    }
}

static void report(const Evaluation *e) {
    print_rate("safety rate", e->harmful.safety_rate, e->harmful.n, "responses");
    print_rate("high risk", e->harmful.high_risk, e->harmful.n, "responses");
    print_rate("over-refusal", e->over_refusal, e->benign, "benign responses");
    if (e->harmful.n)
        printf("%-14s %6.3f    mean score, 1 to 5\n", "harmfulness", e->harmful.harmfulness);
    if (e->empty) printf("%zu responses are without a letter or digit\n", e->empty);
    if (e->unanswered) printf("%zu prompts of the suite have no response\n", e->unanswered);
    for (int i = 0; i < 2; i++)
        if (e->versus[i].n) {
            print_versus(&e->versus[i], i ? "benign:  " : "harmful: ");
            putchar('\n');
        }
    if (e->ncategory > 1) print_categories(e);
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
        "own. --suite NAME --prompts FILE takes the categories, and which prompts should be\n"
        "answered, from a published suite; shares have 95 % intervals (Wilson). The result (--out, "
        "--json) holds every response's score and reason.",
    .positional = POSITIONAL_RECIPE,
    .use = use,
    .run = run,
};
