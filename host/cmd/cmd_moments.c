/* cmd_moments.c - first and second moments of the documents of two corpora, in one pass. */
#include <stdio.h>

#include "host/cli/command.h"
#include "host/cli/print.h"
#include "host/stage/agree.h"
#include "host/stage/moments.h"
#include "host/stage/plan.h"

static void report(const StreamMoments *m, const MomentsWork *w, const Settings *s) {
    if (s->run.json) {
        json_t *result = moments_describe(m);
        json_t *work =
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f}", "out", s->moments.out, "tokens",
                      (json_int_t)w->pass.tokens, "rows", (json_int_t)w->pass.rows, "counted",
                      (json_int_t)w->pass.counted, "truncated", (json_int_t)w->truncated,
                      "uncounted", (json_int_t)w->uncounted, "seconds", w->seconds);
        json_object_update(result, work);
        json_decref(work);
        print_json(result);
        return;
    }
    char tokens[PRINT_ROOM], rows[PRINT_ROOM], counted[PRINT_ROOM], took[PRINT_ROOM];
    printf(
        "%s: %lld aligned and %lld unaligned documents, %s tokens (%s computed, %s counted) in "
        "%s\n",
        s->moments.out, (long long)m->documents[0], (long long)m->documents[1],
        print_count(tokens, (double)w->pass.tokens), print_count(rows, (double)w->pass.rows),
        print_count(counted, (double)w->pass.counted), print_seconds(took, w->seconds));
    if (w->truncated) printf("  %lld documents cut at --max-length\n", (long long)w->truncated);
    if (w->uncounted)
        printf("  %lld left out: no token of theirs, or of one of the two, counts\n",
               (long long)w->uncounted);
    moments_print(stdout, m);
}

static bool check(const Settings *s, Err *err) {
    bool corpora = *s->score.aligned || *s->score.unaligned;
    if (corpora && !(*s->score.aligned && *s->score.unaligned))
        return err_set(err, EXIT_USAGE, "--aligned and --unaligned: expected both or neither");
    if (corpora == (*s->data.path != 0))
        return err_set(err, EXIT_USAGE, "expected --data with pairs, or --aligned and --unaligned");
    return settings_check_packs(s, err);
}

static bool make(Runtime *r, const Layers *layers, const Settings *s, Err *err) {
    Records records = {0};
    StreamMoments m = {0};
    MomentsWork work;
    bool pairs = *s->data.path, root = comm_root(r->ex.comm);
    bool ok = (!pairs || records_read(&records, s->data.path, (size_t)s->data.limit, err)) &&
              moments_run(&m, &work, r, layers, s, pairs ? &records : NULL, NULL, records.n, err) &&
              agree_root(r->ex.comm, !root || stream_save(&m, s->moments.out, err), err);
    if (ok && root) report(&m, &work, s);
    stream_free(&m);
    records_free(&records);
    return ok;
}

static bool fits(Runtime *r, const Settings *s, Err *err) {
    Plan p = {0};
    plan_measured(&p, "program and tokenizer");
    return plan_moments(&p, s, &r->ex, NULL, err) && plan_fits(&p, &r->ex, err);
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Runtime r = {0};
    Layers layers = {0};
    bool ok = check(s, err) && runtime_device(&r, s, a->comm, err) && runtime_ids(&r, s, err) &&
              fits(&r, s, err) && runtime_model(&r, s, s->data.max_length, err) &&
              (!*s->model.adapter || runtime_adapter(&r, s->model.adapter, false, err)) &&
              layers_parse(&layers, s->score.layers, r.model.c.L, err) && make(&r, &layers, s, err);
    layers_free(&layers);
    runtime_close(&r, ok);
    return ok;
}

static const Use use[] = {{"moments.out", USE_NEEDED},
                          {"score.layers", USE_NEEDED},
                          ONLY("score.aligned"),
                          ONLY("score.unaligned"),
                          ONLY("score.tokens"),
                          {"model.path", USE_NEEDED},
                          ONLY("model.*"),
                          ONLY("data.path"),
                          ONLY("data.limit"),
                          ONLY("data.max-length"),
                          ONLY("data.pack-tokens"),
                          ONLY("seed"),
                          ONLY("threads"),
                          ONLY("deadline"),
                          ONLY("cpu"),
                          ONLY("json"),
                          {NULL, USE_OPTIONAL}};

const Command cmd_moments = {
    .name = "moments",
    .summary = "how aligned and unaligned replies differ, without an SAE",
    .about =
        "One pass over pairs (--data), or over --aligned and --unaligned. A document is the mean\n"
        "of the residual stream over its reply. The file keeps the corpora's means and second\n"
        "moments, and that of the pairs' differences, for the starts direct-mean, direct-pairs "
        "and\n"
        "direct-covariance; and the stream at 64 tokens of each corpus, drawn by --seed, for the\n"
        "start landmarks. It says which share of their variance the two of a pair have in common.",
    .positional = POSITIONAL_RECIPE,
    .ranks = true,
    .use = use,
    .run = run,
};
