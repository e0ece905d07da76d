/* model_files.h - writing a Hugging Face model folder, one tensor at a time. */
#ifndef SAILS_MODEL_FILES_H
#define SAILS_MODEL_FILES_H

#include "data/base/safetensors.h"
#include "model/tensors.h"

/* A tensor and how it is stored. */
typedef struct OutTensor {
    Tensor tensor;
    enum StType type;
} OutTensor;

/* All tensors of a model (malloc). */
OutTensor *model_files_tensors(const Config *c, enum StType type, int *n);

/* Writes the data of one tensor with st_writer_data. */
typedef bool tensor_source(void *context, const OutTensor *t, StWriter *w, Err *err);

/* Writes model.safetensors; or, if all tensors together are larger than shard_bytes, numbered
 * shards and model.safetensors.index.json (a tensor larger than shard_bytes gets a shard of its
 * own). No more is held in memory than `source` holds. A folder that already has a model is
 * refused: files left over from it would be read together with the new ones. */
bool model_files_write(const char *folder, const OutTensor *t, int n, size_t shard_bytes,
                       tensor_source *source, void *context, Err *err);
bool model_files_refuse_existing(const char *folder, Err *err);

/* Copies what a model folder holds beside its weights: configurations, and every file of the
 * tokenizer and of its chat templates that is there. */
bool model_files_copy(const char *folder, const char *from, Err *err);

/* Copies of these only what belongs to the tokenizer and its chat templates: tokenizer.json, which
 * must exist, and whatever else exists. `from` is a folder or the .json itself. */
bool model_files_copy_tokenizer(const char *folder, const char *from, Err *err);

#endif
