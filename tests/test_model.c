/* The whole model: logits against transformers' Gemma2ForCausalLM, and the properties that packing,
 * windows and adapters must have exactly. */
#include <omp.h>

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

/* ------------------------------------------------------------------------------ adapters -- */

static float *pack_logits(const Model *m, const Pack *p) {
    Acts *a = acts_create(m, p->N, p->nseg, p->N, ACTS_INFER);
    float *z = golden_logits(m, a, p);
    acts_destroy(a);
    return z;
}

/* PEFT folders of three kinds: plain; a regular expression with rank and alpha patterns; rsLoRA on
 * one layer. */
static void test_adapters(Golden *g, Exec *ex) {
    static const char *const names[] = {"adapter", "adapter_pattern", "adapter_rslora"};
    if (ex->dtype != DTYPE_F32) return;
    Pack p;
    pack_init(&p, GOLDEN_ROWS, 4, 0);
    pack_add(&p, g->token[2], NULL, g->n[2], 0);
    size_t n = (size_t)p.N * (size_t)g->m.c.V;
    for (int i = 0; i < 3; i++) {
        Lora l;
        golden_adapter(g, &l, names[i], false);
        float *z = pack_logits(&g->m, &p);
        double *ref = golden_f64(golden_ref(g, "doc2.logits_%s", names[i]));
        logits_close(names[i], z, ref, n);
        free(z), free(ref);
        lora_free(&l);
        g->m.lora = NULL;
    }
    pack_free(&p);
}

/* B = 0 is the start of a training: nothing may move, not even by a rounding. */
static void test_zero_adapter(Golden *g) {
    Pack p;
    golden_pack(g, &p);
    float *base = pack_logits(&g->m, &p);
    Lora l;
    golden_adapter(g, &l, "adapter", false);
    float *full = pack_logits(&g->m, &p);
    for (int i = 0; i < g->m.c.L * PROJ_COUNT; i++) {
        const Adapter *a = &l.adapter[i];
        exec_zero(l.ex, a->B->master, a->B->n * sizeof *a->B->master);
    }
    params_sync(&l.params);
    float *zero = pack_logits(&g->m, &p);
    size_t n = (size_t)p.N * (size_t)g->m.c.V;
    EXPECT(memcmp(base, zero, n * sizeof *base) == 0, "%s: B = 0 moves logits", g->folder);
    EXPECT(memcmp(base, full, n * sizeof *base) != 0, "%s: B has no effect", g->folder);
    free(base), free(full), free(zero);
    lora_free(&l);
    g->m.lora = NULL;
    pack_free(&p);
}

/* ------------------------------------------------------------------------------- packing -- */

/* A document's logits are the same bits alone, in any company, and at any place of a pack. */
static void test_isolation(Golden *g) {
    Pack p, q, alone;
    size_t V = (size_t)g->m.c.V;
    golden_pack(g, &p);
    golden_pack(g, &q);
    for (int i = 0; i < q.N; i++) /* all documents but number 2 get other tokens */
        if (i < q.seg[2].row || i >= q.seg[3].row) q.token[i] = (q.token[i] * 7 + 3) % g->m.c.V;
    pack_init(&alone, GOLDEN_ROWS, 4, GOLDEN_ROWS);
    golden_add(g, &alone, 2);
    float *a = pack_logits(&g->m, &p), *b = pack_logits(&g->m, &q);
    float *c = pack_logits(&g->m, &alone);
    size_t at = (size_t)p.seg[2].row * V, n = (size_t)g->n[2] * V;
    EXPECT(memcmp(a + at, b + at, n * sizeof *a) == 0, "%s: a neighbour leaks", g->folder);
    EXPECT(memcmp(a + at, c, n * sizeof *a) == 0, "%s: the place in the pack shows", g->folder);
    EXPECT(memcmp(a, b, at * sizeof *a) != 0, "%s: other tokens change nothing", g->folder);
    free(a), free(b), free(c);
    pack_free(&p), pack_free(&q), pack_free(&alone);
}

typedef struct Stream {
    Exec *ex;
    int D, layers;
    void *x[8]; /* by layer, host */
} Stream;

static void keep_stream(void *context, int layer, const store *x, int N) {
    Stream *s = context;
    size_t bytes = (size_t)N * (size_t)s->D * dtype_size(s->ex->dtype);
    s->x[layer] = mem_array(bytes, 1);
    exec_copy_out(s->ex, s->x[layer], x, bytes);
    s->layers++;
}

static Stream stream_of(const Model *m, const Pack *p, int layers) {
    Stream s = {.ex = m->ex, .D = m->c.D};
    Acts *a = acts_create(m, p->N, p->nseg, 0, ACTS_INFER);
    model_forward(m, a, p, layers, keep_stream, &s);
    acts_destroy(a);
    EXPECT(s.layers == layers, "%d of %d layers were seen", s.layers, layers);
    return s;
}

static void stream_free(Stream *s) {
    for (int l = 0; l < s->layers; l++) free(s->x[l]);
}

static int rows_equal(const Stream *a, const Stream *b, int layer, int row_a, int row_b) {
    size_t n = (size_t)a->D * dtype_size(a->ex->dtype);
    return memcmp((char *)a->x[layer] + (size_t)row_a * n, (char *)b->x[layer] + (size_t)row_b * n,
                  n) == 0;
}

static int row_equal(const Stream *a, const Stream *b, int layer, int row) {
    return rows_equal(a, b, layer, row, row);
}

/* Through one sliding layer a token reaches exactly the W - 1 tokens after it; through a full
 * layer also later ones; and never one before it. */
static void test_window(Golden *g) {
    Pack p;
    pack_init(&p, GOLDEN_ROWS, 4, 0);
    pack_add(&p, g->token[3], NULL, g->n[3], 0);
    int W = g->m.c.window, at = 4;
    CHECK(p.N > at + W + 2 && g->m.c.sliding[0], "the text is too short for this test");
    for (int full = 0; full < 2; full++) {
        g->m.c.sliding[0] = !full;
        Stream a = stream_of(&g->m, &p, 1);
        p.token[at] += 1;
        Stream b = stream_of(&g->m, &p, 1);
        p.token[at] -= 1;
        int beyond = 0;
        for (int i = 0; i < p.N; i++) {
            int equal = row_equal(&a, &b, 0, i);
            EXPECT(equal || i >= at, "%s: token %d reaches back to row %d", g->folder, at, i);
            if (i == at || i == at + W - 1)
                EXPECT(!equal, "%s: token %d does not reach row %d", g->folder, at, i);
            if (i >= at + W) beyond += !equal;
        }
        EXPECT(full ? beyond > 0 : beyond == 0, "%s: %s layer: %d rows beyond the window",
               g->folder, full ? "full" : "sliding", beyond);
        stream_free(&a), stream_free(&b);
    }
    g->m.c.sliding[0] = true;
    pack_free(&p);
}

/* A pass that ends early leaves what the whole pass leaves there. */
static void test_early_end(Golden *g) {
    Pack p;
    golden_pack(g, &p);
    Stream all = stream_of(&g->m, &p, g->m.c.L);
    for (int n = 0; n < g->m.c.L; n++) {
        Stream some = stream_of(&g->m, &p, n);
        for (int l = 0; l < n; l++)
            for (int i = 0; i < p.N; i++)
                EXPECT(row_equal(&all, &some, l, i), "%s: %d layers, layer %d, row %d", g->folder,
                       n, l, i);
        stream_free(&some);
    }
    stream_free(&all);
    pack_free(&p);
}

/* The rows that a last layer is computed for are those of the whole pass, in bits; so are all rows
 * of the layers below, and a following pass. */
static void test_last_rows(Golden *g) {
    static const int32_t row[] = {0, 3, 4, 11};
    enum { ROWS = sizeof row / sizeof *row };
    Pack p;
    golden_pack(g, &p);
    Stream all = stream_of(&g->m, &p, g->m.c.L);
    Acts *a = acts_create(&g->m, p.N, p.nseg, 0, ACTS_INFER);
    for (int layers = g->m.c.L; layers > 0; layers--)
        for (int n = 0; n <= ROWS; n++) {
            Stream some = {.ex = g->m.ex, .D = g->m.c.D};
            model_forward_rows(&g->m, a, &p, layers, row, n, keep_stream, &some);
            int last = layers - 1, bad = 0;
            for (int l = 0; l < last; l++)
                for (int i = 0; i < p.N; i++) bad += !row_equal(&all, &some, l, i);
            for (int i = 0; i < n; i++) bad += !rows_equal(&all, &some, last, row[i], i);
            EXPECT(bad == 0, "%s: %d rows of layer %d: %d differ", g->folder, n, last, bad);
            if (n > 1 && last == 0) TEST_DETECTS(rows_equal(&all, &some, last, row[1], 0));
            stream_free(&some);
        }
    acts_destroy(a);
    stream_free(&all);
    pack_free(&p);
}

/* Two replies that branch off one prompt see what they would see as documents of their own. Sums
 * over keys are split at the branch, so that f32 may round differently there; what that can do to
 * a logit is bounded as parity is. */
static void test_branches(Golden *g) {
    if (g->m.ex->dtype != DTYPE_F32) return;
    enum { PROMPT = 10, LEN = 17 };
    const int32_t *t = g->token[3];
    int32_t two[2][LEN];
    Pack p, q;
    pack_init(&p, GOLDEN_ROWS, 8, 0);
    pack_init(&q, GOLDEN_ROWS, 8, 0);
    pack_add(&p, t, NULL, 3, 0); /* so that no row is at its own position */
    pack_add(&p, t, NULL, PROMPT + 2, 1);
    for (int b = 0; b < 2; b++) {
        for (int i = 0; i < LEN; i++)
            two[b][i] = i < PROMPT ? t[i] : (t[i] + 5 + 11 * b) % g->m.c.V;
        pack_add_branch(&p, 1, PROMPT, two[b] + PROMPT, NULL, LEN - PROMPT, 2 + b);
        pack_add(&q, two[b], NULL, LEN, b);
    }
    float *z = pack_logits(&g->m, &p), *alone = pack_logits(&g->m, &q);
    size_t V = (size_t)g->m.c.V, n = (LEN - PROMPT) * V;
    double *ref = mem_array(n, sizeof *ref);
    for (int b = 0; b < 2; b++) {
        for (size_t i = 0; i < n; i++) ref[i] = alone[((size_t)b * LEN + PROMPT) * V + i];
        float *mine = z + (3 + PROMPT + 2 + (size_t)b * (LEN - PROMPT)) * V;
        logits_close("branch", mine, ref, n);
    }
    free(z), free(alone), free(ref);
    pack_free(&p), pack_free(&q);
}

/* -------------------------------------------------------------------------------- others -- */

static void test_threads(Golden *g) {
    Pack p;
    golden_pack(g, &p);
    size_t n = (size_t)p.N * (size_t)g->m.c.V;
    int before = omp_get_max_threads();
    float *one = NULL;
    for (int threads = 1; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        float *z = pack_logits(&g->m, &p);
        if (!one) {
            one = z;
            continue;
        }
        EXPECT(memcmp(one, z, n * sizeof *z) == 0, "%s: %d threads", g->folder, threads);
        free(z);
    }
    omp_set_num_threads(before);
    free(one);
    pack_free(&p);
}

static void test_bytes(Golden *g, Exec *ex) {
    for (int use = ACTS_INFER; use <= ACTS_TRAIN; use++) {
        Lora l;
        golden_adapter(g, &l, "adapter", false);
        size_t before = ex->bytes_now;
        Acts *a = acts_create(&g->m, 33, 5, 12, (enum ActsUse)use);
        EXPECT(ex->bytes_now - before ==
                   acts_bytes(&g->m.c, &l, ex->dtype, 33, 5, 12, (enum ActsUse)use),
               "%s: acts_bytes", g->folder);
        acts_destroy(a);
        lora_free(&l);
        g->m.lora = NULL;
    }
}

/* A slip in any number of the architecture breaks parity on some document. */
static int parity(Golden *g, const Pack *p) {
    float *z = pack_logits(&g->m, p);
    int ok = 1;
    for (int d = 0, row = 0; d < GOLDEN_DOCS; row += g->n[d++]) {
        double *ref = golden_f64(golden_ref(g, "doc%d.logits", d));
        size_t V = (size_t)g->m.c.V;
        ok &= logits_close("mutant", z + (size_t)row * V, ref, (size_t)g->n[d] * V);
        free(ref);
    }
    free(z);
    return ok;
}

static void flip_layers(Config *c) {
    for (int l = 0; l < c->L; l++) c->sliding[l] = !c->sliding[l];
}

static void test_mutants(Golden *g) {
    if (g->m.ex->dtype != DTYPE_F32 || !test_on_cpu(g->m.ex)) return;
    Pack p;
    golden_pack(g, &p);
    Config *c = &g->m.c;
    const Config good = *c;
    EXPECT(parity(g, &p), "%s: the model as it is", g->folder);
    c->attn_cap = 0;
    TEST_DETECTS(parity(g, &p));
    *c = good, c->final_cap = 0;
    TEST_DETECTS(parity(g, &p));
    *c = good, c->final_cap *= 1.001f;
    TEST_DETECTS(parity(g, &p));
    *c = good, c->window++;
    TEST_DETECTS(parity(g, &p));
    *c = good, c->window--;
    TEST_DETECTS(parity(g, &p));
    *c = good, c->query_scale *= 1.001f;
    TEST_DETECTS(parity(g, &p));
    *c = good, c->eps *= 1000;
    TEST_DETECTS(parity(g, &p));
    *c = good;
    flip_layers(c);
    TEST_DETECTS(parity(g, &p));
    flip_layers(c);
    g->m.embed_scale *= 1.001f;
    TEST_DETECTS(parity(g, &p));
    g->m.embed_scale /= 1.001f;
    for (int i = 0; i < p.N; i++) p.pos[i] = i; /* a document's positions start at 0 */
    EXPECT(parity(g, &p), "%s: attention depends on absolute positions", g->folder);
    for (int i = 0; i < p.N; i++) p.pos[i] = 0;
    TEST_DETECTS(parity(g, &p));
    pack_free(&p);
}

static void body(Exec *ex) {
    for (int i = 0; i < GOLDEN_MODELS; i++) {
        Golden g;
        golden_open(&g, ex, golden_models[i]);
        test_logits(&g, ex);
        test_mutants(&g);
        test_adapters(&g, ex);
        test_zero_adapter(&g);
        test_isolation(&g);
        test_window(&g);
        test_early_end(&g);
        test_last_rows(&g);
        test_branches(&g);
        if (test_on_cpu(ex)) test_threads(&g);
        test_bytes(&g, ex);
        golden_close(&g);
    }
}

int main(void) {
    test_each_exec(body);
    return test_done("test_model");
}
