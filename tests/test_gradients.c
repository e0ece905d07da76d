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

/* Adds the gradients of one pack; returns its part of the mean loss. nll (labels of the pack). */
static double pass_nll(Run *r, const Pack *p, float *nll) {
    const Model *m = &r->g.m;
    Objective sft = objective_sft(r->labels);
    double loss = model_loss(m, r->a, p, &sft, nll);
    model_backward(m, r->a, p);
    return loss;
}

static double pass(Run *r, const Pack *p) {
    float nll[GOLDEN_ROWS];
    return pass_nll(r, p, nll);
}

static void zero(Run *r) {
    exec_zero(r->g.m.ex, r->l.params.grad, r->l.params.size * sizeof *r->l.params.grad);
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
    float *g = mem_array(r->l.params.size, sizeof *g);
    exec_copy_out(r->l.ex, g, r->l.params.grad, r->l.params.size * sizeof *g);
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
            memcpy(got, grad + (is_B ? a->B : a->A)->at, t->count * sizeof *got);
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

/* ----------------------------------------------------------------------------- splitting -- */

/* Rows do not depend on their pack, down to the bit; only the sums over tokens are taken in
 * another order. Each of these N-term f32 sums may differ by N 2^-24 of the sum of its terms'
 * sizes, which the documents' own gradients show up to cancellation within a document: allow a
 * factor of 8 for that. The same in bf16: its gradients are summed in f32 too. */
static double regrouped_error(Run *r) {
    double parts = 0;
    for (int d = 0; d < GOLDEN_DOCS; d++) {
        batch(r, (int[]){d == 0 ? 0 : 9, d == 1 ? 0 : 9, d == 2 ? 0 : 9, d == 3 ? 0 : 9});
        float *g = all_gradients(r);
        parts += golden_norm(g, NULL, r->l.params.size);
        free(g);
    }
    return 8 * GOLDEN_ROWS * ldexp(1, -24) * parts;
}

/* Fails unless the gradients now are `whole`, up to tol; frees them. */
static void expect_regrouped(const char *what, const Run *r, const float *whole, double tol) {
    float *g = all_gradients(r);
    double e = golden_norm(g, whole, r->l.params.size);
    EXPECT(e <= tol, "%s: %s: gradients differ by %.3g of %.3g", r->g.folder, what, e, tol);
    g[r->l.params.size / 3] += 3 * (float)tol;
    EXPECT(!(golden_norm(g, whole, r->l.params.size) <= tol), "%s: planted fault not seen",
           r->g.folder);
    free(g);
}

static void test_split(Run *r) {
    static const int split[][GOLDEN_DOCS] = {
        {0, 1, 2, 3}, {0, 1, 0, 1}, {1, 0, 0, 1}, {3, 3, 0, 0}};
    double tol = regrouped_error(r), loss = batch(r, (int[]){0, 0, 0, 0});
    float *whole = all_gradients(r);
    for (size_t i = 0; i < sizeof split / sizeof split[0]; i++) {
        double other = batch(r, split[i]);
        expect_regrouped("split", r, whole, tol);
        EXPECT(fabs(other - loss) <= 1e-12 * loss, "%s: split %zu: loss %.17g, %.17g", r->g.folder,
               i, other, loss);
    }
    free(whole);
}

/* A pack of the documents in this order. Those in `silent`, a set of bits, have no label. */
static Pack ordered_pack(const Run *r, const int order[GOLDEN_DOCS], unsigned silent) {
    Pack p;
    pack_init(&p, GOLDEN_ROWS, 16, GOLDEN_ROWS);
    for (int i = 0; i < GOLDEN_DOCS; i++) {
        int d = order[i];
        pack_add(&p, r->g.token[d], silent >> d & 1 ? NULL : r->g.label[d], r->g.n[d], d);
    }
    return p;
}

static const int in_order[GOLDEN_DOCS] = {0, 1, 2, 3};

/* The losses of document d in a pack, one behind the other; returns how many. */
static int losses_of(float *to, const Pack *p, const float *nll, int d) {
    int n = 0;
    for (int i = 0; i < p->nlabel; i++)
        if (p->label_doc[i] == d) to[n++] = nll[i];
    return n;
}

/* The order of a pack's documents: each keeps its losses to the bit, the gradient is the same. */
static void test_order(Run *r) {
    Pack p = ordered_pack(r, in_order, 0), q = ordered_pack(r, (int[]){2, 0, 3, 1}, 0);
    float one[GOLDEN_ROWS], two[GOLDEN_ROWS], mine[GOLDEN_ROWS], moved[GOLDEN_ROWS];
    double tol = regrouped_error(r);
    zero(r);
    pass_nll(r, &p, one);
    float *whole = all_gradients(r);
    zero(r);
    pass_nll(r, &q, two);
    expect_regrouped("another order", r, whole, tol);
    for (int d = 0; d < GOLDEN_DOCS; d++) {
        int n = losses_of(mine, &p, one, d);
        EXPECT(n > 0 && losses_of(moved, &q, two, d) == n, "document %d has %d losses", d, n);
        EXPECT(memcmp(mine, moved, (size_t)n * sizeof *mine) == 0, "%s: losses of document %d",
               r->g.folder, d);
    }
    free(whole);
    pack_free(&p), pack_free(&q);
}

/* What a document without labels says changes the gradient by exactly nothing. */
static void test_neighbour(Run *r) {
    Pack p = ordered_pack(r, in_order, 1u << 1 | 1u << 2),
         q = ordered_pack(r, in_order, 1u << 1 | 1u << 2);
    for (int i = q.seg[1].row; i < q.seg[3].row; i++)
        q.token[i] = (q.token[i] * 7 + 3) % r->g.m.c.V;
    zero(r);
    double before = pass(r, &p);
    float *g = all_gradients(r);
    zero(r);
    double after = pass(r, &q);
    float *other = all_gradients(r);
    EXPECT(before == after, "%s: a silent neighbour moves the loss: %.17g, %.17g", r->g.folder,
           before, after);
    EXPECT(memcmp(g, other, r->l.params.size * sizeof *g) == 0,
           "%s: a silent neighbour moves gradients", r->g.folder);
    q.token[1] ^= 1; /* of a document with labels */
    zero(r);
    EXPECT(pass(r, &q) != before, "%s: no token has an effect", r->g.folder);
    free(g), free(other);
    pack_free(&p), pack_free(&q);
}

/* A pack without a label has loss 0 and adds gradients of 0, to the bit. */
static void test_no_labels(Run *r) {
    Pack p;
    pack_init(&p, GOLDEN_ROWS, 4, GOLDEN_ROWS);
    pack_add(&p, r->g.token[0], NULL, r->g.n[0], 0);
    zero(r);
    double loss = pass(r, &p);
    float *g = all_gradients(r);
    EXPECT(loss == 0, "%s: loss %g without labels", r->g.folder, loss);
    EXPECT(golden_norm(g, NULL, r->l.params.size) == 0, "%s: gradient without labels", r->g.folder);
    free(g);
    batch(r, (int[]){0, 0, 0, 0});
    float *before = all_gradients(r);
    pass(r, &p);
    float *after = all_gradients(r);
    EXPECT(memcmp(before, after, r->l.params.size * sizeof *g) == 0,
           "%s: no labels, other gradients", r->g.folder);
    free(before), free(after);
    pack_free(&p);
}

/* The prompt's last row predicts the first token of both branches; its gradient is their sum. */
static void test_branches(Run *r) {
    if (r->g.m.ex->dtype != DTYPE_F32) return;
    enum { PROMPT = 9, LEN = 15 };
    const int32_t *t = r->g.token[3];
    uint8_t label[LEN] = {0};
    int32_t doc[2][LEN];
    for (int i = PROMPT; i < LEN; i++) label[i] = 1;
    Pack p, q;
    pack_init(&p, GOLDEN_ROWS, 4, GOLDEN_ROWS);
    pack_init(&q, GOLDEN_ROWS, 4, GOLDEN_ROWS);
    pack_add(&p, t, NULL, PROMPT, 0);
    for (int b = 0; b < 2; b++) {
        for (int i = 0; i < LEN; i++)
            doc[b][i] = i < PROMPT ? t[i] : (t[i] + 5 + 11 * b) % r->g.m.c.V;
        pack_add_branch(&p, 0, PROMPT, doc[b] + PROMPT, label + PROMPT, LEN - PROMPT, b);
        pack_add(&q, doc[b], label, LEN, b);
    }
    zero(r);
    double shared = pass(r, &p);
    float *mine = all_gradients(r);
    zero(r);
    double alone = pass(r, &q);
    float *ref = all_gradients(r);
    EXPECT(fabs(shared - alone) <= 1e-6 * alone, "%s: loss %.9g, %.9g", r->g.folder, shared, alone);
    double e = golden_norm(mine, ref, r->l.params.size) / golden_norm(ref, NULL, r->l.params.size);
    EXPECT(e <= GRADIENT, "%s: branches: relative error %.3g", r->g.folder, e);
    free(mine), free(ref);
    pack_free(&p), pack_free(&q);
}

/* -------------------------------------------------------------------------- what is skipped -- */

static void train_only(Run *r, int which) { /* matrix 2 i + is_B alone; -1: all */
    for (int i = 0; i < r->g.m.c.L * PROJ_COUNT; i++) {
        r->l.adapter[i].A->trained = which < 0 || which == 2 * i;
        r->l.adapter[i].B->trained = which < 0 || which == 2 * i + 1;
    }
}

/* Each matrix trained alone gets the bits that it gets among all: the shortcuts below the lowest
 * trained adapter, and around inputs that no A needs, leave out nothing. */
static void test_alone(Run *r) {
    batch(r, (int[]){0, 0, 0, 0});
    float *all = all_gradients(r);
    for (int k = 0; k < 2 * r->g.m.c.L * PROJ_COUNT; k++) {
        const Adapter *a = &r->l.adapter[k / 2];
        train_only(r, k);
        batch(r, (int[]){0, 0, 0, 0});
        float *one = all_gradients(r);
        const Param *p = k % 2 ? a->B : a->A;
        EXPECT(memcmp(all + p->at, one + p->at, p->n * sizeof *one) == 0, "%s: matrix %d alone",
               r->g.folder, k);
        free(one);
    }
    train_only(r, -1);
    free(all);
}

static void test_threads(Run *r) {
    int before = omp_get_max_threads();
    float *one = NULL;
    for (int threads = 1; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        batch(r, (int[]){0, 1, 0, 1});
        float *g = all_gradients(r);
        if (one)
            EXPECT(memcmp(one, g, r->l.params.size * sizeof *g) == 0, "%s: %d threads", r->g.folder,
                   threads);
        if (one)
            free(g);
        else
            one = g;
    }
    omp_set_num_threads(before);
    free(one);
}

static void body(Exec *ex) {
    for (int i = 0; i < GOLDEN_MODELS; i++) {
        Run r;
        run_open(&r, ex, golden_models[i]);
        test_peft(&r);
        test_split(&r);
        test_order(&r);
        test_neighbour(&r);
        test_no_labels(&r);
        test_branches(&r);
        if (test_on_cpu(ex) && i == 0 && ex->dtype == DTYPE_F32) test_alone(&r);
        if (test_on_cpu(ex)) test_threads(&r);
        run_close(&r);
    }
}

int main(void) {
    test_each_exec(body);
    return test_done("test_gradients");
}
