/* bad_tensor.h - which tensor went bad, when a result is no longer finite. */
#ifndef SAILS_BAD_TENSOR_H
#define SAILS_BAD_TENSOR_H

#include "data/base/err.h"
#include "model/gemma2.h"

/* Sets err to EXIT_NUMBERS, naming the first tensor that holds a NaN or an infinity: weights of the
 * model; adapters; activations of the last pass over a, in the order of the equations; gradients,
 * in that of backward. `where` starts the message. Returns false. The pass is run again for that
 * (model_again), since layers share buffers and backward writes over what forward left. */
bool bad_tensor_find(const Model *m, Acts *a, const char *where, Err *err);

/* The same where all ranks have seen it, and all search: of tensors that they share out all parts,
 * and every rank's activations. One rank alone does not search there. */
bool bad_tensor_find_together(const Model *m, Acts *a, const char *where, Err *err);

#endif
