/* scoring.c - two corpora through the model and the SAEs, and what of it is printed. */
#include "host/stage/scoring.h"

#include <stdio.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/interrupt.h"
#include "host/stage/agree.h"
#include "host/stage/bad_tensor.h"
#include "host/stage/corpora.h"
#include "host/stage/same_input.h"
#include "host/stage/snapshot.h"
#include "host/stage/wish.h"
#include "host/cli/print.h"

static bool same_saes(const SaeSet *set, Comm *c, Err *err) {
    if (!c) return true;
    json_t *key = result_key_new();
    bool ok =
        saes_key(key, &hasher_plain, set, err) && same_key(c, "what was read as SAEs", key, err);
    json_decref(key);
    return ok;
}

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
    if (!ex || same_saes(set, ex->comm, err)) return true;
    saes_close(set);
    return false;
}

void saes_close(SaeSet *set) {
    for (int i = 0; i < set->n; i++) sae_close(&set->sae[i]);
    free(set->sae);
    *set = (SaeSet){0};
}

bool saes_key(json_t *key, const Hasher *h, const SaeSet *set, Err *err) {
    bool ok = true;
    for (int i = 0; i < set->n && ok; i++) {
        const Sae *sae = &set->sae[i];
        char weights[48], reading[48], *config = files_join(sae->path, "cfg.json");
        snprintf(weights, sizeof weights, "sae/%d", sae->layer);
        snprintf(reading, sizeof reading, "sae/%d/cfg.json", sae->layer);
        ok = result_key_file(key, h, weights, sae->file, err) &&
             (!files_exists(config) || result_key_file(key, h, reading, config, err));
        free(config);
    }
    return ok;
}

/* ------------------------------------------------------------------------------ the pass -- */

typedef struct Scoring {
    Runtime *r;
    const Settings *s;
    ScoreRun *run;
    int64_t truncated;
    Progress bar;
    const Keeping *keep; /* NULL: nothing is kept */
    size_t blocks;       /* done, of all ranks */
    size_t whole;        /* those that are kept whole */
    double saved;        /* when */
    ScoringWork before;  /* of the process that went before; rank 0's */
} Scoring;

static bool stream_went_bad(const Scoring *w, Err *err) {
    return bad_tensor_find(&w->r->model, score_run_acts(w->run),
                           "the stream that the SAEs read is not finite", err);
}

static bool add_item(Scoring *w, const Corpora *corpora, size_t i, Err *err) {
    CorporaItem item;
    if (!corpora_item(&item, corpora, i, err)) return false;
    PairItem pair = corpora_pair(&item);
    w->truncated += item.doc[0].truncated + item.doc[1].truncated;
    score_run_add(w->run, &pair);
    corpora_item_free(&item);
    return !score_run_bad(w->run) || stream_went_bad(w, err);
}

/* Statistics are added up by blocks of items, in the order of the blocks, each from packs of its
 * own: so their bits do not depend on how many ranks share the blocks. Few enough that adding costs
 * nothing, large enough for full packs; both follow from the data alone. */
static size_t block_items(size_t n) {
    enum { BLOCKS = 64, LEAST = 16 };
    size_t each = (n + BLOCKS - 1) / BLOCKS;
    return each > LEAST ? each : LEAST;
}

static bool run_block(Scoring *w, const Corpora *it, size_t first, size_t end, Err *err) {
    for (size_t i = first; i < end; i++) {
        if (interrupted(err) || !add_item(w, it, i, err)) return false;
        comm_beat(w->r->ex.comm);
        progress_at(&w->bar, (double)i, (double)it->n);
    }
    return true;
}

/* The work of all ranks, and of the process before. */
static ScoringWork all_work(const Scoring *w) {
    Comm *comm = w->r->ex.comm;
    ScoringWork *each = mem_array((size_t)comm_size(comm), sizeof *each), sum = w->before;
    each[comm_rank(comm)] = (ScoringWork){0, w->truncated, score_run_work(w->run)};
    comm_share(comm, "work of scoring", each, sizeof *each);
    for (int r = 0; r < comm_size(comm); r++) {
        sum.truncated += each[r].truncated;
        score_work_add(&sum.pass, &each[r].pass);
    }
    free(each);
    return sum;
}

/* ------------------------------------------------------------------------- what is kept -- */

static const char *const kept_file[] = {"scores.safetensors", NULL};
static const double KEEP_SECONDS = 600;

static bool write_sums(void *scores, const char *folder, Err *err) {
    char *path = files_join(folder, kept_file[0]);
    bool ok = scores_save(scores, path, err);
    free(path);
    return ok;
}

static bool read_sums(void *scores, const char *folder, Err *err) {
    char *path = files_join(folder, kept_file[0]);
    bool ok = scores_load(scores, path, err);
    free(path);
    return ok;
}

static Snapshot snapshot_of(const Scoring *w) {
    return (Snapshot){
        .step = w->blocks, .run = w->keep->run, .maker = w->keep->maker, .file = kept_file};
}

static bool save(Scoring *w, Scores *sum, const ScoringWork *work, Err *err) {
    const ScoreWork *p = &work->pass;
    Snapshot s = snapshot_of(w);
    s.state = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "truncated", (json_int_t)work->truncated,
                        "tokens", (json_int_t)p->tokens, "rows", (json_int_t)p->rows, "counted",
                        (json_int_t)p->counted, "fires", (json_int_t)p->fires, "flips",
                        (json_int_t)p->flips);
    bool ok = snapshot_write(&s, w->keep->folder, write_sums, sum, err);
    if (ok) snapshot_prune(w->keep->folder, 1, w->whole, w->blocks);
    if (ok) w->whole = w->blocks;
    json_decref(s.state);
    return ok;
}

static bool load(Scoring *w, Scores *sum, Err *err) {
    bool found;
    Snapshot s = snapshot_of(w);
    ScoringWork *b = &w->before;
    json_int_t n[6];
    if (!snapshot_read(&s, &found, w->keep->folder, read_sums, sum, err)) return false;
    if (found &&
        json_unpack(s.state, "{s:I, s:I, s:I, s:I, s:I, s:I}", "truncated", &n[0], "tokens", &n[1],
                    "rows", &n[2], "counted", &n[3], "fires", &n[4], "flips", &n[5]) == 0) {
        *b = (ScoringWork){0, n[0], {n[1], n[2], n[3], n[4], n[5]}};
        w->blocks = w->whole = s.step;
        fprintf(stderr, "sails: %s: going on after block %zu\n", w->keep->folder, s.step);
    } else if (w->keep->expected) {
        fprintf(stderr, "sails: %s: nothing to resume; beginning with the first pair\n",
                w->keep->folder);
    }
    json_decref(s.state);
    return true;
}

static bool resume(Scoring *w, Scores *sum, Err *err) {
    Comm *comm = w->r->ex.comm;
    w->saved = clock_seconds();
    if (!w->keep) return true;
    if (!agree_root(comm, !comm_root(comm) || load(w, sum, err), err)) return false;
    comm_broadcast(comm, "blocks done", &w->blocks, sizeof w->blocks);
    return true;
}

/* After a round: saves when it is time, stops when that is asked for. */
static bool keep_round(Scoring *w, Scores *sum, size_t blocks, Err *err) {
    Comm *comm = w->r->ex.comm;
    if (!w->keep) return true;
    bool time_to = comm_root(comm) && clock_seconds() - w->saved >= KEEP_SECONDS;
    Wish wish = wish_share(comm, (Wish){interrupt_requested(), time_to});
    if (!wish.signal && !wish.save) return true;
    ScoringWork work = all_work(w);
    if (!agree_root(comm, !comm_root(comm) || save(w, sum, &work, err), err)) return false;
    w->saved = clock_seconds();
    char after[64];
    snprintf(after, sizeof after, "after %zu of %zu blocks", w->blocks, blocks);
    return !wish.signal || wish_stop(&wish, after, w->keep->again, err);
}

/* ------------------------------------------------------------------------------ the pass -- */

/* Each round has a block for each rank, the last one perhaps fewer. */
static bool run_rounds(Scoring *w, Scores *sum, const Corpora *it, Err *err) {
    Comm *comm = w->r->ex.comm;
    size_t each = block_items(it->n), ranks = (size_t)comm_size(comm);
    size_t blocks = (it->n + each - 1) / each;
    while (w->blocks < blocks) {
        size_t first = (w->blocks + (size_t)comm_rank(comm)) * each, end = first + each;
        size_t givers = blocks - w->blocks < ranks ? blocks - w->blocks : ranks;
        Scores own;
        if (!run_block(w, it, first, end < it->n ? end : it->n, err)) return false;
        score_run_finish(w->run, &own);
        bool ok = !score_run_bad(w->run) || stream_went_bad(w, err);
        if (ok && sum->n == 0 && comm_root(comm)) scores_copy_shape(sum, &own);
        if (ok) scores_collect(sum, comm, &own, (int)givers);
        scores_free(&own);
        w->blocks += givers;
        if (!ok || (w->blocks < blocks && !keep_round(w, sum, blocks, err))) return false;
    }
    return true;
}

static bool check(const Scoring *w, const Scores *sum, Err *err) {
    const Settings *s = w->s;
    if (sum->n == 0) return err_set(err, EXIT_INPUT, "%s: no documents", s->data.path);
    if (scores_check(sum, err)) return true;
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
                 const Keeping *keep, Err *err) {
    double start = clock_seconds();
    Comm *comm = r->ex.comm;
    Scoring w = {.r = r, .s = s, .keep = keep};
    Corpora corpora;
    *scores = (Scores){0};
    w.run = score_run_open(&r->model, saes->sae, saes->n, settings_pack_tokens(s),
                           (enum ScorePool)s->score.pool);
    comm_phase(comm, "score", 0, RANKS_APART);
    progress_begin(&w.bar, "score", s->run.json);
    bool ok = corpora_open(&corpora, r, s, records, index, n, err) && resume(&w, scores, err) &&
              run_rounds(&w, scores, &corpora, err);
    progress_end(&w.bar);
    if (ok) *work = all_work(&w);
    ok = ok &&
         agree_root(comm,
                    !comm_root(comm) || (check(&w, scores, err) && describe(scores, saes, s, err)),
                    err);
    score_run_close(w.run);
    corpora_close(&corpora);
    if (ok) work->seconds = clock_seconds() - start;
    if (!ok) scores_free(scores);
    return ok;
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
