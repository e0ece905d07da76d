/* align_bases.c - the stages of align that adapters start from: scores, moments and subspaces. */
#include <stdio.h>

#include "data/base/mem.h"
#include "host/align/staging.h"
#include "host/stage/adapting.h"
#include "host/stage/inputs.h"
#include "host/stage/moments.h"
#include "host/stage/scoring.h"

/* The two files that stand in for the pairs; nothing of them is held out. */
static bool key_corpora(Align *w, Stage *st, Err *err) {
    stage_section(st, w->s, "data", KEYS("data.side", "data.heldout"));
    return stage_file(st, &w->run, "aligned", w->s->score.aligned, err) &&
           stage_file(st, &w->run, "unaligned", w->s->score.unaligned, err);
}

bool align_key_scored(Align *w, Stage *st, Err *err) {
    return *w->s->score.aligned ? key_corpora(w, st, err) : staging_data(w, st, err);
}

/* The files behind --sae; opened without their weights. */
static bool key_saes(Align *w, Stage *st, Err *err) {
    SaeSet saes;
    if (!saes_open(&saes, NULL, w->s, &w->layers, 0, err)) return false;
    Hasher h = run_hasher(&w->run);
    bool ok = saes_key(st->key, &h, &saes, err);
    saes_close(&saes);
    return ok;
}

static bool make_scores(Align *w, const Stage *st, const char *path, json_t **result, Err *err) {
    const Settings *s = w->s;
    bool corpora = *s->score.aligned;
    SaeSet saes = {0};
    Scores scores = {0};
    ScoringWork work;
    Keeping keep;
    bool ok = staging_keep_begin(&keep, w, st, err) && align_base(w, err) &&
              saes_open(&saes, &w->r.ex, s, &w->layers, w->r.model.c.D, err) &&
              scoring_run(&scores, &work, &w->r, &saes, s, corpora ? NULL : &w->data.records,
                          w->split.train, w->split.ntrain, &keep, err) &&
              ALONE(w, scores_save(&scores, path, err), err);
    if (ok)
        *result = json_pack("{s:f, s:I, s:I, s:I, s:I, s:I}", "seconds", work.seconds, "tokens",
                            (json_int_t)work.pass.tokens, "rows", (json_int_t)work.pass.rows,
                            "counted", (json_int_t)work.pass.counted, "sampled_fires",
                            (json_int_t)work.pass.fires, "flips", (json_int_t)work.pass.flips);
    staging_keep_end(&keep, w, ok);
    scores_free(&scores);
    saes_close(&saes);
    return ok;
}

bool align_score(Align *w, Err *err) {
    const Settings *s = w->s;
    Stage st;
    staging_open(w, &st, "score", NULL);
    stage_section(&st, s, "score", KEYS(NULL));
    bool corpora = *s->score.aligned;
    bool ok = staging_model(w, &st, err) && key_saes(w, &st, err) &&
              (corpora ? key_corpora(w, &st, err) : staging_data(w, &st, err));
    const char *const *out = OUTPUTS("scores.safetensors");
    bool kept = false;
    ok = ok && staging_begin(w, &st, out, NEEDS_MODEL, &kept, err);
    if (ok && !kept) {
        json_t *result = NULL;
        char *path = run_path(&w->run, out[0]);
        ok = make_scores(w, &st, path, &result, err) && staging_finish(w, &st, out, result, err);
        free(path);
    }
    stage_free(&st);
    return ok;
}

static bool make_moments(Align *w, const char *path, json_t **result, Err *err) {
    bool corpora = *w->s->score.aligned;
    StreamMoments m;
    MomentsWork work;
    if (!align_base(w, err) ||
        !moments_run(&m, &work, &w->r, &w->layers, w->s, corpora ? NULL : &w->data.records,
                     w->split.train, w->split.ntrain, err))
        return false;
    bool ok = ALONE(w, stream_save(&m, path, err), err);
    if (ok) *result = moments_describe(&m);
    if (ok && comm_root(w->r.ex.comm) && !w->s->run.json) moments_print(stdout, &m);
    stream_free(&m);
    return ok;
}

bool align_moments(Align *w, json_t **result, Err *err) {
    Stage st;
    staging_open(w, &st, "moments", NULL);
    stage_setting(&st, w->s, "score.layers");
    stage_setting(&st, w->s, "score.tokens");
    stage_setting(&st, w->s, "seed");
    bool ok = staging_model(w, &st, err) &&
              (*w->s->score.aligned ? key_corpora(w, &st, err) : staging_data(w, &st, err));
    const char *const *out = OUTPUTS("moments.safetensors");
    bool kept = false;
    ok = ok && staging_begin(w, &st, out, NEEDS_MODEL, &kept, err);
    if (ok && !kept) {
        json_t *made = NULL;
        char *path = run_path(&w->run, out[0]);
        ok = make_moments(w, path, &made, err) && staging_finish(w, &st, out, made, err);
        free(path);
    }
    if (ok) *result = json_incref(st.result);
    stage_free(&st);
    return ok;
}

static bool subspace_of_scores(Subspace *to, Align *w, const Settings *s, enum StartKind start,
                               const char *path, Err *err) {
    Scores scores = {0};
    bool ok = scores_load(&scores, path, err) &&
              adapting_subspace(to, &w->r.ex, &scores, s->score.sae, s, start, err);
    scores_free(&scores);
    return ok;
}

static bool subspace_of_moments(Subspace *to, Align *w, const Settings *s, enum StartKind start,
                                const char *path, Err *err) {
    StreamMoments moments = {0};
    bool ok =
        stream_load(&moments, path, err) && adapting_direct(to, &w->r.ex, &moments, s, start, err);
    stream_free(&moments);
    return ok;
}

static bool direct(const Cell *c) {
    return subspace_source(c->method->start->subspace) == SOURCE_MOMENTS;
}

static bool make_subspace(Align *w, const Cell *c, const char *from, const char *path,
                          json_t **result, Err *err) {
    Settings s = *w->s;
    Subspace subspace = {0};
    s.run.seed = c->subspace_seed;
    bool ok = (direct(c) ? subspace_of_moments : subspace_of_scores)(
                  &subspace, w, &s, adapter_start_kind(c->method->start), from, err) &&
              subspace_save(&subspace, path, err);
    if (ok && !w->s->run.json) adapting_print(stdout, &subspace);
    if (ok) *result = json_pack("{s:o}", "bases", adapting_describe(&subspace));
    subspace_free(&subspace);
    return ok;
}

static bool of_inputs(const Cell *c) {
    return subspace_source(c->method->start->subspace) == SOURCE_INPUTS;
}

static bool of_outputs(const Cell *c) {
    return subspace_source(c->method->start->subspace) == SOURCE_OUTPUTS;
}

static bool of_passes(const Cell *c) {
    return of_inputs(c) || of_outputs(c);
}

/* Of what is written, and how many tokens that were. */
static bool run_outputs(Subspace *to, int64_t *rows, Align *w, const Settings *s, Err *err) {
    int64_t each[2];
    Examples kept = dataset_examples(&w->kept);
    const Examples task = {.doc = w->data.doc, .index = w->split.train, .n = w->split.ntrain};
    if (!inputs_run_outputs(to, each, &w->r, s, &kept, &task, err)) return false;
    *rows = each[0] + each[1];
    return true;
}

/* All ranks; the result is rank 0's. */
static bool make_inputs(Align *w, const Cell *c, const char *path, json_t **result, Err *err) {
    Settings s = *w->s;
    Subspace subspace = {0};
    int64_t rows;
    s.run.seed = c->subspace_seed;
    bool ok = align_base(w, err) &&
              (of_outputs(c) ? run_outputs(&subspace, &rows, w, &s, err)
                             : inputs_run(&subspace, &rows, &w->r, &s, w->data.doc, w->split.train,
                                          w->split.ntrain, err)) &&
              ALONE(w, subspace_save(&subspace, path, err), err);
    if (ok && comm_root(w->r.ex.comm) && !s.run.json) adapting_print(stdout, &subspace);
    if (ok)
        *result = json_pack("{s:I, s:o}", "tokens", (json_int_t)rows, "bases",
                            adapting_describe(&subspace));
    subspace_free(&subspace);
    return ok;
}

/* Features, and how they are chosen, are those of scores alone. */
static bool key_source(Align *w, Stage *st, const Cell *c, Err *err) {
    if (direct(c)) return staging_output(w, st, "moments.safetensors", err);
    if (of_outputs(c)) {
        stage_setting(st, w->s, "inputs.preserve-rank");
        stage_setting(st, w->s, "inputs.samples");
        if (!stage_file(st, &w->run, "preserve", w->s->inputs.preserve, err)) return false;
    }
    if (of_inputs(c)) stage_setting(st, w->s, "train.rho");
    if (of_passes(c)) {
        stage_setting(st, w->s, "train.targets");
        return staging_model(w, st, err) && staging_data(w, st, err);
    }
    stage_section(st, w->s, "subspace", KEYS(NULL));
    return staging_output(w, st, "scores.safetensors", err) && key_saes(w, st, err);
}

bool align_subspace(Align *w, const Cell *c, json_t **result, Err *err) {
    Stage st;
    char name[160];
    staging_open(w, &st, "subspace", c->subspace);
    staging_factorisations(&st);
    stage_setting(&st, w->s, "train.rank");
    staging_seed(&st, "seed", c->subspace_seed);
    const char *const *out = OUTPUTS(staging_named(name, SUBSPACE_FILE, c->subspace));
    bool ok = key_source(w, &st, c, err);
    bool kept = false;
    ok = ok && staging_begin(w, &st, out, of_passes(c) ? NEEDS_MODEL : NEEDS_NOTHING, &kept, err);
    if (ok && !kept) {
        json_t *made = NULL;
        const char *source = direct(c) ? "moments.safetensors" : "scores.safetensors";
        char *from = run_path(&w->run, source), *to = run_path(&w->run, out[0]);
        ok = (of_passes(c) ? make_inputs(w, c, to, &made, err)
                           : ALONE(w, make_subspace(w, c, from, to, &made, err), err)) &&
             staging_finish(w, &st, out, made, err);
        free(to);
        free(from);
    }
    if (ok) *result = json_incref(st.result);
    stage_free(&st);
    return ok;
}
