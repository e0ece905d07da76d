/* Gradients of every adapter matrix against PEFT's, and what any split of a batch must keep. */
#include <omp.h>

#include "model/gemma2.h"
#include "tests/golden.h"

static const double GRADIENT = 1e-5; /* relative Frobenius error allowed in f32 */

typedef struct Run {
    Golden g;
    Lora l;
    Acts *a;
    int labels; /* of all documents */
} Run;

static void run_open(Run *r, Exec *ex, const char *name) {
    golden_open(&r->g, ex, name);
    golden_adapter(&r->g, &r->l, "adapter", true);
    r->a = acts_create(&r->g.m, GOLDEN_ROWS, 16, GOLDEN_ROWS, ACTS_TRAIN);
    r->labels = 0;
    for (int d = 0; d < GOLDEN_DOCS; d++)
        for (int i = 0; i < r->g.n[d]; i++) r->labels += r->g.label[d][i];
}

static void run_close(Run *r) {
    acts_destroy(r->a);
    lora_free(&r->l);
    golden_close(&r->g);
}

/* Adds the gradients of one pack; returns its part of the mean loss. */
static double pass(Run *r, const Pack *p) {
    float nll[GOLDEN_ROWS];
    const Model *m = &r->g.m;
    model_forward(m, r->a, p, m->c.L, NULL, NULL);
    double sum = model_loss(m, r->a, p, (float)(1.0 / r->labels), nll);
    model_backward(m, r->a, p);
    return sum / r->labels;
}

static void zero(Run *r) {
    exec_zero(r->g.m.ex, r->l.grad, r->l.n * sizeof *r->l.grad);
}

/* The whole batch in packs of the documents d with pack_of[d] equal. */
static double batch(Run *r, const int pack_of[GOLDEN_DOCS]) {
    double loss = 0;
    zero(r);
    for (int k = 0; k < GOLDEN_DOCS; k++) {
        Pack p;
        pack_init(&p, GOLDEN_ROWS, 16, GOLDEN_ROWS);
        for (int d = 0; d < GOLDEN_DOCS; d++)
            if (pack_of[d] == k) golden_add(&r->g, &p, d);
        if (p.N > 0) loss += pass(r, &p);
        pack_free(&p);
    }
    return loss;
}

static float *all_gradients(const Run *r) {
    float *g = mem_array(r->l.n, sizeof *g);
    exec_copy_out(r->l.ex, g, r->l.grad, r->l.n * sizeof *g);
    return g;
}

/* |a - b| / |b|, Frobenius. */
static double relative(const float *a, const double *b, size_t n) {
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) d += (a[i] - b[i]) * (a[i] - b[i]), s += b[i] * b[i];
    return sqrt(d) / sqrt(s);
}

static int matrix_close(const char *name, const float *got, const double *ref, size_t n,
                        double *worst) {
    double e = relative(got, ref, n);
    int ok = e <= GRADIENT;
    if (!(e <= *worst)) *worst = e;
    if (!test_quiet) EXPECT(ok, "%s: relative error %.3g", name, e);
    return ok;
}

static void against_peft(Run *r, const float *grad) {
    double worst = 0, ignored = 0;
    int seen = 0;
    for (int i = 0; i < r->g.m.c.L * PROJ_COUNT; i++)
        for (int is_B = 0; is_B < 2; is_B++, seen++) {
            const Adapter *a = &r->l.adapter[i];
            const StTensor *t =
                golden_ref(&r->g, "grad.model.layers.%d.%s.lora_%c.weight", i / PROJ_COUNT,
                           proj_path[i % PROJ_COUNT], is_B ? 'B' : 'A');
            double *ref = golden_f64(t);
            float *got = mem_array(t->count, sizeof *got);
            memcpy(got, grad + ((is_B ? a->dB : a->dA) - r->l.grad), t->count * sizeof *got);
            matrix_close(t->name, got, ref, t->count, &worst);
            for (size_t k = 0; k < t->count; k++) got[k] *= 1.00002f;
            TEST_DETECTS(matrix_close(t->name, got, ref, t->count, &ignored));
            got[0] = NAN;
            TEST_DETECTS(matrix_close(t->name, got, ref, t->count, &ignored));
            free(got), free(ref);
        }
    if (getenv("TEST_VERBOSE")) printf("%s: worst of %d matrices %.3g\n", r->g.folder, seen, worst);
}

static void test_peft(Run *r) {
    if (r->g.m.ex->dtype != DTYPE_F32) return;
    double loss = batch(r, (int[]){0, 0, 0, 0});
    double *ref = golden_f64(golden_ref(&r->g, "loss"));
    EXPECT(fabs(loss - ref[0]) <= 1e-6 * ref[0], "%s: loss %.9g, PEFT %.9g", r->g.folder, loss,
           ref[0]);
    float *grad = all_gradients(r);
    against_peft(r, grad);
    free(grad), free(ref);
}

static void body(Exec *ex) {
    for (int i = 0; i < GOLDEN_MODELS; i++) {
        Run r;
        run_open(&r, ex, golden_models[i]);
        test_peft(&r);
        run_close(&r);
    }
}

int main(void) {
    test_each_exec(body);
    return test_done("test_gradients");
}
