/* init.h - how adapters start: from the SAE subspace, or as plain LoRA. Both leave W as it is,
 * because one of the two factors is zero. */
#ifndef SAILS_INIT_H
#define SAILS_INIT_H

#include "model/gemma2.h"
#include "model/subspace.h"

/* NONE: the basis as it is. NORM: corrected for the RMSNorm between stream and projection: a
 * direction d that is read appears behind the pre-norm as d (1 + w_pre); to write d, the
 * projection must give d / (1 + w_post). The corrected columns are made orthonormal again, so that
 * only the span differs. */
enum InitGain { GAIN_NONE, GAIN_NORM };

typedef struct InitOptions {
    int rank;    /* 0 with a subspace: the rank of each layer's basis */
    float alpha; /* adapter output is scaled by alpha / rank */
    bool rslora; /* ... by alpha / sqrt(rank) */
    bool target[PROJ_COUNT];
    bool only_scored;  /* adapters only on layers that have a basis of their own */
    bool freeze_basis; /* train only the factor that starts at zero */
    enum InitGain gain;
    double basis_scale;
    uint64_t seed;
} InitOptions;

/* Ranks and alphas for lora_init; s NULL: plain LoRA. With a subspace the adapters that read layer
 * l (q, k, v, gate, up) take the basis nearest to l - 1, whose stream enters l, those that write
 * (o, down) the one nearest to l; ties go down. Refused: another width than the model's, layers the
 * model does not have, a rank that differs from the bases'. To be freed by lora_shape_free. */
bool init_shape(LoraShape *shape, const Config *c, const InitOptions *o, const Subspace *s,
                Err *err);

/* Fills adapters that lora_init made from the shape above, and says which factors are trained.
 *   reading:  A = scale U^T, B = 0      writing:  A = 0, B = scale U
 * Refused: with GAIN_NORM, a norm gain of zero. */
bool init_sails(Lora *l, const Model *m, const InitOptions *o, const Subspace *s, Err *err);

/* PEFT's default: A uniform in (-1/sqrt(in), 1/sqrt(in)), B = 0. */
void init_lora(Lora *l, uint64_t seed);

#endif
