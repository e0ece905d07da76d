/* comm.c - comm.h's calls: all of them are barriers and moves of a transport. */
#include "kernels/comm.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/check.h"
#include "kernels/comm_impl.h"
#include "kernels/device.h"
#include "kernels/op_scope.h"

enum {
    BLOCK = 64,
    START_SECONDS = 1800 /* models are read, and hashed */,
    RANK_FAILED = 5 /* EXIT_RANK, err.h */
};

static void find_machines(Comm *c);

Comm *comm_make(const Transport *via, TransportSeat seat) {
    Comm *c = calloc(1, sizeof *c);
    CHECK(c, "out of memory");
    *c = (Comm){.via = via, .seat = seat, .phase = "start", .deadline = START_SECONDS};
    c->move = calloc((size_t)seat.size, sizeof *c->move);
    CHECK(c->move, "out of memory");
    find_machines(c);
    return c;
}

/* Are the machines alike, with 2^j ranks in a row on each? */
static void find_machines(Comm *c) {
    int n = c->seat.size, each = c->seat.local_size, first = c->seat.rank - c->seat.local_rank;
    int *alike = calloc((size_t)n, sizeof *alike);
    CHECK(alike, "out of memory");
    bool mine = first == c->seat.leader && first % each == 0 && (each & (each - 1)) == 0;
    alike[c->seat.rank] = mine ? each : 0;
    comm_share(c, "ranks of each machine", alike, sizeof *alike);
    c->machine_ranks = each < n ? each : 0;
    for (int r = 0; r < n; r++)
        if (alike[r] != alike[0] || alike[r] == 0) c->machine_ranks = 0;
    free(alike);
}

int comm_rank(const Comm *c) {
    return c ? c->seat.rank : 0;
}
int comm_size(const Comm *c) {
    return c ? c->seat.size : 1;
}
bool comm_root(const Comm *c) {
    return comm_rank(c) == 0;
}
TransportSeat comm_seat(const Comm *c) {
    return c ? c->seat : (TransportSeat){.size = 1, .local_size = 1};
}
const char *comm_library(const Comm *c) {
    return c->via->library();
}
void comm_watch(Comm *c, const CommWatch *watch) {
    if (c) c->watch = *watch;
}
void comm_phase(Comm *c, const char *phase, int step, double deadline) {
    if (c) c->phase = phase, c->step = step, c->deadline = deadline;
}
void comm_deadline(Comm *c, double seconds) {
    if (c) c->fixed_deadline = seconds;
}
void comm_beat(Comm *c) {
    if (c && c->watch.wait) c->watch.wait(c->watch.context);
}
CommWork comm_work(const Comm *c) {
    return c ? c->work : (CommWork){0};
}

void comm_abort(Comm *c, int code) {
    fflush(NULL);
    c->via->abort(code);
    _Exit(code);
}

/* ------------------------------------------------------------------------------ waiting -- */

static void begin(Comm *c, enum CommOp op, enum CommType type, const char *what, size_t bytes) {
    double deadline = c->fixed_deadline > 0 ? c->fixed_deadline : c->deadline;
    CommCall call = {c->work.calls++, op, type, what, bytes, c->phase, c->step, deadline};
    double start = op_clock();
    if (c->watch.begin) c->watch.begin(c->watch.context, &call);
    c->work.signing += op_clock() - start;
}

/* Profilers see a call, where it moves between devices that they see. */
static void show(Comm *c, enum CommOp op, const char *what) {
    static const char *const name[] = {COMM_OPS(CHOICE_TEXT)};
    if (c->ex) exec_range_push(c->ex, "%s %s", name[op], what);
}
static void unshow(Comm *c) {
    if (c->ex) exec_range_pop(c->ex);
}

/* A call between the hosts. Moves that the device has only begun are waited for: another rank may
 * need them before it comes to this call, and not every device goes on by itself. */
static void begin_on_hosts(Comm *c, enum CommOp op, const char *what, size_t bytes) {
    if (c->nflying) exec_sync(c->ex);
    show(c, op, what);
    begin(c, op, COMM_BYTES, what, bytes);
}

static void end_call(Comm *c, uint64_t number) {
    double start = op_clock();
    if (c->watch.end) c->watch.end(c->watch.context, number);
    c->work.signing += op_clock() - start;
}

/* Of the last call. */
static void end(Comm *c) {
    end_call(c, c->work.calls - 1);
}

static void end_on_hosts(Comm *c) {
    end(c);
    unshow(c);
}

/* Of the last call, of which the device may only have begun the moves. */
static void end_of_moves(Comm *c, const Exec *ex) {
    unshow(c);
    if (!ex->device->join) {
        end(c);
        return;
    }
    if (c->nflying == c->room) {
        c->room = c->room ? 2 * c->room : 64;
        c->flying = realloc(c->flying, c->room * sizeof *c->flying);
        CHECK(c->flying, "out of memory");
    }
    c->flying[c->nflying++] = c->work.calls - 1;
}

static void on_landed(void *comm, double stood) {
    Comm *c = comm;
    c->work.carried += stood;
    for (size_t i = 0; i < c->nflying; i++) end_call(c, c->flying[i]);
    c->nflying = 0;
}

static void on_wait(void *comm) {
    comm_beat(comm);
}

static void give_up(void *comm, const char *why) {
    Comm *c = comm;
    if (c->watch.fail) c->watch.fail(c->watch.context, why);
    fprintf(stderr, "sails: rank %d: %s\n", c->seat.rank, why);
    comm_abort(c, RANK_FAILED);
}

/* A rank that waits for others leaves them the processors; one whose bytes move needs its own,
 * because this MPI moves them only while it is asked. */
enum Pace { RESTING, EAGER };
static void wait_done(Comm *c, enum Pace pace, double *seconds) {
    enum { LOOKS = 100 };
    static const struct timespec rest = {0, 100000};
    double start = op_clock();
    for (int looks = 0;; looks++) {
        enum TransportState state = c->via->poll();
        if (state == TRANSPORT_DONE) break;
        if (state == TRANSPORT_FAILED) give_up(c, c->via->why());
        if (c->watch.wait) c->watch.wait(c->watch.context);
        if (pace == EAGER || looks < LOOKS)
            sched_yield();
        else
            nanosleep(&rest, NULL);
    }
    *seconds += op_clock() - start;
}

static void arrive(Comm *c) {
    c->via->barrier();
    wait_done(c, RESTING, &c->work.waited);
}

static void carry(Comm *c, const Move *move, int n, enum Pace pace, double *seconds) {
    for (int i = 0; i < n; i++) c->work.sent += move[i].from_bytes;
    c->via->move(move, n);
    wait_done(c, pace, seconds);
}

void comm_carry(Comm *c, const Move *move, int n) {
    carry(c, move, n, EAGER, &c->work.carried);
}

/* ---------------------------------------------------------------------- between the hosts -- */

void comm_barrier(Comm *c, const char *what) {
    if (!c) return;
    begin_on_hosts(c, COMM_BARRIER, what, 0);
    arrive(c);
    end_on_hosts(c);
}

void comm_share(Comm *c, const char *what, void *all, size_t bytes) {
    if (!c) return;
    char *block = all;
    int n = 0;
    begin_on_hosts(c, COMM_SHARE, what, bytes);
    for (int r = 0; r < c->seat.size; r++)
        if (r != c->seat.rank)
            c->move[n++] = (Move){r, block + (size_t)c->seat.rank * bytes, bytes,
                                  block + (size_t)r * bytes, bytes};
    carry(c, c->move, n, RESTING, &c->work.waited);
    end_on_hosts(c);
}

void comm_broadcast(Comm *c, const char *what, void *p, size_t bytes) {
    if (!c) return;
    int n = 0;
    begin_on_hosts(c, COMM_BROADCAST, what, bytes);
    arrive(c);
    if (c->seat.rank > 0)
        c->move[n++] = (Move){0, NULL, 0, p, bytes};
    else
        for (int r = 1; r < c->seat.size; r++) c->move[n++] = (Move){r, p, bytes, NULL, 0};
    comm_carry(c, c->move, n);
    end_on_hosts(c);
}

static void *copy_of(const void *own, size_t n) {
    void *p = malloc(n ? n : 1);
    CHECK(p, "out of memory: %zu bytes", n);
    if (n) memcpy(p, own, n);
    return p;
}

void comm_collect(Comm *c, const char *what, const void *own, size_t own_n, void **part,
                  size_t *n) {
    if (!c) {
        part[0] = copy_of(own, own_n), n[0] = own_n;
        return;
    }
    size_t *size = calloc((size_t)c->seat.size, sizeof *size);
    CHECK(size, "out of memory");
    size[c->seat.rank] = own_n;
    comm_share(c, what, size, sizeof *size);
    int moves = 0;
    begin_on_hosts(c, COMM_COLLECT, what, 0);
    for (int r = 0; r < c->seat.size && c->seat.rank == 0; r++) {
        n[r] = size[r];
        part[r] = r ? malloc(n[r] ? n[r] : 1) : copy_of(own, own_n);
        CHECK(part[r], "out of memory: %zu bytes", n[r]);
        if (r) c->move[moves++] = (Move){r, NULL, 0, part[r], n[r]};
    }
    if (c->seat.rank > 0) c->move[moves++] = (Move){0, own, own_n, NULL, 0};
    comm_carry(c, c->move, moves);
    end_on_hosts(c);
    free(size);
}

/* -------------------------------------------------------------------- between the devices -- */

CommGroup comm_all(const Comm *c) {
    return (CommGroup){.stride = 1, .size = comm_size(c)};
}

int comm_member(const Comm *c, CommGroup g) {
    return g.size ? (comm_rank(c) - g.first) / g.stride : 0;
}

bool comm_machines(const Comm *c, CommGroup *machine, CommGroup *others) {
    int each = c ? c->machine_ranks : 0;
    if (!each) return false;
    *machine = (CommGroup){.first = c->seat.rank / each * each, .stride = 1, .size = each};
    *others =
        (CommGroup){.first = c->seat.rank % each, .stride = each, .size = c->seat.size / each};
    return true;
}

CommPart comm_part(CommGroup g, size_t n, int member) {
    if (g.part) return g.part[member];
    size_t blocks = (n + BLOCK - 1) / BLOCK, size = (size_t)g.size;
    size_t each = (blocks + size - 1) / size * BLOCK, at = each * (size_t)member;
    if (at > n) at = n;
    return (CommPart){at, n - at < each ? n - at : each};
}

bool comm_behind(const Exec *ex) {
    return ex->device->join != NULL;
}

/* Ends the call. What a device moves by itself is counted here. */
static void move_between(Comm *c, Exec *ex, int moves) {
    if (ex->device->join)
        for (int i = 0; i < moves; i++) c->work.sent += c->move[i].from_bytes;
    ex->device->move(ex, c, c->move, moves);
    end_of_moves(c, ex);
}

const char *comm_join(Comm *c, Exec *ex) {
    static char why[512];
    char id[DEVICE_JOB_ID] = "";
    if (!c || !ex->device->join) return NULL;
    c->ex = ex;
    const char *failed = comm_root(c) ? ex->device->job_id(id) : NULL;
    if (failed) snprintf(why, sizeof why, "%s", failed);
    comm_broadcast(c, "why the devices cannot meet", why, sizeof why);
    if (*why) return why;
    comm_broadcast(c, "id of the devices' job", id, sizeof id);
    DeviceJob job = {c->seat.rank, c->seat.size, on_wait, give_up, on_landed, c};
    begin(c, COMM_DEVICES, COMM_BYTES, "", 0);
    failed = ex->device->join(ex, id, &job);
    end(c);
    return failed;
}

void comm_part_devices(Comm *c, Exec *ex) {
    if (!c || !ex->device->join) return;
    begin_on_hosts(c, COMM_DEVICES, "", 0);
    ex->device->part(ex);
    end_on_hosts(c);
    c->ex = NULL;
}

/* Is n the part of the whole that a member of such a group has? */
static bool own_part(const Comm *c, CommGroup g, size_t n) {
    CommGroup machine, others;
    return comm_machines(c, &machine, &others) &&
           n == comm_part(machine, g.whole, comm_member(c, machine)).n;
}

/* Meets the others first, where the device does not by itself. Parts of a whole differ in size from
 * rank to rank: the call as all should make it is of the whole. */
static void begin_moves(Comm *c, Exec *ex, CommGroup g, enum CommOp op, enum Dtype type,
                        const char *what, size_t n) {
    size_t all = g.whole ? g.whole : n;
    CHECK(!g.whole || own_part(c, g, n), "%zu elements are no part of %zu", n, g.whole);
    show(c, op, what);
    begin(c, op, type == DTYPE_F32 ? COMM_F32 : COMM_BF16, what, all * dtype_size(type));
    if (!ex->device->join) arrive(c);
}

void comm_exchange(Comm *c, Exec *ex, CommGroup g, const char *what, float *parts, const float *x,
                   size_t n, int givers) {
    CHECK(givers >= 0 && givers <= g.size, "%d givers of %d", givers, g.size);
    int me = comm_member(c, g), moves = 0;
    CommPart own = comm_part(g, n, me);
    if (me < givers) exec_copy(ex, parts + (size_t)me * own.n, x + own.at, own.n * sizeof *parts);
    if (!c) return;
    begin_moves(c, ex, g, COMM_EXCHANGE, DTYPE_F32, what, n);
    for (int i = 0; i < g.size; i++) {
        CommPart theirs = comm_part(g, n, i);
        if (i == me) continue;
        c->move[moves++] =
            (Move){g.first + i * g.stride, x + theirs.at, me < givers ? theirs.n * sizeof *x : 0,
                   parts + (size_t)i * own.n, i < givers ? own.n * sizeof *x : 0};
    }
    move_between(c, ex, moves);
}

static void all_gather(Comm *c, Exec *ex, CommGroup g, const char *what, enum Dtype type, void *x,
                       size_t n) {
    if (!c) return;
    char *byte = x;
    size_t size = dtype_size(type);
    int me = comm_member(c, g), moves = 0;
    CommPart own = comm_part(g, n, me);
    CHECK(own.n * size % sizeof(float) == 0, "%zu elements of %zu bytes", own.n, size);
    begin_moves(c, ex, g, COMM_ALL_GATHER, type, what, n);
    for (int i = 0; i < g.size; i++) {
        CommPart theirs = comm_part(g, n, i);
        if (i != me)
            c->move[moves++] = (Move){g.first + i * g.stride, byte + own.at * size, own.n * size,
                                      byte + theirs.at * size, theirs.n * size};
    }
    move_between(c, ex, moves);
}

void comm_all_gather(Comm *c, Exec *ex, CommGroup g, const char *what, float *x, size_t n) {
    all_gather(c, ex, g, what, DTYPE_F32, x, n);
}

void comm_all_gather_stores(Comm *c, Exec *ex, CommGroup g, const char *what, store *x, size_t n) {
    all_gather(c, ex, g, what, ex->dtype, x, n);
}

void comm_arrived(Comm *c, Exec *ex) {
    if (c && ex->device->join) ex->device->arrive(ex);
}

void comm_close(Comm *c) {
    if (!c) return;
    /* A call of its own: who stays in it is to be told .. */
    begin(c, COMM_BARRIER, COMM_BYTES, "all work", 0);
    arrive(c);
    end(c);
    /* .. from those who wait for it here, as silent */
    begin(c, COMM_CLOSE, COMM_BYTES, "", 0);
    c->via->close();
    end(c);
    free(c->flying);
    free(c->move);
    free(c);
}
