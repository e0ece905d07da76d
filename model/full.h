/* full.h - all weights of a model as what is trained: the projections, the norms, and the
 * embedding, which is also the head and gets the gradients of both.
 *
 * They are Params (params.h) with split masters: products read the copies, which are the model's
 * weights. One for each tensor of the checkpoint, in the order of tensors.h and under its name. A
 * layer is a section, and so is what of the embedding is about as large.
 *
 * Several ranks share all of it out (params.h). Of the weights, and of the gradient of a pack, a
 * rank then has two layers at a time and the embedding: passes say which they need, on all ranks
 * alike, and backward says when it is through with a section. */
#ifndef SAILS_FULL_H
#define SAILS_FULL_H

#include "model/params.h"
#include "model/tensors.h"

typedef struct LayerGradients { /* f32 */
    float *norm[NORM_COUNT];    /* (D) */
    float *proj[PROJ_COUNT];    /* (out,in) */
} LayerGradients;

typedef void full_through(void *context, int section);

typedef struct Full {
    Params params;
    float *embed, *final_norm; /* gradients: (V,D), (D) */
    LayerGradients *layer;     /* (L) */
    int first_layer, layers;   /* sections: of layer 0, and how many there are of layers */
    full_through *through;     /* who is told, of shared ones; NULL: nobody */
    void *context;
} Full;

/* The tensors without memory, for a plan; ranks: that share them out, of which one of those that
 * have the most is meant. */
void full_declare(Full *f, Exec *ex, const Config *c, int ranks);

/* The same with memory, zero, all trained; weight decay lets norms be, as transformers has it. For
 * one of so many ranks; 0: nothing is shared out. */
void full_alloc(Full *f, Exec *ex, const Config *c, int ranks, int rank);

/* From now on tell this one, once for each section of a backward pass and from the last to the
 * first, when all of the pack's gradient is in ParamSection.grad. NULL: nobody. */
void full_tell(Full *f, full_through *through, void *context);

/* For passes: this layer's weights soon, if there is such a layer; and now. */
void full_ahead(Full *f, int layer);
void full_need(Full *f, int layer);

/* For backward. The gradient of a layer begins, at zero where it is shared out; a layer, the
 * embedding (-1) or the final norm (L) has all of it. */
void full_begin(const Full *f, int layer);
void full_end(const Full *f, int layer);

void full_free(Full *f); /* accepts a zeroed Full */

#endif
