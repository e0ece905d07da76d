/* tuned_model.h - full fine-tuning as commands see it: which settings are not for it, and the model
 * that it leaves. */
#ifndef SAILS_TUNED_MODEL_H
#define SAILS_TUNED_MODEL_H

#include "host/cli/args.h"
#include "model/gemma2.h"

/* With --method full: settings that say what an adapter is are refused by name. Without it: true.
 */
bool tuned_model_settings(const Args *a, Err *err);

/* The weights of m, which are trained, as a Hugging Face folder: in the storage type, which its
 * config.json then names; all else as in `base`, a folder of the same kind. */
bool tuned_model_save(const Model *m, const char *folder, const char *base, Err *err);

#endif
