/* The start corda: what its factors are by definition, in double, with the moments of what the
 * projections read as inputs.h has them (test_inputs.c). */
#include <string.h>

#include "model/adapter_start.h"
#include "model/inputs.h"
#include "tests/files.h"
#include "tests/golden.h"

enum { R = 2 };

/* Moments are f32 sums of few rows: off by so much of the norm of W times that of C. */
static const double OFF = 1e-5;

typedef struct Batch {
    Doc all[GOLDEN_DOCS];
    const Doc *doc[GOLDEN_DOCS];
    StartBatch b;
} Batch;

static void batch_of(Batch *to, const Golden *g) {
    for (int d = 0; d < GOLDEN_DOCS; d++) {
        to->all[d] = (Doc){.token = g->token[d], .label = g->label[d], .n = g->n[d]};
        to->doc[d] = &to->all[d];
    }
    to->b = (StartBatch){to->doc, GOLDEN_DOCS, GOLDEN_ROWS};
}

static double norm(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

/* C of what a group reads, every token of all documents. */
static double *moment(const Golden *g, int layer, enum Group group) {
    bool target[PROJ_COUNT] = {true, true, true, true, true, true, true};
    int W = inputs_width(&g->m.c, group);
    uint8_t all[GOLDEN_ROWS];
    float *sums = mem_array(inputs_numbers(&g->m.c, group), sizeof *sums);
    double *C = mem_array((size_t)(W * W), sizeof *C), trace = 0;
    InputsRun *run = inputs_run_open(&g->m, inputs_groups(target), GOLDEN_ROWS);
    memset(all, 1, sizeof all);
    for (int d = 0; d < GOLDEN_DOCS; d++) inputs_run_add(run, g->token[d], all, g->n[d]);
    inputs_run_finish(run);
    inputs_run_take(run, layer, group, sums);
    for (int i = 0; i < W; i++) trace += sums[W + i * W + i];
    for (int i = 0; i < W * W; i++) C[i] = sums[W + i] * W / trace + (i % (W + 1) ? 0 : 0.01);
    inputs_run_close(run);
    free(sums);
    return C;
}

static double *weight(const StSet *file, int layer, enum Proj p) {
    char module[MODULE_NAME], name[MODULE_NAME + 16];
    proj_module(module, layer, p);
    snprintf(name, sizeof name, "%s.weight", module);
    return golden_f64(st_find(file, name));
}

/* The singular values of M (out,in). */
static double *singular(Exec *ex, const double *M, int out, int in) {
    size_t n = (size_t)(out < in ? out : in), size = (size_t)out * (size_t)in;
    double *a = exec_alloc(ex, size * sizeof *a, "M"), *s = mem_array(n, sizeof *s);
    double *u = exec_alloc(ex, (size_t)out * n * sizeof *u, "U");
    double *v = exec_alloc(ex, n * (size_t)in * sizeof *v, "V");
    double *d = exec_alloc(ex, n * sizeof *d, "S");
    exec_copy_in(ex, a, M, size * sizeof *a);
    ex->op->svd(ex, u, d, v, a, out, in);
    exec_copy_out(ex, s, d, n * sizeof *s);
    exec_free(ex, d), exec_free(ex, v), exec_free(ex, u), exec_free(ex, a);
    return s;
}

/* u = B's column, sigma = scale |u|^2, is |M^T u| / |u| and the singular value that it ought to be;
 * columns are orthogonal; A's row is u^T W / (scale |u|^2). */
static int is_corda(const double *A, const double *B, const double *W, const double *M,
                    const double *want, int out, int in, double scale, double off) {
    int ok = 1;
    double *y = mem_array((size_t)in, sizeof *y), *row = mem_array((size_t)in, sizeof *row);
    for (int r = 0; r < R; r++) {
        double uu = 0, cross = 0, wrong = 0;
        for (int o = 0; o < out; o++) uu += B[o * R + r] * B[o * R + r];
        for (int o = 0; o < out; o++) cross += B[o * R] * B[o * R + 1];
        double size = norm(W, (size_t)(out * in)) / (scale * sqrt(uu));
        for (int i = 0; i < in; i++) {
            y[i] = row[i] = 0;
            for (int o = 0; o < out; o++) y[i] += B[o * R + r] * M[o * in + i] / sqrt(uu);
            for (int o = 0; o < out; o++) row[i] += B[o * R + r] * W[o * in + i] / (scale * uu);
            wrong = fmax(wrong, fabs(A[r * in + i] - row[i]));
        }
        ok &= fabs(scale * uu - want[r]) <= off && fabs(norm(y, (size_t)in) - want[r]) <= off;
        ok &= fabs(cross) <= 0x1p-20 * want[0] / scale && wrong <= 0x1p-21 * size;
    }
    free(y), free(row);
    return ok;
}

static void expect_adapter(const Golden *g, const Adapter *a, const double *W, const double *C,
                           bool smallest) {
    int out = a->out, in = a->in, n = out < in ? out : in;
    double *M = mem_array((size_t)(out * in), sizeof *M);
    for (int o = 0; o < out; o++)
        for (int k = 0; k < in; k++)
            for (int i = 0; i < in; i++) M[o * in + i] += W[o * in + k] * C[k * in + i];
    double *s = singular(g->m.ex, M, out, in), *want = smallest ? s + n - R : s;
    double off = OFF * norm(W, (size_t)(out * in)) * norm(C, (size_t)(in * in));
    double *A = test_get_f32(g->m.ex, a->A->master, a->A->n);
    double *B = test_get_f32(g->m.ex, a->B->master, a->B->n);
    double *A0 = test_get_f32(g->m.ex, a->A0->master, a->A0->n);
    EXPECT(is_corda(A, B, W, M, want, out, in, (double)a->scale, off), "%s", a->A->name);
    EXPECT(memcmp(A, A0, sizeof *A * a->A->n) == 0, "another start is taken off");
    A[1] += 0.01 * norm(A, (size_t)in);
    TEST_DETECTS(is_corda(A, B, W, M, want, out, in, (double)a->scale, off));
    free(A), free(B), free(A0), free(s), free(M);
}

static void test_factors(Golden *g, enum StartKind kind) {
    Batch batch;
    batch_of(&batch, g);
    StartOptions o = {.kind = kind, .rank = R, .alpha = 3 * R, .batch = &batch.b};
    LoraShape shape;
    Lora l;
    StSet *file;
    Err err;
    for (int p = 0; p < PROJ_COUNT; p++) o.target[p] = true;
    MUST(st_open_folder(&file, g->folder, "model", &err), err);
    MUST(adapter_start_shape(&shape, &g->m.c, &o, NULL, &err), err);
    lora_alloc(&l, g->m.ex, &g->m.c, &shape, true);
    lora_shape_free(&shape);
    g->m.lora = &l; /* as the program has it */
    MUST(adapter_start_fill(&l, &g->m, &o, NULL, &err), err);
    g->m.lora = NULL;
    for (int layer = 0; layer < g->m.c.L; layer++)
        for (enum Group group = 0; group < GROUP_COUNT; group++) {
            double *C = moment(g, layer, group);
            for (enum Proj p = group_first[group]; p < group_first[group + 1]; p++) {
                double *W = weight(file, layer, p);
                expect_adapter(g, lora_at(&l, layer, p), W, C, kind == START_CORDA_KPM);
                free(W);
            }
            free(C);
        }
    lora_free(&l);
    st_close(file);
}

/* A weight of no directions. Where the smallest are asked for no lower rank has them. */
static void test_refused(Golden *g) {
    static const char *const remedy[] = {"--rank 2; use a lower --rank",
                                         "--rank 2; use --init corda"};
    Exec *ex = g->m.ex;
    const store **at = &g->m.layer[1].proj[PROJ_K], *own = *at;
    size_t bytes = (size_t)proj_out(&g->m.c, PROJ_K) * (size_t)g->m.c.D * dtype_size(ex->dtype);
    store *zero = exec_alloc(ex, bytes, "a weight of zeros");
    Batch batch;
    Err err;
    batch_of(&batch, g);
    exec_zero(ex, zero, bytes);
    *at = zero;
    for (int smallest = 0; smallest < 2; smallest++) {
        StartOptions o = {.kind = smallest ? START_CORDA_KPM : START_CORDA,
                          .rank = R,
                          .alpha = R,
                          .target = {[PROJ_K] = true},
                          .batch = &batch.b};
        LoraShape shape;
        Lora l;
        MUST(adapter_start_shape(&shape, &g->m.c, &o, NULL, &err), err);
        lora_alloc(&l, ex, &g->m.c, &shape, true);
        lora_shape_free(&shape);
        EXPECT_REFUSED(adapter_start_fill(&l, &g->m, &o, NULL, &err), err, EXIT_INPUT,
                       remedy[smallest]);
        EXPECT(strstr(err.text, "layer 1, k_proj: "), "not which weight: %s", err.text);
        lora_free(&l);
    }
    *at = own;
    exec_free(ex, zero);
}

static void body(Exec *ex) {
    Golden g;
    if (ex->dtype != DTYPE_F32) return; /* bf16's rounding is no matter of this */
    golden_open(&g, ex, golden_models[0]);
    test_factors(&g, START_CORDA);
    test_factors(&g, START_CORDA_KPM);
    test_refused(&g);
    golden_close(&g);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_corda");
}
