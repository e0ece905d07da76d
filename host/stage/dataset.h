/* dataset.h - a data file as token documents, held in memory. */
#ifndef SAILS_DATASET_H
#define SAILS_DATASET_H

#include <stdio.h>

#include "data/chat.h"
#include "host/cli/settings.h"
#include "host/stage/examples.h"

typedef struct Dataset {
    Records records;
    Doc *doc;    /* one per record, in order; of preference pairs two */
    int *shared; /* (n / 2) of preference pairs (preference.h); NULL: documents by themselves */
    size_t n;
    size_t truncated;  /* documents cut at max_length */
    size_t unlabelled; /* documents without a training target */
    size_t dropped;    /* such documents, or pairs, when they were left out of all of the above */
    size_t alike;      /* pairs of two equal documents */
    size_t tokens, labels, longest; /* tokens in all, targets in all, of the longest document */
} Dataset;

/* What training sees: pairs give their `side`, chats and prompts the template, texts BOS + text.
 * Messages name file and record's line. An empty data set is refused. */
bool dataset_load(Dataset *d, Tokenizer *t, const char *path, enum Side side, int max_length,
                  size_t limit, Err *err);

/* What training's batches are drawn from: the same without the documents that have no target, be it
 * that max_length cut the reply off, that there is none, or that the labels are all 0. They would
 * make steps that teach nothing, move the weights by old momentum and use the schedule up. When
 * none is left the message says why. */
bool dataset_load_training(Dataset *d, Tokenizer *t, const char *path, enum Side side,
                           int max_length, size_t limit, Err *err);
void dataset_free(Dataset *d); /* accepts a zeroed struct */

/* Takes a document into the counts. */
void dataset_count(Dataset *d, const Doc *doc);

Examples dataset_examples(const Dataset *d); /* all of them; borrowed */

/* A line each, behind `indent`, for what was cut, left out or ignored. */
void dataset_print_notes(FILE *f, const char *indent, const Dataset *d);

/* Marks floor(n share) of n things, but one at least when share > 0 and n > 1: those of the least
 * keys. Of equal keys all are marked or none. */
void split_mark(bool *marked, const uint64_t *key, size_t n, double share);

/* Which of n records are kept out of training: floor(n share), but one at least when share > 0 and
 * n > 1, drawn by the seed. Both lists rise. */
typedef struct Split {
    size_t *train, *held;
    size_t ntrain, nheld;
} Split;
void split_make(Split *s, size_t n, double share, uint64_t seed);
void split_free(Split *s); /* accepts a zeroed struct */

#endif
