/* gemma2.h - Gemma-2, with LoRA or with all weights trained: weights, forward and backward over
 * packs. Knows only the ops.
 *
 *   model_open; lora_load or lora_alloc, m.lora = &lora; or model_open_trained; acts_create;
 *   per pack: model_loss, model_backward
 *
 * Every result is a function of the pack alone: documents in one pack do not influence each
 * other's rows, and equal inputs give equal bits for any number of threads.
 *
 * SAILS_DUMP=PATTERN in the environment, shell wildcards against "layer 12: gate", "head: logits",
 * "grad: layer 0: self_attn.q_proj.lora_A" ..., has the model's first pass leave these tensors in
 * a file: dump.h. */
#ifndef SAILS_GEMMA2_H
#define SAILS_GEMMA2_H

#include "data/base/arena.h"
#include "data/base/pack.h"
#include "data/base/safetensors.h"
#include "model/config.h"
#include "model/full.h"
#include "model/lora.h"
#include "model/objective.h"

typedef struct LayerWeights {      /* storage type, names of the checkpoint */
    const store *norm[NORM_COUNT]; /* (D) */
    const store *proj[PROJ_COUNT]; /* (out,in) */
} LayerWeights;

typedef struct Weight Weight; /* where a tensor came from; weights.c */
typedef struct Dump Dump;     /* what a pass leaves in a file; dump.h */

typedef struct Model {
    Config c;
    Exec *ex;
    const store *embed, *final_norm; /* (V,D), (D) */
    LayerWeights *layer;             /* (L) */
    float embed_scale;               /* sqrt(D) rounded to the storage type */
    float *cos, *sin;                /* (c.max_positions, E/2) */
    Lora *lora;                      /* borrowed; NULL: the base model */
    Full *full;                      /* borrowed: all weights, which are trained; NULL: frozen */
    float *const *weight_grad;       /* borrowed: (L,PROJ_COUNT) of frozen ones, what backward adds
                                      * gradients to (weight_grads.h); NULL: none */
    StSet *file;
    Weight *weight; /* (nweight) */
    int nweight;
    Arena arena; /* what is not mapped in place, and the rope table */
    Dump *dump;  /* NULL: the environment asks for none */
} Model;

/* Loads a Hugging Face folder (config.json, model.safetensors or its shards; F32, BF16 or F16).
 * Tensors of the storage type are used where they lie in the file, others are converted.
 * max_positions bounds the rope table and becomes c.max_positions (0: the config's). A model with
 * a tensor too many, too few or of another shape is refused by the tensor's name. On failure m is
 * zeroed. */
bool model_open(Model *m, Exec *ex, const char *folder, int max_positions, Err *err);
void model_close(Model *m); /* accepts a zeroed Model */

/* The same with weights that are trained: `full` is made for them, holds them, and is to be freed
 * after the model; zeroed on failure. There is no Lora then. */
bool model_open_trained(Model *m, Full *full, Exec *ex, const char *folder, int max_positions,
                        Err *err);

/* What model_open would refuse of a folder, by its files' headers alone: nothing is loaded. */
bool model_check(const char *folder, Err *err);

/* What is trained: all weights, or adapters; NULL: nothing is. */
Params *model_params(const Model *m);
/* SHA-256 of a sample of the checkpoint, as it lies in its files: of each tensor name, type and at
 * most 16 rows at equal distances, the first and the last among them; norms whole. Of 9B that is
 * 50 MB of 18 GB, 0.1 s where they are in memory. */
void model_sample(const Model *m, unsigned char digest[32]);

/* The weight that is this tensor of the checkpoint. */
const store *model_weight(const Model *m, const Tensor *t);

/* What a pass keeps. ACTS_INFER reuses one layer's buffers; ACTS_TRAIN keeps what backward needs;
 * ACTS_RECOMPUTE of each layer its input alone, from which backward makes the rest again, with the
 * same bits. */
enum ActsUse { ACTS_INFER, ACTS_TRAIN, ACTS_RECOMPUTE };
typedef struct Acts Acts;

/* Room for packs of up to the given sizes, with the adapters that m has now: m->lora may later be
 * exchanged for NULL or for one of ranks no larger. max_labels also bounds the rows that
 * model_logits handles at a time; 0 is allowed. */
Acts *acts_create(const Model *m, int max_rows, int max_segs, int max_labels, enum ActsUse use);
void acts_destroy(Acts *a); /* NULL is allowed */

/* From now on model_nll and model_loss also say this of each label, for another pass over the
 * logits; the arrays have room for max_labels. NULL: no more. */
void acts_tell_facts(Acts *a, const LogitFacts *to);

/* Bytes of device memory that acts_create would take on a device of type dtype; nothing is
 * allocated. lora NULL: none. */
size_t acts_bytes(const Config *c, const Lora *lora, enum Dtype dtype, int max_rows, int max_segs,
                  int max_labels, enum ActsUse use);

/* Label rows, of at most max_labels > 0, whose logits exist at a time. */
int acts_chunk(const Config *c, enum Dtype dtype, int max_labels, enum ActsUse use);

/* Called after each decoder layer with the residual stream that leaves it, (N,D) store, valid
 * during the call. */
typedef void model_tap(void *context, int layer, const store *x, int N);

/* Runs the first `layers` decoder layers over the pack (c.L: all, and the final norm). */
void model_forward(const Model *m, Acts *a, const Pack *pack, int layers, model_tap *tap,
                   void *context);

/* The same for callers who need few rows of the last of these layers: above its attention it is
 * computed for the rows row[0..n) (host, distinct) alone. Its tap and head_sample then
 * see n rows, in this order. */
void model_forward_rows(const Model *m, Acts *a, const Pack *pack, int layers, const int32_t *row,
                        int n, model_tap *tap, void *context);

/* Called before the projections of a group with what they read, x (N,in) store, valid during the
 * call. */
typedef void model_reads(void *context, int layer, enum Group g, const store *x, int N);

/* Runs all layers over the pack, every row of them, and shows what their projections read. */
void model_forward_reads(const Model *m, Acts *a, const Pack *pack, model_reads *reads,
                         void *context);

/* Called after each decoder layer of a pass with the stream that leaves it, which it may change:
 * x (N,D) store in/out, and what the next norm has divided by, rstd (N) f32 in. True: it has, and
 * the norm is taken again. */
typedef bool model_edit(void *context, int layer, store *x, const float *rstd, int N);

/* From now on passes over these activations, which are not for training, do so; NULL: no more. */
void acts_edit(Acts *a, model_edit *edit, void *context);

/* Forward, and the head on the pack's label rows only, in chunks: -log p of each label, nll
 * (nlabel) f32 to host memory, in the pack's order. */
void model_nll(const Model *m, Acts *a, const Pack *pack, float *nll);

/* The same, and the gradient of the objective's loss over this pack for model_backward. Returns the
 * loss. The gradients of all packs of a global batch, which share its denominator, add up to the
 * gradient of its loss. Not with ACTS_INFER. */
double model_loss(const Model *m, Acts *a, const Pack *pack, const Objective *o, float *nll);

/* Shown a tensor of a pass by name, as soon as it is whole and for the length of the call: its rows
 * from `first` on, t->rows of them, which begin at t->data. */
typedef void model_watch(void *context, const Placed *t, int first);

/* To find out what happened: runs the layers of the last pass over these activations again, which
 * gives the same bits, and shows their tensors in the order of the equations. It uses up what
 * backward needs. */
void model_again(const Model *m, Acts *a, model_watch *watch, void *context);

/* After that: shows the logits of the rows that the last layer went on with, which are the head's;
 * nothing when the pass did not get to the last one. */
void model_again_head(const Model *m, Acts *a, model_watch *watch, void *context);

/* Adds the gradients of all that is trained; model_loss has added the head's share of that of the
 * embedding. After model_loss of the same pack, once: it uses up what forward saved. */
void model_backward(const Model *m, Acts *a, const Pack *pack);

/* What a rank must call in place of a pass of all layers, and of its backward pass, while others
 * that share all weights out with it have one: it gathers their layers with them, and its own
 * gradients are zero. Else nothing. */
void model_idle_forward(const Model *m);
void model_idle_backward(const Model *m);

/* Capped logits (n,V) f32 of the given rows, to host memory. After model_forward of all layers. */
void model_logits(const Model *m, Acts *a, const int32_t *row, int n, float *logits);

#endif
