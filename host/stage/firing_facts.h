/* firing_facts.h - what the firings of one feature say about it. Of the scored corpora alone, where
 * nothing else is said; tokens that count alone. */
#ifndef SAILS_FIRING_FACTS_H
#define SAILS_FIRING_FACTS_H

#include "data/base/statistics.h"
#include "host/stage/firings.h"

enum { FIRING_BINS = 20, FIRING_STRATA = 5 };

typedef struct FiringFacts {
    double mean[LOOKED_COUNT], rate[LOOKED_COUNT],
        max[LOOKED_COUNT]; /* of each corpus; NAN: none */
    double density;        /* share of tokens */
    int64_t fires;
    double edge[FIRING_BINS + 1]; /* equal bins from 0 to the largest */
    int64_t count[FIRING_BINS];   /* of activations above 0 */
    double token_share;           /* the largest share of the sum of activations on one token id */
    int32_t token;                /* the id below; -1: none */
    double pmi;
    int64_t token_fires, token_of;
} FiringFacts;

/* `token` is the id with the largest pointwise mutual information with firing, in bits,
 *   log2 (fires on it / tokens of it) / (fires / tokens),
 * of those that have a fiftieth of the firings and two of them at least: a rarer one would win by
 * chance. Equal ones: that with more firings, then the lower id. */
void firing_facts(FiringFacts *f, const Firings *all, int column);

/* How far documents' largest activations tell harmful prompts, of one category or of all (NULL),
 * from the harmless ones: the area under the ROC curve. *harmful =: how many they are. */
Interval firing_auc(size_t *harmful, const Firings *all, int column, const char *category);

/* A feature that is one token: it has more than this share of the activations. */
#define TOKEN_DETECTOR 0.8

/* A token in a document on which a feature fires. */
typedef struct FiringPlace {
    const LookedDoc *doc;
    int t;
    float a;
} FiringPlace;

/* Up to `most` places, by falling activation, then in the order of the documents. Left out is one
 * whose window of `window` tokens either side is the same, or touches the place itself, as one that
 * is there already. benign: of harmless prompts, else of the scored corpora. Returns how many. */
int firing_top(FiringPlace *to, const Firings *all, int column, bool benign, int most, int window);

/* Up to `each` places from each of FIRING_STRATA equal parts of the activations above 0, the lowest
 * part first, in the middles of `each` equal parts of it; windows that are the same are left out.
 * stratum[i]: of place i. Returns how many. */
int firing_quantiles(FiringPlace *to, int *stratum, const Firings *all, int column, int each,
                     int window);

#endif
