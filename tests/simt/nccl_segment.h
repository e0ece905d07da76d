/* nccl_segment.h - what the ranks of one communicator share: a segment of memory of this machine.
 *
 * A call that needs other ranks has one Side for each rank that takes part. A rank posts its side
 * when the call is launched, says READY when its stream has come there, and TAKEN when it has read
 * all that it needs of the others'. A side is found by the call's number and used again by later
 * ones; `step` holds both, so that an old one is not taken for a new one. */
#ifndef SIMT_NCCL_SEGMENT_H
#define SIMT_NCCL_SEGMENT_H

#include <nccl.h>
#include <stdint.h>

#include <atomic>
#include <string>

namespace simt {

enum { MAX_RANKS = 16, RING = 1024, MESSAGES = 1024, OTHER_COMMS = 3 };

/* What must be equal on all ranks of a collective, or on both ends of a message. */
struct Signature {
    uint64_t count;
    int32_t kind, type, redop, root; /* root: 0 where there is none */
};

/* How many collectives the rank had launched on its other communicators. */
struct Elsewhere {
    uint64_t comm[OTHER_COMMS], collectives[OTHER_COMMS]; /* comm 0: none */
};

enum Step { ABSENT, POSTED, READY, TAKEN };

struct Side {
    std::atomic<uint64_t> step;
    Signature signature;
    Elsewhere elsewhere;
    uint64_t source;            /* its address, in the rank's process */
    std::atomic<uint64_t> mail; /* where in the rank's mail it has been copied to, plus 1 */

    void post(uint64_t number, const Signature &s, const Elsewhere &e, const void *from) {
        signature = s, elsewhere = e, source = (uint64_t)(uintptr_t)from, mail = 0;
        reach(number, POSTED);
    }
    void reach(uint64_t number, Step to) {
        step = (number + 1) * 4 + to;
    }
    Step of(uint64_t number) const {
        uint64_t now = step;
        return now / 4 == number + 1 ? (Step)(now % 4) : ABSENT;
    }
};

/* Messages from one rank to another. */
struct Channel {
    std::atomic<uint64_t> sent, received; /* completed */
    Side sender[MESSAGES], receiver[MESSAGES];
};

/* What a rank that cannot go on waits for: nccl_stuck.cc. */
struct Stuck {
    std::atomic<uint64_t> looks, progress;
    std::atomic<uint32_t> behind; /* ranks that have launched the call, and not come to it */
    std::atomic<uint32_t> absent; /* ranks that have not launched it */
    std::atomic<uint32_t> host;   /* its host, too, does nothing else */
    char what[160];
};

struct Member {
    std::atomic<int> pid; /* 0: has not joined */
    std::atomic<uint32_t> finalized, aborted;
    std::atomic<uint64_t> collectives; /* completed */
    Stuck stuck;
};

struct Shared {
    std::atomic<int> size, joined, fault; /* fault: 1 + the rank that has reported one */
    std::atomic<uint32_t> copies;         /* ranks may not read each other's memory */
    Member member[MAX_RANKS];
    Side collective[RING][MAX_RANKS];
    Channel channel[MAX_RANKS][MAX_RANKS]; /* [from][to] */
};

/* A process's view of it. Behind the struct each rank has room for its mail. */
class Segment {
   public:
    static ncclUniqueId create();
    explicit Segment(const ncclUniqueId &id); /* fails for an id that has been used */
    ~Segment();
    Segment(const Segment &) = delete;
    Segment &operator=(const Segment &) = delete;

    void join(int rank, int size);
    bool complete(); /* all have joined; nobody else can from then on */
    Shared *operator->() const {
        return shared;
    }
    uint64_t id() const {
        return number;
    }

    /* A rank's source. False: not yet. */
    bool read(int rank, const Side &side, size_t offset, void *to, size_t bytes);
    uint64_t mail(int rank, uint64_t at, const void *from,
                  size_t bytes); /* what Side::mail holds */
    void clear_mail(int rank, uint64_t bytes);

   private:
    Shared *shared;
    int file;
    uint64_t number;
    std::string name;
};

}  // namespace simt

#endif
