/* peft.h - what a PEFT adapter_config.json asks for: which projections, of which rank and alpha.
 * Private to the model's adapter files. */
#ifndef SAILS_PEFT_H
#define SAILS_PEFT_H

#include <jansson.h>

#include "model/lora.h"

/* Reads folder/adapter_config.json with PEFT's own meaning of target_modules (list, regular
 * expression, "all-linear"), exclude_modules, layers_to_transform, layers_pattern, rank_pattern,
 * alpha_pattern and use_rslora. A key that would change the arithmetic and is not one of these is
 * refused by its name. On success the shape is the caller's to free. */
bool peft_read(LoraShape *shape, const Config *c, const char *folder, Err *err);

/* The JSON of an adapter with these ranks, new reference. base_model may be NULL. */
json_t *peft_describe(const Lora *l, const char *base_model);

#endif
