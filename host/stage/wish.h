/* wish.h - what a rank wants between two pieces of long work, and what all of them then do. */
#ifndef SAILS_WISH_H
#define SAILS_WISH_H

#include "data/base/err.h"
#include "kernels/comm.h"

typedef struct Wish {
    int signal; /* that asks for a stop; 0: none */
    bool save;  /* it is time to save what is done */
} Wish;

void wish_join(Wish *all, const Wish *one);
Wish wish_share(Comm *c, Wish own); /* all ranks' */

/* EXIT_STOPPED: "stopped by SIGTERM AFTER; AGAIN goes on". Returns false. */
bool wish_stop(const Wish *w, const char *after, const char *again, Err *err);

/* The same where ranks work without meeting each other: one that is asked to stop ends alone .. */
bool wish_stop_alone(const Wish *w, const char *after, const char *again, Err *err);

/* .. and the others after it: comm_beat brings them the news (watchdog.c). What that rank has said;
 * NULL: none has ended so. */
const char *wish_stopped(void);
void wish_hear_of_stop(int rank, const char *why); /* why "": another machine's, not told */

#endif
