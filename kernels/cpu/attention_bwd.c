/* attention_bwd.c - attention over packed documents, backward. Contracts: ops.h.
 *
 * Math, per column (query row and head) with delta = d_o . o:
 *   w = exp(s - lse);  ds = w (d_o . v - delta) (1 - (s/cap)^2)
 *   dv += w d_o;  dk += scale ds q;  dq += scale ds k
 * Of the forward nothing is kept but o and lse; scores come out with the same bits.
 *
 * Work split: dq sums over keys, dk and dv over the queries of a whole tree (a document and all
 * that have it as prefix). Either one task does a tree, for one kv head, in order: five products a
 * tile. Or, when one tree is too long a task for the threads there are, tasks for dq run over
 * query blocks and tasks for dk, dv over runs of key rows: seven products a tile, as scores are
 * computed twice. Both add in the same order: equal bits. */
#include <omp.h>
#include <stdlib.h>

#include "kernels/cpu/attention_tile.h"

enum { KEY_RUN = 256 };

/* One thread's tiles. Queries and d_o are packed both ways: as columns for the products that make
 * scores, as they lie for dk and dv. */
typedef struct Tiles {
    _Alignas(64) elem rows[COLS * E_MAX];
    unit queries_t[COLS * E_MAX / UNIT], queries[COLS * E_MAX / UNIT];
    unit d_o_t[COLS * E_MAX / UNIT], d_o[COLS * E_MAX / UNIT];
    unit keys[KEYS * E_MAX / UNIT];
    cell left[CELLS_AS_THEY_LIE ? 1 : KEYS * E_MAX];
    Scores w, ds;
    _Alignas(64) unit pairs[PAIRS]; /* of ds */
    _Alignas(64) float dq[COLS * E_MAX];
    float sum[KEYS * PANEL], lse[COLS], delta[COLS];
} Tiles;

/* A tree's cost: tiles, roughly. */
typedef struct Tree {
    int root;
    double cost;
} Tree;

/* The whole call. dk, dv: f32 sums (K,N,E). child[j] and next[j] chain the segments that have
 * segment j as prefix, in order; -1 ends. */
typedef struct Backward {
    Attention t;
    elem *dq;
    const elem *d_o, *q, *k, *v, *o;
    const float *lse;
    float *dk, *dv;
    int *child, *next;
    Tree *tree;
    int ntrees;
    BlockStart *start;
    int nblocks;
} Backward;

/* What of a block is wanted: gradients of its queries; of the keys in rows [row, end). */
typedef struct Wanted {
    bool queries;
    int row, end;
} Wanted;

static void load_block(Tiles *w, const Backward *x, const Block *b, Wanted want) {
    const Attention *t = &x->t;
    bool keys = want.row < want.end;
    load_columns(w->rows, x->q, t, b);
    pack_transposed(across(w->queries_t, t), w->rows, t, b->wide);
    if (keys) pack_straight(along(w->queries, COLS), w->rows, t, b->cols);
    load_columns(w->rows, x->d_o, t, b);
    pack_transposed(across(w->d_o_t, t), w->rows, t, b->wide);
    if (keys) pack_straight(along(w->d_o, COLS), w->rows, t, b->cols);
    if (want.queries) memset(w->dq, 0, (size_t)tile_pad(t->a.E, PANEL) * COLS * sizeof *w->dq);
    memset(w->lse, 0, sizeof w->lse);
    memset(w->delta, 0, sizeof w->delta);
    for (int c = 0; c < b->cols; c++) {
        size_t at = column_at(t, b, c);
        const elem *d_o = w->rows + c * t->pad;
        float delta = 0;
#pragma omp simd reduction(+ : delta)
        for (int e = 0; e < t->a.E; e++) delta += elem_get(d_o[e]) * elem_get(x->o[at + e]);
        w->delta[c] = delta;
        w->lse[c] = x->lse[at / t->a.E];
    }
}

/* Of the panel from column c0 on: w holds scores and ds holds d_o . v; they become the weights and
 * the gradient of scale q.k. */
static void score_gradient(Tiles *w, const Block *b, int c0, int n, float cap) {
    const float *lse = w->lse + c0, *delta = w->delta + c0;
    float per = cap > 0 ? cap : INFINITY;
    int lanes = lanes_of(b, c0);
    for (int i = 0; i < n; i++) {
        float *s = w->w.f + c0 * KEYS + i * PANEL, *ds = w->ds.f + c0 * KEYS + i * PANEL;
#pragma omp simd
        for (int l = 0; l < lanes; l++) {
            float p = scalar_exp(s[l] - lse[l]);
            float ratio = (p > 0 ? s[l] : 0) / per; /* a hidden score is -infinity */
            ds[l] = p * (ds[l] - delta[l]) * (1 - ratio * ratio);
            s[l] = p;
        }
    }
}

/* scores . right, onto the sums of keys p.. in `to`. Panel by panel, so that `sum` stays close. */
static void add_keys(float *to, Tiles *w, const Scores *scores, Panels right, const Attention *t,
                     const Block *b, int p, int n) {
    for (int e = 0; e < t->a.E; e += PANEL, right.p += right.step) {
        int width = t->a.E - e < PANEL ? t->a.E - e : PANEL;
        for (int c = 0; c < b->cols; c += PANEL) {
            int cols = b->cols - c < PANEL ? b->cols - c : PANEL;
            Panels part = {right.p + c / UNIT * PANEL, right.step};
            multiply(w->sum, KEYS, rows_of_keys(scores, c), part, n, width, units(cols),
                     c ? TILE_ADD : TILE_SET);
        }
        for (int i = 0; i < n; i++) {
            float *row = to + ((size_t)b->kv * t->N + key_row(b->seg, p + i)) * t->a.E + e;
            for (int l = 0; l < width; l++) row[l] += w->sum[i * PANEL + l];
        }
    }
}

static void tile_bwd(Tiles *w, const Backward *x, const Block *b, int p, int n, Wanted want) {
    const Attention *t = &x->t;
    load_keys(w->rows, x->v, t, b, p, n);
    multiply(w->ds.f, KEYS, left_rows(w->left, w->rows, t, n), across(w->d_o_t, t), n, b->wide,
             units(t->a.E), TILE_SET);
    load_keys(w->rows, x->k, t, b, p, n);
    tile_scores(w->w.f, left_rows(w->left, w->rows, t, n), across(w->queries_t, t), t, b, p, n);
    for (int c = 0; c < b->wide; c += PANEL) score_gradient(w, b, c, n, t->a.cap);
    round_scores(&w->ds, b, n);
    if (want.queries) {
        pack_straight(along(w->keys, KEYS), w->rows, t, n);
        for (int c = 0; c < b->cols; c += PANEL)
            multiply(w->dq + c * PANEL, COLS, rows_of_columns(w->pairs, &w->ds, c, n),
                     along(w->keys, KEYS), b->cols - c < PANEL ? b->cols - c : PANEL, t->a.E,
                     units(n), TILE_ADD);
    }
    if (want.row < want.end) {
        round_scores(&w->w, b, n);
        add_keys(x->dv, w, &w->w, along(w->d_o, COLS), t, b, p, n);
        add_keys(x->dk, w, &w->ds, along(w->queries, COLS), t, b, p, n);
    }
}

static void block_bwd(Tiles *w, const Backward *x, Block b, Wanted want) {
    const Attention *t = &x->t;
    int p = b.first, end = b.last + 1;
    if (!want.queries) { /* the wanted rows as positions of this segment */
        bool own = want.row >= b.seg.row;
        int shift = own ? b.seg.prefix_len - b.seg.row : -b.seg.prefix_row;
        int limit = own ? end : b.seg.prefix_len;
        if (p < want.row + shift) p = want.row + shift;
        if (limit > want.end + shift) limit = want.end + shift;
        if (end > limit) end = limit;
        if (p >= end) return;
    }
    load_block(w, x, &b, want);
    for (int n; p < end; p += n) {
        n = keys_from(p, end);
        tile_bwd(w, x, &b, p, n, want);
    }
    if (!want.queries) return;
    for (int c = 0; c < b.cols; c++)
        put_row(x->dq + column_at(t, &b, c), w->dq + c * PANEL, t, t->a.scale);
}

/* All blocks of segment j for one kv head. */
static void segment_bwd(Tiles *w, const Backward *x, int j, int kv, Wanted want) {
    int per_kv = x->t.groups / x->t.a.K;
    for (int row = 0; row < x->t.seg[j].len; row += x->t.rows)
        for (int g = kv * per_kv; g < (kv + 1) * per_kv; g++)
            block_bwd(w, x, block_of(&x->t, j, row, g), want);
}

/* Segment j and all that have it as prefix. */
static void tree_bwd(Tiles *w, const Backward *x, int j, int kv, Wanted want) {
    segment_bwd(w, x, j, kv, want);
    for (int c = x->child[j]; c >= 0; c = x->next[c]) segment_bwd(w, x, c, kv, want);
}

static void run_trees(Tiles *w, const Backward *x) {
    int K = x->t.a.K;
    Wanted all = {true, 0, x->t.N};
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < x->ntrees * K; i++)
        tree_bwd(w + omp_get_thread_num(), x, x->tree[i / K].root, i % K, all);
}

static void run_split(Tiles *w, const Backward *x) {
    int groups = x->t.groups, K = x->t.a.K;
    Wanted queries = {.queries = true};
#pragma omp parallel
    {
        Tiles *own = w + omp_get_thread_num();
#pragma omp for schedule(dynamic) nowait
        for (int i = x->nblocks * groups - 1; i >= 0; i--) {
            BlockStart s = x->start[i / groups];
            block_bwd(own, x, block_of(&x->t, s.seg, s.row, i % groups), queries);
        }
        for (int j = 0; j < x->t.nseg; j++) {
            Segment s = x->t.seg[j];
            int runs = (s.len + KEY_RUN - 1) / KEY_RUN;
#pragma omp for schedule(dynamic) nowait
            for (int i = 0; i < runs * K; i++) {
                int row = s.row + i / K * KEY_RUN, end = row + KEY_RUN;
                if (end > s.row + s.len) end = s.row + s.len;
                tree_bwd(own, x, j, i % K, (Wanted){.row = row, .end = end});
            }
        }
    }
}

/* The segment of which `row` is part: the last to begin at or before it. */
static int segment_with(const Attention *t, int row) {
    int low = 0, high = t->nseg - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (t->seg[middle].row <= row)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static int by_cost(const void *a, const void *b) {
    const Tree *x = a, *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? 1 : -1;
    return x->root - y->root;
}

/* Chains segments into trees; returns whether the costliest is too long a task. */
static bool plant(Backward *x, int threads) {
    const Attention *t = &x->t;
    double total = 0;
    for (int j = 0; j < t->nseg; j++) x->child[j] = x->next[j] = -1, x->tree[j].cost = 0;
    for (int j = t->nseg - 1; j >= 0; j--) {
        Segment s = t->seg[j];
        int root = s.prefix_len > 0 ? segment_with(t, s.prefix_row) : j;
        double cost = (double)s.len * (s.prefix_len + 0.5 * s.len);
        x->tree[j].root = j;
        x->tree[root].cost += cost;
        total += cost;
        if (root == j) continue;
        CHECK(t->seg[root].prefix_len == 0, "segment %d: its prefix has a prefix", j);
        x->next[j] = x->child[root];
        x->child[root] = j;
    }
    x->ntrees = 0;
    for (int j = 0; j < t->nseg; j++)
        if (t->seg[j].prefix_len == 0) x->tree[x->ntrees++] = x->tree[j];
    qsort(x->tree, (size_t)x->ntrees, sizeof *x->tree, by_cost);
    return x->ntrees > 0 && 5 * x->tree[0].cost * threads > 7 * total * t->a.K;
}

static void round_sums(elem *to, const float *sums, float factor, const Attention *t) {
#pragma omp parallel for if ((size_t)t->N * t->a.K * t->a.E > OP_LIGHT)
    for (int n = 0; n < t->N; n++)
        for (int kv = 0; kv < t->a.K; kv++) {
            const float *from = sums + ((size_t)kv * t->N + n) * t->a.E;
            elem *row = to + ((size_t)n * t->a.K + kv) * t->a.E;
            for (int e = 0; e < t->a.E; e++) row[e] = elem_put(factor * from[e]);
        }
}

/* Bytes of the parts of the scratch, in their order. */
typedef struct Room {
    size_t tiles, sums, ints, trees, starts;
} Room;

static Room room_of(int nseg, int N, AttnShape a) {
    return (Room){.tiles = (size_t)omp_get_max_threads() * sizeof(Tiles),
                  .sums = aligned_bytes((size_t)N * a.K * a.E * sizeof(float)),
                  .ints = aligned_bytes((size_t)nseg * sizeof(int)),
                  .trees = aligned_bytes((size_t)nseg * sizeof(Tree)),
                  .starts = starts_bytes(a, nseg, N)};
}

size_t TWIN(attn_bwd_scratch)(Exec *ex, int nseg, int N, AttnShape a) {
    Room r = room_of(nseg, N, a);
    (void)ex;
    return r.tiles + 2 * r.sums + 2 * r.ints + r.trees + r.starts;
}

void TWIN(attn_bwd)(Exec *ex, store *dq, store *dk, store *dv, const store *d_o, const store *q,
                    const store *k, const store *v, const store *o, const float *lse,
                    const Segment *seg, const Segment *host_seg, int nseg, int N, AttnShape a) {
    OP_BEGIN(ex, attn_bwd, host_seg, nseg, N, a);
    (void)seg;
    Backward x = {.t = attention_of(a, host_seg, nseg, N),
                  .dq = elems(dq),
                  .d_o = elems_const(d_o),
                  .q = elems_const(q),
                  .k = elems_const(k),
                  .v = elems_const(v),
                  .o = elems_const(o),
                  .lse = lse};
    Room r = room_of(nseg, N, a);
    char *at = exec_scratch(ex, TWIN(attn_bwd_scratch)(ex, nseg, N, a));
    Tiles *w = (Tiles *)at;
    x.dk = (float *)(at += r.tiles);
    x.dv = (float *)(at += r.sums);
    x.child = (int *)(at += r.sums);
    x.next = (int *)(at += r.ints);
    x.tree = (Tree *)(at += r.ints);
    x.start = (BlockStart *)(at + r.trees);
    x.nblocks = list_blocks(x.start, &x.t);
    memset(x.dk, 0, 2 * r.sums);
    if (plant(&x, omp_get_max_threads()))
        run_split(w, &x);
    else
        run_trees(w, &x);
    round_sums(elems(dk), x.dk, a.scale, &x.t);
    round_sums(elems(dv), x.dv, 1, &x.t);
}
