/* comm.h - ranks: the processes of one job, each with a device of its own.
 *
 * A Comm is this process's seat among them; NULL is a job of one rank. Its calls are collective:
 * every rank makes the same ones, in the same order, with the same sizes. Nothing is added on the
 * way, for libraries add in an order of their own: values are exchanged, and an op adds them in
 * the order that the model asks for (grad_tree.h).
 *
 * No call returns a failure. One that cannot end stops the job: whoever watches over it (CommWatch)
 * says which rank is missing, and all ranks end with EXIT_RANK. */
#ifndef SAILS_COMM_H
#define SAILS_COMM_H

#include <stdint.h>

#include "kernels/exec.h"
#include "kernels/transport.h"

typedef struct Comm Comm;

/* Where a launcher says that it has put this process: known before MPI is there. */
typedef struct CommLaunch {
    const char *by; /* "mpirun", "srun" ..; NULL: none, and rank 0 of 1 */
    int rank, size, local_rank;
} CommLaunch;
CommLaunch comm_launch(void);

/* Joins the job that a launcher has started; alone NULL is the Comm, and MPI is not looked for.
 * The plug-in is libsails_mpi.so beside the program, or the file that SAILS_MPI_PLUGIN names.
 * Returns NULL, or one sentence that says why the ranks cannot meet (static storage). */
const char *comm_open(Comm **c);
void comm_close(Comm *c); /* all ranks, after their last call; frees c */

/* Ends all ranks, the launcher with this code. */
__attribute__((noreturn)) void comm_abort(Comm *c, int code);

int comm_rank(const Comm *c);
int comm_size(const Comm *c);
bool comm_root(const Comm *c); /* the rank that alone writes and prints: 0 */
TransportSeat comm_seat(const Comm *c);
const char *comm_library(const Comm *c); /* of a job of several ranks */

/* ---------------------------------------------------------------------- between the hosts -- */

/* `what` names the data in messages, up to 39 bytes, and tells calls apart that ranks should make
 * one after the other: it outlives the call. */
void comm_barrier(Comm *c, const char *what);

/* all (size,bytes): every rank gets every rank's block; its own is there before. */
void comm_share(Comm *c, const char *what, void *all, size_t bytes);

/* Rank 0's bytes to all. */
void comm_broadcast(Comm *c, const char *what, void *p, size_t bytes);

/* Any number of bytes from each rank to rank 0: there part[r] (n[r]) is rank r's, its own included,
 * each from malloc. On the others part and n are not used. */
void comm_collect(Comm *c, const char *what, const void *own, size_t own_n, void **part, size_t *n);

/* -------------------------------------------------------------------- between the devices -- */

/* Some of the ranks, in a row or at equal distances: member i is rank first + i stride. */
typedef struct CommGroup {
    int first, stride, size;
    size_t whole; /* elements, where this group moves this place's part (comm_part) of a machine's,
                   * and others at once move theirs; else 0 */
    const struct CommPart *part; /* (size) what is whose, borrowed; NULL: as comm_part has it */
} CommGroup;
CommGroup comm_all(const Comm *c);
int comm_member(const Comm *c, CommGroup g); /* which one this rank is */

/* Where the ranks are on several machines, in order, on each equally many, 2^j: those of this one,
 * and those that have this rank's place on theirs. False: there is one machine, or no such order.
 */
bool comm_machines(const Comm *c, CommGroup *machine, CommGroup *others);

/* n elements fall into one part per member: those that the group names, which must follow each
 * other, else parts of whole blocks of 64, of which the last ones may be empty. */
typedef struct CommPart {
    size_t at, n;
} CommPart;
CommPart comm_part(CommGroup g, size_t n, int member);

/* Both calls are those of a group's members alone. What they bring is there for ops that are called
 * after comm_arrived, and until then nobody may write to what they read. */

/* x (n) in: on the first `givers` members;  parts (givers, own part's n) out =: row i is member i's
 * elements of this one's part. Each gives and takes at most n (size-1)/size elements. */
void comm_exchange(Comm *c, Exec *ex, CommGroup g, const char *what, float *parts, const float *x,
                   size_t n, int givers);

/* x (n) in/out: this member's part in, all parts out. The same volume. */
void comm_all_gather(Comm *c, Exec *ex, CommGroup g, const char *what, float *x, size_t n);
/* The same of storage type; parts are whole multiples of 4 bytes. */
void comm_all_gather_stores(Comm *c, Exec *ex, CommGroup g, const char *what, store *x, size_t n);

void comm_arrived(Comm *c, Exec *ex);

/* Do bytes move while ops work? */
bool comm_behind(const Exec *ex);

/* For a device's `move` (device.h): between the ranks' host memories; waits. */
void comm_carry(Comm *c, const Move *move, int n);

/* Brings the ranks' devices together, where they do not meet through their hosts. Returns NULL, or
 * why not (static storage). All ranks. */
const char *comm_join(Comm *c, Exec *ex);

/* Before exec_close, where all went well: all ranks. */
void comm_part_devices(Comm *c, Exec *ex);

/* -------------------------------------------------------------------------- who watches -- */

/* X(value, word): what a call does. */
#define COMM_OPS(X)                       \
    X(COMM_BARRIER, "barrier")            \
    X(COMM_SHARE, "share")                \
    X(COMM_BROADCAST, "broadcast")        \
    X(COMM_COLLECT, "collect")            \
    X(COMM_EXCHANGE, "exchange")          \
    X(COMM_ALL_GATHER, "all-gather")      \
    X(COMM_DEVICES, "meeting of devices") \
    X(COMM_CLOSE, "end")
enum CommOp { COMM_OPS(CHOICE_ENUM) };

/* X(value, words): of what a call moves. */
#define COMM_TYPES(X)           \
    X(COMM_BYTES, "bytes")      \
    X(COMM_F32, "bytes of f32") \
    X(COMM_BF16, "bytes of bf16")
enum CommType { COMM_TYPES(CHOICE_ENUM) };

/* One call, as every rank should make it. What is collected may differ in size, and the givers of
 * an exchange in number, from machine to machine. */
typedef struct CommCall {
    uint64_t number; /* from 0 */
    enum CommOp op;
    enum CommType type;
    const char *what;  /* as the caller names it */
    size_t bytes;      /* of a rank's block, or of x, or of the whole that x is a part of */
    const char *phase; /* what comm_phase said last, static storage */
    int step;          /* 0: none */
    double deadline;   /* seconds that the others may take to come */
} CommCall;

typedef struct CommWatch {
    void (*begin)(void *context, const CommCall *call);
    void (*wait)(void *context); /* called again and again while a call waits; may end the job */
    void (*end)(void *context, uint64_t number);  /* of one that was begun; not always in order */
    void (*fail)(void *context, const char *why); /* the transport gave up: ends the job */
    void *context;                                /* borrowed */
} CommWatch;
void comm_watch(Comm *c, const CommWatch *watch);

/* This rank is at work: for loops in which others may wait for it longer than a deadline. */
void comm_beat(Comm *c);

/* What the ranks do now, and how long one may wait for another in it. comm_deadline: always so long
 * instead, unless 0. */
void comm_phase(Comm *c, const char *phase, int step, double deadline);
void comm_deadline(Comm *c, double seconds);

/* What it has cost since comm_open. */
typedef struct CommWork {
    uint64_t calls;
    size_t sent;    /* bytes */
    double waited;  /* seconds for other ranks to come */
    double carried; /* seconds while bytes moved; of a device that goes on meanwhile (comm_behind)
                     * only those in which its work stood still, for late ranks too */
    double signing; /* seconds in which calls were told to who watches */
} CommWork;
CommWork comm_work(const Comm *c);

#endif
