/* Attention over packed documents: each twin against a double-precision reference written from the
 * contract. The reference's gradient is itself checked by central differences. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

static const double F32 = 0x1p-24; /* unit roundoff */

static double *zeros(size_t n) {
    return test_noise_array(0, n, 0);
}

/* One pack of documents: values as rounded to storage, and what attention makes of them. */
typedef struct Pack {
    AttnShape a;
    const Segment *seg;
    int nseg, N;
    double *q, *k, *v, *d_o;
    double rounds; /* by how much weights and ds are rounded, relatively, before their products */
} Pack;

/* Results, each with the error that an f32 evaluation may have. */
typedef struct Result {
    double *o, *lse, *dq, *dk, *dv;
    double *o_err, *lse_err, *dq_err, *dk_err, *dv_err;
} Result;

static size_t q_size(const Pack *p) {
    return (size_t)p->N * p->a.H * p->a.E;
}
static size_t k_size(const Pack *p) {
    return (size_t)p->N * p->a.K * p->a.E;
}

static Result result_new(const Pack *p) {
    size_t q = q_size(p), k = k_size(p), l = (size_t)p->N * p->a.H;
    return (Result){zeros(q), zeros(l), zeros(q), zeros(k), zeros(k),
                    zeros(q), zeros(l), zeros(q), zeros(k), zeros(k)};
}

static void result_free(Result *r) {
    free(r->o), free(r->lse), free(r->dq), free(r->dk), free(r->dv);
    free(r->o_err), free(r->lse_err), free(r->dq_err), free(r->dk_err), free(r->dv_err);
}

/* The keys that row i of segment s sees: their rows, in order of position. Returns how many. */
static int visible(const Pack *p, Segment s, int i, int *rows) {
    int n = 0, position = s.prefix_len + i;
    for (int t = 0; t <= position; t++) {
        if (p->a.window > 0 && position - t >= p->a.window) continue;
        rows[n++] = t < s.prefix_len ? s.prefix_row + t : s.row + (t - s.prefix_len);
    }
    return n;
}

/* f32 sums of n terms: 2^-24 of the partial sum at each step, independent, six deviations. */
static double sum_error(double n, double sum_abs) {
    return 6 * sqrt(n) * F32 * sum_abs;
}

/* One query head of one row: its scores s and weights w over n keys, and their errors. */
typedef struct Row {
    int n, rows[1024];
    double s[1024], w[1024];
    double ds, dw; /* absolute error of the scores, relative error of the weights */
    double lse;
} Row;

static void row_scores(const Pack *p, Row *r, Segment seg, int i, int h) {
    AttnShape a = p->a;
    const double *q = p->q + ((size_t)(seg.row + i) * a.H + h) * a.E;
    double top = -INFINITY, sum = 0;
    r->n = visible(p, seg, i, r->rows), r->ds = 0;
    for (int j = 0; j < r->n; j++) {
        const double *k = p->k + ((size_t)r->rows[j] * a.K + h / (a.H / a.K)) * a.E;
        double s = 0, s_abs = 0;
        for (int e = 0; e < a.E; e++) s += q[e] * k[e], s_abs += fabs(q[e] * k[e]);
        s *= a.scale;
        double err = sum_error(a.E, s_abs) * fabs((double)a.scale) + 4 * F32 * fabs(s);
        if (a.cap > 0) s = a.cap * tanh(s / a.cap), err += 8 * F32 * fabs(s);
        r->s[j] = s;
        r->ds = fmax(r->ds, err);
        top = fmax(top, s);
    }
    for (int j = 0; j < r->n; j++) sum += exp(r->s[j] - top);
    r->lse = top + log(sum);
    for (int j = 0; j < r->n; j++) r->w[j] = exp(r->s[j] - r->lse);
    /* the score itself, the maximum or lse it is taken from, exp (4 ulp), the sum and a product */
    r->dw = 2 * r->ds + sum_error(r->n, 1) + 8 * F32 + 2 * F32 * fabs(r->lse);
}

static void ref_fwd(const Pack *p, Result *out) {
    AttnShape a = p->a;
    static Row r;
    for (int j = 0; j < p->nseg; j++)
        for (int i = 0; i < p->seg[j].len; i++)
            for (int h = 0; h < a.H; h++) {
                row_scores(p, &r, p->seg[j], i, h);
                size_t at = (size_t)(p->seg[j].row + i) * a.H + h;
                out->lse[at] = r.lse;
                out->lse_err[at] = r.ds + sum_error(r.n, 1) + 8 * F32 + 2 * F32 * fabs(r.lse);
                for (int e = 0; e < a.E; e++) {
                    double o = 0, o_abs = 0;
                    for (int t = 0; t < r.n; t++) {
                        double v = p->v[((size_t)r.rows[t] * a.K + h / (a.H / a.K)) * a.E + e];
                        o += r.w[t] * v, o_abs += r.w[t] * fabs(v);
                    }
                    out->o[at * a.E + e] = o;
                    out->o_err[at * a.E + e] = (r.dw + p->rounds) * o_abs + sum_error(r.n, o_abs);
                }
            }
}

/* The part of one query head of one row in dq, dk and dv. Roundoff is that of o, which the
 * backward reads as it was stored. */
static void row_bwd(const Pack *p, Result *out, Segment seg, int i, int h, double roundoff) {
    AttnShape a = p->a;
    static Row r;
    row_scores(p, &r, seg, i, h);
    size_t at = ((size_t)(seg.row + i) * a.H + h) * a.E;
    const double *d_o = p->d_o + at, *q = p->q + at;
    double delta = 0, delta_err = 0;
    for (int e = 0; e < a.E; e++) {
        delta += d_o[e] * out->o[at + e];
        delta_err += fabs(d_o[e]) * (out->o_err[at + e] + roundoff * fabs(out->o[at + e]));
        delta_err += sum_error(a.E, fabs(d_o[e] * out->o[at + e]));
    }
    for (int t = 0; t < r.n; t++) {
        size_t kat = ((size_t)r.rows[t] * a.K + h / (a.H / a.K)) * a.E;
        const double *k = p->k + kat, *v = p->v + kat;
        double dw = 0, dw_abs = 0, slope = 1, slope_err = 0, scale = fabs((double)a.scale);
        for (int e = 0; e < a.E; e++) dw += d_o[e] * v[e], dw_abs += fabs(d_o[e] * v[e]);
        if (a.cap > 0) {
            double c = r.s[t] / a.cap;
            slope = 1 - c * c, slope_err = 2 * r.ds / a.cap + 8 * F32;
        }
        double ds = r.w[t] * (dw - delta) * slope * a.scale;
        double err =
            r.dw * fabs(ds) + 8 * F32 * fabs(ds) +
            r.w[t] * scale *
                (slope * (delta_err + sum_error(a.E, dw_abs)) + slope_err * fabs(dw - delta));
        double terms = (double)p->N * (a.H / a.K), add = sum_error(terms, 1); /* at most so many */
        err += p->rounds * fabs(ds);
        for (int e = 0; e < a.E; e++) {
            out->dv[kat + e] += r.w[t] * d_o[e];
            out->dv_err[kat + e] += (r.dw + add + p->rounds) * r.w[t] * fabs(d_o[e]);
            out->dk[kat + e] += ds * q[e];
            out->dk_err[kat + e] += (err + add * fabs(ds)) * fabs(q[e]);
            out->dq[at + e] += ds * k[e];
            out->dq_err[at + e] += (err + add * fabs(ds)) * fabs(k[e]);
        }
    }
}

static void ref_bwd(const Pack *p, Result *out, double roundoff) {
    for (int j = 0; j < p->nseg; j++)
        for (int i = 0; i < p->seg[j].len; i++)
            for (int h = 0; h < p->a.H; h++) row_bwd(p, out, p->seg[j], i, h, roundoff);
}

/* Passes if |got - want| <= err + roundoff |want| everywhere. */
static int close_to(const char *what, const char *tensor, const double *got, const double *want,
                    const double *err, size_t n, double roundoff) {
    char name[192];
    snprintf(name, sizeof name, "%s %s", what, tensor);
    double *over = zeros(n), *zero = zeros(n);
    for (size_t i = 0; i < n; i++)
        over[i] = (got[i] - want[i]) / (err[i] + roundoff * fabs(want[i]) + 1e-30);
    int ok = test_close(name, over, zero, n, 1, 0);
    free(over), free(zero);
    return ok;
}

/* What an op left: host copies as doubles. */
typedef struct Got {
    double *o, *lse, *dq, *dk, *dv;
} Got;

static void got_free(Got *g) {
    free(g->o), free(g->lse), free(g->dq), free(g->dk), free(g->dv);
}

static int close_all(const char *what, Exec *ex, const Pack *p, const Got *g, const Result *r) {
    double u = test_roundoff(ex->dtype);
    size_t q = q_size(p), k = k_size(p), l = (size_t)p->N * p->a.H;
    int ok = close_to(what, "o", g->o, r->o, r->o_err, q, u);
    ok &= close_to(what, "lse", g->lse, r->lse, r->lse_err, l, F32);
    ok &= close_to(what, "dq", g->dq, r->dq, r->dq_err, q, u);
    ok &= close_to(what, "dk", g->dk, r->dk, r->dk_err, k, u);
    return ok & close_to(what, "dv", g->dv, r->dv, r->dv_err, k, u);
}

/* Rounds the values of the pack to storage, runs forward and backward with shape `a`. */
static Got run(Exec *ex, const Pack *p, AttnShape a) {
    size_t nq = q_size(p), nk = k_size(p), nl = (size_t)p->N * a.H, size = dtype_size(ex->dtype);
    store *q = test_store(ex, p->q, nq), *k = test_store(ex, p->k, nk);
    store *v = test_store(ex, p->v, nk), *d_o = test_store(ex, p->d_o, nq);
    store *o = test_alloc(ex, nq * size), *dq = test_alloc(ex, nq * size);
    store *dk = test_alloc(ex, nk * size), *dv = test_alloc(ex, nk * size);
    float *lse = test_alloc(ex, nl * sizeof *lse);
    Segment *seg = test_alloc(ex, (size_t)p->nseg * sizeof *seg);
    exec_copy_in(ex, seg, p->seg, (size_t)p->nseg * sizeof *seg);
    test_spoil_scratch(ex);
    ex->op->attn_fwd(ex, o, lse, q, k, v, seg, p->seg, p->nseg, p->N, a);
    test_spoil_scratch(ex);
    ex->op->attn_bwd(ex, dq, dk, dv, d_o, q, k, v, o, lse, seg, p->seg, p->nseg, p->N, a);
    Got g = {test_get_store(ex, o, nq), test_get_f32(ex, lse, nl), test_get_store(ex, dq, nq),
             test_get_store(ex, dk, nk), test_get_store(ex, dv, nk)};
    test_free(ex, q), test_free(ex, k), test_free(ex, v), test_free(ex, d_o), test_free(ex, o);
    test_free(ex, dq), test_free(ex, dk), test_free(ex, dv), test_free(ex, lse);
    test_free(ex, seg);
    return g;
}

static Pack pack_new(AttnShape a, const Segment *seg, int nseg, uint64_t seed) {
    Pack p = {.a = a, .seg = seg, .nseg = nseg};
    for (int j = 0; j < nseg; j++) p.N += seg[j].len;
    p.q = test_noise_array(seed, q_size(&p), 2.5);
    p.k = test_noise_array(seed + 1, k_size(&p), 2.5);
    p.v = test_noise_array(seed + 2, k_size(&p), 1);
    p.d_o = test_noise_array(seed + 3, q_size(&p), 1);
    return p;
}

static void pack_free(Pack *p) {
    free(p->q), free(p->k), free(p->v), free(p->d_o);
}

/* A fault that the comparison must see in every tensor, far from the first element. */
static void plant(const char *what, Exec *ex, const Pack *p, Got *g, const Result *r) {
    double *last[] = {g->o + q_size(p) - 1, g->lse + (size_t)p->N * p->a.H - 1,
                      g->dq + q_size(p) - 1, g->dk + k_size(p) - 1, g->dv + k_size(p) - 1};
    for (int i = 0; i < 5; i++) {
        double right = *last[i];
        *last[i] = NAN;
        TEST_DETECTS(close_all(what, ex, p, g, r));
        *last[i] = right;
    }
}

static void compare_pack(Exec *ex, const char *name, Pack *p) {
    char what[160];
    AttnShape a = p->a;
    p->rounds = test_product_roundoff(ex);
    snprintf(what, sizeof what, "%s attn %s H=%d K=%d E=%d window %d cap %g", ex->op->name, name,
             a.H, a.K, a.E, a.window, (double)a.cap);
    Got g = run(ex, p, a);
    Result r = result_new(p);
    ref_fwd(p, &r);
    ref_bwd(p, &r, test_roundoff(ex->dtype));
    if (close_all(what, ex, p, &g, &r) && p->N > 0) plant(what, ex, p, &g, &r);
    got_free(&g), result_free(&r);
}

static void compare(Exec *ex, const char *name, AttnShape a, const Segment *seg, int nseg) {
    Pack p = pack_new(a, seg, nseg, (uint64_t)a.E + 31u * (uint64_t)a.window);
    compare_pack(ex, name, &p);
    pack_free(&p);
}

/* d(sum d_o . o) by central differences of the reference forward: error h^2 f''' / 6 + roundoff. */
static void reference_gradient(void) {
    static const Segment seg[] = {{0, 3, 0, 0}, {3, 2, 0, 3}, {5, 1, 1, 2}, {6, 4, 0, 0}};
    AttnShape a = {.H = 2, .K = 1, .E = 8, .window = 3, .scale = 0.3f, .cap = 2};
    Pack p = pack_new(a, seg, 4, 5);
    Result r = result_new(&p), moved = result_new(&p);
    ref_fwd(&p, &r);
    ref_bwd(&p, &r, 0);
    double *inputs[] = {p.q, p.k, p.v}, *grads[] = {r.dq, r.dk, r.dv}, h = 1e-4;
    size_t sizes[] = {q_size(&p), k_size(&p), k_size(&p)};
    for (int t = 0; t < 3; t++) {
        double *slope = zeros(sizes[t]);
        for (size_t i = 0; i < sizes[t]; i++) {
            double keep = inputs[t][i];
            for (int side = 1; side >= -1; side -= 2) {
                inputs[t][i] = keep + side * h;
                ref_fwd(&p, &moved);
                for (size_t n = 0; n < q_size(&p); n++)
                    slope[i] += side * p.d_o[n] * moved.o[n] / (2 * h);
            }
            inputs[t][i] = keep;
        }
        test_close("reference gradient", slope, grads[t], sizes[t], 20 * h * h, 0);
        slope[sizes[t] - 1] += 1e-5;
        TEST_DETECTS(test_close("reference gradient", slope, grads[t], sizes[t], 20 * h * h, 0));
        free(slope);
    }
    result_free(&r), result_free(&moved), pack_free(&p);
}

static const Segment one_row[] = {{0, 1, 0, 0}};
static const Segment edges[] = {
    {0, 1, 0, 0}, {1, 31, 0, 0}, {32, 32, 0, 0}, {64, 33, 0, 0}, {97, 2, 0, 0}};
static const Segment tiles[] = {{0, 63, 0, 0}, {63, 64, 0, 0}, {127, 65, 0, 0}, {192, 129, 0, 0}};
static const Segment empties[] = {
    {0, 0, 0, 0}, {0, 5, 0, 0}, {5, 0, 0, 5}, {5, 3, 0, 5}, {8, 0, 0, 0}};
static const Segment long_one[] = {{0, 400, 0, 0}};
/* Two trees, interleaved; prefixes whole and partial, shorter and longer than a tile. */
static const Segment trees[] = {{0, 37, 0, 0},    {37, 5, 0, 37},    {42, 130, 0, 0},
                                {172, 70, 0, 37}, {242, 1, 42, 130}, {243, 66, 42, 128},
                                {309, 9, 50, 64}, {318, 20, 0, 0},   {338, 3, 36, 1}};

typedef struct Layout {
    const char *name;
    const Segment *seg;
    int nseg;
} Layout;
#define LAYOUT(s) \
    { #s, s, sizeof s / sizeof *s }
static const Layout layouts[] = {LAYOUT(one_row), LAYOUT(edges),    LAYOUT(tiles),
                                 LAYOUT(empties), LAYOUT(long_one), LAYOUT(trees)};

static void shapes(Exec *ex) {
    static const AttnShape a[] = {
        {4, 2, 8, 0, 0.35f, 0},    {3, 3, 32, 0, 0.17f, 5},   {4, 1, 64, 5, 0.125f, 50},
        {8, 2, 24, 64, 0.2f, 3},   {2, 1, 256, 0, 0.06f, 50}, {1, 1, 40, 1, 0.15f, 2},
        {2, 2, 256, 66, 0.06f, 0}, {6, 1, 16, 100, 0.2f, 4},
    };
    enum { LAYOUTS = sizeof layouts / sizeof *layouts };
    for (size_t i = 0; i < LAYOUTS; i++)
        for (size_t s = 0; s < sizeof a / sizeof *a; s++)
            if (!test_brief() || s % LAYOUTS == i)
                compare(ex, layouts[i].name, a[s], layouts[i].seg, layouts[i].nseg);
    /* More query heads to a kv head than a tile may have columns. */
    compare(ex, "many heads", (AttnShape){280, 2, 8, 20, 0.35f, 3}, edges, 5);
}

/* Scores all near -500, then all near 500: exp of either is out of range, of differences not. */
static void far_scores(Exec *ex) {
    AttnShape a = {.H = 4, .K = 2, .E = 32, .window = 40, .scale = 1};
    for (int sign = -1; sign <= 1; sign += 2) {
        Pack p = pack_new(a, tiles, 4, 83);
        for (size_t i = 0; i < q_size(&p); i++) p.q[i] = 4 + 0.05 * p.q[i];
        for (size_t i = 0; i < k_size(&p); i++) p.k[i] = sign * (4 + 0.05 * p.k[i]);
        compare_pack(ex, "far scores", &p);
        pack_free(&p);
    }
}

/* More segments than a warp has lanes, some of them empty; the last replies to the first. */
static void many_segments(Exec *ex) {
    Segment seg[70] = {{0, 7, 0, 0}};
    for (int j = 1; j < 70; j++) {
        int row = seg[j - 1].row + seg[j - 1].len, prefix = j % 10 == 9 ? 5 : 0;
        seg[j] = (Segment){row, j % 4, 1, prefix};
    }
    compare(ex, "many", (AttnShape){4, 2, 16, 3, 0.3f, 4}, seg, 70);
}

/* The comparison tells every part of the rule from its neighbour. */
static void rules(Exec *ex) {
    AttnShape a = {.H = 4, .K = 2, .E = 32, .window = 20, .scale = 0.2f, .cap = 4};
    Pack p = pack_new(a, trees, 9, 77);
    p.rounds = test_product_roundoff(ex);
    Got right = run(ex, &p, a);
    Result r = result_new(&p);
    ref_fwd(&p, &r);
    ref_bwd(&p, &r, test_roundoff(ex->dtype));
    close_all("rules", ex, &p, &right, &r);
    AttnShape wrong[] = {a, a, a, a, a};
    wrong[0].window = 21, wrong[1].window = 19, wrong[2].cap = 0, wrong[3].scale *= 1.01f;
    wrong[4].window = 0;
    for (int i = 0; i < 5; i++) {
        Got g = run(ex, &p, wrong[i]);
        TEST_DETECTS(close_all("rules", ex, &p, &g, &r));
        got_free(&g);
    }
    Segment bent[9];
    memcpy(bent, trees, sizeof bent);
    bent[4].prefix_len--, p.seg = bent;
    Got g = run(ex, &p, a);
    TEST_DETECTS(close_all("rules", ex, &p, &g, &r));
    got_free(&g), got_free(&right), result_free(&r), pack_free(&p);
}

static bool same_rows(const double *x, const double *y, int row, int rows, int width) {
    return memcmp(x + (size_t)row * width, y + (size_t)row * width, (size_t)rows * width * 8) == 0;
}

/* Other documents change by exactly nothing, even when one turns to NaN. */
static void contamination(Exec *ex) {
    AttnShape a = {.H = 4, .K = 2, .E = 32, .window = 0, .scale = 0.2f, .cap = 4};
    Pack p = pack_new(a, trees, 9, 78);
    int wq = a.H * a.E, wk = a.K * a.E;
    Got before = run(ex, &p, a);
    for (int j = 0; j < 2; j++) { /* the second tree: rows 42..171, 242..317 */
        for (int n = 42; n < 318; n++) {
            if (n >= 172 && n < 242) continue;
            for (int i = 0; i < wq; i++) p.q[n * wq + i] = p.d_o[n * wq + i] = j ? NAN : 1.5;
            for (int i = 0; i < wk; i++) p.k[n * wk + i] = p.v[n * wk + i] = j ? NAN : -1;
        }
        Got after = run(ex, &p, a);
        static const int kept[][2] = {{0, 42}, {172, 70}, {318, 23}};
        for (int i = 0; i < 3; i++) {
            int row = kept[i][0], rows = kept[i][1];
            EXPECT(same_rows(before.o, after.o, row, rows, wq), "o of rows %d..", row);
            EXPECT(same_rows(before.lse, after.lse, row, rows, a.H), "lse of rows %d..", row);
            EXPECT(same_rows(before.dq, after.dq, row, rows, wq), "dq of rows %d..", row);
            EXPECT(same_rows(before.dk, after.dk, row, rows, wk), "dk of rows %d..", row);
            EXPECT(same_rows(before.dv, after.dv, row, rows, wk), "dv of rows %d..", row);
        }
        EXPECT(!same_rows(before.o, after.o, 42, 1, wq), "the change was not seen at all");
        got_free(&after);
    }
    got_free(&before), pack_free(&p);
}

/* The reach of the window is exact: distance window - 1 is seen, distance window is not. */
static void window_reach(Exec *ex) {
    static const Segment seg[] = {{0, 90, 0, 0}, {90, 60, 0, 90}};
    AttnShape a = {.H = 2, .K = 1, .E = 16, .window = 70, .scale = 0.2f, .cap = 0};
    Pack p = pack_new(a, seg, 2, 79);
    Got before = run(ex, &p, a);
    int key = 25;
    for (int i = 0; i < a.E; i++) p.v[key * a.E + i] += 1;
    Got after = run(ex, &p, a);
    for (int n = 0; n < 150; n++) {
        bool sees = n >= key && n < key + a.window;
        EXPECT(same_rows(before.o, after.o, n, 1, a.H * a.E) == !sees, "row %d, key %d", n, key);
        EXPECT(same_rows(before.lse, after.lse, n, 1, a.H), "lse of row %d", n);
    }
    got_free(&before), got_free(&after), pack_free(&p);
}

static void thread_bits(Exec *ex, const Segment *seg, int nseg, AttnShape a) {
    int threads = omp_get_max_threads();
    Pack p = pack_new(a, seg, nseg, 80);
    omp_set_num_threads(1);
    Got one = run(ex, &p, a);
    int most = test_on_cpu(ex) ? 8 : 2; /* elsewhere it is a repetition */
    for (int t = 2; t <= most; t = t == 4 ? 7 : t * 2) {
        omp_set_num_threads(t);
        Got g = run(ex, &p, a);
        EXPECT(same_rows(one.o, g.o, 0, p.N, a.H * a.E), "o with %d threads", t);
        EXPECT(same_rows(one.lse, g.lse, 0, p.N, a.H), "lse with %d threads", t);
        EXPECT(same_rows(one.dq, g.dq, 0, p.N, a.H * a.E), "dq with %d threads", t);
        EXPECT(same_rows(one.dk, g.dk, 0, p.N, a.K * a.E), "dk with %d threads", t);
        EXPECT(same_rows(one.dv, g.dv, 0, p.N, a.K * a.E), "dv with %d threads", t);
        got_free(&g);
    }
    omp_set_num_threads(threads);
    got_free(&one), pack_free(&p);
}

/* A document's bits are its own: elsewhere in another pack they are the same. Those of its rows do
 * not even depend on whether a prefix is its own rows or another segment's. */
static void place_bits(Exec *ex, int window) {
    enum { PROMPT = 83, REPLY = 70, AT = 30 };
    static const Segment alone[] = {{0, PROMPT + REPLY, 0, 0}};
    static const Segment moved[] = {{0, AT, 0, 0}, {AT, PROMPT + REPLY, 0, 0}};
    static const Segment shared[] = {
        {0, AT, 0, 0}, {AT, PROMPT, 0, 0}, {AT + PROMPT, REPLY, AT, PROMPT}};
    AttnShape a = {.H = 4, .K = 2, .E = 40, .window = window, .scale = 0.2f, .cap = 4};
    int wq = a.H * a.E, wk = a.K * a.E, rows = PROMPT + REPLY;
    Pack p = pack_new(a, alone, 1, 81), other = pack_new(a, moved, 2, 82);
    memcpy(other.q + AT * wq, p.q, (size_t)rows * wq * sizeof *p.q);
    memcpy(other.d_o + AT * wq, p.d_o, (size_t)rows * wq * sizeof *p.q);
    memcpy(other.k + AT * wk, p.k, (size_t)rows * wk * sizeof *p.q);
    memcpy(other.v + AT * wk, p.v, (size_t)rows * wk * sizeof *p.q);
    Got one = run(ex, &p, a);
    for (int tree = 0; tree < 2; tree++) {
        other.seg = tree ? shared : moved, other.nseg = tree ? 3 : 2;
        Got g = run(ex, &other, a);
        EXPECT(same_rows(one.o, g.o + AT * wq, 0, rows, wq), "o, window %d", window);
        EXPECT(same_rows(one.lse, g.lse + AT * a.H, 0, rows, a.H), "lse, window %d", window);
        EXPECT(same_rows(one.dq, g.dq + AT * wq, 0, rows, wq), "dq, window %d", window);
        EXPECT(tree || same_rows(one.dk, g.dk + AT * wk, 0, rows, wk), "dk, window %d", window);
        EXPECT(tree || same_rows(one.dv, g.dv + AT * wk, 0, rows, wk), "dv, window %d", window);
        got_free(&g);
    }
    got_free(&one), pack_free(&p), pack_free(&other);
}

static void all_attention(Exec *ex) {
    shapes(ex);
    many_segments(ex);
    if (test_brief()) return; /* the rest is about values, at shapes like these */
    far_scores(ex);
    rules(ex);
    contamination(ex);
    window_reach(ex);
    place_bits(ex, 0);
    place_bits(ex, 45);
    thread_bits(ex, trees, 9, (AttnShape){4, 2, 32, 0, 0.2f, 4});
    thread_bits(ex, long_one, 1, (AttnShape){1, 1, 64, 150, 0.1f, 50});
    thread_bits(ex, edges, 5, (AttnShape){2, 1, 8, 0, 0.3f, 0});
}

int main(void) {
    reference_gradient();
    test_each_exec(all_attention);
    return test_done("attention");
}
