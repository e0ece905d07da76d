/* redundancy.c - products of a factor's vectors, their cosines, and the gradient of these.
 *
 * With K = X X^T of the vectors x_i of a factor, cos_ij = K_ij / (|x_i| |x_j|). The sum over i != j
 * of cos_ij^2 has each pair twice, so that its gradient is
 *
 *   dx_i = 4 / |x_i| sum over j != i of (cos_ij x_j / |x_j| - cos_ij^2 x_i / |x_i|)
 *
 * which is a product again, dX = M X, with an R x R matrix that the host makes. */
#include "model/redundancy.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "data/base/mem.h"

static int largest_rank(const Lora *l) {
    int most = 0;
    for (int i = 0; i < l->c->L * PROJ_COUNT; i++)
        if (l->adapter[i].R > most) most = l->adapter[i].R;
    return most;
}

size_t redundancy_bytes(const Lora *l, enum Dtype dtype) {
    size_t most = (size_t)largest_rank(l);
    return most * most * (sizeof(float) + dtype_size(dtype));
}

size_t redundancy_scratch(Exec *ex, const Lora *l) {
    size_t most = 0;
    for (int i = 0; i < l->c->L * PROJ_COUNT; i++) {
        const Adapter *a = &l->adapter[i];
        if (a->R < 2) continue;
        const size_t need[] = {ex->op->gemm_scratch(ex, a->R, a->in, GEMM_NT),
                               ex->op->gemm_scratch(ex, a->R, a->R, GEMM_NN),
                               ex->op->gemm_scratch(ex, a->out, a->R, GEMM_NT),
                               ex->op->gemm_grad_scratch(ex, a->out, a->R, a->R)};
        for (size_t k = 0; k < sizeof need / sizeof *need; k++)
            if (need[k] > most) most = need[k];
    }
    return most;
}

void redundancy_init(Redundancy *r, const Lora *l) {
    size_t most = (size_t)largest_rank(l), n = most * most;
    *r = (Redundancy){.lora = l};
    for (int i = 0; i < l->c->L * PROJ_COUNT; i++) r->adapters += l->adapter[i].R >= 2;
    r->square = exec_alloc(l->ex, n * sizeof *r->square, "redundancy of adapters");
    r->mix = exec_alloc(l->ex, n * dtype_size(l->ex->dtype), "redundancy of adapters");
    r->host = mem_array(n, sizeof *r->host);
    r->inverse = mem_array(most, sizeof *r->inverse);
}

void redundancy_free(Redundancy *r) {
    if (r->lora) exec_free(r->lora->ex, r->mix), exec_free(r->lora->ex, r->square);
    free(r->host), free(r->inverse);
    memset(r, 0, sizeof *r);
}

/* Its vectors are the rows of A, or the columns of B. */
enum Factor { FACTOR_A, FACTOR_B };

/* Of the factor's vectors: r->host (R,R) their products; r->inverse (R) of their lengths, 0 where a
 * length's square is no f32 of full precision. */
static void multiply(Redundancy *r, const Adapter *a, enum Factor f) {
    Exec *ex = r->lora->ex;
    int R = a->R;
    size_t bytes = (size_t)R * (size_t)R * sizeof *r->square;
    if (f == FACTOR_A) {
        ex->op->gemm_f32(ex, r->square, R, a->A->copy, a->in, a->A->copy, a->in, R, R, a->in,
                         GEMM_NT, 1, 0);
    } else {
        exec_zero(ex, r->square, bytes);
        ex->op->gemm_grad(ex, r->square, a->B->copy, R, a->B->copy, R, a->out, R, R, 1);
    }
    exec_copy_out(ex, r->host, r->square, bytes);
    for (int i = 0; i < R; i++) {
        double square = r->host[(size_t)i * (size_t)R + (size_t)i];
        r->inverse[i] = square >= FLT_MIN && square <= FLT_MAX ? 1 / sqrt(square) : 0;
    }
}

static double cosine(const Redundancy *r, int R, int i, int j) {
    double product = r->host[(size_t)i * (size_t)R + (size_t)j];
    bool both = r->inverse[i] > 0 && r->inverse[j] > 0;
    return both ? product * r->inverse[i] * r->inverse[j] : 0;
}

/* The sum over i != j of cos_ij^2. */
static double sum_of(const Redundancy *r, int R) {
    double sum = 0;
    for (int i = 0; i < R; i++)
        for (int j = 0; j < R; j++)
            if (i != j) sum += cosine(r, R, i, j) * cosine(r, R, i, j);
    return sum;
}

/* Turns the products in r->host into scale times M of the head comment. */
static void mix_of(Redundancy *r, int R, double scale) {
    for (int i = 0; i < R; i++) {
        float *row = r->host + (size_t)i * (size_t)R;
        double own = 0;
        for (int j = 0; j < R; j++) {
            double c = i == j ? 0 : cosine(r, R, i, j);
            own += c * c;
            row[j] = (float)(4 * scale * c * r->inverse[i] * r->inverse[j]);
        }
        row[i] = (float)(-4 * scale * own * r->inverse[i] * r->inverse[i]);
    }
}

/* Adds scale times M X to the factor's gradient; uses up the products in r->host. */
static void add_gradient(Redundancy *r, const Adapter *a, enum Factor f, double scale) {
    Exec *ex = r->lora->ex;
    int R = a->R;
    size_t n = (size_t)R * (size_t)R;
    mix_of(r, R, scale);
    exec_copy_in(ex, r->square, r->host, n * sizeof *r->host);
    ex->op->cast(ex, r->mix, r->square, n);
    if (f == FACTOR_A)
        ex->op->gemm_f32(ex, a->A->grad, a->in, r->mix, R, a->A->copy, a->in, R, a->in, R, GEMM_NN,
                         1, 1);
    else
        ex->op->gemm_f32(ex, a->B->grad, R, a->B->copy, R, r->mix, R, a->out, R, R, GEMM_NT, 1, 1);
}

/* weight 0: no gradient. */
static double walk(Redundancy *r, double weight) {
    double all = 0;
    for (int i = 0; i < r->lora->c->L * PROJ_COUNT; i++) {
        const Adapter *a = &r->lora->adapter[i];
        if (a->R < 2) continue;
        double share = 1 / ((double)r->adapters * a->R * (a->R - 1));
        for (int f = FACTOR_A; f <= FACTOR_B; f++) {
            const Param *t = f == FACTOR_A ? a->A : a->B;
            multiply(r, a, (enum Factor)f);
            all += share * sum_of(r, a->R);
            if (weight > 0 && t->trained) add_gradient(r, a, (enum Factor)f, weight * share);
        }
    }
    return all;
}

double redundancy_measure(Redundancy *r) {
    return walk(r, 0);
}

double redundancy_penalise(Redundancy *r, double weight) {
    CHECK(weight > 0 && r->lora->params.grad, "weight %g of adapters that are not trained", weight);
    return walk(r, weight);
}
