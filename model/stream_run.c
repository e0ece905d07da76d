/* stream_run.c - packs through the layers, and the sums of their documents' rows. */
#include "model/stream_run.h"

#include <string.h>

#include "data/base/mem.h"

enum { DOCUMENTS = 64 /* of a pack, at most: columns of the ones and zeros */ };

struct StreamRun {
    const Model *m;
    const int *layer; /* (n) */
    int n, max_rows;
    Acts *acts;
    Pack pack;
    Arena arena;
    float *wide;     /* (max_rows,DOCUMENTS): 1 where a row counts for a document; on its way */
    store *member;   /* the same */
    float *sum;      /* (DOCUMENTS,D) of a layer */
    int64_t *bad_at; /* (1) first bad element of the highest layer's stream, or -1 */
    bool bad;
    float *host_member, *host_sum;
    int documents; /* of the pack */
    double *to[DOCUMENTS];
    int counted[DOCUMENTS];
    StreamWork work;
};

static void carve(StreamRun *r, int D) {
    Arena *a = &r->arena;
    r->wide = arena_f32(a, "members", (size_t)r->max_rows, DOCUMENTS);
    r->member = arena_store(a, "members", (size_t)r->max_rows, DOCUMENTS);
    r->sum = arena_f32(a, "document sums", DOCUMENTS, (size_t)D);
    r->bad_at = arena_bytes(a, "first bad element", sizeof *r->bad_at);
}

size_t stream_run_bytes(const Config *c, const Lora *lora, enum Dtype dtype, int max_rows) {
    StreamRun r = {.max_rows = max_rows};
    arena_init(&r.arena, NULL, dtype, "document vectors");
    carve(&r, c->D);
    return r.arena.used + acts_bytes(c, lora, dtype, max_rows, max_rows, 0, ACTS_INFER);
}

size_t stream_run_scratch(Exec *ex, const Config *c, int max_rows) {
    return ex->op->gemm_grad_scratch(ex, max_rows, DOCUMENTS, c->D);
}

StreamRun *stream_run_open(const Model *m, const int *layer, int n, int max_rows) {
    CHECK(n > 0 && max_rows > 0 && layer[n - 1] < m->c.L, "%d layers, %d rows", n, max_rows);
    StreamRun *r = mem_array(1, sizeof *r);
    *r = (StreamRun){.m = m, .layer = layer, .n = n, .max_rows = max_rows};
    r->host_member = mem_array((size_t)max_rows * DOCUMENTS, sizeof *r->host_member);
    r->host_sum = mem_array(DOCUMENTS * (size_t)m->c.D, sizeof *r->host_sum);
    pack_init(&r->pack, max_rows, max_rows, 0);
    r->acts = acts_create(m, max_rows, max_rows, 0, ACTS_INFER);
    arena_init(&r->arena, m->ex, m->ex->dtype, "document vectors");
    carve(r, m->c.D);
    arena_place(&r->arena);
    carve(r, m->c.D);
    return r;
}

void stream_run_close(StreamRun *r) {
    if (!r) return;
    arena_free(&r->arena);
    acts_destroy(r->acts);
    pack_free(&r->pack);
    free(r->host_member), free(r->host_sum);
    free(r);
}

bool stream_run_bad(const StreamRun *r) {
    return r->bad;
}

Acts *stream_run_acts(StreamRun *r) {
    return r->acts;
}

StreamWork stream_run_work(const StreamRun *r) {
    return r->work;
}

/* model_tap: sum (documents,D) = member^T x, and the means to their places. What is not finite in a
 * lower layer still is in the highest one. */
static void tap(void *context, int layer, const store *x, int N) {
    StreamRun *r = context;
    Exec *ex = r->m->ex;
    int D = r->m->c.D, i = 0;
    while (i < r->n && r->layer[i] != layer) i++;
    if (i == r->n) return;
    if (i == r->n - 1) ex->op->find_bad(ex, r->bad_at, x, (size_t)N * (size_t)D);
    size_t bytes = (size_t)r->documents * (size_t)D * sizeof *r->sum;
    exec_zero(ex, r->sum, bytes);
    ex->op->gemm_grad(ex, r->sum, r->member, DOCUMENTS, x, D, N, r->documents, D, 1);
    exec_copy_out(ex, r->host_sum, r->sum, bytes);
    for (int d = 0; d < r->documents; d++)
        for (int k = 0; k < D; k++)
            r->to[d][(size_t)i * (size_t)D + (size_t)k] =
                (double)r->host_sum[(size_t)d * (size_t)D + (size_t)k] / r->counted[d];
}

static void flush(StreamRun *r) {
    Exec *ex = r->m->ex;
    size_t members = (size_t)r->pack.N * DOCUMENTS;
    if (r->documents > 0 && !r->bad) {
        int64_t bad_at;
        exec_copy_in(ex, r->wide, r->host_member, members * sizeof *r->wide);
        ex->op->cast(ex, r->member, r->wide, members);
        model_forward(r->m, r->acts, &r->pack, r->layer[r->n - 1] + 1, tap, r);
        exec_copy_out(ex, &bad_at, r->bad_at, sizeof bad_at);
        r->bad = bad_at >= 0;
        r->work.rows += r->pack.N;
    }
    memset(r->host_member, 0, members * sizeof *r->host_member);
    pack_clear(&r->pack);
    r->documents = 0;
}

/* Notes which rows count for a document. */
static void count(StreamRun *r, const PairItem *item, int c, const PairPlace *place, double *to) {
    int d = r->documents++, tokens = 0;
    for (int t = 0; t < item->n[c]; t++) {
        if (!item->counted[c][t]) continue;
        r->host_member[(size_t)pair_row(place, t) * DOCUMENTS + (size_t)d] = 1;
        tokens++;
    }
    CHECK(tokens > 0, "a document without a token that counts");
    r->to[d] = to, r->counted[d] = tokens;
    r->work.counted += tokens;
}

static void make_room(StreamRun *r, int rows, int documents) {
    CHECK(rows <= r->max_rows, "expected documents of at most %d tokens, got %d", r->max_rows,
          rows);
    if (r->pack.N + rows > r->max_rows || r->documents + documents > DOCUMENTS) flush(r);
}

void stream_run_add(StreamRun *r, const PairItem *document, double *const to[2]) {
    PairItem item = *document;
    r->work.tokens += item.n[0] + item.n[1];
    int shared = pair_trim(&item, r->max_rows);
    for (int c = 0; c < 2; c++)
        CHECK((to[c] != NULL) == (item.n[c] > 0), "corpus %d: %d tokens up to the last that counts",
              c, item.n[c]);
    if (shared > 0) {
        PairPlace place[2];
        make_room(r, pair_rows(&item, shared), 2);
        pair_add(&r->pack, place, &item, shared);
        for (int c = 0; c < 2; c++) count(r, &item, c, &place[c], to[c]);
    }
    for (int c = 0; c < 2 && shared == 0; c++) {
        if (item.n[c] == 0) continue;
        make_room(r, item.n[c], 1);
        PairPlace place = pair_add_alone(&r->pack, &item, c);
        count(r, &item, c, &place, to[c]);
    }
}

void stream_run_finish(StreamRun *r) {
    flush(r);
}
