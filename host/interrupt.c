#include "host/interrupt.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t caught;

static void on_signal(int number) {
    caught = number;
}

void interrupt_catch(void) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    a.sa_flags = SA_RESETHAND | SA_RESTART; /* the second one finds the default action */
    struct sigaction before;
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGINT, NULL, &before);
    if (before.sa_handler != SIG_IGN) sigaction(SIGINT, &a, NULL); /* nohup, or a job with & */
}

bool interrupt_came(void) {
    return caught != 0;
}

bool interrupted(Err *err) {
    if (!caught) return false;
    err_set(err, EXIT_INTERNAL, "interrupted by %s; finished outputs are kept, unfinished removed",
            caught == SIGINT ? "SIGINT" : "SIGTERM");
    return true;
}

void interrupt_end(void) {
    if (!caught) return;
    signal(caught, SIG_DFL);
    raise(caught);
}
