/* energy.h - how much of a trained adapter lies in the subspace, layer by layer, as JSON. */
#ifndef SAILS_ENERGY_H
#define SAILS_ENERGY_H

#include <jansson.h>
#include <stdio.h>

#include "model/adapter_delta.h"

/* {"sails": "energy 1", "projections": [{"layer", "projection", "side": "reads" | "writes",
 * "subspace_layer", "d", "columns", "rank", "norm", "energy", "expected", "sd", "angles"}],
 * "layers": [{"layer", "energy", "expected", "sd"}], "total": {"energy", "expected", "sd"}}
 *
 * of adapter_delta.h. Those of a layer and of all are weighted by ||dW||^2, their sd as if
 * subspaces of different projections were independent draws. What is 0 has no energy: null.
 * Refused: bases of another width, or of inputs or outputs instead of the stream. One rank is
 * enough. */
bool energy_make(json_t **energy, const Lora *l, const Subspace *s, Err *err);

/* Whether these are bases of the stream, and of this model's. */
bool energy_check(const Subspace *s, const Config *c, Err *err);

/* A line for each layer, and one for all. */
void energy_print(FILE *f, const json_t *energy);

#endif
