/* The FLOPs that a training pass needs, against a count made by hand. */
#include "host/stage/flops.h"

#include <math.h>
#include <stdlib.h>

#include "tests/test.h"

enum { D = 8, F = 24, H = 2, K = 1, E = 8, V = 40, R = 2, ROWS = 5, LABELS = 3 };

/* target NULL: all weights are trained. */
static double count(Exec *ex, const bool *target, int layers) {
    bool sliding[2] = {true, false};
    Config c = {.V = V, .D = D, .F = F, .L = layers, .H = H, .K = K, .E = E, .window = 2};
    c.sliding = sliding;
    LoraShape shape;
    lora_shape_init(&shape, &c);
    for (int i = 0; i < layers * PROJ_COUNT; i++)
        if (target && target[i % PROJ_COUNT]) shape.rank[i] = R, shape.alpha[i] = 1;
    Lora lora;
    lora_alloc(&lora, ex, &c, &shape, true);
    Segment seg[] = {{.row = 0, .len = 3}, {.row = 3, .len = 2}};
    int32_t pos[ROWS] = {0, 1, 2, 0, 1}, label_row[LABELS] = {1, 2, 3};
    Pack p = {.N = ROWS, .nseg = 2, .nlabel = LABELS, .seg = seg, .pos = pos};
    p.label_row = label_row;
    double flops = flops_pack(&c, target ? &lora : NULL, &p);
    lora_free(&lora);
    lora_shape_free(&shape);
    return flops;
}

/* What the peak is measured with: a device multiplies zeros, or one number, faster than others. */
enum { LOOKED_AT = 4096 };
static int products;
static const Ops *real_ops;

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void expect_noise(Exec *ex, const char *name, const store *x) {
    float v[LOOKED_AT];
    int distinct = 1;
    exec_copy_out(ex, v, x, sizeof v); /* f32 */
    qsort(v, LOOKED_AT, sizeof *v, compare);
    for (int i = 1; i < LOOKED_AT; i++) distinct += v[i] != v[i - 1];
    EXPECT(isfinite(v[0]) && distinct > LOOKED_AT / 2, "%s: %d numbers in %d", name, distinct,
           LOOKED_AT);
}

static void spy(Exec *ex, store *C, int ldc, const store *A, int lda, const store *B, int ldb,
                int rows, int cols, int depth, enum GemmForm form, float alpha, float beta) {
    if (products++ == 0) expect_noise(ex, "A", A), expect_noise(ex, "B", B);
    real_ops->gemm(ex, C, ldc, A, lda, B, ldb, rows, cols, depth, form, alpha, beta);
}

static void test_peak(Exec *ex) {
    Ops table = *ex->op;
    real_ops = ex->op;
    table.gemm = spy;
    ex->op = &table;
    double rate = flops_peak(ex);
    ex->op = real_ops;
    EXPECT(products > 0 && rate > 1e6 && isfinite(rate), "%d products, %g FLOP/s", products, rate);
}

int main(void) {
    Exec ex;
    if (exec_open(&ex, DEVICE_CPU, DTYPE_F32)) return 1;
    double q = D * H * E, kv = D * 2 * K * E, o = H * E * D, ffn = 2 * D * F, down = F * D;
    double head = 2.0 * D * V * LABELS;
    /* Pairs: 1 + 2 + 2 and 1 + 2 within the window. The labels see 2 + 3 + 1, or 2 + 2 + 1. */
    double near = 3.0 * 2 * H * E * 8;
    double all_last = 3.0 * 2 * H * E * 6, near_last = 3.0 * 2 * H * E * 5;

    /* Adapter of o alone: q, k, v, forward only; o has its gradients, but none into its input.
     * A: forward and its gradient; B: those, and back to x A^T, which A's gradient needs. */
    bool only_o[PROJ_COUNT] = {[PROJ_O] = true};
    double adapter = R * (2.0 * H * E + 3.0 * D);
    double want = ROWS * kv + LABELS * (q + o + 2 * ffn + 2 * down + adapter) + near_last + head;
    want *= 2;
    double got = count(&ex, only_o, 1);
    EXPECT(got == want, "one layer: %.0f, expected %.0f", got, want);

    /* A layer below it: everything goes back to its o. */
    want = ROWS * (q + kv + o + 2 * ffn + 2 * down + adapter) + near + head;
    want += ROWS * 2 * kv + LABELS * (2 * (q + o + ffn + down) + R * (3.0 * H * E + 3.0 * D));
    want = 2 * (want + all_last);
    got = count(&ex, only_o, 2);
    EXPECT(got == want, "two layers: %.0f, expected %.0f", got, want);

    /* All weights: everything forward, back to the embedding, and for the gradients. */
    want = 3 * (ROWS * kv + LABELS * (q + o + ffn + down)) + near_last + 1.5 * head;
    got = count(&ex, NULL, 1);
    EXPECT(got == 2 * want, "all weights: %.0f, expected %.0f", got, 2 * want);
    test_peak(&ex);
    exec_close(&ex);
    return test_done("flops");
}
