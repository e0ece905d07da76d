/* cmd_score.c - statistics of every SAE feature over two corpora, in one pass. */
#include <stdio.h>

#include "data/base/interrupt.h"

#include "host/cli/command.h"
#include "host/stage/agree.h"
#include "host/stage/plan.h"
#include "host/cli/print.h"
#include "host/stage/scoring.h"

static void report(Exec *ex, const Scores *scores, const ScoringWork *w, const Settings *s) {
    const ScoreWork *p = &w->pass;
    if (s->run.json) {
        print_json(json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "out", s->score.out,
                             "layers", scores->n, "tokens", (json_int_t)p->tokens, "rows",
                             (json_int_t)p->rows, "counted", (json_int_t)p->counted, "truncated",
                             (json_int_t)w->truncated, "sampled_fires", (json_int_t)p->fires,
                             "flips", (json_int_t)p->flips, "seconds", w->seconds));
        return;
    }
    char tokens[PRINT_ROOM], rows[PRINT_ROOM], counted[PRINT_ROOM], took[PRINT_ROOM];
    printf("%s: %s tokens (%s computed, %s counted) in %s\n", s->score.out,
           print_count(tokens, (double)p->tokens), print_count(rows, (double)p->rows),
           print_count(counted, (double)p->counted), print_seconds(took, w->seconds));
    if (scores->products == SAE_FAST)
        printf("  fast products switched a feature on or off %lld times, of %lld firings sampled\n",
               (long long)p->flips, (long long)p->fires);
    if (w->truncated) printf("  %lld documents cut at --max-length\n", (long long)w->truncated);
    scoring_print(stdout, ex, scores, SCORE_DELTA, 5);
}

static bool check(const Settings *s, Err *err) {
    bool corpora = *s->score.aligned || *s->score.unaligned;
    if (corpora && !(*s->score.aligned && *s->score.unaligned))
        return err_set(err, EXIT_USAGE, "--aligned and --unaligned: expected both or neither");
    if (corpora == (*s->data.path != 0))
        return err_set(err, EXIT_USAGE, "expected --data with pairs, or --aligned and --unaligned");
    return settings_check_packs(s, err);
}

static bool score_and_save(Runtime *r, const SaeSet *saes, const Args *a, Err *err) {
    const Settings *s = &a->s;
    CommandKeeping kept = {0};
    const Keeping *keep = s->score.resume ? &kept.k : NULL;
    Records records = {0};
    Scores scores = {0};
    ScoringWork work;
    bool pairs = *s->data.path;
    bool ok = !pairs || records_read(&records, s->data.path, (size_t)s->data.limit, err);
    if (ok && keep)
        ok = keeping_open(&kept, a, s->score.out, &r->ex, err) &&
             (!comm_root(r->ex.comm) || saes_key(keep->run, &hasher_plain, saes, err));
    ok = ok && scoring_run(&scores, &work, r, saes, s, pairs ? &records : NULL, NULL, records.n,
                           keep, err);
    bool root = comm_root(r->ex.comm);
    ok = ok && agree_root(r->ex.comm, !root || scores_save(&scores, s->score.out, err), err);
    if (ok && root) report(&r->ex, &scores, &work, s);
    if (ok) keeping_done(keep, &r->ex);
    keeping_close(&kept);
    scores_free(&scores);
    records_free(&records);
    return ok;
}

static bool fits(Runtime *r, const Settings *s, Err *err) {
    Plan p = {0};
    plan_measured(&p, "program and tokenizer");
    return plan_score(&p, s, &r->ex, NULL, err) && plan_fits(&p, &r->ex, err);
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Runtime r = {0};
    Layers layers = {0};
    SaeSet saes = {0};
    if (s->score.resume) interrupt_as_request();
    bool ok = check(s, err) && runtime_device(&r, s, a->comm, err) && runtime_ids(&r, s, err) &&
              fits(&r, s, err) && runtime_model(&r, s, s->data.max_length, err) &&
              (!*s->model.adapter || runtime_adapter(&r, s->model.adapter, false, err)) &&
              layers_parse(&layers, s->score.layers, r.model.c.L, err) &&
              saes_open(&saes, &r.ex, s, &layers, r.model.c.D, err) &&
              score_and_save(&r, &saes, a, err);
    saes_close(&saes);
    layers_free(&layers);
    runtime_close(&r, ok);
    return ok;
}

static const Use use[] = {{"score.*", USE_OPTIONAL},
                          {"score.sae", USE_NEEDED},
                          {"score.layers", USE_NEEDED},
                          {"score.out", USE_NEEDED},
                          {"model.*", USE_OPTIONAL},
                          {"model.path", USE_NEEDED},
                          {"data.path", USE_OPTIONAL},
                          {"data.limit", USE_OPTIONAL},
                          {"data.max-length", USE_OPTIONAL},
                          {"data.pack-tokens", USE_OPTIONAL},
                          {"threads", USE_OPTIONAL},
                          {"deadline", USE_OPTIONAL},
                          {"cpu", USE_OPTIONAL},
                          {"json", USE_OPTIONAL},
                          {NULL, USE_OPTIONAL}};

const Command cmd_score = {
    .name = "score",
    .summary = "which SAE features tell aligned from unaligned replies",
    .about =
        "One streaming pass over pairs (--data), or over --aligned and --unaligned. The file\n"
        "keeps sums, not activations: ranking and k can be chosen later.",
    .positional = POSITIONAL_RECIPE,
    .ranks = true,
    .use = use,
    .run = run,
};
