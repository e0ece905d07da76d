/* stream.h - what the documents of two corpora leave in the residual stream: first and second
 * moments at some layers, for starts that need no SAE; and their file.
 *
 * A document's vector v is the mean, over its tokens that count, of the stream that leaves a layer.
 * Corpus 0 is the aligned one (chosen replies), corpus 1 the unaligned (rejected). Of a pair both
 * documents are there or neither. Kept are, for each layer,
 *
 *   sum[c] = sum v,   square[c] = sum v v^T,   difference = sum over pairs of (v0 - v1) (v0 - v1)^T
 *
 * in double, the documents added in their order: the bits depend on neither ranks nor threads.
 * Memory: 308 MB for a layer of width 3584. Beside them stand some landmarks: the stream at single
 * tokens that count, of each corpus. */
#ifndef SAILS_STREAM_H
#define SAILS_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "data/base/err.h"

enum { STREAM_LANDMARKS = 64 }; /* of a corpus */

typedef struct StreamLayer {
    int layer;
    double *sum;        /* (2,D) */
    double *square;     /* (2,D,D); below the diagonal after stream_finish */
    double *difference; /* (D,D); likewise */
    double *landmark;   /* (2,STREAM_LANDMARKS,D); zeros where there is none */
} StreamLayer;

typedef struct StreamMoments {
    StreamLayer *layer; /* (n), rising */
    int n, D;
    int64_t documents[2], pairs;
    char *counted, *model, *data; /* for people: which tokens counted, of which model and data */
    char *file;                   /* that it was read from, for messages; NULL: none */
} StreamMoments;

void stream_init(StreamMoments *s, int D, const int *layer, int n); /* zeroed; texts start empty */
void stream_free(StreamMoments *s);               /* accepts a zeroed StreamMoments */
void stream_text(char **field, const char *text); /* replaces one of the texts above */
size_t stream_bytes(int D, int layers);           /* of host memory */

/* Adds items, each a pair or one document: bit c of has[i] says whether item i has one of corpus c.
 *   v (items,2,n,D): their vectors at the layers; zeros where there is none. Uses all threads. */
void stream_add(StreamMoments *s, const uint8_t *has, const double *v, int items);

/* After the last call of stream_add. Refused: less than two documents in a corpus, and sums that
 * are not finite. */
bool stream_finish(StreamMoments *s, Err *err);

/* Landmark number `at` of corpus c: v (n,D), at each layer. */
void stream_put_landmark(StreamMoments *s, int c, int at, const double *v);

/* safetensors: layer.N.sum, .square, .difference, .landmark; documents (0, 1, pairs); the texts as
 * metadata.
 * Refused are counts below 2 documents, pairs of other documents than there are, numbers that are
 * not finite. */
bool stream_save(const StreamMoments *s, const char *path, Err *err);
bool stream_load(StreamMoments *s, const char *path, Err *err);

/* ----------------------------------------------------------------------- what tells them apart */

/* Of layer number i (0..n-1), the aligned corpus minus the unaligned; with covariances Cov_c =
 * square_c / N_c - mean_c mean_c^T. Each returns by how much the rounding of its sums may have
 * moved the result, in the Euclidean norm: what is smaller may be nothing.
 *   mean        mean_0 - mean_1                 x (D)
 *   covariance  Cov_0 - Cov_1                   A (D,D)
 *   pairs       difference / pairs, uncentred   A (D,D); there must be pairs */
double stream_mean(double *x, const StreamMoments *s, int i);
double stream_covariance(double *A, const StreamMoments *s, int i);
double stream_pairs(double *A, const StreamMoments *s, int i);

/* The share of the documents' variance that the two of a pair have in common:
 *   1 - tr Cov(v0 - v1) / (tr Cov_0 + tr Cov_1) = 2 tr Cov(v0, v1) / (tr Cov_0 + tr Cov_1)
 * 1: pairs differ by one and the same vector; 0: by as much as any two documents; below 0: by more.
 * What is not the task's but common to a pair costs PCA of pairs nothing. NAN: there are no pairs,
 * or the documents do not vary. */
double stream_shared(const StreamMoments *s, int i);

#endif
