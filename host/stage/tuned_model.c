/* tuned_model.c - the weights written out. */
#include "host/stage/tuned_model.h"

#include <stdlib.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/stage/model_files.h"
#include "kernels/comm.h"

enum { SHARD_BYTES_GB = 5, PIECE = 1 << 20 /* elements on their way to the file */ };

/* tensor_source: a tensor's copy, which in f32 is its master. */
static bool tensor_data(void *model, const OutTensor *t, StWriter *w, Err *err) {
    const Model *m = model;
    const store *from = model_weight(m, &t->tensor);
    size_t size = dtype_size(m->ex->dtype);
    void *piece = mem_array(PIECE, size);
    bool ok = true;
    for (size_t i = 0; ok && i < t->tensor.count; i += PIECE) {
        size_t n = t->tensor.count - i < PIECE ? t->tensor.count - i : PIECE;
        exec_copy_out(m->ex, piece, store_at_const(m->ex->dtype, from, i), n * size);
        ok = st_writer_data(w, piece, n * size, err);
        comm_beat(m->ex->comm); /* the other ranks wait */
    }
    free(piece);
    return ok;
}

/* The name of the type that the files have, where the configuration says one, as old and new
 * versions of transformers call it. */
static bool name_type(const char *folder, enum Dtype dtype, Err *err) {
    static const char *const key[] = {"torch_dtype", "dtype"};
    enum { CONFIG_BYTES = 1 << 20 };
    char *path = files_join(folder, "config.json");
    json_t *config = NULL;
    bool ok = files_read_json(&config, path, CONFIG_BYTES, err);
    for (int i = 0; ok && i < 2; i++)
        if (json_object_get(config, key[i]))
            json_object_set_new(config, key[i],
                                json_string(dtype == DTYPE_BF16 ? "bfloat16" : "float32"));
    ok = ok && files_write_json(path, config, err);
    json_decref(config);
    free(path);
    return ok;
}

bool tuned_model_save(const Model *m, const char *folder, const char *base, Err *err) {
    int n;
    OutTensor *t = model_files_tensors(&m->c, m->ex->dtype == DTYPE_BF16 ? ST_BF16 : ST_F32, &n);
    bool ok = model_files_write(folder, t, n, (size_t)SHARD_BYTES_GB * 1000000000, tensor_data,
                                (void *)(uintptr_t)m, err) &&
              model_files_copy(folder, base, err) && name_type(folder, m->ex->dtype, err);
    free(t);
    return ok;
}
