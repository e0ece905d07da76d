/* gemma2.h - Gemma-2 with LoRA: weights, forward and backward over packs. Knows only the ops. */
#ifndef SAILS_GEMMA2_H
#define SAILS_GEMMA2_H

#include "host/base/arena.h"
#include "host/base/pack.h"
#include "host/base/safetensors.h"
#include "model/config.h"
#include "model/lora.h"

typedef struct LayerWeights { /* storage type, names of the checkpoint */
    const store *input_norm, *post_attn_norm, *pre_ffn_norm, *post_ffn_norm; /* (D) */
    const store *proj[PROJ_COUNT];                                           /* (out,in) */
} LayerWeights;

typedef struct Model {
    Config c;
    Exec *ex;
    const store *embed, *final_norm; /* (V,D), (D) */
    LayerWeights *layer;             /* (L) */
    float embed_scale;               /* sqrt(D) rounded to the storage type */
    float *cos, *sin;                /* (max_positions, E/2) */
    Lora *lora;                      /* borrowed; NULL: the base model */
    StSet *file;
    Arena arena; /* what is not mapped in place */
} Model;

/* Loads a Hugging Face folder. max_positions bounds the rope table (0: the config's). */
bool model_open(Model *m, Exec *ex, const char *folder, int max_positions, Err *err);
void model_close(Model *m);

/* What a pass keeps. ACTS_INFER reuses one layer's buffers; ACTS_TRAIN keeps what backward needs.
 */
enum ActsUse { ACTS_INFER, ACTS_TRAIN };
typedef struct Acts Acts;
Acts *acts_create(const Model *m, int max_rows, int max_segs, int max_labels, enum ActsUse use);
void acts_destroy(Acts *a); /* NULL is allowed */

/* Called after each decoder layer with the residual stream that leaves it, (N,D) store. */
typedef void model_tap(void *context, int layer, const store *x, int N);

/* Runs the first `layers` decoder layers over the pack (c.L: all, and the final norm). */
void model_forward(const Model *m, Acts *a, const Pack *pack, int layers, model_tap *tap,
                   void *context);

/* Final hidden states after model_forward of all layers, (N,D) store. */
const store *acts_hidden(const Acts *a);

/* Head on the pack's label rows only, in chunks: nll (nlabel) f32 to host memory. Returns their
 * sum in double. With ACTS_TRAIN it also leaves the gradient of gscale * sum for model_backward. */
double model_loss(const Model *m, Acts *a, const Pack *pack, float gscale, float *nll);

/* Adds the gradients of all trained adapter matrices. After model_loss of the same pack. */
void model_backward(const Model *m, Acts *a, const Pack *pack);

/* Raw logits (before the final cap is applied they are capped here) of given rows, to the host. */
void model_logits(const Model *m, Acts *a, const int32_t *row, int n, float *logits);

#endif
