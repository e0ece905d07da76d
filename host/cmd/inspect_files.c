/* inspect_files.c - models, adapters, SAEs and files of tensors. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/stage/adapting.h"
#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/npz.h"
#include "data/base/safetensors.h"
#include "host/cmd/inspect.h"
#include "host/cli/print.h"
#include "host/stage/moments.h"
#include "host/stage/runtime.h"
#include "host/stage/scoring.h"
#include "model/config.h"
#include "model/sae.h"

enum { LISTED = 40 /* tensors of a file that are listed by name */ };

/* --------------------------------------------------------------------------------- model -- */

static void config_facts(json_t *facts, const Config *c) {
    json_t *shape =
        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I}", "layers", c->L, "width",
                  c->D, "ffn", c->F, "query heads", c->H, "key/value heads", c->K, "head width",
                  c->E, "vocabulary", c->V, "window", c->window, "positions", c->max_positions,
                  "parameters", (json_int_t)tensors_parameters(c));
    json_object_update(facts, shape);
    json_decref(shape);
    json_t *eos = json_array();
    for (int i = 0; i < c->neos; i++) json_array_append_new(eos, json_integer(c->eos[i]));
    json_object_set_new(facts, "eos ids", eos);
}

static void weight_facts(json_t *facts, const StSet *set) {
    size_t bytes = 0, of_type[ST_TYPE_COUNT] = {0};
    for (size_t i = 0; i < st_count(set); i++) {
        bytes += st_at(set, i)->bytes;
        of_type[st_at(set, i)->type]++;
    }
    json_object_set_new(facts, "tensors", json_integer((json_int_t)st_count(set)));
    json_object_set_new(facts, "bytes", json_integer((json_int_t)bytes));
    json_t *types = json_object();
    for (int t = 0; t < ST_TYPE_COUNT; t++)
        if (of_type[t])
            json_object_set_new(types, st_type_name((enum StType)t),
                                json_integer((json_int_t)of_type[t]));
    json_object_set_new(facts, "types", types);
}

bool inspect_model(json_t *facts, const char *path, const Settings *s, Err *err) {
    (void)s;
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    bool is_file = strcmp(name, "config.json") == 0;
    char *folder = is_file ? strndup(path, (size_t)(name - path)) : mem_string(path);
    Config c;
    StSet *set = NULL;
    bool ok = config_load(&c, *folder ? folder : ".", err);
    if (ok) {
        config_facts(facts, &c);
        config_free(&c);
        if (!is_file) ok = st_open_folder(&set, folder, "model", err);
        if (set) weight_facts(facts, set);
    }
    st_close(set);
    free(folder);
    return ok;
}

/* ------------------------------------------------------------------------------- adapter -- */

/* Norm of a tensor's elements. */
static double norm_of(const StTensor *t) {
    enum { PIECE = 4096 };
    float x[PIECE];
    double sum = 0;
    for (size_t at = 0; at < t->count; at += PIECE) {
        size_t n = t->count - at < PIECE ? t->count - at : PIECE;
        st_read_f32(t, x, at, n);
        for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    }
    return sqrt(sum);
}

static void adapter_tensors(json_t *facts, const StSet *set) {
    FILE *f = text_begin();
    size_t count = 0;
    fprintf(f, "%-64s %-6s %-14s %s\n", "tensor", "type", "shape", "norm");
    for (size_t i = 0; i < st_count(set); i++) {
        const StTensor *t = st_at(set, i);
        bool number = t->type == ST_F32 || t->type == ST_BF16 || t->type == ST_F16;
        char shape[48];
        snprintf(shape, sizeof shape, "%zu x %zu", t->dim[0], t->rank > 1 ? t->dim[1] : 1);
        count += t->count;
        const char *name = strstr(t->name, "layers.");
        fprintf(f, "%-64.200s %-6s %-14s %.5g\n", name ? name : t->name, st_type_name(t->type),
                shape, number ? norm_of(t) : NAN);
    }
    json_object_set_new(facts, "parameters", json_integer((json_int_t)count));
    text_end(f, facts);
}

bool inspect_adapter(json_t *facts, const char *path, const Settings *s, Err *err) {
    (void)s;
    static const char *const shown[] = {"base_model_name_or_path",
                                        "peft_type",
                                        "r",
                                        "lora_alpha",
                                        "use_rslora",
                                        "target_modules",
                                        "rank_pattern",
                                        "alpha_pattern"};
    char *file = files_join(path, "adapter_config.json");
    json_t *config;
    StSet *set = NULL;
    bool ok = files_read_json(&config, file, 16 << 20, err);
    if (ok && !json_is_object(config)) {
        json_decref(config);
        ok = err_set(err, EXIT_INPUT, "%s: expected an object; fetch the adapter again", file);
    }
    free(file);
    if (!ok) return false;
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        json_t *value = json_object_get(config, shown[i]);
        bool empty = !value || json_is_null(value) ||
                     (json_is_object(value) && json_object_size(value) == 0);
        if (!empty) json_object_set(facts, shown[i], value);
    }
    json_decref(config);
    ok = st_open_folder(&set, path, "adapter_model", err);
    if (ok) weight_facts(facts, set);
    if (ok) adapter_tensors(facts, set);
    st_close(set);
    return ok;
}

/* ----------------------------------------------------------------------------------- SAE -- */

bool inspect_sae(json_t *facts, const char *path, const Settings *s, Err *err) {
    (void)s;
    static const char *const act[] = {
        [SAE_RELU] = "ReLU", [SAE_JUMPRELU] = "JumpReLU", [SAE_TOPK] = "TopK"};
    Sae sae;
    if (!sae_open(&sae, NULL, path, -1, 0, err)) return false;
    json_t *found = json_pack("{s:s, s:i, s:i}", "activation", act[sae.enc.act], "stream width",
                              sae.enc.D, "features", sae.enc.S);
    json_object_update(facts, found);
    json_decref(found);
    if (sae.enc.act == SAE_TOPK) json_object_set_new(facts, "k", json_integer(sae.enc.topk));
    if (*sae.id) json_object_set_new(facts, "neuronpedia", json_string(sae.id));
    sae_close(&sae);
    return true;
}

/* --------------------------------------------------------------------------- safetensors -- */

static void list_tensors(json_t *facts, const StSet *set) {
    FILE *f = text_begin();
    size_t n = st_count(set);
    for (size_t i = 0; i < n && i < LISTED; i++) {
        const StTensor *t = st_at(set, i);
        fprintf(f, "  %-5s", st_type_name(t->type));
        for (int d = 0; d < t->rank; d++) fprintf(f, "%s%zu", d ? " x " : " ", t->dim[d]);
        fprintf(f, "  %.300s\n", t->name);
    }
    if (n > LISTED) fprintf(f, "  ... and %zu more\n", n - LISTED);
    text_end(f, facts);
}

static bool has_tensor(const StSet *set, const char *end) {
    for (size_t i = 0; i < st_count(set); i++) {
        const char *name = st_at(set, i)->name, *dot = strrchr(name, '.');
        if (strncmp(name, "layer.", 6) == 0 && dot && strcmp(dot, end) == 0) return true;
    }
    return false;
}

static bool scores_facts(json_t *facts, const char *path, const Settings *s, Err *err) {
    Scores scores = {0};
    if (!scores_load(&scores, path, err)) return false;
    json_int_t tokens[2] = {0};
    for (int c = 0; c < 2; c++)
        for (int g = 0; g < SCORE_GROUPS; g++) tokens[c] += scores.tokens[c][g];
    json_t *found =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:i}", "kind", "scores", "model", scores.model,
                  "data", scores.data, "counted tokens", scores.counted, "aligned tokens",
                  tokens[0], "unaligned tokens", tokens[1], "layers", scores.n);
    json_object_update(facts, found);
    json_decref(found);
    Exec ex;
    if (!runtime_cpu(&ex, s, err)) {
        scores_free(&scores);
        return false;
    }
    FILE *f = text_begin();
    scoring_print(f, &ex, &scores, (enum ScoreKind)s->subspace.by, s->subspace.top_k);
    text_end(f, facts);
    exec_close(&ex);
    scores_free(&scores);
    return true;
}

static bool moments_facts(json_t *facts, const char *path, Err *err) {
    StreamMoments m = {0};
    if (!stream_load(&m, path, err)) return false;
    json_t *found =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:i}", "kind", "moments", "model", m.model,
                  "data", m.data, "counted tokens", m.counted, "aligned documents",
                  (json_int_t)m.documents[0], "unaligned documents", (json_int_t)m.documents[1],
                  "pairs", (json_int_t)m.pairs, "layers", m.n);
    json_object_update(facts, found);
    json_decref(found);
    FILE *f = text_begin();
    moments_print(f, &m);
    text_end(f, facts);
    stream_free(&m);
    return true;
}

/* Which rise; one layer may have several, of what its projections read. */
static int layers_of(const Subspace *s) {
    int n = 0;
    for (int i = 0; i < s->n; i++) n += i == 0 || s->basis[i].layer != s->basis[i - 1].layer;
    return n;
}

static bool subspace_facts(json_t *facts, const char *path, Err *err) {
    Subspace subspace = {0};
    if (!subspace_load(&subspace, path, err)) return false;
    json_object_set_new(facts, "kind", json_string("subspace"));
    json_object_set_new(facts, "layers", json_integer(layers_of(&subspace)));
    json_object_set_new(facts, "bases", json_integer(subspace.n));
    if (subspace.made) json_object_set_new(facts, "made", json_string(subspace.made));
    FILE *f = text_begin();
    adapting_print(f, &subspace);
    text_end(f, facts);
    subspace_free(&subspace);
    return true;
}

bool inspect_safetensors(json_t *facts, const char *path, const Settings *s, Err *err) {
    StSet *set;
    if (!st_open(&set, path, err)) return false;
    bool ok = true;
    if (has_tensor(set, ".basis")) {
        ok = subspace_facts(facts, path, err);
    } else if (has_tensor(set, ".difference")) {
        ok = moments_facts(facts, path, err);
    } else if (has_tensor(set, ".sumsq")) {
        ok = scores_facts(facts, path, s, err);
    } else {
        weight_facts(facts, set);
        list_tensors(facts, set);
    }
    st_close(set);
    return ok;
}
