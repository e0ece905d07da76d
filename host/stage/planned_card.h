/* planned_card.h - a GPU that is not here, for plans: the CPU's ops say what workspace they need,
 * and its memory is what somebody says. Nothing can run on it. */
#ifndef SAILS_PLANNED_CARD_H
#define SAILS_PLANNED_CARD_H

#include "data/base/err.h"
#include "kernels/exec.h"

/* With so many bytes of memory. One at a time. */
bool planned_card_open(Exec *ex, double bytes, enum Dtype dtype, Err *err);

#endif
