/* interrupt.c - SIGINT and SIGTERM as a flag. */
#include "data/base/interrupt.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t caught;

static void on_signal(int number) {
    caught = number;
}

static void catch_one(int number, int flags) {
    struct sigaction a, before;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    a.sa_flags = SA_RESTART | flags;
    sigaction(number, NULL, &before);
    if (before.sa_handler != SIG_IGN) sigaction(number, &a, NULL); /* nohup, or a job with & */
}

void interrupt_catch(void) {
    catch_one(SIGTERM, SA_RESETHAND); /* the second one finds the default action */
    catch_one(SIGINT, SA_RESETHAND);
    catch_one(SIGHUP, SA_RESETHAND);
    catch_one(SIGPIPE, 0);    /* every further line that nobody reads brings another */
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is an error of the write that went beyond */
}

bool interrupt_came(void) {
    return caught != 0;
}

bool interrupted(Err *err) {
    if (!caught) return false;
    const char *name = caught == SIGINT    ? "SIGINT"
                       : caught == SIGTERM ? "SIGTERM"
                       : caught == SIGHUP  ? "SIGHUP"
                                           : "SIGPIPE";
    err_set(err, EXIT_INTERNAL, "interrupted by %s; finished outputs are kept, unfinished removed",
            name);
    return true;
}

bool interrupt_unread(void) {
    return caught == SIGPIPE;
}

void interrupt_end(void) {
    if (!caught) return;
    signal(caught, SIG_DFL);
    raise(caught);
}
