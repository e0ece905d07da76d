/* config.h - the shape of a Gemma-2 model, read from a Hugging Face config.json. */
#ifndef SAILS_CONFIG_H
#define SAILS_CONFIG_H

#include <jansson.h>

#include "data/base/err.h"
#include "kernels/ops.h"

typedef struct Config {
    int L, D, F, V; /* layers, model width, ffn width, vocabulary */
    int H, K, E;    /* query heads, key/value heads, head width */
    float eps;      /* of every RMSNorm */
    double rope_theta;
    float query_scale;         /* query_pre_attn_scalar ^ -0.5 */
    float attn_cap, final_cap; /* 0: none */
    int window;                /* of sliding layers, tokens */
    int max_positions;
    bool *sliding;              /* (L) */
    int bos, pad, eos[8], neos; /* token ids; -1: the model has none */
} Config;

/* Reads folder/config.json (and generation_config.json for eos ids, when there). Old and new key
 * spellings; absent fields take the values of transformers' Gemma2Config, except the widths and
 * counts, which must be there. A field that sails cannot honour exactly (attention bias, untied
 * head, another activation, rope scaling ...) is refused by its name. On failure c is zeroed. */
bool config_load(Config *c, const char *folder, Err *err);

/* The same from the value of a config.json alone; `name` is what messages call it. */
bool config_parse(Config *c, const json_t *json, const char *name, Err *err);
void config_free(Config *c); /* accepts a zeroed Config */

AttnShape config_attn(const Config *c, int layer);

#endif
