/* transport_mpi.c - bytes between ranks by MPI: the plug-in libsails_mpi.so (transport.h). */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/transport.h"

enum { PIECE = 1 << 30, TAG = 1 }; /* MPI counts in int: more bytes go in several messages */

static MPI_Comm world; /* our own, so that no other library's messages meet ours */
static MPI_Request *request;
static MPI_Status *status; /* as many */
static int requests, capacity;
static int failure = MPI_SUCCESS; /* the first one's code */

static void note(int code) {
    if (failure == MPI_SUCCESS) failure = code;
}

static const char *mpi_open(TransportSeat *seat) {
    int level;
    MPI_Comm local;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS)
        return "MPI could not be started";
    if (level < MPI_THREAD_FUNNELED) return "this MPI cannot be used by a program with threads";
    MPI_Comm_dup(MPI_COMM_WORLD, &world);
    MPI_Comm_set_errhandler(world, MPI_ERRORS_RETURN);
    MPI_Comm_rank(world, &seat->rank);
    MPI_Comm_size(world, &seat->size);
    MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, seat->rank, MPI_INFO_NULL, &local);
    MPI_Comm_rank(local, &seat->local_rank);
    MPI_Comm_size(local, &seat->local_size);
    seat->leader = seat->rank;
    MPI_Bcast(&seat->leader, 1, MPI_INT, 0, local);
    MPI_Comm_free(&local);
    return NULL;
}

static MPI_Request *next_request(void) {
    if (requests == capacity) {
        capacity = capacity ? 2 * capacity : 64;
        request = realloc(request, (size_t)capacity * sizeof *request);
        status = realloc(status, (size_t)capacity * sizeof *status);
        if (!request || !status) MPI_Abort(MPI_COMM_WORLD, 1);
    }
    request[requests] = MPI_REQUEST_NULL;
    return &request[requests++];
}

static void mpi_barrier(void) {
    note(MPI_Ibarrier(world, next_request()));
}

static int piece(size_t left) {
    return left < PIECE ? (int)left : PIECE;
}

static void mpi_move(const Move *move, int n) {
    for (const Move *m = move; m < move + n; m++)
        for (size_t at = 0; at < m->to_bytes; at += PIECE)
            note(MPI_Irecv((char *)m->to + at, piece(m->to_bytes - at), MPI_BYTE, m->peer, TAG,
                           world, next_request()));
    for (const Move *m = move; m < move + n; m++)
        for (size_t at = 0; at < m->from_bytes; at += PIECE)
            note(MPI_Isend((const char *)m->from + at, piece(m->from_bytes - at), MPI_BYTE, m->peer,
                           TAG, world, next_request()));
}

/* What one of several requests has met: Testall itself only says that some have met something. */
static int cause_of(int code) {
    for (int i = 0; i < requests && code == MPI_ERR_IN_STATUS; i++) {
        int kind = MPI_SUCCESS;
        MPI_Error_class(status[i].MPI_ERROR, &kind);
        if (kind != MPI_SUCCESS && kind != MPI_ERR_PENDING) code = status[i].MPI_ERROR;
    }
    return code;
}

static enum TransportState mpi_poll(void) {
    int done = 0;
    note(cause_of(MPI_Testall(requests, request, &done, status)));
    if (failure != MPI_SUCCESS) return TRANSPORT_FAILED;
    if (done) requests = 0;
    return done ? TRANSPORT_DONE : TRANSPORT_BUSY;
}

static const char *mpi_why(void) {
    static char text[MPI_MAX_ERROR_STRING];
    int n;
    MPI_Error_string(failure, text, &n);
    return text;
}

static void mpi_abort(int code) {
    MPI_Abort(MPI_COMM_WORLD, code);
}

static void mpi_close(void) {
    free(request), free(status);
    request = NULL, status = NULL, capacity = 0;
    MPI_Comm_free(&world);
    MPI_Finalize();
}

static const char *mpi_library(void) {
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int n;
    MPI_Get_library_version(text, &n);
    text[strcspn(text, ",\n")] = 0;
    for (char *p = text; *p; p++)
        if (*p == '\t') *p = ' ';
    return text;
}

__attribute__((visibility("default"))) const Transport *sails_transport(int abi);
const Transport *sails_transport(int abi) {
    static const Transport mpi = {.open = mpi_open,
                                  .barrier = mpi_barrier,
                                  .move = mpi_move,
                                  .poll = mpi_poll,
                                  .why = mpi_why,
                                  .abort = mpi_abort,
                                  .close = mpi_close,
                                  .library = mpi_library};
    return abi == TRANSPORT_ABI ? &mpi : NULL;
}
