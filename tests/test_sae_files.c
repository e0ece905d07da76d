/* SAE files: what SAELens computed with files that it and NumPy wrote (tests/golden/sae, made by
 * tools/make_golden_sae.py), patterns, and everything that must be refused by name. */
#include "model/sae.h"

#include <math.h>

#include "data/base/safetensors.h"
#include "model/neuronpedia.h"
#include "tests/files.h"

#define GOLDEN "tests/golden/sae/"
#define SCOPE GOLDEN "gemma-scope-2b-pt-res/layer_{layer}/width_16k/average_l0_"
enum { D = 8, S = 12, ROWS = 6, LAYER = 3 };

static StSet *expected;

static double *tensor(const char *name, const char *part, size_t count) {
    char full[64];
    snprintf(full, sizeof full, "%s%s", name, part);
    const StTensor *t = st_find(expected, full);
    CHECK(t && t->count == count, "%s", full);
    float *f = malloc(count * sizeof *f);
    double *d = malloc(count * sizeof *d);
    CHECK(f && d, "out of memory");
    st_read_f32(t, f, 0, count);
    for (size_t i = 0; i < count; i++) d[i] = f[i];
    free(f);
    return d;
}

/* Both sides sum D products, subtract b_dec and add b_enc in f32, in their own order: each is off
 * by at most D + 3 roundings of the largest sum of magnitudes. */
static void test_golden(Exec *ex, const char *pattern, const char *name, enum SaeAct act) {
    Sae s;
    Err err;
    if (!sae_open(&s, ex, pattern, LAYER, D, &err)) {
        EXPECT(0, "%s", err.text);
        return;
    }
    EXPECT(s.enc.act == act && s.enc.S == S && s.enc.D == D, "%s: act %d S %d", name, s.enc.act,
           s.enc.S);
    double *x = tensor("x", "", (size_t)ROWS * D), *size = tensor(name, ".size", 1);
    double *want = tensor(name, ".acts", (size_t)ROWS * S);
    store *dx = test_store(ex, x, (size_t)ROWS * D);
    float *a = test_alloc(ex, ROWS * S * sizeof *a);
    ex->op->sae_encode(ex, a, dx, s.enc, ROWS);
    double *got = test_get_f32(ex, a, (size_t)ROWS * S), tol = 2 * (D + 3) * ldexp(1, -24) * *size;
    test_close(name, got, want, (size_t)ROWS * S, tol, 0);
    int fires = 0;
    for (int i = 0; i < ROWS * S; i++) fires += want[i] > 0;
    EXPECT(fires > ROWS && fires < ROWS * S, "%s: %d activations fire", name, fires);
    want[0] += 3 * tol;
    TEST_DETECTS(test_close(name, got, want, (size_t)ROWS * S, tol, 0));
    free(x), free(size), free(want), free(got);
    test_free(ex, dx), test_free(ex, a);
    sae_close(&s);
}

static void goldens(Exec *ex) {
    test_golden(ex, GOLDEN "standard", "standard", SAE_RELU);
    test_golden(ex, GOLDEN "plain/", "plain", SAE_RELU);
    test_golden(ex, GOLDEN "topk/cfg.json", "topk", SAE_TOPK);
    test_golden(ex, GOLDEN "rescaled", "rescaled", SAE_TOPK);
    test_golden(ex, GOLDEN "jump*", "jumprelu", SAE_JUMPRELU);
    test_golden(ex, GOLDEN "old_standard/*", "old_standard", SAE_RELU);
    test_golden(ex, GOLDEN "old_topk", "old_topk", SAE_TOPK);
    test_golden(ex, GOLDEN "old_pre", "old_pre", SAE_RELU);
    test_golden(ex, SCOPE "7/params.npz", "scope", SAE_JUMPRELU); /* stored */
    test_golden(ex, SCOPE "59", "scope", SAE_JUMPRELU);           /* deflated, as a folder */
}

static void test_patterns(void) {
    Sae s;
    Err err;
    EXPECT_REFUSED(sae_open(&s, NULL, SCOPE "*/params.npz", LAYER, D, &err), err, EXIT_INPUT,
                   "expected exactly one SAE for layer 3, found 2: " GOLDEN);
    EXPECT(strstr(err.text, "average_l0_7/") && strstr(err.text, "average_l0_59/"), "%s", err.text);
    EXPECT_REFUSED(sae_open(&s, NULL, SCOPE "*/params.npz", 4, D, &err), err, EXIT_INPUT,
                   "no SAE for layer 4");
    EXPECT_REFUSED(sae_open(&s, NULL, GOLDEN "old*", LAYER, D, &err), err, EXIT_INPUT, "found 3: ");
    EXPECT_REFUSED(sae_open(&s, NULL, "no/such/{layer}.npz", LAYER, D, &err), err, EXIT_INPUT,
                   "--sae no/such/3.npz: no SAE");
    EXPECT_REFUSED(sae_open(&s, NULL, SCOPE "7", LAYER, D + 1, &err), err, EXIT_INPUT,
                   "width 8 (rank 2), the model's has 9");
    EXPECT_REFUSED(sae_open(&s, NULL, GOLDEN "topk", LAYER, D - 1, &err), err, EXIT_INPUT,
                   "the model's has 7");
    EXPECT_REFUSED(sae_open(&s, NULL, GOLDEN "topk", 5, D, &err), err, EXIT_INPUT,
                   "hook_name in cfg.json says layer 3, expected the SAE of layer 5");
    EXPECT_REFUSED(sae_open(&s, NULL, GOLDEN "old_pre", 4, D, &err), err, EXIT_INPUT,
                   "says layer 3, expected the SAE of layer 4");
    EXPECT_REFUSED(
        sae_open(&s, NULL, GOLDEN "gemma-scope-2b-pt-res/layer_3/width_16k/*7", 2, D, &err), err,
        EXIT_INPUT, "its path says layer 3, expected the SAE of layer 2");
    if (sae_open(&s, NULL, SCOPE "7", LAYER, D, &err)) {
        EXPECT(!s.enc.w && s.enc.S == S, "opened for its shapes alone");
        EXPECT(strcmp(s.id, "gemma-2-2b/3-gemmascope-res-16k__l0-7") == 0, "id %s", s.id);
        EXPECT(strstr(s.file, "average_l0_7/params.npz"), "file %s", s.file);
        sae_close(&s);
    } else {
        EXPECT(0, "%s", err.text);
    }
    sae_close(&s);
}

static void test_ids(void) {
    static const char *const PAIR[][2] = {
        {"/m/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71/params.npz",
         "gemma-2-2b/20-gemmascope-res-16k"},
        {"models--google--gemma-scope-9b-pt-res/snapshots/ab/layer_30/width_131k/average_l0_95",
         "gemma-2-9b/30-gemmascope-res-131k"},
        {"gemma-scope-9b-it-res/layer_9/width_16k/average_l0_88/params.npz",
         "gemma-2-9b-it/9-gemmascope-res-16k"},
        {"gemma-scope-9b-pt-res/layer_9/width_16k/average_l0_88/params.npz",
         "gemma-2-9b/9-gemmascope-res-16k__l0-88"},
        {"gemma-scope-2b-pt-res-canonical/layer_5/width_65k/canonical",
         "gemma-2-2b/5-gemmascope-res-65k"},
        {"gemma-scope-2b-pt-mlp/layer_5/width_16k/average_l0_68", ""},
        {"gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", ""},
        {"layer_20/width_16k/average_l0_71/params.npz", ""},
        {"gemma-scope-2b-pt-res/layer_99/width_16k/average_l0_71", ""},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof PAIR / sizeof *PAIR; i++) {
        char *id = neuronpedia_id(PAIR[i][0]);
        EXPECT(strcmp(id, PAIR[i][1]) == 0, "%s: got \"%s\"", PAIR[i][0], id);
        free(id);
    }
}

static void test_decoder(const char *pattern) {
    int32_t feature[3] = {11, 0, 5};
    double rows[3 * D], one[D];
    Sae s;
    Err err;
    CHECK(sae_open(&s, NULL, pattern, LAYER, D, &err), "%s", err.text);
    EXPECT(sae_decoder_rows(&s, rows, feature, 3, &err), "%s", err.text);
    for (int i = 0; i < 3; i++) {
        EXPECT(sae_decoder_rows(&s, one, feature + i, 1, &err), "%s", err.text);
        test_close("decoder rows", rows + (size_t)i * D, one, D, 0, 0);
    }
    TEST_DETECTS(test_close("decoder rows", rows, one, D, 0, 0));
    StSet *set;
    if (!strstr(pattern, "npz") && st_open(&set, s.file, &err)) {
        float want[D];
        st_read_f32(st_find(set, "W_dec"), want, 5 * D, D);
        for (int d = 0; d < D; d++) EXPECT(one[d] == want[d], "row 5 is not W_dec[5]");
        st_close(set);
    }
    sae_close(&s);
}

/* The nearest rows, by all rows at once. */
static void test_nearest(const char *pattern) {
    enum { N = 3, K = 2, MOST = 64 };
    int32_t feature[K] = {11, 2}, near[K * N], all[MOST];
    double cosine[K * N], rows[MOST * D], own[K * D];
    Sae s;
    Err err;
    CHECK(sae_open(&s, NULL, pattern, LAYER, D, &err), "%s", err.text);
    int count = s.enc.S;
    CHECK(count <= MOST, "%d features", count);
    for (int i = 0; i < count; i++) all[i] = i;
    CHECK(sae_decoder_rows(&s, rows, all, count, &err), "%s", err.text);
    CHECK(sae_decoder_rows(&s, own, feature, K, &err), "%s", err.text);
    EXPECT(sae_decoder_nearest(&s, near, cosine, own, feature, K, N, &err), "%s", err.text);
    for (int i = 0; i < K; i++) {
        int above = 0;
        for (int j = 0; j < N; j++) {
            const double *x = own + i * D, *y = rows + near[i * N + j] * D;
            double xy = 0, xx = 0, yy = 0;
            for (int d = 0; d < D; d++) xy += x[d] * y[d], xx += x[d] * x[d], yy += y[d] * y[d];
            EXPECT(fabs(xy / sqrt(xx * yy) - cosine[i * N + j]) <= 1e-12, "cosine %g, not %g",
                   cosine[i * N + j], xy / sqrt(xx * yy));
            EXPECT(near[i * N + j] != feature[i], "a row is near to itself");
            EXPECT(j == 0 || cosine[i * N + j] <= cosine[i * N + j - 1], "cosines rise");
        }
        for (int r = 0; r < count; r++) {
            const double *x = own + i * D, *y = rows + r * D;
            double xy = 0, xx = 0, yy = 0;
            for (int d = 0; d < D; d++) xy += x[d] * y[d], xx += x[d] * x[d], yy += y[d] * y[d];
            above += r != feature[i] && xy / sqrt(xx * yy) > cosine[i * N + N - 1] + 1e-12;
        }
        EXPECT(above == N - 1, "%d rows are nearer than the %dth", above, N);
    }
    sae_close(&s);
}

/* An SAELens folder of this test: a configuration and weights of the given shapes. */
typedef struct Weights {
    int D, S, dec_rows, thresholds;
    float value;
    const char *skip;
} Weights;

static const char *folder(const char *cfg, Weights w) {
    const struct {
        const char *name;
        int rank;
        size_t dim[2];
    } part[] = {{"W_enc", 2, {(size_t)w.D, (size_t)w.S}},
                {"W_dec", 2, {(size_t)w.dec_rows, (size_t)w.D}},
                {"b_enc", 1, {(size_t)w.S, 1}},
                {"b_dec", 1, {(size_t)w.D, 1}},
                {"threshold", 1, {(size_t)w.thresholds, 1}}};
    Err err;
    StWriter *out;
    CHECK(files_mkdirs(test_path("lens"), &err), "%s", err.text);
    test_file("lens/cfg.json", cfg, strlen(cfg));
    CHECK(st_writer_open(&out, test_path("lens/sae_weights.safetensors"), &err), "%s", err.text);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < 5; i++) {
            if (w.skip && strcmp(w.skip, part[i].name) == 0) continue;
            if (i == 4 && !strstr(cfg, "jumprelu")) continue;
            if (!pass) st_writer_tensor(out, part[i].name, ST_F32, part[i].rank, part[i].dim);
            for (size_t n = 0;
                 pass && n < part[i].dim[0] * (part[i].rank == 2 ? part[i].dim[1] : 1); n++)
                CHECK(st_writer_data(out, &w.value, sizeof w.value, &err), "%s", err.text);
        }
    CHECK(st_writer_finish(out, &err), "%s", err.text);
    return test_path("lens");
}

static const struct {
    const char *cfg, *message;
} REFUSED[] = {
    {"[]", "cfg.json: expected an object"},
    {"{", "cfg.json: line 1"},
    {"{\"architecture\":\"gated\"}", "architecture = gated is not supported"},
    {"{\"architecture\":\"transcoder\"}", "architecture = transcoder"},
    {"{\"architecture\":\"jumprelu_skip_transcoder\"}", "architecture = jumprelu_skip_transcoder"},
    {"{\"architecture\":\"batchtopk\"}", "architecture = batchtopk"},
    {"{\"activation_fn_str\":\"tanh-relu\"}", "activation_fn = tanh-relu"},
    {"{\"architecture\":\"topk\",\"k\":0}", "k to be an integer above 0"},
    {"{\"architecture\":\"topk\",\"k\":2.5}", "k to be an integer above 0"},
    {"{\"architecture\":\"topk\",\"k\":4294967297}", "k to be an integer above 0"},
    {"{\"architecture\":\"topk\",\"k\":5}", "expected k of at most 4 features, found 5"},
    {"{\"architecture\":\"topk\"}", "found 100"},
    {"{\"normalize_activations\":\"layer_norm\"}", "normalize_activations = layer_norm"},
    {"{\"normalize_activations\":\"constant_norm_rescale\"}", "cannot be folded"},
    {"{\"normalize_activations\":\"expected_average_only_in\"}", "fold_activation_norm_scaling"},
    {"{\"normalize_activations\":true}", "expected_average_only_in is not supported"},
    {"{\"normalize_activations\":7}", "normalize_activations = (no text)"},
    {"{\"reshape_activations\":\"hook_z\"}", "reshape_activations = hook_z"},
    {"{\"apply_b_dec_to_input\":1}", "apply_b_dec_to_input to be true or false"},
    {"{\"hook_name\":\"blocks.3.hook_mlp_out\"}", "hook_name = blocks.3.hook_mlp_out"},
    {"{\"metadata\":{\"hook_name\":\"blocks.3.attn.hook_z\"}}", "blocks.3.attn.hook_z"},
    {"{\"hook_name\":\"model.layers.2\"}", "says layer 2, expected the SAE of layer 3"},
    {"{\"hook_name\":\"blocks.4.hook_out\"}", "says layer 4, expected the SAE of layer 3"},
    {"{\"hook_name\":\"model.layers.3.mlp\"}", "hook_name = model.layers.3.mlp"},
    {"{\"hook_point\":\"blocks.3.hook_resid_pre\"}", "says layer 2, expected the SAE of layer 3"},
    {"{\"hook_point\":\"blocks.3.hook_resid_post\",\"hook_point_head_index\":1}",
     "hook_head_index"},
    {"{\"d_in\":5}", "expected d_in to be 3"},
    {"{\"d_sae\":\"4\"}", "expected d_sae to be 4"},
};

static void test_refused(void) {
    Sae s;
    Err err;
    Weights good = {3, 4, 4, 4, 0.5f, NULL};
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        const char *path = folder(REFUSED[i].cfg, good);
        EXPECT_REFUSED(sae_open(&s, NULL, path, LAYER, 3, &err), err, EXIT_INPUT,
                       REFUSED[i].message);
        EXPECT(!s.path && !s.file, "something was left behind");
    }
    const char *jump = "{\"architecture\":\"jumprelu\"}";
    EXPECT(sae_open(&s, NULL, folder(jump, good), LAYER, 3, &err), "%s", err.text);
    sae_close(&s);
    static const struct {
        Weights w;
        const char *message;
    } SHAPE[] = {
        {{4, 4, 4, 4, 0, NULL}, "the model's has 3"},
        {{3, 4, 5, 4, 0, NULL}, "W_dec: expected shape [4, 3], found [5, 3]"},
        {{3, 4, 4, 5, 0, NULL}, "threshold: expected shape [4], found [5]"},
        {{3, 4, 4, 4, 0, "threshold"}, "expected tensor threshold"},
        {{3, 4, 4, 4, 0, "W_enc"}, "expected a tensor W_enc"},
        {{3, 4, 4, 4, 0, "b_enc"}, "expected tensor b_enc"},
        {{3, 0, 0, 0, 0, NULL}, "found 0"},
    };
    for (size_t i = 0; i < sizeof SHAPE / sizeof *SHAPE; i++)
        EXPECT_REFUSED(sae_open(&s, NULL, folder(jump, SHAPE[i].w), LAYER, 3, &err), err,
                       EXIT_INPUT, SHAPE[i].message);
    CHECK(remove(test_path("lens/sae_weights.safetensors")) == 0, "remove");
    EXPECT_REFUSED(sae_open(&s, NULL, test_path("lens"), LAYER, 3, &err), err, EXIT_INPUT,
                   "sae_weights.safetensors: cannot open");
}

/* Adds a tensor of one element to the folder that was written last. */
static void add_tensor(const char *name, float value) {
    Err err;
    StSet *set;
    StWriter *out;
    size_t one = 1;
    CHECK(st_open(&set, test_path("lens/sae_weights.safetensors"), &err), "%s", err.text);
    CHECK(st_writer_open(&out, test_path("lens/more"), &err), "%s", err.text);
    for (size_t i = 0; i < st_count(set); i++)
        st_writer_tensor(out, st_at(set, i)->name, ST_F32, st_at(set, i)->rank, st_at(set, i)->dim);
    st_writer_tensor(out, name, ST_F32, 1, &one);
    for (size_t i = 0; i < st_count(set); i++)
        CHECK(st_writer_data(out, st_at(set, i)->data, st_at(set, i)->bytes, &err), "%s", err.text);
    CHECK(st_writer_data(out, &value, sizeof value, &err) && st_writer_finish(out, &err), "%s",
          err.text);
    st_close(set);
    CHECK(rename(test_path("lens/more"), test_path("lens/sae_weights.safetensors")) == 0, "more");
}

/* What the architecture does not have is refused by its name, as SAELens' strict load does it. */
static void test_foreign_tensors(void) {
    static const struct {
        const char *cfg, *name;
    } row[] = {
        {"{\"architecture\":\"standard\"}", "threshold"},
        {"{}", "threshold"},
        {"{\"architecture\":\"topk\",\"k\":2}", "threshold"},
        {"{\"activation_fn_str\":\"topk\",\"k\":2}", "W_skip"},
        {"{\"architecture\":\"jumprelu\"}", "W_skip"},
        {"{\"architecture\":\"jumprelu\"}", "log_threshold"},
        {"{\"architecture\":\"jumprelu\"}", "w_enc"},
        {"{}", "W_gate"},
        {"{}", "b_gate"},
        {"{}", "r_mag"},
        {"{}", "b_mag"},
        {"{\"architecture\":\"standard\"}", "scaling_factor"}, /* of 0.5 */
    };
    Sae s;
    Err err;
    Weights good = {3, 4, 4, 4, 0.5f, NULL};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char words[64];
        snprintf(words, sizeof words, "tensor %s is none of a ", row[i].name);
        const char *path = folder(row[i].cfg, good);
        EXPECT(sae_open(&s, NULL, path, LAYER, 3, &err), "%s: %s", row[i].cfg, err.text);
        sae_close(&s);
        add_tensor(row[i].name, 0.5f);
        EXPECT_REFUSED(sae_open(&s, NULL, path, LAYER, 3, &err), err, EXIT_INPUT, words);
    }
    const char *path = folder("{}", good);
    add_tensor("scaling_factor", 1);
    EXPECT(sae_open(&s, NULL, path, LAYER, 3, &err), "a factor of one: %s", err.text);
    sae_close(&s);
}

/* The residual stream by each of its names. */
static void test_hooks(void) {
    static const char *const hook[] = {"blocks.3.hook_resid_post", "blocks.4.hook_resid_pre",
                                       "blocks.3.hook_out", "model.layers.3"};
    Sae s;
    Err err;
    Weights good = {3, 4, 4, 4, 0.5f, NULL};
    for (int i = 0; i < 4; i++) {
        char cfg[128];
        snprintf(cfg, sizeof cfg, "{\"metadata\":{\"hook_name\":\"%s\"}}", hook[i]);
        EXPECT(sae_open(&s, NULL, folder(cfg, good), LAYER, 3, &err), "%s", err.text);
        sae_close(&s);
    }
}

static void test_not_finite(Exec *ex) {
    Sae s;
    Err err;
    Weights bad = {3, 4, 4, 4, NAN, NULL};
    EXPECT_REFUSED(sae_open(&s, ex, folder("{}", bad), LAYER, 3, &err), err, EXIT_INPUT,
                   "b_dec: row 0 holds NaN or infinity");
    bad.value = -INFINITY;
    EXPECT_REFUSED(sae_open(&s, ex, folder("{}", bad), LAYER, 3, &err), err, EXIT_INPUT, "NaN or");
}

static void test_scope_kinds(void) {
    static const char *const KIND[][2] = {
        {"gemma-scope-2b-pt-mlp", "expected the residual stream"},
        {"gemma-scope-9b-pt-att", "expected the residual stream"},
        {"gemma-scope-2b-pt-transcoders", "this is a transcoder"},
    };
    Err err;
    Sae s;
    char path[128];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/layer_3", KIND[i][0]);
        CHECK(files_mkdirs(test_path(path), &err), "%s", err.text);
        strcat(path, "/params.npz");
        EXPECT_REFUSED(sae_open(&s, NULL, test_file(path, "x", 1), LAYER, 3, &err), err, EXIT_INPUT,
                       KIND[i][1]);
    }
    EXPECT_REFUSED(sae_open(&s, NULL, test_file("a.npz", "x", 1), LAYER, 3, &err), err, EXIT_INPUT,
                   "expected a .npz archive");
}

int main(void) {
    Err err;
    CHECK(st_open(&expected, GOLDEN "expected.safetensors", &err), "%s", err.text);
    test_each_exec(goldens);
    test_each_exec(test_not_finite);
    test_patterns();
    test_ids();
    test_decoder(GOLDEN "topk");
    test_decoder(SCOPE "59/params.npz");
    test_nearest(GOLDEN "topk");
    test_nearest(SCOPE "59/params.npz");
    test_refused();
    test_foreign_tensors();
    test_hooks();
    test_scope_kinds();
    st_close(expected);
    return test_done("test_sae_files");
}
