/* world.h - the generative model of the recovery experiment, and documents drawn from it.
 *
 * A document is a vector x = sum_j z_j d_j + sigma xi of width H. Its n features have unit
 * directions d_j; feature j fires with a probability p_j, then with the amplitude u = 0.5 +
 * Exp(mean 0.5), times `loudness` for the `loud` features that follow the task's. The task's are
 * the first r: in the unaligned corpus p = p0 for all, in the aligned one p = p0 + delta for the
 * task's. What is to be recovered is V, the span of their directions.
 *
 * A dictionary knows each direction up to an angle phi = arctan eps: w_j = unit(d_j + eps e_j).
 *
 * Everything is a function of (seed, draw, document): nested corpora share their documents, and any
 * number of threads gives the same bits. */
#ifndef SAILS_THEORY_WORLD_H
#define SAILS_THEORY_WORLD_H

#include <stdint.h>

#include "data/base/err.h"
#include "kernels/ops.h"

enum Corpus { UNALIGNED, ALIGNED };

typedef struct WorldShape {
    int H, n, r;      /* width; features, n > r; of the task, r <= H */
    double p0, delta; /* in (0,1), and so is their sum */
    double sigma;     /* >= 0, of the noise in each coordinate */
    double coherence; /* in [0,1): the cosine between any two of the task's directions. Above 0
                         these take r + 1 dimensions. */
    int loud;         /* <= n - r */
    double loudness;
    uint64_t seed;
    int draw; /* of all that is random: repeats have different ones */
} WorldShape;

/* False, in words of the command's flags, when a shape cannot be. */
bool world_check(const WorldShape *s, Err *err);

typedef struct World {
    WorldShape s;
    double *d; /* (n,H) unit rows; but for the task's, random */
    double *V; /* (H,r) an orthonormal basis of the task's span */
} World;

void world_build(World *w, Exec *ex, const WorldShape *s);
void world_free(World *w); /* accepts a zeroed World */

/* Where row j of a dictionary errs towards: a random direction, or another feature's, of which
 * the row is then a mixture. */
enum RowError { ERROR_RANDOM, ERROR_MIXED };
void world_row(double *row, const World *w, int j, double eps, enum RowError error); /* (H) */

/* Of feature j in a corpus: its probability; the variance of z_j, and its fourth cumulant. */
double world_rate(const WorldShape *s, enum Corpus c, int j);
double world_variance(const WorldShape *s, enum Corpus c, int j);
double world_cumulant(const WorldShape *s, enum Corpus c, int j);

/* ----------------------------------------------------------------------------------- samples -- */

/* Sums of the codes z over the first `documents` of both corpora, and of their noise: the
 * difference of the corpora's means of x needs no more. */
typedef struct Tally {
    double *code[2]; /* (n) */
    double *noise;   /* (H) of the aligned minus the unaligned ones, sigma included */
    int documents;   /* of each corpus */
} Tally;
void tally_init(Tally *t, const World *w);
/* The Gaussian noise of many documents is drawn as its sum, which is Gaussian, too. */
void tally_extend(Tally *t, const World *w, int documents);
void tally_free(Tally *t); /* accepts a zeroed Tally */

/* The vectors x (n,H) of n documents of a corpus from `first` on. Uses all threads. */
void sample_documents(double *x, const World *w, enum Corpus c, int first, int n);

/* Sums of y and y y^T over documents: of a corpus, or of the differences of pairs. */
typedef struct Moments {
    double *sum;    /* (H) */
    double *square; /* (H,H) */
    int documents;
} Moments;
enum Source { OF_UNALIGNED, OF_ALIGNED, OF_PAIRS };
void moments_init(Moments *m, const World *w);
/* shared: of pairs alone, the probability that a feature which is not the task's has one value in
 * both documents. Uses all threads. */
void moments_extend(Moments *m, const World *w, enum Source source, double shared, int documents);
void moments_free(Moments *m); /* accepts a zeroed Moments */

#endif
