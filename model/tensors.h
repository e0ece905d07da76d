/* tensors.h - the tensors of a Gemma-2 checkpoint: their names, shapes and order, said once.
 *
 * A model of L layers has 2 + 11 L of them: the embedding, per layer seven projections and four
 * norms, and the final norm. The head is the embedding again and has no tensor of its own. */
#ifndef SAILS_TENSORS_H
#define SAILS_TENSORS_H

#include "kernels/choices.h"
#include "model/config.h"

/* X(value, the word that options call it by, what it is a part of). */
/* clang-format off */
#define PROJECTIONS(X) \
    X(PROJ_Q, "q", "self_attn.") X(PROJ_K, "k", "self_attn.") X(PROJ_V, "v", "self_attn.") \
    X(PROJ_O, "o", "self_attn.") X(PROJ_GATE, "gate", "mlp.") X(PROJ_UP, "up", "mlp.") \
    X(PROJ_DOWN, "down", "mlp.")
/* clang-format on */
enum Proj { PROJECTIONS(CHOICE_ENUM) PROJ_COUNT };
extern const char *const proj_name[PROJ_COUNT]; /* "q_proj", ... */
extern const char *const proj_path[PROJ_COUNT]; /* "self_attn.q_proj", ..., "mlp.down_proj" */
int proj_in(const Config *c, enum Proj p);      /* width read */
int proj_out(const Config *c, enum Proj p);     /* width written */

/* "model.layers.3.mlp.up_proj": a projection as modules are called. */
enum { MODULE_NAME = 64 };
void proj_module(char module[MODULE_NAME], int layer, enum Proj p);

/* Projections that read the same input. Group g is group_first[g] .. group_first[g + 1] - 1. */
enum Group { GROUP_QKV, GROUP_O, GROUP_FFN, GROUP_DOWN, GROUP_COUNT };
extern const enum Proj group_first[GROUP_COUNT + 1];
extern const char *const group_name[GROUP_COUNT]; /* "qkv", "o", "gate_up", "down" */

enum Norm { NORM_INPUT, NORM_POST_ATTN, NORM_PRE_FFN, NORM_POST_FFN, NORM_COUNT };

enum TensorKind { TENSOR_EMBED, TENSOR_PROJ, TENSOR_NORM, TENSOR_FINAL_NORM };

typedef struct Tensor {
    char name[96]; /* "model.layers.3.mlp.up_proj.weight" */
    enum TensorKind kind;
    int layer;            /* of a projection or a norm; else 0 */
    int which;            /* enum Proj or enum Norm; else 0 */
    int rank;             /* dims: 2, or 1 of a norm */
    size_t dim[2], count; /* (out,in) or (D,1); elements */
} Tensor;

size_t tensors_count(const Config *c);
size_t tensors_parameters(const Config *c); /* elements of all of them */

/* Tensor i in the order of the forward pass: embedding, layers from the lowest with the projections
 * before the norms, final norm. */
Tensor tensors_at(const Config *c, size_t i);

#endif
