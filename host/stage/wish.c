/* wish.c - wishes of several ranks as one. */
#include "host/stage/wish.h"

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

bool wish_stop(const Wish *w, const char *after, const char *again, Err *err) {
    agree_to_fail();
    return err_set(err, EXIT_STOPPED, "stopped by SIG%s %s; %s goes on", sigabbrev_np(w->signal),
                   after, again);
}
