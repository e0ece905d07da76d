/* bad_tensor.h - which tensor went bad, when a result is no longer finite. */
#ifndef SAILS_BAD_TENSOR_H
#define SAILS_BAD_TENSOR_H

#include "data/base/err.h"
#include "model/gemma2.h"

/* Sets err to EXIT_NUMBERS, naming the first tensor that holds a NaN or an infinity: weights of
 * the model, adapters, gradients, in this order; `where` starts the message. Returns false. */
bool bad_tensor_find(const Model *m, const char *where, Err *err);

#endif
