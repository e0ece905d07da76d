/* sae.h - a sparse autoencoder on the residual stream: files and device form.
 *
 * Gemma Scope params.npz (W_enc, W_dec, b_enc, b_dec, threshold) and SAELens folders (cfg.json +
 * sae_weights.safetensors; standard/ReLU, TopK, JumpReLU). Options that change the arithmetic are
 * folded exactly (b_dec subtracted from the input -> b_enc) or refused by name. */
#ifndef SAILS_SAE_H
#define SAILS_SAE_H

#include "host/base/err.h"
#include "kernels/ops.h"

typedef struct Sae {
    Exec *ex;
    SaeEncoder enc; /* device tensors */
    char *path;     /* the file or folder that was found */
    char *id;       /* "gemma-2-2b/20-gemmascope-res-16k" when the path tells it, else "" */
    int layer;
} Sae;

/* `pattern` is a path with {layer} and shell wildcards; it must name exactly one SAE. `width` is
 * the model's D. With `encoder` false only shapes are read. */
bool sae_open(Sae *s, Exec *ex, const char *pattern, int layer, int width, Err *err);
void sae_close(Sae *s);

/* Decoder rows W_dec[feature[i]] (k,D) as f64 to host memory. */
bool sae_decoder_rows(const Sae *s, double *rows, const int32_t *feature, int k, Err *err);

#endif
