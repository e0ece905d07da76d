/* foreign.h - weights in formats of other tools: what they are, and how they become safetensors. */
#ifndef SAILS_FOREIGN_H
#define SAILS_FOREIGN_H

#include "data/base/err.h"

/* Refuses a file, or a folder that holds one, whose name says that it is a PyTorch pickle, a GGUF,
 * TensorFlow or Flax file, with the way to convert it; `stem` is the name that was looked for
 * ("model", "adapter_model", "sae_weights"). True: nothing of that kind is there. */
bool foreign_refuse(const char *path, const char *stem, Err *err);

#endif
