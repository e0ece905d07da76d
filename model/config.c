/* config.c - reads config.json and says no, by the name of the field, to what sails would compute
 * differently from the model's authors. */
#include "model/config.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/foreign.h"
#include "data/base/mem.h"

enum { CONFIG_BYTES = 16 << 20 };

typedef struct Reader {
    const json_t *json;
    const char *path;
    Err *err;
    bool failed; /* the first failure is kept, later reads return their default */
} Reader;

__attribute__((format(printf, 3, 4))) static void refuse(Reader *r, const char *key,
                                                         const char *fmt, ...) {
    if (r->failed) return;
    char why[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    r->failed = true;
    err_set(r->err, EXIT_INPUT, "%s: %s: %s", r->path, key, why);
    err_remedy(r->err, "give the files of one Gemma-2 model");
}

/* The field, or NULL when it is absent or null. */
static const json_t *field(const Reader *r, const char *key) {
    const json_t *v = json_object_get(r->json, key);
    return json_is_null(v) ? NULL : v;
}

static int read_int(Reader *r, const char *key, int low, int high, int absent) {
    const json_t *v = field(r, key);
    if (!v && absent >= 0) return absent;
    if (!json_is_integer(v) || json_integer_value(v) < low || json_integer_value(v) > high) {
        refuse(r, key, "expected a whole number from %d to %d%s", low, high,
               v ? "" : ", the field is missing");
        return low;
    }
    return (int)json_integer_value(v);
}

/* A positive finite number. */
static double read_number(Reader *r, const char *key, double absent) {
    const json_t *v = field(r, key);
    if (!v) return absent;
    double x = json_number_value(v);
    if (!json_is_number(v) || !(x > 0 && x <= 1e30)) {
        refuse(r, key, "expected a positive number");
        return absent;
    }
    return x;
}

/* A cap that null switches off, which is not the same as leaving it out. */
static float read_cap(Reader *r, const char *key, double absent) {
    return json_is_null(json_object_get(r->json, key)) ? 0 : (float)read_number(r, key, absent);
}

static void want_bool(Reader *r, const char *key, bool want, const char *why) {
    const json_t *v = field(r, key);
    if (v && !(want ? json_is_true(v) : json_is_false(v)))
        refuse(r, key, "expected %s: %s", want ? "true" : "false", why);
}

static void want_absent(Reader *r, const char *key, const char *why) {
    if (field(r, key)) refuse(r, key, "expected null or no such field: %s", why);
}

static void read_shape(Reader *r, Config *c) {
    enum { WIDTH = 1 << 20 };
    c->L = read_int(r, "num_hidden_layers", 1, 4096, -1);
    c->D = read_int(r, "hidden_size", 1, WIDTH, -1);
    c->F = read_int(r, "intermediate_size", 1, WIDTH, -1);
    c->V = read_int(r, "vocab_size", 1, 1 << 24, -1);
    c->H = read_int(r, "num_attention_heads", 1, 4096, -1);
    c->K = read_int(r, "num_key_value_heads", 1, 4096, -1);
    c->E = read_int(r, "head_dim", 8, 256, 256);
    c->max_positions = read_int(r, "max_position_embeddings", 1, 1 << 24, 8192);
    if (c->H % c->K) refuse(r, "num_key_value_heads", "expected a divisor of %d heads", c->H);
    if (c->E % 8) refuse(r, "head_dim", "expected a multiple of 8");
}

/* `rope` is {"rope_type": "default", "rope_theta": ...} (or "type" in old files). */
static double read_rope(Reader *r, const char *key, const json_t *rope, double theta) {
    if (!json_is_object(rope)) {
        refuse(r, key, "expected an object");
        return theta;
    }
    const char *name;
    const json_t *v;
    json_object_foreach ((json_t *)(uintptr_t)rope, name, v) {
        bool type = strcmp(name, "rope_type") == 0 || strcmp(name, "type") == 0;
        if (json_is_null(v)) continue;
        if (type && json_is_string(v) && strcmp(json_string_value(v), "default") == 0) continue;
        if (strcmp(name, "partial_rotary_factor") == 0 && json_number_value(v) == 1) continue;
        if (strcmp(name, "rope_theta") == 0) {
            double x = json_number_value(v);
            if (!(x > 0 && x <= 1e30)) refuse(r, key, "rope_theta: expected a positive number");
            if (field(r, "rope_theta") && x != theta)
                refuse(r, key, "rope_theta: expected the same value as the outer rope_theta");
            theta = x;
            continue;
        }
        refuse(r, key,
               "%s: expected the rope_type \"default\" alone; other rotary embeddings "
               "are not supported",
               name);
    }
    return theta;
}

static void read_layer_types(Reader *r, Config *c) {
    c->sliding = mem_array((size_t)c->L, sizeof *c->sliding);
    for (int l = 0; l < c->L; l++) c->sliding[l] = l % 2 == 0;
    const json_t *v = field(r, "layer_types");
    if (v && json_array_size(v) != (size_t)c->L)
        refuse(r, "layer_types", "expected a list of %d names, one for each layer", c->L);
    for (int l = 0; v && !r->failed && l < c->L; l++) {
        const char *s = json_string_value(json_array_get(v, (size_t)l));
        c->sliding[l] = s && strcmp(s, "sliding_attention") == 0;
        if (!c->sliding[l] && !(s && strcmp(s, "full_attention") == 0))
            refuse(r, "layer_types",
                   "expected \"sliding_attention\" or \"full_attention\" for layer %d", l);
    }
    bool any = false;
    for (int l = 0; l < c->L; l++) any = any || c->sliding[l];
    bool null = json_is_null(json_object_get(r->json, "sliding_window"));
    if (any && null) refuse(r, "sliding_window", "expected a number: some layers slide");
    c->window = read_int(r, "sliding_window", 1, INT_MAX, 4096);
}

static void check_activation(Reader *r) {
    const json_t *v = field(r, "hidden_activation");
    const char *key = v ? "hidden_activation" : "hidden_act"; /* the second is a leftover */
    if (!v) v = field(r, "hidden_act");
    if (v && !(json_is_string(v) && strcmp(json_string_value(v), "gelu_pytorch_tanh") == 0))
        refuse(r, key, "expected \"gelu_pytorch_tanh\", Gemma-2's activation");
}

static void check_kind(Reader *r) {
    const json_t *v = field(r, "model_type");
    if (!(json_is_string(v) && strcmp(json_string_value(v), "gemma2") == 0))
        refuse(r, "model_type", "expected \"gemma2\"");
    v = field(r, "architectures");
    bool causal = !v;
    for (size_t i = 0; i < json_array_size(v); i++) {
        const char *s = json_string_value(json_array_get(v, i));
        causal = causal || (s && strcmp(s, "Gemma2ForCausalLM") == 0);
    }
    if (!causal) refuse(r, "architectures", "expected \"Gemma2ForCausalLM\"");
    want_bool(r, "attention_bias", false, "Gemma-2's projections have no bias");
    want_bool(r, "tie_word_embeddings", true, "sails has the tied head alone");
    want_bool(r, "use_bidirectional_attention", false, "sails attends causally");
    want_absent(r, "quantization_config", "give the unquantised model");
    v = field(r, "attention_dropout");
    if (v && !(json_is_number(v) && json_number_value(v) == 0))
        refuse(r, "attention_dropout", "expected 0");
    v = field(r, "partial_rotary_factor");
    if (v && !(json_is_number(v) && json_number_value(v) == 1))
        refuse(r, "partial_rotary_factor", "expected 1");
}

/* Other tools write -1 where there is no such token. */
static int read_token(Reader *r, const char *key, int V) {
    return field(r, key) ? read_int(r, key, -1, V - 1, -1) : -1;
}

static void read_eos(Reader *r, Config *c) {
    const json_t *v = field(r, "eos_token_id");
    if (!v) return;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    size_t room = sizeof c->eos / sizeof c->eos[0];
    if (n > room) refuse(r, "eos_token_id", "expected at most %zu ids", room);
    c->neos = 0;
    for (size_t i = 0; i < n && !r->failed; i++) {
        const json_t *id = json_is_array(v) ? json_array_get(v, i) : v;
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= c->V)
            refuse(r, "eos_token_id", "expected token ids from 0 to %d", c->V - 1);
        else
            c->eos[c->neos++] = (int)value;
    }
}

static void read_config(Reader *r, Config *c) {
    if (!json_is_object(r->json)) {
        refuse(r, "top level", "expected an object");
        return;
    }
    check_kind(r);
    read_shape(r, c);
    check_activation(r);
    c->eps = (float)read_number(r, "rms_norm_eps", 1e-6);
    c->rope_theta = read_number(r, "rope_theta", 10000);
    static const char *const rope_keys[] = {"rope_scaling", "rope_parameters"}; /* old, new */
    for (int i = 0; i < 2; i++) {
        const json_t *rope = field(r, rope_keys[i]);
        if (rope) c->rope_theta = read_rope(r, rope_keys[i], rope, c->rope_theta);
    }
    c->query_scale = (float)pow(read_number(r, "query_pre_attn_scalar", 256), -0.5);
    c->attn_cap = read_cap(r, "attn_logit_softcapping", 50);
    c->final_cap = read_cap(r, "final_logit_softcapping", 30);
    if (!r->failed) read_layer_types(r, c);
    c->bos = read_token(r, "bos_token_id", c->V);
    c->pad = read_token(r, "pad_token_id", c->V);
    read_eos(r, c);
}

bool config_parse(Config *c, const json_t *json, const char *name, Err *err) {
    memset(c, 0, sizeof *c);
    Reader r = {.json = json, .path = name, .err = err};
    read_config(&r, c);
    if (r.failed) config_free(c);
    return !r.failed;
}

/* A folder or file of another format has no config.json; to miss that would say little. */
static bool of_our_format(const char *folder, Err *err) {
    char *path = files_join(folder, "config.json");
    bool ok = files_exists(path) || foreign_refuse(folder, "model", err);
    free(path);
    return ok;
}

bool config_load(Config *c, const char *folder, Err *err) {
    memset(c, 0, sizeof *c);
    if (!of_our_format(folder, err) || !files_need_folder(folder, "config.json", err)) return false;
    char *path = files_join(folder, "config.json");
    char *generation = files_join(folder, "generation_config.json");
    json_t *json = NULL;
    bool ok = files_read_json(&json, path, CONFIG_BYTES, err) && config_parse(c, json, path, err);
    json_decref(json);
    json = NULL;
    /* Its eos list is the one that generation honours: the tuned models add <end_of_turn> here. */
    if (ok && files_exists(generation)) ok = files_read_json(&json, generation, CONFIG_BYTES, err);
    if (ok && json) {
        Reader r = {.json = json, .path = generation, .err = err};
        if (!json_is_object(json)) refuse(&r, "top level", "expected an object");
        read_eos(&r, c);
        ok = !r.failed;
    }
    json_decref(json);
    free(path), free(generation);
    if (!ok) config_free(c);
    return ok;
}

void config_free(Config *c) {
    free(c->sliding);
    memset(c, 0, sizeof *c);
}

AttnShape config_attn(const Config *c, int layer) {
    return (AttnShape){.H = c->H,
                       .K = c->K,
                       .E = c->E,
                       .window = c->sliding[layer] ? c->window : 0,
                       .scale = c->query_scale,
                       .cap = c->attn_cap};
}
