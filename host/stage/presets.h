/* presets.h - the published shapes of Gemma-2. */
#ifndef SAILS_PRESETS_H
#define SAILS_PRESETS_H

#include <jansson.h>

/* A fresh config.json of preset number i of PRESET_NAMES (settings.h). */
json_t *preset_config(int preset);

#endif
