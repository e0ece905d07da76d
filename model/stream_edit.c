/* stream_edit.c - the stream on its way from layer to layer, changed by products. */
#include "model/stream_edit.h"

#include <math.h>

#include "data/base/mem.h"

typedef struct EditLayer {
    int layer, M;
    store *ut, *v;    /* (M,D), (D) in device memory */
    double *uv, norm; /* U^T v (M), ||v||^2 */
} EditLayer;

struct StreamEdit {
    const Model *m;
    EditLayer *layer; /* (n) */
    int n, most, max_rows;
    store *t, *one; /* (max_rows,most) U^T x of each row; (max_rows) ones, to add v with */
    float *wide;    /* numbers on their way between f32 and the storage type */
    size_t wide_size;
    Arena arena;
    float *host_t, *host_rstd;
    EditChange change;
};

static void carve(StreamEdit *e, const Config *c) {
    Arena *a = &e->arena;
    size_t D = (size_t)c->D, rows = (size_t)e->max_rows, most = (size_t)e->most;
    e->wide_size = D * most > rows * most ? D * most : rows * most;
    if (e->wide_size < D) e->wide_size = D;
    if (e->wide_size < rows) e->wide_size = rows;
    e->wide = arena_f32(a, "numbers on their way", e->wide_size, 1);
    e->one = arena_store(a, "ones", rows, 1);
    e->t = arena_store(a, "coordinates", rows, most ? most : 1);
    for (int i = 0; i < e->n; i++) {
        EditLayer *l = &e->layer[i];
        arena_scope(a, "layer %d", l->layer);
        if (l->M) l->ut = arena_store(a, "directions", (size_t)l->M, D);
        l->v = arena_store(a, "added", 1, D);
    }
}

size_t stream_edit_bytes(const Config *c, enum Dtype dtype, int n, int M, int max_rows) {
    StreamEdit e = {.n = n, .most = M, .max_rows = max_rows};
    e.layer = mem_array((size_t)n, sizeof *e.layer);
    for (int i = 0; i < n; i++) e.layer[i].M = M;
    arena_init(&e.arena, NULL, dtype, "changes of the stream");
    carve(&e, c);
    free(e.layer);
    return e.arena.used;
}

/* n numbers in the storage type. */
static void put(StreamEdit *e, store *to, const float *from, size_t n) {
    Exec *ex = e->m->ex;
    CHECK(n <= e->wide_size, "%zu numbers, room for %zu", n, e->wide_size);
    exec_copy_in(ex, e->wide, from, n * sizeof *from);
    ex->op->cast(ex, to, e->wide, n);
    exec_sync(ex);
}

static void fill_layer(StreamEdit *e, EditLayer *l, const EditOf *of) {
    int D = e->m->c.D, M = l->M;
    float *host = mem_array((size_t)D * (size_t)(M ? M : 1), sizeof *host);
    for (int j = 0; j < M; j++)
        for (int d = 0; d < D; d++)
            host[(size_t)j * (size_t)D + (size_t)d] = (float)of->U[(size_t)d * (size_t)M + j];
    if (M) put(e, l->ut, host, (size_t)M * (size_t)D);
    l->uv = mem_array((size_t)M, sizeof *l->uv);
    for (int d = 0; d < D; d++) {
        double v = of->v ? of->v[d] : 0;
        host[d] = (float)v;
        l->norm += v * v;
        for (int j = 0; j < M; j++) l->uv[j] += of->U[(size_t)d * (size_t)M + j] * v;
    }
    put(e, l->v, host, (size_t)D);
    free(host);
}

StreamEdit *stream_edit_open(const Model *m, const EditOf *of, int n, int max_rows) {
    StreamEdit *e = mem_array(1, sizeof *e);
    *e = (StreamEdit){.m = m, .n = n, .max_rows = max_rows};
    e->layer = mem_array((size_t)n, sizeof *e->layer);
    for (int i = 0; i < n; i++) {
        CHECK(of[i].layer >= 0 && of[i].layer < m->c.L && (i == 0 || of[i].layer > of[i - 1].layer),
              "change %d is of layer %d", i, of[i].layer);
        e->layer[i].layer = of[i].layer, e->layer[i].M = of[i].M;
        if (of[i].M > e->most) e->most = of[i].M;
    }
    arena_init(&e->arena, m->ex, m->ex->dtype, "changes of the stream");
    carve(e, &m->c);
    arena_place(&e->arena);
    carve(e, &m->c);
    e->host_t = mem_array((size_t)max_rows * (size_t)e->most, sizeof *e->host_t);
    e->host_rstd = mem_array((size_t)max_rows, sizeof *e->host_rstd);
    for (int i = 0; i < max_rows; i++) e->host_rstd[i] = 1;
    put(e, e->one, e->host_rstd, (size_t)max_rows);
    for (int i = 0; i < n; i++) fill_layer(e, &e->layer[i], &of[i]);
    return e;
}

void stream_edit_close(StreamEdit *e) {
    if (!e) return;
    for (int i = 0; i < e->n; i++) free(e->layer[i].uv);
    arena_free(&e->arena);
    free(e->layer), free(e->host_t), free(e->host_rstd);
    free(e);
}

/* With t = U^T x:  ||v - U t||^2 = ||t||^2 - 2 t . U^T v + ||v||^2;  rstd = (||x||^2/D + eps)^-1/2.
 */
static void note_change(StreamEdit *e, const EditLayer *l, const float *rstd, int N) {
    Exec *ex = e->m->ex;
    const Config *c = &e->m->c;
    size_t M = (size_t)l->M;
    exec_copy_out(ex, e->host_rstd, rstd, (size_t)N * sizeof *rstd);
    if (M > 0) {
        ex->op->uncast(ex, e->wide, e->t, (size_t)N * M);
        exec_copy_out(ex, e->host_t, e->wide, (size_t)N * M * sizeof *e->host_t);
    }
    for (int i = 0; i < N; i++) {
        double r = e->host_rstd[i], x = c->D * (1 / (r * r) - c->eps), change = l->norm;
        for (size_t j = 0; j < M; j++) {
            double t = e->host_t[(size_t)i * M + j];
            change += t * (t - 2 * l->uv[j]);
        }
        if (x > 0 && change > 0) e->change.sum += llrint(fmin(change / x, 0x1p20) * 0x1p32);
    }
    e->change.rows += N;
}

/* model_edit */
static bool edit(void *context, int layer, store *x, const float *rstd, int N) {
    StreamEdit *e = context;
    Exec *ex = e->m->ex;
    int D = e->m->c.D, i = 0;
    while (i < e->n && e->layer[i].layer != layer) i++;
    if (i == e->n) return false;
    const EditLayer *l = &e->layer[i];
    CHECK(N <= e->max_rows, "expected at most %d rows, got %d", e->max_rows, N);
    if (l->M > 0) {
        ex->op->gemm(ex, e->t, l->M, x, D, l->ut, D, N, l->M, D, GEMM_NT, 1, 0);
        ex->op->gemm(ex, x, D, e->t, l->M, l->ut, D, N, D, l->M, GEMM_NN, -1, 1);
    }
    ex->op->gemm(ex, x, D, e->one, 1, l->v, D, N, D, 1, GEMM_NN, 1, 1);
    note_change(e, l, rstd, N);
    return true;
}

void stream_edit_on(StreamEdit *e, Acts *a) {
    acts_edit(a, e ? edit : NULL, e);
}

EditChange stream_edit_change(const StreamEdit *e) {
    return e->change;
}

double edit_change_ratio(const EditChange *c) {
    return c->rows ? sqrt((double)c->sum * 0x1p-32 / (double)c->rows) : 0;
}
