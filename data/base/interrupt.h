/* interrupt.h - stopping on a signal without leaving anything half written.
 *
 * Ctrl-C, SIGTERM, a terminal that closes (SIGHUP), and a reader of stdout that went away (SIGPIPE)
 * stop the program. The first signal only sets a flag. Loops ask interrupted() between two pieces
 * of work and return its error, so that temporaries are removed by the code that made them. A
 * second signal ends the process at once (outputs are renamed into place, so even then none is
 * torn). */
#ifndef SAILS_INTERRUPT_H
#define SAILS_INTERRUPT_H

#include "data/base/err.h"

/* SIGUSR1 stops nothing from here on: it asks for a stop at the next place where the state can be
 * saved. It may come before there is one, while a model is read. */
void interrupt_catch(void);

/* For work that can save its state: from now on SIGTERM only asks, too. A second one ends the
 * process at once, as ever. */
void interrupt_as_request(void);
int interrupt_requested(void); /* by which; 0: nobody has asked */

/* True when a signal came; then err is set. */
bool interrupted(Err *err);
bool interrupt_came(void); /* the same question without an err */

/* True when the reader of stdout went away: a pipe into `head` needs no line of error. */
bool interrupt_unread(void);

/* After the error line: if a signal came, dies by it, so that shells and schedulers see it. */
void interrupt_end(void);

#endif
