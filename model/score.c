/* score.c - the statistics as data: memory, file, merging. */
#include "model/score.h"

#include <math.h>

#include "data/base/mem.h"
#include "model/layer_list.h"

static const char FORMAT[] = "sails scores 1";
static const char *const POOL_NAME[] = {SCORE_POOLS(CHOICE_TEXT)};
static const char *const PRODUCTS_NAME[] = {SAE_PRODUCTS(CHOICE_TEXT)};

static size_t groups_size(const ScoreLayer *l) {
    return 2 * SCORE_GROUPS * (size_t)l->S;
}

static void layer_init(ScoreLayer *l, int layer, int S) {
    *l = (ScoreLayer){.layer = layer, .S = S};
    l->sum = mem_array(groups_size(l), sizeof *l->sum);
    l->sumsq = mem_array(2 * (size_t)S, sizeof *l->sumsq);
    l->fires = mem_array(2 * (size_t)S, sizeof *l->fires);
    l->max = mem_array(2 * (size_t)S, sizeof *l->max);
    l->sae = mem_string(""), l->sha256 = mem_string(""), l->id = mem_string("");
}

size_t score_layer_bytes(int S) {
    ScoreLayer l = {.S = S};
    return groups_size(&l) * sizeof *l.sum +
           2 * (size_t)S * (sizeof *l.sumsq + sizeof *l.fires + sizeof *l.max);
}

size_t scores_part_bytes(int S) {
    ScoreLayer l = {.S = S};
    return groups_size(&l) * sizeof *l.sum;
}

void scores_init(Scores *s, int n, const int *layer, const int *width) {
    *s = (Scores){.n = n};
    s->layer = mem_array((size_t)n, sizeof *s->layer);
    s->counted = mem_string(""), s->model = mem_string(""), s->data = mem_string("");
    for (int i = 0; i < n; i++) {
        CHECK(i == 0 || layer[i] > layer[i - 1], "expected rising layers");
        layer_init(&s->layer[i], layer[i], width[i]);
    }
}

void scores_copy_shape(Scores *s, const Scores *of) {
    int *layer = mem_array((size_t)of->n, sizeof *layer);
    int *width = mem_array((size_t)of->n, sizeof *width);
    for (int i = 0; i < of->n; i++) layer[i] = of->layer[i].layer, width[i] = of->layer[i].S;
    scores_init(s, of->n, layer, width);
    free(layer), free(width);
    s->pool = of->pool, s->products = of->products;
    scores_text(&s->counted, of->counted), scores_text(&s->model, of->model);
    scores_text(&s->data, of->data);
    for (int i = 0; i < of->n; i++) {
        scores_text(&s->layer[i].sae, of->layer[i].sae);
        scores_text(&s->layer[i].sha256, of->layer[i].sha256);
        scores_text(&s->layer[i].id, of->layer[i].id);
    }
}

void scores_free(Scores *s) {
    for (int i = 0; i < s->n; i++) {
        ScoreLayer *l = &s->layer[i];
        free(l->sum), free(l->sumsq), free(l->fires), free(l->max);
        free(l->sae), free(l->sha256), free(l->id);
    }
    free(s->layer), free(s->counted), free(s->model), free(s->data);
    memset(s, 0, sizeof *s);
}

void scores_text(char **field, const char *text) {
    free(*field);
    *field = mem_string(text ? text : "");
}

int score_group(const int32_t *token0, int n0, const int32_t *token1, int n1) {
    uint64_t h = (uint64_t)n0; /* tells where the first document ends */
    for (int i = 0; i < n0 + n1; i++) {
        h += (uint32_t)(i < n0 ? token0[i] : token1[i - n0]) + 0x9e3779b97f4a7c15u;
        h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u; /* the mixing steps of splitmix64 */
        h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
        h ^= h >> 31;
    }
    return (int)(h % SCORE_GROUPS);
}

/* ---------------------------------------------------------------------------------- the file */

/* The tensors of a layer, in the order of the file. */
typedef struct Part {
    const char *name;
    enum StType type;
    void *data;
    int rank;
    size_t dim[3], count;
} Part;

enum { PARTS = 4 };

static void parts_of(Part part[PARTS], const ScoreLayer *l) {
    size_t S = (size_t)l->S;
    part[0] = (Part){"sum", ST_F64, l->sum, 3, {2, SCORE_GROUPS, S}, groups_size(l)};
    part[1] = (Part){"sumsq", ST_F64, l->sumsq, 2, {2, S}, 2 * S};
    part[2] = (Part){"fires", ST_I64, l->fires, 2, {2, S}, 2 * S};
    part[3] = (Part){"max", ST_F32, l->max, 2, {2, S}, 2 * S};
}

static void write_texts(StWriter *w, const Scores *s) {
    char key[LAYER_KEY];
    int *layer = mem_array((size_t)s->n, sizeof *layer);
    st_writer_meta(w, "format", FORMAT);
    st_writer_meta(w, "pool", POOL_NAME[s->pool]);
    st_writer_meta(w, "products", PRODUCTS_NAME[s->products]);
    st_writer_meta(w, "counted", s->counted);
    st_writer_meta(w, "model", s->model);
    st_writer_meta(w, "data", s->data);
    for (int i = 0; i < s->n; i++) {
        const ScoreLayer *l = &s->layer[i];
        layer[i] = l->layer;
        st_writer_meta(w, layer_key(key, l->layer, "sae"), l->sae);
        st_writer_meta(w, layer_key(key, l->layer, "sae_sha256"), l->sha256);
        st_writer_meta(w, layer_key(key, l->layer, "neuronpedia"), l->id);
    }
    layer_list_write(w, layer, s->n);
    free(layer);
}

static bool write_data(StWriter *w, const Scores *s, Err *err) {
    for (int i = 0; i < s->n; i++) {
        Part part[PARTS];
        parts_of(part, &s->layer[i]);
        for (int p = 0; p < PARTS; p++)
            if (!st_writer_data(w, part[p].data, part[p].count * st_type_size(part[p].type), err))
                return false;
    }
    return st_writer_data(w, s->tokens, sizeof s->tokens, err) &&
           st_writer_data(w, s->documents, sizeof s->documents, err);
}

bool scores_save(const Scores *s, const char *path, Err *err) {
    StWriter *w;
    char key[LAYER_KEY];
    size_t counts[2] = {2, SCORE_GROUPS};
    if (!st_writer_open(&w, path, err)) return false;
    write_texts(w, s);
    for (int i = 0; i < s->n; i++) {
        Part part[PARTS];
        parts_of(part, &s->layer[i]);
        for (int p = 0; p < PARTS; p++)
            st_writer_tensor(w, layer_key(key, s->layer[i].layer, part[p].name), part[p].type,
                             part[p].rank, part[p].dim);
    }
    st_writer_tensor(w, "tokens", ST_I64, 2, counts);
    st_writer_tensor(w, "documents", ST_I64, 2, counts);
    if (write_data(w, s, err)) return st_writer_finish(w, err);
    st_writer_abort(w);
    return false;
}

static bool check_numbers(const Scores *s, const char *path, Err *err) {
    for (int i = 0; i < s->n; i++) {
        const ScoreLayer *l = &s->layer[i];
        bool good = true;
        for (size_t j = 0; j < groups_size(l); j++) good = good && isfinite(l->sum[j]);
        for (size_t j = 0; j < 2 * (size_t)l->S; j++)
            good = good && isfinite(l->sumsq[j]) && isfinite(l->max[j]) && l->fires[j] >= 0;
        if (!good)
            return err_set(err, EXIT_INPUT, "%s: layer %d: expected finite sums and counts >= 0",
                           path, l->layer);
    }
    for (int j = 0; j < 2 * SCORE_GROUPS; j++)
        if (s->tokens[j / SCORE_GROUPS][j % SCORE_GROUPS] < 0 ||
            s->documents[j / SCORE_GROUPS][j % SCORE_GROUPS] < 0)
            return err_set(err, EXIT_INPUT, "%s: expected counts >= 0 in tokens and documents",
                           path);
    return true;
}

static bool load_layer(ScoreLayer *l, const StSet *set, Err *err) {
    char key[LAYER_KEY];
    Part part[PARTS];
    parts_of(part, l);
    for (int p = 0; p < PARTS; p++)
        if (!layer_tensor_read(part[p].data, set, l->layer, part[p].name, part[p].type,
                               part[p].rank, part[p].dim, err))
            return false;
    scores_text(&l->sae, st_metadata(set, layer_key(key, l->layer, "sae")));
    scores_text(&l->sha256, st_metadata(set, layer_key(key, l->layer, "sae_sha256")));
    scores_text(&l->id, st_metadata(set, layer_key(key, l->layer, "neuronpedia")));
    return true;
}

static bool read_counts(int64_t counts[2][SCORE_GROUPS], const StSet *set, const char *name,
                        Err *err) {
    const StTensor *t;
    size_t dim[2] = {2, SCORE_GROUPS};
    if (!st_need_type(set, &t, name, ST_I64, 2, dim, err)) return false;
    memcpy(counts, t->data, t->bytes);
    return true;
}

/* Widths come from layer.N.max; load_layer then holds every tensor against them. */
static bool read_widths(int *width, const int *layer, int n, const StSet *set, const char *path,
                        Err *err) {
    for (int i = 0; i < n; i++) {
        char key[LAYER_KEY];
        const StTensor *t = st_find(set, layer_key(key, layer[i], "max"));
        if (!t || t->rank != 2 || t->dim[1] == 0 || t->dim[1] > 1 << 24)
            return err_set(err, EXIT_INPUT, "%s: expected a tensor %s [2, features]", path, key);
        width[i] = (int)t->dim[1];
    }
    return true;
}

/* One of two names. Files of before there were fast products lack theirs. */
static bool read_choice(int *choice, const char *const name[2], const StSet *set, const char *key,
                        const char *path, Err *err) {
    const char *text = st_metadata(set, key);
    if (!text && name == PRODUCTS_NAME) text = PRODUCTS_NAME[SAE_EXACT];
    for (*choice = 0; *choice < 2; ++*choice)
        if (text && strcmp(text, name[*choice]) == 0) return true;
    return err_set(err, EXIT_INPUT, "%s: expected metadata %s of %s or %s", path, key, name[0],
                   name[1]);
}

/* Everything but the numbers. */
static bool load_texts(Scores *s, const StSet *set, const char *path, Err *err) {
    const char *format = st_metadata(set, "format");
    int *layer, n, pool, products;
    if (!format || strcmp(format, FORMAT) != 0)
        return err_set(err, EXIT_INPUT, "%s: expected scores written by sails score", path);
    if (!read_choice(&pool, POOL_NAME, set, "pool", path, err) ||
        !read_choice(&products, PRODUCTS_NAME, set, "products", path, err))
        return false;
    if (!layer_list_read(&layer, &n, set, path, err)) return false;
    int *width = mem_array((size_t)n, sizeof *width);
    bool ok = read_widths(width, layer, n, set, path, err);
    if (ok) {
        scores_init(s, n, layer, width);
        s->pool = (enum ScorePool)pool;
        s->products = (enum SaeProducts)products;
        scores_text(&s->counted, st_metadata(set, "counted"));
        scores_text(&s->model, st_metadata(set, "model"));
        scores_text(&s->data, st_metadata(set, "data"));
    }
    free(layer), free(width);
    return ok;
}

bool scores_load(Scores *s, const char *path, Err *err) {
    StSet *set;
    memset(s, 0, sizeof *s);
    if (!st_open(&set, path, err)) return false;
    bool ok = load_texts(s, set, path, err);
    for (int i = 0; ok && i < s->n; i++) ok = load_layer(&s->layer[i], set, err);
    ok = ok && read_counts(s->tokens, set, "tokens", err) &&
         read_counts(s->documents, set, "documents", err) && check_numbers(s, path, err);
    st_close(set);
    if (ok) return true;
    scores_free(s);
    return err_remedy(err, "make the file again with sails score");
}

/* ----------------------------------------------------------------------------------- merging */

static bool check_mergeable(const Scores *a, const Scores *b, Err *err) {
    const char *what = a->n != b->n                          ? "layers"
                       : a->pool != b->pool                  ? "pooling"
                       : a->products != b->products          ? "products"
                       : strcmp(a->counted, b->counted) != 0 ? "counted tokens"
                                                             : NULL;
    for (int i = 0; !what && i < a->n; i++) {
        const ScoreLayer *x = &a->layer[i], *y = &b->layer[i];
        if (x->layer != y->layer) what = "layers";
        if (x->S != y->S || strcmp(x->sha256, y->sha256) != 0) what = "SAEs";
    }
    return !what || err_set(err, EXIT_INPUT, "scores of other %s cannot be merged", what);
}

/* to += from; of maxima the larger. */
static void add_part(const Part *to, const void *from) {
    for (size_t j = 0; j < to->count; j++) {
        if (to->type == ST_F64) ((double *)to->data)[j] += ((const double *)from)[j];
        if (to->type == ST_I64) ((int64_t *)to->data)[j] += ((const int64_t *)from)[j];
        if (to->type == ST_F32 && ((const float *)from)[j] > ((float *)to->data)[j])
            ((float *)to->data)[j] = ((const float *)from)[j];
    }
}

/* The counts of all layers, as parts. */
static void counts_of(Part part[2], Scores *s) {
    size_t n = 2 * SCORE_GROUPS;
    part[0] = (Part){"tokens", ST_I64, s->tokens, 2, {2, SCORE_GROUPS}, n};
    part[1] = (Part){"documents", ST_I64, s->documents, 2, {2, SCORE_GROUPS}, n};
}

bool scores_merge(Scores *a, const Scores *b, Err *err) {
    if (!check_mergeable(a, b, err)) return false;
    Part to[PARTS], from[PARTS];
    for (int i = 0; i < a->n; i++) {
        parts_of(to, &a->layer[i]), parts_of(from, &b->layer[i]);
        for (int p = 0; p < PARTS; p++) add_part(&to[p], from[p].data);
    }
    counts_of(to, a);
    add_part(&to[0], b->tokens), add_part(&to[1], b->documents);
    return true;
}

/* One part of every rank to rank 0's. */
static void collect_part(const Part *to, const Part *own, Comm *c, int givers) {
    void **part = mem_array((size_t)comm_size(c), sizeof *part);
    size_t *n = mem_array((size_t)comm_size(c), sizeof *n);
    bool gives = comm_rank(c) < givers;
    comm_collect(c, "scores", own->data, gives ? own->count * st_type_size(own->type) : 0, part, n);
    for (int r = 0; comm_root(c) && r < givers; r++) add_part(to, part[r]);
    for (int r = 0; comm_root(c) && r < comm_size(c); r++) free(part[r]);
    free(part), free(n);
}

void scores_collect(Scores *sum, Comm *c, Scores *own, int givers) {
    Part to[PARTS], from[PARTS];
    for (int i = 0; i < own->n; i++) {
        parts_of(to, comm_root(c) ? &sum->layer[i] : &own->layer[i]);
        parts_of(from, &own->layer[i]);
        for (int p = 0; p < PARTS; p++) collect_part(&to[p], &from[p], c, givers);
    }
    counts_of(to, sum), counts_of(from, own);
    for (int p = 0; p < 2; p++) collect_part(&to[p], &from[p], c, givers);
}

bool scores_check(const Scores *s, Err *err) {
    for (int c = 0; c < 2; c++) {
        int64_t tokens = 0;
        for (int g = 0; g < SCORE_GROUPS; g++) tokens += s->tokens[c][g];
        if (tokens == 0)
            return err_set(err, EXIT_INPUT,
                           "the %s corpus has no token that counts; give it replies",
                           c ? "unaligned" : "aligned");
    }
    for (int i = 0; i < s->n; i++) {
        const ScoreLayer *l = &s->layer[i];
        for (size_t j = 0; j < 2 * (size_t)l->S; j++)
            if (!isfinite(l->sumsq[j])) /* the sum is not finite either, or is about to be */
                return err_set(err, EXIT_NUMBERS,
                               "layer %d, feature %zu: activations are not finite; is the "
                               "checkpoint sound?",
                               l->layer, j % (size_t)l->S);
    }
    return true;
}
