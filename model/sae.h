/* sae.h - a sparse autoencoder on the residual stream: files and device form.
 *
 * Gemma Scope params.npz (W_enc, W_dec, b_enc, b_dec, threshold) and SAELens folders (cfg.json +
 * sae_weights.safetensors; standard/ReLU, TopK, JumpReLU; configurations of version 6 and before).
 * Options that change the arithmetic are folded exactly (b_dec subtracted from the input -> b_enc;
 * TopK on activations scaled by decoder norms -> W_enc, b_enc) or refused by name. */
#ifndef SAILS_SAE_H
#define SAILS_SAE_H

#include "data/base/err.h"
#include "kernels/ops.h"

typedef struct Sae {
    Exec *ex;                 /* NULL: opened without its encoder */
    SaeEncoder enc;           /* D, S, act and topk always; tensors in device memory with an Exec */
    float *w, *b, *threshold; /* the same tensors, owned */
    char *path;               /* the .npz file or the SAELens folder that was found */
    char *file;               /* the file that holds the weights, for hashing */
    char
        *id; /* Neuronpedia's "gemma-2-2b/20-gemmascope-res-16k" when path or file tell it, or "" */
    int layer;
} Sae;

/* `pattern` is a path in which {layer} stands for the layer's number, with shell wildcards; it
 * must name exactly one SAE, and one that was trained on the stream leaving this layer as far as
 * its path or configuration say (layer -1: any). `width` is the model's D; 0: any. With ex NULL
 * only the shapes are read. On success s is to be closed by sae_close. */
bool sae_open(Sae *s, Exec *ex, const char *pattern, int layer, int width, Err *err);
void sae_close(Sae *s); /* accepts a zeroed Sae */

/* Decoder rows W_dec[feature[i]] (k,D) as f64 to host memory, as they are in the file. */
bool sae_decoder_rows(const Sae *s, double *rows, const int32_t *feature, int k, Err *err);

/* Of each of k features the n others whose decoder rows have the largest cosines with its own, the
 * largest first, equal ones by index: near (k,n), -1 where there are no more; cosine (k,n). rows
 * (k,D): theirs, as above. A row of zeros is near to none. */
bool sae_decoder_nearest(const Sae *s, int32_t *near, double *cosine, const double *rows,
                         const int32_t *feature, int k, int n, Err *err);

#endif
