/* ranks_cuda.c - moves between the memories of the ranks' GPUs, by NCCL.
 *
 * NCCL is loaded when ranks join: a plug-in for one rank needs none of it. The communicator does
 * not block, and all waiting, for copies too, is done here, where NCCL and the job are asked again
 * and again whether it goes on: a rank that is gone would otherwise hold up the others for ever.
 * Moves are grouped sends and receives, on a stream of their own: NCCL adds nothing. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/check.h"
#include "kernels/cuda.h"

#if __has_include(<nccl.h>)
#include <nccl.h>

/* clang-format off */
#define NCCL_CALLS(X) \
    X(ncclGetUniqueId) X(ncclCommInitRankConfig) X(ncclCommGetAsyncError) X(ncclGroupStart) \
    X(ncclGroupEnd) X(ncclSend) X(ncclRecv) X(ncclCommFinalize) X(ncclCommDestroy) \
    X(ncclGetErrorString) X(ncclGetLastError)
/* clang-format on */

/* Where they are linked in, as the simulated device's are, those are taken. */
#define PRAGMA(words) _Pragma(#words)
#define X(name) PRAGMA(weak name)
NCCL_CALLS(X)
#undef X

typedef struct Nccl {
#define X(name) __typeof__(&name) name;
    NCCL_CALLS(X)
#undef X
} Nccl;

/* Where the Exec's work waits for moves: from the first event to the second. */
enum { STANDS = 64 };
typedef struct Stand {
    cudaEvent_t from, to;
} Stand;

struct CudaRanks {
    Nccl nccl;
    ncclComm_t comm;
    DeviceJob job;
    cudaStream_t stream;       /* of the moves: they go on behind the Exec's work */
    cudaEvent_t before, moved; /* the Exec's work that they read; the last of them */
    Stand stand[STANDS];
    int stands; /* since all work was last waited for */
};

_Static_assert(DEVICE_JOB_ID == sizeof(ncclUniqueId), "NCCL's id has another size");

static char why_text[512];

static bool take(void *lib, const char *name, void *linked, void *to) {
    void *symbol = linked ? linked : dlsym(lib, name);
    memcpy(to, &symbol, sizeof symbol);
    return symbol != NULL;
}

/* NULL, or why not. The library stays open: it does not unload cleanly. */
static const char *load(Nccl *n) {
    void *lib = NULL, *linked = NULL;
    __typeof__(&ncclSend) send = &ncclSend;
    memcpy(&linked, &send, sizeof linked);
    if (!linked && !(lib = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL))) {
        snprintf(why_text, sizeof why_text,
                 "NCCL does not load (%s); install it (Python's nvidia-nccl-cu13, or the system's "
                 "libnccl2) and put its folder in LD_LIBRARY_PATH",
                 dlerror());
        return why_text;
    }
#define X(name)                                                                            \
    {                                                                                      \
        __typeof__(&name) own_ = &name;                                                    \
        memcpy(&linked, &own_, sizeof linked);                                             \
        if (!take(lib, #name, linked, &n->name)) return "NCCL is too old: 2.14 is needed"; \
    }
    NCCL_CALLS(X)
#undef X
    return NULL;
}

static const char *describe(const Nccl *n, ncclComm_t comm, const char *call, ncclResult_t r) {
    const char *last = n->ncclGetLastError(comm);
    snprintf(why_text, sizeof why_text, "%s: %s%s%.300s", call, n->ncclGetErrorString(r),
             last && *last ? ": " : "", last ? last : "");
    why_text[strcspn(why_text, "\n")] = 0;
    return why_text;
}

static void rest(void) {
    static const struct timespec moment = {0, 20000};
    nanosleep(&moment, NULL);
}

/* Until NCCL has done what it was asked to begin: kernels may not be on the stream before. */
static ncclResult_t settle(CudaRanks *r, ncclResult_t result) {
    while (result == ncclInProgress) {
        ncclResult_t state = r->nccl.ncclCommGetAsyncError(r->comm, &result);
        if (state != ncclSuccess) return state;
        r->job.wait(r->job.context);
        if (result == ncclInProgress) rest();
    }
    return result;
}

/* Does not return. */
static void fail(CudaRanks *r, const char *call, ncclResult_t result) {
    r->job.fail(r->job.context, describe(&r->nccl, r->comm, call, result));
}

static void check(CudaRanks *r, const char *call, ncclResult_t result) {
    if (result != ncclSuccess && result != ncclInProgress) fail(r, call, result);
}

const char *ranks_id(char id[DEVICE_JOB_ID]) {
    Nccl n;
    ncclUniqueId made;
    const char *why = load(&n);
    if (why) return why;
    ncclResult_t r = n.ncclGetUniqueId(&made);
    if (r != ncclSuccess) return describe(&n, NULL, "ncclGetUniqueId", r);
    memcpy(id, &made, sizeof made);
    return NULL;
}

const char *ranks_join(Exec *ex, const char id[DEVICE_JOB_ID], const DeviceJob *job) {
    CudaRanks *r = calloc(1, sizeof *r);
    ncclUniqueId common;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    CHECK(r, "out of memory");
    r->job = *job;
    memcpy(&common, id, sizeof common);
    config.blocking = 0;
    const char *blocking = getenv("NCCL_COMM_BLOCKING");
    const char *why =
        blocking && strcmp(blocking, "1") == 0
            ? "NCCL_COMM_BLOCKING=1: a rank that is gone would hold up the others for "
              "ever; unset it"
            : load(&r->nccl);
    if (!why) {
        ncclResult_t result = settle(
            r, r->nccl.ncclCommInitRankConfig(&r->comm, job->ranks, common, job->rank, &config));
        if (result != ncclSuccess) why = describe(&r->nccl, NULL, "ncclCommInitRankConfig", result);
    }
    if (why) {
        free(r);
        return why;
    }
    CUDA_CHECK(cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking));
    CUDA_CHECK(cudaEventCreateWithFlags(&r->before, cudaEventDisableTiming));
    CUDA_CHECK(cudaEventCreateWithFlags(&r->moved, cudaEventDisableTiming));
    for (int i = 0; i < STANDS; i++) {
        CUDA_CHECK(cudaEventCreateWithFlags(&r->stand[i].from, 0));
        CUDA_CHECK(cudaEventCreateWithFlags(&r->stand[i].to, 0));
    }
    cuda_state(ex)->ranks = r;
    return NULL;
}

/* They move as f32, whatever they are: whole multiples of it. */
void ranks_move(Exec *ex, struct Comm *c, const Move *move, int n) {
    CudaState *s = cuda_state(ex);
    CudaRanks *r = s->ranks;
    (void)c;
    CUDA_CHECK(cudaEventRecord(r->before, s->stream));
    CUDA_CHECK(cudaStreamWaitEvent(r->stream, r->before, 0));
    check(r, "ncclGroupStart", r->nccl.ncclGroupStart());
    for (const Move *m = move; m < move + n; m++) {
        size_t out = m->from_bytes / sizeof(float), in = m->to_bytes / sizeof(float);
        if (out)
            check(r, "ncclSend",
                  r->nccl.ncclSend(m->from, out, ncclFloat32, m->peer, r->comm, r->stream));
        if (in)
            check(r, "ncclRecv",
                  r->nccl.ncclRecv(m->to, in, ncclFloat32, m->peer, r->comm, r->stream));
    }
    ncclResult_t result = settle(r, r->nccl.ncclGroupEnd());
    if (result != ncclSuccess) fail(r, "ncclGroupEnd", result);
    CUDA_CHECK(cudaEventRecord(r->moved, r->stream));
}

void ranks_arrive(Exec *ex) {
    CudaState *s = cuda_state(ex);
    CudaRanks *r = s->ranks;
    if (r->stands == STANDS) ranks_wait(s);
    const Stand *stand = &r->stand[r->stands++];
    CUDA_CHECK(cudaEventRecord(stand->from, s->stream));
    CUDA_CHECK(cudaStreamWaitEvent(s->stream, r->moved, 0));
    CUDA_CHECK(cudaEventRecord(stand->to, s->stream));
}

/* A stream that waits for a rank that is gone never ends: so NCCL and the job are asked meanwhile.
 */
static void ask(CudaRanks *r) {
    ncclResult_t result = ncclSuccess;
    r->nccl.ncclCommGetAsyncError(r->comm, &result);
    check(r, "a move between ranks", result);
    r->job.wait(r->job.context);
    rest();
}

void ranks_wait(CudaState *s) {
    CudaRanks *r = s->ranks;
    cudaError_t e;
    while ((e = cudaStreamQuery(r->stream)) == cudaErrorNotReady ||
           (e == cudaSuccess && (e = cudaStreamQuery(s->stream)) == cudaErrorNotReady))
        ask(r);
    CUDA_CHECK(e);
    double stood = 0;
    for (float ms; r->stands > 0; stood += 1e-3 * (double)ms) {
        const Stand *stand = &r->stand[--r->stands];
        CUDA_CHECK(cudaEventElapsedTime(&ms, stand->from, stand->to));
    }
    r->job.landed(r->job.context, stood);
}

void ranks_wait_event(CudaState *s, cudaEvent_t event) {
    cudaError_t e;
    while ((e = cudaEventQuery(event)) == cudaErrorNotReady) ask(s->ranks);
    CUDA_CHECK(e);
}

void ranks_part(Exec *ex) {
    CudaState *s = cuda_state(ex);
    CudaRanks *r = s->ranks;
    ranks_wait(s);
    ncclResult_t result = settle(r, r->nccl.ncclCommFinalize(r->comm));
    if (result != ncclSuccess) fail(r, "ncclCommFinalize", result);
    check(r, "ncclCommDestroy", r->nccl.ncclCommDestroy(r->comm));
    for (int i = 0; i < STANDS; i++) {
        CUDA_CHECK(cudaEventDestroy(r->stand[i].to));
        CUDA_CHECK(cudaEventDestroy(r->stand[i].from));
    }
    CUDA_CHECK(cudaEventDestroy(r->moved));
    CUDA_CHECK(cudaEventDestroy(r->before));
    CUDA_CHECK(cudaStreamDestroy(r->stream));
    ranks_abandon(s);
}

void ranks_abandon(CudaState *s) {
    free(s->ranks);
    s->ranks = NULL;
}

#else /* this toolkit has no NCCL: one rank alone */
const char *ranks_id(char id[DEVICE_JOB_ID]) {
    (void)id;
    return "the CUDA plug-in was built without nccl.h; install it (Python's nvidia-nccl-cu13) and "
           "build sails again";
}
const char *ranks_join(Exec *ex, const char id[DEVICE_JOB_ID], const DeviceJob *job) {
    (void)ex, (void)id, (void)job;
    return ranks_id(NULL);
}
void ranks_move(Exec *ex, struct Comm *c, const Move *move, int n) {
    (void)ex, (void)c, (void)move, (void)n;
}
void ranks_wait(CudaState *s) {
    (void)s;
}
void ranks_wait_event(CudaState *s, cudaEvent_t event) {
    (void)s, (void)event;
}
void ranks_arrive(Exec *ex) {
    (void)ex;
}
void ranks_part(Exec *ex) {
    (void)ex;
}
void ranks_abandon(CudaState *s) {
    (void)s;
}
#endif
