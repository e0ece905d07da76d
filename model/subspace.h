/* subspace.h - features to an orthonormal basis per layer (method: PCA of decoder rows, then QR).
 * Host arithmetic in double; factorisations through the ops. */
#ifndef SAILS_SUBSPACE_H
#define SAILS_SUBSPACE_H

#include "host/base/err.h"
#include "kernels/ops.h"

typedef struct Basis {
    int layer, D, R;  /* R columns kept */
    int m;            /* columns that the variance threshold asked for; the rest is random fill */
    double *U;        /* (D,R) row major, orthonormal columns, largest entry of each positive */
    double *variance; /* (k) share of variance explained by each principal direction */
    int k;
    int32_t *feature; /* (k) */
} Basis;

typedef struct Subspace {
    Basis *basis;
    int n; /* layers, rising */
} Subspace;

void subspace_free(Subspace *s);
bool subspace_save(const Subspace *s, const char *path, Err *err);
bool subspace_load(Subspace *s, const char *path, Err *err);

#endif
