/* numbers.h - which tensor went bad, when a result is no longer finite. */
#ifndef SAILS_NUMBERS_H
#define SAILS_NUMBERS_H

#include "host/base/err.h"
#include "model/gemma2.h"

/* Sets err to EXIT_NUMBERS, naming the first tensor that holds a NaN or an infinity: weights of
 * the model, adapters, gradients, in this order; `where` starts the message. Returns false. */
bool numbers_went_bad(const Model *m, const char *where, Err *err);

#endif
