/* tensors.c - names, shapes and order of a checkpoint's tensors. */
#include "model/tensors.h"

#include <stdio.h>

#include "kernels/check.h"

#define NAME(value, word, part) word "_proj",
#define PATH(value, word, part) part word "_proj",
const char *const proj_name[PROJ_COUNT] = {PROJECTIONS(NAME)};
const char *const proj_path[PROJ_COUNT] = {PROJECTIONS(PATH)};
static const char *const norm_path[NORM_COUNT] = {"input_layernorm", "post_attention_layernorm",
                                                  "pre_feedforward_layernorm",
                                                  "post_feedforward_layernorm"};
const char *const group_name[GROUP_COUNT] = {"qkv", "o", "gate_up", "down"};
const enum Proj group_first[GROUP_COUNT + 1] = {PROJ_Q, PROJ_O, PROJ_GATE, PROJ_DOWN, PROJ_COUNT};

enum { OF_A_LAYER = PROJ_COUNT + NORM_COUNT };

int proj_in(const Config *c, enum Proj p) {
    return p == PROJ_O ? c->H * c->E : p == PROJ_DOWN ? c->F : c->D;
}

int proj_out(const Config *c, enum Proj p) {
    switch (p) {
        case PROJ_Q:
            return c->H * c->E;
        case PROJ_K:
        case PROJ_V:
            return c->K * c->E;
        case PROJ_GATE:
        case PROJ_UP:
            return c->F;
        default:
            return c->D;
    }
}

void proj_module(char module[MODULE_NAME], int layer, enum Proj p) {
    snprintf(module, MODULE_NAME, "model.layers.%d.%s", layer, proj_path[p]);
}

size_t tensors_count(const Config *c) {
    return 2 + OF_A_LAYER * (size_t)c->L;
}

static Tensor matrix(enum TensorKind kind, int rows, int cols) {
    return (Tensor){.kind = kind,
                    .rank = 2,
                    .dim = {(size_t)rows, (size_t)cols},
                    .count = (size_t)rows * (size_t)cols};
}

static Tensor vector(enum TensorKind kind, int n) {
    return (Tensor){.kind = kind, .rank = 1, .dim = {(size_t)n, 1}, .count = (size_t)n};
}

static Tensor of_layer(const Config *c, int layer, int i) {
    bool is_proj = i < PROJ_COUNT;
    Tensor t = is_proj ? matrix(TENSOR_PROJ, proj_out(c, (enum Proj)i), proj_in(c, (enum Proj)i))
                       : vector(TENSOR_NORM, c->D);
    t.layer = layer;
    t.which = is_proj ? i : i - PROJ_COUNT;
    char module[MODULE_NAME];
    if (is_proj)
        proj_module(module, layer, (enum Proj)i);
    else
        snprintf(module, sizeof module, "model.layers.%d.%s", layer, norm_path[t.which]);
    snprintf(t.name, sizeof t.name, "%s.weight", module);
    return t;
}

Tensor tensors_at(const Config *c, size_t i) {
    CHECK(i < tensors_count(c), "tensor %zu of %zu", i, tensors_count(c));
    Tensor t;
    if (i == 0) {
        t = matrix(TENSOR_EMBED, c->V, c->D);
        snprintf(t.name, sizeof t.name, "model.embed_tokens.weight");
    } else if (i + 1 == tensors_count(c)) {
        t = vector(TENSOR_FINAL_NORM, c->D);
        snprintf(t.name, sizeof t.name, "model.norm.weight");
    } else {
        t = of_layer(c, (int)((i - 1) / OF_A_LAYER), (int)((i - 1) % OF_A_LAYER));
    }
    return t;
}

size_t tensors_parameters(const Config *c) {
    size_t n = 0;
    for (size_t i = 0; i < tensors_count(c); i++) n += tensors_at(c, i).count;
    return n;
}
