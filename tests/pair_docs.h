/* pair_docs.h - two pairs of made up replies to the beginnings of two golden documents, of
 * different lengths, and what each has by itself. */
#ifndef SAILS_TEST_PAIR_DOCS_H
#define SAILS_TEST_PAIR_DOCS_H

#include "model/pair_loss.h"
#include "tests/golden.h"

enum { PAIRS = 2, DOCS = 2 * PAIRS, PROMPT = 7, LEN = 16 };

typedef struct PairDocs {
    int n[DOCS];
    int32_t token[DOCS][LEN];
    uint8_t label[LEN];
    double logp[DOCS], reference[DOCS]; /* of the reply; the test measures them */
} PairDocs;

static inline void pair_docs_make(PairDocs *p, const Golden *g) {
    for (int i = PROMPT; i < LEN; i++) p->label[i] = 1;
    for (int d = 0; d < DOCS; d++) {
        p->n[d] = LEN - 2 * d;
        for (int i = 0; i < LEN; i++)
            p->token[d][i] =
                i < PROMPT ? g->token[3][i + d / 2] : (g->token[3][i] + 5 + 11 * d) % g->m.c.V;
    }
}

/* Both replies behind the prompt that they share. */
static inline void pair_docs_add(const PairDocs *r, Pack *p, int pair) {
    int prefix = p->nseg;
    pack_add(p, r->token[2 * pair], NULL, PROMPT, 2 * pair);
    for (int d = 2 * pair; d < 2 * pair + 2; d++)
        pack_add_branch(p, prefix, PROMPT, r->token[d] + PROMPT, r->label + PROMPT,
                        r->n[d] - PROMPT, d);
}

static inline Pair pair_docs_pair(const PairDocs *r, int pair) {
    int c = 2 * pair;
    return (Pair){{r->logp[c], r->logp[c + 1]},
                  {r->reference[c], r->reference[c + 1]},
                  {r->n[c] - PROMPT, r->n[c + 1] - PROMPT}};
}

#endif
