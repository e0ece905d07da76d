/* sae.c - encoders on the device, rows of the decoder read when asked for. */
#include "model/sae.h"

#include <glob.h>
#include <math.h>
#include <stdio.h>

#include "data/base/foreign.h"
#include "data/base/mem.h"
#include "model/neuronpedia.h"
#include "model/sae_file.h"

/* ---------------------------------------------------------------------- finding one by pattern */

static char *with_layer(const char *pattern, int layer) {
    static const char mark[] = "{layer}";
    char number[16];
    snprintf(number, sizeof number, "%d", layer);
    size_t marks = 0, n = strlen(number);
    for (const char *p = pattern; (p = strstr(p, mark)); p++) marks++;
    char *out = mem_array(strlen(pattern) + marks * n + 1, 1), *at = out;
    while (*pattern) {
        bool here = strncmp(pattern, mark, sizeof mark - 1) == 0;
        memcpy(at, here ? number : pattern, here ? n : 1);
        at += here ? n : 1;
        pattern += here ? sizeof mark - 1 : 1;
    }
    return out;
}

/* dir/cfg.json and its neighbours stand for dir: a wildcard may well match all files of a folder.
 */
static void to_folder(char *path) {
    static const char *const part[] = {"/cfg.json", "/sae_weights.safetensors",
                                       "/sparsity.safetensors"};
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(path), m = strlen(part[i]);
        if (n > m && strcmp(path + n - m, part[i]) == 0) path[n - m] = 0;
    }
    size_t n = strlen(path);
    if (n > 1 && path[n - 1] == '/') path[n - 1] = 0;
}

/* The one SAE among the matches; *list gets up to five of them for the message. */
static int count_matches(char **found, char *list, size_t size, glob_t *g) {
    int count = 0;
    for (size_t i = 0; i < g->gl_pathc; i++) {
        char *path = mem_string(g->gl_pathv[i]);
        to_folder(path);
        bool same = *found && strcmp(*found, path) == 0; /* matches come sorted */
        if (same || !sae_file_looks_like(path)) {
            free(path);
            continue;
        }
        size_t used = strlen(list);
        if (count < 5) snprintf(list + used, size - used, "%s%s", count ? ", " : "", path);
        if (count == 5) snprintf(list + used, size - used, ", ...");
        count++;
        free(*found);
        *found = path;
    }
    return count;
}

static bool find_one(char **found, const char *pattern, int layer, Err *err) {
    char *expanded = with_layer(pattern, layer), list[700] = "";
    *found = NULL;
    glob_t g = {0};
    int count;
    if (sae_file_looks_like(expanded)) { /* a real name wins over its reading as a pattern */
        *found = mem_string(expanded);
        to_folder(*found);
        count = 1;
    } else {
        int code = glob(expanded, GLOB_TILDE, NULL, &g);
        CHECK(code != GLOB_NOSPACE, "out of memory");
        count = count_matches(found, list, sizeof list, &g);
        globfree(&g);
    }
    if (count == 0 && foreign_refuse(expanded, "sae_weights", err))
        err_set(
            err, EXIT_INPUT,
            "--sae %s: no SAE for layer %d: expected a params.npz file, or a folder with cfg.json "
            "and sae_weights.safetensors; check the path",
            expanded, layer);
    else if (count > 1)
        err_set(err, EXIT_INPUT,
                "--sae %s: expected exactly one SAE for layer %d, found %d: %s; name one", expanded,
                layer, count, list);
    if (count != 1) free(*found), *found = NULL;
    free(expanded);
    return count == 1;
}

/* ------------------------------------------------------------------------ to the device, folded */

/* The encoder's vectors on the way: what the rows of W_enc and W_dec add up to. */
typedef struct Fold {
    Sae *s;
    const float *b_dec; /* (D) or NULL: not subtracted */
    const double *norm; /* (S) or NULL: not scaled */
    double *shift;      /* (S): b_dec W_enc */
    float *scaled;      /* (S): a row of W_enc, scaled */
} Fold;

static void take_vector(void *to, const float *row, size_t number, size_t n) {
    (void)number;
    memcpy(to, row, n * sizeof *row);
}

static void take_norm(void *to, const float *row, size_t number, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)row[i] * row[i];
    ((double *)to)[number] = sqrt(sum);
}

static void take_encoder_row(void *context, const float *row, size_t d, size_t S) {
    Fold *f = context;
    if (f->b_dec) {
        double b = f->b_dec[d];
#pragma omp simd
        for (size_t s = 0; s < S; s++) f->shift[s] += b * row[s];
    }
    if (f->norm)
        for (size_t s = 0; s < S; s++) f->scaled[s] = (float)(row[s] * f->norm[s]);
    exec_copy_in(f->s->ex, f->s->w + d * S, f->norm ? f->scaled : row, S * sizeof *row);
}

/* With x' = x - b_dec:  x' W + b = x W + (b - b_dec W). Scaling pre-activation s by the norm of
 * decoder row s is scaling column s of W and b[s]. */
static bool load_encoder(Sae *s, const SaeFile *f, Err *err) {
    size_t D = (size_t)f->D, S = (size_t)f->S;
    float *b_dec = mem_array(D, sizeof *b_dec), *b = mem_array(S, sizeof *b);
    float *scaled = mem_array(S, sizeof *scaled);
    double *norm = mem_array(S, sizeof *norm), *shift = mem_array(S, sizeof *shift);
    Fold fold = {.s = s,
                 .b_dec = f->subtract_b_dec ? b_dec : NULL,
                 .shift = shift,
                 .norm = f->scale_by_decoder ? norm : NULL,
                 .scaled = scaled};
    s->w = exec_alloc(s->ex, D * S * sizeof *s->w, "SAE encoder");
    s->b = exec_alloc(s->ex, S * sizeof *s->b, "SAE bias");
    bool ok = sae_file_rows(f, "b_dec", take_vector, b_dec, err) &&
              sae_file_rows(f, "b_enc", take_vector, b, err) &&
              (!fold.norm || sae_file_rows(f, "W_dec", take_norm, norm, err)) &&
              sae_file_rows(f, "W_enc", take_encoder_row, &fold, err);
    for (size_t i = 0; ok && i < S; i++)
        b[i] = (float)((b[i] - shift[i]) * (fold.norm ? norm[i] : 1));
    if (ok) exec_copy_in(s->ex, s->b, b, S * sizeof *b);
    free(b_dec), free(b), free(scaled), free(norm), free(shift);
    return ok;
}

/* SAELens applies ReLU below the jump: a threshold under zero acts as zero. */
static bool load_threshold(Sae *s, const SaeFile *f, Err *err) {
    size_t S = (size_t)f->S;
    float *t = mem_array(S, sizeof *t);
    s->threshold = exec_alloc(s->ex, S * sizeof *t, "SAE thresholds");
    bool ok = sae_file_rows(f, "threshold", take_vector, t, err);
    for (size_t i = 0; ok && i < S; i++) t[i] = t[i] > 0 ? t[i] : 0;
    if (ok) exec_copy_in(s->ex, s->threshold, t, S * sizeof *t);
    free(t);
    return ok;
}

bool sae_open(Sae *s, Exec *ex, const char *pattern, int layer, int width, Err *err) {
    memset(s, 0, sizeof *s);
    s->ex = ex;
    s->layer = layer;
    if (!find_one(&s->path, pattern, layer, err)) return false;
    SaeFile f;
    bool ok = sae_file_open(&f, s->path, layer, width, err);
    if (ok) {
        s->enc = (SaeEncoder){.D = f.D, .S = f.S, .act = f.act, .topk = f.topk};
        s->file = mem_string(f.file);
        s->id = f.id ? mem_string(f.id) : neuronpedia_id(s->path);
        if (ex)
            ok = load_encoder(s, &f, err) && (f.act != SAE_JUMPRELU || load_threshold(s, &f, err));
        s->enc.w = s->w, s->enc.b = s->b, s->enc.threshold = s->threshold;
        sae_file_close(&f);
    }
    if (!ok) sae_close(s);
    return ok;
}

void sae_close(Sae *s) {
    if (s->ex) {
        exec_free(s->ex, s->threshold);
        exec_free(s->ex, s->b);
        exec_free(s->ex, s->w);
    }
    free(s->path), free(s->file), free(s->id);
    memset(s, 0, sizeof *s);
}

/* -------------------------------------------------------------------------------- the decoder */

typedef struct Pick {
    double *rows;
    const int32_t *feature;
    int k;
} Pick;

static void take_decoder_row(void *context, const float *row, size_t number, size_t n) {
    const Pick *p = context;
    for (int i = 0; i < p->k; i++)
        if ((size_t)p->feature[i] == number)
            for (size_t d = 0; d < n; d++) p->rows[(size_t)i * n + d] = row[d];
}

bool sae_decoder_rows(const Sae *s, double *rows, const int32_t *feature, int k, Err *err) {
    for (int i = 0; i < k; i++)
        CHECK(feature[i] >= 0 && feature[i] < s->enc.S, "feature %d of %d", feature[i], s->enc.S);
    SaeFile f;
    if (!sae_file_open(&f, s->path, s->layer, s->enc.D, err)) return false;
    Pick pick = {rows, feature, k};
    bool ok = sae_file_rows(&f, "W_dec", take_decoder_row, &pick, err);
    sae_file_close(&f);
    return ok;
}

typedef struct Nearest {
    const double *rows; /* (k,D) */
    const int32_t *feature;
    double *size; /* (k) */
    int32_t *near;
    double *cosine;
    int k, n;
} Nearest;

/* Rows come by rising index, so that of equals the first stays in front. */
static void put_near(const Nearest *p, int i, double cosine, size_t number) {
    double *c = p->cosine + (size_t)i * (size_t)p->n;
    int32_t *near = p->near + (size_t)i * (size_t)p->n;
    int at = p->n;
    while (at > 0 && (near[at - 1] < 0 || cosine > c[at - 1])) at--;
    if (at == p->n) return;
    memmove(c + at + 1, c + at, (size_t)(p->n - at - 1) * sizeof *c);
    memmove(near + at + 1, near + at, (size_t)(p->n - at - 1) * sizeof *near);
    c[at] = cosine, near[at] = (int32_t)number;
}

static void take_near_row(void *context, const float *row, size_t number, size_t n) {
    const Nearest *p = context;
    double size = 0;
    for (size_t d = 0; d < n; d++) size += (double)row[d] * row[d];
    for (int i = 0; i < p->k && size > 0; i++) {
        const double *own = p->rows + (size_t)i * n;
        double dot = 0;
        if ((size_t)p->feature[i] == number || !(p->size[i] > 0)) continue;
        for (size_t d = 0; d < n; d++) dot += own[d] * row[d];
        put_near(p, i, dot / (p->size[i] * sqrt(size)), number);
    }
}

bool sae_decoder_nearest(const Sae *s, int32_t *near, double *cosine, const double *rows,
                         const int32_t *feature, int k, int n, Err *err) {
    SaeFile f;
    size_t D = (size_t)s->enc.D;
    if (!sae_file_open(&f, s->path, s->layer, s->enc.D, err)) return false;
    Nearest p = {.rows = rows, .feature = feature, .near = near, .cosine = cosine, .k = k, .n = n};
    p.size = mem_array((size_t)k, sizeof *p.size);
    for (int i = 0; i < k; i++) {
        for (size_t d = 0; d < D; d++)
            p.size[i] += rows[(size_t)i * D + d] * rows[(size_t)i * D + d];
        p.size[i] = sqrt(p.size[i]);
    }
    for (int i = 0; i < k * n; i++) near[i] = -1, cosine[i] = 0;
    bool ok = sae_file_rows(&f, "W_dec", take_near_row, &p, err);
    free(p.size);
    sae_file_close(&f);
    return ok;
}
