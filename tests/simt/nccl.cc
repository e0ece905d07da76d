/* nccl.cc - communicators of the stand-in for NCCL: how they start and end, who may call what and
 * when, and how a call that did not block is seen to succeed. A call that is missing here is a link
 * error: add it then. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <set>

#include "tests/simt/nccl_comm.h"

using namespace simt;

namespace {

enum { NAP = 100 };            /* microseconds between two looks at other ranks */
const double HELP_AFTER = 0.2; /* seconds that others wait for what this rank has launched */

/* What allows a call: bits of lives. */
enum : unsigned {
    WHILE_ACTIVE = 1u << ACTIVE,
    WHILE_FINALIZED = 1u << FINALIZED,
    WHILE_THERE = 1u << STARTING | 1u << ACTIVE | 1u << HELD | 1u << FINALIZING | 1u << FINALIZED
};

/* All that this process has had, to know a handle that is used too long. */
std::vector<std::unique_ptr<ncclComm>> comms;
std::string last_error;

const char *const lives_said[] = {
    "before ncclCommGetAsyncError has said that its start has succeeded",
    "before ncclCommFinalize",
    "before ncclCommGetAsyncError has said that its last call has succeeded",
    "after ncclCommFinalize",
    "after ncclCommFinalize",
    "after ncclCommDestroy",
    "after ncclCommAbort",
};

/* A communicator belongs to a thread. (Processes made by fork have threads of their own.) */
void check_thread(const char *call) {
    static int process;
    static pthread_t thread;
    if (process != getpid()) process = getpid(), thread = pthread_self();
    if (!pthread_equal(thread, pthread_self())) nccl_fail("%s from a second thread", call);
}

/* At the end of the process. */
void check_end() {
    if (groups_open() > 0)
        nccl_fail("ncclGroupStart without ncclGroupEnd at the end of the process");
    for (const ncclComm *c : live_comms())
        nccl_fail("rank %d has not destroyed its communicator at the end of the process", c->rank);
}

void check_config(const ncclConfig_t *config) {
    static const ncclConfig_t right = NCCL_CONFIG_INITIALIZER;
    if (config->size != right.size || config->magic != right.magic ||
        config->version != right.version)
        nccl_fail("ncclCommInitRankConfig: the config is not from NCCL_CONFIG_INITIALIZER");
}

/* ------------------------------------------------------------------- one step further -- */

void start(ncclComm *c) {
    if (fault(AT_START, c->rank, 0) || !c->shared->complete()) return;
    if (c->polls == 0)
        c->life = ACTIVE;
    else
        c->polls--;
}

/* The streams run what the communicator was given before; then all ranks must come here. */
void finalize(ncclComm *c) {
    Segment &shared = *c->shared;
    advance_all();
    if (!c->pending.empty()) return;
    shared->member[c->rank].finalized = 1;
    for (int r = 0; r < c->size; r++)
        if (!shared->member[r].finalized) return;
    if (c->polls == 0)
        c->life = FINALIZED;
    else
        c->polls--;
}

/* A stream runs as late as it may; but others must not wait for ever for what has been launched
 * while this rank's host waits for them in its own way, asking here now and then. */
void help(ncclComm *c) {
    bool wanted = false;
    if (!c->pending.empty())
        for (const Op &op : c->pending[0]->ops)
            for (int r = 0; r < c->size; r++)
                wanted |= op.comm == c && r != c->rank && (ranks_of(op) >> r & 1) && !op.taken &&
                          other_side(op, r)->of(op.number) >= READY;
    double now = seconds_now();
    if (!wanted)
        c->wanted_since = 0;
    else if (c->wanted_since == 0)
        c->wanted_since = now;
    else if (now - c->wanted_since > HELP_AFTER)
        advance_all();
}

void go_on(ncclComm *c) {
    check_others(c);
    switch (c->life) {
        case STARTING:
            return start(c);
        case HELD:
            if (c->polls == 0 || --c->polls == 0) launch(c->held);
            return;
        case FINALIZING:
            return finalize(c);
        default:
            return help(c);
    }
}

/* A group that will never be launched. */
void drop_held(std::shared_ptr<Group> g) {
    for (cudaStream_t s : g->streams) stream_shut(s, nullptr);
    for (ncclComm *c : g->comms) c->life = ACTIVE, c->held.reset();
    group_give_up(g.get());
}

/* The result of a call that has changed c's life. */
ncclResult_t outcome(ncclComm *c) {
    go_on(c);
    for (; c->blocking && (c->life == STARTING || c->life == FINALIZING); usleep(NAP)) go_on(c);
    return c->life == STARTING || c->life == FINALIZING ? ncclInProgress : ncclSuccess;
}

}  // namespace

/* ------------------------------------------------------------------ for the other files -- */

uint64_t simt::mix(uint64_t x) { /* splitmix64 */
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

double simt::seconds_now() {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void simt::nccl_fail(const char *fmt, ...) {
    char text[768];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (const auto &c : comms)
        if (c->shared) (*c->shared)->fault = 1 + c->rank;
    fail("%s", text);
}

void simt::check_others(const ncclComm *c) {
    int fault = (*c->shared)->fault;
    if (fault > 0) fail("rank %d ends because rank %d has reported a fault", c->rank, fault - 1);
}

void simt::enter(const ncclComm *c, const char *call, unsigned lives) {
    bool known = false;
    for (const auto &mine : comms) known |= mine.get() == c;
    if (!known) nccl_fail("%s: %p is not a communicator", call, (const void *)c);
    check_thread(call);
    if (c->error != ncclSuccess && !(lives & 1u << HELD))
        nccl_fail("%s after the communicator has failed", call);
    if (!(lives >> c->life & 1)) nccl_fail("%s %s", call, lives_said[c->life]);
    if (c->life != STARTING) check_others(c);
}

std::vector<ncclComm *> simt::live_comms() {
    std::vector<ncclComm *> live;
    for (const auto &c : comms)
        if (c->life != DESTROYED && c->life != ABORTED) live.push_back(c.get());
    return live;
}

unsigned simt::draw_polls(const ncclComm *c) {
    static const char *const most = getenv("SIMT_NCCL_POLLS"), *const seed = getenv("SIMT_SEED");
    static uint64_t drawn;
    if (c->blocking) return 0;
    uint64_t from = mix((uint64_t)(seed ? atoi(seed) : 0)) + (uint64_t)c->rank;
    return (unsigned)(mix(mix(from) + drawn++) % (uint64_t)((most ? atoi(most) : 3) + 1));
}

/* ------------------------------------------------------------------------------ the calls -- */

extern "C" {

ncclResult_t ncclGetVersion(int *version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    *id = Segment::create();
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    static const char *const texts[] = {"no error",       "unhandled cuda error", "system error",
                                        "internal error", "invalid argument",     "invalid usage",
                                        "remote error",   "in progress"};
    return (unsigned)result < ncclNumResults ? texts[result] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t c) {
    if (c) enter(c, "ncclGetLastError", WHILE_THERE);
    return last_error.c_str();
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
    static int at_end; /* the process that has it */
    check_thread("ncclCommInitRankConfig");
    if (groups_open() > 0) nccl_fail("ncclCommInitRankConfig in a group is not simulated");
    if (!comm || !config || size < 1 || size > MAX_RANKS || rank < 0 || rank >= size)
        nccl_fail("ncclCommInitRankConfig: rank %d of %d, of at most %d", rank, size, MAX_RANKS);
    check_config(config);
    if (at_end != getpid()) atexit(check_end);
    at_end = getpid();
    std::unique_ptr<ncclComm> c(new ncclComm());
    c->rank = rank, c->size = size, c->error = ncclSuccess, c->life = STARTING;
    c->blocking = config->blocking != 0; /* undefined: 1 */
    c->shared.reset(new Segment(id));
    c->last = event_create(false);
    c->polls = draw_polls(c.get());
    if (!fault(AT_START, rank, 0)) c->shared->join(rank, size);
    *comm = c.get();
    comms.push_back(std::move(c));
    return outcome(*comm);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *error) {
    enter(c, "ncclCommGetAsyncError", WHILE_THERE);
    if (c->error == ncclSuccess) go_on(c);
    bool busy = c->life == STARTING || c->life == HELD || c->life == FINALIZING;
    *error = c->error != ncclSuccess ? c->error : busy ? ncclInProgress : ncclSuccess;
    if (c->error != ncclSuccess)
        last_error = "rank " + std::to_string(c->rank) + ": a planted fault of the network";
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t c, int *count) {
    enter(c, "ncclCommCount", WHILE_ACTIVE);
    *count = c->size;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t c, int *rank) {
    enter(c, "ncclCommUserRank", WHILE_ACTIVE);
    *rank = c->rank;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t c) {
    enter(c, "ncclCommFinalize", WHILE_ACTIVE);
    if (groups_open() > 0) nccl_fail("ncclCommFinalize before ncclGroupEnd");
    c->life = FINALIZING, c->polls = draw_polls(c);
    return outcome(c);
}

ncclResult_t ncclCommDestroy(ncclComm_t c) {
    enter(c, "ncclCommDestroy", WHILE_THERE & ~(1u << STARTING | 1u << HELD));
    if (c->life == ACTIVE)
        nccl_fail("ncclCommDestroy without ncclCommFinalize: it would wait for the other ranks");
    if (c->life == FINALIZING)
        nccl_fail(
            "ncclCommDestroy before ncclCommGetAsyncError has said that ncclCommFinalize has "
            "succeeded");
    c->life = DESTROYED;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t c) {
    enter(c, "ncclCommAbort", WHILE_THERE);
    fault(AT_ABORT, c->rank, 0);
    (*c->shared)->member[c->rank].aborted = 1; /* before its memory is shut */
    if (c->held) drop_held(c->held);
    c->life = ABORTED;
    while (!c->pending.empty()) group_give_up(c->pending[0].get());
    return ncclSuccess;
}

}  // extern "C"
