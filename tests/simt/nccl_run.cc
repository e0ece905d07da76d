/* nccl_run.cc - a group in its streams: it starts as early as it may and ends as late.
 *
 * At its start sources are hashed and destinations filled with NaN, so that what another stream
 * writes or reads from then on is seen. It goes on when something waits for it: all ranks come
 * there, what they call is compared, each reads what it needs into memory of its own, and only when
 * nobody reads any more are the destinations written. */
#include <string.h>

#include <algorithm>

#include "tests/simt/nccl_comm.h"

namespace simt {

namespace {

enum { UNWRITTEN = 0xff }; /* NaN in every floating type */

uint64_t hash_of(const char *at, size_t bytes) {
    uint64_t h = bytes, word;
    for (; bytes >= sizeof word; at += sizeof word, bytes -= sizeof word) {
        memcpy(&word, at, sizeof word);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    word = 0;
    memcpy(&word, at, bytes);
    return mix(h ^ word);
}

bool still_unwritten(const char *p, size_t bytes) {
    return (unsigned char)*p == UNWRITTEN && memcmp(p, p + 1, bytes - 1) == 0;
}

/* The destination without what is a source, too. */
void fill(Op *op) {
    char *from = op->recv, *end = op->recv + op->recv_bytes;
    char *hole = (char *)(uintptr_t)op->send, *hole_end = hole + op->send_bytes;
    if (!hole || hole_end <= from || hole >= end) hole = hole_end = end;
    if (hole > from) op->unwritten.push_back({from, (size_t)(hole - from)});
    if (hole_end < end) op->unwritten.push_back({hole_end, (size_t)(end - hole_end)});
    for (auto &range : op->unwritten) memset(range.first, UNWRITTEN, range.second);
}

/* -------------------------------------------------------------- are the ranks' calls one? -- */

void compare_elsewhere(const Op &op, int rank, const Elsewhere &mine, const Elsewhere &other) {
    for (int i = 0; i < OTHER_COMMS; i++)
        for (int j = 0; j < OTHER_COMMS; j++)
            if (mine.comm[i] && mine.comm[i] == other.comm[j] &&
                mine.collectives[i] != other.collectives[j])
                nccl_fail(
                    "the order of two communicators differs: at %s rank %d has launched %llu "
                    "collectives on the other one, rank %d %llu",
                    op.what.c_str(), op.comm->rank, (unsigned long long)mine.collectives[i], rank,
                    (unsigned long long)other.collectives[j]);
}

void compare(const Op &op, int rank) {
    const Side &mine = *own_side(op), &other = *other_side(op, rank);
    std::string here = describe(mine.signature), there = describe(other.signature);
    bool same = op.peer < 0 ? memcmp(&mine.signature, &other.signature, sizeof(Signature)) == 0
                            : mine.signature.count == other.signature.count &&
                                  mine.signature.type == other.signature.type;
    if (!same)
        nccl_fail("%s %llu differs: rank %d calls %s, rank %d calls %s",
                  op.peer < 0 ? "collective" : "message", (unsigned long long)op.number,
                  op.comm->rank, here.c_str(), rank, there.c_str());
    compare_elsewhere(op, rank, mine.elsewhere, other.elsewhere);
}

/* True if all have come; compares with those that have launched it. */
bool all_there(Op *op) {
    const Segment &shared = *op->comm->shared;
    bool all = true;
    for (int r = 0; r < op->comm->size; r++) {
        if (!(ranks_of(*op) >> r & 1)) continue;
        Step step = other_side(*op, r)->of(op->number);
        if (step < READY) all = false;
        if (step == ABSENT && shared->member[r].finalized)
            nccl_fail("%s on rank %d: rank %d has finalized the communicator", op->what.c_str(),
                      op->comm->rank, r);
        if (step == ABSENT || (op->compared >> r & 1)) continue;
        compare(*op, r);
        op->compared |= 1u << r;
    }
    return all;
}

/* ------------------------------------------------------------------------------ the data -- */

/* What this rank takes of another's source, and where it belongs. False: not yet. */
bool read_from(Op *op, int rank) {
    ncclComm *c = op->comm;
    size_t block = op->signature.count * type_bytes((ncclDataType_t)op->signature.type);
    bool one = op->kind == RECV || op->kind == BROADCAST;
    bool mine = op->kind == ALL_TO_ALL || op->kind == REDUCE_SCATTER;
    if (op->kind == SEND || (op->kind == BROADCAST && rank != op->signature.root)) return true;
    op->arrived.resize(one ? block : block * (size_t)c->size);
    char *to = op->arrived.data() + (one ? 0 : block * (size_t)rank);
    size_t offset = mine ? block * (size_t)c->rank : 0;
    const Side &side = *other_side(*op, rank);
    if (rank != c->rank) return c->shared->read(rank, side, offset, to, block);
    if (block) memcpy(to, (const char *)(uintptr_t)side.source + offset, block);
    return true;
}

/* What a call needs of others. True: it has all of it. */
bool take(Op *op) {
    if (op->taken) return true;
    if (!all_there(op)) return false;
    for (int r = 0; r < op->comm->size; r++) {
        if (!(ranks_of(*op) >> r & 1) || (op->read >> r & 1)) continue;
        if (!read_from(op, r)) return false;
        op->read |= 1u << r;
    }
    own_side(*op)->reach(op->number, TAKEN);
    return op->taken = true;
}

/* Nobody needs its source any more. */
bool released(const Op &op) {
    if (op.kind == RECV) return true;
    for (int r = 0; r < op.comm->size; r++)
        if ((ranks_of(op) >> r & 1) && other_side(op, r)->of(op.number) != TAKEN) return false;
    return true;
}

void announce(Group *g) {
    if (!g->announced) {
        g->announced = true;
        g->door.reset(new Door);
        for (Op &op : g->ops) own_side(op)->reach(op.number, READY);
    }
    for (Op &op : g->ops) {
        ncclComm *c = op.comm;
        if (!(*c->shared)->copies || op.mailed) continue;
        own_side(op)->mail = c->shared->mail(c->rank, c->mail_used, op.send, op.send_bytes);
        c->mail_used += op.send_bytes;
        op.mailed = true;
    }
}

void write_result(Op *op) {
    if (op->send && hash_of(op->send, op->send_bytes) != op->source_hash)
        nccl_fail("%s on rank %d: its source was written while it was in flight", op->what.c_str(),
                  op->comm->rank);
    for (auto &range : op->unwritten)
        if (!still_unwritten(range.first, range.second))
            nccl_fail("%s on rank %d: its destination was written while it was in flight",
                      op->what.c_str(), op->comm->rank);
    if (op->kind == ALL_REDUCE || op->kind == REDUCE_SCATTER)
        reduce(*op);
    else if (op->recv)
        memcpy(op->recv, op->arrived.data(), op->recv_bytes);
}

/* The group has ended, well or not. */
void leave(Group *g) {
    for (Op &op : g->ops) {
        if (op.send) memory_unpin(op.send, op.what.c_str());
        if (op.recv) memory_unpin(op.recv, op.what.c_str());
    }
    for (ncclComm *c : g->comms) {
        auto &all = c->pending;
        all.erase(std::remove_if(all.begin(), all.end(), [&](auto &p) { return p.get() == g; }),
                  all.end());
        if (c->mail_used) c->shared->clear_mail(c->rank, c->mail_used);
        c->mail_used = 0; /* one group of a communicator runs at a time */
    }
    g->door.reset();
    g->over = true;
}

}  // namespace

Side *own_side(const Op &op) {
    Segment &shared = *op.comm->shared;
    int me = op.comm->rank;
    if (op.peer < 0) return &shared->collective[op.number % RING][me];
    return op.kind == SEND ? &shared->channel[me][op.peer].sender[op.number % MESSAGES]
                           : &shared->channel[op.peer][me].receiver[op.number % MESSAGES];
}

Side *other_side(const Op &op, int rank) {
    Segment &shared = *op.comm->shared;
    int me = op.comm->rank;
    if (op.peer < 0) return &shared->collective[op.number % RING][rank];
    return op.kind == SEND ? &shared->channel[me][op.peer].receiver[op.number % MESSAGES]
                           : &shared->channel[op.peer][me].sender[op.number % MESSAGES];
}

uint32_t ranks_of(const Op &op) {
    return op.peer < 0 ? (1u << op.comm->size) - 1 : 1u << op.peer;
}

void group_start(Group *g) {
    if (g->over) return;
    for (Op &op : g->ops) {
        if (op.send) op.source_hash = hash_of(op.send, op.send_bytes);
        if (op.recv) fill(&op);
    }
}

bool group_attempt(Group *g) {
    if (g->over) return true;
    for (const ncclComm *c : g->comms) {
        check_others(c);
        if (c->error != ncclSuccess) return false;
    }
    announce(g);
    bool all = true, more = false;
    for (Op &op : g->ops) {
        bool before = op.taken;
        all &= take(&op);
        more |= op.taken != before;
    }
    for (Op &op : g->ops) all &= released(op);
    if (!all) {
        if (more) unstuck(g);
        stuck(g);
        return false;
    }
    for (Op &op : g->ops) write_result(&op);
    for (Op &op : g->ops) {
        Segment &shared = *op.comm->shared;
        int me = op.comm->rank;
        (op.kind == SEND   ? shared->channel[me][op.peer].sent
         : op.kind == RECV ? shared->channel[op.peer][me].received
                           : shared->member[me].collectives)++;
    }
    unstuck(g);
    leave(g);
    return true;
}

void group_give_up(Group *g) {
    leave(g);
}

}  // namespace simt
