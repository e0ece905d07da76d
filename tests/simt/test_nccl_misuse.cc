/* Misuse of NCCL that its stand-in must report, planted; what it does when it is used as it should
 * be: test_nccl.cc. Cases as in test_simt.cc, each of several processes. */
#include <pthread.h>

#include "tests/simt/nccl_ranks.h"

enum { N = 8 };

static void wait_for(cudaStream_t s) {
    cudaStreamSynchronize(s);
}

/* One call that is wrong, and a wait. */
template <class Call>
static void wrongly(Call call) {
    ncclComm_t c = begin(0);
    float *x = values(rank, 0, N * ranks), *y = fresh<float>(N * ranks);
    expect(c, call(c, x, y));
    wait_for(stream);
    end(c);
    puts("not seen");
}

/* ------------------------------------------------------------ 1: the same on all ranks -- */

static ncclResult_t other_op(ncclComm_t c, float *x, float *y) {
    return rank ? ncclBroadcast(x, y, N, ncclFloat32, 0, c, stream)
                : ncclAllGather(x, y, N, ncclFloat32, c, stream);
}
static ncclResult_t other_count(ncclComm_t c, float *x, float *y) {
    return ncclAllGather(x, y, rank ? N : N - 1, ncclFloat32, c, stream);
}
static ncclResult_t other_type(ncclComm_t c, float *x, float *y) {
    return ncclAllGather(x, y, N, rank ? ncclInt32 : ncclFloat32, c, stream);
}
static ncclResult_t other_root(ncclComm_t c, float *x, float *y) {
    return ncclBroadcast(x, y, N, ncclFloat32, rank, c, stream);
}
static ncclResult_t other_reduction(ncclComm_t c, float *x, float *y) {
    return ncclAllReduce(x, y, N, ncclFloat32, rank ? ncclSum : ncclMax, c, stream);
}
static ncclResult_t empty_on_one(ncclComm_t c, float *x, float *y) {
    return ncclAlltoAll(x, y, rank ? 0 : N, ncclFloat32, c, stream);
}
static ncclResult_t left_out(ncclComm_t c, float *x, float *y) { /* the first of two by rank 1 */
    if (rank == 0) expect(c, ncclAllGather(x, y, N, ncclFloat32, c, stream));
    return ncclAlltoAll(x, y, N, ncclFloat32, c, stream);
}
static ncclResult_t finalized_early(ncclComm_t c, float *x, float *y) {
    return rank ? ncclSuccess : ncclAllGather(x, y, N, ncclFloat32, c, stream);
}

/* -------------------------------------------------------------------------- 2: messages -- */

static ncclResult_t swap(ncclComm_t c, const float *x, size_t sent, ncclDataType_t type, float *y,
                         size_t received) {
    ncclGroupStart();
    ncclSend(x, sent, type, 1 - rank, c, stream);
    ncclRecv(y, received, ncclFloat32, 1 - rank, c, stream);
    return ncclGroupEnd();
}
static ncclResult_t other_length(ncclComm_t c, float *x, float *y) {
    return swap(c, x, N, ncclFloat32, y, N - 1);
}
static ncclResult_t nothing_sent(ncclComm_t c, float *x, float *y) {
    return swap(c, x, rank ? 0 : N, ncclFloat32, y, N);
}
static ncclResult_t other_element(ncclComm_t c, float *x, float *y) {
    return swap(c, x, N, ncclInt32, y, N);
}
static ncclResult_t crossing(ncclComm_t c, float *x, float *y) {
    expect(c, ncclSend(x, N, ncclFloat32, 1 - rank, c, stream));
    return ncclRecv(y, N, ncclFloat32, 1 - rank, c, stream);
}
static ncclResult_t crossing_round(ncclComm_t c, float *x, float *y) { /* in a circle of three */
    expect(c, ncclRecv(y, N, ncclFloat32, (rank + 1) % ranks, c, stream));
    return ncclSend(x, N, ncclFloat32, (rank + ranks - 1) % ranks, c, stream);
}
static ncclResult_t only_received(ncclComm_t c, float *, float *y) {
    return ncclRecv(y, N, ncclFloat32, 1 - rank, c, stream);
}
static ncclResult_t to_itself(ncclComm_t c, float *x, float *y) {
    expect(c, ncclSend(x, N, ncclFloat32, rank, c, stream));
    return ncclRecv(y, N, ncclFloat32, rank, c, stream);
}
static ncclResult_t across_a_collective(ncclComm_t c, float *x, float *y) {
    if (rank) expect(c, ncclRecv(y, N, ncclFloat32, 0, c, stream));
    expect(c, ncclAllGather(x, y, N, ncclFloat32, c, stream));
    return rank ? ncclSuccess : ncclSend(x, N, ncclFloat32, 1, c, stream);
}
static ncclResult_t overlapping(ncclComm_t c, float *x, float *y) {
    ncclGroupStart();
    for (int i = 0; i < 2; i++) {
        ncclSend(x, N, ncclFloat32, 1 - rank, c, stream);
        ncclRecv(y + i * (N - 1), N, ncclFloat32, 1 - rank, c, stream);
    }
    return ncclGroupEnd();
}
static ncclResult_t sent_and_received(ncclComm_t c, float *x, float *) {
    return swap(c, x, N, ncclFloat32, x + N - 1, N);
}

/* ------------------------------------------------------------------------------ 3: lives -- */

static ncclResult_t start_as(ncclComm_t *c, int which, int me) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    return ncclCommInitRankConfig(c, ranks, world->id[which], me, &config);
}
static void id_again() {
    ncclComm_t again;
    begin(0);
    start_as(&again, 0, rank);
}
static void same_rank() {
    ncclComm_t c = nullptr;
    ncclResult_t started = start_as(&c, 0, 0);
    expect(c, started);
}
static void no_id() {
    ncclComm_t c;
    memset(&world->id[0], 0, sizeof world->id[0]);
    start_as(&c, 0, rank);
}
static void other_size() {
    ncclComm_t c = nullptr;
    ranks += rank;
    ncclResult_t started = start_as(&c, 0, rank);
    expect(c, started);
}
static void raw_config() {
    ncclConfig_t config = {};
    ncclComm_t c;
    ncclCommInitRankConfig(&c, ranks, world->id[0], rank, &config);
}
static void before_start() {
    ncclComm_t c;
    int count;
    if (rank == 0) start_as(&c, 0, rank), ncclCommCount(c, &count);
}

/* A call after `last`. */
template <class Last>
static void call_after(Last last) {
    ncclComm_t c = begin(0);
    int count;
    last(c);
    ncclCommCount(c, &count);
    puts("not seen");
}
static void finalize(ncclComm_t c) {
    ncclCommFinalize(c);
}
static void abort_it(ncclComm_t c) {
    ncclCommAbort(c);
}
static void fail_it(ncclComm_t c) { /* by SAILS_NCCL_FAULT */
    float *x = fresh<float>(N);
    ncclResult_t error;
    ncclBroadcast(x, x, N, ncclFloat32, 0, c, stream);
    ncclCommGetAsyncError(c, &error);
    printf("%s\n", ncclGetErrorString(error));
}
static void destroy_after_error(ncclComm_t c) {
    fail_it(c);
    ncclCommDestroy(c);
}
static void destroy_at_once(ncclComm_t c) {
    ncclCommDestroy(c);
}
static void destroy_too_early(ncclComm_t c) { /* rank 1 does not finalize */
    if (rank == 0) ncclCommFinalize(c), ncclCommDestroy(c);
    for (ncclResult_t error; ncclCommGetAsyncError(c, &error) == ncclSuccess;) usleep(LOOK);
}
static void finalize_in_group(ncclComm_t c) {
    ncclGroupStart();
    ncclCommFinalize(c);
}
static ncclResult_t group_left_open(ncclComm_t c, float *x, float *y) {
    ncclGroupStart();
    ncclAllGather(x, y, N, ncclFloat32, c, stream);
    exit(0);
}
static ncclResult_t group_not_open(ncclComm_t c, float *x, float *y) {
    expect(c, ncclAllGather(x, y, N, ncclFloat32, c, stream));
    return ncclGroupEnd();
}
static ncclResult_t leaked(ncclComm_t, float *, float *) {
    exit(0);
}
static void *call_from_thread(void *c) {
    int count;
    ncclCommCount((ncclComm_t)c, &count);
    return nullptr;
}
static ncclResult_t second_thread(ncclComm_t c, float *, float *) {
    pthread_t t;
    pthread_create(&t, nullptr, call_from_thread, c);
    pthread_join(t, nullptr);
    return ncclSuccess;
}

/* ------------------------------------------------------------------------ 4: in progress -- */

/* Calls until one is in progress, then does what is wrong then. */
template <class Then>
static ncclResult_t in_progress(ncclComm_t c, float *x, float *y, Then then) {
    for (int i = 0; i < 50; i++) {
        ncclResult_t r = ncclAllGather(x, y, N, ncclFloat32, c, stream);
        if (r == ncclInProgress) then(c);
        expect(c, r);
    }
    return ncclSuccess;
}
static ncclResult_t call_too_early(ncclComm_t c, float *x, float *y) {
    return in_progress(c, x, y, [](ncclComm_t comm) {
        int count;
        ncclCommCount(comm, &count);
    });
}
static ncclResult_t record_too_early(ncclComm_t c, float *x, float *y) {
    cudaEvent_t done;
    cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
    return in_progress(c, x, y, [&](ncclComm_t) { cudaEventRecord(done, stream); });
}
static ncclResult_t wait_too_early(ncclComm_t c, float *x, float *y) {
    return in_progress(c, x, y, [](ncclComm_t) { wait_for(stream); });
}

/* ---------------------------------------------------------------------------- 5: streams -- */

/* What another stream does to the memory of a call, without an event between the two. */
static ncclResult_t written_in_flight(ncclComm_t c, float *x, float *y, bool source) {
    cudaStream_t other;
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    wait_for(stream);
    expect(c, ncclAlltoAll(x, y, N, ncclFloat32, c, stream));
    cudaMemsetAsync((source ? x : y) + 1, 0, 4, other);
    wait_for(other);
    return ncclSuccess;
}
static ncclResult_t source_in_flight(ncclComm_t c, float *x, float *y) {
    return written_in_flight(c, x, y, true);
}
static ncclResult_t destination_in_flight(ncclComm_t c, float *x, float *y) {
    return written_in_flight(c, x, y, false);
}

/* ---------------------------------------------------------------------------- 6: buffers -- */

static float on_host[N * 4];
static ncclResult_t host_source(ncclComm_t c, float *, float *y) {
    return ncclAllGather(on_host, y, N, ncclFloat32, c, stream);
}
static ncclResult_t host_source_of_one(ncclComm_t c, float *x, float *y) {
    return ncclAllGather(rank ? x : on_host, y, N, ncclFloat32, c, stream);
}
static ncclResult_t host_destination(ncclComm_t c, float *x, float *) {
    return ncclAllGather(x, on_host, N, ncclFloat32, c, stream);
}
static ncclResult_t no_source(ncclComm_t c, float *, float *y) {
    return ncclAllGather(nullptr, y, N, ncclFloat32, c, stream);
}
static ncclResult_t too_long(ncclComm_t c, float *x, float *y) {
    return ncclAllGather(x, y + 1, N, ncclFloat32, c, stream);
}
static ncclResult_t freed_before(ncclComm_t c, float *x, float *y) {
    cudaFree(x);
    return ncclAllGather(x, y, N, ncclFloat32, c, stream);
}
static ncclResult_t odd_address(ncclComm_t c, float *x, float *y) {
    return ncclAllGather((char *)x + 2, y, N - 1, ncclFloat32, c, stream);
}
static ncclResult_t freed_in_flight(ncclComm_t c, float *x, float *y) {
    expect(c, ncclAllGather(x, y, N, ncclFloat32, c, stream));
    cudaFree(x);
    return ncclSuccess;
}
static ncclResult_t wrong_place(ncclComm_t c, float *, float *y) {
    return ncclAllGather(y + (1 - rank) * N, y, N, ncclFloat32, c, stream);
}

/* ------------------------------------------------------- 7: the order of communicators -- */

static void other_order() {
    ncclComm_t c[2] = {begin(0), begin(1)};
    cudaStream_t second;
    cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
    float *x = values(rank, 0, N), *y = fresh<float>(N * ranks), *z = fresh<float>(N * ranks);
    expect(c[rank], ncclAllGather(x, y, N, ncclFloat32, c[rank], stream));
    expect(c[1 - rank], ncclAllGather(x, z, N, ncclFloat32, c[1 - rank], second));
    wait_for(stream), wait_for(second);
    end(c[0]), end(c[1]);
    puts("not seen");
}

/* ------------------------------------------------------------------------------ the cases -- */

template <ncclResult_t call(ncclComm_t, float *, float *), int RANKS = 2>
static void call_wrongly() {
    as_ranks(RANKS, [] { wrongly(call); });
}
template <void last(ncclComm_t)>
static void after() {
    as_ranks(2, [] { call_after(last); });
}
template <void last(ncclComm_t)>
static void after_error() {
    setenv("SAILS_NCCL_FAULT", "0:0:error,1:0:error", 1);
    after<last>();
}
template <void body(), int RANKS = 2>
static void all() {
    as_ranks(RANKS, body);
}

#define BAD(name, run, text) \
    { name, run, false, text, "0", "lazy", ANY_BUILD }
static const Case cases[] = {
    BAD("other_op", call_wrongly<other_op>, "collective 0 differs: rank "),
    BAD("other_op_says_both", call_wrongly<other_op>, "ncclBroadcast of 8 float32 from root 0"),
    BAD("other_count", call_wrongly<other_count>, "ncclAllGather of 7 float32"),
    BAD("other_type", call_wrongly<other_type>, "ncclAllGather of 8 int32"),
    BAD("other_root", call_wrongly<other_root>, "ncclBroadcast of 8 float32 from root 1"),
    BAD("other_reduction", call_wrongly<other_reduction>, "collective 0 differs"),
    BAD("empty_on_one", call_wrongly<empty_on_one>, "ncclAlltoAll of 0 float32"),
    BAD("left_out", call_wrongly<left_out>, "collective 0 differs"),
    BAD("all_end", call_wrongly<host_source_of_one>, "rank 1 ends because rank 0 has reported"),
    BAD("finalized_early", call_wrongly<finalized_early>, "rank 1 has finalized the communicator"),

    BAD("other_length", call_wrongly<other_length>, "message 0 differs: rank "),
    BAD("nothing_sent", call_wrongly<nothing_sent>, "message 0 differs: rank "),
    BAD("other_element", call_wrongly<other_element>, "ncclSend of 8 int32"),
    BAD("crossing", call_wrongly<crossing>, "deadlock: rank "),
    BAD("crossing_says_both", call_wrongly<crossing>, "0 waits in ncclSend of 8 float32"),
    BAD("crossing_round", (call_wrongly<crossing_round, 3>), "deadlock: rank "),
    BAD("only_received", call_wrongly<only_received>, "deadlock: rank "),
    BAD("to_itself", (call_wrongly<to_itself, 1>), "deadlock: rank 0 waits in ncclSend"),
    BAD("across_a_collective", call_wrongly<across_a_collective>, "deadlock: rank "),
    BAD("overlapping", call_wrongly<overlapping>, "their destinations overlap"),
    BAD("sent_and_received", call_wrongly<sent_and_received>, "one writes what the other reads"),

    BAD("id_again", all<id_again>, "the id has been used before"),
    BAD("same_rank", all<same_rank>, "rank 0 has joined with this id before"),
    BAD("no_id", all<no_id>, "the id is not one of ncclGetUniqueId"),
    BAD("other_size", all<other_size>, "ranks, another one"),
    BAD("raw_config", all<raw_config>, "not from NCCL_CONFIG_INITIALIZER"),
    BAD("before_start", all<before_start>, "ncclCommCount before ncclCommGetAsyncError"),
    BAD("after_finalize", after<finalize>, "ncclCommCount after ncclCommFinalize"),
    BAD("after_destroy", after<end>, "ncclCommCount after ncclCommDestroy"),
    BAD("after_abort", after<abort_it>, "ncclCommCount after ncclCommAbort"),
    BAD("after_error", after_error<fail_it>,
        "remote error\nsimt: ncclCommCount after the communicator has failed"),
    BAD("destroy_after_error", after_error<destroy_after_error>,
        "ncclCommDestroy after the communicator has failed"),
    BAD("destroy_at_once", after<destroy_at_once>, "ncclCommDestroy without ncclCommFinalize"),
    BAD("destroy_too_early", after<destroy_too_early>, "has said that ncclCommFinalize has"),
    BAD("finalize_in_group", after<finalize_in_group>, "ncclCommFinalize before ncclGroupEnd"),
    BAD("group_left_open", call_wrongly<group_left_open>, "ncclGroupStart without ncclGroupEnd"),
    BAD("group_not_open", call_wrongly<group_not_open>, "ncclGroupEnd without ncclGroupStart"),
    BAD("leaked", call_wrongly<leaked>, "has not destroyed its communicator"),
    BAD("second_thread", call_wrongly<second_thread>, "ncclCommCount from a second thread"),

    BAD("call_too_early", call_wrongly<call_too_early>, "has said that its last call has"),
    BAD("record_too_early", call_wrongly<record_too_early>, "simt: work on a stream before"),
    BAD("wait_too_early", call_wrongly<wait_too_early>, "simt: work on a stream before"),

    BAD("source_in_flight", call_wrongly<source_in_flight>, "its source was written while"),
    BAD("destination_in_flight", call_wrongly<destination_in_flight>,
        "its destination was written while"),

    BAD("host_source", call_wrongly<host_source>, "is not device memory"),
    BAD("host_destination", call_wrongly<host_destination>, "is not device memory"),
    BAD("no_source", call_wrongly<no_source>, "the source (nil) is not device memory"),
    BAD("too_long", call_wrongly<too_long>, "is not 64 bytes of one live allocation"),
    BAD("freed_before", call_wrongly<freed_before>, "is not 32 bytes of one live allocation"),
    BAD("odd_address", call_wrongly<odd_address>, "is not aligned to 4 bytes"),
    BAD("freed_in_flight", call_wrongly<freed_in_flight>,
        "cudaFree: ncclAllGather of 8 float32 (collective 0) still uses the memory"),
    BAD("wrong_place", call_wrongly<wrong_place>, "source and destination overlap"),

    BAD("other_order", all<other_order>, "the order of two communicators differs"),
};

int main(int argc, char **argv) {
    return run_cases("test_nccl_misuse", cases, argc, argv);
}
