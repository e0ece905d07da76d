/* interrupt.c - signals as two flags: one that ends the program, one that asks it to stop. */
#include "data/base/interrupt.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t caught, asked;

static void on_signal(int number) {
    caught = number;
}
static void on_request(int number) {
    asked = number;
}

static void handle(int number, int flags, void handler(int number)) {
    struct sigaction a, before;
    memset(&a, 0, sizeof a);
    a.sa_handler = handler;
    a.sa_flags = SA_RESTART | flags;
    sigaction(number, NULL, &before);
    if (before.sa_handler != SIG_IGN) sigaction(number, &a, NULL); /* nohup, or a job with & */
}

void interrupt_catch(void) {
    handle(SIGTERM, SA_RESETHAND, on_signal); /* the second one finds the default action */
    handle(SIGINT, SA_RESETHAND, on_signal);
    handle(SIGHUP, SA_RESETHAND, on_signal);
    handle(SIGPIPE, 0, on_signal);  /* every further line that nobody reads brings another */
    handle(SIGUSR1, 0, on_request); /* schedulers may send it more than once */
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is an error of the write that went beyond */
}

void interrupt_as_request(void) {
    handle(SIGTERM, SA_RESETHAND, on_request);
}

int interrupt_requested(void) {
    return asked;
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
