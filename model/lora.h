/* lora.h - low-rank adapters:  y = W x + scale B (A x).
 *
 * Master weights, gradients and Adam's moments are f32; the GEMMs use copies of A and B in the
 * storage type, refreshed by lora_sync after every change. */
#ifndef SAILS_LORA_H
#define SAILS_LORA_H

#include "host/base/arena.h"
#include "model/config.h"

enum Proj { PROJ_Q, PROJ_K, PROJ_V, PROJ_O, PROJ_GATE, PROJ_UP, PROJ_DOWN, PROJ_COUNT };
extern const char *const proj_name[PROJ_COUNT]; /* "q_proj", ... */
int proj_in(const Config *c, enum Proj p);      /* width read */
int proj_out(const Config *c, enum Proj p);     /* width written */

typedef struct Adapter {
    int R;              /* 0: this projection has none */
    float alpha, scale; /* scale = alpha / R, or alpha / sqrt(R) with rslora */
    int in, out;
    float *A, *B;   /* (R,in), (out,R) masters, neighbours in one block */
    store *a, *b;   /* the same, storage type */
    float *dA, *dB; /* gradients */
    bool train_A, train_B;
} Adapter;

typedef struct Lora {
    Exec *ex;
    const Config *c;
    Adapter *adapter; /* (L, PROJ_COUNT) */
    Arena weights, grads, moments;
    float *master, *grad, *m, *v; /* all adapters' f32 tensors, one block each, same order */
    store *copy;
    size_t n; /* elements of master */
    bool rslora;
} Lora;

Adapter *lora_at(const Lora *l, int layer, enum Proj p);

/* The form of an adapter before it has memory: rank and alpha of every (layer, projection). */
typedef struct LoraShape {
    int *rank;    /* (L, PROJ_COUNT), 0: none */
    float *alpha; /* (L, PROJ_COUNT) */
    bool rslora;
} LoraShape;

/* Fresh adapters, all zero; with `training` also gradients and moments. */
void lora_init(Lora *l, Exec *ex, const Config *c, const LoraShape *shape, bool training);
void lora_free(Lora *l);
void lora_sync(Lora *l); /* storage copies from the masters */

/* PEFT adapter folders: adapter_config.json + adapter_model.safetensors. Load takes any LoRA of
 * any ranks on the seven projections; what it cannot honour exactly (DoRA, bias, modules_to_save,
 * other targets ...) is refused by name. */
bool lora_load(Lora *l, Exec *ex, const Config *c, const char *folder, bool training, Err *err);
bool lora_save(Lora *l, const char *folder, const char *base_model, Err *err);

#endif
