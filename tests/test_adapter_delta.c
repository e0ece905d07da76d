/* What of an adapter lies in a basis, against the dense product: on either side of a projection,
 * with a start that is taken off, of ranks above a weight's own width; what random bases hold on
 * average; and the two parts that an adapter falls into. */
#include "model/adapter_delta.h"

#include <math.h>

#include "tests/golden.h"

enum { R = 3, M = 5 };

static const enum Proj sides[] = {PROJ_Q, PROJ_O};

/* Adapters of rank R on q and o of every layer, of noise. */
static void make(Lora *l, Exec *ex, const Config *c, int rank, bool start) {
    LoraShape shape;
    lora_shape_init(&shape, c);
    for (int i = 0; i < c->L; i++)
        for (int s = 0; s < 2; s++) {
            shape.rank[i * PROJ_COUNT + (int)sides[s]] = rank;
            shape.alpha[i * PROJ_COUNT + (int)sides[s]] = 2 * (float)rank;
        }
    shape.start = start;
    lora_alloc(l, ex, c, &shape, false);
    lora_shape_free(&shape);
    for (int i = 0; i < l->params.n; i++) {
        const Param *p = &l->params.param[i];
        float *x = mem_array(p->n, sizeof *x);
        for (size_t k = 0; k < p->n; k++) x[k] = (float)test_noise((uint64_t)i + 7, k);
        params_set(&l->params, PARAM_MASTER, p->at, p->n, x);
        free(x);
    }
    params_sync(&l->params);
}

static void add_product(double *W, const Lora *l, const Param *B, const Param *A, double f) {
    float *b = mem_array(B->n, sizeof *b), *a = mem_array(A->n, sizeof *a);
    params_get(&l->params, PARAM_MASTER, B->at, B->n, b);
    params_get(&l->params, PARAM_MASTER, A->at, A->n, a);
    for (size_t o = 0; o < B->rows; o++)
        for (size_t i = 0; i < A->cols; i++)
            for (size_t r = 0; r < A->rows; r++)
                W[o * A->cols + i] += f * b[o * B->cols + r] * a[r * A->cols + i];
    free(b), free(a);
}

/* dW (out,in). */
static double *dense(const Lora *l, int layer, enum Proj p) {
    const Adapter *a = lora_at(l, layer, p);
    double *W = mem_array((size_t)a->out * (size_t)a->in, sizeof *W);
    add_product(W, l, a->B, a->A, a->scale);
    if (a->A0) add_product(W, l, a->B0, a->A0, -a->scale);
    return W;
}

static double squares(const double *W, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += W[i] * W[i];
    return sum;
}

/* ||dW U||^2, or ||U^T dW||^2. */
static double inside(const double *W, int out, int in, bool writes, const Basis *b) {
    double sum = 0;
    for (int j = 0; j < b->R; j++)
        for (int k = 0; k < (writes ? in : out); k++) {
            double dot = 0;
            for (int d = 0; d < b->D; d++)
                dot += b->U[d * b->R + j] * (writes ? W[d * in + k] : W[k * in + d]);
            sum += dot * dot;
        }
    return sum;
}

/* In double from factors of f32, through three factorisations: 1e-12. */
static void check_energy(Exec *ex, const Lora *l, const Config *c, enum Proj p, int rank) {
    Basis b = {0};
    AdapterDelta d;
    basis_random(&b, ex, 0, c->D, M, 5);
    adapter_delta(&d, l, 1, p, &b);
    const Adapter *a = lora_at(l, 1, p);
    double *W = dense(l, 1, p), all = squares(W, (size_t)a->out * (size_t)a->in);
    double ref = inside(W, a->out, a->in, p == PROJ_O, &b) / all;
    EXPECT(fabs(d.norm - sqrt(all)) <= 1e-12 * sqrt(all), "%s: norm %.17g, not %.17g", proj_name[p],
           d.norm, sqrt(all));
    EXPECT(fabs(d.energy - ref) <= 1e-12, "%s: energy %.17g, not %.17g", proj_name[p], d.energy,
           ref);
    EXPECT(d.rank == rank && d.M == M && d.d == c->D && d.writes == (p == PROJ_O),
           "%s: rank %d, %d of %d", proj_name[p], d.rank, d.M, d.d);
    EXPECT(d.expected == (double)M / c->D, "expected %g", d.expected);
    for (int i = 1; i < adapter_delta_angles(&d); i++)
        EXPECT(d.angle[i] >= d.angle[i - 1] && d.angle[i] <= 1.5707963267948968, "angle %d is %g",
               i, d.angle[i]);
    adapter_delta_free(&d);
    basis_free(&b);
    free(W);
}

/* Of rank 1 the energy is the angle's squared cosine. */
static void check_angle(Exec *ex, const Config *c) {
    Lora l;
    Basis b = {0};
    AdapterDelta d;
    make(&l, ex, c, 1, false);
    basis_random(&b, ex, 0, c->D, M, 6);
    adapter_delta(&d, &l, 0, PROJ_Q, &b);
    EXPECT(adapter_delta_angles(&d) == 1 && fabs(pow(cos(d.angle[0]), 2) - d.energy) <= 1e-12,
           "angle %g, energy %g", d.angle[0], d.energy);
    adapter_delta_free(&d), basis_free(&b), lora_free(&l);
}

/* Mean and spread over random bases: five standard errors of 200 draws, of the spread some
 * 1 / sqrt(2 n) of itself. */
static void check_expected(Exec *ex, const Lora *l, const Config *c) {
    enum { DRAWS = 200 };
    double sum = 0, square = 0, expected = 0, sd = 0;
    for (int i = 0; i < DRAWS; i++) {
        Basis b = {0};
        AdapterDelta d;
        basis_random(&b, ex, 0, c->D, M, 100 + (uint64_t)i);
        adapter_delta(&d, l, 0, PROJ_Q, &b);
        sum += d.energy, square += d.energy * d.energy, expected = d.expected, sd = d.sd;
        adapter_delta_free(&d), basis_free(&b);
    }
    double mean = sum / DRAWS, spread = sqrt((square - sum * mean) / (DRAWS - 1));
    EXPECT(fabs(mean - expected) <= 5 * sd / sqrt(DRAWS), "mean %g, expected %g +- %g", mean,
           expected, sd / sqrt(DRAWS));
    EXPECT(fabs(spread / sd - 1) <= 5 / sqrt(2 * DRAWS), "spread %g, expected %g", spread, sd);
}

static void put_identity(Lora *l, const Param *p) {
    float *x = mem_array(p->n, sizeof *x);
    for (size_t i = 0; i < p->rows && i < p->cols; i++) x[i * p->cols + i] = 1;
    params_set(&l->params, PARAM_MASTER, p->at, p->n, x);
    free(x);
}

/* Of n equal singular values the spread has a closed form; of all there are, every subspace holds
 * the same. */
static void check_equal(Exec *ex, Lora *wide, const Config *c) {
    const Adapter *a = lora_at(wide, 0, PROJ_Q);
    int out = proj_out(c, PROJ_Q), n = out < c->D ? out : c->D, d = c->D;
    Basis b = {0};
    AdapterDelta e;
    put_identity(wide, a->A), put_identity(wide, a->B);
    basis_random(&b, ex, 0, d, M, 5);
    adapter_delta(&e, wide, 0, PROJ_Q, &b);
    double one = 2.0 * M * (d - M) / ((double)d * d * (d + 2)), w = 1.0 / n;
    double sd = sqrt(one * fmax(w - (1 - w) / (d - 1), 0));
    EXPECT(fabs(e.sd - sd) <= 1e-7 * sqrt(one) && e.rank == n, "spread %g, not %g; rank %d", e.sd,
           sd, e.rank);
    adapter_delta_free(&e), basis_free(&b);
}

/* Inside all energy is in the basis, outside none is, and both together are the whole. Factors are
 * rounded to f32 again: 2^-24 of each, and a sum of R products. */
static void check_parts(Exec *ex, const Config *c) {
    Lora whole, part[2];
    Basis b = {0};
    const Subspace s = {.basis = &b, .n = 1};
    basis_random(&b, ex, 0, c->D, M, 8);
    make(&whole, ex, c, R, false);
    for (int k = 0; k < 2; k++) {
        make(&part[k], ex, c, R, false);
        adapter_delta_keep(&part[k], &s, k ? DELTA_OUTSIDE : DELTA_INSIDE);
    }
    for (int i = 0; i < 2; i++) {
        AdapterDelta d[2];
        const Adapter *a = lora_at(&whole, 1, sides[i]);
        size_t n = (size_t)a->out * (size_t)a->in;
        double *W = dense(&whole, 1, sides[i]), *sum = mem_array(n, sizeof *sum);
        for (int k = 0; k < 2; k++) {
            double *P = dense(&part[k], 1, sides[i]);
            for (size_t j = 0; j < n; j++) sum[j] += P[j];
            adapter_delta(&d[k], &part[k], 1, sides[i], &b);
            free(P);
        }
        double size = 0;
        for (size_t j = 0; j < n; j++) size = fmax(size, fabs(W[j]));
        EXPECT(test_close("inside and outside", sum, W, n, R * 0x1p-22 * size, 0), "%s",
               proj_name[sides[i]]);
        EXPECT(fabs(d[0].energy - 1) <= 1e-12 + 0x1p-40 && d[1].energy <= 0x1p-40,
               "%s: energy %g inside, %g outside", proj_name[sides[i]], d[0].energy, d[1].energy);
        adapter_delta_free(&d[0]), adapter_delta_free(&d[1]);
        free(W), free(sum);
    }
    lora_free(&whole), lora_free(&part[0]), lora_free(&part[1]);
    basis_free(&b);
}

static void check_nothing(Exec *ex, const Config *c) {
    Lora l;
    Basis b = {0};
    AdapterDelta d;
    make(&l, ex, c, R, false);
    const Param *B = lora_at(&l, 0, PROJ_Q)->B;
    float *zero = mem_array(B->n, sizeof *zero);
    params_set(&l.params, PARAM_MASTER, B->at, B->n, zero);
    basis_random(&b, ex, 0, c->D, M, 9);
    adapter_delta(&d, &l, 0, PROJ_Q, &b);
    EXPECT(d.norm == 0 && isnan(d.energy) && isnan(d.sd) && adapter_delta_angles(&d) == 0,
           "no delta: norm %g, energy %g, %d angles", d.norm, d.energy, adapter_delta_angles(&d));
    adapter_delta_free(&d), basis_free(&b), lora_free(&l);
    free(zero);
}

static void test_all(Exec *ex) {
    Golden g;
    golden_open(&g, ex, "model_a");
    const Config *c = &g.m.c;
    Lora l, twice, wide;
    make(&l, ex, c, R, false);
    make(&twice, ex, c, R, true);
    make(&wide, ex, c, c->D + 3, false);
    int q = proj_out(c, PROJ_Q) < c->D ? proj_out(c, PROJ_Q) : c->D;
    for (int i = 0; i < 2; i++) {
        check_energy(ex, &l, c, sides[i], R);
        check_energy(ex, &twice, c, sides[i], 2 * R);
        check_energy(ex, &wide, c, sides[i], q);
    }
    check_angle(ex, c);
    if (test_on_cpu(ex)) check_expected(ex, &l, c);
    check_parts(ex, c);
    check_nothing(ex, c);
    check_equal(ex, &wide, c);
    lora_free(&l), lora_free(&twice), lora_free(&wide);
    golden_close(&g);
}

int main(void) {
    test_each_exec(test_all);
    return test_done("adapter delta");
}
