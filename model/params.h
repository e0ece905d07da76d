/* params.h - what is trained: named tensors of f32 masters with, beside each, its gradient, Adam's
 * moments and the copy in the storage type that products read.
 *
 * Whoever owns tensors (lora.h) adds them; the optimiser, clipping, the hunt for bad numbers,
 * checkpoints and ranks see Params alone.
 *
 *   params_init(&p, ex, most);  params_add(...) for each;  params_allocate(&p, training);
 *
 * Each of the five kinds lies in one block, in the order of adding and with the same places, so
 * that what concerns all of a kind is one call. Between two tensors lies at most padding, always
 * zero. */
#ifndef SAILS_PARAMS_H
#define SAILS_PARAMS_H

#include "data/base/arena.h"
#include "kernels/ops.h"

typedef struct Param {
    char name[128];       /* as files and messages call it */
    size_t rows, cols, n; /* n = rows * cols */
    size_t at;            /* its first element's place in each block */
    bool trained;
    float *master, *grad, *m, *v; /* (rows,cols); the last three NULL without training */
    store *copy;                  /* (rows,cols) */
} Param;

typedef struct Params {
    Exec *ex;
    Param *param; /* (n), at fixed addresses from params_init on */
    int n, most;
    size_t size; /* elements of a block */
    float *master, *grad, *m, *v;
    store *copy;
    Arena weights, grads, moments;
} Params;

/* Room for at most so many tensors. */
void params_init(Params *p, Exec *ex, int most);
void params_free(Params *p); /* accepts zeroed Params */

/* ALIGNED: at a place that any op accepts. BEHIND: right behind the tensor before, so that the two
 * can be read as one. */
enum ParamPlace { PARAM_ALIGNED, PARAM_BEHIND };

/* Appends a tensor (rows,cols); it has memory after params_allocate. The name as for printf. */
__attribute__((format(printf, 5, 6))) Param *params_add(Params *p, enum ParamPlace place,
                                                        size_t rows, size_t cols, const char *name,
                                                        ...);

/* Memory for all, zeroed. With training every tensor is marked as trained, until the owner decides
 * otherwise, and has gradients and moments. */
void params_allocate(Params *p, bool training);

void params_sync(Params *p); /* copies from the masters */

size_t params_elements(const Params *p); /* of all tensors */
size_t params_trained(const Params *p);  /* of those that are trained */

#endif
