/* checkpoint.c - the tensors, totals and lines of a training run, to and from a snapshot. */
#include "host/stage/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/safetensors.h"
#include "data/base/sha256.h"
#include "host/stage/agree.h"

static const char *const kind_name[PARAM_KINDS] = {"master", "m", "v"};
static const char *const file_name[] = {"state.safetensors", "metrics.jsonl", NULL};

void checkpoint_free(Checkpoint *c) {
    free(c->state);
    free(c->lines);
    *c = (Checkpoint){0};
}

size_t checkpoint_state_bytes(const Params *p) {
    return PARAM_KINDS * p->size * sizeof(float);
}

enum { PIECE = 1 << 20 }; /* elements */
static size_t piece_of(size_t at, size_t n) {
    return n - at < PIECE ? n - at : PIECE;
}

bool checkpoint_agree(const Params *p, const char *what, Err *err) {
    Comm *comm = p->ex->comm;
    if (!comm || p->ranks) return true; /* each has its own part alone */
    unsigned char digest[32];
    Sha256 s;
    float *piece = mem_array(PIECE, sizeof *piece);
    sha256_init(&s);
    for (size_t i = 0; i < p->size; i += PIECE) {
        size_t n = piece_of(i, p->size);
        params_get(p, PARAM_MASTER, i, n, piece);
        sha256_add(&s, piece, n * sizeof *piece);
        comm_beat(comm);
    }
    sha256_done(&s, digest);
    free(piece);
    return agree_same(comm, what, digest, sizeof digest, EXIT_RANK, err);
}

/* Made on rank 0, once. */
static bool make_state(Checkpoint *c) {
    if (!c->state && comm_root(c->params->ex->comm))
        c->state = malloc(checkpoint_state_bytes(c->params));
    return c->state != NULL;
}

bool checkpoint_copy_state(Checkpoint *c) {
    Params *p = c->params;
    bool made = make_state(c);
    for (enum ParamKind kind = 0; (made || p->ranks) && kind < PARAM_KINDS; kind++)
        params_get(p, kind, 0, p->size, made ? c->state + (size_t)kind * p->size : NULL);
    return made;
}

/* ------------------------------------------------------------------------------- writing -- */

typedef char TensorName[160];
static void tensor_name(TensorName name, enum ParamKind kind, const Param *t) {
    snprintf(name, sizeof(TensorName), "%s/%s@%012d", kind_name[kind], t->name, 0);
}

static bool stored(enum ParamKind kind, const Param *t) {
    return kind == PARAM_MASTER || t->trained;
}

/* Of the copy, or piece by piece from the device. */
static bool write_tensor(StWriter *w, const Checkpoint *c, enum ParamKind kind, const Param *t,
                         Err *err) {
    const Params *p = c->params;
    if (c->state)
        return st_writer_data(w, c->state + (size_t)kind * p->size + t->at, t->n * sizeof(float),
                              err);
    float *piece = mem_array(PIECE, sizeof *piece);
    bool ok = true;
    for (size_t i = 0; ok && i < t->n; i += PIECE) {
        size_t n = piece_of(i, t->n);
        params_get(p, kind, t->at + i, n, piece);
        ok = st_writer_data(w, piece, n * sizeof *piece, err);
        comm_beat(p->ex->comm); /* training waits for this, and so do the other ranks */
    }
    free(piece);
    return ok;
}

static bool write_state(const Checkpoint *c, const char *path, Err *err) {
    const Params *p = c->params;
    StWriter *w;
    TensorName name;
    if (!st_writer_open(&w, path, err)) return false;
    for (enum ParamKind kind = 0; kind < PARAM_KINDS; kind++)
        for (const Param *t = p->param; t < p->param + p->n; t++) {
            if (!stored(kind, t)) continue;
            tensor_name(name, kind, t);
            st_writer_tensor(w, name, ST_F32, 1, &t->n);
        }
    bool ok = true;
    for (enum ParamKind kind = 0; kind < PARAM_KINDS; kind++)
        for (const Param *t = p->param; ok && t < p->param + p->n; t++)
            ok = !stored(kind, t) || write_tensor(w, c, kind, t, err);
    if (ok) return st_writer_finish(w, err);
    st_writer_abort(w);
    return false;
}

static json_t *totals_json(const RunTotals *t) {
    return json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "steps", (json_int_t)t->steps,
                     "tokens", (json_int_t)t->tokens, "labels", (json_int_t)t->labels, "seconds",
                     t->seconds, "mean_step", t->mean_step, "loss_sum", t->loss_sum, "first_loss",
                     t->first_loss, "last_loss", t->last_loss);
}

static bool write_files(void *checkpoint, const char *folder, Err *err) {
    const Checkpoint *c = checkpoint;
    char *state = files_join(folder, file_name[0]), *lines = files_join(folder, file_name[1]);
    bool ok = write_state(c, state, err) && files_write(lines, c->lines, c->nlines, err);
    free(state), free(lines);
    return ok;
}

bool checkpoint_write(Checkpoint *c, const char *parent, Err *err) {
    Snapshot s = {.step = c->totals.steps,
                  .state = totals_json(&c->totals),
                  .run = c->run,
                  .maker = c->maker,
                  .file = file_name};
    bool ok = snapshot_write(&s, parent, write_files, c, err);
    json_decref(s.state);
    return ok;
}

/* ------------------------------------------------------------------------------- reading -- */

/* The manifest was sealed: what it lacks no run has written. */
static bool read_totals(RunTotals *t, const Snapshot *s, Err *err) {
    json_int_t steps, tokens, labels;
    if (json_unpack(s->state, "{s:I, s:I, s:I, s:F, s:F, s:F, s:F, s:F}", "steps", &steps, "tokens",
                    &tokens, "labels", &labels, "seconds", &t->seconds, "mean_step", &t->mean_step,
                    "loss_sum", &t->loss_sum, "first_loss", &t->first_loss, "last_loss",
                    &t->last_loss) != 0 ||
        steps != (json_int_t)s->step || tokens < 0 || labels < 0)
        return err_set(err, EXIT_INPUT, "manifest.json: expected the totals of %zu steps", s->step);
    t->steps = (size_t)steps, t->tokens = (size_t)tokens, t->labels = (size_t)labels;
    return true;
}

/* The tensor's elements, all of them, as the file has them. */
static void read_tensor(Checkpoint *c, enum ParamKind kind, const Param *t, const StTensor *from) {
    Params *p = c->params;
    float *piece = mem_array(PIECE, sizeof *piece);
    for (size_t i = 0; i < t->n; i += PIECE) {
        size_t n = piece_of(i, t->n);
        st_read_f32(from, piece, i, n);
        if (p->ranks)
            memcpy(c->state + (size_t)kind * p->size + t->at + i, piece, n * sizeof *piece);
        else
            params_set(p, kind, t->at + i, n, piece);
        st_release(from, i, n);
    }
    free(piece);
}

/* Room for the state of tensors that ranks share out. */
static bool room_for_state(Checkpoint *c, Err *err) {
    if (!c->params->ranks) return true;
    if (!make_state(c))
        return err_set(err, EXIT_MEMORY, "no memory for %zu bytes of a checkpoint's state",
                       checkpoint_state_bytes(c->params));
    memset(c->state, 0, checkpoint_state_bytes(c->params));
    return true;
}

/* What is not stored is zero, as it was made. Nothing is changed unless all is there. */
static bool read_state(Checkpoint *c, const char *folder, Err *err) {
    Params *p = c->params;
    StSet *set = NULL;
    TensorName name;
    if (!room_for_state(c, err)) return false;
    char *path = files_join(folder, file_name[0]);
    bool ok = st_open(&set, path, err);
    free(path);
    for (int take = 0; take < 2; take++)
        for (enum ParamKind kind = 0; ok && kind < PARAM_KINDS; kind++)
            for (const Param *t = p->param; ok && t < p->param + p->n; t++) {
                const StTensor *from;
                if (!stored(kind, t)) continue;
                tensor_name(name, kind, t);
                ok = st_need_type(set, &from, name, ST_F32, 1, &t->n, err);
                if (ok && take) read_tensor(c, kind, t, from);
            }
    if (ok) params_sync(p);
    st_close(set);
    return ok;
}

static bool read_files(void *checkpoint, const char *folder, Err *err) {
    Checkpoint *c = checkpoint;
    char *lines = files_join(folder, file_name[1]);
    bool ok =
        read_state(c, folder, err) && files_read(&c->lines, &c->nlines, lines, SIZE_MAX / 2, err);
    free(lines);
    return ok;
}

bool checkpoint_read(Checkpoint *c, bool *found, const char *parent, Err *err) {
    Snapshot s = {.run = c->run, .maker = c->maker, .file = file_name};
    bool ok = snapshot_read(&s, found, parent, read_files, c, err) &&
              (!*found || read_totals(&c->totals, &s, err));
    json_decref(s.state);
    return ok;
}
