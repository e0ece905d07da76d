/* tuned_model.h - the model that full fine-tuning leaves. */
#ifndef SAILS_TUNED_MODEL_H
#define SAILS_TUNED_MODEL_H

#include "data/base/err.h"
#include "model/gemma2.h"

/* The weights of m, which are trained, as a Hugging Face folder: in the storage type, which its
 * config.json then names; all else as in `base`, a folder of the same kind. Rank 0. */
bool tuned_model_save(const Model *m, const char *folder, const char *base, Err *err);

/* The other ranks' part in it. */
void tuned_model_help(const Model *m);

#endif
