/* nccl_comm.h - a stand-in for NCCL between processes of this machine, each with a simulated device
 * of its own. Stricter than the real one: what that leaves undefined, or does not notice, ends the
 * process with one line.
 *
 *   nccl.cc          communicators: their life, and who may call what when
 *   nccl_group.cc    calls: their arguments, groups, what they put into streams
 *   nccl_run.cc      what a stream then does
 *   nccl_stuck.cc    ranks that wait for each other
 *   nccl_sums.cc     reductions, in an order that no one may rely on
 *   nccl_fault.cc    faults of the machine, by SAILS_NCCL_FAULT
 *   nccl_segment.*   what the ranks share
 *
 * What it reports:
 *   - a collective that is not the same on all ranks: operation, count, type, reduction, root; a
 *     message that is not the same on both ends; collectives of several communicators that are not
 *     launched in the same order;
 *   - ranks that wait for each other, such as ungrouped sends that cross;
 *   - memory that is not this device's, not live or not aligned, that overlaps, that is freed or
 *     written in flight; destinations are NaN from as early as the call may start;
 *   - calls at the wrong time: before the last one was seen to succeed (as is work on its streams),
 *     after Finalize, Destroy, Abort or an error, from a second thread; an id used twice, a config
 *     without its initializer, Destroy without Finalize;
 *   - at the end of the process a group that is open, a communicator that is not destroyed.
 * A rank that has reported makes the others end, too. One that is gone leaves them waiting.
 *
 * Calls of a communicator run one after the other, as in NCCL, whatever their streams. What it
 * cannot see: messages of two communicators in another order, unless they wait for each other; host
 * code that touches device memory between a rank's coming to a call and the call's end. It does not
 * know Split, Shrink, Revoke, registered memory, dynamic reductions, and more than 16 ranks.
 *
 * Environment: SIMT_NCCL_POLLS=n: up to n times (3) a call on a communicator that does not block is
 * still in progress, by SIMT_SEED. SIMT_NCCL_SUMS=rotated (default) | random: nccl_sums.cc.
 * SIMT_NCCL_COPY=1: as where processes may not read each other's memory. */
#ifndef SIMT_NCCL_COMM_H
#define SIMT_NCCL_COMM_H

#include <pthread.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "tests/simt/nccl_segment.h"
#include "tests/simt/simt.h"

namespace simt {

enum Kind { SEND, RECV, ALL_GATHER, ALL_TO_ALL, BROADCAST, ALL_REDUCE, REDUCE_SCATTER };

/* One call of a rank. */
struct Op {
    Kind kind;
    ncclComm *comm;
    const char *send; /* NULL: this rank gives nothing */
    char *recv;       /* NULL: it takes nothing */
    size_t send_bytes, recv_bytes;
    Signature signature;
    int peer;        /* of a message, else -1 */
    uint64_t number; /* of the collective, or of the message between the two */
    Elsewhere elsewhere;
    std::string what;

    uint64_t source_hash;                             /* when it may have started */
    std::vector<std::pair<char *, size_t>> unwritten; /* what was filled with NaN then */
    std::vector<char> arrived;                        /* what was read, by rank */
    uint32_t compared, read;                          /* ranks */
    bool taken, mailed;
};

/* Calls that start and end together. */
struct Group {
    std::vector<Op> ops;
    std::vector<ncclComm *> comms;
    std::vector<cudaStream_t> streams;
    std::unique_ptr<Door> door; /* while others may read this rank's memory */
    bool announced = false, over = false;
};

enum Life { STARTING, ACTIVE, HELD, FINALIZING, FINALIZED, DESTROYED, ABORTED };

uint64_t mix(uint64_t x); /* evenly spread bits */

}  // namespace simt

struct ncclComm {
    std::unique_ptr<simt::Segment> shared;
    int rank, size;
    bool blocking;
    simt::Life life;
    ncclResult_t error; /* that has come by itself */
    unsigned polls;     /* until the last call is seen to have succeeded */
    std::shared_ptr<simt::Group> held;
    std::deque<std::shared_ptr<simt::Group>> pending;                       /* launched, not over */
    uint64_t collectives, sent[simt::MAX_RANKS], received[simt::MAX_RANKS]; /* numbered */
    uint64_t closed;  /* of the collectives, those of groups that are closed */
    cudaEvent_t last; /* all that was launched is over */
    bool launched;
    uint64_t mail_used;
    double wanted_since; /* others wait for the oldest pending call; 0: they do not */
    struct Seen {
        uint64_t looks, progress;
        uint32_t behind, absent;
    } seen[simt::MAX_RANKS];
    double seen_at;
};

namespace simt {

/* Ends the process, and with it the other ranks of all communicators. */
[[noreturn]] __attribute__((format(printf, 1, 2))) void nccl_fail(const char *fmt, ...);
void check_others(const ncclComm *c); /* ends the process if another rank has failed */
double seconds_now();

/* ------------------------------------------------------------------------------- nccl.cc -- */

/* Every call on a communicator begins here: the lives in which it is allowed, as bits. */
void enter(const ncclComm *c, const char *call, unsigned lives);
std::vector<ncclComm *> live_comms();
unsigned draw_polls(const ncclComm *c);

/* ------------------------------------------------------------------------- nccl_group.cc -- */

int groups_open();
std::string describe(const Signature &s);
void launch(std::shared_ptr<Group> g); /* puts it into its streams */

/* --------------------------------------------------------------------------- nccl_run.cc -- */

void group_start(Group *g);   /* as early as may be */
bool group_attempt(Group *g); /* as late as may be; false: not yet */
void group_give_up(Group *g); /* for a communicator that is aborted: nothing arrives */
Side *own_side(const Op &op);
Side *other_side(const Op &op, int rank);
uint32_t ranks_of(const Op &op); /* that it waits for */

/* ------------------------------------------------------------------------- nccl_stuck.cc -- */

void stuck(const Group *g);   /* it cannot go on */
void unstuck(const Group *g); /* it goes on */

/* -------------------------------------------------------------------------- nccl_sums.cc -- */

size_t type_bytes(ncclDataType_t type);
const char *type_name(ncclDataType_t type);
bool can_reduce(ncclDataType_t type, ncclRedOp_t op);
/* The reduction of op.arrived, (size,count), into recv. */
void reduce(const Op &op);

/* ------------------------------------------------------------------------- nccl_fault.cc -- */

enum FaultAt { AT_START, AT_CALL, AT_ABORT };
/* Does what SAILS_NCCL_FAULT asks for at this point. True: the call must fail (AT_CALL), or never
 * succeed (AT_START). */
bool fault(FaultAt at, int rank, uint64_t call);

}  // namespace simt

#endif
