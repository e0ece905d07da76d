/* weights.c - the tensors (tensors.h), found in the checkpoint. Frozen ones are used in place where
 * ops can read the file's pages; else copied or converted into the device's memory, in pieces,
 * while the file is read, as are those that are trained. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "data/base/sha256.h"
#include "kernels/bf16.h"
#include "model/dump.h"
#include "model/gemma2.h"

struct Weight {
    Tensor tensor;
    const StTensor *t;
    bool mapped; /* used in place; else in the arena */
};

enum { PIECE = 1 << 16, PIECES = 16 }; /* elements converted by one thread; pieces per copy */

/* Where the Model keeps the address of this weight. */
static const store **slot(Model *m, const Tensor *t) {
    switch (t->kind) {
        case TENSOR_EMBED:
            return &m->embed;
        case TENSOR_FINAL_NORM:
            return &m->final_norm;
        case TENSOR_NORM:
            return &m->layer[t->layer].norm[t->which];
        case TENSOR_PROJ:
            break;
    }
    return &m->layer[t->layer].proj[t->which];
}

const store *model_weight(const Model *m, const Tensor *t) {
    return *slot((Model *)(uintptr_t)m, t);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const Weight *)a)->tensor.name, ((const Weight *)b)->tensor.name);
}

static void list_all(Model *m) {
    m->nweight = (int)tensors_count(&m->c);
    m->layer = mem_array((size_t)m->c.L, sizeof *m->layer);
    m->weight = mem_array((size_t)m->nweight, sizeof *m->weight);
    for (int i = 0; i < m->nweight; i++) m->weight[i].tensor = tensors_at(&m->c, (size_t)i);
    qsort(m->weight, (size_t)m->nweight, sizeof *m->weight, by_name);
}

/* Equality of values, so that an F32 copy of a BF16 embedding would pass too. */
static bool same_values(const StTensor *a, const StTensor *b) {
    if (a->count != b->count) return false;
    float *x = mem_array(2 * PIECE, sizeof *x), *y = x + PIECE;
    bool same = true;
    for (size_t i = 0; same && i < a->count; i += PIECE) {
        size_t n = a->count - i < PIECE ? a->count - i : PIECE;
        st_read_f32(a, x, i, n);
        st_read_f32(b, y, i, n);
        for (size_t j = 0; j < n; j++) same = same && x[j] == y[j];
        st_release(a, i, n);
    }
    free(x);
    return same;
}

static const char HEAD[] = "lm_head.weight";

/* Some tools store the tied head a second time; that is harmless as long as it is the same. */
static bool check_head(const Model *m, Err *err) {
    const Tensor t = tensors_at(&m->c, 0);
    const StTensor *head, *embed = st_find(m->file, t.name);
    if (!st_find(m->file, HEAD)) return true;
    if (!st_need(m->file, &head, HEAD, 2, embed->dim, err)) return false;
    if (same_values(head, embed)) return true;
    return err_set(err, EXIT_INPUT,
                   "%s: %s: expected the values of %s (Gemma-2 ties them); an untied head is not "
                   "supported",
                   head->file, HEAD, t.name);
}

/* Tensors that say nothing new: the tied head, which check_head looks at, and the frequencies of
 * the rotary embedding, which old versions of transformers saved and new ones ignore. */
static bool is_redundant(const char *name) {
    static const char end[] = "rotary_emb.inv_freq";
    size_t n = strlen(name), m = sizeof end - 1;
    return strcmp(name, HEAD) == 0 || (n >= m && strcmp(name + n - m, end) == 0);
}

static bool find_all(Model *m, Err *err) {
    for (int i = 0; i < m->nweight; i++) {
        Weight *w = &m->weight[i];
        const Tensor *t = &w->tensor;
        if (!st_need(m->file, &w->t, t->name, t->rank, t->dim, err)) return false;
    }
    for (size_t i = 0; i < st_count(m->file); i++) {
        const StTensor *t = st_at(m->file, i);
        Weight key = {.t = NULL};
        snprintf(key.tensor.name, sizeof key.tensor.name, "%s", t->name);
        bool known = bsearch(&key, m->weight, (size_t)m->nweight, sizeof key, by_name) &&
                     strlen(t->name) < sizeof key.tensor.name;
        if (!known && !is_redundant(t->name))
            return err_set(err, EXIT_INPUT,
                           "%s: tensor %s: expected only the tensors of a Gemma-2 model with %d "
                           "layers; check that config.json belongs to this file",
                           t->file, t->name, m->c.L);
    }
    return check_head(m, err);
}

bool model_check(const char *folder, Err *err) {
    Model m = {.ex = NULL};
    bool ok = config_load(&m.c, folder, err) && st_open_folder(&m.file, folder, "model", err);
    if (ok) list_all(&m);
    ok = ok && find_all(&m, err);
    model_close(&m);
    return ok;
}

/* Which tensors are used where they lie. */
static void choose_mapped(Model *m) {
    for (Weight *w = m->weight; w < m->weight + m->nweight; w++)
        w->mapped = !m->full && st_stores(w->t, m->ex->dtype) && exec_reads(m->ex, w->t->data);
}

/* What a tensor in the arena comes through, if it is not stored as ops want it. */
typedef struct Stage {
    float *wide;  /* PIECE * PIECES elements each */
    void *narrow; /* bf16 */
} Stage;

/* The elements as ops store them: in the file itself, or converted. */
static const void *stored(const StTensor *t, enum Dtype dtype, size_t first, size_t n,
                          const Stage *stage) {
    if (st_stores(t, dtype)) return (const char *)t->data + first * dtype_size(dtype);
#pragma omp parallel for schedule(static)
    for (size_t piece = 0; piece < (n + PIECE - 1) / PIECE; piece++) {
        size_t at = piece * PIECE, k = n - at < PIECE ? n - at : PIECE;
        st_read_f32(t, stage->wide + at, first + at, k);
        if (dtype == DTYPE_BF16)
            for (size_t i = at; i < at + k; i++)
                ((bf16 *)stage->narrow)[i] = bf16_from_f32(stage->wide[i]);
    }
    return dtype == DTYPE_F32 ? (const void *)stage->wide : stage->narrow;
}

/* Copies a tensor into the arena and lets go of what has been read, so that the peak is the arena.
 * A GPU takes one piece while the next is read. */
static bool load(Model *m, const StTensor *t, store *to, const Stage *stage, Err *err) {
    enum Dtype dtype = m->ex->dtype;
    for (size_t done = 0; done < t->count;) {
        if (interrupted(err)) return false;
        size_t left = t->count - done, n = left < PIECE * PIECES ? left : PIECE * PIECES;
        exec_copy_in(m->ex, store_at(dtype, to, done), stored(t, dtype, done, n, stage),
                     n * dtype_size(dtype));
        st_release(t, done, n);
        done += n;
    }
    return true;
}

/* A trained tensor's masters, exactly as the file has them, into its Param. */
static bool load_trained(Model *m, const StTensor *t, const Param *to, const Stage *stage,
                         Err *err) {
    for (size_t done = 0; done < t->count;) {
        if (interrupted(err)) return false;
        size_t left = t->count - done, n = left < PIECE * PIECES ? left : PIECE * PIECES;
        st_read_f32(t, stage->wide, done, n);
        params_set(&m->full->params, PARAM_MASTER, to->at + done, n, stage->wide);
        st_release(t, done, n);
        done += n;
    }
    return true;
}

static const Param *trained(const Model *m, const Tensor *t) {
    const Param *p = m->full->params.param;
    while (strcmp(p->name, t->name) != 0) p++;
    return p;
}

static void carve(Model *m) {
    size_t P = (size_t)m->c.max_positions, half = (size_t)m->c.E / 2;
    m->cos = arena_f32(&m->arena, "cos", P, half);
    m->sin = arena_f32(&m->arena, "sin", P, half);
    for (int i = 0; i < m->nweight; i++) {
        const Tensor *t = &m->weight[i].tensor;
        if (!m->weight[i].mapped && !m->full)
            *slot(m, t) = arena_store(&m->arena, t->name, t->dim[0], t->dim[1]);
    }
}

static bool load_all(Model *m, Err *err) {
    Stage stage = {.wide = mem_array(PIECE * PIECES, sizeof(float)),
                   .narrow = mem_array(PIECE * PIECES, sizeof(bf16))};
    arena_init(&m->arena, m->ex, m->ex->dtype, "weights");
    carve(m);
    arena_place(&m->arena);
    carve(m);
    bool ok = true;
    for (int i = 0; i < m->nweight && ok; i++) {
        const Weight *w = &m->weight[i];
        const Param *p = m->full ? trained(m, &w->tensor) : NULL;
        if (p)
            *slot(m, &w->tensor) = p->copy, ok = load_trained(m, w->t, p, &stage, err);
        else if (w->mapped)
            *slot(m, &w->tensor) = w->t->data;
        else
            ok = load(m, w->t, (store *)(uintptr_t)model_weight(m, &w->tensor), &stage, err);
    }
    free(stage.wide), free(stage.narrow);
    if (ok && m->full) params_renew(&m->full->params);
    if (ok)
        m->ex->op->rope_table(m->ex, m->cos, m->sin, m->c.max_positions, m->c.E, m->c.rope_theta);
    return ok;
}

/* transformers keeps sqrt(D) in f32 and casts that to the storage type. */
static float embed_scale(const Model *m) {
    float f = (float)sqrt((double)m->c.D);
    return m->ex->dtype == DTYPE_F32 ? f : bf16_to_f32(bf16_from_f32(f));
}

static bool open_checked(Model *m, const char *folder, int max_positions, Err *err) {
    if (!config_load(&m->c, folder, err)) return false;
    if (max_positions > m->c.max_positions)
        return err_set(err, EXIT_INPUT,
                       "%s: %d positions are asked for, the model has max_position_embeddings %d; "
                       "ask for shorter texts",
                       folder, max_positions, m->c.max_positions);
    if (max_positions > 0) m->c.max_positions = max_positions;
    if (!st_open_folder(&m->file, folder, "model", err)) return false;
    list_all(m);
    if (!find_all(m, err)) return false;
    choose_mapped(m);
    m->embed_scale = embed_scale(m);
    const Comm *comm = m->ex->comm;
    if (m->full) full_alloc(m->full, m->ex, &m->c, comm ? comm_size(comm) : 0, comm_rank(comm));
    return load_all(m, err);
}

void model_sample(const Model *m, unsigned char digest[32]) {
    enum { ROWS = 16 };
    Sha256 s;
    sha256_init(&s);
    for (const Weight *w = m->weight; w < m->weight + m->nweight; w++) {
        const StTensor *t = w->t;
        size_t rows = t->rank > 1 ? t->dim[0] : 1, n = rows < ROWS ? rows : ROWS;
        size_t each = t->count / rows, bytes = t->bytes / rows;
        sha256_add(&s, t->name, strlen(t->name));
        sha256_add(&s, &t->type, sizeof t->type);
        for (size_t i = 0; i < n; i++) {
            size_t row = n > 1 ? i * (rows - 1) / (n - 1) : 0;
            sha256_add(&s, (const char *)t->data + row * bytes, bytes);
            st_release(t, row * each, each);
        }
    }
    sha256_done(&s, digest);
}

bool model_open(Model *m, Exec *ex, const char *folder, int max_positions, Err *err) {
    *m = (Model){.ex = ex, .dump = dump_open(ex)};
    bool ok = open_checked(m, folder, max_positions, err);
    if (!ok) model_close(m);
    return ok;
}

bool model_open_trained(Model *m, Full *full, Exec *ex, const char *folder, int max_positions,
                        Err *err) {
    *full = (Full){.embed = NULL};
    *m = (Model){.ex = ex, .full = full, .dump = dump_open(ex)};
    bool ok = open_checked(m, folder, max_positions, err);
    if (!ok) full_free(full), model_close(m);
    return ok;
}

Params *model_params(const Model *m) {
    return m->full ? &m->full->params : m->lora ? &m->lora->params : NULL;
}

void model_close(Model *m) {
    dump_close(m->dump);
    arena_free(&m->arena);
    st_close(m->file);
    free(m->weight);
    free(m->layer);
    config_free(&m->c);
    memset(m, 0, sizeof *m);
}
