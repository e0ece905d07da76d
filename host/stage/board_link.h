/* board_link.h - boards of several machines as one: each machine's first rank tells rank 0 ten
 * times a second what its ranks do, and hears from it how the job ends.
 *
 * A machine that is suspended reads nothing for a while: what it would be told then is told later,
 * and it is gone only when its connection is. By TCP, beside MPI, in the watchdogs' threads: what
 * MPI or NCCL have stopped carrying still arrives. Rank 0 listens at a port that the system gives
 * it; where a machine cannot reach it, that machine judges by itself, and a line says so. Frames
 * hold structures as they lie in memory: all ranks run the same program. */
#ifndef SAILS_BOARD_LINK_H
#define SAILS_BOARD_LINK_H

#include "host/stage/board.h"

enum { BOARD_TOLD = 64 }; /* calls of a seat, at most, that are told at a time: the newest */

typedef struct BoardLink BoardLink;

/* All ranks. NULL: there is one machine, or this rank is not its machine's first. */
BoardLink *board_link_open(Board *b, Comm *c);

/* Sends and takes what there is, without waiting. A machine that has gone is found here: its first
 * rank, or -1. NULL is allowed. */
int board_link_look(BoardLink *l);

/* When a machine last had a sign of rank 0's life; now: rank 0 is here, or out of reach. NULL is
 * allowed. */
double board_link_heard(const BoardLink *l);

/* Before how many other machines without rank 0 this one does not speak of what all of them see.
 * NULL is allowed. */
int board_link_turn(const BoardLink *l);

/* The board's verdict, with which all machines are to end. NULL is allowed. */
void board_link_tell(BoardLink *l, int code);

/* Rank 0's word that all ranks have failed alike, and meet to end; and what a machine's ranks have
 * come to, for the last time. NULL is allowed. */
void board_link_together(BoardLink *l);
void board_link_last(BoardLink *l);
void board_link_close(BoardLink *l); /* NULL is allowed */

#endif
