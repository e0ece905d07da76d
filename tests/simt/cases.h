/* cases.h - for the tests of the simulated device itself: launching kernels without an Exec, and
 * cases that each run in a process of their own, because a fault that is seen ends the process. */
#ifndef SIMT_CASES_H
#define SIMT_CASES_H

#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

static cudaStream_t stream; /* what the functions here use */

/* Launches, and says so if the launch is refused. */
#define LAUNCH(kernel, blocks, threads, shared, ...)                                 \
    do {                                                                             \
        cudaLaunchConfig_t config_ = {};                                             \
        config_.gridDim = dim3(blocks), config_.blockDim = dim3(threads);            \
        config_.dynamicSmemBytes = (shared), config_.stream = stream;                \
        cudaError_t error_ = cudaLaunchKernelEx(&config_, kernel, __VA_ARGS__);      \
        if (error_ != cudaSuccess) printf("launch: %s\n", cudaGetErrorName(error_)); \
    } while (0)

template <class T>
static inline T *fresh(size_t n) { /* unwritten */
    void *p;
    if (cudaMalloc(&p, n * sizeof(T)) != cudaSuccess) abort();
    return (T *)p;
}
template <class T>
static inline T *device(const std::vector<T> &v) {
    T *p = fresh<T>(v.size());
    cudaMemcpyAsync(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice, stream);
    return p;
}
template <class T>
static inline std::vector<T> host(const T *p, size_t n) {
    std::vector<T> v(n);
    cudaMemcpyAsync(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost, stream);
    return v;
}

/* A race that shows as a wrong result is reported, too, in the tsan build. */
enum Needs { ANY_BUILD, ASAN_BUILD, TSAN_BUILD, NO_TSAN_BUILD };

struct Case {
    const char *name;
    void (*run)();
    bool ends_well;      /* exits 0 */
    const char *expects; /* somewhere in what it prints */
    const char *seeds;   /* one run for each digit */
    const char *streams;
    Needs needs;
};

static inline bool can_run(const Case &c) {
#if defined __SANITIZE_ADDRESS__ && !defined __clang__
    bool asan = true; /* clang's leaves __shared__ variables without red zones */
#else
    bool asan = false;
#endif
#if defined __has_feature
    bool tsan = __has_feature(thread_sanitizer);
#else
    bool tsan = false;
#endif
    switch (c.needs) {
        case ASAN_BUILD:
            return asan;
        case TSAN_BUILD:
            return tsan;
        case NO_TSAN_BUILD:
            return !tsan;
        default:
            return true;
    }
}

/* Runs one case in a new process. Returns what it printed, and its status. */
static inline std::string run_case(const Case &c, char seed, int *status) {
    int ends[2];
    if (pipe(ends) != 0) abort();
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 1), dup2(ends[1], 2), close(ends[0]), close(ends[1]);
        const char digit[] = {seed, 0};
        setenv("SIMT_SEED", digit, 1), setenv("SIMT_STREAMS", c.streams, 1);
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* the cases free nothing */
        setenv("TSAN_OPTIONS", "atexit_sleep_ms=0", 1);
        execl("/proc/self/exe", "case", c.name, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, n);
    close(ends[0]);
    waitpid(child, status, 0);
    return text;
}

/* A test's main: all cases, or the one that the command line names, in this process. */
template <size_t N>
static inline int run_cases(const char *test, const Case (&cases)[N], int argc, char **argv) {
    if (argc == 2) {
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        for (const Case &c : cases)
            if (strcmp(c.name, argv[1]) == 0) c.run();
        puts("end");
        return 0;
    }
    int failures = 0, runs = 0;
    for (const Case &c : cases) {
        if (!can_run(c)) continue;
        for (const char *seed = c.seeds; *seed; seed++, runs++) {
            int status;
            std::string text = run_case(c, *seed, &status);
            if ((status == 0) == c.ends_well && text.find(c.expects) != std::string::npos) continue;
            printf("FAIL %s with seed %c: expected %s and \"%s\", got status %d and\n%s\n", c.name,
                   *seed, c.ends_well ? "success" : "an abort", c.expects, status, text.c_str());
            failures++;
            if (getenv("SAILS_FIRST_FAILURE")) return 1; /* others may wait for long, too */
        }
    }
    printf("%s: %d runs, %s\n", test, runs, failures ? "FAIL" : "ok");
    return failures != 0;
}

#endif
