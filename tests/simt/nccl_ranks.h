/* nccl_ranks.h - for the tests of the stand-in for NCCL: several ranks, each a process with a
 * simulated device of its own, and the steps that all of them make. */
#ifndef SIMT_NCCL_RANKS_H
#define SIMT_NCCL_RANKS_H

#include <nccl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "tests/simt/cases.h"

enum { IDS = 2, LOOK = 200 }; /* LOOK: microseconds */

/* What the ranks of a case share besides the library. */
struct World {
    ncclUniqueId id[IDS];
    std::atomic<int> flag;
};
static World *world;
static int rank, ranks;

/* Waits for a rank that should end with `wanted`. False: it did not, or it had to be killed. */
static inline bool rank_ended(int r, pid_t child, int wanted, bool hurry) {
    enum { HURRY = 3000000 / LOOK };
    int status;
    for (int i = 0; hurry && waitpid(child, &status, WUNTRACED | WNOHANG) == 0; i++) {
        usleep(LOOK);
        if (i == HURRY) kill(child, SIGKILL), hurry = false;
    }
    if (!hurry) waitpid(child, &status, WUNTRACED);
    if (WIFSTOPPED(status)) kill(child, SIGKILL), status = WSTOPSIG(status);
    if (status != wanted) printf("rank %d ended with status %d\n", r, status);
    return status == wanted;
}

/* Runs body as n ranks. Ends well if each ends with expected[r]: 0, or the signal that kills or
 * stops it. Once one has not, the others have little time. */
static inline void as_ranks(int n, void (*body)(), const std::vector<int> &expected = {}) {
    enum { SECONDS = 120 };
    void *p =
        mmap(nullptr, sizeof *world, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    world = (World *)p, ranks = n;
    for (int i = 0; i < IDS; i++) ncclGetUniqueId(&world->id[i]);
    std::vector<pid_t> children;
    fflush(stdout);
    for (rank = 0; rank < n; rank++) {
        children.push_back(fork());
        if (children.back() != 0) continue;
        alarm(SECONDS);
        setvbuf(stdout, nullptr, _IOLBF, 0);
        body();
        exit(0);
    }
    bool bad = false;
    for (int i = 0; i < n; i++)
        bad |= !rank_ended(i, children[i], i < (int)expected.size() ? expected[i] : 0, bad);
    if (bad) exit(1);
    puts("all ended well");
}

/* The result of a call on c, once it has one. */
static inline ncclResult_t result_of(ncclComm_t c, ncclResult_t r) {
    while (r == ncclInProgress) {
        usleep(LOOK);
        if (ncclCommGetAsyncError(c, &r) != ncclSuccess) return ncclInternalError;
    }
    return r;
}

static inline void expect(ncclComm_t c, ncclResult_t r) {
    r = result_of(c, r);
    if (r == ncclSuccess) return;
    printf("rank %d: %s, %s\n", rank, ncclGetErrorString(r), ncclGetLastError(c));
    exit(1);
}

static inline ncclComm_t begin(int which, int blocking = 0) {
    ncclComm_t c = nullptr;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = blocking;
    ncclResult_t started = ncclCommInitRankConfig(&c, ranks, world->id[which], rank, &config);
    expect(c, started);
    return c;
}
static inline void end(ncclComm_t c) {
    expect(c, ncclCommFinalize(c));
    ncclCommDestroy(c);
}

/* `from`'s i-th value for `to`. */
static inline float value(int from, int to, size_t i) {
    return (float)(100000 * from + 10000 * to) + (float)i;
}

/* n values of a rank for a rank, in device memory. */
static inline float *values(int from, int to, size_t n) {
    std::vector<float> v(n);
    for (size_t i = 0; i < n; i++) v[i] = value(from, to, i);
    return device(v);
}

#endif
