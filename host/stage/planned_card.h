/* planned_card.h - a GPU that is not here, for plans: the CPU's ops say what workspace they need,
 * and its memory is what somebody says. Nothing can run on it. */
#ifndef SAILS_PLANNED_CARD_H
#define SAILS_PLANNED_CARD_H

#include "host/stage/runtime.h"

/* With so many bytes of memory. One at a time. */
bool planned_card_open(Exec *ex, double bytes, enum Dtype dtype, Err *err);

/* Is it one? */
bool planned_card(const Exec *ex);

/* The device that a plan is for: a card of --gpu-memory, or what would run it here, with the job's
 * other ranks (runtime_device). */
bool planned_device(Runtime *r, const Settings *s, Comm *comm, Err *err);

#endif
