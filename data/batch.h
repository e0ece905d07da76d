/* batch.h - documents to packs: order, global batches and packing, all functions of the seed. */
#ifndef SAILS_BATCH_H
#define SAILS_BATCH_H

#include "data/chat.h"
#include "data/base/pack.h"

/* The documents of global batch `step` (from 0): a permutation of all documents for each epoch,
 * drawn from (seed, epoch); the last batch of an epoch may be smaller. Fills doc[batch] and
 * returns how many. */
int batch_docs(int *doc, size_t ndocs, int batch, uint64_t seed, size_t step);
size_t batch_steps(size_t ndocs, int batch, double epochs);

/* Distributes documents over packs of at most pack_tokens rows: first fit by falling length, ties
 * by number. pack_of[i] is the pack of doc[i]; returns the number of packs. A document longer
 * than pack_tokens is refused by CHECK: truncate first. */
int batch_pack(int *pack_of, const int *length, int n, int pack_tokens);

#endif
