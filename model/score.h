/* score.h - which SAE features tell two corpora apart: sums, their file, and the ranking.
 *
 * Corpus 0 is the aligned one (chosen replies), corpus 1 the unaligned (rejected). For every
 * feature s of a scored layer the pass keeps, over the tokens that count, with document i of
 * weight w_i per token (pool token: 1; pool document: 1 / its counted tokens):
 *
 *   sum[c][g][s] = sum w a     by group g of documents; both replies of a pair are in one group
 *   sumsq[c][s] = sum w a^2,   fires[c][s] = number of tokens with a > 0,   max[c][s]
 *
 * Everything else follows from these without a second pass, and they add: the statistics of two
 * parts of a data set, merged, are those of the whole (in double, up to the rounding of its sums).
 * Memory: 17 MB for a layer of 16k features. */
#ifndef SAILS_SCORE_H
#define SAILS_SCORE_H

#include "data/base/err.h"
#include "kernels/choices.h"
#include "kernels/comm.h"
#include "kernels/ops.h"

enum { SCORE_GROUPS = 64 };
#define SCORE_POOLS(X) X(POOL_TOKEN, "token") X(POOL_DOCUMENT, "document")
enum ScorePool { SCORE_POOLS(CHOICE_ENUM) };

typedef struct ScoreLayer {
    int layer, S;
    char *sae, *sha256, *id; /* the SAE's path, hash of its weights, Neuronpedia id or "" */
    double *sum;             /* (2,SCORE_GROUPS,S) */
    double *sumsq;           /* (2,S) */
    int64_t *fires;          /* (2,S) */
    float *max;              /* (2,S) */
} ScoreLayer;

typedef struct Scores {
    ScoreLayer *layer; /* (n), rising */
    int n;
    enum ScorePool pool;
    enum SaeProducts products;
    char *counted, *model, *data; /* for people: which tokens counted, of which model and data */
    int64_t tokens[2][SCORE_GROUPS], documents[2][SCORE_GROUPS]; /* that counted */
} Scores;

/* Zeroed statistics; layers' numbers and widths are given, texts start empty. */
void scores_init(Scores *s, int n, const int *layer, const int *width);
void scores_copy_shape(Scores *s, const Scores *of); /* zeroed, with the layers and texts of `of` */
size_t score_layer_bytes(int S); /* of host memory for the statistics of S features */
size_t scores_part_bytes(int S); /* of the largest part that scores_collect copies from a rank */
void scores_free(Scores *s);     /* accepts a zeroed Scores */

/* Replaces one of the texts above (text NULL: ""). */
void scores_text(char **field, const char *text);

/* safetensors: layer.N.sum, .sumsq, .fires, .max, tokens, documents; the texts as metadata. What
 * cannot be is refused: counts below 0, numbers that are not finite, layers out of order. */
bool scores_save(const Scores *s, const char *path, Err *err);
bool scores_load(Scores *s, const char *path, Err *err);

/* a += b. Both must have the same layers, SAEs (by hash), products, counted tokens and pooling. */
bool scores_merge(Scores *a, const Scores *b, Err *err);

/* sum += own of each rank below `givers`, in their order: on rank 0, where sum has own's layers.
 * All ranks of c. */
void scores_collect(Scores *sum, Comm *c, Scores *own, int givers);

/* Refused: a corpus without a counted token, and sums that are not finite. */
bool scores_check(const Scores *s, Err *err);

/* The group of a document or of a pair, from its tokens alone; n1 = 0: no second document. */
int score_group(const int32_t *token0, int n0, const int32_t *token1, int n1);

/* How features are ranked. Only features that fired at all can be chosen; ties go to the lower
 * index.
 *   DELTA     |mean0 - mean1|
 *   SIGNED    mean0 - mean1, largest first
 *   RELATIVE  SIGNED / the layer's largest mean1
 *   T         |t|
 *   RANDOM    drawn uniformly for each feature, from (seed, layer): a control */
#define SCORE_KINDS(X)        \
    X(SCORE_DELTA, "delta")   \
    X(SCORE_SIGNED, "signed") \
    X(SCORE_RELATIVE, "relative") X(SCORE_T, "t") X(SCORE_RANDOM, "random")
enum ScoreKind { SCORE_KINDS(CHOICE_ENUM) };

/* With mean_c = sum_g sum[c][g] / sum_g W[c][g], W the tokens or documents of a group, the
 * standard error of mean0 - mean1 is that of a difference of two ratios over n groups:
 *   u_g = n (sum0g - mean0 W0g) / W0 - n (sum1g - mean1 W1g) / W1,   se^2 = sum u_g^2 / (n (n-1))
 * With equal W this is the paired t test over groups. Groups that hold neither corpus do not
 * count. n < 2: se is infinite and t is 0.
 *
 * Where groups agree but for rounding, that rounding is the least standard error there can be:
 *   se >= 2 e (mean0 + mean1) sqrt(n / (n - 1)),   e = 2^-23 + N 2^-53
 * A term w a is a product of two f32 numbers, each known to 2^-24; N, the tokens counted in both
 * corpora, are at most the terms of a sum in double. So to first order u_g is wrong by at most
 * e n ((sum0g + mean0 W0g) / W0 + (sum1g + mean1 W1g) / W1), over all groups 2 e n (mean0 +
 * mean1), and sqrt(sum u_g^2) <= sum |u_g|. Without it such a t would be noise divided by noise. */
typedef struct FeatureStat {
    int32_t feature;
    double score; /* of the chosen kind */
    double mean[2], max[2];
    double rate[2];     /* share of tokens on which it fires */
    double diff, se, t; /* mean0 - mean1 */
    double low, high;   /* 95 % interval of diff */
    double stability;   /* share of resamples of the groups in which it is among the top k */
} FeatureStat;

/* The k best features of scored layer number i (0..n-1), best first, chosen by `ex`; returns how
 * many there are. Sums that overflow to no number cannot be chosen. `resamples` bootstrap draws of
 * the groups, from (seed, layer); 0: stability is 1. */
int score_top(Exec *ex, FeatureStat *top, const Scores *s, int i, enum ScoreKind kind, int k,
              uint64_t seed, int resamples);

#endif
