/* The whole model: logits against transformers' Gemma2ForCausalLM, and the properties that packing,
 * windows and adapters must have exactly. */
#include "model/gemma2.h"
#include "tests/golden.h"

/* Parity is asked for at 1e-4 in f32; in bf16 at twice the error that transformers itself makes. */
static const double F32_LOGITS = 1e-4;
static const double BF16_RATIO = 2;

static int logits_close(const char *what, const float *z, const double *ref, size_t n) {
    double max = max_difference(z, ref, n);
    int ok = max <= F32_LOGITS;
    if (getenv("TEST_VERBOSE")) printf("%s: max |difference| %.3g\n", what, max);
    if (!test_quiet) EXPECT(ok, "%s: max |logit difference| %.3g", what, max);
    return ok;
}

static void test_logits(Golden *g, Exec *ex) {
    Pack p;
    golden_pack(g, &p);
    Acts *a = acts_create(&g->m, p.N, p.nseg, 7, ACTS_INFER); /* chunks of 7 rows */
    float *z = golden_logits(&g->m, a, &p);
    size_t V = (size_t)g->m.c.V;
    double got = 0, theirs = 0;
    for (int d = 0, row = 0; d < GOLDEN_DOCS; row += g->n[d++]) {
        char what[192];
        snprintf(what, sizeof what, "%s %s doc %d", g->folder, ex->op->name, d);
        size_t n = (size_t)g->n[d] * V;
        double *ref = golden_f64(golden_ref(g, "doc%d.logits", d));
        double *low = golden_f64(golden_ref(g, "doc%d.logits_bf16", d));
        float *mine = z + (size_t)row * V;
        if (ex->dtype == DTYPE_F32) {
            logits_close(what, mine, ref, n);
            mine[n / 2] += 2e-4f;
            TEST_DETECTS(logits_close(what, mine, ref, n));
            mine[n / 2] = NAN;
            TEST_DETECTS(logits_close(what, mine, ref, n));
        }
        double e = rms_difference(mine, ref, n);
        got += e * e * (double)n;
        for (size_t i = 0; i < n; i++) theirs += (low[i] - ref[i]) * (low[i] - ref[i]);
        free(ref), free(low);
    }
    if (ex->dtype == DTYPE_BF16) {
        double ratio = sqrt(got / theirs);
        if (getenv("TEST_VERBOSE")) printf("%s: bf16 error ratio %.3f\n", g->folder, ratio);
        EXPECT(ratio <= BF16_RATIO, "%s: rms error in bf16 is %.3f of transformers'", g->folder,
               ratio);
    }
    free(z);
    acts_destroy(a);
    pack_free(&p);
}

static void body(Exec *ex) {
    for (int i = 0; i < GOLDEN_MODELS; i++) {
        Golden g;
        golden_open(&g, ex, golden_models[i]);
        test_logits(&g, ex);
        golden_close(&g);
    }
}

int main(void) {
    test_each_exec(body);
    return test_done("test_model");
}
