/* nccl_group.cc - calls that move data: their arguments, groups of them, and what a group puts into
 * its streams. A call outside a group is a group of one. */
#include <algorithm>
#include <map>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/simt/nccl_comm.h"

using namespace simt;

namespace {

int depth; /* of ncclGroupStart without ncclGroupEnd */
std::shared_ptr<Group> open_group;

const char *const names[] = {"ncclSend",      "ncclRecv",      "ncclAllGather",    "ncclAlltoAll",
                             "ncclBroadcast", "ncclAllReduce", "ncclReduceScatter"};

/* ----------------------------------------------------------------------------- arguments -- */

bool overlap(const char *a, size_t a_bytes, const char *b, size_t b_bytes) {
    return a && b && a < b + b_bytes && b < a + a_bytes;
}

void check_buffer(const Op &op, const char *which, const char *p, size_t bytes) {
    size_t alignment = type_bytes((ncclDataType_t)op.signature.type);
    if (!p || !on_device(p))
        nccl_fail("%s: the %s %p is not device memory", op.what.c_str(), which, (const void *)p);
    if (!live_range(p, bytes))
        nccl_fail("%s: the %s %p is not %zu bytes of one live allocation", op.what.c_str(), which,
                  (const void *)p, bytes);
    if ((uintptr_t)p % alignment != 0)
        nccl_fail("%s: the %s %p is not aligned to %zu bytes", op.what.c_str(), which,
                  (const void *)p, alignment);
}

/* Where a call's source may lie in its destination, or the other way round. */
bool in_place(const Op &op) {
    size_t own = (size_t)op.comm->rank * std::min(op.send_bytes, op.recv_bytes);
    switch (op.kind) {
        case ALL_GATHER:
            return op.send == op.recv + own;
        case REDUCE_SCATTER:
            return op.recv == op.send + own;
        case ALL_REDUCE:
        case BROADCAST:
            return op.send == op.recv;
        default:
            return false;
    }
}

void check_op(const Op &op) {
    if (op.send_bytes) check_buffer(op, "source", op.send, op.send_bytes);
    if (op.recv_bytes) check_buffer(op, "destination", op.recv, op.recv_bytes);
    if (overlap(op.send, op.send_bytes, op.recv, op.recv_bytes) && !in_place(op))
        nccl_fail("%s: source and destination overlap, and not as in place", op.what.c_str());
    for (const Op &other : open_group->ops) {
        if (overlap(op.recv, op.recv_bytes, other.recv, other.recv_bytes))
            nccl_fail("%s and %s of one group: their destinations overlap", other.what.c_str(),
                      op.what.c_str());
        if (overlap(op.recv, op.recv_bytes, other.send, other.send_bytes) ||
            overlap(op.send, op.send_bytes, other.recv, other.recv_bytes))
            nccl_fail("%s and %s of one group: one writes what the other reads", other.what.c_str(),
                      op.what.c_str());
    }
}

/* -------------------------------------------------------------------------------- groups -- */

template <class T>
void add_new(std::vector<T> *all, T one) {
    if (std::find(all->begin(), all->end(), one) == all->end()) all->push_back(one);
}

Elsewhere elsewhere(const ncclComm *c) {
    Elsewhere e = {};
    int i = 0;
    for (const ncclComm *other : live_comms())
        if (other != c && i < OTHER_COMMS)
            e.comm[i] = other->shared->id(), e.collectives[i++] = other->closed;
    return e;
}

ncclResult_t close_group() {
    std::shared_ptr<Group> g = std::move(open_group);
    if (!g) return ncclSuccess;
    static uint64_t calls;
    bool fails = fault(AT_CALL, g->comms[0]->rank, calls++), in_progress = false;
    for (Op &op : g->ops) op.elsewhere = elsewhere(op.comm);
    for (ncclComm *c : g->comms) {
        c->closed = c->collectives;
        if (fails) c->error = ncclRemoteError;
        c->polls = fails ? 0 : draw_polls(c);
        in_progress |= c->polls > 0;
    }
    if (!in_progress) {
        launch(g);
        return ncclSuccess;
    }
    for (ncclComm *c : g->comms) c->life = HELD, c->held = g;
    for (cudaStream_t s : g->streams)
        stream_shut(s,
                    "work on a stream before ncclCommGetAsyncError has said that its last call "
                    "of NCCL has succeeded");
    return ncclInProgress;
}

ncclResult_t submit(Op op, cudaStream_t stream) {
    ncclComm *c = op.comm;
    bool alone = depth == 0;
    if (!open_group) open_group.reset(new Group);
    if (open_group->ops.size() == MESSAGES)
        nccl_fail("more than %d calls in a group are not simulated", MESSAGES);
    op.number = op.kind == SEND   ? c->sent[op.peer]++
                : op.kind == RECV ? c->received[op.peer]++
                                  : c->collectives++;
    char number[48];
    snprintf(number, sizeof number, " (%s %llu)", op.peer < 0 ? "collective" : "message",
             (unsigned long long)op.number);
    op.what = describe(op.signature) + number;
    if (op.peer >= 0)
        op.what += (op.kind == SEND ? " to rank " : " from rank ") + std::to_string(op.peer);
    if (op.send_bytes == 0) op.send = nullptr;
    if (op.recv_bytes == 0) op.recv = nullptr;
    check_op(op);
    if (op.send) memory_pin(op.send, op.what.c_str());
    if (op.recv) memory_pin(op.recv, op.what.c_str());
    add_new(&open_group->comms, c);
    add_new(&open_group->streams, stream);
    open_group->ops.push_back(std::move(op));
    return alone ? close_group() : ncclSuccess;
}

/* What all ranks have finished leaves its place in the rings. */
bool has_room(const Op &op) {
    Segment &shared = *op.comm->shared;
    int me = op.comm->rank;
    if (op.peer >= 0) {
        const Channel &ch =
            op.kind == SEND ? shared->channel[me][op.peer] : shared->channel[op.peer][me];
        return op.number < std::min<uint64_t>(ch.sent, ch.received) + MESSAGES;
    }
    for (int r = 0; r < op.comm->size; r++)
        if (op.number >= shared->member[r].collectives + RING) return false;
    return true;
}

cudaEvent_t event_of(cudaStream_t stream) {
    static std::map<cudaStream_t, cudaEvent_t> events;
    cudaEvent_t &e = events[stream];
    if (!e) e = event_create(false);
    return e;
}

/* The arguments of a call, as its Op; how many blocks of `count` source and destination have. */
enum Blocks { NO_BLOCK, ONE_BLOCK, ONE_PER_RANK };
Op make_op(Kind kind, ncclComm_t comm, const void *send, Blocks send_blocks, void *recv,
           Blocks recv_blocks, size_t count, ncclDataType_t type) {
    enter(comm, names[kind], 1u << ACTIVE);
    Op op = {};
    op.kind = kind, op.comm = comm, op.peer = -1;
    op.signature.kind = kind, op.signature.count = count, op.signature.type = type;
    if (type_bytes(type) == 0) nccl_fail("%s: type %d is unknown", names[kind], (int)type);
    size_t block = count * type_bytes(type);
    size_t bytes[] = {0, block, block * (size_t)comm->size};
    op.send = (const char *)send, op.send_bytes = bytes[send_blocks];
    op.recv = (char *)recv, op.recv_bytes = bytes[recv_blocks];
    return op;
}

void set_peer(Op *op, int peer) {
    if (peer < 0 || peer >= op->comm->size)
        nccl_fail("%s: rank %d of %d", names[op->kind], peer, op->comm->size);
    op->peer = peer;
}

void set_reduction(Op *op, ncclRedOp_t redop) {
    op->signature.redop = redop;
    if (!can_reduce((ncclDataType_t)op->signature.type, redop))
        nccl_fail("%s: reduction %d of %s is not simulated", names[op->kind], (int)redop,
                  type_name((ncclDataType_t)op->signature.type));
}

}  // namespace

int simt::groups_open() {
    return depth;
}

std::string simt::describe(const Signature &s) {
    char text[160];
    int n = snprintf(text, sizeof text, "%s of %llu %s", names[s.kind], (unsigned long long)s.count,
                     type_name((ncclDataType_t)s.type));
    if (s.kind == BROADCAST)
        snprintf(text + n, sizeof text - n, " from root %d", s.root);
    else if (s.kind == ALL_REDUCE || s.kind == REDUCE_SCATTER)
        snprintf(text + n, sizeof text - n, " with reduction %d", s.redop);
    return text;
}

void simt::launch(std::shared_ptr<Group> g) {
    enum { NAP = 100 }; /* microseconds */
    for (cudaStream_t s : g->streams) stream_shut(s, nullptr);
    for (ncclComm *c : g->comms) {
        if (c->life == HELD) c->life = ACTIVE;
        c->held.reset();
        c->pending.push_back(g);
    }
    for (const Op &op : g->ops) {
        for (; !has_room(op); usleep(NAP)) check_others(op.comm), advance_all();
        own_side(op)->post(op.number, op.signature, op.elsewhere, op.send);
    }
    /* All streams come together in the first one, and go on from there. */
    cudaStream_t first = g->streams[0];
    for (cudaStream_t s : g->streams) {
        if (s == first) continue;
        event_record(event_of(s), s);
        event_wait(first, event_of(s));
    }
    for (ncclComm *c : g->comms)
        if (c->launched) event_wait(first, c->last);
    enqueue_early(first, [g] { group_start(g.get()); });
    enqueue_attempt(first, [g] { return group_attempt(g.get()); });
    for (ncclComm *c : g->comms) {
        event_record(c->last, first);
        c->launched = true;
    }
    for (cudaStream_t s : g->streams)
        if (s != first) event_wait(s, g->comms[0]->last);
}

extern "C" {

ncclResult_t ncclGroupStart() {
    depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
    if (depth == 0) nccl_fail("ncclGroupEnd without ncclGroupStart");
    return --depth > 0 ? ncclSuccess : close_group();
}

ncclResult_t ncclSend(const void *send, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
    Op op = make_op(SEND, comm, send, ONE_BLOCK, nullptr, NO_BLOCK, count, type);
    set_peer(&op, peer);
    return submit(std::move(op), stream);
}

ncclResult_t ncclRecv(void *recv, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    Op op = make_op(RECV, comm, nullptr, NO_BLOCK, recv, ONE_BLOCK, count, type);
    set_peer(&op, peer);
    return submit(std::move(op), stream);
}

ncclResult_t ncclAllGather(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
    Op op = make_op(ALL_GATHER, comm, send, ONE_BLOCK, recv, ONE_PER_RANK, count, type);
    return submit(std::move(op), stream);
}

ncclResult_t ncclAlltoAll(const void *send, void *recv, size_t count, ncclDataType_t type,
                          ncclComm_t comm, cudaStream_t stream) {
    Op op = make_op(ALL_TO_ALL, comm, send, ONE_PER_RANK, recv, ONE_PER_RANK, count, type);
    return submit(std::move(op), stream);
}

ncclResult_t ncclBroadcast(const void *send, void *recv, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream) {
    Op op = make_op(BROADCAST, comm, send, ONE_BLOCK, recv, ONE_BLOCK, count, type);
    if (root < 0 || root >= comm->size) nccl_fail("ncclBroadcast: root %d of %d", root, comm->size);
    op.signature.root = root;
    if (comm->rank != root) op.send = nullptr, op.send_bytes = 0;
    return submit(std::move(op), stream);
}

ncclResult_t ncclAllReduce(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclRedOp_t redop, ncclComm_t comm, cudaStream_t stream) {
    Op op = make_op(ALL_REDUCE, comm, send, ONE_BLOCK, recv, ONE_BLOCK, count, type);
    set_reduction(&op, redop);
    return submit(std::move(op), stream);
}

ncclResult_t ncclReduceScatter(const void *send, void *recv, size_t count, ncclDataType_t type,
                               ncclRedOp_t redop, ncclComm_t comm, cudaStream_t stream) {
    Op op = make_op(REDUCE_SCATTER, comm, send, ONE_PER_RANK, recv, ONE_BLOCK, count, type);
    set_reduction(&op, redop);
    return submit(std::move(op), stream);
}

}  // extern "C"
