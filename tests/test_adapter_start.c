/* Adapter starts: which basis goes where, what the factors hold, and that the model does not
 * change. The golden model has three layers; its norms' offsets are not zero. */
#include "model/adapter_start.h"

#include <math.h>

#include "tests/golden.h"
#include "tests/files.h"

enum { R = 4 };

static const StartOptions PLAIN = {.kind = START_SAILS,
                                   .rank = R,
                                   .alpha = 2 * R,
                                   .target = {true, true, true, true},
                                   .basis_scale = 1,
                                   .seed = 11};

static Basis random_basis(Exec *ex, int layer, int D, int rank) {
    Basis b = {.layer = layer, .D = D, .R = rank, .m = 1, .k = 1};
    b.U = test_noise_array((uint64_t)layer + 40, (size_t)D * rank, 1);
    basis_orthonormalise(ex, b.U, D, rank);
    b.variance = mem_array(1, sizeof *b.variance);
    b.feature = mem_array(1, sizeof *b.feature);
    return b;
}

static Subspace bases(Exec *ex, int D, int n, const int *layer, const int *rank) {
    Subspace s = {.n = n, .basis = mem_array((size_t)n, sizeof(Basis))};
    for (int i = 0; i < n; i++) s.basis[i] = random_basis(ex, layer[i], D, rank[i]);
    return s;
}

static Lora start(const Model *m, const StartOptions *o, const Subspace *s) {
    Lora l;
    LoraShape shape;
    Err err;
    StartOptions kind = *o;
    kind.kind = s ? START_SAILS : START_LORA;
    CHECK(adapter_start_shape(&shape, &m->c, &kind, s, &err), "%s", err.text);
    lora_alloc(&l, m->ex, &m->c, &shape, true);
    lora_shape_free(&shape);
    CHECK(adapter_start_fill(&l, m, &kind, s, &err), "%s", err.text);
    return l;
}

static bool writing(int p) {
    return p == PROJ_O || p == PROJ_DOWN;
}

/* The basis factor of an adapter as (D,R), and the largest |entry| of the other. */
static double *factor(const Lora *l, int layer, int p, double *other) {
    const Adapter *a = lora_at(l, layer, (enum Proj)p);
    size_t nA = (size_t)a->R * a->in, nB = (size_t)a->R * a->out;
    double *A = test_get_f32(l->ex, a->A->master, nA), *B = test_get_f32(l->ex, a->B->master, nB);
    double *zero = writing(p) ? A : B;
    *other = 0;
    for (size_t i = 0; i < (writing(p) ? nA : nB); i++)
        if (!(zero[i] == 0)) *other = 1;
    if (writing(p)) {
        free(A);
        return B;
    }
    double *U = mem_array(nA, sizeof *U);
    for (int r = 0; r < a->R; r++)
        for (int d = 0; d < a->in; d++) U[d * a->R + r] = A[r * a->in + d];
    free(A), free(B);
    return U;
}

static int is_basis(const Lora *l, int layer, int p, const Basis *b, double scale) {
    double other, *got = factor(l, layer, p, &other);
    size_t n = (size_t)b->D * b->R;
    double *want = mem_array(n, sizeof *want);
    for (size_t i = 0; i < n; i++)
        want[i] = (float)(scale * (b->U[i] * (b->scale ? b->scale[i % (size_t)b->R] : 1)));
    int ok = lora_at(l, layer, (enum Proj)p)->R == b->R && other == 0;
    ok = ok && test_close("basis factor", got, want, n, 0, 0);
    free(got), free(want);
    return ok;
}

/* Which basis (index) each layer's reading and writing projections take. */
static void expect_map(const Model *m, const Subspace *s, const StartOptions *o, const int reads[3],
                       const int writes[3]) {
    Lora l = start(m, o, s);
    for (int layer = 0; layer < 3; layer++)
        for (int p = 0; p < PROJ_COUNT; p++) {
            int want = writing(p) ? writes[layer] : reads[layer];
            const Adapter *a = lora_at(&l, layer, (enum Proj)p);
            if (!o->target[p] || want < 0) {
                EXPECT(a->R == 0, "layer %d %s has an adapter", layer, proj_name[p]);
                continue;
            }
            EXPECT(is_basis(&l, layer, p, &s->basis[want], o->basis_scale), "layer %d %s", layer,
                   proj_name[p]);
            TEST_DETECTS(is_basis(&l, layer, p, &s->basis[(want + 1) % s->n], o->basis_scale));
            TEST_DETECTS(is_basis(&l, layer, p, &s->basis[want], 1.001 * o->basis_scale));
            EXPECT(a->A->trained == (!o->freeze_basis || writing(p)), "train_A of %s",
                   proj_name[p]);
            EXPECT(a->B->trained == (!o->freeze_basis || !writing(p)), "train_B of %s",
                   proj_name[p]);
            EXPECT(a->alpha == o->alpha, "alpha");
        }
    lora_free(&l);
}

static void test_map(const Model *m) {
    StartOptions o = PLAIN;
    int rank[3] = {R, R, R};
    Subspace s = bases(m->ex, m->c.D, 2, (int[]){0, 2}, rank);
    expect_map(m, &s, &o, (int[]){0, 0, 0}, (int[]){0, 0, 1}); /* 1 lies between: down */
    o.only_scored = true;
    expect_map(m, &s, &o, (int[]){0, -1, 0}, (int[]){0, -1, 1});
    o.freeze_basis = true;
    o.basis_scale = 0.25;
    for (int p = 0; p < PROJ_COUNT; p++) o.target[p] = true;
    expect_map(m, &s, &o, (int[]){0, -1, 0}, (int[]){0, -1, 1});
    subspace_free(&s);
    o = PLAIN;
    o.target[PROJ_K] = false;
    rank[2] = 2;
    o.rank = 0; /* each layer its own */
    s = bases(m->ex, m->c.D, 3, (int[]){0, 1, 2}, rank);
    expect_map(m, &s, &o, (int[]){0, 0, 1}, (int[]){0, 1, 2});
    subspace_free(&s);
}

/* Columns are as long as their basis says, in A and in B. */
static void test_scales(const Model *m) {
    StartOptions o = PLAIN;
    Subspace s = bases(m->ex, m->c.D, 1, (int[]){1}, (int[]){R});
    s.basis[0].scale = mem_array(R, sizeof(double));
    for (int r = 0; r < R; r++) s.basis[0].scale[r] = 0.5 + r;
    Lora l = start(m, &o, &s);
    for (int p = 0; p <= PROJ_O; p++) {
        EXPECT(is_basis(&l, 2, p, &s.basis[0], 1), "%s", proj_name[p]);
        s.basis[0].scale[2] *= 1.001;
        TEST_DETECTS(is_basis(&l, 2, p, &s.basis[0], 1));
        s.basis[0].scale[2] = 2.5;
    }
    lora_free(&l);
    subspace_free(&s);
}

/* One factor is zero, so the logits stay the same to the bit. */
static void test_unchanged(Golden *g) {
    Subspace s = bases(g->m.ex, g->m.c.D, 1, (int[]){1}, (int[]){R});
    Pack p;
    golden_pack(g, &p);
    float *z[3];
    for (int i = 0; i < 3; i++) {
        Lora l = {0};
        if (i) l = start(&g->m, &PLAIN, i == 1 ? &s : NULL);
        g->m.lora = i ? &l : NULL;
        Acts *a = acts_create(&g->m, p.N, p.nseg, p.N, ACTS_INFER);
        z[i] = golden_logits(&g->m, a, &p);
        acts_destroy(a);
        g->m.lora = NULL;
        if (i) lora_free(&l);
    }
    size_t bytes = sizeof(float) * (size_t)p.N * (size_t)g->m.c.V;
    EXPECT(memcmp(z[0], z[1], bytes) == 0, "the subspace start changes the model");
    EXPECT(memcmp(z[0], z[2], bytes) == 0, "plain LoRA changes the model");
    for (int i = 0; i < 3; i++) free(z[i]);
    pack_free(&p);
    subspace_free(&s);
}

static const char *norm_name(int p) {
    return p == PROJ_O      ? "post_attention_layernorm"
           : p == PROJ_DOWN ? "post_feedforward_layernorm"
           : p >= PROJ_GATE ? "pre_feedforward_layernorm"
                            : "input_layernorm";
}

/* With norm gains the factor spans diag(1 + w) U, or diag(1 / (1 + w)) U, and is orthonormal. The
 * gains come from the checkpoint itself; in bf16 as the model holds them. */
static void test_gain(Golden *g) {
    StartOptions o = PLAIN;
    o.gain = GAIN_NORM;
    for (int p = 0; p < PROJ_COUNT; p++) o.target[p] = true;
    int D = g->m.c.D;
    Subspace s = bases(g->m.ex, D, 1, (int[]){1}, (int[]){R});
    Lora l = start(&g->m, &o, &s);
    Err err;
    StSet *file;
    MUST(st_open_folder(&file, g->folder, "model", &err), err);
    for (int i = 0; i < 3 * PROJ_COUNT; i++) {
        int layer = i / PROJ_COUNT, p = i % PROJ_COUNT;
        char name[96];
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, norm_name(p));
        double *w = golden_f64(st_find(file, name)), other, angle[R];
        double *got = factor(&l, layer, p, &other), *want = mem_array((size_t)D * R, sizeof *want);
        for (int d = 0; d < D; d++) {
            double rounded =
                g->m.ex->dtype == DTYPE_F32 ? w[d] : bf16_to_f32(bf16_from_f32((float)w[d]));
            for (int r = 0; r < R; r++)
                want[d * R + r] =
                    s.basis[0].U[d * R + r] * (writing(p) ? 1 / (1 + rounded) : 1 + rounded);
        }
        subspace_angles(g->m.ex, angle, got, R, want, R, D);
        /* f32 entries of unit columns: off by 2^-25 sqrt(R) each way */
        EXPECT(angle[R - 1] <= 4e-7, "%s: angle %g", name, angle[R - 1]);
        subspace_angles(g->m.ex, angle, got, R, s.basis[0].U, R, D);
        EXPECT(angle[R - 1] > 1e-3, "%s: the gain changes nothing", name);
        for (int a = 0; a < R; a++)
            for (int b = 0; b <= a; b++) {
                double dot = 0;
                for (int d = 0; d < D; d++) dot += got[d * R + a] * got[d * R + b];
                EXPECT(fabs(dot - (a == b)) <= 4e-7, "%s: columns %d %d: %g", name, a, b, dot);
            }
        free(w), free(got), free(want);
    }
    st_close(file);
    lora_free(&l);
    subspace_free(&s);
}

/* A uniform in (-bound, bound): variance bound^2 / 3; four standard errors of each moment. */
static void test_lora(const Model *m) {
    StartOptions o = PLAIN;
    Lora l = start(m, &o, NULL), again = start(m, &o, NULL);
    o.seed++;
    Lora other = start(m, &o, NULL);
    for (int layer = 0; layer < m->c.L; layer++)
        for (int p = 0; p <= PROJ_O; p++) {
            const Adapter *a = lora_at(&l, layer, (enum Proj)p);
            size_t n = (size_t)a->R * a->in;
            double *A = test_get_f32(m->ex, a->A->master, n), mean = 0, square = 0, most = 0;
            double *B = test_get_f32(m->ex, a->B->master, (size_t)a->R * a->out);
            double *same = test_get_f32(m->ex, lora_at(&again, layer, (enum Proj)p)->A->master, n);
            double *moved = test_get_f32(m->ex, lora_at(&other, layer, (enum Proj)p)->A->master, n);
            double *next =
                test_get_f32(m->ex, lora_at(&l, (layer + 1) % m->c.L, (enum Proj)p)->A->master, n);
            double bound = 1 / sqrt((double)a->in);
            for (size_t i = 0; i < n; i++) {
                mean += A[i] / (double)n, square += A[i] * A[i] / (double)n;
                most = fmax(most, fabs(A[i]));
            }
            for (int i = 0; i < a->R * a->out; i++) EXPECT(B[i] == 0, "B is not zero");
            double se = bound / sqrt(3.0 * (double)n);
            EXPECT(fabs(mean) <= 4 * se, "mean %g", mean);
            EXPECT(
                fabs(square - bound * bound / 3) <= 4 * bound * bound * sqrt(4.0 / 45 / (double)n),
                "variance %g", square);
            EXPECT(most <= bound && most > 0.9 * bound, "largest %g of %g", most, bound);
            EXPECT(memcmp(A, same, n * 8) == 0, "not reproducible");
            EXPECT(memcmp(A, moved, n * 8) != 0 && memcmp(A, next, n * 8) != 0, "always the same");
            EXPECT(a->A->trained && a->B->trained, "both factors are trained");
            free(A), free(B), free(same), free(moved), free(next);
        }
    lora_free(&l), lora_free(&again), lora_free(&other);
}

static void test_refused(const Model *m) {
    LoraShape shape;
    Err err;
    StartOptions o = PLAIN;
    Subspace s = bases(m->ex, m->c.D + 1, 1, (int[]){1}, (int[]){R});
    EXPECT_REFUSED(adapter_start_shape(&shape, &m->c, &o, &s, &err), err, EXIT_INPUT,
                   "the subspace has width");
    s.file = mem_string("some.file");
    EXPECT_REFUSED(adapter_start_shape(&shape, &m->c, &o, &s, &err), err, EXIT_INPUT,
                   "some.file: the sub");
    subspace_free(&s);
    s = bases(m->ex, m->c.D, 1, (int[]){3}, (int[]){R});
    EXPECT_REFUSED(adapter_start_shape(&shape, &m->c, &o, &s, &err), err, EXIT_INPUT,
                   "only 0 to 2");
    subspace_free(&s);
    s = bases(m->ex, m->c.D, 1, (int[]){2}, (int[]){R + 1});
    EXPECT_REFUSED(adapter_start_shape(&shape, &m->c, &o, &s, &err), err, EXIT_INPUT, "has rank 5");
    subspace_free(&s);
    o.rank = 0, o.kind = START_LORA;
    EXPECT_REFUSED(adapter_start_shape(&shape, &m->c, &o, NULL, &err), err, EXIT_USAGE,
                   "--init lora needs a number");
}

static void body(Exec *ex) {
    for (int i = 0; i < GOLDEN_MODELS; i++) {
        Golden g;
        golden_open(&g, ex, golden_models[i]);
        if (i == 0) test_unchanged(&g), test_gain(&g), test_refused(&g.m);
        if (g.m.c.L == 3) test_map(&g.m), test_scales(&g.m);
        test_lora(&g.m);
        golden_close(&g);
    }
}

int main(void) {
    test_each_exec(body);
    return test_done("test_adapter_start");
}
