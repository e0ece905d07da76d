/* tuned_model.c - the weights written out. */
#include "host/stage/tuned_model.h"

#include <stdlib.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/stage/model_files.h"
#include "kernels/comm.h"
#include "kernels/halves.h"

enum { SHARD_BYTES_GB = 5, PIECE = 1 << 20 /* elements on their way to the file */ };

/* What is on its way from all ranks to the file. */
typedef struct Saving {
    const Model *m;
    size_t pieces; /* that are through */
    float *wide;   /* (PIECE) */
} Saving;

/* Elements of a tensor as files have them. On all ranks where they share it out; to is rank 0's. */
static void get_piece(Saving *s, const Param *p, size_t at, size_t n, void *to) {
    const Params *all = &s->m->full->params;
    const Exec *ex = s->m->ex;
    bf16 *narrow = to;
    params_get(all, PARAM_MASTER, p->at + at, n, s->wide);
    if (to && ex->dtype == DTYPE_F32) memcpy(to, s->wide, n * sizeof *s->wide);
    for (size_t i = 0; to && ex->dtype == DTYPE_BF16 && i < n; i++)
        narrow[i] = halves_high(s->wide[i]);
    s->pieces++;
    comm_beat(ex->comm); /* the other ranks wait */
}

static size_t piece_of(const Param *p, size_t at) {
    return p->n - at < PIECE ? p->n - at : PIECE;
}

/* tensor_source: a tensor's masters, rounded as its copy is. */
static bool tensor_data(void *saving, const OutTensor *t, StWriter *w, Err *err) {
    Saving *s = saving;
    const Param *p = s->m->full->params.param;
    size_t size = dtype_size(s->m->ex->dtype);
    while (strcmp(p->name, t->tensor.name) != 0) p++;
    void *piece = mem_array(PIECE, size);
    bool ok = true;
    for (size_t i = 0; ok && i < p->n; i += PIECE) {
        get_piece(s, p, i, piece_of(p, i), piece);
        ok = st_writer_data(w, piece, piece_of(p, i) * size, err);
    }
    free(piece);
    return ok;
}

/* Goes through what is left, so that the ranks part at the same place. */
static void get_rest(Saving *s) {
    const Params *all = &s->m->full->params;
    size_t done = s->pieces, piece = 0;
    for (const Param *p = all->param; all->ranks && p < all->param + all->n; p++)
        for (size_t i = 0; i < p->n; i += PIECE)
            if (piece++ >= done) get_piece(s, p, i, piece_of(p, i), NULL);
}

void tuned_model_help(const Model *m) {
    Saving s = {.m = m, .wide = mem_array(PIECE, sizeof(float))};
    get_rest(&s);
    free(s.wide);
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
    Saving s = {.m = m, .wide = mem_array(PIECE, sizeof(float))};
    bool ok =
        model_files_write(folder, t, n, (size_t)SHARD_BYTES_GB * 1000000000, tensor_data, &s, err);
    get_rest(&s);
    free(s.wide);
    ok = ok && model_files_copy(folder, base, err) && name_type(folder, m->ex->dtype, err);
    free(t);
    return ok;
}
