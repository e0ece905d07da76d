/* subspace.h - features to an orthonormal basis per layer (method: PCA of decoder rows, then QR).
 * Host arithmetic in double; factorisations through the ops. */
#ifndef SAILS_SUBSPACE_H
#define SAILS_SUBSPACE_H

#include <string.h>

#include "data/base/err.h"
#include "kernels/choices.h"
#include "kernels/ops.h"

typedef struct Basis {
    const char *of;   /* NULL: the stream; what a group of projections reads: its group_name; or
                         what one writes: an output_name (salora.h) */
    int layer, D, R;  /* R columns kept */
    int m;            /* columns that the variance threshold asked for; when m < R, columns m to
                         R-1 are random fill. 0: all of them */
    double *U;        /* (D,R) row major, orthonormal columns, largest entry of each positive */
    double *variance; /* (k, or m <= R of no features) share of variance explained by each principal
                         direction, falling; 0 where there are fewer directions than features */
    double *scale;    /* (R) by which an adapter has each column multiplied; NULL: none */
    int k;            /* 0: of no features, without coverage */
    int32_t *feature; /* (k) the SAE features behind it, best first */
    /* What the columns, fill and all, hold of the directions that they were made from: */
    double *coverage; /* (k) of each feature's unit direction d: ||U^T d||^2; NULL: not measured */
    double captured;  /* of the span of them all, with projector P: tr(P U U^T) / tr P; measured
                         with coverage */
} Basis;

typedef struct Subspace {
    Basis *basis;
    int n;      /* of the stream: a layer each, rising; else in order of layers and names */
    char *init; /* the name of the start that it is for; NULL: not known */
    char *made; /* from what and how, for people; NULL: "" */
    char *file; /* that it was read from, for messages; NULL: none */
} Subspace;

/* What the unit rows are multiplied by before the PCA. DELTA, a feature's |mean0 - mean1|: the
 * directions of features that hardly tell the corpora apart are the first to be left out. */
#define ROW_WEIGHTS(X) X(WEIGHT_NONE, "none") X(WEIGHT_DELTA, "delta")
enum RowWeight { ROW_WEIGHTS(CHOICE_ENUM) };

typedef struct SubspaceOptions {
    int rank;        /* columns; 0: m of them, layer by layer */
    double variance; /* tau in (0,1]: m is the least number of directions that explain so much */
    bool center;     /* subtract the mean row first */
    uint64_t seed;   /* of the fill */
    const double *weight; /* (k) of the rows, none below 0; NULL: all the same */
} SubspaceOptions;

/* From the decoder rows (k,D) of k features: unit rows, weights, SVD, threshold, QR, fill, signs.
 * Refused: a row of zeros, rows that do not vary, no weight above 0, a rank above D. On success b
 * is to be freed. */
bool basis_build(Basis *b, Exec *ex, int layer, const double *rows, const int32_t *feature, int k,
                 int D, const SubspaceOptions *o, Err *err);
void basis_free(Basis *b); /* accepts a zeroed Basis */

/* Between bases, whose factorisations take minutes at the width of a large model: shows the other
 * ranks that this one lives. False once a signal has asked for the end (interrupt.h). */
bool basis_next(Exec *ex, Err *err);

/* R <= D random columns, from (seed, layer): all fill. */
void basis_random(Basis *b, Exec *ex, int layer, int D, int R, uint64_t seed);

/* Of no features: the directions are the right singular vectors of A (k,D) by falling singular
 * values, as many as are above `rounding`, at most R; then random columns. `variance` has their
 * shares of the sum of all singular values. Refused: no singular value above `rounding`, in words
 * of `what` A holds. On success b is to be freed. */
bool basis_of_matrix(Basis *b, Exec *ex, int layer, const double *A, int k, int D, int R,
                     double rounding, uint64_t seed, const char *what, Err *err);

/* The same of the eigenvectors of a symmetric A (D,D) by falling eigenvalues: those above
 * `rounding` and what the factorisation itself rounds, shares of the sum of all above 0. Directions
 * with eigenvalues below 0 are none, however far below: a contrast of covariances is asked in what
 * the first corpus varies more. With rounding -INFINITY: R eigenvectors, whatever their signs. */
bool basis_of_symmetric(Basis *b, Exec *ex, int layer, const double *A, int D, int R,
                        double rounding, uint64_t seed, const char *what, Err *err);

/* The aligned landmarks' directions with the spectrum of the unaligned ones: columns as of
 * basis_of_matrix from aligned (k,D), their scale_i = sigma_i(unaligned) / sigma_i(aligned) clipped
 * to [0.1,10], then divided by their mean; 1 of random columns. What Subspace Override does to
 * features that are to be classified, put into an adapter: ours. Refused: landmarks of a corpus
 * that are all zero. */
bool basis_of_landmarks(Basis *b, Exec *ex, int layer, const double *aligned,
                        const double *unaligned, int k, int D, int R, uint64_t seed, Err *err);

/* Numbers of b->variance. */
static inline int basis_shares(const Basis *b) {
    return b->k > 0 ? b->k : b->m;
}

/* Bytes of workspace that the ops of basis_build take, of a basis of at most R columns, and those
 * of basis_of_matrix and, with k = D, of basis_of_symmetric; with k 0 those of basis_random. */
size_t basis_scratch(Exec *ex, int k, int D, int R);

/* What basis_of_matrix allocates beside A (k,D): memory of the host and of the device while it
 * works, and that of a basis of R columns. */
typedef struct BasisBytes {
    size_t host, device, basis;
} BasisBytes;
BasisBytes basis_bytes(int k, int D, int R);

/* The same of basis_of_symmetric, which has a copy of A (D,D). */
BasisBytes basis_symmetric_bytes(int D, int R);

/* Makes the columns of a (D,n) orthonormal by QR: the spans of the first 1, 2 .. n columns stay,
 * the largest entry of each becomes positive. The columns must be independent. */
void basis_orthonormalise(Exec *ex, double *a, int D, int n);

/* Principal angles between the column spans of A (D,m) and B (D,n), in radians, rising; min(m,n)
 * of them. Accurate near 0 (by sines) and near pi/2 (by cosines). m, n <= D; the columns of each
 * must be independent. */
void subspace_angles(Exec *ex, double *angle, const double *A, int m, const double *B, int n,
                     int D);

/* The layer whose basis is for `layer`: the nearest, ties down. Index into basis. */
int subspace_nearest(const Subspace *s, int layer);

void subspace_free(Subspace *s);          /* accepts a zeroed Subspace */
size_t subspace_bytes(const Subspace *s); /* of host memory */

/* What its bases are of: names of outputs, and no others, have a dot. */
enum BasisOf { BASIS_OF_STREAM, BASIS_OF_INPUTS, BASIS_OF_OUTPUTS };
static inline enum BasisOf subspace_of(const Subspace *s) {
    if (s->n == 0 || !s->basis[0].of) return BASIS_OF_STREAM;
    return strchr(s->basis[0].of, '.') ? BASIS_OF_OUTPUTS : BASIS_OF_INPUTS;
}

/* safetensors: layer.N.basis, .variance, .features, .coverage, .captured; .scale where there is
 * one. A random basis has the first alone, another of no features the first two; the last two of
 * the five are not in files of sails before they were measured. What the projections of group G
 * read has layer.N.G.basis and so on, what they write layer.N.q.kept.basis. Loading checks shapes,
 * that numbers are finite and columns orthonormal (to 1e-6). */
bool subspace_save(const Subspace *s, const char *path, Err *err);
bool subspace_load(Subspace *s, const char *path, Err *err);

#endif
