/* board.h - what each rank of a job does now, where the others of its machine can read it whatever
 * has become of that rank: memory that they share, one seat for each rank, written by nobody else.
 *
 * A seat has a ring of the rank's last calls (comm.h). An entry is written first, `begun` counts it
 * then: so a reader may use entry k as long as begun is in k + 1 .. k + BOARD_CALLS - 1. */
#ifndef SAILS_BOARD_H
#define SAILS_BOARD_H

#include <stdatomic.h>

#include "data/base/err.h"
#include "kernels/comm.h"

enum { BOARD_CALLS = 256 };

typedef struct BoardCall {
    uint64_t number;
    enum CommOp op;
    enum CommType type;
    char what[40], phase[16];
    uint64_t bytes;
    int step;
    double begun, ended; /* seconds, clock_seconds; ended 0: not yet */
} BoardCall;

/* EMPTY: of another machine. LEFT: it ended without having met the others for that. */
#define SEAT_STATES(X)         \
    X(SEAT_EMPTY, "elsewhere") \
    X(SEAT_WORKING, "working") \
    X(SEAT_FAILED, "failed")   \
    X(SEAT_LEFT, "left")       \
    X(SEAT_DONE, "done")
enum SeatState { SEAT_STATES(CHOICE_ENUM) };

typedef struct BoardSeat {
    _Atomic int state;
    bool remote;  /* what another machine has told (board_link.h) .. */
    double heard; /* .. and when */
    int pid;
    uint64_t started; /* of the process, as the system counts: a pid may be given again */
    char host[64];
    _Atomic uint64_t begun, ended; /* calls */
    _Atomic double beat;           /* when the rank last showed that it is at work */
    int code;                      /* of a failed seat: what it ends with, and why */
    char why[sizeof((Err *)0)->text];
    BoardCall call[BOARD_CALLS];
} BoardSeat;

typedef struct Board {
    /* Who first finds that the job cannot go on takes the verdict (1 + its rank; below 0: from one
     * who has not gone on), then fills it, then sets `code`, with which all ranks end. */
    _Atomic int taken;
    char verdict[sizeof((Err *)0)->text];
    _Atomic int code;
    _Atomic bool said;     /* the verdict is printed and written down, for which the end waits */
    _Atomic bool together; /* all ranks have failed alike, and meet to end */
    int size;
    BoardSeat seat[]; /* (size) */
} Board;

/* The board of this machine's ranks, with its own seat taken: all ranks. */
bool board_open(Board **b, Comm *c, Err *err);
void board_close(Board *b);

/* What a process is doing by what the system says: 'R', 'S', 'T' stopped ..; 0: it is gone; '?':
 * the system does not say, which is no sign of either. */
char board_process(const BoardSeat *s);

/* True, and a copy, if the rank has begun call k and its entry is still there. */
bool board_call(BoardCall *to, const BoardSeat *s, uint64_t k);

/* "call 17, exchange of gradients (1,234 bytes), step 3". */
enum { BOARD_CALL_ROOM = 160 };
const char *board_call_text(char text[BOARD_CALL_ROOM], const BoardCall *call);

/* All seats with their rings, as JSON; and such a file as a table: where each rank stood, and the
 * last calls, side by side. */
bool board_dump(const Board *b, const char *path, Err *err);
bool board_report(const char *path, Err *err);

#endif
