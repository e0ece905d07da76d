/* faulty_transport.c - a plug-in for tests (kernels/transport.h): the real one, which the variable
 * SAILS_TEST_TRANSPORT names, until something befalls one rank at one of its calls.
 *
 *   SAILS_TEST_FAULT=1:37:killed        rank 1, as it makes its 37th call (barrier or move)
 *   SAILS_TEST_FAULT=1:37:killed:after  .. once that call is done, before any other: it shows
 *                                     life for half a second more
 *   SAILS_TEST_CALLS=FILE               rank 0 writes there how many it has made, when it closes */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "kernels/transport.h"

static const Transport *real;
static int rank, calls;
static bool failed;

static struct {
    int rank, call;
    char cause[16], when[8]; /* when: "", "after" */
} fault;

/* What it lets the process have of a resource from now on; what it has it keeps. */
static void limit(int resource, rlim_t most) {
    struct rlimit l;
    getrlimit(resource, &l);
    l.rlim_cur = most;
    setrlimit(resource, &l);
}

static void befall(const char *cause) {
    if (strcmp(cause, "killed") == 0) raise(SIGKILL);
    if (strcmp(cause, "stopped") == 0) raise(SIGSTOP);
    if (strcmp(cause, "late") == 0) sleep(60);
    if (strcmp(cause, "slow") == 0) sleep(1);
    if (strcmp(cause, "exited") == 0) exit(0);
    if (strcmp(cause, "left") == 0) real->close(), exit(0);
    if (strcmp(cause, "memory") == 0) limit(RLIMIT_AS, 0);
    if (strcmp(cause, "files") == 0)
        for (limit(RLIMIT_NOFILE, 64); open("/dev/null", O_RDONLY) >= 0;) continue;
    failed = strcmp(cause, "failed") == 0;
}

static bool due(const char *when) {
    return fault.call > 0 && rank == fault.rank && calls == fault.call &&
           strcmp(when, fault.when) == 0;
}

static void count_call(void) {
    calls++;
    if (due("")) fault.call = 0, befall(fault.cause);
}

static const char *faulty_open(TransportSeat *seat) {
    const char *why = real->open(seat), *text = getenv("SAILS_TEST_FAULT");
    rank = seat->rank;
    if (text &&
        sscanf(text, "%d:%d:%15[^:]:%7s", &fault.rank, &fault.call, fault.cause, fault.when) < 3)
        return "SAILS_TEST_FAULT is not RANK:CALL:CAUSE";
    return why;
}

static void faulty_barrier(void) {
    count_call();
    real->barrier();
}

static void faulty_move(const Move *move, int n) {
    count_call();
    real->move(move, n);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static enum TransportState faulty_poll(void) {
    static const double ALIVE = 0.5; /* others are waiting by then */
    static double done;
    enum TransportState state = real->poll();
    if (state == TRANSPORT_DONE && due("after")) {
        if (done == 0) done = seconds();
        if (seconds() - done < ALIVE) return TRANSPORT_BUSY;
        fault.call = 0, befall(fault.cause);
    }
    return failed ? TRANSPORT_FAILED : state;
}

static const char *faulty_why(void) {
    return failed ? "a planted failure" : real->why();
}

static void faulty_close(void) {
    const char *path = getenv("SAILS_TEST_CALLS");
    FILE *f = path && rank == 0 ? fopen(path, "w") : NULL;
    if (f) fprintf(f, "%d\n", calls), fclose(f);
    real->close();
}

/* MPI's own modules look for its symbols among those of the whole program. */
__attribute__((visibility("default"))) const Transport *sails_transport(int abi);
const Transport *sails_transport(int abi) {
    static Transport faulty;
    const char *path = getenv("SAILS_TEST_TRANSPORT");
    void *lib = path ? dlopen(path, RTLD_NOW | RTLD_GLOBAL) : NULL;
    void *symbol = lib ? dlsym(lib, "sails_transport") : NULL;
    sails_transport_fn *get;
    memcpy(&get, &symbol, sizeof get); /* ISO C has no cast from object to function pointer */
    real = symbol ? get(abi) : NULL;
    if (!real) return NULL;
    faulty = *real;
    faulty.open = faulty_open;
    faulty.barrier = faulty_barrier;
    faulty.move = faulty_move;
    faulty.poll = faulty_poll;
    faulty.why = faulty_why;
    faulty.close = faulty_close;
    return &faulty;
}
