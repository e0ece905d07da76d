/* layers.h - the layer list of score.layers: "5,10,15" or ranges, "0-3,8". */
#ifndef SAILS_LAYERS_H
#define SAILS_LAYERS_H

#include "data/base/err.h"

typedef struct Layers {
    int *layer; /* (n) rising, distinct, each below the model's number of layers */
    int n;
} Layers;

bool layers_parse(Layers *l, const char *list, int model_layers, Err *err);
void layers_free(Layers *l); /* accepts a zeroed struct */

#endif
