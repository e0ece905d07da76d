/* agree.c - rank 0's outcome, handed to all. */
#include "host/stage/agree.h"

bool agree_root(Comm *c, bool ok, Err *err) {
    struct {
        bool ok;
        Err err;
    } word = {.ok = ok};
    if (!c) return ok;
    if (!ok) word.err = *err;
    comm_broadcast(c, "outcome of rank 0", &word, sizeof word);
    if (!word.ok) *err = word.err;
    return word.ok;
}
