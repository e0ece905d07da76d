/* The optimiser over adapters some of whose matrices are frozen: those neither move nor count in
 * the norm, however small they are and wherever they lie; all others do. */
#include "model/lora.h"
#include "model/optim.h"

#include <math.h>

#include "data/base/mem.h"
#include "tests/test.h"

/* Widths so small that a whole matrix is shorter than the padding between two of them. */
static const Config config = {.L = 2, .D = 3, .F = 5, .V = 8, .H = 2, .K = 1, .E = 2};

static void fill(Exec *ex, float *to, size_t n, float value) {
    float *x = mem_array(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = value;
    exec_copy_in(ex, to, x, n * sizeof *x);
    free(x);
}

/* Factor 2 i is A of adapter i, 2 i + 1 its B. */
static Param *factor(const Lora *l, int which) {
    const Adapter *a = &l->adapter[which / 2];
    return which % 2 ? a->B : a->A;
}

static bool frozen(uint64_t seed, int which) {
    return seed && test_noise(seed, (uint64_t)which) > 0;
}

/* One step from masters 1 and gradients 1 with the frozen factors of `seed`; 0: none is. */
static void test_step(Exec *ex, uint64_t seed) {
    Lora l;
    Optim o;
    LoraShape shape;
    int factors = 2 * config.L * PROJ_COUNT;
    size_t trained = 0;
    lora_shape_init(&shape, &config);
    for (int i = 0; i < factors / 2; i++) shape.rank[i] = 1 + i % 2, shape.alpha[i] = 1;
    lora_alloc(&l, ex, &config, &shape, true);
    lora_shape_free(&shape);
    for (int i = 0; i < factors; i++) {
        Param *p = factor(&l, i);
        p->trained = !frozen(seed, i);
        fill(ex, p->master, p->n, 1);
        fill(ex, p->grad, p->n, 1);
        trained += frozen(seed, i) ? 0 : p->n;
    }
    EXPECT(params_trained(&l.params) == trained, "%zu trained", params_trained(&l.params));
    optim_init(&o, &l.params,
               (AdamW){.beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.5});
    double norm = optim_norm(&o);
    EXPECT(norm == sqrt((double)trained), "norm %g of %zu ones", norm, trained);
    optim_step(&o, norm, 0.125, 0);
    for (int i = 0; i < factors; i++) {
        float y[64];
        const Param *p = factor(&l, i);
        exec_copy_out(ex, y, p->master, p->n * sizeof *y);
        /* 1 - 0.125 * 0.5, then about 0.125 against the gradient; frozen: not a bit */
        for (size_t j = 0; j < p->n; j++)
            EXPECT(frozen(seed, i) ? y[j] == 1 : y[j] > 0.8f && y[j] < 0.82f,
                   "seed %d: factor %d, element %zu is %g", (int)seed, i, j, y[j]);
    }
    optim_free(&o);
    lora_free(&l);
}

/* The first moment after one step is (1 - beta1) coef g, coef = min(1, max_norm / (norm + 1e-6)):
 * three f32 roundings. Gradients so small that the 1e-6 is not lost in them. */
static void test_clip(Exec *ex, double max_norm) {
    Lora l;
    Optim o;
    LoraShape shape;
    float g = 1e-6f, m;
    lora_shape_init(&shape, &config);
    shape.rank[PROJ_O] = 2, shape.alpha[PROJ_O] = 1;
    lora_alloc(&l, ex, &config, &shape, true);
    lora_shape_free(&shape);
    for (int i = 2 * PROJ_O; i < 2 * PROJ_O + 2; i++) {
        const Param *p = factor(&l, i);
        fill(ex, p->grad, p->n, g);
    }
    optim_init(&o, &l.params, (AdamW){.beta1 = 0.75, .beta2 = 0.99, .eps = 1e-8});
    double norm = optim_norm(&o);
    double coef = max_norm > 0 ? fmin(1, max_norm / (norm + 1e-6)) : 1, want = 0.25 * coef * g;
    optim_step(&o, norm, 0.125, max_norm);
    exec_copy_out(ex, &m, lora_at(&l, 0, PROJ_O)->B->m, sizeof m);
    EXPECT(fabs(m - want) <= 3 * want * ldexp(1, -24), "clipped at %g: %.9g, expected %.9g",
           max_norm, m, want);
    exec_copy_out(ex, &m, l.params.grad, sizeof m);
    EXPECT(m == 0, "the gradients are not zeroed");
    optim_free(&o);
    lora_free(&l);
}

/* The norm is the blocks' sums in order, where a tensor longer than one is cut and no block holds
 * two tensors: all in the bits. */
static void test_blocks(Exec *ex) {
    enum { WIDTH = 7000, RANK = 13 }; /* 91,000 elements */
    const Config wide = {.L = 1, .D = WIDTH, .F = 8, .V = 8, .H = 2, .K = 1, .E = 4};
    Lora l;
    Optim o;
    LoraShape shape;
    lora_shape_init(&shape, &wide);
    shape.rank[PROJ_O] = RANK, shape.alpha[PROJ_O] = 1;
    shape.rank[PROJ_DOWN] = RANK, shape.alpha[PROJ_DOWN] = 1;
    lora_alloc(&l, ex, &wide, &shape, true);
    lora_shape_free(&shape);
    Params *p = &l.params;
    double *noise = test_noise_array(11, p->size, 1);
    float *g = test_f32(ex, noise, p->size);
    exec_copy(ex, p->grad, g, p->size * sizeof *g);
    double sum = 0, one;
    int blocks = 0;
    Span *span = test_alloc(ex, sizeof *span);
    double *square = test_alloc(ex, sizeof *square);
    for (int i = 0; i < p->n; i++) {
        const Param *t = &p->param[i];
        for (size_t at = 0; at < t->n; at += 65536, blocks++) {
            Span here = {t->at + at, t->n - at < 65536 ? t->n - at : 65536};
            exec_copy_in(ex, span, &here, sizeof here);
            ex->op->sumsq(ex, square, p->grad, span, 1, here.n);
            exec_copy_out(ex, &one, square, sizeof one);
            sum += one;
        }
    }
    EXPECT(blocks == 6, "%d blocks in %d tensors", blocks, p->n);
    optim_init(&o, p, (AdamW){.beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8});
    EXPECT(optim_bytes(p) == 6 * (sizeof *span + sizeof *square), "%zu bytes", optim_bytes(p));
    double norm = optim_norm(&o);
    EXPECT(norm == sqrt(sum), "norm %.17g, blocks %.17g", norm, sqrt(sum));
    optim_free(&o);
    test_free(ex, square), test_free(ex, span), test_free(ex, g);
    free(noise);
    lora_free(&l);
}

/* ---------------------------------------------------------------- directions that are left alone
 */

enum { OUT = 6, RANK = 2, KEPT = 3, STEPS = 4, NB = OUT * RANK };

/* Orthonormal rows V (KEPT,OUT), as f32 has them. */
static void directions(float *V) {
    double v[KEPT][OUT];
    for (int j = 0; j < KEPT; j++) {
        double norm = 0;
        for (int i = 0; i < OUT; i++) v[j][i] = test_noise(21, (uint64_t)(j * OUT + i));
        for (int b = 0; b < j; b++) {
            double dot = 0;
            for (int i = 0; i < OUT; i++) dot += v[j][i] * v[b][i];
            for (int i = 0; i < OUT; i++) v[j][i] -= dot * v[b][i];
        }
        for (int i = 0; i < OUT; i++) norm += v[j][i] * v[j][i];
        for (int i = 0; i < OUT; i++) V[j * OUT + i] = (float)(v[j][i] /= sqrt(norm));
    }
}

/* y = (I - V^T V) x, x (OUT,RANK). */
static void leave_alone(double *y, const double *x, const float *V) {
    double t[KEPT][RANK] = {{0}};
    for (int j = 0; j < KEPT; j++)
        for (int i = 0; i < OUT; i++)
            for (int c = 0; c < RANK; c++) t[j][c] += (double)V[j * OUT + i] * x[i * RANK + c];
    for (int i = 0; i < OUT; i++)
        for (int c = 0; c < RANK; c++) {
            y[i * RANK + c] = x[i * RANK + c];
            for (int j = 0; j < KEPT; j++) y[i * RANK + c] -= (double)V[j * OUT + i] * t[j][c];
        }
}

/* SaLoRA's own form in double: T is trained, C T is what products read, C dT its gradient; AdamW
 * with decay. */
typedef struct Raw {
    double t[NB], m[NB], v[NB];
} Raw;
static void raw_step(Raw *r, const double *grad, int step, AdamW a) {
    for (int i = 0; i < NB; i++) {
        r->m[i] = a.beta1 * r->m[i] + (1 - a.beta1) * grad[i];
        r->v[i] = a.beta2 * r->v[i] + (1 - a.beta2) * grad[i] * grad[i];
        double mean = r->m[i] / (1 - pow(a.beta1, step)),
               square = r->v[i] / (1 - pow(a.beta2, step));
        r->t[i] -= a.lr * a.weight_decay * r->t[i];
        r->t[i] -= a.lr * mean / (sqrt(square) + a.eps);
    }
}

/* Keeping C T and projecting it after every step is the same as keeping T: masters, norms, and
 * nothing along the directions. Masters of about 1 are off by some 2^-24 a step; a projected
 * gradient is by 2^-23, and Adam's quotient by that over the least gradient that the element has
 * seen. */
static void test_kept(Exec *ex) {
    const Config small = {.L = 1, .D = OUT, .F = 5, .V = 8, .H = 2, .K = 1, .E = 2};
    const AdamW how = {.beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.5};
    LoraShape shape;
    Lora l;
    Optim o;
    Raw raw = {.m = {0}};
    float V[KEPT * OUT], x[NB], got[NB];
    directions(V);
    lora_shape_init(&shape, &small);
    shape.rank[PROJ_O] = RANK, shape.alpha[PROJ_O] = 1, shape.keep[PROJ_O] = KEPT;
    lora_alloc(&l, ex, &small, &shape, true);
    lora_shape_free(&shape);
    Param *B = lora_at(&l, 0, PROJ_O)->B, *A = lora_at(&l, 0, PROJ_O)->A;
    EXPECT(params_kept_bytes(&l.params) >= sizeof V && l.params.keeps.size < 1024 && !A->keep,
           "%zu bytes of directions", params_kept_bytes(&l.params));
    params_set_kept(&l.params, B, V);
    A->trained = false;
    for (int i = 0; i < NB; i++) raw.t[i] = test_noise(22, (uint64_t)i);
    double start[NB], least[NB];
    for (int i = 0; i < NB; i++) least[i] = INFINITY;
    leave_alone(start, raw.t, V);
    for (int i = 0; i < NB; i++) x[i] = (float)start[i];
    exec_copy_in(ex, B->master, x, sizeof x);
    optim_init(&o, &l.params, how);
    for (int step = 1; step <= STEPS; step++) {
        double grad[NB], reached[NB], want[NB], square = 0;
        for (int i = 0; i < NB; i++)
            grad[i] = x[i] = (float)test_noise(23, (uint64_t)(step * NB + i));
        exec_copy_in(ex, B->grad, x, sizeof x);
        leave_alone(reached, grad, V);
        for (int i = 0; i < NB; i++) {
            square += reached[i] * reached[i];
            least[i] = fmin(least[i], fabs(reached[i]));
        }
        double norm = optim_norm(&o);
        EXPECT(fabs(norm - sqrt(square)) <= 0x1p-22 * norm, "norm %.9g of %.9g", norm,
               sqrt(square));
        optim_step(&o, norm, 0.125, 0);
        AdamW a = how;
        a.lr = 0.125;
        raw_step(&raw, reached, step, a);
        leave_alone(want, raw.t, V);
        exec_copy_out(ex, got, B->master, sizeof got);
        for (int i = 0; i < NB; i++)
            EXPECT(fabs(got[i] - want[i]) <= step * 0x1p-23 * (4 + 0.125 / least[i]),
                   "step %d: %.9g, not %.9g", step, (double)got[i], want[i]);
        for (int j = 0; j < KEPT; j++)
            for (int c = 0; c < RANK; c++) {
                double along = 0;
                for (int i = 0; i < OUT; i++) along += (double)V[j * OUT + i] * got[i * RANK + c];
                EXPECT(fabs(along) <= (2 * KEPT + 1) * 0x1p-23, "step %d: %g along direction %d",
                       step, along, j);
            }
    }
    optim_free(&o);
    lora_free(&l);
}

static void body(Exec *ex) {
    test_kept(ex);
    test_blocks(ex);
    test_clip(ex, 0);
    test_clip(ex, 1e-6);
    test_clip(ex, 1);
    for (uint64_t seed = 0; seed < 40; seed++) test_step(ex, seed);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_optim");
}
