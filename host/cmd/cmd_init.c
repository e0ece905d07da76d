/* cmd_init.c - a random Gemma-2 checkpoint in Hugging Face form, for tests, plans and benches.
 *
 * Every element is a function of (seed, its tensor's name, its index): the same for any number of
 * threads, shards and layers. Written tensor by tensor through one buffer, so that a model far
 * larger than memory can be made. */
#include <stdio.h>
#include <string.h>

#include "data/tokenizer.h"
#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/out_folder.h"
#include "data/base/rng.h"
#include "host/cli/command.h"
#include "data/base/interrupt.h"
#include "host/stage/model_files.h"
#include "model/presets.h"
#include "host/cli/print.h"
#include "kernels/bf16.h"

enum { CONFIG_BYTES = 1 << 20, CHUNK = 1 << 20 /* elements written at once */ };
enum {
    EOS = 1,
    END_OF_TURN = 107
}; /* ids of Gemma's tokenizer; a small vocabulary lacks the second */

static bool read_config(json_t **config, const char *path, Err *err) {
    size_t n = strlen(path);
    bool is_file = n > 5 && strcmp(path + n - 5, ".json") == 0;
    if (!is_file && !files_need_folder(path, "config.json", err)) return false;
    char *file = is_file ? mem_string(path) : files_join(path, "config.json");
    bool ok = files_read_json(config, file, CONFIG_BYTES, err);
    if (ok && !json_is_object(*config)) {
        json_decref(*config);
        ok = err_set(err, EXIT_INPUT, "%s: expected a JSON object", file);
    }
    free(file);
    return ok;
}

static void override(json_t *config, const char *key, int value) {
    if (value) json_object_set_new(config, key, json_integer(value));
}

static void apply_shape(json_t *config, const Settings *s) {
    override(config, "num_hidden_layers", s->init.layers);
    override(config, "hidden_size", s->init.hidden);
    override(config, "intermediate_size", s->init.ffn);
    override(config, "num_attention_heads", s->init.heads);
    override(config, "num_key_value_heads", s->init.kv_heads);
    override(config, "head_dim", s->init.head_dim);
    override(config, "query_pre_attn_scalar", s->init.head_dim); /* scores of unit size */
    override(config, "vocab_size", s->init.vocab);
    override(config, "sliding_window", s->init.window);
    override(config, "max_position_embeddings", s->init.positions);
    if (s->init.layers) json_object_del(config, "layer_types"); /* alternates by default */
    const char *dtype = s->init.dtype == DTYPE_BF16 ? "bfloat16" : "float32";
    json_object_set_new(config, "torch_dtype", json_string(dtype));
}

/* The special ids of a tokenizer other than Gemma's differ, and so does its size. */
static bool apply_tokenizer(json_t *config, json_t *generation, const Settings *s, Err *err) {
    if (!*s->model.tokenizer) return true;
    Tokenizer *t;
    if (!tokenizer_open(&t, s->model.tokenizer, err)) return false;
    static const char *const key[] = {"pad_token_id", "eos_token_id", "bos_token_id"};
    static const char *const piece[] = {"<pad>", "<eos>", "<bos>"};
    bool ok = true;
    for (int i = 0; i < 3 && ok; i++) {
        int32_t id = tokenizer_id(t, piece[i]);
        if (id < 0)
            ok = err_set(err, EXIT_INPUT, "%s: expected a piece %s", s->model.tokenizer, piece[i]);
        json_object_set_new(config, key[i], json_integer(id));
        json_object_set_new(generation, key[i], json_integer(id));
    }
    json_t *eos = json_pack("[O]", json_object_get(config, "eos_token_id"));
    int32_t end_of_turn = tokenizer_id(t, "<end_of_turn>");
    if (end_of_turn >= 0) json_array_append_new(eos, json_integer(end_of_turn));
    json_object_set_new(generation, "eos_token_id", eos);
    json_int_t vocab = json_integer_value(json_object_get(config, "vocab_size"));
    if (!s->init.vocab && !*s->init.config)
        override(config, "vocab_size", tokenizer_vocab(t));
    else if (ok && vocab < tokenizer_vocab(t))
        ok = err_set(err, EXIT_USAGE, "--vocab: expected at least the tokenizer's %d, got %d",
                     tokenizer_vocab(t), (int)vocab);
    tokenizer_close(t);
    return ok;
}

/* The two files of the model: what is refused when it is read is refused now, under the name of
 * what it came from. The caller frees both, on failure too. */
static bool make_configs(json_t **config, json_t **generation, Config *c, const Settings *s,
                         Err *err) {
    char preset[SETTING_KEY], from[600];
    setting_choice_name(CHOICES(PRESETS), s->init.preset, preset);
    if (!*s->init.config)
        *config = preset_config((enum Preset)s->init.preset);
    else if (!read_config(config, s->init.config, err))
        return false;
    *generation = json_pack("{s:i, s:[i,i], s:i}", "bos_token_id", 2, "eos_token_id", EOS,
                            END_OF_TURN, "pad_token_id", 0);
    CHECK(*config && *generation, "json_pack failed");
    snprintf(from, sizeof from, "%s%.500s", *s->init.config ? "" : "preset ",
             *s->init.config ? s->init.config : preset);
    if (!config_parse(c, *config, from, err)) return false;
    config_free(c);
    apply_shape(*config, s);
    if (s->init.vocab && s->init.vocab <= END_OF_TURN)
        json_object_set_new(*generation, "eos_token_id", json_integer(EOS));
    strcat(from, " with the flags given");
    return apply_tokenizer(*config, *generation, s, err) && config_parse(c, *config, from, err);
}

static bool write_json_in(const char *folder, const char *name, const json_t *value, Err *err) {
    char *path = files_join(folder, name);
    bool ok = files_write_json(path, value, err);
    free(path);
    return ok;
}

typedef struct Noise {
    uint64_t seed;
    double std, norm_std;
    float *value;
    bf16 *rounded;
} Noise;

static uint64_t name_hash(const char *name) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return h;
}

static bool random_tensor(void *context, const OutTensor *t, StWriter *w, Err *err) {
    Noise *noise = context;
    size_t n = t->tensor.count;
    double std = t->tensor.rank == 2 ? noise->std : noise->norm_std;
    uint64_t stream = name_hash(t->tensor.name);
    for (size_t at = 0; at < n; at += CHUNK) {
        if (interrupted(err)) return false;
        size_t m = n - at < CHUNK ? n - at : CHUNK;
#pragma omp parallel for schedule(static)
        for (size_t i = 0; i < m; i++) {
            noise->value[i] = (float)(std * rng_normal(noise->seed, stream, at + i));
            noise->rounded[i] = bf16_from_f32(noise->value[i]);
        }
        const void *data = t->type == ST_BF16 ? (void *)noise->rounded : (void *)noise->value;
        if (!st_writer_data(w, data, m * st_type_size(t->type), err)) return false;
    }
    return true;
}

static void report(const Settings *s, const Config *c) {
    double parameters = (double)tensors_parameters(c);
    double bytes = parameters * (double)dtype_size((enum Dtype)s->init.dtype);
    if (s->run.json) {
        print_json(json_pack("{s:s, s:f, s:f}", "out", s->init.out, "parameters", parameters,
                             "bytes", bytes));
        return;
    }
    char size[PRINT_ROOM];
    printf("%s: %.0f %s parameters, %s in %s, %d layers of width %d\n", s->init.out, parameters,
           s->init.sparse ? "absent" : "random", print_bytes(size, bytes),
           dtype_name((enum Dtype)s->init.dtype), c->L, c->D);
}

static bool absent_tensor(void *context, const OutTensor *t, StWriter *w, Err *err) {
    (void)context;
    return st_writer_hole(w, t->tensor.count * st_type_size(t->type), err);
}

static bool write_tensors(const Settings *s, const Config *c, const char *folder, Err *err) {
    int n;
    OutTensor *t = model_files_tensors(c, s->init.dtype == DTYPE_BF16 ? ST_BF16 : ST_F32, &n);
    Noise noise = {(uint64_t)s->run.seed, s->init.std, s->init.norm_std,
                   mem_array(CHUNK, sizeof(float)), mem_array(CHUNK, sizeof(bf16))};
    bool ok = model_files_write(folder, t, n, (size_t)(s->init.shard * 1e9),
                                s->init.sparse ? absent_tensor : random_tensor, &noise, err);
    free(noise.value);
    free(noise.rounded);
    free(t);
    return ok;
}

static bool write_model(const Settings *s, const Config *c, const json_t *config,
                        const json_t *generation, Err *err) {
    OutFolder *out;
    if (!out_folder_open(&out, s->init.out, err)) return false;
    const char *to = out_folder_path(out);
    bool ok = write_tensors(s, c, to, err) && write_json_in(to, "config.json", config, err) &&
              write_json_in(to, "generation_config.json", generation, err) &&
              (!*s->model.tokenizer || model_files_copy_tokenizer(to, s->model.tokenizer, err));
    return out_folder_close(out, ok, err);
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Config c = {0};
    json_t *config = NULL, *generation = NULL;
    bool ok = model_files_refuse_existing(s->init.out, err) &&
              make_configs(&config, &generation, &c, s, err) &&
              write_model(s, &c, config, generation, err);
    if (ok) report(s, &c);
    json_decref(generation);
    json_decref(config);
    config_free(&c);
    return ok;
}

static const Use use[] = {
    {"init.*", USE_OPTIONAL}, {"init.out", USE_NEEDED},  {"model.tokenizer", USE_OPTIONAL},
    {"seed", USE_OPTIONAL},   {"threads", USE_OPTIONAL}, {"json", USE_OPTIONAL},
    {NULL, USE_OPTIONAL}};

const Command cmd_init = {
    .name = "init",
    .summary = "make a random model from a config",
    .about =
        "Starts from --config, or from --preset, then changes what the flags name. With\n"
        "--tokenizer its files are copied, and its special ids and size are taken over.",
    .positional = POSITIONAL_NONE,
    .use = use,
    .run = run,
};
