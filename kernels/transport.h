/* transport.h - what a library that moves bytes between the ranks' host memories supplies behind
 * comm.h. It is a plug-in, libsails_mpi.so, so that sails starts where there is no MPI, and so that
 * a site can build it against its own: this header and transport_mpi.c are all that it takes,
 *
 *   mpicc -O2 -shared -fPIC -I SAILS -o libsails_mpi.so SAILS/kernels/transport_mpi.c */
#ifndef SAILS_TRANSPORT_H
#define SAILS_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>

/* What one rank gives to another and takes from it; either may be 0 bytes. */
typedef struct Move {
    int peer;
    const void *from;
    size_t from_bytes;
    void *to;
    size_t to_bytes;
} Move;

typedef struct TransportSeat {
    int rank, size;             /* among all */
    int local_rank, local_size; /* among those of this machine */
    int leader;                 /* the rank here that is local rank 0 */
} TransportSeat;

/* All calls come from one thread. Of barrier and move at most one is under way; memory that a move
 * names stays as it is until then. */
enum TransportState { TRANSPORT_BUSY, TRANSPORT_DONE, TRANSPORT_FAILED };
typedef struct Transport {
    const char *(*open)(TransportSeat *seat); /* NULL, or why not */
    void (*barrier)(void);                    /* done when all ranks have called it */
    /* Between any two ranks the bytes given are those taken, call by call. Not from one to itself.
     */
    void (*move)(const Move *move, int n);
    enum TransportState (*poll)(void); /* of the call under way; its progress is made here */
    const char *(*why)(void);          /* after TRANSPORT_FAILED */
    void (*abort)(int code);           /* ends all ranks; the launcher ends with the code */
    void (*close)(void);               /* all ranks; no call may follow */
    const char *(*library)(void);      /* "Open MPI v4.1.4": what it was started with */
} Transport;

/* The plug-in's export. `abi` is TRANSPORT_ABI of the caller; another value returns NULL. */
#define TRANSPORT_ABI 1
typedef const Transport *sails_transport_fn(int abi);

#endif
