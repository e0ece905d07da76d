/* score_run.c - packs through the layers that have an SAE, and the sums of what fires there. */
#include "model/score_run.h"

#include <math.h>

#include "data/base/mem.h"

/* Fast products are checked on the first SAMPLE_ROWS counted rows of one pack in SAMPLE_PACKS: 2 %
 * of the time on a GPU, where a pack has 2048 rows and 64 cost as much as 256 do. */
enum { GATHER_ROWS = 2048, SAMPLE_ROWS = 64, SAMPLE_PACKS = 16 };

/* One layer's statistics in device memory. */
typedef struct Sums {
    double *sum, *sumsq;
    int64_t *fires;
    float *max;
} Sums;

struct ScoreRun {
    const Model *m;
    const Sae *sae;
    int nsae, max_rows;
    enum ScorePool pool;
    Acts *acts;
    Pack pack;
    Sums *sums;
    Arena arena;
    store *x; /* (GATHER_ROWS,D): the rows that count */
    /* (SAMPLE_ROWS,S) activations of the sample, S of the widest SAE; NULL with exact products. */
    float *sample, *host_sample[2];
    /* (2 max_rows) in device memory: of the pack that runs. last_row: row in what the last layer
     * gives. */
    int32_t *row, *last_row, *bin;
    float *weight;
    int64_t *bad_at; /* (1) in device memory: first bad element of the last scored stream, or -1 */
    bool bad;
    int counted;                  /* entries of the next three, for the pack being filled */
    int32_t *host_row, *host_bin; /* a shared row counts once for each corpus */
    float *host_weight;
    int32_t *last, *place; /* (max_rows) the rows that the last layer gives, and each one's place */
    int64_t tokens[2][SCORE_GROUPS], documents[2][SCORE_GROUPS];
    ScoreWork work;
    int packs; /* run since the last score_run_finish, and the one that runs */
};

/* Elements of a sample; 0: none is taken. */
static size_t sample_size(const ScoreRun *r) {
    int S = 0;
    for (int i = 0; i < r->nsae; i++)
        if (r->sae[i].enc.products == SAE_FAST && r->sae[i].enc.S > S) S = r->sae[i].enc.S;
    return SAMPLE_ROWS * (size_t)S;
}

static void carve(ScoreRun *r, int D) {
    Arena *a = &r->arena;
    size_t rows = 2 * (size_t)r->max_rows;
    r->x = arena_store(a, "scored rows", GATHER_ROWS, (size_t)D);
    r->row = arena_i32(a, "scored row numbers", rows, 1);
    r->last_row = arena_i32(a, "scored rows of the last layer", rows, 1);
    r->bin = arena_i32(a, "bins", rows, 1);
    r->weight = arena_f32(a, "row weights", rows, 1);
    r->bad_at = arena_bytes(a, "first bad element", sizeof *r->bad_at);
    if (sample_size(r) > 0) r->sample = arena_f32(a, "sampled activations", sample_size(r), 1);
    for (int i = 0; i < r->nsae; i++) {
        size_t S = (size_t)r->sae[i].enc.S;
        arena_scope(a, "layer %d", r->sae[i].layer);
        r->sums[i].sum = arena_f64(a, "SAE sums", 2 * SCORE_GROUPS, S);
        r->sums[i].sumsq = arena_f64(a, "SAE sums of squares", 2, S);
        r->sums[i].fires = arena_bytes(a, "SAE firing counts", 2 * S * sizeof(int64_t));
        r->sums[i].max = arena_f32(a, "SAE maxima", 2, S);
    }
}

size_t score_run_bytes(const Config *c, const Lora *lora, enum Dtype dtype, const Sae *sae,
                       int nsae, int max_rows) {
    ScoreRun r = {.sae = sae, .nsae = nsae, .max_rows = max_rows};
    r.sums = mem_array((size_t)nsae, sizeof *r.sums);
    arena_init(&r.arena, NULL, dtype, "scores");
    carve(&r, c->D);
    free(r.sums);
    return r.arena.used + acts_bytes(c, lora, dtype, max_rows, max_rows, 0, ACTS_INFER);
}

static void clear(ScoreRun *r) {
    for (int i = 0; i < r->nsae; i++) {
        size_t S = (size_t)r->sae[i].enc.S;
        exec_zero(r->m->ex, r->sums[i].sum, 2 * SCORE_GROUPS * S * sizeof(double));
        exec_zero(r->m->ex, r->sums[i].sumsq, 2 * S * sizeof(double));
        exec_zero(r->m->ex, r->sums[i].fires, 2 * S * sizeof(int64_t));
        exec_zero(r->m->ex, r->sums[i].max, 2 * S * sizeof(float));
    }
    memset(r->tokens, 0, sizeof r->tokens);
    memset(r->documents, 0, sizeof r->documents);
}

ScoreRun *score_run_open(const Model *m, const Sae *sae, int nsae, int max_rows,
                         enum ScorePool pool) {
    CHECK(nsae > 0 && max_rows > 0, "%d SAEs, %d rows", nsae, max_rows);
    for (int i = 0; i < nsae; i++)
        CHECK(sae[i].enc.w && sae[i].enc.D == m->c.D && sae[i].layer < m->c.L &&
                  (i == 0 || sae[i].layer > sae[i - 1].layer),
              "SAE %d of layer %d: no encoder, another width, or out of order", i, sae[i].layer);
    ScoreRun *r = mem_array(1, sizeof *r);
    *r = (ScoreRun){.m = m, .sae = sae, .nsae = nsae, .max_rows = max_rows, .pool = pool};
    size_t rows = 2 * (size_t)max_rows;
    r->sums = mem_array((size_t)nsae, sizeof *r->sums);
    r->host_row = mem_array(rows, sizeof *r->host_row);
    r->host_bin = mem_array(rows, sizeof *r->host_bin);
    r->host_weight = mem_array(rows, sizeof *r->host_weight);
    r->last = mem_array((size_t)max_rows, sizeof *r->last);
    r->place = mem_array((size_t)max_rows, sizeof *r->place);
    for (int i = 0; i < 2 && sample_size(r) > 0; i++)
        r->host_sample[i] = mem_array(sample_size(r), sizeof *r->sample);
    pack_init(&r->pack, max_rows, max_rows, 0);
    r->acts = acts_create(m, max_rows, max_rows, 0, ACTS_INFER);
    arena_init(&r->arena, m->ex, m->ex->dtype, "scores");
    carve(r, m->c.D);
    arena_place(&r->arena);
    carve(r, m->c.D);
    clear(r);
    return r;
}

void score_run_close(ScoreRun *r) {
    if (!r) return;
    arena_free(&r->arena);
    acts_destroy(r->acts);
    pack_free(&r->pack);
    free(r->sums), free(r->host_row), free(r->host_bin), free(r->host_weight);
    free(r->last), free(r->place), free(r->host_sample[0]), free(r->host_sample[1]);
    free(r);
}

bool score_run_bad(const ScoreRun *r) {
    return r->bad;
}

Acts *score_run_acts(ScoreRun *r) {
    return r->acts;
}

ScoreWork score_run_work(const ScoreRun *r) {
    return r->work;
}

void score_work_add(ScoreWork *sum, const ScoreWork *more) {
    sum->tokens += more->tokens, sum->rows += more->rows, sum->counted += more->counted;
    sum->fires += more->fires, sum->flips += more->flips;
}

/* What fast products switch among the first of n rows in r->x. */
static void sample_flips(ScoreRun *r, SaeEncoder enc, int n) {
    Exec *ex = r->m->ex;
    if (n > SAMPLE_ROWS) n = SAMPLE_ROWS;
    size_t count = (size_t)n * (size_t)enc.S;
    for (int way = SAE_EXACT; way <= SAE_FAST; way++) {
        enc.products = (enum SaeProducts)way;
        ex->op->sae_encode(ex, r->sample, r->x, enc, n);
        exec_copy_out(ex, r->host_sample[way], r->sample, count * sizeof *r->sample);
    }
    for (size_t j = 0; j < count; j++) {
        bool exact = r->host_sample[SAE_EXACT][j] > 0, fast = r->host_sample[SAE_FAST][j] > 0;
        r->work.fires += exact;
        r->work.flips += exact != fast;
    }
}

/* model_tap: the statistics of a scored layer, from the rows that count alone. What is not finite
 * in a lower layer still is in the last one. */
static void tap(void *context, int layer, const store *x, int N) {
    ScoreRun *r = context;
    Exec *ex = r->m->ex;
    int i = 0;
    while (i < r->nsae && r->sae[i].layer != layer) i++;
    if (i == r->nsae) return;
    if (i == r->nsae - 1) ex->op->find_bad(ex, r->bad_at, x, (size_t)N * (size_t)r->m->c.D);
    exec_range_push(ex, "sae");
    const Sums *to = &r->sums[i];
    const int32_t *row = i + 1 < r->nsae ? r->row : r->last_row;
    for (int first = 0; first < r->counted; first += GATHER_ROWS) {
        int n = r->counted - first < GATHER_ROWS ? r->counted - first : GATHER_ROWS;
        ex->op->gather_rows(ex, r->x, x, row + first, n, r->m->c.D);
        ex->op->sae_stats(ex, to->sum, to->sumsq, to->fires, to->max, r->x, r->bin + first,
                          r->weight + first, r->sae[i].enc, n, SCORE_GROUPS);
        if (r->sae[i].enc.products == SAE_FAST && first == 0 && r->packs % SAMPLE_PACKS == 1)
            sample_flips(r, r->sae[i].enc, n);
    }
    exec_range_pop(ex);
}

/* Lists the distinct rows that count, rising, in r->last, and turns `row` into places there. */
static int last_rows(ScoreRun *r, int32_t *row) {
    int n = 0;
    memset(r->place, 0, (size_t)r->pack.N * sizeof *r->place);
    for (int i = 0; i < r->counted; i++) r->place[row[i]] = 1;
    for (int i = 0; i < r->pack.N; i++)
        if (r->place[i]) r->last[n] = i, r->place[i] = n++;
    for (int i = 0; i < r->counted; i++) row[i] = r->place[row[i]];
    return n;
}

static void flush(ScoreRun *r) {
    Exec *ex = r->m->ex;
    size_t n = (size_t)r->counted;
    if (n > 0 && !r->bad) {
        exec_range_push(ex, "pack %d", ++r->packs);
        exec_copy_in(ex, r->row, r->host_row, n * sizeof *r->row);
        exec_copy_in(ex, r->bin, r->host_bin, n * sizeof *r->bin);
        exec_copy_in(ex, r->weight, r->host_weight, n * sizeof *r->weight);
        int rows = last_rows(r, r->host_row);
        exec_copy_in(ex, r->last_row, r->host_row, n * sizeof *r->last_row);
        model_forward_rows(r->m, r->acts, &r->pack, r->sae[r->nsae - 1].layer + 1, r->last, rows,
                           tap, r);
        int64_t bad_at;
        exec_copy_out(ex, &bad_at, r->bad_at, sizeof bad_at);
        exec_range_pop(ex);
        r->bad = bad_at >= 0;
        r->work.rows += r->pack.N;
        r->work.counted += r->counted;
    }
    pack_clear(&r->pack);
    r->counted = 0;
}

/* Notes the counted tokens of a document. */
static void count(ScoreRun *r, const PairItem *item, int c, int group, const PairPlace *place) {
    int tokens = 0;
    for (int t = 0; t < item->n[c]; t++) tokens += item->counted[c][t] != 0;
    if (tokens == 0) return;
    for (int t = 0; t < item->n[c]; t++) {
        if (!item->counted[c][t]) continue;
        r->host_row[r->counted] = pair_row(place, t);
        r->host_bin[r->counted] = c * SCORE_GROUPS + group;
        r->host_weight[r->counted++] = r->pool == POOL_TOKEN ? 1 : 1 / (float)tokens;
    }
    r->tokens[c][group] += tokens;
    r->documents[c][group]++;
}

static void add_alone(ScoreRun *r, const PairItem *item, int c, int group) {
    if (item->n[c] == 0) return;
    CHECK(item->n[c] <= r->max_rows, "expected documents of at most %d tokens, got %d", r->max_rows,
          item->n[c]);
    if (r->pack.N + item->n[c] > r->max_rows) flush(r);
    PairPlace place = pair_add_alone(&r->pack, item, c);
    count(r, item, c, group, &place);
}

void score_run_add(ScoreRun *r, const PairItem *document) {
    PairItem item = *document;
    int group = score_group(item.token[0], item.n[0], item.token[1], item.n[1]);
    r->work.tokens += item.n[0] + item.n[1];
    int shared = pair_trim(&item, r->max_rows);
    if (shared == 0) {
        add_alone(r, &item, 0, group);
        add_alone(r, &item, 1, group);
        return;
    }
    PairPlace place[2];
    if (r->pack.N + pair_rows(&item, shared) > r->max_rows) flush(r);
    pair_add(&r->pack, place, &item, shared);
    for (int c = 0; c < 2; c++) count(r, &item, c, group, &place[c]);
}

void score_run_finish(ScoreRun *r, Scores *s) {
    Exec *ex = r->m->ex;
    int *layer = mem_array((size_t)r->nsae, sizeof *layer);
    int *width = mem_array((size_t)r->nsae, sizeof *width);
    flush(r);
    for (int i = 0; i < r->nsae; i++) layer[i] = r->sae[i].layer, width[i] = r->sae[i].enc.S;
    scores_init(s, r->nsae, layer, width);
    free(layer), free(width);
    s->pool = r->pool;
    s->products = r->sae[0].enc.products;
    memcpy(s->tokens, r->tokens, sizeof s->tokens);
    memcpy(s->documents, r->documents, sizeof s->documents);
    for (int i = 0; i < s->n; i++) {
        ScoreLayer *l = &s->layer[i];
        size_t S = (size_t)l->S;
        scores_text(&l->sae, r->sae[i].path);
        scores_text(&l->id, r->sae[i].id);
        exec_copy_out(ex, l->sum, r->sums[i].sum, 2 * SCORE_GROUPS * S * sizeof *l->sum);
        exec_copy_out(ex, l->sumsq, r->sums[i].sumsq, 2 * S * sizeof *l->sumsq);
        exec_copy_out(ex, l->fires, r->sums[i].fires, 2 * S * sizeof *l->fires);
        exec_copy_out(ex, l->max, r->sums[i].max, 2 * S * sizeof *l->max);
    }
    clear(r);
    r->packs = 0;
}
