/* watchdog.h - sees to it that no rank of a job waits for ever, and says whose fault it was.
 *
 * A thread of its own, which calls neither MPI nor a device, looks at the board (board.h) fifty
 * times a second. It gives a verdict, one line for the whole job, when
 *   - a rank has made another call than its machine's first one: mismatched
 *   - a rank's process is gone: killed, crashed, or ended by itself
 *   - a call has waited longer than its phase allows for a rank that shows no life: stopped by a
 *     signal, or late; or all ranks have come to it, and nothing moves
 * Then all end through the transport with EXIT_RANK, once every rank's calls are written to a
 * file, or the disk has not taken them in two seconds; a rank that has failed by itself meanwhile
 * is heard first: its code and line are the cause. Where the program's own thread does not come
 * back to do so, the process is ended here. A verdict that somebody has begun and does not finish
 * is given by the others. */
#ifndef SAILS_WATCHDOG_H
#define SAILS_WATCHDOG_H

#include "data/base/err.h"
#include "kernels/comm.h"

typedef struct Watchdog Watchdog;

/* All ranks. */
bool watchdog_open(Watchdog **w, Comm *c, Err *err);

/* When all is done, before comm_close: from here on a process that ends is no fault. */
void watchdog_done(Watchdog *w);
void watchdog_close(Watchdog *w); /* after comm_close; NULL is allowed */

/* This rank cannot go on. Waits a second for the others to say so as well, or longer where all have
 * `agreed` to end. `speaks`: it is the
 * first of those that did, so the line is its to print. True: all ranks have failed with this code
 * and may meet to end; else one of them must abort. */
bool watchdog_failed(Watchdog *w, const Err *err, bool agreed, bool *speaks);

#endif
