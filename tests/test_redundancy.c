/* What adapters repeat, against its formula in double; the penalty's gradient against central
 * differences of that formula. */
#include "model/redundancy.h"

#include <math.h>
#include <string.h>

#include "data/base/mem.h"
#include "tests/test.h"

/* Other widths for each projection, none a multiple of what devices like. */
static const Config config = {.L = 2, .D = 23, .F = 41, .V = 8, .H = 3, .K = 1, .E = 9};
enum { WIDEST = 41, MOST = 5 };

/* An adapter's factor as its vectors: x (R,n), row after row. */
typedef struct Vectors {
    double *x;
    int R, n;
} Vectors;

static Vectors vectors_of(const Lora *l, int adapter, bool of_B) {
    const Adapter *a = &l->adapter[adapter];
    Vectors v = {.R = a->R, .n = of_B ? a->out : a->in};
    v.x = test_get_store(l->ex, (of_B ? a->B : a->A)->copy, (size_t)v.R * (size_t)v.n);
    if (!of_B) return v;
    double *rows = mem_array((size_t)v.R * (size_t)v.n, sizeof *rows);
    for (int i = 0; i < v.R; i++)
        for (int k = 0; k < v.n; k++) rows[i * v.n + k] = v.x[k * v.R + i];
    free(v.x);
    v.x = rows;
    return v;
}

static double length(const Vectors *v, int i) {
    double sum = 0;
    for (int k = 0; k < v->n; k++) sum += v->x[i * v->n + k] * v->x[i * v->n + k];
    return sqrt(sum);
}

/* The sum over i != j of the squared products of unit vectors. */
static double repeated(const Vectors *v) {
    double sum = 0;
    for (int i = 0; i < v->R; i++)
        for (int j = 0; j < v->R; j++) {
            double dot = 0, li = length(v, i), lj = length(v, j);
            if (i == j || li == 0 || lj == 0) continue;
            for (int k = 0; k < v->n; k++)
                dot += v->x[i * v->n + k] / li * (v->x[j * v->n + k] / lj);
            sum += dot * dot;
        }
    return sum;
}

static int counted(const Lora *l) {
    int n = 0;
    for (int i = 0; i < config.L * PROJ_COUNT; i++) n += l->adapter[i].R > 1;
    return n;
}

static double formula(const Lora *l) {
    double sum = 0;
    for (int i = 0; i < config.L * PROJ_COUNT; i++)
        for (int f = 0; f < 2 && l->adapter[i].R > 1; f++) {
            Vectors v = vectors_of(l, i, f == 1);
            sum += repeated(&v) / (v.R * (v.R - 1)) / counted(l);
            free(v.x);
        }
    return sum;
}

/* A cosine: n terms of a product, and of two squares, in f32; each sum off by n 2^-24 of the
 * product of the lengths at most. */
static const double COSINE = (2 * WIDEST + 4) * 0x1p-24;

static int is_measured(Redundancy *r, double want) {
    double got = redundancy_measure(r);
    int ok = fabs(got - want) <= 2 * (2 * COSINE + COSINE * COSINE);
    EXPECT(test_quiet || ok, "redundancy %.9g, expected %.9g", got, want);
    return ok;
}

/* Ranks of 0 and 1 among others; without `mixed` an adapter of rank 3 alone. */
static Lora adapters(Exec *ex, bool mixed) {
    static const int rank[] = {4, 2, 1, MOST, 0, 3, 2};
    Lora l;
    LoraShape shape;
    lora_shape_init(&shape, &config);
    for (int i = 0; i < config.L * PROJ_COUNT; i++) {
        shape.rank[i] = mixed ? rank[i % PROJ_COUNT] : i == PROJ_O ? 3 : 0;
        shape.alpha[i] = 1;
    }
    lora_alloc(&l, ex, &config, &shape, true);
    lora_shape_free(&shape);
    return l;
}

static void put(const Lora *l, float *to, const double *x, size_t n) {
    float *f = mem_array(n, sizeof *f);
    for (size_t i = 0; i < n; i++) f[i] = (float)x[i];
    exec_copy_in(l->ex, to, f, n * sizeof *f);
    free(f);
}

/* Vectors of lengths from 0.3 to 100 that lean towards each other, B of the third adapter that
 * counts zero, and a row of the first A. */
static void fill(Lora *l) {
    for (int i = 0; i < config.L * PROJ_COUNT; i++)
        for (int f = 0; f < 2 && l->adapter[i].R; f++) {
            const Adapter *a = &l->adapter[i];
            const Param *t = f ? a->B : a->A;
            uint64_t seed = (uint64_t)(2 * i + f);
            double *x = mem_array(t->n, sizeof *x);
            for (size_t j = 0; j < t->n; j++) {
                size_t vector = f ? j % (size_t)a->R : j / (size_t)a->in;
                double size = pow(10, 1.2 * test_noise(seed + 100, vector));
                x[j] = size * (test_noise(seed, j) + 0.8);
                if ((i == PROJ_O && f == 1) || (i == 0 && f == 0 && vector == 2)) x[j] = 0;
            }
            put(l, t->master, x, t->n);
            free(x);
        }
    params_sync(&l->params);
}

static void test_measure(Exec *ex) {
    Lora l = adapters(ex, true);
    Redundancy r;
    size_t before = ex->bytes_now;
    redundancy_init(&r, &l);
    EXPECT(ex->bytes_now - before == redundancy_bytes(&l, ex->dtype), "%zu bytes of %zu",
           ex->bytes_now - before, redundancy_bytes(&l, ex->dtype));
    is_measured(&r, 0); /* all is zero */
    fill(&l);
    double want = formula(&l);
    EXPECT(want > 0.05 && want < 1.5, "redundancy %g says little", want);
    is_measured(&r, want);
    TEST_DETECTS(is_measured(&r, 1.001 * want));
    redundancy_free(&r);
    lora_free(&l);
}

/* Orthogonal rows, rows that are multiples of one, and the same of columns. */
static void test_ends(Exec *ex) {
    Lora l = adapters(ex, false);
    const Adapter *a = &l.adapter[PROJ_O];
    double *A = mem_array(a->A->n, sizeof *A), *B = mem_array(a->B->n, sizeof *B);
    Redundancy r;
    redundancy_init(&r, &l);
    for (int i = 0; i < 3; i++) A[i * a->in + 2 * i] = i % 2 ? -0.5 : 2;
    put(&l, a->A->master, A, a->A->n), params_sync(&l.params);
    EXPECT(redundancy_measure(&r) == 0, "orthogonal rows: %g", redundancy_measure(&r));
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < a->in; k++) A[i * a->in + k] = (i - 3) * (k % 5 - 2.5);
    put(&l, a->A->master, A, a->A->n), params_sync(&l.params);
    is_measured(&r, 1);
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < a->out; k++) B[k * 3 + i] = (i + 1) * (k % 7 - 2.5);
    put(&l, a->B->master, B, a->B->n), params_sync(&l.params);
    is_measured(&r, 2);
    redundancy_free(&r);
    lora_free(&l);
    free(A), free(B);
}

/* ------------------------------------------------------------------------------- gradient -- */

/* d/dx_ik of `scale` times what the vectors repeat, by central differences of relative step H. */
static const double H = 1e-4;
static double slope(Vectors *v, int i, int k, double scale) {
    double *x = &v->x[i * v->n + k], was = *x, h = H * length(v, i);
    if (h == 0) return 0;
    *x = was + h;
    double up = repeated(v);
    *x = was - h;
    double down = repeated(v);
    *x = was;
    return scale * (up - down) / (2 * h);
}

/* Along a vector's element, t the step by its length, cos^2 is (c + b t)^2 / (1 + 2 a t + t^2) with
 * |a|, |b|, |c| <= 1: at most 9 for complex |t| <= 1/2, so that its third derivative is at most
 * 3! 9 / (1/2)^3 = 432 and differences are off by 432 / 6 H^2. Of the device, an entry of M is off
 * by what two cosines are and by its roundings to f32 and to the storage type, in units of 4 scale
 * / (|x_i| |x_j|); and the product with X by R + 1 roundings. */
static double limit(const Vectors *v, int i, int k, double scale, double old, enum Dtype dtype) {
    double li = length(v, i), terms = 0, u = test_roundoff(dtype);
    if (li == 0) return 0;
    for (int j = 0; j < v->R; j++) {
        double lj = length(v, j);
        if (j != i && lj > 0)
            terms += fabs(v->x[j * v->n + k]) / lj + fabs(v->x[i * v->n + k]) / li;
    }
    return 4 * scale / li * terms * (4 * COSINE + 2 * u + (v->R + 1) * 0x1p-24) +
           (v->R + 1) * 0x1p-24 * fabs(old) + 2 * (v->R - 1) * 72 * H * H * scale / li;
}

/* now: the gradients of the factor, (R,in) or (out,R); old: those before. */
static int is_gradient(const Lora *l, int adapter, bool of_B, const double *now, const double *old,
                       double weight) {
    Vectors v = vectors_of(l, adapter, of_B);
    double scale = weight / counted(l) / (v.R * (v.R - 1));
    size_t n = (size_t)v.R * (size_t)v.n;
    double *want = mem_array(n, sizeof *want), *tol = mem_array(n, sizeof *tol);
    for (int i = 0; i < v.R; i++)
        for (int k = 0; k < v.n; k++) {
            size_t at = of_B ? (size_t)(k * v.R + i) : (size_t)(i * v.n + k);
            want[at] = old[at] + slope(&v, i, k, scale);
            tol[at] = limit(&v, i, k, scale, old[at], l->ex->dtype);
        }
    int ok = test_close_each("gradient", now, want, tol, n);
    free(v.x), free(want), free(tol);
    return ok;
}

static void test_factor(const Lora *l, int i, bool of_B, const double *old, double weight) {
    const Adapter *a = &l->adapter[i];
    const Param *t = of_B ? a->B : a->A;
    double *now = test_get_f32(l->ex, t->grad, t->n);
    const double *was = old + t->at;
    if (a->R == 1 || !t->trained) {
        EXPECT(memcmp(now, was, t->n * sizeof *now) == 0, "%s got a gradient", t->name);
    } else {
        EXPECT(is_gradient(l, i, of_B, now, was, weight), "%s", t->name);
        bool empty = i == PROJ_O && of_B;
        if (!empty) TEST_DETECTS(is_gradient(l, i, of_B, now, was, 1.5 * weight));
    }
    free(now);
}

static void test_gradient(Exec *ex) {
    const double weight = 30;
    Lora l = adapters(ex, true);
    Redundancy r;
    redundancy_init(&r, &l);
    fill(&l);
    l.adapter[PROJ_COUNT].A->trained = l.adapter[PROJ_COUNT + PROJ_O].B->trained = false;
    double *old = test_noise_array(7, l.params.size, 0.01);
    for (size_t i = 0; i < l.params.size; i++) old[i] = (float)old[i];
    put(&l, l.params.grad, old, l.params.size);
    double value = redundancy_penalise(&r, weight);
    EXPECT(value == redundancy_measure(&r), "penalised is %g, measured %g", value,
           redundancy_measure(&r));
    for (int i = 0; i < config.L * PROJ_COUNT; i++)
        for (int f = 0; f < 2 && l.adapter[i].R; f++) test_factor(&l, i, f == 1, old, weight);
    free(old);
    redundancy_free(&r);
    lora_free(&l);
}

static void body(Exec *ex) {
    test_measure(ex);
    test_ends(ex);
    test_gradient(ex);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_redundancy");
}
