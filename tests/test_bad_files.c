/* Bad files of the binary formats and the JSON beside them: models, tokenizers, adapters, SAEs,
 * scores and subspaces. What a row means: bad_rows.h. */
#include "host/cli/command.h"

#include <math.h>
#include <zip.h>

#include "tests/bad_rows.h"

#define LOGPROB "logprob " MODEL SOME_DATA "--data pairs.jsonl --out new/logprobs"
#define SHARDED \
    "logprob --model sharded --dtype f32 " SOME_DATA "--data pairs.jsonl --out new/logprobs"
#define MERGE "merge --model model --adapter adapter --out new/merged"
#define GENERATE "generate " MODEL "--prompts prompts.jsonl --max-new-tokens 3 --out new/replies"
#define SCORE \
    "score " MODEL SOME_DATA "--data pairs.jsonl --sae sae/{layer} --layers 1,2 --out new/s"
#define SCOPE \
    "score " MODEL SOME_DATA "--data pairs.jsonl --sae scope/layer_{layer} --layers 1 --out new/s"
#define TOKENIZE "tokenize --tokenizer model --data prompts.jsonl --out new/tokens"
#define ADAPTED "logprob " MODEL SOME_DATA "--adapter adapter --data pairs.jsonl --out new/logprobs"
#define SUBSPACE "subspace --scores scores --top-k 6 --rank 4 --out new/basis"
#define DIRECT "subspace --moments moments --init direct-pairs --rank 4 --out new/direct"
#define TRAIN_LORA TRAIN_ON "--init lora"
#define TRAIN_SAILS TRAIN_ON "--subspace basis"

#define T(name, dtype, shape, begin, end)                                                        \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end \
    "]}"
#define OVERLAP "{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[2]", "4", "12") "}"
#define HOLE "{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "8", "12") "}"
#define PAST_END "{" T("a", "F32", "[4]", "0", "16") "}"
#define OVERFLOWING "{" T("a", "F64", "[4294967296,4294967296,4294967296]", "0", "8") "}"
#define LONG_HEADER "\xff\xff\xff\xff\xff\0\0\0"

/* ------------------------------------------------------------------------ what every kind gets --
 */

/* Rows of any safetensors file, and of any JSON file. */
#define TENSOR_ROWS(file, command)                                                             \
    {3, GONE(file), command, ""}, {3, EMPTY(file), command, "not empty"},                      \
        {3, HALF(file), command, "fetch or make the file again"},                              \
        {3, PUT(file, 0, LONG_HEADER), command, "header of 1099511627775 bytes"},              \
        {3, PUT(file, 0, "\0\0\0\0\0\0\0\0"), command, "start with '{'"},                      \
        {3, PUT(file, 8, "[[["), command, "start with '{'"},                                   \
        {3, PUT(file, 10, "\xff"), command, "valid JSON"},                                     \
        {3, TENSORS(file, OVERLAP, 12), command, "a and b overlap"},                           \
        {3, TENSORS(file, HOLE, 12), command, "found 4 bytes before tensor b"},                \
        {3, TENSORS(file, PAST_END, 12), command, "bytes 0 to 16 do not lie"},                 \
        {3, TENSORS(file, OVERFLOWING, 8), command, "a shape that memory can hold"},           \
        {3, TENSORS(file, "{\"a\":{\"dtype\":\"F32\"},\"a\":{}}", 0), command, "duplicate"}, { \
        3, SWAP(file, "\"dtype\"", "\"dtipe\""), command, "dtipe"                              \
    }

#define JSON_ROWS(file, command)                                                    \
    {3, GONE(file), command, ""}, {3, EMPTY(file), command, "valid JSON"},          \
        {3, HALF(file), command, "expected valid JSON"},                            \
        {3, IS(file, "[]"), command, "expected a"},                                 \
        {3, IS(file, "{\"a\": 1, \"a\": 2}"), command, "duplicate"},                \
        {3, IS(file, "{\"a\": \"\xff\"}"), command, "valid JSON"},                  \
        {3, IS(file, "{\"a\": \"x\\u0000y\"}"), command, "NUL"},                    \
        {3, IS(file, "{\"a\": NaN}"), command, "expected valid JSON"},              \
        {3, IS(file, "{\"a\": 1e999}"), command, "real number overflow"},           \
        {3, IS(file, "{\"a\": 99999999999999999999}"), command, "too big integer"}, \
        {3, MANY(file, "[", 100000), command, "maximum parsing depth"}, {           \
        3, MANY(file, "{\"a\":", 100000), command, "maximum parsing depth"          \
    }

/* ---------------------------------------------------------------------------- model, tokenizer --
 */

/* From the end: all weights but the embedding, which comes first. */
#define LAYER_0 (-(675840 - 703 * 64 * 4))

static const Row model_rows[] = {
    TENSOR_ROWS("model/model.safetensors", LOGPROB),
    {3, SWAP("model/model.safetensors", "[96,64]", "[64,96]"), LOGPROB, "expected shape [96, 64]"},
    {3, SWAP("model/model.safetensors", "\"F32\"", "\"I32\""), LOGPROB, "expected F32, BF16"},
    {3, SWAP("model/model.safetensors", "\"F32\"", "\"F8X\""), LOGPROB, "known dtype"},
    {3, SWAP("model/model.safetensors", "model.norm", "model.morn"), LOGPROB, "model.norm.weight"},
    {3, SWAP("model/model.safetensors", "model.norm", "model.morn"), SCORE, "model.norm.weight"},
    {6, PUT("model/model.safetensors", -4, NAN_F32), LOGPROB, "first bad tensor model.norm.weight"},
    {6, PUT("model/model.safetensors", -4, NAN_F32), GENERATE,
     "first bad tensor model.norm.weight"},
    {6, PUT("model/model.safetensors", -4, NAN_F32), TRAIN_LORA,
     "first bad tensor model.norm.weight"},
    {6, PUT("model/model.safetensors", LAYER_0, NAN_F32), SCORE, "model.layers.0.self_attn.q_proj"},
    {3, HALF("model/model.safetensors"), "inspect model", "fetch or make"},
    {3, IS("model/config.json", "[]"), "inspect model", "expected an object"},
    JSON_ROWS("model/config.json", LOGPROB),
    {3, SWAP("model/config.json", "gemma2\"", "llama\""), LOGPROB, "model_type"},
    {3, SWAP("model/config.json", "\"hidden_size\": 64", "\"hidden_size\": \"64\""), LOGPROB,
     "hidden_size: expected a whole number"},
    {3, SWAP("model/config.json", "\"hidden_size\": 64", "\"hidden_size\": -64"), LOGPROB,
     "hidden_size: expected a whole number"},
    {3, SWAP("model/config.json", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"),
     LOGPROB, "divisor"},
    {3, SWAP("model/config.json", "{", "{\"quantization_config\": {},"), LOGPROB, "unquantised"},
    {3, SWAP("model/config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3"), LOGPROB,
     "with 3 layers"},
    {3, MANY("model/config.json", " ", (16 << 20) + 1), LOGPROB, "at most 16777216 bytes"},
    {3, HALF("model/generation_config.json"), LOGPROB, "expected valid JSON"},
    {3, IS("model/generation_config.json", "[]"), LOGPROB, "expected an object"},
    {3, IS("model/generation_config.json", "{\"eos_token_id\": [1, -1]}"), LOGPROB, "token ids"},
    JSON_ROWS("model/tokenizer.json", TOKENIZE),
    {3, SWAP("model/tokenizer.json", "\"BPE\"", "\"Unigram\""), TOKENIZE, "expected BPE"},
    {3, SWAP("model/tokenizer.json", "\"merges\":", "\"emerges\":"), TOKENIZE, "unknown key"},
    {3, SWAP("model/tokenizer.json", "\"id\":", "\"id\": 99999999, \"di\":"), TOKENIZE,
     "an id from 0"},
};

static const Row shard_rows[] = {
    JSON_ROWS("sharded/model.safetensors.index.json", SHARDED),
    {3, IS("sharded/model.safetensors.index.json", "{\"weight_map\": {}}"), SHARDED, "weight_map"},
    {3, SWAP("sharded/model.safetensors.index.json", "\"model-00002", "\"../model-00002"), SHARDED,
     "in a file of this folder"},
    {3, SWAP("sharded/model.safetensors.index.json", "\"model-00002", "\"model-00001"), SHARDED,
     "weight_map says"},
    {3, SWAP("sharded/model.safetensors.index.json", "model.norm", "model.morn"), SHARDED,
     "weight_map says nothing"},
    {3, GONE("sharded/model-00002-of-00003.safetensors"), SHARDED, "cannot open"},
    {3, HALF("sharded/model-00002-of-00003.safetensors"), SHARDED, "fetch or make"},
    {3, TENSORS("sharded/model-00001-of-00003.safetensors", OVERLAP, 12), SHARDED, "overlap"},
};

/* -------------------------------------------------------------------------------- adapters -- */

static const Row adapter_rows[] = {
    JSON_ROWS("adapter/adapter_config.json", ADAPTED),
    {3, SWAP("adapter/adapter_config.json", "\"LORA\"", "\"IA3\""), ADAPTED, "peft_type"},
    {3, SWAP("adapter/adapter_config.json", "\"r\": 2", "\"r\": 0"), ADAPTED, "r: expected whole"},
    {3, SWAP("adapter/adapter_config.json", "\"r\": 2", "\"r\": 70000"), ADAPTED, "1 to 65536"},
    {3, SWAP("adapter/adapter_config.json", "use_dora\": false", "use_dora\": true"), ADAPTED,
     "use_dora"},
    {3, IS("adapter/adapter_config.json", "[]"), "inspect adapter", "expected an object"},
    {3, HALF("adapter/adapter_model.safetensors"), "inspect adapter", "fetch or make"},
    TENSOR_ROWS("adapter/adapter_model.safetensors", ADAPTED),
    {3, SWAP("adapter/adapter_model.safetensors", "[2,64]", "[64,2]"), ADAPTED,
     "expected shape [2, 64]"},
    {3, SWAP("adapter/adapter_model.safetensors", "\"F32\"", "\"I32\""), ADAPTED, "expected F32"},
    {3, SWAP("adapter/adapter_model.safetensors", "q_proj.lora_A", "q_proj.lora_C"), ADAPTED,
     "q_proj.lora_A.weight, it is not there"},
    {3, PUT("adapter/adapter_model.safetensors", -4, NAN_F32), ADAPTED, "NaN or infinite"},
    {6, PUT("model/model.safetensors", LAYER_0, NAN_F32), MERGE, "q_proj.weight: element 0 is NaN"},
    {6, PUT("model/model.safetensors", -4, NAN_F32), MERGE, "norm.weight: element 63 is NaN"},
    {3, PUT("adapter/adapter_model.safetensors", -4, NAN_F32), MERGE, "NaN or infinite"},
};

/* ------------------------------------------------------------------------------------ SAEs -- */

static const Row sae_rows[] = {
    JSON_ROWS("sae/1/cfg.json", SCORE),
    {3, SWAP("sae/1/cfg.json", "\"jumprelu\"", "\"gated\""), SCORE, "architecture = gated"},
    {3, SWAP("sae/1/cfg.json", "blocks.1", "blocks.2"), SCORE, "says layer 2"},
    {3, SWAP("sae/1/cfg.json", "hook_resid_post", "hook_mlp_out"), SCORE, "residual stream"},
    {3, SWAP("sae/1/cfg.json", "\"d_in\": 64", "\"d_in\": 65"), SCORE, "d_in to be 64"},
    {3, SWAP("sae/1/cfg.json", "\"jumprelu\"", "\"topk\", \"k\": 41"), SCORE,
     "at most 40 features"},
    {3, SWAP("sae/1/cfg.json", "\"none\"", "\"layer_norm\""), SCORE, "normalize_activations"},
    TENSOR_ROWS("sae/1/sae_weights.safetensors", SCORE),
    {3, SWAP("sae/1/sae_weights.safetensors", "[64,40]", "[40,64]"), SCORE, "width 40"},
    {3, SWAP("sae/1/sae_weights.safetensors", "\"F32\"", "\"I32\""), SCORE, "expected F32"},
    {3, SWAP("sae/1/sae_weights.safetensors", "threshold", "thresholt"), SCORE, "threshold"},
    {3, PUT("sae/1/sae_weights.safetensors", -4, NAN_F32), SCORE, "threshold: row 0 holds NaN"},
    {3, GONE("sae/1/cfg.json"), SUBSPACE, "no SAE for layer 1"},
    {3, PUT("sae/1/sae_weights.safetensors", -4, "\0\0\0\0"), SUBSPACE,
     "not the SAE that was scored"},
};

/* A member of the archive: a (the member's name) gets the header b; without b it is left out, or
 * with n its first number becomes NaN. */
static bool damage_member(Buf *bytes, const Damage *d);

#define MEMBER(name, header) \
    { "scope/layer_1/params.npz", damage_member, name, header, 0, 0 }
#define MEMBER_NAN(name) \
    { "scope/layer_1/params.npz", damage_member, name, NULL, 0, 1 }
#define NPY(descr, order, shape) \
    "{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape ", }"

static const Row scope_rows[] = {
    {3, GONE("scope/layer_1/params.npz"), SCOPE, "no SAE for layer 1"},
    {3, EMPTY("scope/layer_1/params.npz"), SCOPE, "archive"},
    {3, HALF("scope/layer_1/params.npz"), "inspect scope/layer_1/params.npz", "archive"},
    {3, HALF("scope/layer_1/params.npz"), SCOPE, "archive"},
    {3, IS("scope/layer_1/params.npz", "PK\3\4"), SCOPE, "archive"},
    {3, PUT("scope/layer_1/params.npz", 200, "garbage"), SCOPE, "CRC"},
    {3, MEMBER("threshold", NULL), SCOPE, "expected member threshold.npy"},
    {3, MEMBER("W_enc", NPY("<f4", "False", "(60, 40)")), SCOPE, "needs 9600 bytes"},
    {3, MEMBER("W_enc", NPY("<f4", "False", "(40, 64)")), SCOPE, "width 40"},
    {3, MEMBER("W_dec", NPY("<f4", "False", "(64, 40)")), SCOPE, "expected 40 x 64"},
    {3, MEMBER("W_enc", NPY("<f4", "False", "(4294967296, 4294967296)")), SCOPE,
     "that memory can hold"},
    {3, MEMBER("W_enc", NPY("<i4", "False", "(64, 40)")), SCOPE, "little-endian float"},
    {3, MEMBER("W_enc", NPY(">f4", "False", "(64, 40)")), SCOPE, "little-endian float"},
    {3, MEMBER("W_enc", NPY("<f4", "True", "(60, 40)")), SCOPE, "needs 9600 bytes"},
    {3, MEMBER("b_enc", "{'descr': __import__('os')}"), SCOPE, "little-endian float"},
    {3, MEMBER("b_enc", ""), SCOPE, "expected a NumPy header"},
    {3, MEMBER_NAN("W_enc"), SCOPE, "W_enc: row 0 holds NaN"},
    {3, MEMBER_NAN("b_dec"), SCOPE, "b_dec: row 0 holds NaN"},
};

/* Writes an SAE as NumPy does, damaged as d says (NULL: not at all). */
static void write_npz(const char *path, const Damage *d) {
    static const struct {
        const char *name, *header;
        size_t n;
    } part[] = {{"W_enc", NPY("<f4", "False", "(64, 40)"), 64 * 40},
                {"W_dec", NPY("<f4", "False", "(40, 64)"), 64 * 40},
                {"b_enc", NPY("<f4", "False", "(40,)"), 40},
                {"b_dec", NPY("<f4", "False", "(64,)"), 64},
                {"threshold", NPY("<f4", "False", "(40,)"), 40}};
    int code;
    Buf member[5] = {{0}};
    zip_t *z = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    CHECK(z, "zip %d", code);
    for (int i = 0; i < 5; i++) {
        bool chosen = d && strcmp(d->a, part[i].name) == 0;
        if (chosen && !d->b && !d->n) continue;
        const char *header = chosen && d->b ? d->b : part[i].header;
        size_t n = strlen(header);
        char name[32], head[] = {(char)0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (char)n, 0};
        buf_add(&member[i], head, sizeof head), buf_add(&member[i], header, n);
        for (size_t j = 0; j < part[i].n; j++) {
            float x = chosen && d->n && j == 0 ? NAN : (float)test_noise((uint64_t)i, j);
            buf_add(&member[i], (const char *)&x, sizeof x);
        }
        snprintf(name, sizeof name, "%s.npy", part[i].name);
        zip_source_t *source = zip_source_buffer(z, member[i].p, member[i].n, 0);
        zip_int64_t at = zip_file_add(z, name, source, 0);
        CHECK(at >= 0 && zip_set_file_compression(z, (zip_uint64_t)at, ZIP_CM_STORE, 0) == 0,
              "zip");
    }
    CHECK(zip_close(z) == 0, "%s", path);
    for (int i = 0; i < 5; i++) buf_free(&member[i]);
}

static bool damage_member(Buf *bytes, const Damage *d) {
    write_npz("damaged.npz", d);
    buf_free(bytes);
    bool ok = read_bytes(bytes, "damaged.npz");
    unlink("damaged.npz");
    return ok;
}

/* -------------------------------------------------------------- scores, moments and subspace -- */

static const Row made_rows[] = {
    TENSOR_ROWS("scores", SUBSPACE),
    {3, SWAP("scores", "sails scores 1", "sails scores 9"), SUBSPACE, "written by sails score"},
    {3, SWAP("scores", "\"1,2\"", "\"2,1\""), SUBSPACE, "metadata \"layers\""},
    {3, SWAP("scores", "\"1,2\"", "\"1,3\""), SUBSPACE, "layer.3"},
    {3, SWAP("scores", "[2,64,40]", "[64,2,40]"), SUBSPACE, "expected shape [2, 64, 40]"},
    {3, SWAP("scores", "\"I64\"", "\"U64\""), SUBSPACE, "expected I64"},
    {3, PUT("scores", -8, "\0\0\0\0\0\0\0\x80"), SUBSPACE, "expected counts"},
    {3, PUT("scores", -8, "\0\0\0\0\0\0\0\x80"), "inspect scores", "expected counts"},
    TENSOR_ROWS("moments", DIRECT),
    {3, SWAP("moments", "sails moments 1", "sails moments 9"), DIRECT, "written by sails moments"},
    {3, SWAP("moments", "\"1,2\"", "\"1,3\""), DIRECT, "layer.3.sum"},
    {3, SWAP("moments", "[2,64,64]", "[64,2,64]"), DIRECT, "expected shape [2, 64, 64]"},
    {3, SWAP("moments", "\"F64\"", "\"I64\""), DIRECT, "expected F64"},
    {3, PUT("moments", -8, "\1\0\0\0\0\0\0\0"), DIRECT, "in pairs or none"},
    {3, PUT("moments", -32, NAN_F64), "inspect moments", "expected finite sums"},
    {3, HALF("basis"), "inspect basis", "fetch or make"},
    TENSOR_ROWS("basis", TRAIN_SAILS),
    {3, SWAP("basis", "sails subspace 1", "sails subspace 9"), TRAIN_SAILS, "by sails subspace"},
    {3, SWAP("basis", "[64,4]", "[4,64]"), TRAIN_SAILS, "rank <= width"},
    {3, SWAP("basis", "\"F64\"", "\"I64\""), TRAIN_SAILS, "expected F64"},
};

int main(void) {
    bad_world();
    CHECK(mkdir("scope", 0777) == 0 && mkdir("scope/layer_1", 0777) == 0, "scope");
    write_npz("scope/layer_1/params.npz", NULL);
#define RUN(rows) check_rows(rows, sizeof rows / sizeof rows[0])
    RUN(model_rows);
    RUN(shard_rows);
    RUN(adapter_rows);
    RUN(sae_rows);
    RUN(scope_rows);
    RUN(made_rows);
    world_remove();
    return test_done("bad files");
}
