/* dump.c - tensors copied to the host as a pass shows them, and written when it is over. */
#include "model/dump.h"

#include <fnmatch.h>
#include <stdio.h>

#include "data/base/mem.h"
#include "kernels/bf16.h"

/* A tensor that was shown; if it is kept, in host memory: F32 or I32, elements of one size. */
typedef struct Shown {
    Placed t; /* rows: so far */
    bool kept;
    char *data;
    size_t room;
} Shown;

enum { ELEMENT = 4 };

enum DumpState { DUMP_WAITS, DUMP_RUNS, DUMP_DONE };

struct Dump {
    Exec *ex;
    const char *pattern, *file;
    enum DumpState state;
    Shown *shown; /* (n) */
    size_t n, room, matches;
};

Dump *dump_open(Exec *ex) {
    const char *pattern = getenv("SAILS_DUMP"), *file = getenv("SAILS_DUMP_FILE");
    if (!pattern || !*pattern) return NULL;
    Dump *d = mem_array(1, sizeof *d);
    *d = (Dump){.ex = ex, .pattern = pattern, .file = file ? file : "sails-dump.safetensors"};
    return d;
}

/* Rows of the storage type or of 4-byte elements, appended. */
static void copy_rows(Dump *d, Shown *to, const Placed *t) {
    size_t n = t->rows * t->cols, had = to->t.rows * to->t.cols;
    to->data = mem_grow(to->data, &to->room, (had + n) * ELEMENT, 1);
    char *data = to->data + had * ELEMENT;
    if (t->type != ARENA_STORE || d->ex->dtype == DTYPE_F32) {
        exec_copy_out(d->ex, data, t->data, n * ELEMENT);
        return;
    }
    bf16 *narrow = mem_array(n, sizeof *narrow);
    exec_copy_out(d->ex, narrow, t->data, n * sizeof *narrow);
    for (size_t i = 0; i < n; i++) {
        float x = bf16_to_f32(narrow[i]);
        memcpy(data + i * ELEMENT, &x, sizeof x);
    }
    free(narrow);
}

static Shown *shown_before(Dump *d, const Placed *t) {
    for (Shown *s = d->shown; s < d->shown + d->n; s++)
        if (strcmp(s->t.name, t->name) == 0) return s;
    bool index = t->type == ARENA_I32, match = !index && fnmatch(d->pattern, t->name, 0) == 0;
    d->shown = mem_grow(d->shown, &d->room, d->n + 1, sizeof *d->shown);
    d->shown[d->n] = (Shown){.t = *t, .kept = index || match};
    d->shown[d->n].t.rows = 0;
    d->matches += match;
    return &d->shown[d->n++];
}

/* model_watch. What is shown again, such as the logits of a second way through the head, begins
 * with a row that is there. */
static void take(void *context, const Placed *t, int first) {
    Dump *d = context;
    if (d->state != DUMP_RUNS) return;
    Shown *s = shown_before(d, t);
    if ((size_t)first != s->t.rows) return;
    if (s->kept) copy_rows(d, s, t);
    s->t.rows += t->rows;
}

static bool write(const Dump *d, Err *err) {
    StWriter *w;
    if (!st_writer_open(&w, d->file, err)) return false;
    st_writer_meta(w, "dtype", dtype_name(d->ex->dtype));
    st_writer_meta(w, "pattern", d->pattern);
    for (const Shown *s = d->shown; s < d->shown + d->n; s++)
        if (s->kept)
            st_writer_tensor(w, s->t.name, s->t.type == ARENA_I32 ? ST_I32 : ST_F32, 2,
                             (size_t[]){s->t.rows, s->t.cols});
    for (const Shown *s = d->shown; s < d->shown + d->n; s++)
        if (s->kept && !st_writer_data(w, s->data, s->t.rows * s->t.cols * ELEMENT, err)) {
            st_writer_abort(w);
            return false;
        }
    return st_writer_finish(w, err);
}

/* Of the layers the first alone: what their names are shows there. */
static void say_names(const Dump *d) {
    fprintf(stderr,
            "sails: SAILS_DUMP=%s matches no tensor of the first pass; there are:", d->pattern);
    for (const Shown *s = d->shown; s < d->shown + d->n; s++) {
        const char *layer = strstr(s->t.name, "layer ");
        if (s->t.type == ARENA_I32) continue;
        if (!layer || strncmp(layer, "layer 0:", 8) == 0) fprintf(stderr, " \"%s\"", s->t.name);
    }
    fprintf(stderr, "\n");
}

/* The pass is over. */
static void end(Dump *d) {
    Err err;
    if (d->matches == 0)
        say_names(d);
    else if (write(d, &err))
        fprintf(stderr, "sails: tensors of the first pass in %s: %zu\n", d->file, d->matches);
    else
        fprintf(stderr, "sails: SAILS_DUMP: %s\n", err.text);
    for (Shown *s = d->shown; s < d->shown + d->n; s++) free(s->data);
    free(d->shown);
    d->state = DUMP_DONE;
}

model_watch *dump_pass(Dump *d) {
    if (d->state == DUMP_RUNS) end(d);
    if (d->state == DUMP_DONE) return NULL;
    d->state = DUMP_RUNS;
    return take;
}

void dump_close(Dump *d) {
    if (!d) return;
    if (d->state == DUMP_RUNS) end(d);
    free(d);
}
