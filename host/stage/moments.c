/* moments.c - documents of two corpora through the model, in blocks, and their sums. */
#include "host/stage/moments.h"

#include <math.h>

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "data/base/rng.h"
#include "host/cli/json_lines.h"
#include "host/cli/print.h"
#include "host/stage/agree.h"
#include "host/stage/bad_tensor.h"
#include "host/stage/corpora.h"
#include "host/stage/wish.h"

/* Items whose vectors lie in memory at a time. Each block has packs of its own: so the vectors'
 * bits do not depend on how many ranks share the blocks. */
enum { BLOCK = 64 };

enum { LANDMARK_DRAWS = 1 }; /* the stream of their random numbers */

typedef struct Gathering {
    Runtime *r;
    StreamRun *run;
    const Layers *layers;
    Progress bar;
    uint8_t has[BLOCK]; /* (items) of the block: bit c, one of corpus c */
    double *v;          /* (items,2,layers,D) */
    int items;
    MomentsWork work;
} Gathering;

static size_t item_numbers(const Gathering *g) {
    return 2 * (size_t)g->layers->n * (size_t)g->r->model.c.D;
}

size_t moments_block_bytes(int D, int layers) {
    return BLOCK * 2 * (size_t)layers * (size_t)D * sizeof(double);
}

/* Of document c of an item of the block: its place among the vectors. */
static double *vector_at(const Gathering *g, int item, int c) {
    return g->v + (size_t)item * item_numbers(g) + (size_t)c * item_numbers(g) / 2;
}

static bool has_counted(const PairItem *pair, int c) {
    for (int t = 0; t < pair->n[c]; t++)
        if (pair->counted[c][t]) return true;
    return false;
}

/* Where an item of the block will have its vectors; false: nothing of it counts. */
static bool place_item(Gathering *g, const PairItem *pair, double *to[2]) {
    uint8_t has = 0;
    for (int c = 0; c < 2; c++) {
        if (pair->n[c] && !has_counted(pair, c)) return false;
        if (!pair->n[c]) continue;
        to[c] = vector_at(g, g->items, c);
        has |= (uint8_t)(1 << c);
    }
    g->has[g->items++] = has;
    return true;
}

static bool add_item(Gathering *g, const Corpora *corpora, size_t i, Err *err) {
    CorporaItem item;
    if (!corpora_item(&item, corpora, i, err)) return false;
    PairItem pair = corpora_pair(&item);
    double *to[2] = {NULL, NULL};
    g->work.truncated += item.doc[0].truncated + item.doc[1].truncated;
    if (place_item(g, &pair, to))
        stream_run_add(g->run, &pair, to);
    else
        g->work.uncounted++;
    corpora_item_free(&item);
    return true;
}

/* Of the tokens that count one alone goes on counting: the one at the quantile u. */
static bool keep_one(uint8_t *counted, int n, double u) {
    int count = 0, at = 0;
    for (int t = 0; t < n; t++) count += counted[t] != 0;
    int chosen = (int)(u * count);
    for (int t = 0; t < n; t++)
        if (counted[t]) counted[t] = at++ == chosen;
    return count > 0;
}

/* Landmark i: each corpus is cut into as many parts as it has landmarks; of each a document is
 * drawn, and of that a token. It is a document whose other tokens do not count. */
static bool add_landmark(Gathering *g, const Corpora *it, size_t i, Err *err) {
    int c = i >= STREAM_LANDMARKS;
    size_t first, n = corpora_documents(it, c, &first);
    uint64_t seed = (uint64_t)it->s->run.seed, draw = 2 * (uint64_t)i;
    double part = (double)(i % STREAM_LANDMARKS) + rng_uniform(seed, LANDMARK_DRAWS, draw);
    size_t at = (size_t)(part * (double)n / STREAM_LANDMARKS);
    CorporaItem item;
    if (!corpora_item(&item, it, first + (at < n ? at : n - 1), err)) return false;
    double *to[2] = {NULL, NULL};
    PairItem pair = corpora_pair(&item);
    pair.n[1 - c] = 0;
    g->has[g->items] = 0;
    if (keep_one(item.counted[c], item.doc[c].n, rng_uniform(seed, LANDMARK_DRAWS, draw + 1))) {
        to[c] = vector_at(g, g->items, c);
        g->has[g->items] = (uint8_t)(1 << c);
        stream_run_add(g->run, &pair, to);
    }
    g->items++;
    corpora_item_free(&item);
    return true;
}

/* What a pass is over: the items of the corpora, or landmarks. */
typedef bool gather_one(Gathering *g, const Corpora *it, size_t i, Err *err);

static bool run_block(Gathering *g, const Corpora *it, gather_one *add, size_t n, size_t first,
                      Err *err) {
    size_t end = first + BLOCK < n ? first + BLOCK : n;
    memset(g->v, 0, BLOCK * item_numbers(g) * sizeof *g->v);
    g->items = 0;
    for (size_t i = first; i < end; i++) {
        if (interrupted(err) || !add(g, it, i, err)) return false;
        comm_beat(g->r->ex.comm);
        progress_at(&g->bar, (double)i, (double)n);
    }
    stream_run_finish(g->run);
    return !stream_run_bad(g->run) ||
           bad_tensor_find(&g->r->model, stream_run_acts(g->run),
                           "the stream that moments are taken of is not finite", err);
}

/* Landmarks from number *next on. */
static void put_landmarks(StreamMoments *m, const Gathering *g, const double *v, int items,
                          size_t *next) {
    for (int i = 0; i < items; i++, ++*next) {
        int c = *next >= STREAM_LANDMARKS;
        stream_put_landmark(m, c, (int)(*next % STREAM_LANDMARKS),
                            v + (size_t)i * item_numbers(g) + (size_t)c * item_numbers(g) / 2);
    }
}

/* The blocks of all ranks to rank 0, which takes them in their order: adds them, or, where `next`
 * is not NULL, puts down landmarks. */
static void collect(StreamMoments *m, const Gathering *g, size_t *next) {
    Comm *comm = g->r->ex.comm;
    size_t ranks = (size_t)comm_size(comm), items = (size_t)g->items;
    size_t *n = mem_array(ranks, sizeof *n), *bytes = mem_array(ranks, sizeof *bytes);
    void **has = mem_array(ranks, sizeof *has), **v = mem_array(ranks, sizeof *v);
    comm_collect(comm, "documents", g->has, items, has, n);
    comm_collect(comm, "vectors", g->v, items * item_numbers(g) * sizeof *g->v, v, bytes);
    for (size_t r = 0; comm_root(comm) && r < ranks; r++) {
        if (next)
            put_landmarks(m, g, v[r], (int)n[r], next);
        else
            stream_add(m, has[r], v[r], (int)n[r]);
        free(has[r]), free(v[r]);
    }
    free(has), free(v), free(bytes), free(n);
}

/* Each round has a block for each rank, the last one perhaps fewer. next NULL: of documents. */
static bool run_rounds(Gathering *g, StreamMoments *m, const Corpora *it, size_t *next, Err *err) {
    Comm *comm = g->r->ex.comm;
    size_t ranks = (size_t)comm_size(comm), rank = (size_t)comm_rank(comm);
    size_t n = next ? 2 * STREAM_LANDMARKS : it->n;
    for (size_t done = 0; done < n; done += ranks * BLOCK) {
        Wish wish = wish_share(comm, (Wish){.signal = interrupt_requested()});
        if (wish.signal)
            return wish_stop(&wish, "before the moments were whole", "the same command", err);
        if (!run_block(g, it, next ? add_landmark : add_item, n, done + rank * BLOCK, err))
            return false;
        collect(m, g, next);
    }
    return true;
}

static void add_work(MomentsWork *sum, const MomentsWork *one) {
    sum->truncated += one->truncated, sum->uncounted += one->uncounted;
    sum->pass.tokens += one->pass.tokens, sum->pass.rows += one->pass.rows;
    sum->pass.counted += one->pass.counted;
}

/* The work of all ranks. */
static MomentsWork all_work(Gathering *g) {
    Comm *comm = g->r->ex.comm;
    MomentsWork *each = mem_array((size_t)comm_size(comm), sizeof *each), sum = {0};
    g->work.pass = stream_run_work(g->run);
    each[comm_rank(comm)] = g->work;
    comm_share(comm, "work of moments", each, sizeof *each);
    for (int r = 0; r < comm_size(comm); r++) add_work(&sum, &each[r]);
    free(each);
    return sum;
}

static bool finish(StreamMoments *m, const Settings *s, Err *err) {
    static const char *const counted[] = {COUNTED_TOKENS(CHOICE_TEXT)};
    bool corpora = *s->score.aligned;
    stream_text(&m->counted, counted[s->score.tokens]);
    stream_text(&m->model, s->model.path);
    stream_text(&m->data, corpora ? s->score.aligned : s->data.path);
    if (stream_finish(m, err)) return true;
    if (!corpora) return err_prefix(err, "%s", s->data.path);
    return err_prefix(err, "%s, %s", s->score.aligned, s->score.unaligned);
}

bool moments_run(StreamMoments *m, MomentsWork *work, Runtime *r, const Layers *layers,
                 const Settings *s, const Records *records, const size_t *index, size_t n,
                 Err *err) {
    double start = clock_seconds();
    Comm *comm = r->ex.comm;
    Corpora corpora;
    Gathering g = {.r = r, .layers = layers};
    *m = (StreamMoments){0};
    g.v = mem_array(BLOCK * item_numbers(&g), sizeof *g.v);
    g.run = stream_run_open(&r->model, layers->layer, layers->n, settings_pack_tokens(s));
    if (comm_root(comm)) stream_init(m, r->model.c.D, layers->layer, layers->n);
    comm_phase(comm, "moments", 0, RANKS_APART);
    progress_begin(&g.bar, "moments", s->run.json);
    size_t landmarks = 0;
    bool ok = corpora_open(&corpora, r, s, records, index, n, err) &&
              run_rounds(&g, m, &corpora, NULL, err) &&
              run_rounds(&g, m, &corpora, &landmarks, err);
    progress_end(&g.bar);
    if (ok) *work = all_work(&g);
    ok = ok && agree_root(comm, !comm_root(comm) || finish(m, s, err), err);
    corpora_close(&corpora);
    stream_run_close(g.run);
    free(g.v);
    if (ok) work->seconds = clock_seconds() - start;
    if (!ok) stream_free(m);
    return ok;
}

/* ------------------------------------------------------------------- what they show -- */

/* The distance of the means by the root mean square of the documents' distances from them. */
static double distance(const StreamMoments *m, int i) {
    size_t D = (size_t)m->D;
    const StreamLayer *l = &m->layer[i];
    double apart = 0, spread = 0;
    for (size_t k = 0; k < D; k++) {
        double n0 = (double)m->documents[0], n1 = (double)m->documents[1];
        double m0 = l->sum[k] / n0, m1 = l->sum[D + k] / n1;
        apart += (m0 - m1) * (m0 - m1);
        spread +=
            (l->square[k * D + k] - n0 * m0 * m0 + l->square[D * D + k * D + k] - n1 * m1 * m1) /
            (n0 + n1);
    }
    return spread > 0 ? sqrt(apart / spread) : NAN;
}

void moments_print(FILE *f, const StreamMoments *m) {
    for (int i = 0; i < m->n; i++) {
        double shared = stream_shared(m, i);
        fprintf(f, "layer %d: means %.3g standard deviations apart", m->layer[i].layer,
                distance(m, i));
        if (isfinite(shared)) fprintf(f, ", pairs share %.1f %% of the variance", 100 * shared);
        fprintf(f, "\n");
    }
}

json_t *moments_describe(const StreamMoments *m) {
    json_t *layers = json_array();
    for (int i = 0; i < m->n; i++)
        json_array_append_new(layers, json_pack("{s:i, s:o, s:o}", "layer", m->layer[i].layer,
                                                "distance", json_number(distance(m, i)), "shared",
                                                json_number(stream_shared(m, i))));
    return json_pack("{s:[I, I], s:I, s:o}", "documents", (json_int_t)m->documents[0],
                     (json_int_t)m->documents[1], "pairs", (json_int_t)m->pairs, "layers", layers);
}
