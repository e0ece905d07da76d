/* sae_file.c - Gemma Scope's params.npz and SAELens's folders. */
#include "model/sae_file.h"

#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

#include "data/base/files.h"
#include "data/base/interrupt.h"
#include "data/base/mem.h"

enum { CFG_LIMIT = 1 << 24 };

/* ------------------------------------------------------------------------------ both formats */

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool folder_holds(const char *folder, const char *name) {
    char *path = files_join(folder, name);
    bool there = files_exists(path);
    free(path);
    return there;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

bool sae_file_looks_like(const char *path) {
    if (is_folder(path)) return folder_holds(path, "cfg.json") || folder_holds(path, "params.npz");
    return ends_with(path, ".npz") && files_exists(path);
}

static bool refuse(const SaeFile *f, const char *what, Err *err) {
    return err_set(err, EXIT_INPUT, "%s: %s; choose another SAE", f->path, what);
}

static bool wrong_layer(const SaeFile *f, const char *where, long says, int layer, Err *err) {
    return err_set(err, EXIT_INPUT,
                   "%s: %s says layer %ld, expected the SAE of layer %d; write {layer} in --sae",
                   f->path, where, says, layer);
}

/* Spelling in the file: some releases write w_enc for W_enc. */
static const char *spelling(const SaeFile *f, const char *name) {
    if (f->set || npz_has(f->npz, name)) return name;
    const char *lower = strcmp(name, "W_enc") == 0   ? "w_enc"
                        : strcmp(name, "W_dec") == 0 ? "w_dec"
                                                     : name;
    return npz_has(f->npz, lower) ? lower : name;
}

static bool check_shape(const SaeFile *f, const char *name, int rank, size_t a, size_t b,
                        Err *err) {
    size_t dim[4] = {a, b}, found[4];
    int r;
    const StTensor *t;
    if (f->set) return st_need(f->set, &t, name, rank, dim, err);
    if (!npz_shape(f->npz, spelling(f, name), &r, found, err)) return false;
    if (r == rank && found[0] == a && (rank == 1 || found[1] == b)) return true;
    return err_set(
        err, EXIT_INPUT,
        "%s: %s: expected %zu%s%.0zu elements, found rank %d of %zu x %zu; choose another SAE",
        f->file, name, a, rank == 2 ? " x " : "", b, r, found[0], found[1]);
}

/* D and S from W_enc, then everything else against them. */
static bool check_shapes(SaeFile *f, int width, Err *err) {
    size_t dim[ST_MAX_RANK] = {0};
    int rank;
    if (f->set) {
        const StTensor *t = st_find(f->set, "W_enc");
        if (!t) return refuse(f, "expected a tensor W_enc in sae_weights.safetensors", err);
        rank = t->rank;
        memcpy(dim, t->dim, sizeof dim);
    } else if (!npz_shape(f->npz, spelling(f, "W_enc"), &rank, dim, err)) {
        return false;
    }
    if (rank != 2 || dim[0] == 0 || dim[0] > 1 << 24 || (width && dim[0] != (size_t)width))
        return err_set(err, EXIT_INPUT,
                       "%s: W_enc reads a stream of width %zu (rank %d), the model's has %d; is "
                       "this SAE for another model?",
                       f->file, dim[0], rank, width);
    if (dim[1] == 0 || dim[1] > 1 << 24)
        return err_set(err, EXIT_INPUT,
                       "%s: W_enc: expected 1 to %d features, found %zu; choose another SAE",
                       f->file, 1 << 24, dim[1]);
    f->D = (int)dim[0];
    f->S = (int)dim[1];
    size_t D = dim[0], S = dim[1];
    return check_shape(f, "W_enc", 2, D, S, err) && check_shape(f, "W_dec", 2, S, D, err) &&
           check_shape(f, "b_enc", 1, S, 0, err) && check_shape(f, "b_dec", 1, D, 0, err) &&
           (f->act != SAE_JUMPRELU || check_shape(f, "threshold", 1, S, 0, err));
}

/* SAELens once wrote a factor for every feature's output; while it is one, it says nothing. */
static bool all_ones(const StTensor *t) {
    if (t->type != ST_F32 && t->type != ST_F16 && t->type != ST_BF16) return false;
    for (size_t i = 0; i < t->count; i++) {
        float x;
        st_read_f32(t, &x, i, 1);
        if (x != 1) return false;
    }
    return true;
}

/* A tensor that the architecture does not have means that the SAE is of another one, and would
 * fire otherwise than it was trained to; SAELens refuses it too. `n` is the length of its name. */
static bool check_tensor(const SaeFile *f, const char *name, int n, Err *err) {
    static const char *const arch[] = {
        [SAE_RELU] = "standard", [SAE_JUMPRELU] = "jumprelu", [SAE_TOPK] = "topk"};
    static const char *const part[] = {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"};
    int parts = f->act == SAE_JUMPRELU ? 5 : 4;
    for (int i = 0; i < parts; i++) {
        const char *spelled = spelling(f, part[i]);
        if ((int)strlen(spelled) == n && memcmp(spelled, name, (size_t)n) == 0) return true;
    }
    const StTensor *t = f->set ? st_find(f->set, name) : NULL;
    if (t && strcmp(name, "scaling_factor") == 0 && all_ones(t)) return true;
    return err_set(err, EXIT_INPUT,
                   "%s: tensor %.*s is none of a %s SAE, which has W_enc, W_dec, b_enc, b_dec%s; "
                   "is cfg.json that of this SAE? choose another one",
                   f->file, n < 200 ? n : 200, name, arch[f->act], parts == 5 ? ", threshold" : "");
}

static bool check_names(const SaeFile *f, Err *err) {
    const char *member;
    for (size_t i = 0; f->set && i < st_count(f->set); i++) {
        const char *name = st_at(f->set, i)->name;
        if (!check_tensor(f, name, (int)strlen(name), err)) return false;
    }
    for (size_t i = 0; f->npz && (member = npz_member(f->npz, i)); i++) {
        int n = (int)strlen(member) - (ends_with(member, ".npy") ? 4 : 0);
        if (!check_tensor(f, member, n, err)) return false;
    }
    return true;
}

/* -------------------------------------------------------------------------------- Gemma Scope */

static bool file_name_has(const char *path, const char *part) {
    const char *repo = strstr(path, "gemma-scope");
    return repo && strstr(repo, part);
}

/* Gemma Scope says what an SAE reads in its path alone: gemma-scope-2b-pt-res/layer_20/... */
static bool check_scope_path(const SaeFile *f, int layer, Err *err) {
    if (file_name_has(f->path, "-transcoders"))
        return refuse(f, "this is a transcoder, expected an SAE on the residual stream", err);
    if (file_name_has(f->path, "pt-mlp") || file_name_has(f->path, "pt-att"))
        return refuse(f,
                      "this SAE reads an MLP or attention output, expected the residual stream "
                      "(gemma-scope-...-res)",
                      err);
    const char *at = NULL;
    for (const char *p = f->path; (p = strstr(p, "layer_")); p++) at = p;
    char *end;
    long says = at ? strtol(at + 6, &end, 10) : layer;
    if (layer >= 0 && at && end != at + 6 && says != layer)
        return wrong_layer(f, "its path", says, layer, err);
    return true;
}

static bool open_scope(SaeFile *f, int layer, Err *err) {
    f->act = SAE_JUMPRELU;
    return check_scope_path(f, layer, err) && npz_open(&f->npz, f->file, err);
}

/* ------------------------------------------------------------------------------------ SAELens */

static const char *text_of(const json_t *j) {
    return json_string_value(j);
}

/* A key of the configuration itself or, from version 6 on, of its metadata. */
static const json_t *anywhere(const json_t *cfg, const char *key) {
    const json_t *j = json_object_get(cfg, key);
    return j ? j : json_object_get(json_object_get(cfg, "metadata"), key);
}

static bool unsupported(const SaeFile *f, const char *key, const char *value, const char *why,
                        Err *err) {
    return err_set(err, EXIT_INPUT,
                   "%s: cfg.json: %s = %.100s is not supported: %s; choose another SAE", f->path,
                   key, value, why);
}

/* The layer whose output a hook names: blocks.20.hook_resid_post, or blocks.21.hook_resid_pre,
 * which is the same stream; TransformerLens' bridge and transformers have their own names for it.
 */
static bool hook_layer(const char *hook, long *layer) {
    static const struct {
        const char *format;
        int before; /* the hook lies so many layers behind */
    } form[] = {{"blocks.%d.hook_resid_post%n", 0},
                {"blocks.%d.hook_out%n", 0},
                {"model.layers.%d%n", 0},
                {"blocks.%d.hook_resid_pre%n", 1}};
    for (size_t i = 0; i < sizeof form / sizeof *form; i++) {
        int block, n = 0;
        if (sscanf(hook, form[i].format, &block, &n) != 1 || n == 0 || hook[n]) continue;
        *layer = (long)block - form[i].before;
        return true;
    }
    return false;
}

static bool check_hook(const SaeFile *f, const json_t *cfg, int layer, Err *err) {
    const char *hook = text_of(anywhere(cfg, "hook_name"));
    if (!hook) hook = text_of(anywhere(cfg, "hook_point"));
    if (!hook) return true;
    long leaves;
    if (!hook_layer(hook, &leaves))
        return unsupported(f, "hook_name", hook, "expected the residual stream, hook_resid_post",
                           err);
    if (layer >= 0 && leaves != layer)
        return wrong_layer(f, "hook_name in cfg.json", leaves, layer, err);
    const json_t *head = anywhere(cfg, "hook_head_index");
    if (!head) head = anywhere(cfg, "hook_point_head_index");
    if (head && !json_is_null(head))
        return unsupported(f, "hook_head_index", "a number", "expected the whole stream", err);
    return true;
}

static bool check_normalisation(const SaeFile *f, const json_t *cfg, Err *err) {
    const json_t *n = json_object_get(cfg, "normalize_activations");
    const char *how = json_is_true(n) ? "expected_average_only_in" : text_of(n);
    const char *shape = text_of(json_object_get(cfg, "reshape_activations"));
    if (n && !how && !json_is_false(n) && !json_is_null(n)) how = "(no text)";
    if (how && strcmp(how, "none") != 0)
        return unsupported(f, "normalize_activations", how,
                           strcmp(how, "expected_average_only_in") == 0
                               ? "its factor is not in the file, but SAELens' "
                                 "fold_activation_norm_scaling_factor folds it"
                               : "it depends on each token and cannot be folded",
                           err);
    if (shape && strcmp(shape, "none") != 0)
        return unsupported(f, "reshape_activations", shape, "expected none", err);
    return true;
}

/* Before version 6 TopK is an activation function of the standard architecture. */
static bool read_architecture(SaeFile *f, const json_t *cfg, Err *err) {
    const char *arch = text_of(json_object_get(cfg, "architecture"));
    const char *fn = text_of(json_object_get(cfg, "activation_fn"));
    const json_t *k = json_object_get(cfg, "k");
    if (!fn) fn = text_of(json_object_get(cfg, "activation_fn_str"));
    if (!arch) arch = "standard";
    if (fn && strcmp(fn, "topk") == 0) {
        arch = "topk";
        if (!k) k = json_object_get(json_object_get(cfg, "activation_fn_kwargs"), "k");
    } else if (fn && strcmp(fn, "relu") != 0) {
        return unsupported(f, "activation_fn", fn, "expected relu or topk", err);
    }
    if (strcmp(arch, "standard") == 0) {
        f->act = SAE_RELU;
    } else if (strcmp(arch, "jumprelu") == 0) {
        f->act = SAE_JUMPRELU;
    } else if (strcmp(arch, "topk") == 0) {
        f->act = SAE_TOPK;
        f->topk = k ? (int)json_integer_value(k) : 100; /* SAELens' default */
        if (f->topk <= 0 || (k && json_integer_value(k) != f->topk))
            return refuse(f, "cfg.json: expected k to be an integer above 0", err);
        f->scale_by_decoder = json_is_true(json_object_get(cfg, "rescale_acts_by_decoder_norm"));
    } else {
        return unsupported(f, "architecture", arch, "expected standard, topk or jumprelu", err);
    }
    return true;
}

static bool read_cfg(SaeFile *f, const json_t *cfg, int layer, Err *err) {
    const json_t *subtract = json_object_get(cfg, "apply_b_dec_to_input");
    const char *id = text_of(anywhere(cfg, "neuronpedia_id"));
    if (!json_is_object(cfg)) return refuse(f, "cfg.json: expected an object", err);
    if (subtract && !json_is_boolean(subtract))
        return refuse(f, "cfg.json: expected apply_b_dec_to_input to be true or false", err);
    f->subtract_b_dec = !subtract || json_is_true(subtract);
    if (id) f->id = mem_string(id);
    return read_architecture(f, cfg, err) && check_hook(f, cfg, layer, err) &&
           check_normalisation(f, cfg, err);
}

static bool check_cfg_size(const SaeFile *f, const json_t *cfg, const char *key, int is, Err *err) {
    const json_t *j = json_object_get(cfg, key);
    if (!j || (json_is_integer(j) && json_integer_value(j) == is)) return true;
    return err_set(err, EXIT_INPUT,
                   "%s: cfg.json: expected %s to be %d as in the weights; fetch both files again",
                   f->path, key, is);
}

static bool open_saelens(SaeFile *f, int layer, int width, Err *err) {
    char *path = files_join(f->path, "cfg.json");
    json_t *cfg = NULL;
    bool ok = files_read_json(&cfg, path, CFG_LIMIT, err) && read_cfg(f, cfg, layer, err) &&
              st_open(&f->set, f->file, err) && check_shapes(f, width, err) &&
              check_cfg_size(f, cfg, "d_in", f->D, err) &&
              check_cfg_size(f, cfg, "d_sae", f->S, err);
    if (ok && f->topk > f->S)
        ok = err_set(
            err, EXIT_INPUT,
            "%s: cfg.json: expected k of at most %d features, found %d; fetch both files again",
            f->path, f->S, f->topk);
    ok = ok && check_names(f, err);
    json_decref(cfg);
    free(path);
    return ok;
}

/* ------------------------------------------------------------------------------- the whole -- */

bool sae_file_open(SaeFile *f, const char *path, int layer, int width, Err *err) {
    memset(f, 0, sizeof *f);
    f->path = mem_string(path);
    bool lens = is_folder(path) && folder_holds(path, "cfg.json");
    f->file = lens              ? files_join(path, "sae_weights.safetensors")
              : is_folder(path) ? files_join(path, "params.npz")
                                : mem_string(path);
    bool ok = lens
                  ? open_saelens(f, layer, width, err)
                  : open_scope(f, layer, err) && check_shapes(f, width, err) && check_names(f, err);
    if (!ok) sae_file_close(f);
    return ok;
}

void sae_file_close(SaeFile *f) {
    npz_close(f->npz);
    st_close(f->set);
    free(f->path), free(f->file), free(f->id);
    memset(f, 0, sizeof *f);
}

/* A sum of finite numbers below 1e38 times the row's length cannot overflow in double; NaN and
 * infinity survive every addition. */
static bool all_finite(const float *row, size_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) sum += row[i];
    return isfinite(sum);
}

bool sae_file_rows(const SaeFile *f, const char *name, sae_row *take, void *context, Err *err) {
    bool encoder = strcmp(name, "W_enc") == 0, matrix = encoder || strcmp(name, "W_dec") == 0;
    size_t D = (size_t)f->D, S = (size_t)f->S, rows = encoder ? D : matrix ? S : 1;
    size_t n = encoder || (!matrix && strcmp(name, "b_dec") != 0) ? S : D;
    float *row = mem_array(n, sizeof *row);
    NpzStream *stream = NULL;
    const StTensor *t = f->set ? st_find(f->set, name) : NULL;
    bool ok = f->set || npz_stream_open(&stream, f->npz, spelling(f, name), err);
    for (size_t i = 0; ok && i < rows; i++) {
        if (t)
            st_read_f32(t, row, i * n, n);
        else
            ok = npz_stream_next(stream, row, n, err);
        if (ok && !all_finite(row, n))
            ok = err_set(err, EXIT_INPUT,
                         "%s: %s: row %zu holds NaN or infinity; fetch the file again", f->file,
                         name, i);
        if (ok) take(context, row, i, n);
        ok = ok && !interrupted(err);
    }
    npz_stream_close(stream);
    free(row);
    return ok;
}
