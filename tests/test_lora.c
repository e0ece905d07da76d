/* Adapter folders: what is saved loads again, PEFT's ways of naming modules are understood, and
 * what sails cannot honour is refused by its key. */
#include <jansson.h>

#include "data/base/files.h"
#include "model/lora.h"
#include "model/pattern.h"
#include "model/peft.h"
#include "tests/golden.h"

static char scratch[64];

static const char *path_of(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    return path;
}

/* ------------------------------------------------------------------------------ patterns -- */

static void test_patterns(void) {
    static const struct {
        const char *pattern;
        enum PatternUse use;
        const char *text;
        int want;
    } row[] = {
        {"q_proj", PATTERN_END, "model.layers.3.self_attn.q_proj", 1},
        {"proj", PATTERN_END, "model.layers.3.self_attn.q_proj", 0},
        {"layers.1.self_attn.q_proj", PATTERN_END, "model.layers.11.self_attn.q_proj", 0},
        {"layers.1.self_attn.q_proj", PATTERN_END, "model.layers.1.self_attn.q_proj", 1},
        {"layers\\.(1|3)\\..*", PATTERN_END, "model.layers.3.self_attn.q_proj", 1},
        {"layers\\.(1|3)\\..*", PATTERN_END, "model.layers.2.self_attn.q_proj", 0},
        {"q_proj", PATTERN_WHOLE, "model.q_proj", 0},
        {".*q_proj", PATTERN_WHOLE, "model.q_proj", 1},
        {".*?\\.(?:q|v)_proj", PATTERN_WHOLE, "model.v_proj", 1},
        {"(?P<part>model)\\.v_[a-z]+?", PATTERN_WHOLE, "model.v_proj", 1},
        {"model\\.layers\\.\\d+\\.x", PATTERN_WHOLE, "model.layers.12.x", 1},
        {"model\\.layers\\.[\\d]{2}\\.x", PATTERN_WHOLE, "model.layers.12.x", 1},
        {"model\\.layers\\.[\\d]{3,4}\\.x", PATTERN_WHOLE, "model.layers.12.x", 0},
        {"model\\.layers\\.[^1]\\w\\.x", PATTERN_WHOLE, "model.layers.12.x", 0},
        {"a|b", PATTERN_WHOLE, "b", 1},
        {"a|b", PATTERN_WHOLE, "ab", 0},
        {"a.c", PATTERN_END, "x.abc", 1},
        {"", PATTERN_WHOLE, "x", 0},
        {"\\bmodel\\..*\\.(q_proj|v_proj)", PATTERN_WHOLE, "model.layers.3.self_attn.q_proj", 1},
        {"\\bmodel\\..*\\.(q_proj|v_proj)", PATTERN_WHOLE, "model.layers.3.self_attn.o_proj", 0},
        {".*layers\\.(?!0\\.)\\d+\\..*(?<=q|v)_proj", PATTERN_WHOLE,
         "model.layers.3.self_attn.v_proj", 1},
        {".*layers\\.(?!0\\.)\\d+\\..*_proj", PATTERN_WHOLE, "model.layers.0.self_attn.v_proj", 0},
        {"(?=q)q_proj", PATTERN_END, "model.q_proj", 1},
        {"(?i).*Q_PROJ\\Z", PATTERN_WHOLE, "model.q_proj", 1},
        {"(?i)Q_PROJ", PATTERN_END, "model.q_proj", 1},
        {"(?ai)MODEL.*|x", PATTERN_WHOLE, "model.q_proj", 1},
        {"(?iu)MODEL.*|x", PATTERN_WHOLE, "model.q_proj", 1},
        {"(?au)model", PATTERN_WHOLE, "model", -1},
        {"(?i:MODEL)\\.Q", PATTERN_WHOLE, "model.q", 0},
        {"\\Amodel\\.q\\Z", PATTERN_WHOLE, "model.q", 1},
        {"(?P<x>a)(?P=x)", PATTERN_WHOLE, "aa", 1},
        {"(a)?(?(1)b|c)", PATTERN_WHOLE, "ab", 1},
        {"(?P<R>a)?(?(R)b|c)", PATTERN_WHOLE, "c", 1},
        {"(a)\\1", PATTERN_WHOLE, "aa", 1},
        {"a++", PATTERN_WHOLE, "a", 1},
        {"a{,2}", PATTERN_WHOLE, "aa", 1},
        {"a{,2}", PATTERN_WHOLE, "aaa", 0},
        {"a{x}", PATTERN_WHOLE, "a{x}", 1},
        {"[[:alpha:]]", PATTERN_WHOLE, "q", 0}, /* one of "[:alph", then "]" */
        {"[[:alpha:]]", PATTERN_WHOLE, "p]", 1},
        {"[]a]\\u0071_[\\x70]roj", PATTERN_WHOLE, "]q_proj", 1},
        {"(?#any)(?x) q _ \\w+ # a comment", PATTERN_WHOLE, "q_proj", 1},
        {"(?x) q _ \\w+ # a comment", PATTERN_WHOLE, "q_proj", 1},
        {"q|v|o", PATTERN_END, "model.o", 1},
        {"q|v|o", PATTERN_END, "model.oo", 0},
        {"layers", PATTERN_LAYER, "model.layers.12.mlp.up_proj", 1},
        {"model.layers", PATTERN_LAYER, "model.layers.12.mlp.up_proj", 0},
        {"(?i", PATTERN_WHOLE, "a", -1},
        {"a(?i)b", PATTERN_WHOLE, "ab", -1},
        {"(?L)a", PATTERN_WHOLE, "a", -1},
        {"(*ACCEPT)", PATTERN_WHOLE, "a", -1},
        {"(?R)?a", PATTERN_WHOLE, "a", -1},
        {"(?<x>a)", PATTERN_WHOLE, "a", -1},
        {"\\Qa\\E", PATTERN_WHOLE, "a", -1},
        {"\\h", PATTERN_WHOLE, " ", -1},
        {"a\\K", PATTERN_WHOLE, "a", -1},
        {"\\u12", PATTERN_WHOLE, "a", -1},
        {".*.*.*.*.*[XY]", PATTERN_WHOLE, "model.layers.3.self_attn.q_proj", -1},
        {"(.*)*(.*)*(.*)*(.*)*(.*)*[XY]", PATTERN_WHOLE, "model.layers.3.self_attn.q_proj", -1},
        {"*a", PATTERN_WHOLE, "a", -1},
        {"(a", PATTERN_WHOLE, "a", -1},
        {"[a", PATTERN_WHOLE, "a", -1},
        {"a\\", PATTERN_WHOLE, "a", -1},
        {"(a{99}){99}", PATTERN_WHOLE, "a", 0},
        {"((a{9}){9}){9}", PATTERN_WHOLE, "a", 0},
        {"((((a{99}){99}){99}){99}){99}", PATTERN_WHOLE, "a", -1},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        char why[PATTERN_WHY] = "";
        Pattern *p = pattern_compile(row[i].pattern, row[i].use, why);
        int hit = p ? pattern_matches(p, row[i].text, why) : -1;
        EXPECT(hit == row[i].want, "%s on %s: %d %s", row[i].pattern, row[i].text, hit, why);
        EXPECT((hit < 0) == (*why != 0), "%s: %s", row[i].pattern, why);
        if (hit == 1 && row[i].use == PATTERN_LAYER)
            EXPECT(pattern_layer(p, row[i].text) == 12, "layer %d", pattern_layer(p, row[i].text));
        pattern_free(p);
    }
    char why[PATTERN_WHY], many[5000] = {0};
    memset(many, 'a', sizeof many - 1);
    EXPECT(!pattern_compile(many, PATTERN_END, why) && strstr(why, "4096"), "%s", why);
}

/* ---------------------------------------------------------------------------- round trip -- */

static void round_trip(const Golden *g, Lora *l) {
    Lora back;
    Err err;
    size_t n = l->params.size;
    const char *folder = path_of("saved");
    MUST(lora_save(l, folder, "a \"base\" model", &err), err);
    MUST(lora_load(&back, l->ex, &g->m.c, folder, true, &err), err);
    EXPECT(back.params.size == n && back.rslora == l->rslora, "%zu elements of %zu",
           back.params.size, n);
    float *a = mem_array(n, sizeof *a), *b = mem_array(n, sizeof *b);
    exec_copy_out(l->ex, a, l->params.master, n * sizeof *a);
    exec_copy_out(l->ex, b, back.params.master, n * sizeof *b);
    EXPECT(memcmp(a, b, n * sizeof *a) == 0, "%s: tensors", g->folder);
    for (int i = 0; i < g->m.c.L * PROJ_COUNT; i++) {
        const Adapter *x = &l->adapter[i], *y = &back.adapter[i];
        EXPECT(x->R == y->R && x->scale == y->scale && x->alpha == y->alpha,
               "%s: adapter %d: rank %d %d, scale %g %g", g->folder, i, x->R, y->R, x->scale,
               y->scale);
    }
    free(a), free(b);
    lora_free(&back);
}

static void test_round_trip(Golden *g) {
    static const char *const names[] = {"adapter", "adapter_pattern", "adapter_rslora"};
    for (int i = 0; i < 3; i++) {
        Lora l;
        golden_adapter(g, &l, names[i], false);
        EXPECT(!l.params.grad && params_trained(&l.params) == 0 && params_elements(&l.params) > 0,
               "%s", names[i]);
        const Adapter *a = l.adapter;
        while (a->R == 0) a++;
        /* with rslora rank 4, alpha 3 */
        EXPECT(l.rslora == (i == 2) && (i != 2 || a->scale == 1.5f), "%s: scale %g", names[i],
               a->scale);
        round_trip(g, &l);
        lora_free(&l);
        g->m.lora = NULL;
    }
}

/* What the golden "adapter_pattern" says, read by hand: layers 0 and 2; q, v, o, down. */
static void test_pattern_folder(Golden *g) {
    Lora l;
    golden_adapter(g, &l, "adapter_pattern", false);
    for (int layer = 0; layer < g->m.c.L; layer++)
        for (int p = 0; p < PROJ_COUNT; p++) {
            const Adapter *a = lora_at(&l, layer, (enum Proj)p);
            bool on = (layer == 0 || layer == 2) &&
                      (p == PROJ_Q || p == PROJ_V || p == PROJ_O || p == PROJ_DOWN);
            int R = !on ? 0 : p == PROJ_DOWN ? 1 : p == PROJ_Q && layer == 2 ? 5 : 3;
            float alpha = p == PROJ_Q ? 7.5f : p == PROJ_V ? 1 : 4;
            EXPECT(a->R == R, "layer %d %s: rank %d", layer, proj_name[p], a->R);
            EXPECT(!on || a->scale == (float)((double)alpha / R), "layer %d %s: scale %g", layer,
                   proj_name[p], a->scale);
        }
    lora_free(&l);
    g->m.lora = NULL;
}

/* ------------------------------------------------------------------------------ refusals -- */

/* Saves a plain adapter, sets one key of its configuration, and loads it. */
static bool load_with(const Golden *g, Exec *ex, const char *key, const char *value, Err *err) {
    Lora l;
    char folder[192];
    snprintf(folder, sizeof folder, "%s/adapter", g->folder);
    MUST(lora_load(&l, ex, &g->m.c, folder, false, err), *err);
    MUST(lora_save(&l, path_of("changed"), NULL, err), *err);
    lora_free(&l);
    json_t *json, *v = json_loads(value, JSON_DECODE_ANY, NULL);
    CHECK(v, "%s", value);
    const char *path = path_of("changed/adapter_config.json");
    MUST(files_read_json(&json, path, 1 << 20, err), *err);
    json_object_set_new(json, key, v);
    MUST(files_write_json(path, json, err), *err);
    json_decref(json);
    bool ok = lora_load(&l, ex, &g->m.c, path_of("changed"), false, err);
    if (ok) lora_free(&l);
    return ok;
}

static void test_config_keys(const Golden *g, Exec *ex) {
    static const char *const refused[][2] = {
        {"use_dora", "true"},
        {"bias", "\"all\""},
        {"modules_to_save", "[\"lm_head\"]"},
        {"lora_bias", "true"},
        {"fan_in_fan_out", "true"},
        {"peft_type", "\"IA3\""},
        {"init_lora_weights", "\"pissa\""},
        {"init_lora_weights", "\"pissa_niter_4\""},
        {"init_lora_weights", "\"olora\""},
        {"layer_replication", "[[0,2],[1,3]]"},
        {"trainable_token_indices", "[3]"},
        {"target_parameters", "[\"x\"]"},
        {"an_option_of_the_future", "\"on\""},
        {"use_qalora", "true"},
        {"r", "0"},
        {"r", "3.5"},
        {"r", "99999999999"},
        {"r", "\"8\""},
        {"lora_alpha", "\"16\""},
        {"lora_alpha", "1e300"},
        {"rank_pattern", "{\"q_proj\": -1}"},
        {"rank_pattern", "[3]"},
        {"rank_pattern", "{\"(?R)\": 3}"},
        {"layers_pattern", "[7]"},
        {"use_rslora", "3"},
        {"target_modules", "7"},
        {"target_modules", "\"\""},
        {"target_modules", "[7]"},
        {"target_modules", "[\"nothing\"]"},
        {"target_modules", "\"(\""},
        {"layers_to_transform", "\"all\""},
    };
    static const char *const fine[][2] = {
        {"use_dora", "false"},
        {"modules_to_save", "null"},
        {"megatron_core", "\"megatron.core\""},
        {"lora_dropout", "0.05"},
        {"init_lora_weights", "\"gaussian\""},
        {"an_option_of_the_future", "null"},
        {"target_modules", "\"all-linear\""},
        {"target_modules", "\".*_proj\""},
        {"layers_pattern", "\"layers\""},
        {"target_modules", "\"\\\\bmodel\\\\..*_proj\""},
        {"target_modules", "\"(?i)(?!lm_head).*_PROJ\\\\Z\""},
        {"rank_pattern", "{\"(?=x)y\": 3}"},
        {"exclude_modules", "[\"lm_head\"]"},
    };
    Err err;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const char *key = refused[i][0];
        EXPECT(!load_with(g, ex, key, refused[i][1], &err), "%s: %s was accepted", key,
               refused[i][1]);
        const char *named = strcmp(key, "rank_pattern") == 0 ? "r" : key;
        EXPECT(strstr(err.text, named) && err.code == EXIT_INPUT, "%s: %s", key, err.text);
    }
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++)
        if (!load_with(g, ex, fine[i][0], fine[i][1], &err))
            EXPECT(0, "%s %s: %s", fine[i][0], fine[i][1], err.text);
}

/* layers_to_transform is heeded only for modules found by the ends of their names, and
 * layers_pattern says where the number stands, by its first group. */
static void test_config_layers(const Golden *g) {
    static const struct {
        const char *pattern;
        int v[2]; /* rank of v in layers 0 and 1, -1: refused */
    } row[] = {{"null", {0, 2}},
               {"\"layers\"", {0, 2}},
               {"[\"blocks\", \"layers\"]", {0, 2}},
               {"\"lay(?:er|out)s\"", {0, 2}},
               {"\"blocks\"", {0, 0}},
               {"\"(l)ayers\"", {-1, -1}}};
    Err err;
    MUST(files_mkdirs(path_of("rules"), &err), err);
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        char text[512];
        int n = snprintf(text, sizeof text,
                         "{\"peft_type\": \"LORA\", \"r\": 2, \"layers_to_transform\": [1], "
                         "\"layers_pattern\": %s, \"target_modules\": "
                         "[\"model.layers.0.self_attn.q_proj\", \"v_proj\"]}",
                         row[i].pattern);
        MUST(files_write(path_of("rules/adapter_config.json"), text, (size_t)n, &err), err);
        LoraShape shape;
        bool ok = peft_read(&shape, &g->m.c, path_of("rules"), &err);
        EXPECT(ok == (row[i].v[0] >= 0), "%s: %s", row[i].pattern, ok ? "read" : err.text);
        if (!ok) continue;
        EXPECT(shape.rank[PROJ_Q] == 2 && shape.rank[PROJ_COUNT + PROJ_Q] == 0, "%s: q",
               row[i].pattern);
        for (int l = 0; l < 2; l++)
            EXPECT(shape.rank[l * PROJ_COUNT + PROJ_V] == row[i].v[l], "%s: v of layer %d",
                   row[i].pattern, l);
        lora_shape_free(&shape);
    }
}

/* The configuration and the tensors must speak of the same matrices. */
static void test_config_tensors(const Golden *g, Exec *ex) {
    static const char *const row[][3] = {
        {"target_modules", "[\"q_proj\"]", "lora_"},             /* tensors too many */
        {"exclude_modules", "\".*o_proj\"", "o_proj"},           /* the same */
        {"layers_to_transform", "[0]", "layers.1."},             /* the same */
        {"r", "3", "lora_"},                                     /* another shape */
        {"rank_pattern", "{\"down_proj\": 4}", "mlp.down_proj"}, /* the same */
    };
    Err err;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        EXPECT(!load_with(g, ex, row[i][0], row[i][1], &err), "%s %s was accepted", row[i][0],
               row[i][1]);
        EXPECT(strstr(err.text, row[i][2]), "%s: %s", row[i][0], err.text);
    }
}

static void body(Exec *ex) {
    Golden g;
    golden_open(&g, ex, "model_a");
    test_round_trip(&g);
    test_pattern_folder(&g);
    if (ex->dtype == DTYPE_F32) {
        test_patterns();
        test_config_keys(&g, ex);
        test_config_layers(&g);
        test_config_tensors(&g, ex);
    }
    golden_close(&g);
}

int main(void) {
    snprintf(scratch, sizeof scratch, "/tmp/sails_test_lora.XXXXXX");
    CHECK(mkdtemp(scratch), "no temporary folder");
    test_each_exec(body);
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", scratch);
    EXPECT(system(command) == 0, "%s", command);
    return test_done("test_lora");
}
