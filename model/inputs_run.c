/* inputs_run.c - packs through the whole model, and sums over the rows that its projections read.
 */
#include <string.h>

#include "data/base/mem.h"
#include "model/acts.h"
#include "model/inputs.h"

struct InputsRun {
    const Model *m;
    InputGroups groups;
    int max_rows;
    Acts *acts;
    Pack pack;
    Arena arena;
    float **sum;       /* (L,GROUP_COUNT) device: inputs_numbers each */
    store *x;          /* (max_rows,widest) the rows that count */
    float *wide;       /* (max_rows) ones; on their way */
    store *ones;       /* (max_rows) */
    int32_t *row;      /* (max_rows) device */
    int64_t *bad_at;   /* (1) */
    int32_t *host_row; /* (max_rows) rows that count, of the pack being filled */
    int counted;       /* of them */
    int64_t rows;      /* since the last inputs_run_finish */
    bool bad;
};

static int widest(const Config *c, InputGroups groups) {
    int most = 0;
    for (int g = 0; g < GROUP_COUNT; g++)
        if (groups.has[g] && inputs_width(c, (enum Group)g) > most)
            most = inputs_width(c, (enum Group)g);
    return most;
}

static void carve(InputsRun *r, const Config *c) {
    Arena *a = &r->arena;
    size_t rows = (size_t)r->max_rows;
    for (int i = 0; i < c->L * GROUP_COUNT; i++) {
        enum Group g = (enum Group)(i % GROUP_COUNT);
        if (!r->groups.has[g]) continue;
        arena_scope(a, "layer %d", i / GROUP_COUNT);
        r->sum[i] = arena_f32(a, group_name[g], inputs_numbers(c, g), 1);
    }
    arena_scope(a, "inputs");
    r->x = arena_store(a, "rows", rows, (size_t)widest(c, r->groups));
    r->wide = arena_f32(a, "ones", rows, 1);
    r->ones = arena_store(a, "ones", rows, 1);
    r->row = arena_i32(a, "row numbers", rows, 1);
    r->bad_at = arena_bytes(a, "first bad element", sizeof *r->bad_at);
}

size_t inputs_run_bytes(const Config *c, InputGroups groups, enum Dtype dtype, int max_rows) {
    InputsRun r = {.groups = groups, .max_rows = max_rows};
    r.sum = mem_array((size_t)c->L * GROUP_COUNT, sizeof *r.sum);
    arena_init(&r.arena, NULL, dtype, "inputs");
    carve(&r, c);
    free(r.sum);
    return r.arena.used + acts_bytes(c, NULL, dtype, max_rows, max_rows, 0, ACTS_INFER);
}

size_t inputs_run_scratch(Exec *ex, const Config *c, InputGroups groups, int max_rows) {
    int W = widest(c, groups);
    return ex->op->gemm_grad_scratch(ex, max_rows, W, W);
}

static void put_ones(InputsRun *r) {
    Exec *ex = r->m->ex;
    float *one = mem_array((size_t)r->max_rows, sizeof *one);
    for (int i = 0; i < r->max_rows; i++) one[i] = 1;
    exec_copy_in(ex, r->wide, one, (size_t)r->max_rows * sizeof *one);
    ex->op->cast(ex, r->ones, r->wide, (size_t)r->max_rows);
    free(one);
}

InputsRun *inputs_run_open(const Model *m, InputGroups groups, int max_rows) {
    CHECK(max_rows > 0 && widest(&m->c, groups) > 0, "%d rows", max_rows);
    InputsRun *r = mem_array(1, sizeof *r);
    *r = (InputsRun){.m = m, .groups = groups, .max_rows = max_rows};
    r->sum = mem_array((size_t)m->c.L * GROUP_COUNT, sizeof *r->sum);
    r->host_row = mem_array((size_t)max_rows, sizeof *r->host_row);
    pack_init(&r->pack, max_rows, max_rows, 0);
    r->acts = acts_create(m, max_rows, max_rows, 0, ACTS_INFER);
    arena_init(&r->arena, m->ex, m->ex->dtype, "inputs");
    carve(r, &m->c);
    arena_place(&r->arena);
    carve(r, &m->c);
    exec_zero(m->ex, r->arena.base, r->arena.size);
    put_ones(r);
    return r;
}

void inputs_run_close(InputsRun *r) {
    if (!r) return;
    arena_free(&r->arena);
    acts_destroy(r->acts);
    pack_free(&r->pack);
    free(r->host_row), free(r->sum);
    free(r);
}

/* model_reads: sums += those of the rows that count. */
static void take_rows(void *context, int layer, enum Group g, const store *x, int N) {
    InputsRun *r = context;
    Exec *ex = r->m->ex;
    int W = inputs_width(&r->m->c, g);
    float *sum = r->sum[layer * GROUP_COUNT + (int)g];
    (void)N;
    if (!sum) return;
    ex->op->gather_rows(ex, r->x, x, r->row, r->counted, W);
    ex->op->gemm_grad(ex, sum, r->ones, 1, r->x, W, r->counted, 1, W, 1);
    ex->op->gemm_grad(ex, sum + W, r->x, W, r->x, W, r->counted, W, W, 1);
}

static void flush(InputsRun *r) {
    if (r->counted > 0) {
        exec_copy_in(r->m->ex, r->row, r->host_row, (size_t)r->counted * sizeof *r->row);
        model_forward_reads(r->m, r->acts, &r->pack, take_rows, r);
    }
    r->rows += r->counted;
    r->counted = 0;
    pack_clear(&r->pack);
}

void inputs_run_add(InputsRun *r, const int32_t *token, const uint8_t *label, int n) {
    CHECK(n <= r->max_rows, "expected documents of at most %d tokens, got %d", r->max_rows, n);
    while (n > 0 && !label[n - 1]) n--; /* what is behind changes nothing */
    if (n == 0) return;
    if (r->pack.N + n > r->max_rows) flush(r);
    int row = r->pack.N;
    pack_add(&r->pack, token, NULL, n, 0);
    for (int t = 0; t < n; t++)
        if (label[t]) r->host_row[r->counted++] = row + t;
}

int64_t inputs_run_finish(InputsRun *r) {
    flush(r);
    int64_t rows = r->rows;
    r->rows = 0;
    return rows;
}

void inputs_run_take(InputsRun *r, int layer, enum Group g, float *sums) {
    Exec *ex = r->m->ex;
    size_t n = inputs_numbers(&r->m->c, g);
    float *of = r->sum[layer * GROUP_COUNT + (int)g];
    int64_t bad_at;
    CHECK(of, "group %s was not asked for", group_name[g]);
    ex->op->find_bad_f32(ex, r->bad_at, of, n);
    exec_copy_out(ex, &bad_at, r->bad_at, sizeof bad_at);
    exec_copy_out(ex, sums, of, n * sizeof *sums);
    exec_zero(ex, of, n * sizeof *of);
    r->bad = r->bad || bad_at >= 0;
}

bool inputs_run_bad(const InputsRun *r) {
    return r->bad;
}

Acts *inputs_run_acts(InputsRun *r) {
    return r->acts;
}
