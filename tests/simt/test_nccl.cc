/* The stand-in for NCCL, used as it should be: every call brings the right values, whatever the
 * policy of streams and however long a call is in progress; and faults of machines that it plays.
 * What it must report: test_nccl_misuse.cc. Cases as in test_simt.cc, each of several processes. */
#include <math.h>
#include <time.h>

#include "tests/simt/nccl_ranks.h"

static int wrong;

/* host(), which takes nothing badly. */
static std::vector<float> read(const float *p, size_t n) {
    return n ? host(p, n) : std::vector<float>();
}

static void compare(const std::vector<float> &got, size_t at, int from, int to, size_t n) {
    for (size_t i = 0; i < n; i++) wrong += got[at + i] != value(from, to, i);
}

/* -------------------------------------------------------------------------- every call -- */

static void all_gather(ncclComm_t c, size_t n, bool in_place) {
    float *all = fresh<float>(n * ranks + 1), *mine = values(rank, 0, n + 1);
    if (in_place) {
        mine = all + n * rank;
        std::vector<float> v(n);
        for (size_t i = 0; i < n; i++) v[i] = value(rank, 0, i);
        if (n) cudaMemcpyAsync(mine, v.data(), n * 4, cudaMemcpyHostToDevice, stream);
    }
    expect(c, ncclAllGather(mine, all, n, ncclFloat32, c, stream));
    std::vector<float> got = read(all, n * ranks);
    for (int r = 0; r < ranks; r++) compare(got, n * r, r, 0, n);
}

static void all_to_all(ncclComm_t c, size_t n) {
    std::vector<float> v(n * ranks + 1);
    for (int to = 0; to < ranks; to++)
        for (size_t i = 0; i < n; i++) v[n * to + i] = value(rank, to, i);
    float *mine = device(v), *all = fresh<float>(n * ranks + 1);
    expect(c, ncclAlltoAll(mine, all, n, ncclFloat32, c, stream));
    std::vector<float> got = read(all, n * ranks);
    for (int from = 0; from < ranks; from++) compare(got, n * from, from, rank, n);
}

static void broadcast(ncclComm_t c, size_t n, int root) {
    float *mine = values(rank, 0, n + 1), *to = root % 2 ? mine : fresh<float>(n + 1);
    expect(c, ncclBroadcast(mine, to, n, ncclFloat32, root, c, stream));
    compare(read(to, n), 0, root, 0, n);
}

static void reductions(ncclComm_t c, size_t n) {
    float *x = values(rank, 1, n * ranks + 1), *y = fresh<float>(n * ranks + 1);
    expect(c, ncclAllReduce(x, y, n * ranks, ncclFloat32, ncclSum, c, stream));
    std::vector<float> sum = read(y, n * ranks);
    expect(c, ncclAllReduce(x, x, n * ranks, ncclFloat32, ncclMax, c, stream));
    std::vector<float> max = read(x, n * ranks);
    expect(c, ncclReduceScatter(x, y, n, ncclFloat32, ncclMin, c, stream));
    std::vector<float> part = read(y, n);
    for (size_t i = 0; i < n * ranks; i++) {
        float s = 0;
        for (int r = 0; r < ranks; r++) s += value(r, 1, i);
        wrong += sum[i] != s || max[i] != value(ranks - 1, 1, i);
    }
    for (size_t i = 0; i < n; i++) wrong += part[i] != max[n * rank + i];
}

/* To rank r: r values more than from rank 0; none from an odd one to an even one. */
static size_t uneven(size_t n, int from, int to) {
    return from % 2 && to % 2 == 0 ? 0 : n + (size_t)to;
}

static void messages(ncclComm_t c, size_t n) {
    std::vector<float *> to(ranks), from(ranks);
    for (int r = 0; r < ranks; r++) {
        to[r] = values(rank, r, uneven(n, rank, r) + 1);
        from[r] = fresh<float>(uneven(n, r, rank) + 1);
    }
    ncclGroupStart();
    ncclGroupStart(); /* they nest */
    for (int r = 0; r < ranks; r++) {
        expect(c, ncclSend(to[r], uneven(n, rank, r), ncclFloat32, r, c, stream));
        expect(c, ncclRecv(from[r], uneven(n, r, rank), ncclFloat32, r, c, stream));
    }
    ncclGroupEnd();
    expect(c, ncclGroupEnd());
    for (int r = 0; r < ranks; r++) {
        std::vector<float> got = read(from[r], uneven(n, r, rank) + 1);
        compare(got, 0, r, rank, got.size() - 1);
        wrong += !isnan(got.back());
    }
}

/* From rank to rank, outside groups. */
static void chain(ncclComm_t c) {
    float *x = rank == 0 ? values(0, 0, 5) : fresh<float>(5);
    if (rank > 0) expect(c, ncclRecv(x, 5, ncclFloat32, rank - 1, c, stream));
    if (rank + 1 < ranks) expect(c, ncclSend(x, 5, ncclFloat32, rank + 1, c, stream));
    compare(read(x, 5), 0, 0, 0, 5);
}

static void every_call() {
    int version, count, mine;
    ncclGetVersion(&version);
    ncclComm_t c = begin(0), blocks = begin(1, 1);
    ncclCommCount(c, &count), ncclCommUserRank(c, &mine);
    wrong += version != NCCL_VERSION_CODE || count != ranks || mine != rank;
    for (size_t n : {0, 1, 7, 1000}) {
        all_gather(c, n, false), all_gather(c, n, true), all_to_all(c, n);
        for (int root = 0; root < ranks; root++) broadcast(c, n, root);
        reductions(c, n), messages(c, n);
        all_to_all(blocks, n);
    }
    chain(c);
    end(c), end(blocks);
    printf("%d wrong\n", wrong);
    if (wrong) exit(1);
}

template <int N>
static void right() {
    as_ranks(N, every_call);
}
static void right_at_once() {
    setenv("SIMT_NCCL_POLLS", "0", 1);
    as_ranks(2, every_call);
}
static void right_copies() {
    setenv("SIMT_NCCL_COPY", "1", 1);
    as_ranks(3, every_call);
}

/* More calls than the rings have places, none waited for; in bf16, large enough for several reads.
 */
static void many_calls() {
    enum { CALLS = 3000, N = 600000 };
    ncclComm_t c = begin(0);
    float *x = values(rank, 0, 1), *y = fresh<float>(ranks * CALLS);
    for (int i = 0; i < CALLS; i++)
        expect(c, ncclAllGather(x, y + ranks * i, 1, ncclFloat32, c, stream));
    std::vector<float> got = read(y, ranks * CALLS);
    for (int i = 0; i < CALLS; i++)
        for (int r = 0; r < ranks; r++) wrong += got[ranks * i + r] != value(r, 0, 0);
    float *big = values(rank, 0, N), *all = fresh<float>(N * ranks);
    expect(c, ncclAllGather(big, all, 2 * N, ncclBfloat16, c, stream));
    got = read(all, N * ranks);
    for (int r = 0; r < ranks; r++) compare(got, (size_t)N * r, r, 0, N);
    end(c);
    printf("%d wrong\n", wrong);
    if (wrong) exit(1);
}

/* ------------------------------------------------------------------------------- streams -- */

/* Destinations are NaN from the start of the call; with an event they are read in time. */
static void event(bool waits) {
    ncclComm_t c = begin(0);
    cudaStream_t other;
    cudaEvent_t done;
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
    float *x = values(rank, 0, 4), *all = values(9, 9, 4 * ranks); /* old values */
    cudaStreamSynchronize(stream);
    expect(c, ncclAllGather(x, all, 4, ncclFloat32, c, stream));
    cudaEventRecord(done, stream);
    std::swap(stream, other);
    if (waits) cudaStreamWaitEvent(stream, done, 0);
    std::vector<float> got = read(all, 4 * ranks);
    int nans = 0;
    for (float f : got) nans += isnan(f);
    printf("%d NaN\n", nans);
    std::swap(stream, other);
    cudaStreamSynchronize(stream);
    end(c);
}

/* A group of calls on two streams begins when both have come, and both go on after it. */
static void two_streams(bool read_in_second) {
    ncclComm_t c = begin(0);
    cudaStream_t first = stream, second;
    cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
    float *a = values(rank, 1, 4), *b = fresh<float>(4);
    float *from_a = fresh<float>(4 * ranks), *from_b = fresh<float>(4 * ranks);
    cudaStreamSynchronize(first);
    cudaMemcpyAsync(b, a, 16, cudaMemcpyDeviceToDevice, second);
    ncclGroupStart();
    ncclAllGather(a, from_a, 4, ncclFloat32, c, first);
    ncclAllGather(b, from_b, 4, ncclFloat32, c, second);
    expect(c, ncclGroupEnd());
    if (read_in_second) stream = second;
    for (const float *from : {from_a, from_b}) {
        std::vector<float> got = read(from, 4 * ranks);
        for (int r = 0; r < ranks; r++) compare(got, 4 * r, r, 1, 4);
    }
    end(c);
    stream = first;
    printf("%d wrong\n", wrong);
    if (wrong) exit(1);
}

/* Asking brings the work to its end, too; and so does a rank that only asks for errors, while its
 * host waits for the other one. */
static void asking() {
    ncclComm_t c = begin(0);
    ncclResult_t error;
    float *x = values(rank, 0, 4), *all = fresh<float>(4 * ranks);
    expect(c, ncclAllGather(x, all, 4, ncclFloat32, c, stream));
    bool at_once = cudaStreamQuery(stream) == cudaSuccess;
    if (rank == 0) {
        while (cudaStreamQuery(stream) == cudaErrorNotReady) usleep(LOOK);
        world->flag = 1;
    }
    while (!world->flag) ncclCommGetAsyncError(c, &error), usleep(LOOK);
    compare(read(all, 4 * ranks), 4 * (ranks - 1), ranks - 1, 0, 4);
    end(c);
    printf("at once %d, %d wrong\n", at_once, wrong);
    if (wrong) exit(1);
}

/* Ranks that wait for one that is slow do not wait for each other. */
static void slow_rank() {
    enum { SLOW = 900000 }; /* microseconds */
    ncclComm_t c = begin(0);
    float *x = values(rank, 0, 4), *all = fresh<float>(4 * ranks);
    if (rank == ranks - 1) usleep(SLOW);
    expect(c, ncclAllGather(x, all, 4, ncclFloat32, c, stream));
    compare(read(all, 4 * ranks), 4, 1, 0, 4);
    end(c);
    if (wrong) exit(1);
}

/* ---------------------------------------------------------------------------------- sums -- */

/* Values of which every order of adding has a sum of its own. */
static void sums() {
    enum { N = 64, CALLS = 20 };
    ncclComm_t c = begin(0);
    std::vector<float> v(N);
    for (int i = 0; i < N; i++) v[i] = 1 / (float)(1 + 13 * rank + i);
    float *x = device(v), *all = fresh<float>(N * ranks), *y = fresh<float>(N);
    expect(c, ncclAllGather(x, all, N, ncclFloat32, c, stream));
    std::vector<float> g = host(all, N * ranks), first;
    int not_tree = 0, not_first = 0, not_rotated = 0;
    for (int call = 0; call < CALLS; call++) {
        expect(c, ncclAllReduce(x, y, N, ncclFloat32, ncclSum, c, stream));
        std::vector<float> got = host(y, N);
        if (call == 0) first = got;
        for (int i = 0; i < N; i++) {
            float tree = (g[i] + g[N + i]) + (g[2 * N + i] + g[3 * N + i]), rotated = 0;
            for (int k = 0; k < 4; k++) rotated += g[(i / (N / 4) + k) % 4 * N + i];
            not_tree += got[i] != tree;
            not_rotated += got[i] != rotated;
            not_first += got[i] != first[i];
            wrong += !(fabsf(got[i] - tree) <= 1e-5f * tree);
        }
    }
    float *others = fresh<float>(N * ranks);
    expect(c, ncclAllGather(y, others, N, ncclFloat32, c, stream));
    std::vector<float> last = host(others, N * ranks); /* all ranks have the same */
    for (int i = 0; i < N * ranks; i++) wrong += last[i] != last[i % N];
    end(c);
    printf("not the tree's %d, not rotated %d, not the same again %d, %d wrong\n", not_tree > 0,
           not_rotated > 0, not_first > 0, wrong);
}
static void sums_random() {
    setenv("SIMT_NCCL_SUMS", "random", 1);
    as_ranks(4, sums);
}

/* ------------------------------------------------------------------- faults of machines -- */

static int sound;      /* calls that end; -1: not even the start does */
static bool kill_last; /* the last rank hangs in the next one, which an alarm shall end */

static double clock_now() {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Whether `done` becomes true: in any time if it should, else it is not waited for long. */
template <class Done>
static bool comes(bool should, Done done) {
    double end = clock_now() + (should ? 1e9 : 0.4);
    while (!done())
        if (usleep(LOOK), clock_now() > end) return false;
    return true;
}

/* Three calls, of which those from `sound` on have no end. */
static void until_fault() {
    ncclComm_t c = nullptr;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclResult_t error;
    ncclCommInitRankConfig(&c, ranks, world->id[0], rank, &config);
    if (!comes(sound >= 0, [&] {
            ncclCommGetAsyncError(c, &error);
            return error != ncclInProgress;
        })) {
        printf("rank %d: start %s\n", rank, ncclGetErrorString(error));
        _exit(0);
    }
    float *x = values(rank, 0, 4), *all = fresh<float>(4 * ranks);
    for (int call = 0; call < 3; call++) {
        if (kill_last && call == sound && rank == ranks - 1) alarm(1);
        error = result_of(c, ncclAllGather(x, all, 4, ncclFloat32, c, stream));
        bool done = comes(call < sound, [&] {
            bool over = cudaStreamQuery(stream) == cudaSuccess;
            ncclCommGetAsyncError(c, &error);
            return over;
        });
        printf("rank %d: call %d %s, %s\n", rank, call, done ? "done" : "waits",
               ncclGetErrorString(error));
        if (done) continue;
        ncclCommAbort(c);
        cudaStreamSynchronize(stream); /* ends now */
        printf("rank %d: aborted\n", rank);
        exit(0);
    }
    end(c);
}

static void play(const char *fault, int sound_calls, int last_ends = 0) {
    setenv("SAILS_NCCL_FAULT", fault, 1);
    sound = sound_calls, kill_last = last_ends == SIGALRM;
    as_ranks(2, until_fault, {0, last_ends});
}

/* ------------------------------------------------------------------------------ the cases -- */

static const Case cases[] = {
    {"right_1", right<1>, true, "0 wrong\nall ended well", "01", "lazy", ANY_BUILD},
    {"right_2", right<2>, true, "all ended well", "01", "lazy", ANY_BUILD},
    {"right_3", right<3>, true, "all ended well", "0", "lazy", ANY_BUILD},
    {"right_4", right<4>, true, "all ended well", "0", "lazy", ANY_BUILD},
    {"right_eager", right<3>, true, "all ended well", "0", "eager", ANY_BUILD},
    {"right_random", right<3>, true, "all ended well", "12", "random", ANY_BUILD},
    {"right_at_once", right_at_once, true, "all ended well", "0", "lazy", ANY_BUILD},
    {"right_copies", right_copies, true, "all ended well", "0", "lazy", ANY_BUILD},
    {"many_calls", [] { as_ranks(2, many_calls); }, true, "all ended well", "0", "lazy", ANY_BUILD},
    {"with_event", [] { as_ranks(2, [] { event(true); }); }, true, "0 NaN\n0 NaN\nall", "0", "lazy",
     ANY_BUILD},
    {"missing_event", [] { as_ranks(2, [] { event(false); }); }, true, "8 NaN\n8 NaN\nall", "0",
     "lazy", ANY_BUILD},
    {"two_streams_first", [] { as_ranks(2, [] { two_streams(false); }); }, true, "all ended well",
     "0", "lazy", ANY_BUILD},
    {"two_streams_second", [] { as_ranks(2, [] { two_streams(true); }); }, true, "all ended well",
     "0", "lazy", ANY_BUILD},
    {"asking", [] { as_ranks(2, asking); }, true, "at once 0, 0 wrong\nall ended well", "0", "lazy",
     ANY_BUILD},
    {"slow_rank", [] { as_ranks(3, slow_rank); }, true, "all ended well", "0", "lazy", ANY_BUILD},
    {"sums", [] { as_ranks(4, sums); }, true,
     "not the tree's 1, not rotated 0, not the same again 0, 0 wrong", "0", "lazy", ANY_BUILD},
    {"sums_random", sums_random, true,
     "not the tree's 1, not rotated 1, not the same again 1, 0 wrong", "0", "lazy", ANY_BUILD},
    {"no_fault", [] { play("5:0:dies", 3); }, true, "rank 1: call 2 done", "0", "lazy", ANY_BUILD},
    {"dies", [] { play("1:1:dies", 1, SIGKILL); }, true,
     "rank 0: call 1 waits, no error\nrank 0: aborted", "0", "lazy", ANY_BUILD},
    {"stops", [] { play("1:2:stops", 2, SIGSTOP); }, true,
     "rank 0: call 2 waits, no error\nrank 0: aborted", "0", "lazy", ANY_BUILD},
    {"error", [] { play("1:1:error", 1); }, true, "rank 1: call 1 waits, remote error", "0", "lazy",
     ANY_BUILD},
    {"late", [] { play("1:1:late:0.3", 3); }, true, "all ended well", "0", "lazy", ANY_BUILD},
    {"too_late", [] { play("1:1:late:30", 1, SIGALRM); }, true, "rank 0: call 1 waits, no error",
     "0", "lazy", ANY_BUILD},
    {"no_start", [] { play("1:0:init", -1); }, true, "rank 0: start in progress", "0", "lazy",
     ANY_BUILD},
    {"abort_hangs", [] { play("1:1:error,1:0:abort-hangs", 1, SIGALRM); }, true, "rank 0: aborted",
     "0", "lazy", ANY_BUILD},
    {"unknown_fault", [] { play("1:1:burns", 3); }, false, "expected rank:call:kind, got 1:1:burns",
     "0", "lazy", ANY_BUILD},
};

int main(int argc, char **argv) {
    return run_cases("test_nccl", cases, argc, argv);
}
