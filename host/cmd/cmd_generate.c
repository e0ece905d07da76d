/* cmd_generate.c - answers to prompts. */
#include <stdio.h>

#include "data/base/interrupt.h"

#include "host/cli/command.h"
#include "host/stage/generating.h"
#include "host/stage/plan.h"
#include "host/cli/print.h"

static void report(const GeneratingWork *w, const Settings *s) {
    double rate = w->seconds > 0 ? (double)w->tokens / w->seconds : 0;
    if (s->run.json) {
        print_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:f}", "out", s->generate.out,
                             "prompts", (json_int_t)w->prompts, "prompt_tokens",
                             (json_int_t)w->prompt_tokens, "tokens", (json_int_t)w->tokens, "cut",
                             (json_int_t)w->cut, "seconds", w->seconds, "tokens_per_second", rate));
        return;
    }
    char count[PRINT_ROOM], took[PRINT_ROOM], per_second[PRINT_ROOM];
    printf("%s: %zu responses, %s tokens in %s (%s tok/s), %zu cut at --max-new-tokens\n",
           s->generate.out, w->prompts, print_count(count, (double)w->tokens),
           print_seconds(took, w->seconds), print_count(per_second, rate), w->cut);
}

static bool fits(Runtime *r, const Settings *s, const Prompts *prompts, Err *err) {
    Plan p = {0};
    GenOptions o = generating_options(s, prompts);
    plan_measured(&p, "program, tokenizer and prompts");
    return plan_generate(&p, s, &r->ex, &o, err) && plan_fits(&p, &r->ex, err);
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    if (s->generate.resume && !*s->generate.out)
        return err_set(err, EXIT_USAGE, "--resume: --out is needed, beside which work is kept");
    if (s->generate.resume) interrupt_as_request();
    Runtime r = {0};
    Prompts prompts = {0};
    Config c = {0};
    GeneratingWork work;
    CommandKeeping kept = {0};
    const Keeping *keep = s->generate.resume ? &kept.k : NULL;
    bool ok = runtime_device(&r, s, a->comm, err) && runtime_tokenizer(&r, s, err) &&
              config_load(&c, s->model.path, err) &&
              prompts_read(&prompts, r.tokenizer, s, c.max_positions, err) &&
              fits(&r, s, &prompts, err) && runtime_model(&r, s, 0, err) &&
              (!*s->model.adapter || runtime_adapter(&r, s->model.adapter, false, err)) &&
              (!keep || keeping_open(&kept, a, s->generate.out, &r.ex, err)) &&
              generating_run(&work, &r, s, &prompts, s->generate.out, keep, err);
    if (ok) keeping_done(keep, &r.ex);
    keeping_close(&kept);
    if (ok && comm_root(a->comm) && *s->generate.out) report(&work, s);
    config_free(&c);
    prompts_free(&prompts);
    runtime_close(&r, ok);
    return ok;
}

static const Use use[] = {{"generate.*", USE_OPTIONAL}, {"generate.prompts", USE_NEEDED},
                          {"model.*", USE_OPTIONAL},    {"model.path", USE_NEEDED},
                          {"seed", USE_OPTIONAL},       {"threads", USE_OPTIONAL},
                          {"deadline", USE_OPTIONAL},   {"cpu", USE_OPTIONAL},
                          {"json", USE_OPTIONAL},       {NULL, USE_OPTIONAL}};

const Command cmd_generate = {
    .name = "generate",
    .summary = "answer prompts, batched, with a key/value cache",
    .about =
        "Writes {\"id\", \"prompt\", \"response\", \"category\", \"tokens\", \"stop\"} a line, in "
        "the\n"
        "order of the files. Stops on the model's <eos> ids and on <end_of_turn>.",
    .positional = POSITIONAL_RECIPE,
    .ranks = true,
    .use = use,
    .run = run,
};
