/* method.h - what the methods of training, and the starts of their adapters, have each for
 * themselves: settings that say nothing to the others, and a rate where none is given. */
#ifndef SAILS_METHOD_H
#define SAILS_METHOD_H

#include "host/cli/args.h"

/* What is trained: by train.method's choices, and how its adapter starts, where it has one. */
typedef struct TrainedRow {
    enum TrainMethod how;
    enum StartKind start;
} TrainedRow;

/* Settings that none of the n rows would honour are refused by name
 * (EXIT_USAGE) where a flag gave them: who writes one for this run means something by it. Keys of a
 * recipe, which is for all commands and all rows, stand. n 0, nothing is trained: true.
 *
 * It asks train.init-adapter, too, and what the starts' subspaces are made from. */
bool method_flags(const Args *a, const TrainedRow *row, int n, Err *err);

/* The peak learning rate: train.lr where a flag or a recipe gives it, else by train.method
 *
 *   lora  2e-4  the setting's default
 *   full  2e-5  as TRL's for supervised tuning: a weight is no sum of two factors of which one
 *               starts at zero, so a step of the same size changes the model far more
 *   dpo   1e-5  TRL's default is 1e-6 for all weights, and ten times that what it advises for
 *               adapters, which are what is trained here: the loss has its optimum at log-ratios of
 *               a few 1/beta, which larger steps pass, and both replies' probabilities fall */
double method_rate(const Args *a);

#endif
