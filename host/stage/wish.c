/* wish.c - wishes of several ranks as one. */
#include "host/stage/wish.h"

#include <stdio.h>
#include <string.h>

#include "data/base/mem.h"
#include "host/stage/agree.h"

void wish_join(Wish *all, const Wish *one) {
    if (!all->signal) all->signal = one->signal;
    all->save = all->save || one->save;
}

Wish wish_share(Comm *c, Wish own) {
    Wish *each = mem_array((size_t)comm_size(c), sizeof *each), all = {0};
    each[comm_rank(c)] = own;
    comm_share(c, "wishes", each, sizeof *each);
    for (int r = 0; r < comm_size(c); r++) wish_join(&all, &each[r]);
    free(each);
    return all;
}

bool wish_stop_alone(const Wish *w, const char *after, const char *again, Err *err) {
    return err_set(err, EXIT_STOPPED, "stopped by SIG%s %s; %s goes on", sigabbrev_np(w->signal),
                   after, again);
}

bool wish_stop(const Wish *w, const char *after, const char *again, Err *err) {
    agree_to_fail();
    return wish_stop_alone(w, after, again, err);
}

static char stopped[sizeof((Err *)0)->text];

const char *wish_stopped(void) {
    return *stopped ? stopped : NULL;
}

void wish_hear_of_stop(int rank, const char *why) {
    if (*why)
        snprintf(stopped, sizeof stopped, "%s", why);
    else
        snprintf(stopped, sizeof stopped, "rank %d was stopped by a signal, and the others with it",
                 rank);
}
