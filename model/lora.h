/* lora.h - low-rank adapters:  y = W x + scale B (A x).
 *
 * An adapter that starts elsewhere than at zero has its start taken off again, so that the base is
 * what it was:  y = W x + scale (B A - B0 A0) x, with A0 and B0 never trained. W itself is not
 * touched. To others it is a plain adapter of twice the rank, [A; A0] and [B, -B0]: so it is saved.
 *
 * The factors are Params: f32 masters, and copies in the storage type for the GEMMs, refreshed by
 * params_sync after every change.
 *
 * Projections that read the same input (q, k, v; gate, up) form a group: their A matrices lie one
 * behind the other, so that x A^T of the whole group is one GEMM, and so is its gradient. */
#ifndef SAILS_LORA_H
#define SAILS_LORA_H

#include "model/params.h"
#include "model/tensors.h"

typedef struct Adapter {
    int R;              /* 0: this projection has none */
    float alpha, scale; /* scale = alpha / R, or alpha / sqrt(R) with rslora */
    int in, out;
    int column;     /* the first of this adapter among its group's */
    Param *A, *B;   /* (R,in), (out,R); NULL with R 0 */
    Param *A0, *B0; /* the same of the start that is taken off; NULL: it is zero */
} Adapter;

/* Columns of x [A; A0]^T. */
static inline int adapter_columns(const Adapter *a) {
    return a->A0 ? 2 * a->R : a->R;
}

typedef struct LoraGroup {
    int R;                   /* columns of its adapters together; 0: none has one */
    store *a;                /* (R,in) */
    float *dA;               /* (R,in) */
    bool train_A, train_any; /* does any of its adapters train A; or anything at all? */
} LoraGroup;

typedef struct Lora {
    Exec *ex;
    const Config *c;  /* borrowed */
    Adapter *adapter; /* (L, PROJ_COUNT) */
    Params params;    /* named as in a PEFT folder */
    bool rslora;
} Lora;

Adapter *lora_at(const Lora *l, int layer, enum Proj p);
LoraGroup lora_group(const Lora *l, int layer, enum Group g);

/* The form of an adapter before it has memory: rank and alpha of every (layer, projection). */
typedef struct LoraShape {
    int *rank;    /* (L, PROJ_COUNT), 0: none */
    float *alpha; /* (L, PROJ_COUNT) */
    int *keep;    /* (L, PROJ_COUNT) directions of its output that it leaves alone (params.h, of B);
                   * 0: none */
    bool rslora;
    bool start; /* has each a start that is taken off? */
} LoraShape;

void lora_shape_init(LoraShape *s, const Config *c); /* no adapters */
void lora_shape_free(LoraShape *s);

/* Adapters of this form, without memory: what params_allocate has then to be called for. The Config
 * must outlive them. */
void lora_declare(Lora *l, Exec *ex, const Config *c, const LoraShape *shape);

/* The same with memory, all zero; with `training` every factor is trained (params.h). */
void lora_alloc(Lora *l, Exec *ex, const Config *c, const LoraShape *shape, bool training);
void lora_free(Lora *l); /* accepts a zeroed Lora */

/* PEFT adapter folders: adapter_config.json + adapter_model.safetensors. Load takes any LoRA of
 * any ranks on the seven projections; what it cannot honour exactly (DoRA, bias, modules_to_save,
 * other targets, inits that rewrite the base model ...) is refused by name. Masters and copies
 * are ready to use. Save also writes a model card, README.md; tensors are F32; a start is part of
 * them. */
bool lora_load(Lora *l, Exec *ex, const Config *c, const char *folder, bool training, Err *err);
bool lora_save(Lora *l, const char *folder, const char *base_model, Err *err);

#endif
