/* subspace_file.c - the subspace's file. */
#include <math.h>
#include <stdio.h>

#include "data/base/mem.h"
#include "model/layer_list.h"
#include "model/salora.h"
#include "model/subspace.h"
#include "model/tensors.h"

static const char FORMAT[] = "sails subspace 1";

/* What bases are of: the word in the file, none for the stream; and the names that a layer may have
 * bases of. */
typedef struct Names {
    const char *word;
    const char *const *name;
    int n;
} Names;
static const char *const stream[] = {NULL};
static const Names names[] = {[BASIS_OF_STREAM] = {NULL, stream, 1},
                              [BASIS_OF_INPUTS] = {"inputs", group_name, GROUP_COUNT},
                              [BASIS_OF_OUTPUTS] = {"outputs", output_name, OUTPUT_NAMES}};

/* "basis", or "qkv.basis" of what a group of projections reads. */
enum { WHAT = 32 };
static const char *within(char what[WHAT], const Basis *b, const char *name) {
    snprintf(what, WHAT, "%s%s%s", b->of ? b->of : "", b->of ? "." : "", name);
    return what;
}

static const char *key_of(char key[LAYER_KEY], const Basis *b, const char *name) {
    char what[WHAT];
    return layer_key(key, b->layer, within(what, b, name));
}

static bool read_tensor(void *to, const StSet *set, const Basis *b, const char *name,
                        enum StType type, int rank, const size_t *dim, Err *err) {
    char what[WHAT];
    return layer_tensor_read(to, set, b->layer, within(what, b, name), type, rank, dim, err);
}

static void declare(StWriter *w, const Basis *b) {
    char key[LAYER_KEY], text[16];
    size_t basis[2] = {(size_t)b->D, (size_t)b->R}, k = (size_t)b->k;
    size_t shares = (size_t)basis_shares(b);
    snprintf(text, sizeof text, "%d", b->m);
    st_writer_meta(w, key_of(key, b, "directions"), text);
    st_writer_tensor(w, key_of(key, b, "basis"), ST_F64, 2, basis);
    if (shares > 0) st_writer_tensor(w, key_of(key, b, "variance"), ST_F64, 1, &shares);
    if (b->scale) st_writer_tensor(w, key_of(key, b, "scale"), ST_F64, 1, &basis[1]);
    if (b->k == 0) return;
    st_writer_tensor(w, key_of(key, b, "features"), ST_I32, 1, &k);
    if (!b->coverage) return;
    st_writer_tensor(w, key_of(key, b, "coverage"), ST_F64, 1, &k);
    st_writer_tensor(w, key_of(key, b, "captured"), ST_F64, 0, NULL);
}

static bool write_basis(StWriter *w, const Basis *b, Err *err) {
    size_t k = (size_t)b->k, shares = (size_t)basis_shares(b);
    if (!st_writer_data(w, b->U, (size_t)b->D * (size_t)b->R * sizeof *b->U, err) ||
        (shares > 0 && !st_writer_data(w, b->variance, shares * sizeof *b->variance, err)) ||
        (b->scale && !st_writer_data(w, b->scale, (size_t)b->R * sizeof *b->scale, err)))
        return false;
    if (b->k == 0) return true;
    return st_writer_data(w, b->feature, k * sizeof *b->feature, err) &&
           (!b->coverage || (st_writer_data(w, b->coverage, k * sizeof *b->coverage, err) &&
                             st_writer_data(w, &b->captured, sizeof b->captured, err)));
}

bool subspace_save(const Subspace *s, const char *path, Err *err) {
    StWriter *w;
    if (!st_writer_open(&w, path, err)) return false;
    int *layer = mem_array((size_t)s->n, sizeof *layer), n = 0;
    for (int i = 0; i < s->n; i++)
        if (i == 0 || s->basis[i].layer > layer[n - 1]) layer[n++] = s->basis[i].layer;
    st_writer_meta(w, "format", FORMAT);
    st_writer_meta(w, "made", s->made ? s->made : "");
    if (s->init) st_writer_meta(w, "init", s->init);
    if (names[subspace_of(s)].word) st_writer_meta(w, "of", names[subspace_of(s)].word);
    layer_list_write(w, layer, n);
    free(layer);
    for (int i = 0; i < s->n; i++) declare(w, &s->basis[i]);
    bool ok = true;
    for (int i = 0; ok && i < s->n; i++) ok = write_basis(w, &s->basis[i], err);
    if (ok) return st_writer_finish(w, err);
    st_writer_abort(w);
    return false;
}

/* Every pair of columns: 1 with itself, 0 with the others. */
static bool orthonormal(const double *U, int D, int R) {
    for (int i = 0; i < R; i++)
        for (int j = 0; j <= i; j++) {
            double dot = 0;
            for (int d = 0; d < D; d++) dot += U[(size_t)d * R + i] * U[(size_t)d * R + j];
            if (!(fabs(dot - (i == j)) <= 1e-6)) return false;
        }
    return true;
}

static bool load_shape(Basis *b, const StSet *set, const char *path, Err *err) {
    char key[LAYER_KEY];
    const char *m = st_metadata(set, key_of(key, b, "directions"));
    const StTensor *u = st_find(set, key_of(key, b, "basis"));
    if (!u || u->rank != 2 || u->dim[1] == 0 || u->dim[1] > u->dim[0] || u->dim[0] > 1 << 20)
        return err_set(err, EXIT_INPUT, "%s: expected a tensor %s [width, rank], rank <= width",
                       path, key);
    b->D = (int)u->dim[0], b->R = (int)u->dim[1];
    b->m = m ? atoi(m) : 0;
    if (m && strcmp(m, "0") == 0) return true; /* a random basis */
    const StTensor *f = st_find(set, key_of(key, b, "features"));
    if (!f && b->m > 0 && b->m <= b->R) return true; /* one of no features */
    if (!f || f->rank != 1 || f->dim[0] == 0 || f->dim[0] > 1 << 24)
        return err_set(err, EXIT_INPUT, "%s: expected a tensor %s [features]", path, key);
    b->k = (int)f->dim[0];
    if (b->m < 1 || b->m > b->k || b->m > b->D)
        return err_set(err, EXIT_INPUT, "%s: expected metadata %s from 1 to the features", path,
                       key_of(key, b, "directions"));
    return true;
}

/* A share of a unit vector, but for what R columns may miss of being orthonormal. */
static bool is_share(double x, int R) {
    return x >= 0 && x <= 1 + 1e-6 * R;
}

/* Files of sails before these were measured do not have them. */
static bool load_measures(Basis *b, const StSet *set, const char *path, Err *err) {
    char key[LAYER_KEY];
    size_t k = (size_t)b->k;
    if (!st_find(set, key_of(key, b, "coverage"))) return true;
    b->coverage = mem_array(k, sizeof *b->coverage);
    if (!read_tensor(b->coverage, set, b, "coverage", ST_F64, 1, &k, err) ||
        !read_tensor(&b->captured, set, b, "captured", ST_F64, 0, NULL, err))
        return false;
    bool good = is_share(b->captured, b->R);
    for (size_t i = 0; i < k; i++) good = good && is_share(b->coverage[i], b->R);
    return good || err_set(err, EXIT_INPUT,
                           "%s: layer %d: expected coverage and captured share from 0 to 1", path,
                           b->layer);
}

/* What the columns were made from. */
static bool load_directions(Basis *b, const StSet *set, const char *path, Err *err) {
    size_t k = (size_t)b->k, shares = (size_t)basis_shares(b);
    b->variance = mem_array(shares, sizeof *b->variance);
    b->feature = mem_array(k, sizeof *b->feature);
    if (!read_tensor(b->variance, set, b, "variance", ST_F64, 1, &shares, err) ||
        (k > 0 && !read_tensor(b->feature, set, b, "features", ST_I32, 1, &k, err)))
        return false;
    bool good = true;
    for (size_t i = 0; i < shares; i++)
        good = good && isfinite(b->variance[i]) && b->variance[i] >= 0;
    for (size_t i = 0; i < k; i++) good = good && b->feature[i] >= 0;
    if (!good)
        return err_set(err, EXIT_INPUT,
                       "%s: layer %d: expected shares of variance and feature numbers", path,
                       b->layer);
    return k == 0 || load_measures(b, set, path, err);
}

/* Most bases have none. */
static bool load_scale(Basis *b, const StSet *set, const char *path, Err *err) {
    char key[LAYER_KEY];
    size_t R = (size_t)b->R;
    if (!st_find(set, key_of(key, b, "scale"))) return true;
    b->scale = mem_array(R, sizeof *b->scale);
    if (!read_tensor(b->scale, set, b, "scale", ST_F64, 1, &R, err)) return false;
    for (int j = 0; j < b->R; j++)
        if (!(b->scale[j] > 0 && isfinite(b->scale[j])))
            return err_set(err, EXIT_INPUT, "%s: layer %d: expected scales above 0", path,
                           b->layer);
    return true;
}

static bool load_basis(Basis *b, const StSet *set, const char *path, Err *err) {
    if (!load_shape(b, set, path, err)) return false;
    size_t dim[2] = {(size_t)b->D, (size_t)b->R};
    b->U = mem_array(dim[0] * dim[1], sizeof *b->U);
    if (!read_tensor(b->U, set, b, "basis", ST_F64, 2, dim, err)) return false;
    if (!orthonormal(b->U, b->D, b->R))
        return err_set(err, EXIT_INPUT, "%s: layer %d: expected orthonormal columns", path,
                       b->layer);
    return load_scale(b, set, path, err) && (b->m == 0 || load_directions(b, set, path, err));
}

/* The bases of a layer: one of the stream, or one for each name that the file has. */
static bool load_layer(Subspace *s, int layer, enum BasisOf of, const StSet *set, const char *path,
                       Err *err) {
    int before = s->n;
    for (int i = 0; i < names[of].n; i++) {
        char key[LAYER_KEY];
        Basis *b = &s->basis[s->n];
        *b = (Basis){.of = names[of].name[i], .layer = layer};
        if (b->of && !st_find(set, key_of(key, b, "basis"))) continue;
        s->n++; /* what it has is to be freed, too, if it cannot be read */
        if (!load_basis(b, set, path, err)) return false;
        if (!b->of && b->D != s->basis[0].D)
            return err_set(err, EXIT_INPUT, "%s: expected bases of one width", path);
    }
    return s->n > before || err_set(err, EXIT_INPUT, "%s: expected tensors layer.%d.%s.basis", path,
                                    layer, of == BASIS_OF_INPUTS ? "GROUP" : "OUTPUT");
}

/* The words of a file. */
static enum BasisOf kind_of(const char *word) {
    enum BasisOf of = BASIS_OF_OUTPUTS;
    while (of > BASIS_OF_STREAM && !(word && strcmp(word, names[of].word) == 0)) of--;
    return of;
}

bool subspace_load(Subspace *s, const char *path, Err *err) {
    StSet *set;
    int *layer = NULL, layers = 0;
    memset(s, 0, sizeof *s);
    if (!st_open(&set, path, err)) return false;
    const char *format = st_metadata(set, "format"), *made = st_metadata(set, "made");
    const char *of = st_metadata(set, "of"), *init = st_metadata(set, "init");
    enum BasisOf kind = kind_of(of);
    bool ok = format && strcmp(format, FORMAT) == 0;
    if (!ok) err_set(err, EXIT_INPUT, "%s: expected a subspace written by sails subspace", path);
    ok = ok && layer_list_read(&layer, &layers, set, path, err);
    if (ok) {
        s->basis = mem_array((size_t)(layers * names[kind].n), sizeof *s->basis);
        s->made = mem_string(made ? made : "");
        s->init = init ? mem_string(init) : NULL; /* files of sails before it was told have none */
        s->file = mem_string(path);
    }
    for (int i = 0; ok && i < layers; i++) ok = load_layer(s, layer[i], kind, set, path, err);
    free(layer);
    st_close(set);
    if (ok) return true;
    subspace_free(s);
    return err_remedy(err, kind == BASIS_OF_STREAM ? "make the file again with sails subspace"
                                                   : "make the file again with sails inputs");
}
