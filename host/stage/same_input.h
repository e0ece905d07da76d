/* same_input.h - have all ranks of a job read the same? Machines may hold copies of their own, and
 * ranks that work on different ones make what nobody has asked for, each of them without an error.
 *
 * All ranks call; they fail alike, with EXIT_INPUT: "WHAT differs between ranks 0 and R". One rank
 * alone compares nothing. */
#ifndef SAILS_SAME_INPUT_H
#define SAILS_SAME_INPUT_H

#include <jansson.h>

#include "data/chat.h"
#include "host/stage/examples.h"
#include "kernels/comm.h"
#include "model/gemma2.h"

/* Tokens and labels of the examples' documents. */
bool same_docs(Comm *c, const char *what, const Examples *e, Err *err);

/* What records[index[0..n)] give to the tokenizer. */
bool same_records(Comm *c, const char *what, const Record *record, const size_t *index, size_t n,
                  Err *err);

/* A file's bytes; hashes that are there already (result_key.h). */
bool same_file(Comm *c, const char *what, const char *path, Err *err);
bool same_key(Comm *c, const char *what, const json_t *key, Err *err);

/* The configuration in `folder`, and of the weights a sample (model_sample): another model, or one
 * that was trained, is seen; a file that was damaged in one place may not be. */
bool same_model(const Model *m, const char *folder, Err *err);

#endif
