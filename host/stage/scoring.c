/* scoring.c - two corpora through the model and the SAEs, and what of it is printed. */
#include "host/stage/scoring.h"

#include <stdio.h>

#include "data/chat.h"
#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/interrupt.h"
#include "host/stage/bad_tensor.h"
#include "host/cli/print.h"

bool saes_open(SaeSet *set, Exec *ex, const Settings *s, const Layers *layers, int width,
               Err *err) {
    *set = (SaeSet){.sae = mem_array((size_t)layers->n, sizeof *set->sae)};
    for (int i = 0; i < layers->n; i++) {
        if (!sae_open(&set->sae[i], ex, s->score.sae, layers->layer[i], width, err)) {
            saes_close(set);
            return false;
        }
        set->sae[i].enc.products = (enum SaeProducts)s->score.products;
        set->n++;
    }
    return true;
}

void saes_close(SaeSet *set) {
    for (int i = 0; i < set->n; i++) sae_close(&set->sae[i]);
    free(set->sae);
    *set = (SaeSet){0};
}

/* --------------------------------------------------------------------- which tokens count -- */

/* The ids that structure a chat, -1 where the tokenizer has none. */
typedef struct Markers {
    int32_t bos, eos, pad, start, end, newline;
} Markers;

static Markers markers_of(const Runtime *r) {
    const Tokenizer *t = r->tokenizer;
    const Config *c = &r->model.c;
    return (Markers){c->bos,
                     tokenizer_id(t, "<eos>"),
                     c->pad,
                     tokenizer_id(t, "<start_of_turn>"),
                     tokenizer_id(t, "<end_of_turn>"),
                     tokenizer_id(t, "\n")};
}

/* Everything but BOS, EOS, padding, the headers <start_of_turn>ROLE\n and <end_of_turn>\n. */
static void count_all(uint8_t *counted, const Doc *d, const Markers *m) {
    for (int t = 0; t < d->n; t++) {
        int32_t id = d->token[t];
        counted[t] = id != m->bos && id != m->eos && id != m->pad && id != m->end && id != m->start;
        if (id == m->end && t + 1 < d->n && d->token[t + 1] == m->newline) counted[++t] = 0;
        if (id != m->start) continue;
        while (t + 1 < d->n && d->token[t] != m->newline) counted[++t] = 0;
    }
}

static uint8_t *counted_tokens(const Doc *d, int which, const Markers *m) {
    uint8_t *counted = mem_array((size_t)d->n, 1);
    count_all(counted, d, m);
    if (which == COUNT_ALL) return counted;
    /* Markers stand in a reply when it came as tokens, or spells them out. */
    for (int t = 0; t < d->n; t++) counted[t] = counted[t] && d->reply[t];
    int last = d->n - 1;
    while (last > 0 && !counted[last]) last--;
    if (which == COUNT_LAST) memset(counted, 0, (size_t)last);
    return counted;
}

/* ------------------------------------------------------------------------------ the pass -- */

typedef struct Scoring {
    Runtime *r;
    const Settings *s;
    Markers markers;
    ScoreRun *run;
    int64_t truncated;
} Scoring;

static bool stream_went_bad(const Scoring *w, Err *err) {
    return bad_tensor_find(&w->r->model, score_run_acts(w->run),
                           "the stream that the SAEs read is not finite", err);
}

/* doc[c].n == 0: none of this corpus. */
static bool add(Scoring *w, const Doc doc[2], Err *err) {
    ScoreItem item = {0};
    uint8_t *counted[2] = {0};
    for (int c = 0; c < 2; c++) {
        if (!doc[c].n) continue;
        counted[c] = counted_tokens(&doc[c], w->s->score.tokens, &w->markers);
        item.token[c] = doc[c].token;
        item.counted[c] = counted[c];
        item.n[c] = doc[c].n;
        w->truncated += doc[c].truncated;
    }
    score_run_add(w->run, &item);
    free(counted[0]);
    free(counted[1]);
    return !score_run_bad(w->run) || stream_went_bad(w, err);
}

static bool add_pairs(Scoring *w, const Records *records, const size_t *index, size_t n, Err *err) {
    Progress bar;
    progress_begin(&bar, "score", w->s->run.json);
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        Doc doc[2] = {{0}};
        int shared;
        const Record *r = &records->record[index ? index[i] : i];
        ok = !interrupted(err);
        if (!ok) break;
        ok = (doc_pair(&doc[0], &doc[1], &shared, w->r->tokenizer, r, w->s->data.max_length, err) ||
              err_prefix(err, "%s", w->s->data.path)) &&
             add(w, doc, err);
        doc_free(&doc[0]);
        doc_free(&doc[1]);
        progress_at(&bar, (double)i, (double)n);
    }
    progress_end(&bar);
    return ok;
}

static bool add_corpus(Scoring *w, const char *path, int c, Err *err) {
    Records records;
    if (!records_read(&records, path, (size_t)w->s->data.limit, err)) return false;
    Progress bar;
    progress_begin(&bar, "score", w->s->run.json);
    bool ok = true;
    for (size_t i = 0; i < records.n && ok; i++) {
        Doc doc[2] = {{0}};
        ok = !interrupted(err);
        if (!ok) break;
        ok = doc_from_record(&doc[c], w->r->tokenizer, &records.record[i], w->s->data.max_length,
                             err) ||
             err_prefix(err, "%s", path);
        ok = ok && add(w, doc, err);
        doc_free(&doc[c]);
        progress_at(&bar, (double)i, (double)records.n);
    }
    progress_end(&bar);
    records_free(&records);
    return ok;
}

static bool finish(const Scoring *w, Scores *scores, Err *err) {
    const Settings *s = w->s;
    if (score_run_finish(w->run, scores, err)) return true;
    if (score_run_bad(w->run)) return stream_went_bad(w, err);
    if (!*s->score.aligned) return err_prefix(err, "%s", s->data.path);
    return err_prefix(err, "%s, %s", s->score.aligned, s->score.unaligned);
}

/* What the file of scores says about where they come from. */
static bool describe(Scores *scores, const SaeSet *saes, const Settings *s, Err *err) {
    static const char *const counted[] = {COUNTED_TOKENS(CHOICE_TEXT)};
    scores_text(&scores->counted, counted[s->score.tokens]);
    scores_text(&scores->model, s->model.path);
    scores_text(&scores->data, *s->score.aligned ? s->score.aligned : s->data.path);
    for (int i = 0; i < scores->n; i++) {
        char hex[65];
        if (!files_sha256(hex, saes->sae[i].file, err)) return false;
        scores_text(&scores->layer[i].sha256, hex);
    }
    return true;
}

bool scoring_run(Scores *scores, ScoringWork *work, Runtime *r, const SaeSet *saes,
                 const Settings *s, const Records *records, const size_t *index, size_t n,
                 Err *err) {
    double start = clock_seconds();
    Scoring w = {.r = r, .s = s, .markers = markers_of(r)};
    w.run = score_run_open(&r->model, saes->sae, saes->n, settings_pack_tokens(s),
                           (enum ScorePool)s->score.pool);
    bool ok = records ? add_pairs(&w, records, index, n, err)
                      : add_corpus(&w, s->score.aligned, 0, err) &&
                            add_corpus(&w, s->score.unaligned, 1, err);
    ok = ok && finish(&w, scores, err);
    *work = (ScoringWork){.truncated = w.truncated, .pass = score_run_work(w.run)};
    score_run_close(w.run);
    if (!ok) return false;
    work->seconds = clock_seconds() - start;
    if (describe(scores, saes, s, err)) return true;
    scores_free(scores);
    return false;
}

void scoring_print(FILE *f, Exec *ex, const Scores *scores, enum ScoreKind by, int k) {
    FeatureStat *top = mem_array((size_t)k, sizeof *top);
    for (int i = 0; i < scores->n; i++) {
        int n = score_top(ex, top, scores, i, by, k, 0, 0);
        fprintf(f, "layer %d: %d features, the %d best\n", scores->layer[i].layer,
                scores->layer[i].S, n);
        fprintf(f, "  %8s %10s %10s %10s %8s %8s %8s\n", "feature", "aligned", "unaligned", "delta",
                "t", "fires", "fires");
        for (int j = 0; j < n; j++)
            fprintf(f, "  %8d %10.4g %10.4g %+10.4g %8.2f %7.2f%% %7.2f%%\n", top[j].feature,
                    top[j].mean[0], top[j].mean[1], top[j].diff, top[j].t, 100 * top[j].rate[0],
                    100 * top[j].rate[1]);
    }
    free(top);
}
