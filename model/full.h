/* full.h - all weights of a model as what is trained: the projections, the norms, and the
 * embedding, which is also the head and gets the gradients of both.
 *
 * They are Params (params.h) with split masters: products read the copies, which are the model's
 * weights. One for each tensor of the checkpoint, in the order of tensors.h and under its name. A
 * layer is a section, and so is what of the embedding is about as large.
 *
 * Several ranks share masters, moments and sums of gradients out (params.h), and all have all
 * weights. */
#ifndef SAILS_FULL_H
#define SAILS_FULL_H

#include "model/params.h"
#include "model/tensors.h"

typedef struct LayerGradients { /* f32 */
    float *norm[NORM_COUNT];    /* (D) */
    float *proj[PROJ_COUNT];    /* (out,in) */
} LayerGradients;

typedef struct Full {
    Params params;
    float *embed, *final_norm; /* gradients: (V,D), (D) */
    LayerGradients *layer;     /* (L) */
} Full;

/* The tensors without memory, for a plan; ranks: that share them out, of which one of those that
 * have the most is meant. */
void full_declare(Full *f, Exec *ex, const Config *c, int ranks);

/* The same with memory, zero, all trained; weight decay lets norms be, as transformers has it. */
void full_alloc(Full *f, Exec *ex, const Config *c);
void full_free(Full *f); /* accepts a zeroed Full */

#endif
