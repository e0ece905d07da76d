/* examples.h - what a batch is made of, and how it lies in a pack: documents, or pairs of them.
 *
 * A pair takes three segments: the tokens that both documents begin with, once, and behind them
 * what each goes on with (doc_pair). */
#ifndef SAILS_EXAMPLES_H
#define SAILS_EXAMPLES_H

#include "data/base/pack.h"
#include "data/chat.h"

/* What a pack holds, or the largest of some packs. */
typedef struct PackSize {
    int rows, segs, labels;
} PackSize;

/* Borrowed. Example i is document index[i]; or pair index[i], whose documents are 2 index[i], the
 * chosen one, and 2 index[i] + 1. */
typedef struct Examples {
    const Doc *doc;
    const int *shared;   /* of each pair: first tokens that both have. NULL: documents */
    const size_t *index; /* (n); NULL: the first n */
    size_t n;
} Examples;

int examples_docs(const Examples *e);              /* of each: 1 or 2 */
size_t example_first(const Examples *e, size_t i); /* the number of its first document */

PackSize example_size(const Examples *e, size_t i);
int example_tokens(const Examples *e, size_t i); /* of its documents; rows are fewer for a pair */

/* Appends it to a pack; label_doc has the documents' numbers. */
void example_add(Pack *p, const Examples *e, size_t i);

PackSize pack_size_sum(PackSize a, PackSize b);
PackSize pack_size_most(PackSize a, PackSize b); /* of each number the larger */

#endif
