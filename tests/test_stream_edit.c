/* The stream changed between layers: what comes out of that layer against doubles, what lies below
 * untouched, and above it that the norm reads the changed stream, in passes of all rows and of few.
 */
#include "model/stream_edit.h"

#include "model/subspace.h"
#include "tests/golden.h"

enum { M = 3 };

typedef struct Grab {
    Exec *ex;
    int D, rows;
    double *x[8]; /* (rows,D) that left each layer */
} Grab;

static void grab(void *context, int layer, const store *x, int N) {
    Grab *g = context;
    g->rows = N;
    g->x[layer] = test_get_store(g->ex, x, (size_t)N * (size_t)g->D);
}

static void grab_free(Grab *g) {
    for (int i = 0; i < 8; i++) free(g->x[i]), g->x[i] = NULL;
}

/* A pass over two documents, changed by e; of the last layer rows `last` alone, or all. */
static void pass(Grab *to, Golden *g, Acts *a, StreamEdit *e, const int32_t *last, int n) {
    Pack p;
    pack_init(&p, GOLDEN_ROWS, GOLDEN_ROWS, 0);
    for (int d = 0; d < 2; d++) pack_add(&p, g->token[d], NULL, g->n[d], d);
    *to = (Grab){.ex = g->m.ex, .D = g->m.c.D};
    stream_edit_on(e, a);
    if (n)
        model_forward_rows(&g->m, a, &p, g->m.c.L, last, n, grab, to);
    else
        model_forward(&g->m, a, &p, g->m.c.L, grab, to);
    stream_edit_on(NULL, a);
    pack_free(&p);
}

/* x - U U^T x + v. What is multiplied and what is stored is rounded to the storage type, three
 * times, and sums of D and of M products in f32: some twenty roundings of a row's largest number
 * bound all that. */
static void check_rows(const char *what, const double *got, const double *x, int rows, int D,
                       const EditOf *of, double unit) {
    size_t n = (size_t)rows * (size_t)D;
    double *ref = mem_array(n, sizeof *ref), *tol = mem_array(n, sizeof *tol);
    for (int i = 0; i < rows; i++) {
        const double *from = x + (size_t)i * (size_t)D;
        double *to = ref + (size_t)i * (size_t)D, most = 0, dot[M] = {0};
        for (int d = 0; d < D; d++)
            for (int j = 0; j < of->M; j++) dot[j] += of->U[d * of->M + j] * from[d];
        for (int d = 0; d < D; d++) {
            to[d] = from[d] + (of->v ? of->v[d] : 0);
            for (int j = 0; j < of->M; j++) to[d] -= of->U[d * of->M + j] * dot[j];
            most = fmax(most, fabs(from[d]) + fabs(of->v ? of->v[d] : 0));
        }
        for (int d = 0; d < D; d++) tol[(size_t)i * (size_t)D + (size_t)d] = 20 * unit * most;
    }
    test_close_each(what, got, ref, tol, n);
    free(ref), free(tol);
}

/* The root mean square of ||change|| / ||x||. */
static double ratio(const double *x, const double *y, int rows, int D) {
    double sum = 0;
    for (int i = 0; i < rows; i++) {
        double change = 0, size = 0;
        for (int d = 0; d < D; d++) {
            size_t at = (size_t)i * (size_t)D + (size_t)d;
            change += (y[at] - x[at]) * (y[at] - x[at]), size += x[at] * x[at];
        }
        sum += change / size;
    }
    return sqrt(sum / rows);
}

static void check_change(Golden *g, Acts *a, const Grab *plain, const EditOf *of, double unit) {
    Exec *ex = g->m.ex;
    Grab y;
    StreamEdit *e = stream_edit_open(&g->m, of, 1, GOLDEN_ROWS);
    pass(&y, g, a, e, NULL, 0);
    int D = g->m.c.D, l = of->layer;
    EXPECT(memcmp(y.x[l - 1], plain->x[l - 1], (size_t)(y.rows * D) * sizeof(double)) == 0,
           "%s: the layer below has changed", ex->op->name);
    check_rows("changed rows", y.x[l], plain->x[l], y.rows, D, of, unit);
    EditChange c = stream_edit_change(e);
    double said = edit_change_ratio(&c), ref = ratio(plain->x[l], y.x[l], y.rows, D);
    EXPECT(c.rows == y.rows && fabs(said - ref) <= 40 * unit + 0.01 * ref, "%s: change %g, not %g",
           ex->op->name, said, ref);
    stream_edit_close(e);
    grab_free(&y);
}

/* With all directions taken out and one vector put in, all rows are the same: so are their keys and
 * values above, and whatever attention looks at, all rows leave the next layer alike. A norm that
 * still read what was there before would tell them apart. Rotated keys meet other weights, whose
 * sum is 1 but for rounding. */
static void check_norm(Golden *g, Acts *a, const Grab *plain, double unit) {
    int D = g->m.c.D;
    Basis all = {0};
    basis_random(&all, g->m.ex, 0, D, D, 3);
    const EditOf of = {.layer = 0, .M = D, .U = all.U, .v = plain->x[0]};
    StreamEdit *e = stream_edit_open(&g->m, &of, 1, GOLDEN_ROWS);
    Grab y;
    pass(&y, g, a, e, NULL, 0);
    double apart = 0, size = 0, before = 0;
    for (int i = 1; i < y.rows; i++)
        for (int d = 0; d < D; d++) {
            apart = fmax(apart, fabs(y.x[1][i * D + d] - y.x[1][d]));
            before = fmax(before, fabs(plain->x[1][i * D + d] - plain->x[1][d]));
            size = fmax(size, fabs(y.x[1][d]));
        }
    EXPECT(apart <= 400 * unit * size && before > 800 * unit * size,
           "%s: equal rows leave the next layer %g apart, of %g; unequal ones %g",
           g->m.ex->op->name, apart, size, before);
    stream_edit_close(e);
    basis_free(&all);
    grab_free(&y);
}

/* Where nothing is taken out nor added, the norms that are taken again give the same bits, up to
 * the logits. */
static void check_nothing(Golden *g, Acts *a, const Grab *plain) {
    const Config *c = &g->m.c;
    static const int32_t row[] = {0, 7};
    float *logits[2];
    EditOf of[8];
    Grab y = {0};
    for (int l = 0; l < c->L; l++) of[l] = (EditOf){.layer = l};
    StreamEdit *e = stream_edit_open(&g->m, of, c->L, GOLDEN_ROWS);
    for (int k = 0; k < 2; k++) {
        grab_free(&y);
        pass(&y, g, a, k ? e : NULL, NULL, 0);
        logits[k] = mem_array(2 * (size_t)c->V, sizeof *logits[k]);
        model_logits(&g->m, a, row, 2, logits[k]);
    }
    for (int l = 0; l < c->L; l++)
        EXPECT(memcmp(y.x[l], plain->x[l], (size_t)(y.rows * c->D) * sizeof(double)) == 0,
               "%s: layer %d has changed by nothing", g->m.ex->op->name, l);
    EXPECT(memcmp(logits[0], logits[1], 2 * (size_t)c->V * sizeof(float)) == 0,
           "%s: logits have changed by nothing", g->m.ex->op->name);
    EditChange change = stream_edit_change(e);
    EXPECT(edit_change_ratio(&change) == 0, "a change of %g", edit_change_ratio(&change));
    stream_edit_close(e);
    grab_free(&y);
    free(logits[0]), free(logits[1]);
}

/* The last layer with few rows gives what it gives with all. */
static void check_few(Golden *g, Acts *a, const EditOf *of) {
    static const int32_t last[] = {5, 2};
    int D = g->m.c.D, top = g->m.c.L - 1;
    EditOf at_top = *of;
    at_top.layer = top;
    Grab all, few;
    StreamEdit *e = stream_edit_open(&g->m, &at_top, 1, GOLDEN_ROWS);
    pass(&all, g, a, e, NULL, 0);
    pass(&few, g, a, e, last, 2);
    EXPECT(few.rows == 2, "%d rows", few.rows);
    for (int i = 0; i < 2; i++)
        EXPECT(
            memcmp(few.x[top] + i * D, all.x[top] + last[i] * D, (size_t)D * sizeof(double)) == 0,
            "%s: row %d is another among few", g->m.ex->op->name, last[i]);
    stream_edit_close(e);
    grab_free(&all), grab_free(&few);
}

static void test_all(Exec *ex) {
    Golden g;
    Grab plain;
    golden_open(&g, ex, "model_a");
    Acts *a = acts_create(&g.m, GOLDEN_ROWS, GOLDEN_ROWS, 4, ACTS_INFER);
    int D = g.m.c.D;
    double unit = test_roundoff(ex->dtype);
    Basis b = {0};
    basis_random(&b, ex, 1, D, M, 4);
    double *v = test_noise_array(12, (size_t)D, 0.5);
    pass(&plain, &g, a, NULL, NULL, 0);
    const EditOf ablate = {.layer = 1, .M = M, .U = b.U, .v = v}, add = {.layer = 1, .v = v},
                 out = {.layer = 1, .M = M, .U = b.U};
    check_change(&g, a, &plain, &ablate, unit);
    check_change(&g, a, &plain, &add, unit);
    check_change(&g, a, &plain, &out, unit);
    check_norm(&g, a, &plain, unit);
    check_nothing(&g, a, &plain);
    check_few(&g, a, &ablate);
    EXPECT(stream_edit_bytes(&g.m.c, ex->dtype, 1, M, GOLDEN_ROWS) > 0, "no memory");
    acts_destroy(a);
    basis_free(&b);
    grab_free(&plain);
    free(v);
    golden_close(&g);
}

int main(void) {
    test_each_exec(test_all);
    return test_done("stream edit");
}
