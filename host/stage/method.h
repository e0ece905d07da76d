/* method.h - what the methods of training, and the starts of their adapters, have each for
 * themselves: settings that say nothing to the others, and a rate where none is given. */
#ifndef SAILS_METHOD_H
#define SAILS_METHOD_H

#include "host/cli/args.h"

/* What is trained: by train.method's choices, which weights, and how an adapter starts. */
typedef struct TrainedRow {
    enum TrainMethod how;
    enum TrainedWeights weights;
    enum StartKind start; /* where all weights are trained it says nothing */
} TrainedRow;

/* That of one run, by settings. */
TrainedRow method_row(const Settings *s);

/* Settings that none of the n rows would honour are refused by name
 * (EXIT_USAGE) where a flag gave them: who writes one for this run means something by it. Keys of a
 * recipe, which is for all commands and all rows, stand. n 0, nothing is trained: true.
 *
 * It asks train.init-adapter, too, and what the starts' subspaces are made from. */
bool method_flags(const Args *a, const TrainedRow *row, int n, Err *err);

/* The same of SAEs where nothing is made of their features; for commands that have no other use for
 * them. `plan` and `bench` take one line of flags for several stages, and leave those of others. */
bool method_saes(const Args *a, const TrainedRow *row, int n, Err *err);

/* All weights are for the ranks of one node (EXIT_USAGE): what these share out must be gathered
 * again for every pass, which is not for a network. */
bool method_ranks(const Args *a, const TrainedRow *row, int n, Err *err);

/* The peak learning rate: train.lr where a flag or a recipe gives it, else by train.method
 *
 *   lora  2e-4  the setting's default
 *   full  2e-5  as TRL's for supervised tuning: a weight is no sum of two factors of which one
 *               starts at zero, so a step of the same size changes the model far more
 *   dpo   1e-6  of all weights, TRL's default: the loss has its optimum at log-ratios of a few
 *               1/beta, which larger steps pass, and both replies' probabilities fall
 *         1e-5  of adapters: ten times that, as TRL advises for them */
double method_rate(const Args *a);

#endif
