/* sae_file.h - the two file formats of SAEs behind one reader. Used by sae.c alone. */
#ifndef SAILS_SAE_FILE_H
#define SAILS_SAE_FILE_H

#include "data/base/npz.h"
#include "data/base/safetensors.h"
#include "kernels/ops.h"

typedef struct SaeFile {
    Npz *npz;   /* one of the two */
    StSet *set; /* ... is open */
    char *path; /* as given */
    char *file; /* that holds the weights */
    char *id;   /* Neuronpedia's id as the configuration states it, or NULL */
    int D, S, topk;
    enum SaeAct act;
    bool subtract_b_dec;   /* the encoder reads x - b_dec */
    bool scale_by_decoder; /* pre-activations are multiplied by the decoder row's norm */
} SaeFile;

/* Whether a path looks like an SAE: a .npz file, or a folder with cfg.json or params.npz. */
bool sae_file_looks_like(const char *path);

/* Opens and checks: shapes, model width, layer and place of the stream as far as they are told. */
bool sae_file_open(SaeFile *f, const char *path, int layer, int width, Err *err);
void sae_file_close(SaeFile *f); /* accepts a zeroed SaeFile */

/* Streams a tensor's rows in order as f32: `take` gets each row, n elements, and its number. A
 * vector is one row. NaN and infinity are refused. */
typedef void sae_row(void *context, const float *row, size_t number, size_t n);
bool sae_file_rows(const SaeFile *f, const char *name, sae_row *take, void *context, Err *err);

#endif
