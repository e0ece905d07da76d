/* moments.c - documents of two corpora through the model, in blocks, and their sums. */
#include "host/stage/moments.h"

#include <math.h>

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/cli/json_lines.h"
#include "host/cli/print.h"
#include "host/stage/agree.h"
#include "host/stage/bad_tensor.h"
#include "host/stage/corpora.h"
#include "host/stage/wish.h"

/* Items whose vectors lie in memory at a time. Each block has packs of its own: so the vectors'
 * bits do not depend on how many ranks share the blocks. */
enum { BLOCK = 64 };

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

size_t moments_bytes(int D, int layers) {
    return 2 * BLOCK * 2 * (size_t)layers * (size_t)D * sizeof(double); /* and a copy on its way */
}

static bool has_counted(const PairItem *pair, int c) {
    for (int t = 0; t < pair->n[c]; t++)
        if (pair->counted[c][t]) return true;
    return false;
}

/* Where an item of the block will have its vectors; false: nothing of it counts. */
static bool place_item(Gathering *g, const PairItem *pair, double *to[2]) {
    size_t corpus = item_numbers(g) / 2;
    uint8_t has = 0;
    for (int c = 0; c < 2; c++) {
        if (pair->n[c] && !has_counted(pair, c)) return false;
        if (!pair->n[c]) continue;
        to[c] = g->v + (size_t)g->items * 2 * corpus + (size_t)c * corpus;
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

static bool run_block(Gathering *g, const Corpora *it, size_t first, Err *err) {
    size_t end = first + BLOCK < it->n ? first + BLOCK : it->n;
    memset(g->v, 0, BLOCK * item_numbers(g) * sizeof *g->v);
    g->items = 0;
    for (size_t i = first; i < end; i++) {
        if (interrupted(err) || !add_item(g, it, i, err)) return false;
        comm_beat(g->r->ex.comm);
        progress_at(&g->bar, (double)i, (double)it->n);
    }
    stream_run_finish(g->run);
    return !stream_run_bad(g->run) ||
           bad_tensor_find(&g->r->model, stream_run_acts(g->run),
                           "the stream that moments are taken of is not finite", err);
}

/* The blocks of all ranks to rank 0, which adds them in their order. */
static void collect(StreamMoments *m, const Gathering *g) {
    Comm *comm = g->r->ex.comm;
    size_t ranks = (size_t)comm_size(comm), items = (size_t)g->items;
    size_t *n = mem_array(ranks, sizeof *n), *bytes = mem_array(ranks, sizeof *bytes);
    void **has = mem_array(ranks, sizeof *has), **v = mem_array(ranks, sizeof *v);
    comm_collect(comm, "documents", g->has, items, has, n);
    comm_collect(comm, "vectors", g->v, items * item_numbers(g) * sizeof *g->v, v, bytes);
    for (size_t r = 0; comm_root(comm) && r < ranks; r++) {
        stream_add(m, has[r], v[r], (int)n[r]);
        free(has[r]), free(v[r]);
    }
    free(has), free(v), free(bytes), free(n);
}

/* Each round has a block for each rank, the last one perhaps fewer. */
static bool run_rounds(Gathering *g, StreamMoments *m, const Corpora *it, Err *err) {
    Comm *comm = g->r->ex.comm;
    size_t ranks = (size_t)comm_size(comm), rank = (size_t)comm_rank(comm);
    for (size_t done = 0; done < it->n; done += ranks * BLOCK) {
        Wish wish = wish_share(comm, (Wish){.signal = interrupt_requested()});
        if (wish.signal)
            return wish_stop(&wish, "before the moments were whole", "the same command", err);
        if (!run_block(g, it, done + rank * BLOCK, err)) return false;
        collect(m, g);
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
    bool ok =
        corpora_open(&corpora, r, s, records, index, n, err) && run_rounds(&g, m, &corpora, err);
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

/* ----------------------------------------------------------------------------- what they show --
 */

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
