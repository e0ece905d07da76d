/* stream_file.c - the file of the stream's moments. */
#include <math.h>

#include "data/base/mem.h"
#include "model/layer_list.h"
#include "model/stream.h"

static const char FORMAT[] = "sails moments 1";

/* The tensors of a layer, in the order of the file. */
typedef struct Part {
    const char *name;
    double *data;
    int rank;
    size_t dim[3], count;
} Part;

enum { PARTS = 4 };

static void parts_of(Part part[PARTS], const StreamLayer *l, int width) {
    size_t D = (size_t)width;
    part[0] = (Part){"sum", l->sum, 2, {2, D}, 2 * D};
    part[1] = (Part){"square", l->square, 3, {2, D, D}, 2 * D * D};
    part[2] = (Part){"difference", l->difference, 2, {D, D}, D * D};
    part[3] =
        (Part){"landmark", l->landmark, 3, {2, STREAM_LANDMARKS, D}, 2 * STREAM_LANDMARKS * D};
}

static void declare(StWriter *w, const StreamMoments *s) {
    size_t counts = 3;
    int *layer = mem_array((size_t)s->n, sizeof *layer);
    st_writer_meta(w, "format", FORMAT);
    st_writer_meta(w, "counted", s->counted);
    st_writer_meta(w, "model", s->model);
    st_writer_meta(w, "data", s->data);
    for (int i = 0; i < s->n; i++) {
        char key[LAYER_KEY];
        Part part[PARTS];
        layer[i] = s->layer[i].layer;
        parts_of(part, &s->layer[i], s->D);
        for (int p = 0; p < PARTS; p++)
            st_writer_tensor(w, layer_key(key, layer[i], part[p].name), ST_F64, part[p].rank,
                             part[p].dim);
    }
    layer_list_write(w, layer, s->n);
    st_writer_tensor(w, "documents", ST_I64, 1, &counts);
    free(layer);
}

bool stream_save(const StreamMoments *s, const char *path, Err *err) {
    StWriter *w;
    const int64_t counts[3] = {s->documents[0], s->documents[1], s->pairs};
    bool ok = true;
    if (!st_writer_open(&w, path, err)) return false;
    declare(w, s);
    for (int i = 0; i < s->n * PARTS && ok; i++) {
        Part part[PARTS];
        parts_of(part, &s->layer[i / PARTS], s->D);
        const Part *p = &part[i % PARTS];
        ok = st_writer_data(w, p->data, p->count * sizeof *p->data, err);
    }
    ok = ok && st_writer_data(w, counts, sizeof counts, err);
    if (ok) return st_writer_finish(w, err);
    st_writer_abort(w);
    return false;
}

/* Every tensor is looked at before there is memory for it. */
static bool check_shapes(int *D, const StSet *set, const int *layer, int n, const char *path,
                         Err *err) {
    for (int i = 0; i < n; i++) {
        char key[LAYER_KEY];
        const StTensor *t = st_find(set, layer_key(key, layer[i], "sum"));
        if (!t || t->rank != 2 || t->dim[1] == 0 || t->dim[1] > 1 << 20)
            return err_set(err, EXIT_INPUT, "%s: expected a tensor %s [2, width]", path, key);
        if (i == 0) *D = (int)t->dim[1];
        Part part[PARTS];
        parts_of(part, &(StreamLayer){0}, *D);
        for (int p = 0; p < PARTS; p++)
            if (!st_need_type(set, &t, layer_key(key, layer[i], part[p].name), ST_F64, part[p].rank,
                              part[p].dim, err))
                return false;
    }
    return true;
}

static bool read_counts(StreamMoments *s, const StSet *set, const char *path, Err *err) {
    const StTensor *t;
    size_t dim = 3;
    int64_t counts[3];
    if (!st_need_type(set, &t, "documents", ST_I64, 1, &dim, err)) return false;
    memcpy(counts, t->data, sizeof counts);
    s->documents[0] = counts[0], s->documents[1] = counts[1], s->pairs = counts[2];
    bool good = counts[0] >= 2 && counts[1] >= 2 &&
                (counts[2] == 0 || (counts[2] == counts[0] && counts[2] == counts[1]));
    return good || err_set(err, EXIT_INPUT,
                           "%s: expected two documents or more in a corpus, and either all of them "
                           "in pairs or none",
                           path);
}

static bool read_layer(StreamMoments *s, StreamLayer *l, const StSet *set, const char *path,
                       Err *err) {
    Part part[PARTS];
    parts_of(part, l, s->D);
    for (int p = 0; p < PARTS; p++) {
        if (!layer_tensor_read(part[p].data, set, l->layer, part[p].name, ST_F64, part[p].rank,
                               part[p].dim, err))
            return false;
        for (size_t j = 0; j < part[p].count; j++)
            if (!isfinite(part[p].data[j]))
                return err_set(err, EXIT_INPUT, "%s: layer %d: expected finite sums", path,
                               l->layer);
    }
    return true;
}

bool stream_load(StreamMoments *s, const char *path, Err *err) {
    StSet *set;
    int *layer = NULL, n, D = 0;
    memset(s, 0, sizeof *s);
    if (!st_open(&set, path, err)) return false;
    const char *format = st_metadata(set, "format");
    bool ok = (format && strcmp(format, FORMAT) == 0) ||
              err_set(err, EXIT_INPUT, "%s: expected moments written by sails moments", path);
    ok = ok && layer_list_read(&layer, &n, set, path, err) &&
         check_shapes(&D, set, layer, n, path, err);
    if (ok) {
        stream_init(s, D, layer, n);
        stream_text(&s->counted, st_metadata(set, "counted"));
        stream_text(&s->model, st_metadata(set, "model"));
        stream_text(&s->data, st_metadata(set, "data"));
        stream_text(&s->file, path);
    }
    ok = ok && read_counts(s, set, path, err);
    for (int i = 0; ok && i < s->n; i++) ok = read_layer(s, &s->layer[i], set, path, err);
    free(layer);
    st_close(set);
    if (ok) return true;
    stream_free(s);
    return err_remedy(err, "make the file again with sails moments");
}
