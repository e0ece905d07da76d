/* corpora.h - two corpora that are compared, document by document in a fixed order: chosen and
 * rejected replies of pairs, or two files, one after the other; and which of their tokens count. */
#ifndef SAILS_CORPORA_H
#define SAILS_CORPORA_H

#include "data/chat.h"
#include "host/stage/runtime.h"
#include "model/pair_pack.h"

/* The ids that structure a chat, -1 where the tokenizer has none. */
typedef struct Markers {
    int32_t bos, eos, pad, start, end, newline;
} Markers;
Markers markers_of(const Runtime *r); /* its tokenizer and its model are open */

/* counted (d->n) =: 1 for all but BOS, EOS, padding, and the headers and ends of turns. */
void markers_count(uint8_t *counted, const Doc *d, const Markers *m);

typedef struct Corpora {
    const Records *pair; /* borrowed; NULL: files */
    const size_t *index; /* borrowed: which pairs; NULL: the first n */
    Records file[2];
    size_t n; /* pairs, or documents of both files */
    const Settings *s;
    Tokenizer *tokenizer;
    Markers markers;
} Corpora;

/* Pairs records[index[i]], i < n (index NULL: the first n); or, when records is NULL, the files
 * s->score.aligned and .unaligned, which are read. r has its tokenizer and its model open.
 * All ranks call, and must have read the same (same_input.h). */
bool corpora_open(Corpora *c, const Runtime *r, const Settings *s, const Records *records,
                  const size_t *index, size_t n, Err *err);
void corpora_close(Corpora *c); /* accepts a zeroed struct */

/* Which items have a document of corpus c: from *first on; returns how many. */
size_t corpora_documents(const Corpora *c, int corpus, size_t *first);

/* Item i < n as token ids, with the tokens that count by s->score.tokens: BOS, EOS, padding and
 * turn markers never do. */
typedef struct CorporaItem {
    Doc doc[2];          /* n 0: none of this corpus */
    uint8_t *counted[2]; /* (doc.n) */
} CorporaItem;
bool corpora_item(CorporaItem *item, const Corpora *c, size_t i, Err *err);
PairItem corpora_pair(const CorporaItem *item); /* borrows */
void corpora_item_free(CorporaItem *item);      /* accepts a zeroed one */

#endif
