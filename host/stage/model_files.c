/* model_files.c - checkpoints as sharded safetensors, with the files around them. */
#include "host/stage/model_files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/base/files.h"
#include "data/base/mem.h"

OutTensor *model_files_tensors(const Config *c, enum StType type, int *n) {
    *n = (int)tensors_count(c);
    OutTensor *t = mem_array((size_t)*n, sizeof *t);
    for (int i = 0; i < *n; i++) t[i] = (OutTensor){tensors_at(c, (size_t)i), type};
    return t;
}

static size_t tensor_bytes(const OutTensor *t) {
    return t->tensor.count * st_type_size(t->type);
}

/* One past the last tensor of the shard that starts at `from`. */
static int shard_end(const OutTensor *t, int n, int from, size_t shard_bytes) {
    size_t bytes = tensor_bytes(&t[from]);
    int end = from + 1;
    while (end < n && bytes + tensor_bytes(&t[end]) <= shard_bytes)
        bytes += tensor_bytes(&t[end++]);
    return end;
}

static bool write_shard(const char *folder, const char *name, const OutTensor *t, int n,
                        tensor_source *source, void *context, Err *err) {
    char *path = files_join(folder, name);
    StWriter *w;
    bool ok = st_writer_open(&w, path, err);
    free(path);
    if (!ok) return false;
    st_writer_meta(w, "format", "pt");
    for (int i = 0; i < n; i++)
        st_writer_tensor(w, t[i].tensor.name, t[i].type, t[i].tensor.rank, t[i].tensor.dim);
    for (int i = 0; i < n && ok; i++) ok = source(context, &t[i], w, err);
    if (ok) return st_writer_finish(w, err);
    st_writer_abort(w);
    return false;
}

static bool write_index(const char *folder, json_t *map, size_t bytes, Err *err) {
    char *path = files_join(folder, "model.safetensors.index.json");
    json_t *index =
        json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)bytes, "weight_map", map);
    bool ok = files_write_json(path, index, err);
    json_decref(index);
    free(path);
    return ok;
}

bool model_files_write(const char *folder, const OutTensor *t, int n, size_t shard_bytes,
                       tensor_source *source, void *context, Err *err) {
    int shards = 0;
    size_t bytes = 0;
    for (int i = 0; i < n; i++) bytes += tensor_bytes(&t[i]);
    for (int i = 0; i < n; i = shard_end(t, n, i, shard_bytes)) shards++;
    if (shards == 1) return write_shard(folder, "model.safetensors", t, n, source, context, err);
    json_t *map = json_object();
    bool ok = true;
    for (int i = 0, k = 1; i < n && ok; k++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", k, shards);
        int end = shard_end(t, n, i, shard_bytes);
        ok = write_shard(folder, name, t + i, end - i, source, context, err);
        for (; i < end; i++) json_object_set_new(map, t[i].tensor.name, json_string(name));
    }
    ok = ok && write_index(folder, map, bytes, err);
    json_decref(map);
    return ok;
}

bool model_files_refuse_existing(const char *folder, Err *err) {
    static const char *const name[] = {"config.json", "model.safetensors",
                                       "model.safetensors.index.json"};
    bool there = false;
    for (int i = 0; i < 3; i++) {
        char *path = files_join(folder, name[i]);
        there = there || files_exists(path);
        free(path);
    }
    return !there ||
           err_set(err, EXIT_USAGE, "%s: already holds a model; choose another --out or remove it",
                   folder);
}

/* ------------------------------------------------------------------- beside the weights -- */

/* Of the tokenizer and its templates, under the names that transformers, vLLM and llama.cpp look
 * for; the last is a folder. The first is what sails itself reads. */
static const char *const of_tokenizer[] = {"tokenizer.json",
                                           "tokenizer.model",
                                           "tokenizer_config.json",
                                           "added_tokens.json",
                                           "special_tokens_map.json",
                                           "vocab.json",
                                           "vocab.txt",
                                           "merges.txt",
                                           "spiece.model",
                                           "chat_template.json",
                                           "chat_template.jinja",
                                           "processor_config.json",
                                           "video_preprocessor_config.json",
                                           "preprocessor_config.json",
                                           "additional_chat_templates"};
static const char *const of_model[] = {"config.json", "generation_config.json"};

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

static bool copy_file(const char *from, const char *to, Err *err) {
    char *data;
    size_t n;
    if (!files_read(&data, &n, from, (size_t)1 << 30, err)) return false;
    bool ok = files_write(to, data, n, err);
    free(data);
    return ok;
}

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The files of a folder; folders within it are of nobody's. */
static bool copy_folder(const char *from, const char *to, Err *err) {
    DIR *d = opendir(from);
    if (!d) return files_failed(err, from, "read");
    bool ok = files_mkdirs(to, err);
    for (struct dirent *e; ok && (e = readdir(d));) {
        char *a = files_join(from, e->d_name), *b = files_join(to, e->d_name);
        ok = is_folder(a) || copy_file(a, b, err);
        free(a);
        free(b);
    }
    closedir(d);
    return ok;
}

/* Those of the names that are there. */
static bool copy_named(const char *const *name, int n, const char *to, const char *from, Err *err) {
    bool ok = true;
    for (int i = 0; i < n && ok; i++) {
        char *a = files_join(from, name[i]), *b = files_join(to, name[i]);
        if (files_exists(a)) ok = (is_folder(a) ? copy_folder : copy_file)(a, b, err);
        free(a);
        free(b);
    }
    return ok;
}

bool model_files_copy(const char *folder, const char *from, Err *err) {
    return copy_named(of_model, COUNT(of_model), folder, from, err) &&
           copy_named(of_tokenizer, COUNT(of_tokenizer), folder, from, err);
}

bool model_files_copy_tokenizer(const char *folder, const char *from, Err *err) {
    bool within = is_folder(from);
    const char *slash = strrchr(from, '/');
    char *source = mem_string(within || slash ? from : ".");
    if (!within && slash) source[slash - from + 1] = 0;
    char *a = within ? files_join(from, of_tokenizer[0]) : mem_string(from);
    char *b = files_join(folder, of_tokenizer[0]);
    bool ok = copy_file(a, b, err) &&
              copy_named(of_tokenizer + 1, COUNT(of_tokenizer) - 1, folder, source, err);
    free(a);
    free(b);
    free(source);
    return ok;
}
