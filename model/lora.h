/* lora.h - low-rank adapters:  y = W x + scale B (A x).
 *
 * Master weights, gradients and Adam's moments are f32; the GEMMs use copies of A and B in the
 * storage type, refreshed by lora_sync after every change.
 *
 * Projections that read the same input (q, k, v; gate, up) form a group: their A matrices lie one
 * behind the other, so that x A^T of the whole group is one GEMM, and so is its gradient. */
#ifndef SAILS_LORA_H
#define SAILS_LORA_H

#include "host/base/arena.h"
#include "model/config.h"

enum Proj { PROJ_Q, PROJ_K, PROJ_V, PROJ_O, PROJ_GATE, PROJ_UP, PROJ_DOWN, PROJ_COUNT };
extern const char *const proj_name[PROJ_COUNT]; /* "q_proj", ... */
extern const char *const proj_path[PROJ_COUNT]; /* "self_attn.q_proj", ..., "mlp.down_proj" */
int proj_in(const Config *c, enum Proj p);      /* width read */
int proj_out(const Config *c, enum Proj p);     /* width written */

enum Group { GROUP_QKV, GROUP_O, GROUP_FFN, GROUP_DOWN, GROUP_COUNT };
/* Group g is the projections group_first[g] .. group_first[g + 1] - 1. */
extern const enum Proj group_first[GROUP_COUNT + 1];

typedef struct Adapter {
    int R;              /* 0: this projection has none */
    float alpha, scale; /* scale = alpha / R, or alpha / sqrt(R) with rslora */
    int in, out;
    int column;     /* of this adapter's first rank among its group's */
    float *A, *B;   /* (R,in), (out,R) masters */
    store *a, *b;   /* the same, storage type */
    float *dA, *dB; /* gradients; NULL without training */
    bool train_A, train_B;
} Adapter;

typedef struct LoraGroup {
    int R;                   /* ranks of its adapters together; 0: none has one */
    store *a;                /* (R,in) */
    float *dA;               /* (R,in) */
    bool train_A, train_any; /* does any of its adapters train A; or anything at all? */
} LoraGroup;

typedef struct Lora {
    Exec *ex;
    const Config *c;  /* borrowed */
    Adapter *adapter; /* (L, PROJ_COUNT) */
    Arena weights, grads, moments;
    float *master, *grad, *m, *v; /* all adapters' f32 tensors, one block each, same order */
    store *copy;
    size_t n; /* elements of master, a little padding for alignment included (always zero) */
    bool rslora;
} Lora;

Adapter *lora_at(const Lora *l, int layer, enum Proj p);
LoraGroup lora_group(const Lora *l, int layer, enum Group g);

/* The form of an adapter before it has memory: rank and alpha of every (layer, projection). */
typedef struct LoraShape {
    int *rank;    /* (L, PROJ_COUNT), 0: none */
    float *alpha; /* (L, PROJ_COUNT) */
    bool rslora;
} LoraShape;

void lora_shape_init(LoraShape *s, const Config *c); /* no adapters */
void lora_shape_free(LoraShape *s);

/* Fresh adapters, all zero; with `training` also gradients and moments, and every matrix is
 * marked as trained. The Config must outlive them. */
void lora_init(Lora *l, Exec *ex, const Config *c, const LoraShape *shape, bool training);
void lora_free(Lora *l); /* accepts a zeroed Lora */
void lora_sync(Lora *l); /* storage copies from the masters */

size_t lora_parameters(const Lora *l); /* of all A and B */
size_t lora_trained(const Lora *l);    /* of those that are trained */

/* PEFT adapter folders: adapter_config.json + adapter_model.safetensors. Load takes any LoRA of
 * any ranks on the seven projections; what it cannot honour exactly (DoRA, bias, modules_to_save,
 * other targets, inits that rewrite the base model ...) is refused by name. Masters and copies
 * are ready to use. Save also writes a model card, README.md; tensors are F32. */
bool lora_load(Lora *l, Exec *ex, const Config *c, const char *folder, bool training, Err *err);
bool lora_save(Lora *l, const char *folder, const char *base_model, Err *err);

#endif
