/* layer_list.h - "5,10,15": the layers that a file of per-layer tensors holds, in its metadata. */
#ifndef SAILS_LAYER_LIST_H
#define SAILS_LAYER_LIST_H

#include "data/base/err.h"
#include "data/base/safetensors.h"

enum { LAYER_KEY = 64, LAYER_LIMIT = 100000 };

/* "layer.7.sum" into key, which is returned. */
const char *layer_key(char key[LAYER_KEY], int layer, const char *what);

/* Writes the metadata "layers". */
void layer_list_write(StWriter *w, const int *layer, int n);

/* Reads it: rising numbers in [0,LAYER_LIMIT), at least one (malloc). */
bool layer_list_read(int **layer, int *n, const StSet *set, const char *path, Err *err);

/* Copies a tensor of this name, type and shape out of the set. */
bool layer_tensor_read(void *to, const StSet *set, int layer, const char *what, enum StType type,
                       int rank, const size_t *dim, Err *err);

#endif
