/* nccl_stuck.cc - ranks that wait for each other.
 *
 * A rank that cannot go on says which ranks it needs: those that have launched the call but have
 * something before it in their streams, and those that have not launched it, which may still do so
 * unless their host waits, too. Whoever has looked several times in a while, in vain and for the
 * same ranks, will not go on by itself; a circle of such ranks never will. */
#include <stdio.h>
#include <string.h>

#include "tests/simt/nccl_comm.h"

namespace simt {

namespace {

const double WHILE = 0.25; /* seconds between two comparisons */
enum { LOOKS = 3 };        /* in that time, else the rank may just not have been running */

/* The ranks that r cannot go on without, as bits. */
uint32_t needed_by(Segment &shared, int r) {
    uint32_t ranks = shared->member[r].stuck.behind, absent = shared->member[r].stuck.absent;
    for (int i = 0; i < shared->size; i++)
        if ((absent >> i & 1) && shared->member[i].stuck.host) ranks |= 1u << i;
    return ranks;
}

/* A way back to `home` through ranks that are stuck. */
bool circle(Segment &shared, uint32_t still, int home, int at, std::vector<int> *way) {
    way->push_back(at);
    uint32_t next = needed_by(shared, at) & still;
    if (next >> home & 1) return true;
    for (int r = 0; r < shared->size; r++) {
        bool been = false;
        for (int w : *way) been |= w == r;
        if ((next >> r & 1) && !been && circle(shared, still, home, r, way)) return true;
    }
    way->pop_back();
    return false;
}

[[noreturn]] void report(Segment &shared, const std::vector<int> &way) {
    std::string text;
    for (int r : way) {
        char rank[32];
        snprintf(rank, sizeof rank, "%srank %d waits in ", text.empty() ? "" : ", ", r);
        text += rank;
        text += shared->member[r].stuck.what;
    }
    nccl_fail("deadlock: %s", text.c_str());
}

/* Now and then: who has been stuck since the last time? */
void look_for_circle(ncclComm *c) {
    Segment &shared = *c->shared;
    double now = seconds_now();
    if (now - c->seen_at < WHILE) return;
    uint32_t still = 0;
    for (int r = 0; r < c->size; r++) {
        const Stuck &s = shared->member[r].stuck;
        ncclComm::Seen seen = {s.looks, s.progress, s.behind, s.absent};
        const ncclComm::Seen &old = c->seen[r];
        if (seen.progress == old.progress && seen.behind == old.behind &&
            seen.absent == old.absent && seen.looks >= old.looks + LOOKS)
            still |= 1u << r;
        c->seen[r] = seen;
    }
    bool first = c->seen_at == 0;
    c->seen_at = now;
    std::vector<int> way;
    if (!first && (still >> c->rank & 1) && circle(shared, still, c->rank, c->rank, &way))
        report(shared, way);
}

}  // namespace

void stuck(const Group *g) {
    for (ncclComm *c : g->comms) {
        Stuck &s = (*c->shared)->member[c->rank].stuck;
        uint32_t behind = 0, absent = 0;
        const Op *first = nullptr;
        for (const Op &op : g->ops)
            for (int r = 0; r < c->size && op.comm == c; r++) {
                if (!(ranks_of(op) >> r & 1)) continue;
                Step step = other_side(op, r)->of(op.number);
                if (step >= READY) continue; /* it reads and lets go at its next look */
                (step == ABSENT ? absent : behind) |= 1u << r;
                if (!first) first = &op;
            }
        if (s.behind != behind || s.absent != absent) {
            s.progress++;
            snprintf(s.what, sizeof s.what, "%s", first ? first->what.c_str() : "another call");
        }
        s.behind = behind, s.absent = absent, s.host = host_waits();
        s.looks++;
        look_for_circle(c);
    }
}

void unstuck(const Group *g) {
    for (const ncclComm *c : g->comms) {
        Stuck &s = (*c->shared)->member[c->rank].stuck;
        s.behind = 0, s.absent = 0, s.host = 0;
        s.progress++;
    }
}

}  // namespace simt
