/* fiber.h - stacks of our own and the switch between them. One OS thread only. */
#ifndef SIMT_FIBER_H
#define SIMT_FIBER_H

namespace simt {

struct Fiber;

Fiber *fiber_current(); /* the process's own stack is one too */

/* A fiber that will run entry() when first switched to. entry must not return, and fibers are
 * never destroyed: reuse them. */
Fiber *fiber_new(void (*entry)());

/* Makes a fiber that does not run begin again, as a new one to race.h. */
void fiber_renew(Fiber *f);

void fiber_switch(Fiber *to);

}  // namespace simt

#endif
