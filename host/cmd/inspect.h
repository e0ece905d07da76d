/* inspect.h - what a file or folder holds. Private to cmd_inspect.c and inspect_*.c.
 *
 * An inspector adds facts to a JSON object, and as its "_text" what reads better as a table. With
 * --json the facts are the output, else they are printed as "key: value" lines, then the table. */
#ifndef SAILS_INSPECT_H
#define SAILS_INSPECT_H

#include <stdio.h>

#include <jansson.h>

#include "data/base/err.h"
#include "host/cli/settings.h"

typedef bool inspector(json_t *facts, const char *path, const Settings *s, Err *err);

/* A stream for that table, and its end: the text then belongs to the facts. One at a time. */
FILE *text_begin(void);
void text_end(FILE *f, json_t *facts);

inspector inspect_model;       /* folder with config.json, or the file itself */
inspector inspect_adapter;     /* folder with adapter_config.json */
inspector inspect_sae;         /* SAELens folder, .npz */
inspector inspect_safetensors; /* scores, subspace, or any other */
inspector inspect_records;     /* data files, responses */
inspector inspect_run;         /* run folder */

#endif
