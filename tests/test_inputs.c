/* What projections read: its moments against every document run alone and its rows looked at by
 * name, in double; components by what defines them; eva's adapters, and the file of its bases. */
#include "model/inputs.h"

#include <math.h>

#include "model/adapter_start.h"
#include "tests/files.h"
#include "tests/golden.h"

enum { R = 3 };

/* ----------------------------------------------------------------------------- the reference -- */

/* Rows of a layer's input of a group, of all documents one behind the other. */
typedef struct Rows {
    double *x; /* (n,W) */
    int n, W;
} Rows;

typedef struct Look {
    const Golden *g;
    int doc;
    Rows *rows; /* (L,GROUP_COUNT) */
} Look;

/* model_watch: the rows of what a group reads that are labels. */
static void look(void *context, const Placed *t, int first) {
    static const char *const read[GROUP_COUNT] = {"h", "o", "h2", "g"};
    const Look *l = context;
    const Golden *g = l->g;
    int layer, at = 0;
    if (sscanf(t->name, "layer %d: %n", &layer, &at) != 1 || at == 0) return;
    for (int k = 0; k < GROUP_COUNT; k++) {
        if (strcmp(t->name + at, read[k]) != 0 || layer >= g->m.c.L) continue;
        Rows *to = &l->rows[layer * GROUP_COUNT + k];
        double *x = test_get_store(g->m.ex, t->data, t->rows * t->cols);
        CHECK(first == 0 && (int)t->cols == to->W, "%s has %zu columns", t->name, t->cols);
        for (int r = 0; r < (int)t->rows; r++)
            if (g->label[l->doc][r]) {
                memcpy(to->x + (size_t)to->n * (size_t)to->W, x + (size_t)r * t->cols,
                       sizeof *x * t->cols);
                to->n++;
            }
        free(x);
    }
}

static Rows *reference(const Golden *g) {
    const Config *c = &g->m.c;
    Rows *rows = mem_array((size_t)c->L * GROUP_COUNT, sizeof *rows);
    for (int i = 0; i < c->L * GROUP_COUNT; i++) {
        rows[i].W = proj_in(c, group_first[i % GROUP_COUNT]);
        rows[i].x = mem_array(GOLDEN_ROWS * (size_t)rows[i].W, sizeof *rows[i].x);
    }
    for (int d = 0; d < GOLDEN_DOCS; d++) {
        Pack p;
        Look l = {g, d, rows};
        pack_init(&p, g->n[d], 1, 0);
        pack_add(&p, g->token[d], NULL, g->n[d], 0);
        Acts *a = acts_create(&g->m, g->n[d], 1, 0, ACTS_INFER);
        model_forward(&g->m, a, &p, c->L, NULL, NULL);
        model_again(&g->m, a, look, &l);
        acts_destroy(a);
        pack_free(&p);
    }
    return rows;
}

static void reference_free(Rows *rows, const Config *c) {
    for (int i = 0; i < c->L * GROUP_COUNT; i++) free(rows[i].x);
    free(rows);
}

/* C v, with C the covariance of the rows, and their mean square. */
static void times(double *y, const Rows *rows, const double *v) {
    int n = rows->n, W = rows->W;
    double *mean = mem_array((size_t)W, sizeof *mean);
    for (int i = 0; i < n * W; i++) mean[i % W] += rows->x[i] / n;
    for (int d = 0; d < W; d++) y[d] = 0;
    for (int i = 0; i < n; i++) {
        double dot = 0;
        for (int d = 0; d < W; d++) dot += (rows->x[i * W + d] - mean[d]) * v[d];
        for (int d = 0; d < W; d++) y[d] += dot * (rows->x[i * W + d] - mean[d]) / n;
    }
    free(mean);
}

static double mean_square(const Rows *rows) {
    double sum = 0;
    for (int i = 0; i < rows->n * rows->W; i++) sum += rows->x[i] * rows->x[i] / rows->n;
    return sum;
}

/* --------------------------------------------------------------------------- the components -- */

/* The largest eigenvalue of what the columns leave of C, by iteration; it is reached from below. */
static double largest_left(const Rows *rows, const Basis *b) {
    int W = rows->W;
    double *v = test_noise_array(3, (size_t)W, 1), *y = mem_array((size_t)W, sizeof *y), value = 0;
    for (int turn = 0; turn < 60; turn++) {
        double length = 0;
        for (int j = 0; j < b->R; j++) {
            double dot = 0;
            for (int d = 0; d < W; d++) dot += b->U[d * b->R + j] * v[d];
            for (int d = 0; d < W; d++) v[d] -= dot * b->U[d * b->R + j];
        }
        for (int d = 0; d < W; d++) length += v[d] * v[d];
        for (int d = 0; d < W; d++) v[d] /= sqrt(length);
        times(y, rows, v);
        value = 0;
        for (int d = 0; d < W; d++) value += v[d] * y[d];
        memcpy(v, y, sizeof *v * (size_t)W);
    }
    free(v), free(y);
    return value;
}

/* The device's sums of n terms are off by n 2^-24 of the terms' sizes, C by that thrice, by its
 * squares and twice by the mean; so an eigenvector's image may be off by twice as much, and so may
 * an eigenvalue that is compared with another. */
static int is_principal(const Basis *b, const Rows *rows) {
    int W = rows->W, ok = b->D == W && b->R == R && b->m == R;
    double error = 6 * rows->n * 0x1p-24 * mean_square(rows), least = INFINITY;
    double *u = mem_array((size_t)W, sizeof *u), *y = mem_array((size_t)W, sizeof *y);
    for (int j = 0; ok && j < R; j++) {
        double value = 0, apart = 0;
        for (int d = 0; d < W; d++) u[d] = b->U[d * R + j];
        times(y, rows, u);
        for (int d = 0; d < W; d++) value += u[d] * y[d];
        for (int d = 0; d < W; d++) apart += (y[d] - value * u[d]) * (y[d] - value * u[d]);
        ok &= sqrt(apart) <= error && value <= least + error && value > 20 * error;
        least = value;
    }
    ok = ok && largest_left(rows, b) <= least + error;
    EXPECT(test_quiet || ok, "layer %d: not the components of what %s reads", b->layer, b->of);
    free(u), free(y);
    return ok;
}

static const bool all_targets[PROJ_COUNT] = {true, true, true, true, true, true, true};

/* In packs of max_rows, and in one block or two. */
static Subspace wide_bases(const Golden *g, const bool target[PROJ_COUNT], int max_rows, int blocks,
                           int columns) {
    const Config *c = &g->m.c;
    InputGroups groups = inputs_groups(target);
    InputsRun *r = inputs_run_open(&g->m, groups, max_rows);
    float *sums = mem_array(
        inputs_numbers(c, GROUP_DOWN) + inputs_numbers(c, GROUP_O) + inputs_numbers(c, GROUP_QKV),
        sizeof *sums);
    Inputs in;
    Subspace s;
    Err err;
    int labels = 0;
    inputs_init(&in, c, groups);
    for (int d = 0; d < GOLDEN_DOCS; d++) {
        inputs_run_add(r, g->token[d], g->label[d], g->n[d]);
        for (int t = 0; t < g->n[d]; t++) labels += g->label[d][t];
        if (d + 1 < GOLDEN_DOCS && !(blocks == 2 && d == 1)) continue;
        in.rows += inputs_run_finish(r);
        for (int i = 0; i < c->L * GROUP_COUNT; i++) {
            if (!groups.has[i % GROUP_COUNT]) continue;
            inputs_run_take(r, i / GROUP_COUNT, (enum Group)(i % GROUP_COUNT), sums);
            inputs_add(&in, i / GROUP_COUNT, (enum Group)(i % GROUP_COUNT), sums);
        }
    }
    EXPECT(in.rows == labels && !inputs_run_bad(r), "%lld rows of %d labels", (long long)in.rows,
           labels);
    MUST(inputs_bases(&s, g->m.ex, &in, columns, 1, &err), err);
    inputs_free(&in);
    inputs_run_close(r);
    free(sums);
    return s;
}

static Subspace bases_of(const Golden *g, const bool target[PROJ_COUNT], int max_rows, int blocks) {
    return wide_bases(g, target, max_rows, blocks, R);
}

static void test_components(const Golden *g) {
    const Config *c = &g->m.c;
    Rows *rows = reference(g);
    for (int way = 0; way < 2; way++) {
        Subspace s = bases_of(g, all_targets, way ? 40 : GOLDEN_ROWS, 1 + way);
        EXPECT(s.n == c->L * GROUP_COUNT, "%d bases", s.n);
        for (int i = 0; i < s.n; i++) {
            const Basis *b = &s.basis[i];
            EXPECT(b->layer == i / GROUP_COUNT && strcmp(b->of, group_name[i % GROUP_COUNT]) == 0,
                   "basis %d is of layer %d, %s", i, b->layer, b->of);
            is_principal(b, &rows[i]);
            int other = (i + GROUP_COUNT) % s.n; /* of another layer */
            TEST_DETECTS(is_principal(b, &rows[other]));
        }
        subspace_free(&s);
    }
    reference_free(rows, c);
}

/* -------------------------------------------------------------------------------- the start -- */

static Lora start(const Model *m, const Subspace *s, bool freeze) {
    StartOptions o = {
        .kind = START_EVA, .rank = R, .alpha = 4, .basis_scale = 0.5, .freeze_basis = freeze};
    LoraShape shape;
    Lora l;
    Err err;
    o.target[PROJ_Q] = o.target[PROJ_V] = o.target[PROJ_O] = o.target[PROJ_DOWN] = true;
    MUST(adapter_start_shape(&shape, &m->c, &o, s, &err), err);
    lora_alloc(&l, m->ex, &m->c, &shape, true);
    lora_shape_free(&shape);
    MUST(adapter_start_fill(&l, m, &o, s, &err), err);
    return l;
}

/* A of each target is the transposed basis of its group, B is zero; only the factors that are to
 * train do. */
static void test_start(const Model *m, const Subspace *s) {
    static const int group[PROJ_COUNT] = {0, 0, 0, 1, 2, 2, 3};
    for (int freeze = 0; freeze < 2; freeze++) {
        Lora l = start(m, s, freeze);
        for (int i = 0; i < m->c.L * PROJ_COUNT; i++) {
            const Adapter *a = &l.adapter[i];
            int p = i % PROJ_COUNT;
            bool target = p == PROJ_Q || p == PROJ_V || p == PROJ_O || p == PROJ_DOWN;
            EXPECT((a->R > 0) == target, "%s has rank %d", proj_name[p], a->R);
            if (!target) continue;
            const Basis *b = &s->basis[i / PROJ_COUNT * GROUP_COUNT + group[p]];
            double *A = test_get_f32(l.ex, a->A->master, a->A->n);
            double *B = test_get_f32(l.ex, a->B->master, a->B->n);
            for (int r = 0; r < R; r++)
                for (int d = 0; d < a->in; d++)
                    EXPECT(A[r * a->in + d] == (float)(0.5 * b->U[d * R + r]), "%s", a->A->name);
            for (size_t k = 0; k < a->B->n; k++) EXPECT(B[k] == 0, "B is not zero");
            EXPECT(a->A->trained == !freeze && a->B->trained, "%s is trained: %d", a->A->name,
                   a->A->trained);
            free(A), free(B);
        }
        lora_free(&l);
    }
}

/* -------------------------------------------------------------------------- ranks shared out -- */

/* The adapters by a rule of its own: how many columns of others come before one. */
static int count_first(const Subspace *s, const bool *target, int layers, int layer, int p, int j) {
    static const int group[PROJ_COUNT] = {0, 0, 0, 1, 2, 2, 3};
    double share = s->basis[layer * GROUP_COUNT + group[p]].variance[j];
    int before = 0;
    for (int i = 0; i < layers * PROJ_COUNT; i++) {
        const Basis *b = &s->basis[i / PROJ_COUNT * GROUP_COUNT + group[i % PROJ_COUNT]];
        for (int k = 0; target[i % PROJ_COUNT] && k < b->m; k++) {
            bool first = i != layer * PROJ_COUNT + p ? i < layer * PROJ_COUNT + p : k < j;
            before += b->variance[k] > share || (b->variance[k] == share && first);
        }
    }
    return before;
}

/* Twice the rank at most, the sum of rho 1, one scale; q is never behind v, which reads the same.
 */
static void test_shared(const Golden *g) {
    const Model *m = &g->m;
    StartOptions o = {.kind = START_EVA, .rank = R, .alpha = 4, .basis_scale = 1, .rho = 2};
    Subspace s = wide_bases(g, all_targets, GOLDEN_ROWS, 1, 2 * R);
    int L = m->c.L, sum = 0, most = 0, targets = 0, differ = 0;
    LoraShape shape;
    Err err;
    o.target[PROJ_Q] = o.target[PROJ_V] = o.target[PROJ_O] = o.target[PROJ_DOWN] = true;
    for (int i = 0; i < s.n; i++) EXPECT(s.basis[i].R == 2 * R, "%d columns", s.basis[i].R);
    MUST(adapter_start_shape(&shape, &m->c, &o, &s, &err), err);
    for (int p = 0; p < PROJ_COUNT; p++) targets += L * o.target[p];
    for (int i = 0; i < L * PROJ_COUNT; i++) {
        int want = 0, layer = i / PROJ_COUNT, p = i % PROJ_COUNT;
        for (int j = 0; o.target[p] && j < 2 * R; j++)
            want += count_first(&s, o.target, L, layer, p, j) < R * targets;
        EXPECT(shape.rank[i] == want, "layer %d %s: rank %d, expected %d", layer, proj_name[p],
               shape.rank[i], want);
        EXPECT(shape.alpha[i] == (float)(4.0 * want / R), "%s: alpha %g", proj_name[p],
               (double)shape.alpha[i]);
        sum += shape.rank[i], differ += o.target[p] && want != R;
        most = shape.rank[i] > most ? shape.rank[i] : most;
    }
    EXPECT(sum == R * targets && most > R && most <= 2 * R && differ > 0, "%d of %d, at most %d",
           sum, R * targets, most);
    for (int l = 0; l < L; l++) {
        int q = shape.rank[l * PROJ_COUNT + PROJ_Q], v = shape.rank[l * PROJ_COUNT + PROJ_V];
        EXPECT(q == v || q == v + 1, "layer %d: q has %d, v %d", l, q, v);
    }
    lora_shape_free(&shape);
    subspace_free(&s);
}

/* Two inputs of three columns by hand, of which one layer's q and o are targets: 0.5, 0.3, 0.2 and
 * 0.9, 0.05, 0: of rank 2 and rho 1.5 four are 0.9, 0.5, 0.3, 0.2; of rank 1, rho 2, both are q's
 * where o hardly varies. */
static void test_shared_by_hand(const Model *m) {
    double U[3] = {1, 0, 0}, of_q[3] = {0.5, 0.3, 0.2}, of_o[3] = {0.9, 0.05, 0};
    Basis *b = mem_array((size_t)m->c.L * 2, sizeof *b);
    Subspace s = {.basis = b, .n = 2 * m->c.L};
    for (int i = 0; i < s.n; i++)
        b[i] = (Basis){.of = group_name[i % 2 ? GROUP_O : GROUP_QKV],
                       .layer = i / 2,
                       .D = proj_in(&m->c, i % 2 ? PROJ_O : PROJ_Q),
                       .R = 3,
                       .m = 3 - i % 2, /* o's last is random */
                       .U = U,
                       .variance = i % 2 ? of_o : of_q};
    StartOptions o = {.kind = START_EVA, .rank = 2, .alpha = 3, .rho = 1.5};
    LoraShape shape;
    Err err;
    o.target[PROJ_Q] = o.target[PROJ_O] = true;
    MUST(adapter_start_shape(&shape, &m->c, &o, &s, &err), err);
    EXPECT(shape.rank[PROJ_Q] == 3 && shape.rank[PROJ_O] == 1 && shape.alpha[PROJ_Q] == 4.5f &&
               shape.alpha[PROJ_O] == 1.5f,
           "q has %d, o %d", shape.rank[PROJ_Q], shape.rank[PROJ_O]);
    lora_shape_free(&shape);
    o.rank = 1, o.rho = 3, of_o[0] = 0.1, of_o[1] = 0;
    MUST(adapter_start_shape(&shape, &m->c, &o, &s, &err), err);
    Lora l;
    lora_alloc(&l, m->ex, &m->c, &shape, true);
    MUST(lora_save(&l, test_path("shared"), "base", &err), err);
    lora_free(&l), lora_shape_free(&shape);
    MUST(lora_load(&l, m->ex, &m->c, test_path("shared"), false, &err), err);
    for (int i = 0; i < m->c.L; i++) {
        const Adapter *q = lora_at(&l, i, PROJ_Q), *of = lora_at(&l, i, PROJ_O);
        EXPECT(q->R == 2 && q->scale == 3 && q->alpha == 6 && of->R == 0 && !of->A,
               "after a file q has rank %d and scale %g, o %d", q->R, (double)q->scale, of->R);
    }
    lora_free(&l);
    o.rho = 2;
    EXPECT_REFUSED(
        adapter_start_shape(&shape, &m->c, &o, &s, &err), err, EXIT_INPUT,
        "has rank 3, --rank asks for 2 with this --rho; make it again with this rank, or "
        "give the --rho");
    EXPECT(eva_columns(5, 1.5, 99) == 8 && eva_columns(3, 1.5, 99) == 4 &&
               eva_columns(3, 0, 99) == 3 && eva_columns(16, 2, 20) == 20,
           "columns of a basis");
    free(b);
}

static void expect_refused(const Model *m, StartOptions o, const Subspace *s, const char *says) {
    LoraShape shape;
    Err err;
    EXPECT_REFUSED(adapter_start_shape(&shape, &m->c, &o, s, &err), err,
                   o.rank ? EXIT_INPUT : EXIT_USAGE, says);
}

static void test_refused(const Golden *g, Subspace *all) {
    const bool some[PROJ_COUNT] = {true};
    StartOptions o = {.kind = START_EVA, .rank = R, .alpha = 4, .target = {[PROJ_O] = true}};
    Subspace few = bases_of(g, some, GOLDEN_ROWS, 1);
    expect_refused(&g->m, o, &few, "no basis of what o_proj of layer 0 reads");
    subspace_free(&few);
    o.rank = R + 1;
    expect_refused(&g->m, o, all, "has rank 3, --rank asks for 4");
    o.rank = 0;
    expect_refused(&g->m, o, all, "--init eva needs a number");
    o.rank = R, o.kind = START_SAILS;
    expect_refused(&g->m, o, all, "a subspace of what projections read; --init sails takes one of");
    Basis b = {.layer = 1, .D = g->m.c.D, .R = R};
    Subspace stream = {.basis = &b, .n = 1};
    o.kind = START_EVA;
    expect_refused(&g->m, o, &stream, "a subspace of the stream; --init eva takes one of what");
    all->basis[0].D++;
    expect_refused(&g->m, o, all, "the subspace has width");
    all->basis[0].D--;
    Inputs in;
    Err err;
    inputs_init(&in, &g->m.c, inputs_groups(some));
    EXPECT_REFUSED(inputs_bases(&few, g->m.ex, &in, R, 1, &err), err, EXIT_INPUT,
                   "two tokens or more");
    in.rows = 5;
    EXPECT_REFUSED(inputs_bases(&few, g->m.ex, &in, R, 1, &err), err, EXIT_INPUT,
                   "what qkv reads: nothing above rounding");
    EXPECT(!few.basis && few.n == 0, "something was left behind");
    inputs_free(&in);
}

static void test_kept(const Subspace *s) {
    Subspace back;
    Err err;
    MUST(subspace_save(s, test_path("inputs"), &err), err);
    MUST(subspace_load(&back, test_path("inputs"), &err), err);
    EXPECT(back.n == s->n && subspace_of(&back) == BASIS_OF_INPUTS, "%d bases of %d", back.n, s->n);
    for (int i = 0; i < s->n && i < back.n; i++) {
        const Basis *a = &s->basis[i], *b = &back.basis[i];
        EXPECT(a->layer == b->layer && a->D == b->D && a->m == b->m && strcmp(a->of, b->of) == 0 &&
                   !memcmp(a->U, b->U, sizeof *a->U * (size_t)a->D * R) &&
                   !memcmp(a->variance, b->variance, sizeof *a->variance * (size_t)a->m),
               "basis %d changed on the way", i);
    }
    subspace_free(&back);
    s->basis[1].U[0] += 1e-3;
    MUST(subspace_save(s, test_path("bent"), &err), err);
    EXPECT_REFUSED(subspace_load(&back, test_path("bent"), &err), err, EXIT_INPUT,
                   "layer 0: expected orthonormal columns");
    s->basis[1].U[0] -= 1e-3;
}

static void body(Exec *ex) {
    Golden g;
    golden_open(&g, ex, golden_models[0]);
    test_components(&g);
    Subspace s = bases_of(&g, all_targets, GOLDEN_ROWS, 1);
    test_start(&g.m, &s);
    if (test_on_cpu(ex)) {
        test_refused(&g, &s);
        test_shared(&g);
        test_shared_by_hand(&g.m);
        test_kept(&s);
    }
    subspace_free(&s);
    golden_close(&g);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_inputs");
}
