/* presets.h - the published shapes of Gemma-2. */
#ifndef SAILS_PRESETS_H
#define SAILS_PRESETS_H

#include <jansson.h>

#include "kernels/choices.h"

#define PRESETS(X) X(PRESET_2B, "2b") X(PRESET_9B, "9b") X(PRESET_27B, "27b")
enum Preset { PRESETS(CHOICE_ENUM) };

json_t *preset_config(enum Preset preset); /* a fresh config.json */

#endif
