/* optim.h - one optimiser step over the trained tensors: gradient norm, clipping, AdamW.
 *
 *   norm = optim_norm(&o);                     all of the global batch's gradients are in
 *   optim_step(&o, norm, lr, max_norm);        masters, copies and moments move; gradients are zero
 *
 * Tensors that are not trained enter neither the norm nor the step. Weight decay lets those be that
 * their owner has marked (params.h). Where ranks share the tensors out, gradients are those of a
 * rank's own parts, and both calls are all ranks'. */
#ifndef SAILS_OPTIM_H
#define SAILS_OPTIM_H

#include "model/params.h"

/* Elements of the blocks that are updated alike, in one call. */
typedef struct OptimRange {
    Span span;
    size_t held; /* where they lie in a block of parts (params.h) */
    bool undecayed;
} OptimRange;

typedef struct Optim {
    Params *params;    /* borrowed; allocated with training */
    OptimRange *range; /* (nrange) all that is trained, of what this rank has */
    int nrange;
    Span *block;    /* (nblock) device: of the trained tensors that this rank has, in their order */
    double *square; /* (nblock) device: sums of squares */
    int nblock;
    int *place;   /* (nall) of all blocks, in their order: where in host its sum is */
    double *host; /* (ranks, most) the sums of all ranks */
    int nall, most;
    size_t own; /* elements of this rank's blocks */
    AdamW how;  /* lr and step are set at each step */
    int step;   /* updates done; a resumed run sets it */
} Optim;

/* After it is final which tensors are trained. `how` gives betas, eps and weight decay. */
void optim_init(Optim *o, Params *p, AdamW how);
void optim_free(Optim *o); /* accepts a zeroed Optim */

/* Device bytes that optim_init takes for the norm over trained tensors of these sizes, at most; of
 * shared ones, on the rank that they are declared for. */
size_t optim_bytes(const Params *p);

/* Takes off the gradients what lies along the directions that tensors leave alone (params.h); then
 * the Euclidean norm of all trained ones: each block's sum of squares, added in the order of
 * tensors and blocks, all in double. So the bits are the same wherever the blocks were summed, on
 * how many devices. NaN or infinite when a gradient is: then do not step. */
double optim_norm(Optim *o);

/* AdamW with gradients scaled by min(1, max_norm / (norm + 1e-6)), as torch's clip_grad_norm_
 * does; max_norm 0: no clipping. Ends with projected masters, params_sync and zeroed gradients. */
void optim_step(Optim *o, double norm, double lr, double max_norm);

#endif
