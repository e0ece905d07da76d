/* presets.c - the published configurations. */
#include "model/presets.h"

/* What the shapes do not share; the rest is in preset_config. */
typedef struct Shape {
    int hidden, layers, heads, kv_heads, head_dim, ffn, query_scalar;
} Shape;
static const Shape shape[] = {
    [PRESET_2B] = {2304, 26, 8, 4, 256, 9216, 256},
    [PRESET_9B] = {3584, 42, 16, 8, 256, 14336, 256},
    [PRESET_27B] = {4608, 46, 32, 16, 128, 36864, 144},
};

json_t *preset_config(enum Preset preset) {
    const Shape *p = &shape[preset];
    return json_pack(
        "{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f,"
        " s:s, s:s, s:b, s:f, s:b, s:i, s:i, s:i}",
        "architectures", "Gemma2ForCausalLM", "model_type", "gemma2", "vocab_size", 256000,
        "hidden_size", p->hidden, "intermediate_size", p->ffn, "num_hidden_layers", p->layers,
        "num_attention_heads", p->heads, "num_key_value_heads", p->kv_heads, "head_dim",
        p->head_dim, "query_pre_attn_scalar", p->query_scalar, "sliding_window", 4096,
        "max_position_embeddings", 8192, "rms_norm_eps", 1e-6, "rope_theta", 10000.0,
        "attn_logit_softcapping", 50.0, "final_logit_softcapping", 30.0, "initializer_range", 0.02,
        "hidden_act", "gelu_pytorch_tanh", "hidden_activation", "gelu_pytorch_tanh",
        "attention_bias", 0, "attention_dropout", 0.0, "tie_word_embeddings", 1, "pad_token_id", 0,
        "eos_token_id", 1, "bos_token_id", 2);
}
