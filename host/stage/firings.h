/* firings.h - documents that are looked at closely: of the scored corpora, of harmful and of
 * harmless prompts; and where in them chosen features fire. */
#ifndef SAILS_FIRINGS_H
#define SAILS_FIRINGS_H

#include "host/stage/corpora.h"
#include "host/stage/prompts.h"
#include "model/firing_run.h"

#define LOOKED_CORPORA(X)            \
    X(LOOKED_ALIGNED, "aligned")     \
    X(LOOKED_UNALIGNED, "unaligned") \
    X(LOOKED_HARMFUL, "harmful")     \
    X(LOOKED_BENIGN, "benign")
enum LookedCorpus { LOOKED_CORPORA(CHOICE_ENUM) LOOKED_COUNT };
extern const char *const looked_name[LOOKED_COUNT];

/* Were its features scored on it? */
static inline bool looked_scored(enum LookedCorpus c) {
    return c == LOOKED_ALIGNED || c == LOOKED_UNALIGNED;
}

typedef struct LookedDoc {
    enum LookedCorpus corpus;
    size_t number;        /* among those of its corpus, from 0 */
    const char *category; /* of a prompt, borrowed from its record; else "" */
    int32_t *token;       /* (n) */
    uint8_t *counted;     /* (n) of a prompt: all but BOS and markers */
    int n, ncounted;
    size_t at; /* the row of its first token among those of all */
} LookedDoc;

typedef struct Looked {
    LookedDoc *doc; /* (n) corpus by corpus */
    size_t n, capacity, rows;
    int longest;
    size_t docs[LOOKED_COUNT], tokens[LOOKED_COUNT]; /* documents, tokens that count */
} Looked;

/* s->explain.documents of each corpus, at equal distances, all of a smaller one. c: the scored
 * ones, NULL: none; p: the files of prompts, harmful and benign, NULL: none. Markers are those of
 * r. All ranks call and have the same. */
bool looked_read(Looked *l, const Runtime *r, const Settings *s, const Corpora *c, const Prompts *p,
                 Err *err);
void looked_free(Looked *l); /* accepts a zeroed struct */

/* Number i of m that lie at equal distances among n >= m. */
static inline size_t looked_spread(size_t i, size_t m, size_t n) {
    return (size_t)((double)i * (double)n / (double)m);
}

/* Activations (rows,K) of the documents' tokens, K features of all layers side by side. */
typedef struct Firings {
    const Looked *docs; /* borrowed */
    int K;
    float *act; /* on rank 0, NULL on the others */
} Firings;

/* All ranks share the documents; the numbers do not depend on how many there are. */
bool firings_run(Firings *f, Runtime *r, const Looked *docs, const FiringLayer *layer, int n,
                 int pack_tokens, bool quiet, Err *err);
void firings_free(Firings *f); /* accepts a zeroed struct */

#endif
