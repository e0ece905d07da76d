/* config.json and the checkpoint's tensors: the published shapes, every field that must be refused
 * by its name, and checkpoints with something missing, added or changed. */
#include <jansson.h>

#include "data/base/files.h"
#include "model/config.h"
#include "model/gemma2.h"
#include "tests/golden.h"

static char scratch[64];

static const char *path_of(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    return path;
}

static void write_text(const char *name, const char *text) {
    Err err;
    MUST(files_write(path_of(name), text, strlen(text), &err), err);
}

/* ------------------------------------------------------------------------ published models -- */

/* The fields of the published config.json files that sails reads, old spelling. */
static json_t *published(int D, int L, int H, int K, int E, int F, int scalar) {
    return json_pack(
        "{s:[s] s:s s:b s:f s:f s:i s:i s:i s:f s:s s:s s:i s:i s:i s:i s:i s:i s:i s:i "
        "s:f s:f s:i s:i s:i s:s}",
        "architectures", "Gemma2ForCausalLM", "model_type", "gemma2", "attention_bias", 0,
        "attention_dropout", 0.0, "attn_logit_softcapping", 50.0, "bos_token_id", 2, "eos_token_id",
        1, "pad_token_id", 0, "final_logit_softcapping", 30.0, "hidden_act", "gelu_pytorch_tanh",
        "hidden_activation", "gelu_pytorch_tanh", "hidden_size", D, "head_dim", E,
        "intermediate_size", F, "max_position_embeddings", 8192, "num_attention_heads", H,
        "num_hidden_layers", L, "num_key_value_heads", K, "query_pre_attn_scalar", scalar,
        "rms_norm_eps", 1e-6, "rope_theta", 10000.0, "sliding_window", 4096, "sliding_window_size",
        4096, "vocab_size", 256000, "torch_dtype", "bfloat16");
}

static bool load(Config *c, const json_t *json, Err *err) {
    MUST(files_write_json(path_of("config.json"), json, err), *err);
    return config_load(c, scratch, err);
}

static void test_published(void) {
    static const struct {
        int D, L, H, K, E, F, scalar;
        size_t parameters;
    } row[] = {{2304, 26, 8, 4, 256, 9216, 256, 2614341888u},
               {3584, 42, 16, 8, 256, 14336, 256, 9241705984u},
               {4608, 46, 32, 16, 128, 36864, 144, 27227128320u}};
    for (int i = 0; i < 3; i++) {
        Config c;
        Err err;
        json_t *json =
            published(row[i].D, row[i].L, row[i].H, row[i].K, row[i].E, row[i].F, row[i].scalar);
        MUST(load(&c, json, &err), err);
        EXPECT(tensors_parameters(&c) == row[i].parameters, "%zu parameters",
               tensors_parameters(&c));
        AttnShape even = config_attn(&c, 0), odd = config_attn(&c, 1);
        EXPECT(even.window == 4096 && odd.window == 0, "windows %d %d", even.window, odd.window);
        EXPECT(even.scale == (float)(1 / sqrt(row[i].scalar)), "scale %g", even.scale);
        EXPECT(even.cap == 50 && c.final_cap == 30 && c.eps == 1e-6f, "caps, eps");
        EXPECT(c.bos == 2 && c.pad == 0 && c.neos == 1 && c.eos[0] == 1, "ids");
        config_free(&c);
        json_decref(json);
    }
}

/* New spelling, layer_types, caps that are off, and the eos list of generation_config.json. */
static void test_new_spelling(void) {
    Config c;
    Err err;
    json_t *json = published(36, 3, 3, 1, 8, 10, 8);
    json_object_del(json, "rope_theta");
    json_object_del(json, "hidden_act");
    json_object_set_new(json, "rope_parameters",
                        json_pack("{s:s s:f}", "rope_type", "default", "rope_theta", 500.5));
    json_object_set_new(
        json, "layer_types",
        json_pack("[sss]", "full_attention", "full_attention", "sliding_attention"));
    json_object_set_new(json, "attn_logit_softcapping", json_null());
    json_object_set_new(json, "final_logit_softcapping", json_null());
    json_object_set_new(json, "pad_token_id", json_null());
    write_text("generation_config.json", "{\"eos_token_id\": [1, 107], \"temperature\": 1}");
    MUST(load(&c, json, &err), err);
    EXPECT(c.rope_theta == 500.5 && !c.sliding[0] && !c.sliding[1] && c.sliding[2], "fields");
    EXPECT(c.attn_cap == 0 && c.final_cap == 0 && c.pad == -1, "nulls");
    EXPECT(c.neos == 2 && c.eos[1] == 107, "eos of generation_config.json");
    config_free(&c);
    json_object_set_new(json, "pad_token_id", json_integer(-1));
    MUST(load(&c, json, &err), err);
    EXPECT(c.pad == -1, "a pad of -1 is none, got %d", c.pad);
    config_free(&c);
    write_text("generation_config.json", "{\"eos_token_id\": [1, 256000]}");
    EXPECT(!load(&c, json, &err) && strstr(err.text, "eos_token_id"), "%s", err.text);
    write_text("generation_config.json", "{}");
    json_decref(json);
}

static void test_refusals(void) {
    static const char *const row[][2] = {
        {"model_type", "\"gemma\""},
        {"architectures", "[\"Gemma2ForSequenceClassification\"]"},
        {"attention_bias", "true"},
        {"attention_dropout", "0.1"},
        {"tie_word_embeddings", "false"},
        {"use_bidirectional_attention", "true"},
        {"quantization_config", "{\"bits\": 4}"},
        {"hidden_activation", "\"gelu\""},
        {"hidden_activation", "7"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": 2.0}"},
        {"rope_scaling", "[]"},
        {"rope_parameters", "{\"rope_type\": \"yarn\"}"},
        {"rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 9.0}"},
        {"rope_parameters", "{\"sliding_attention\": {\"rope_type\": \"default\"}}"},
        {"partial_rotary_factor", "0.5"},
        {"rope_theta", "-1"},
        {"rope_theta", "\"10000\""},
        {"head_dim", "36"},
        {"head_dim", "512"},
        {"head_dim", "0"},
        {"hidden_size", "0"},
        {"hidden_size", "9223372036854775807"},
        {"hidden_size", "36.5"},
        {"hidden_size", "null"},
        {"intermediate_size", "-5"},
        {"vocab_size", "2147483648"},
        {"num_hidden_layers", "1000000"},
        {"num_key_value_heads", "2"},
        {"num_attention_heads", "\"3\""},
        {"max_position_embeddings", "0"},
        {"query_pre_attn_scalar", "0"},
        {"rms_norm_eps", "0"},
        {"rms_norm_eps", "-1e-6"},
        {"attn_logit_softcapping", "0"},
        {"final_logit_softcapping", "-30"},
        {"sliding_window", "null"},
        {"sliding_window", "0"},
        {"layer_types", "[\"full_attention\"]"},
        {"layer_types", "[\"full_attention\", \"full_attention\", \"chunked_attention\"]"},
        {"layer_types", "3"},
        {"eos_token_id", "[1, -1]"},
        {"eos_token_id", "[1,2,3,4,5,6,7,8,9]"},
        {"eos_token_id", "\"1\""},
        {"bos_token_id", "256000"},
        {"pad_token_id", "-2"},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        Config c;
        Err err = {.text = ""};
        json_t *json = published(36, 3, 3, 1, 8, 10, 8);
        json_t *v = json_loads(row[i][1], JSON_DECODE_ANY, NULL);
        CHECK(v, "%s", row[i][1]);
        json_object_set_new(json, row[i][0], v);
        bool ok = load(&c, json, &err);
        EXPECT(!ok, "%s: %s was accepted", row[i][0], row[i][1]);
        EXPECT(err.code == EXIT_INPUT && strstr(err.text, row[i][0]) &&
                   strstr(err.text, "config.json"),
               "%s: %s: %s", row[i][0], row[i][1], err.text);
        if (ok) config_free(&c);
        json_decref(json);
    }
    Config c;
    Err err;
    write_text("config.json", "[]");
    EXPECT(!config_load(&c, scratch, &err), "a list was accepted");
    EXPECT(!config_load(&c, "/nowhere", &err) && strstr(err.text, "/nowhere"), "%s", err.text);
}

/* ----------------------------------------------------------------------------- checkpoints -- */

enum Change { SAME, DROP, ADD, HEAD, OTHER_HEAD, RENAME, TRANSPOSE, TYPE, WIDE };

/* Copies the golden model's tensors into the scratch folder, with one change. */
static void write_model(const StSet *from, enum Change change, const char *which) {
    Err err;
    StWriter *w;
    MUST(st_writer_open(&w, path_of("model.safetensors"), &err), err);
    size_t n = st_count(from);
    const StTensor *embed = st_find(from, "model.embed_tokens.weight");
    const size_t one[] = {1, 1};
    for (size_t i = 0; i < n; i++) {
        const StTensor *t = st_at(from, i);
        bool it = strcmp(t->name, which) == 0;
        size_t turned[2] = {t->dim[1], t->dim[0]};
        if (it && change == DROP) continue;
        st_writer_tensor(w, it && change == RENAME ? "model.layers.0.other.weight" : t->name,
                         it && change == TYPE   ? ST_I32
                         : it && change == WIDE ? ST_F64
                                                : t->type,
                         t->rank, it && change == TRANSPOSE ? turned : t->dim);
    }
    if (change == ADD) st_writer_tensor(w, which, ST_F32, 2, one);
    if (change == HEAD || change == OTHER_HEAD)
        st_writer_tensor(w, "lm_head.weight", embed->type, 2, embed->dim);
    for (size_t i = 0; i < n; i++) {
        const StTensor *t = st_at(from, i);
        if (change == DROP && strcmp(t->name, which) == 0) continue;
        for (size_t j = 0; change == WIDE && strcmp(t->name, which) == 0 && j < t->count; j++) {
            float x;
            st_read_f32(t, &x, j, 1);
            double d = x;
            MUST(st_writer_data(w, &d, sizeof d, &err), err);
        }
        if (change == WIDE && strcmp(t->name, which) == 0) continue;
        MUST(st_writer_data(w, t->data, t->bytes, &err), err);
    }
    float zero = 0;
    if (change == ADD) MUST(st_writer_data(w, &zero, 4, &err), err);
    if (change == HEAD || change == OTHER_HEAD) {
        char *copy = mem_array(embed->bytes, 1);
        memcpy(copy, embed->data, embed->bytes);
        if (change == OTHER_HEAD) copy[embed->bytes / 2] ^= 1;
        MUST(st_writer_data(w, copy, embed->bytes, &err), err);
        free(copy);
    }
    MUST(st_writer_finish(w, &err), err);
}

static void copy_config(const Golden *g) {
    char *text, path[192];
    size_t n;
    Err err;
    snprintf(path, sizeof path, "%s/config.json", g->folder);
    MUST(files_read(&text, &n, path, 1 << 20, &err), err);
    write_text("config.json", text);
    free(text);
}

static void test_checkpoints(const Golden *g, Exec *ex) {
    static const struct {
        enum Change change;
        const char *which, *said; /* NULL: it loads */
    } row[] = {
        {SAME, "", NULL},
        {HEAD, "", NULL},
        {OTHER_HEAD, "", "lm_head.weight"},
        {DROP, "model.norm.weight", "model.norm.weight"},
        {DROP, "model.embed_tokens.weight", "model.embed_tokens.weight"},
        {RENAME, "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"},
        {ADD, "model.layers.0.self_attn.q_proj.bias", "q_proj.bias"},
        {ADD, "model.layers.1.self_attn.rotary_emb.inv_freq", NULL},
        {ADD, "model.rotary_emb.inv_freq", NULL},
        {ADD, "model.rotary_emb.inv_freq.weight", "inv_freq.weight"},
        {ADD, "model.layers.3.self_attn.q_proj.weight", "model.layers.3."},
        {TRANSPOSE, "model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight"},
        {TYPE, "model.layers.2.self_attn.k_proj.weight", "k_proj"},
        {WIDE, "model.norm.weight", NULL},
    };
    copy_config(g);
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        write_model(g->m.file, row[i].change, row[i].which);
        Model m;
        Err err = {.text = ""};
        size_t before = ex->bytes_now;
        bool ok = model_open(&m, ex, scratch, 0, &err);
        EXPECT(ok == !row[i].said, "checkpoint %zu: %s", i, err.text);
        if (!ok && row[i].said) EXPECT(strstr(err.text, row[i].said), "%s", err.text);
        if (ok && row[i].change == WIDE) {
            size_t n = (size_t)m.c.D;
            double *a = test_get_store(ex, m.final_norm, n),
                   *b = test_get_store(ex, g->m.final_norm, n);
            EXPECT(memcmp(a, b, n * sizeof *a) == 0, "F64 is read as another number");
            free(a), free(b);
        }
        if (ok) model_close(&m);
        EXPECT(ex->bytes_now == before, "checkpoint %zu: %zu bytes left", i,
               ex->bytes_now - before);
    }
    Model m;
    Err err;
    EXPECT(!model_open(&m, ex, scratch, 65, &err) && strstr(err.text, "max_position_embeddings"),
           "%s", err.text);
    write_model(g->m.file, SAME, "");
    MUST(model_open(&m, ex, scratch, 17, &err), err);
    EXPECT(m.c.max_positions == 17, "%d positions", m.c.max_positions);
    /* In the file's own type only the tensors that odd sizes before them misalign are copied, where
     * ops can read host memory at all (the Exec is an aligned piece of it). */
    if (ex->dtype == DTYPE_F32 && exec_reads(ex, ex))
        EXPECT(m.arena.size < tensors_parameters(&m.c) * 4 / 2, "%zu bytes were copied",
               m.arena.size);
    model_close(&m);
}

static void body(Exec *ex) {
    Golden g;
    golden_open(&g, ex, "model_a");
    test_checkpoints(&g, ex);
    golden_close(&g);
}

int main(void) {
    snprintf(scratch, sizeof scratch, "/tmp/sails_test_config.XXXXXX");
    CHECK(mkdtemp(scratch), "no temporary folder");
    test_published();
    test_new_spelling();
    test_refusals();
    test_each_exec(body);
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", scratch);
    EXPECT(system(command) == 0, "%s", command);
    return test_done("test_config");
}
