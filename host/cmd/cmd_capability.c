/* cmd_capability.c - multiple-choice tasks: what a model still can after it was tuned. */
#include <stdio.h>

#include "data/base/files.h"
#include "host/cli/command.h"
#include "host/cli/print.h"
#include "host/stage/agree.h"
#include "host/stage/capability.h"
#include "host/stage/plan.h"
#include "host/stage/runtime.h"

static double number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

static void report(const json_t *result) {
    static const char *const name[] = {"acc", "acc_norm"};
    for (int k = 0; k < 2; k++) {
        const json_t *of = json_object_get(result, name[k]), *at = json_object_get(of, "interval");
        printf("%-9s %6.2f %%  [%.1f, %.1f]  of %.0f questions", name[k], 100 * number(of, "share"),
               100 * json_number_value(json_array_get(at, 0)),
               100 * json_number_value(json_array_get(at, 1)), number(of, "n"));
        const json_t *versus = json_object_get(json_object_get(result, "versus"), name[k]);
        if (versus)
            printf("   right here alone %.0f, there alone %.0f, p %.3g", number(versus, "here"),
                   number(versus, "there"), number(versus, "p"));
        putchar('\n');
    }
    const char *subject;
    const json_t *of;
    json_object_foreach ((json_t *)(uintptr_t)json_object_get(result, "subjects"), subject, of)
        printf("  %-40s %6.2f %%  of %.0f\n", subject,
               100 * number(json_object_get(of, "acc"), "share"),
               number(json_object_get(of, "acc"), "n"));
}

static bool fits(Runtime *r, const Settings *s, const Dataset *d, Err *err) {
    Plan p = {0};
    plan_measured(&p, "program, tokenizer and questions");
    return plan_logprob(&p, s, &r->ex, d, err) && plan_fits(&p, &r->ex, err);
}

static bool measure(Runtime *r, const Questions *q, const Dataset *d, const Settings *s, Err *err) {
    json_t *result;
    bool ok = capability(&result, &r->model, q, d, s, err);
    if (ok && result && *s->capability.out) ok = files_write_json(s->capability.out, result, err);
    ok = agree_root(r->ex.comm, ok, err);
    if (ok && result && s->run.json)
        print_json(json_incref(result));
    else if (ok && result)
        report(result);
    json_decref(result);
    return ok;
}

static bool check(const Settings *s, Err *err) {
    if (s->capability.shots && s->capability.task != TASK_MMLU)
        return err_set(err, EXIT_USAGE,
                       "--shots: expected 0 but for mmlu: of the other tasks the harness draws its "
                       "examples at random");
    return settings_check_packs(s, err) &&
           (!*s->capability.out || files_can_create(s->capability.out, err));
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Runtime r = {0};
    Dataset d = {0};
    Questions q = {0};
    bool ok = check(s, err) && runtime_device(&r, s, a->comm, err) && runtime_ids(&r, s, err) &&
              task_read(&q, (enum TaskName)s->capability.task, s->capability.questions,
                        s->capability.shots, (size_t)s->capability.limit, err) &&
              capability_documents(&d, r.tokenizer, &q, s->data.max_length, err) &&
              fits(&r, s, &d, err) && runtime_model(&r, s, (int)d.longest, err) &&
              (!*s->model.adapter || runtime_adapter(&r, s->model.adapter, false, err)) &&
              measure(&r, &q, &d, s, err);
    dataset_free(&d);
    questions_free(&q);
    runtime_close(&r, ok);
    return ok;
}

static const Use use[] = {{"capability.*", USE_OPTIONAL},
                          {"capability.questions", USE_NEEDED},
                          {"model.*", USE_OPTIONAL},
                          {"model.path", USE_NEEDED},
                          {"data.max-length", USE_OPTIONAL},
                          {"data.pack-tokens", USE_OPTIONAL},
                          {"threads", USE_OPTIONAL},
                          {"deadline", USE_OPTIONAL},
                          {"cpu", USE_OPTIONAL},
                          {"json", USE_OPTIONAL},
                          {NULL, USE_OPTIONAL}};

const Command cmd_capability = {
    .name = "capability",
    .summary = "multiple-choice tasks by log-probability: MMLU, ARC, HellaSwag, PIQA",
    .about =
        "Texts and rules go by lm-evaluation-harness: acc by the sum of a choice's\n"
        "log-probabilities, acc_norm by that sum over its characters. Shares have 95 %\n"
        "intervals (Wilson). The result (--out, --json) holds every question's sums.",
    .positional = POSITIONAL_RECIPE,
    .ranks = true,
    .use = use,
    .run = run,
};
