/* peft.c - the meaning of adapter_config.json, as PEFT reads and writes it. */
#include "model/peft.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "model/pattern.h"

enum { CONFIG_BYTES = 16 << 20, MAX_RANK = 1 << 16 };

typedef struct Reader {
    const json_t *json;
    const char *path;
    Err *err;
} Reader;

static bool refuse(const Reader *r, const char *key, const char *why) {
    err_set(r->err, EXIT_INPUT, "%s: %s: %s", r->path, key, why);
    return err_remedy(r->err, "give a plain LoRA adapter as PEFT saves it");
}

/* ---------------------------------------------------------------- what must not be there -- */

/* Keys read below, and keys that say nothing about what the adapter computes. The inits named
 * here ran before the tensors were saved. */
static const char *const fine[] = {"r",
                                   "lora_alpha",
                                   "use_rslora",
                                   "target_modules",
                                   "exclude_modules",
                                   "rank_pattern",
                                   "alpha_pattern",
                                   "layers_to_transform",
                                   "layers_pattern",
                                   "peft_type",
                                   "init_lora_weights",
                                   "bias",
                                   "lora_dropout",
                                   "task_type",
                                   "inference_mode",
                                   "base_model_name_or_path",
                                   "revision",
                                   "auto_mapping",
                                   "peft_version",
                                   "megatron_config",
                                   "megatron_core",
                                   "runtime_config",
                                   "eva_config",
                                   "ensure_weight_tying",
                                   "qalora_group_size"};

static bool is_fine(const char *key) {
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++)
        if (strcmp(key, fine[i]) == 0) return true;
    return false;
}

/* null, false, 0, "" and empty collections switch an option off. */
static bool is_off(const json_t *v) {
    if (json_is_number(v)) return json_number_value(v) == 0;
    if (json_is_string(v)) return json_string_length(v) == 0;
    return json_is_null(v) || json_is_false(v) || (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

static bool is_string(const json_t *v, const char *s) {
    return json_is_string(v) && strcmp(json_string_value(v), s) == 0;
}

/* Inits that leave the base model as it is. The others (pissa, olora, corda, loftq, lora_ga)
 * subtract their start from it, so that the stored tensors belong to another base. */
static bool check_init(const Reader *r) {
    const json_t *v = json_object_get(r->json, "init_lora_weights");
    if (!v || json_is_boolean(v) || json_is_null(v) || is_string(v, "gaussian") ||
        is_string(v, "eva") || is_string(v, "orthogonal") || is_string(v, "mica"))
        return true;
    return refuse(r, "init_lora_weights",
                  "expected an init that keeps the base model (true, \"gaussian\", \"eva\", "
                  "\"orthogonal\"); convert the adapter with PEFT's "
                  "path_initial_model_for_weight_conversion");
}

static bool check_keys(const Reader *r) {
    if (!json_is_object(r->json)) return refuse(r, "top level", "expected an object");
    const json_t *type = json_object_get(r->json, "peft_type");
    if (!is_string(type, "LORA")) return refuse(r, "peft_type", "expected \"LORA\"");
    const json_t *bias = json_object_get(r->json, "bias");
    if (bias && !is_string(bias, "none"))
        return refuse(r, "bias", "expected \"none\": Gemma-2 has no biases");
    const char *key;
    const json_t *v;
    json_object_foreach ((json_t *)(uintptr_t)r->json, key, v)
        if (!is_fine(key) && !is_off(v))
            return refuse(r, key, "this option is not supported; expected it off or absent");
    return check_init(r);
}

/* ------------------------------------------------------------------------ which modules -- */

/* A regular expression of the configuration; `value` is what its key maps to, NULL: nothing. */
typedef struct Rule {
    Pattern *pattern;
    const json_t *value;
} Rule;

typedef struct RuleList {
    Rule *rule;
    size_t n;
} RuleList;

/* All of them, compiled once: they are held against every module. */
typedef struct Rules {
    RuleList target, exclude, layers, rank, alpha;
} Rules;

/* One adapter of a 9B model has 294 modules; a list of more than so many is nobody's work. */
enum { MAX_RULES = 4096 };

static bool add_rule(const Reader *r, const char *key, RuleList *list, const char *text,
                     enum PatternUse use, const json_t *value) {
    char why[PATTERN_WHY];
    if (list->n == MAX_RULES) return refuse(r, key, "expected at most 4096 patterns");
    Pattern *p = pattern_compile(text, use, why);
    if (!p) return refuse(r, key, why);
    if (!list->rule) list->rule = mem_array(MAX_RULES, sizeof *list->rule);
    list->rule[list->n++] = (Rule){p, value};
    return true;
}

/* Where PEFT takes names by their ends, an expression for whole names may stand instead. */
static bool names_or_pattern(const Reader *r, const char *key, RuleList *list) {
    const json_t *v = json_object_get(r->json, key);
    if (!v || json_is_null(v)) return true;
    if (json_is_string(v)) return add_rule(r, key, list, json_string_value(v), PATTERN_WHOLE, NULL);
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!json_is_string(json_array_get(v, i)))
            return refuse(r, key, "expected a list of module names");
    return json_is_array(v) || refuse(r, key, "expected a list or a regular expression");
}

/* layers_pattern names the list that the layer number stands behind: "layers" in Gemma-2. */
static bool read_layers_pattern(const Reader *r, RuleList *list) {
    const json_t *v = json_object_get(r->json, "layers_pattern");
    if (!v || is_off(v)) return true;
    for (size_t i = 0; i < (json_is_array(v) ? json_array_size(v) : 1); i++) {
        const char *s = json_string_value(json_is_array(v) ? json_array_get(v, i) : v);
        if (!s) return refuse(r, "layers_pattern", "expected a name or a list of names");
        if (!add_rule(r, "layers_pattern", list, s, PATTERN_LAYER, NULL)) return false;
    }
    return true;
}

static bool read_map(const Reader *r, const char *key, RuleList *list) {
    const json_t *map = json_object_get(r->json, key), *v;
    if (!map || json_is_null(map)) return true;
    if (!json_is_object(map)) return refuse(r, key, "expected an object");
    const char *name;
    json_object_foreach ((json_t *)(uintptr_t)map, name, v) {
        if (!add_rule(r, key, list, name, PATTERN_END, v)) return false;
    }
    return true;
}

static bool read_rules(const Reader *r, Rules *rules) {
    const json_t *v = json_object_get(r->json, "target_modules");
    bool all = json_is_string(v) && strcasecmp(json_string_value(v), "all-linear") == 0;
    return (all || names_or_pattern(r, "target_modules", &rules->target)) &&
           (is_off(json_object_get(r->json, "exclude_modules")) ||
            names_or_pattern(r, "exclude_modules", &rules->exclude)) &&
           read_layers_pattern(r, &rules->layers) && read_map(r, "rank_pattern", &rules->rank) &&
           read_map(r, "alpha_pattern", &rules->alpha);
}

static void rules_free(Rules *rules) {
    RuleList *list[] = {&rules->target, &rules->exclude, &rules->layers, &rules->rank,
                        &rules->alpha};
    for (int i = 0; i < 5; i++) {
        for (size_t j = 0; j < list[i]->n; j++) pattern_free(list[i]->rule[j].pattern);
        free(list[i]->rule);
    }
}

/* The first rule that matches, as its number; -1: none, -2 on failure. */
enum { NO_RULE = -1, RULE_FAILED = -2 };
static long first_match(const Reader *r, const char *key, const RuleList *list,
                        const char *module) {
    char why[PATTERN_WHY];
    for (size_t i = 0; i < list->n; i++) {
        int hit = pattern_matches(list->rule[i].pattern, module, why);
        if (hit < 0) return refuse(r, key, why), RULE_FAILED;
        if (hit) return (long)i;
    }
    return NO_RULE;
}

/* PEFT's test of one name against target_modules or exclude_modules: a string is a regular
 * expression for the whole name, a list holds names or dotted ends of names. */
enum Listed { LISTED_FAILED = -1, NOT_LISTED, LISTED_BY_END, LISTED_BY_NAME };
static enum Listed listed(const Reader *r, const char *key, const RuleList *list,
                          const char *module) {
    if (list->n) {
        long hit = first_match(r, key, list, module);
        return hit == RULE_FAILED ? LISTED_FAILED : hit == NO_RULE ? NOT_LISTED : LISTED_BY_NAME;
    }
    const json_t *v = json_object_get(r->json, key);
    enum Listed found = NOT_LISTED;
    for (size_t i = 0; i < json_array_size(v); i++) {
        const char *s = json_string_value(json_array_get(v, i));
        size_t n = strlen(s), m = strlen(module);
        if (n > m || strcmp(module + m - n, s) != 0) continue;
        if (n == m) return LISTED_BY_NAME;
        if (module[m - n - 1] == '.') found = LISTED_BY_END;
    }
    return found;
}

/* The number of the module's layer as layers_pattern counts, -1: in no such list. */
static bool counted_layer(const Reader *r, const RuleList *layers, const char *module, int *layer) {
    if (!layers->n) return true;
    long hit = first_match(r, "layers_pattern", layers, module);
    if (hit == RULE_FAILED) return false;
    *layer = -1;
    if (hit == NO_RULE) return true;
    *layer = pattern_layer(layers->rule[hit].pattern, module);
    return *layer >= 0 ||
           refuse(r, "layers_pattern", "expected its first group to be the layer's number");
}

/* layers_to_transform. PEFT heeds it only for modules that are found by the ends of their names. */
static int layer_allowed(const Reader *r, const Rules *rules, int layer, const char *module) {
    const json_t *v = json_object_get(r->json, "layers_to_transform");
    if (!v || json_is_null(v) || (json_is_array(v) && json_array_size(v) == 0)) return 1;
    if (!counted_layer(r, &rules->layers, module, &layer)) return -1;
    bool found = false;
    for (size_t i = 0; i < (json_is_array(v) ? json_array_size(v) : 1); i++) {
        const json_t *n = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_integer(n))
            return refuse(r, "layers_to_transform", "expected layer numbers"), -1;
        found = found || json_integer_value(n) == layer;
    }
    return found;
}

static int targeted(const Reader *r, const Rules *rules, int layer, enum Proj p,
                    const char *module) {
    enum Listed out = listed(r, "exclude_modules", &rules->exclude, module);
    if (out != NOT_LISTED) return out == LISTED_FAILED ? -1 : 0;
    const json_t *v = json_object_get(r->json, "target_modules");
    if (!v || json_is_null(v)) /* PEFT's default for Gemma-2 */
        return p == PROJ_Q || p == PROJ_V ? layer_allowed(r, rules, layer, module) : 0;
    if (json_is_string(v) && !rules->target.n) /* "all-linear" */
        return layer_allowed(r, rules, layer, module);
    enum Listed in = listed(r, "target_modules", &rules->target, module);
    return in == LISTED_BY_END ? layer_allowed(r, rules, layer, module)
                               : (in == LISTED_FAILED ? -1 : in == LISTED_BY_NAME);
}

/* ---------------------------------------------------------------------- rank and alpha -- */

/* The value of the first key that matches an end of the module's name, else `common`. */
static bool pattern_value(const Reader *r, const char *key, const RuleList *list,
                          const char *common, const char *module, const json_t **value) {
    long hit = first_match(r, key, list, module);
    *value = hit >= 0 ? list->rule[hit].value : json_object_get(r->json, common);
    return hit != RULE_FAILED;
}

static bool read_module(const Reader *r, const Rules *rules, const char *module, int *rank,
                        float *alpha) {
    const json_t *R, *al;
    if (!pattern_value(r, "rank_pattern", &rules->rank, "r", module, &R) ||
        !pattern_value(r, "alpha_pattern", &rules->alpha, "lora_alpha", module, &al))
        return false;
    json_int_t n = R ? json_integer_value(R) : 8; /* PEFT's defaults */
    if ((R && !json_is_integer(R)) || n < 1 || n > MAX_RANK)
        return refuse(r, "r", "expected whole ranks from 1 to 65536, also in rank_pattern");
    double x = al ? json_number_value(al) : 8;
    if ((al && !json_is_number(al)) || !isfinite((float)x))
        return refuse(r, "lora_alpha", "expected a number, also in alpha_pattern");
    *rank = (int)n;
    *alpha = (float)x;
    return true;
}

static bool read_shape(const Reader *r, const Rules *rules, LoraShape *s, const Config *c) {
    const json_t *rs = json_object_get(r->json, "use_rslora");
    if (rs && !json_is_boolean(rs) && !json_is_null(rs))
        return refuse(r, "use_rslora", "expected true or false");
    s->rslora = json_is_true(rs);
    int any = 0;
    for (int i = 0; i < c->L * PROJ_COUNT; i++) {
        char module[MODULE_NAME];
        enum Proj p = (enum Proj)(i % PROJ_COUNT);
        int layer = i / PROJ_COUNT;
        proj_module(module, layer, p);
        int hit = targeted(r, rules, layer, p, module);
        if (hit < 0) return false;
        if (hit && !read_module(r, rules, module, &s->rank[i], &s->alpha[i])) return false;
        any |= hit;
    }
    return any ? true : refuse(r, "target_modules", "expected to name a projection of the model");
}

bool peft_read(LoraShape *shape, const Config *c, const char *folder, Err *err) {
    if (!files_need_folder(folder, "adapter_config.json", err)) return false;
    char *path = files_join(folder, "adapter_config.json");
    json_t *json = NULL;
    bool ok = files_read_json(&json, path, CONFIG_BYTES, err);
    if (ok) {
        Reader r = {.json = json, .path = path, .err = err};
        lora_shape_init(shape, c);
        Rules rules = {0};
        ok = check_keys(&r) && read_rules(&r, &rules) && read_shape(&r, &rules, shape, c);
        rules_free(&rules);
        if (!ok) lora_shape_free(shape);
    }
    json_decref(json);
    free(path);
    return ok;
}

/* ------------------------------------------------------------------------------- writing -- */

/* The adapter whose rank and alpha most others share: they need no pattern. */
static const Adapter *commonest(const Lora *l) {
    const Adapter *best = NULL;
    int n = l->c->L * PROJ_COUNT, most = 0;
    for (int i = 0; i < n; i++) {
        const Adapter *a = &l->adapter[i];
        int same = 0;
        for (int j = i; a->R > 0 && j < n; j++)
            same += l->adapter[j].R == a->R && l->adapter[j].alpha == a->alpha;
        if (same > most) most = same, best = a;
    }
    return best;
}

/* Names of projections and a list of layers when they tell it all, else every module by name. */
static void describe_targets(const Lora *l, json_t *o) {
    int L = l->c->L, layers = 0;
    bool layer[L], proj[PROJ_COUNT] = {false}, grid = true;
    for (int i = 0; i < L; i++) layer[i] = false;
    for (int i = 0; i < L * PROJ_COUNT; i++)
        if (l->adapter[i].R > 0) layer[i / PROJ_COUNT] = proj[i % PROJ_COUNT] = true;
    for (int i = 0; i < L; i++) layers += layer[i];
    for (int i = 0; i < L * PROJ_COUNT; i++)
        grid = grid && (l->adapter[i].R > 0) == (layer[i / PROJ_COUNT] && proj[i % PROJ_COUNT]);
    json_t *targets = json_array(), *numbers = json_array();
    for (int i = 0; i < (grid ? PROJ_COUNT : L * PROJ_COUNT); i++) {
        if (grid && proj[i]) json_array_append_new(targets, json_string(proj_name[i]));
        if (!grid && l->adapter[i].R > 0) {
            char module[MODULE_NAME];
            proj_module(module, i / PROJ_COUNT, (enum Proj)(i % PROJ_COUNT));
            json_array_append_new(targets, json_string(module));
        }
    }
    for (int i = 0; i < L; i++)
        if (layer[i]) json_array_append_new(numbers, json_integer(i));
    json_object_set_new(o, "target_modules", targets);
    bool some = grid && layers < L;
    json_object_set_new(o, "layers_to_transform", some ? json_incref(numbers) : json_null());
    json_decref(numbers);
}

/* A float written so that it reads as the decimal that was meant: 32, not 32.0; 0.1, not
 * 0.10000000149. */
static json_t *json_float(float f) {
    if (f == truncf(f) && fabsf(f) < 1e9f) return json_integer((json_int_t)f);
    char text[32];
    snprintf(text, sizeof text, "%.7g", (double)f);
    double x = strtod(text, NULL);
    return json_real((float)x == f ? x : (double)f);
}

/* Of an adapter as it is saved: with a start it has twice the rank, and the same scale. */
static float alpha_of(const Lora *l, const Adapter *a) {
    if (!a->A0) return a->alpha;
    return l->rslora ? (float)(a->alpha * sqrt(2.0)) : 2 * a->alpha;
}

static void describe_ranks(const Lora *l, json_t *o) {
    const Adapter *common = commonest(l);
    json_t *ranks = json_object(), *alphas = json_object();
    for (int i = 0; i < l->c->L * PROJ_COUNT; i++) {
        const Adapter *a = &l->adapter[i];
        char module[MODULE_NAME];
        proj_module(module, i / PROJ_COUNT, (enum Proj)(i % PROJ_COUNT));
        if (a->R > 0 && a->R != common->R)
            json_object_set_new(ranks, module, json_integer(adapter_columns(a)));
        if (a->R > 0 && a->alpha != common->alpha)
            json_object_set_new(alphas, module, json_float(alpha_of(l, a)));
    }
    json_object_set_new(o, "r", json_integer(common ? adapter_columns(common) : 8));
    json_object_set_new(o, "lora_alpha", json_float(common ? alpha_of(l, common) : 8));
    json_object_set_new(o, "rank_pattern", ranks);
    json_object_set_new(o, "alpha_pattern", alphas);
}

json_t *peft_describe(const Lora *l, const char *base_model) {
    json_t *o = json_object();
    json_t *base = base_model ? json_string(base_model) : NULL; /* NULL too when it is not UTF-8 */
    json_object_set_new(o, "peft_type", json_string("LORA"));
    json_object_set_new(o, "task_type", json_string("CAUSAL_LM"));
    json_object_set_new(o, "base_model_name_or_path", base ? base : json_null());
    json_object_set_new(o, "revision", json_null());
    json_object_set_new(o, "auto_mapping", json_null());
    json_object_set_new(o, "inference_mode", json_true());
    describe_ranks(l, o);
    describe_targets(l, o);
    json_object_set_new(o, "layers_pattern", json_null());
    json_object_set_new(o, "use_rslora", json_boolean(l->rslora));
    json_object_set_new(o, "use_dora", json_false());
    json_object_set_new(o, "lora_dropout", json_real(0));
    json_object_set_new(o, "bias", json_string("none"));
    json_object_set_new(o, "fan_in_fan_out", json_false());
    json_object_set_new(o, "init_lora_weights", json_true());
    json_object_set_new(o, "modules_to_save", json_null());
    return o;
}
