/* comm_impl.h - what comm.c and comm_open.c share. */
#ifndef SAILS_COMM_IMPL_H
#define SAILS_COMM_IMPL_H

#include "kernels/comm.h"

struct Comm {
    const Transport *via;
    TransportSeat seat;
    int machine_ranks; /* of each of several machines that are alike; 0: no such */
    Move *move;        /* (seat.size) of the call under way */
    CommWatch watch;
    const char *phase;
    int step;
    double deadline, fixed_deadline;
    CommWork work;
    uint64_t *flying; /* (nflying) calls that a device has only begun */
    size_t nflying, room;
    Exec *ex; /* whose they are */
};

Comm *comm_make(const Transport *via, TransportSeat seat);

#endif
