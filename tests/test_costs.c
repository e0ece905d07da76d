/* What calls of ops are said to cost (kernels/contracts.h), against counts made by hand. */
#include "kernels/device.h"
#include "kernels/ops.h"
#include "data/base/mem.h"
#include "tests/test.h"

static OpCall last;
static int calls;
static void keep(void *context, const OpCall *call) {
    (void)context;
    last = *call;
    calls++;
}

static void costs(const char *op, double bytes, double flops, enum OpUnit unit) {
    EXPECT(strcmp(last.op, op) == 0, "%s, expected %s", last.op, op);
    EXPECT(last.bytes == bytes, "%s: %.0f bytes, expected %.0f", op, last.bytes, bytes);
    EXPECT(last.flops == flops, "%s: %.0f FLOPs, expected %.0f", op, last.flops, flops);
    EXPECT(last.unit == unit, "%s: unit %d", op, (int)last.unit);
    EXPECT(last.seconds >= 0 && last.seconds < 60, "%s: %g s", op, last.seconds);
}

/* Counted by hand, at an element of 2 bytes and one of 4. */
static void test_calls(enum Dtype dtype) {
    Exec ex;
    CHECK(!exec_open(&ex, DEVICE_CPU, dtype), "no cpu");
    const double s = (double)dtype_size(dtype);
    size_t room = 4096 * sizeof(double);
    char *zero = mem_array(room, 1);
    store *x = exec_alloc(&ex, room, "x"), *y = exec_alloc(&ex, room, "y");
    float *f = exec_alloc(&ex, room, "f"), *g = exec_alloc(&ex, room, "g");
    exec_zero(&ex, x, room), exec_zero(&ex, y, room), exec_zero(&ex, f, room);
    exec_zero(&ex, g, room);
    exec_watch(&ex, keep, NULL);
    ex.op->rmsnorm_fwd(&ex, y, f, x, x, 3, 8, 1e-6f); /* x, y of 24 elements */
    costs("rmsnorm_fwd", 48 * s, 96, UNIT_VECTOR);
    ex.op->rmsnorm_bwd(&ex, y, x, x, x, f, 3, 8); /* dx twice, dy, x */
    costs("rmsnorm_bwd", 96 * s, 168, UNIT_VECTOR);
    ex.op->gemm(&ex, y, 5, x, 4, x, 4, 3, 5, 4, GEMM_NT, 1, 0); /* 12 + 20 read, 15 written */
    costs("gemm", 47 * s, 120, UNIT_PRODUCT);
    ex.op->gemm(&ex, y, 5, x, 4, x, 5, 3, 5, 4, GEMM_NN, 1, 1); /* and read */
    costs("gemm", 62 * s, 120, UNIT_PRODUCT);
    ex.op->gemm_f32(&ex, f, 5, x, 4, x, 4, 3, 5, 4, GEMM_NT, 1, 0);
    costs("gemm_f32", 32 * s + 60, 120, UNIT_PRODUCT);
    ex.op->gemm_grad(&ex, f, x, 3, x, 5, 4, 3, 5, 1); /* 12 + 20, C read and written */
    costs("gemm_grad", 32 * s + 120, 120, UNIT_PRODUCT);
    ex.op->rope_fwd(&ex, x, f, g, (int32_t *)y, 2, 3, 8); /* 48 elements, 8 f32 of angles a row */
    costs("rope_fwd", 96 * s + 64, 144, UNIT_VECTOR);
    ex.op->xent(&ex, y, g, f, (int32_t *)x, f, 2, 7, 30);
    costs("xent", 14 * (4 + s), 560, UNIT_VECTOR);
    ex.op->xent(&ex, NULL, g, f, (int32_t *)x, NULL, 2, 7, 30);
    costs("xent", 14 * 4, 560, UNIT_VECTOR);
    ex.op->logit_facts(&ex, g, g + 2, g + 4, f, (int32_t *)x, 2, 7, 30);
    costs("logit_facts", 14 * 4, 560, UNIT_VECTOR);
    ex.op->adamw(&ex, f, g, g, f, 10, 1, (AdamW){.eps = 1, .step = 1}); /* 4 read, 3 written */
    costs("adamw", 280, 150, UNIT_VECTOR);
    SaeEncoder sae = {.w = f, .b = g, .D = 8, .S = 16, .act = SAE_RELU};
    ex.op->sae_encode(&ex, f + 2048, x, sae, 3);                      /* x, w and the activations */
    costs("sae_encode", 24 * s + 4 * 128 + 4 * 48, 768, UNIT_VECTOR); /* f32 in both tables */

    /* Rows 0..2 see 1, 2, 3; a window of 2 leaves 1, 2, 2. Two query heads of 8, one for keys. */
    Segment seg = {.row = 0, .len = 3};
    AttnShape a = {.H = 2, .K = 1, .E = 8, .window = 2, .scale = 1};
    Segment *device_seg = exec_alloc(&ex, sizeof seg, "segments");
    exec_copy_in(&ex, device_seg, &seg, sizeof seg);
    ex.op->attn_fwd(&ex, y, f, x, x, x, device_seg, &seg, 1, 3, a); /* q, o 48; k, v 24 */
    costs("attn_fwd", 144 * s, 4 * 8 * 2 * 5, UNIT_PRODUCT);
    store *z = exec_alloc(&ex, room, "z");
    ex.op->attn_bwd(&ex, y, z, (store *)g, x, x, x, x, x, f, device_seg, &seg, 1, 3, a);
    exec_free(&ex, z);
    costs("attn_bwd", 288 * s, 10 * 8 * 2 * 5, UNIT_PRODUCT); /* q, o, dq, d_o; k, v, dk, dv */
    int32_t len[2] = {1, 3}, slot[2] = {0, 1};
    exec_copy_in(&ex, g, len, sizeof len);
    exec_copy_in(&ex, f, slot, sizeof slot);
    ex.op->attn_decode(&ex, y, x, x, x, (int32_t *)f, (int32_t *)g, 2, 3, a); /* 1 and 2 keys */
    costs("attn_decode", (2 * 3 * 8 + 2 * 32) * s, 4 * 8 * 2 * 3, UNIT_PRODUCT);
    int seen = calls;
    exec_watch_end(&ex);
    ex.op->cast(&ex, x, f, 1);
    EXPECT(seen == 15 && calls == seen, "%d calls seen, then %d", seen, calls);
    calls = 0;
    exec_free(&ex, x), exec_free(&ex, y), exec_free(&ex, f), exec_free(&ex, g);
    exec_free(&ex, device_seg);
    exec_close(&ex);
    free(zero);
}

/* The same for ops that work element by element, choices and factorisations. */
static void test_more_calls(enum Dtype dtype) {
    enum { ROOM = 1024 };
    Exec ex;
    CHECK(!exec_open(&ex, DEVICE_CPU, dtype), "no cpu");
    const double s = (double)dtype_size(dtype);
    void *p[8];
    for (int i = 0; i < 8; i++) exec_zero(&ex, p[i] = exec_alloc(&ex, ROOM, "p"), ROOM);
    exec_watch(&ex, keep, NULL);
    ex.op->residual_norm_fwd(&ex, p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], 3, 8, 1e-6f);
    costs("residual_norm_fwd", 96 * s, 9 * 24, UNIT_VECTOR); /* x, p read; x2, y written */
    ex.op->residual_norm_bwd(&ex, p[0], p[1], p[2], p[4], p[5], p[6], p[7], p[3], p[3], 3, 8);
    costs("residual_norm_bwd", 144 * s, 7 * 24 + 6 * 24, UNIT_VECTOR); /* dp is not added to */
    ex.op->rmsnorm_grad(&ex, p[0], p[1], p[2], p[3], 3, 8);
    costs("rmsnorm_grad", 48 * s, 3 * 24, UNIT_VECTOR); /* dy, x read */
    ex.op->embed_bwd(&ex, p[0], p[1], p[4], p[5], 1, 8, 4, 2);
    costs("embed_bwd", 8 * s + 64, 16, UNIT_VECTOR); /* dx read; the table's row read and written */
    ex.op->split(&ex, p[0], p[1], p[2], 10);
    costs("split", 80, 0, UNIT_VECTOR); /* of bf16 two halves written */
    ex.op->join(&ex, p[0], p[1], p[2], 10);
    costs("join", 80, 0, UNIT_VECTOR);
    ex.op->adamw_split(&ex, p[0], p[1], p[2], p[3], p[4], 10, 1, (AdamW){.eps = 1, .step = 1});
    costs("adamw_split", 280, 150, UNIT_VECTOR);
    ex.op->project_out(&ex, p[0], p[1], p[2], 5, 2, 3);
    costs("project_out", 12 * 10 + 8 * 15, 4 * 5 * 2 * 3, UNIT_VECTOR); /* x, v read twice */
    ex.op->geglu_fwd(&ex, p[0], p[1], p[2], 10);
    costs("geglu_fwd", 30 * s, 300, UNIT_VECTOR);
    ex.op->geglu_bwd(&ex, p[0], p[1], p[2], p[3], p[4], 10);
    costs("geglu_bwd", 50 * s, 400, UNIT_VECTOR);
    ex.op->sample(&ex, p[0], p[1], NULL, 2, 7, 30, (Sampling){0, 1, 0});
    costs("sample", 8 * 14, 280, UNIT_VECTOR); /* logits read and left capped, in f32 */
    ex.op->sample(&ex, p[0], p[1], p[2], 2, 7, 30, (Sampling){1, 1, 0});
    costs("sample", 8 * 14, 560, UNIT_VECTOR);
    ex.op->top_k(&ex, p[0], p[1], 9, 3);
    costs("top_k", 8 * 9 + 4 * 3, 9, UNIT_VECTOR);
    const double rows[6] = {0, 1, 4, 9, 16, 25};
    exec_copy_in(&ex, p[3], rows, sizeof rows);
    ex.op->qr(&ex, p[3], 3, 2); /* 6 doubles read and written, 4 M N^2 */
    costs("qr", 96, 48, UNIT_VECTOR);
    ex.op->svd(&ex, p[0], p[1], p[2], p[3], 3, 2); /* A; U of 6, Vt of 4 */
    costs("svd", 128, 72, UNIT_VECTOR);
    ex.op->svd(&ex, p[0], p[1], p[2], p[3], 2, 3); /* U of 4, Vt of 6 */
    costs("svd", 128, 72, UNIT_VECTOR);
    exec_watch_end(&ex);
    for (int i = 7; i >= 0; i--) exec_free(&ex, p[i]);
    exec_close(&ex);
}

int main(void) {
    test_calls(DTYPE_F32);
    test_calls(DTYPE_BF16);
    test_more_calls(DTYPE_F32);
    test_more_calls(DTYPE_BF16);
    return test_done("costs");
}
