/* The simulated device is itself under test: it must run right kernels right, and must see every
 * fault that it claims to see. Each case is run by a new process, `test_simt CASE`, with its own
 * order of threads and policy of streams; what the process prints and how it ends is compared. */
#include <math.h>

#include "tests/simt/cases.h"

enum { THREADS = 256 };
#define FULL 0xffffffffu

/* ------------------------------------------------------------------------- right kernels -- */

__global__ void k_reverse(int *y) { /* in each block, three times; adds one each time */
    __shared__ int s[THREADS];
    int t = threadIdx.x;
    for (int round = 0; round < 3; round++) {
        s[t] = y[blockIdx.x * THREADS + t];
        __syncthreads();
        y[blockIdx.x * THREADS + t] = s[THREADS - 1 - t] + 1;
        __syncthreads();
    }
}

__global__ void k_collectives(long *y) {
    int t = threadIdx.x, lane = t % 32;
    unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    y[t] = __shfl_xor_sync(half, lane, 1);
    y[t] = y[t] * 100 + __shfl_sync(FULL, lane, 5, 8);
    y[t] = y[t] * 100 + __shfl_down_sync(FULL, lane, 1, 16);
    y[t] = y[t] * 100 + __shfl_up_sync(FULL, lane, 2);
    y[t] = y[t] * 10 + (__ballot_sync(FULL, lane & 1) == 0xaaaaaaaau);
    y[t] = y[t] * 10 + __any_sync(half, lane == 3) + 2 * __all_sync(half, lane < 16);
}

static long collectives(int lane) {
    long v = lane ^ 1;
    v = v * 100 + (lane / 8 * 8 + 5);
    v = v * 100 + (lane % 16 == 15 ? lane : lane + 1);
    v = v * 100 + (lane < 2 ? lane : lane - 2);
    v = v * 10 + 1;
    return v * 10 + (lane < 16 ? 3 : 0);
}

__global__ void k_dynamic(double *y, int n) { /* 8-byte shuffles, dynamic shared memory */
    GPU_DYN_SHARED(double, s);
    int t = threadIdx.x;
    s[t] = t * 0.5;
    __syncthreads();
    double sum = 0;
    for (int i = 0; i < n; i++) sum += s[i];
    y[t] = __shfl_xor_sync(FULL, sum + t, 3);
}

__global__ void k_count(int *y) { /* never synchronises */
    if (threadIdx.x + threadIdx.y * blockDim.x + threadIdx.z * blockDim.x * blockDim.y < 40)
        atomicAdd(y, (int)(blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z));
}

static void right() {
    std::vector<int> in(3 * THREADS);
    for (size_t i = 0; i < in.size(); i++) in[i] = (int)i;
    int *y = device(in), wrong = 0;
    LAUNCH(k_reverse, 3, THREADS, 0, y);
    std::vector<int> out = host(y, in.size());
    for (int i = 0; i < 3 * THREADS; i++)
        wrong += out[i] != i / THREADS * THREADS + THREADS - 1 - i % THREADS + 3;

    long *c = fresh<long>(64);
    LAUNCH(k_collectives, 1, 64, 0, c);
    std::vector<long> digits = host(c, 64);
    for (int i = 0; i < 64; i++) wrong += digits[i] != collectives(i % 32);

    double *d = fresh<double>(128);
    LAUNCH(k_dynamic, 1, 128, 128 * sizeof(double), d, 128);
    std::vector<double> sums = host(d, 128);
    for (int i = 0; i < 128; i++) wrong += sums[i] != 127 * 128 / 4.0 + (i ^ 3);

    int *n = device(std::vector<int>(1, 0));
    LAUNCH(k_count, dim3(2, 3, 2), dim3(8, 4, 2), 0, n);
    wrong += host(n, 1)[0] != 40 * (6 * 1 + 10 * 4 * 3 + 100 * 6);
    puts(wrong ? "some wrong" : "0 wrong");
}

/* ------------------------------------------- races: wrong results under some thread orders -- */

__global__ void k_no_barrier(int *y) { /* reads its neighbour's value too early */
    __shared__ int s[THREADS];
    int t = threadIdx.x;
    s[t] = t;
    y[t] = t ? s[t - 1] : 0;
}

__global__ void k_one_barrier(int *y) { /* the loop's second barrier is missing */
    __shared__ int s[THREADS];
    int t = threadIdx.x, sum = 0;
    for (int i = 0; i < 4; i++) {
        s[t] = 1000 * i;
        __syncthreads();
        sum += s[(t + 1) % THREADS];
    }
    y[t] = sum - 6000 + (t ? t - 1 : 0);
}

__global__ void k_no_syncwarp(int *y) {
    __shared__ int s[THREADS];
    int t = threadIdx.x;
    s[t] = t;
    int before = t % 32 ? s[t - 1] : t - 1;
    y[t] = t ? before : 0;
}

__global__ void k_warp_ahead(
    int *y) { /* a warp writes its second sum before others read the first */
    __shared__ int s[THREADS / 32];
    int t = threadIdx.x, total = 0;
    for (int round = 0; round < 2; round++) {
        int sum = round + 1;
        for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(FULL, sum, o);
        s[t / 32] = sum;
        __syncthreads();
        for (int i = 0; i < THREADS / 32; i++) total += s[i];
    }
    y[t] = total - 3 * THREADS + (t ? t - 1 : 0);
}

__global__ void k_shuffle_is_no_barrier(int *y) { /* it makes lanes wait, but orders no memory */
    __shared__ int s[THREADS];
    int t = threadIdx.x;
    s[t] = t;
    __shfl_xor_sync(FULL, t, 1);
    int before = t % 32 ? s[t - 1] : t - 1;
    y[t] = t ? before : 0;
}

__global__ void k_blocks_overlap(int *y) { /* two blocks write one element */
    y[threadIdx.x + blockIdx.x * (blockDim.x - 1)] = 0;
}

static void race(void (*kernel)(int *)) {
    int *y = fresh<int>(THREADS), wrong = 0;
    LAUNCH(kernel, 1, THREADS, 0, y);
    std::vector<int> out = host(y, THREADS);
    for (int t = 0; t < THREADS; t++) wrong += out[t] != (t ? t - 1 : 0);
    puts(wrong ? "some wrong" : "0 wrong");
}

static void race_of_blocks() {
    LAUNCH(k_blocks_overlap, 2, 32, 0, fresh<int>(64));
    cudaStreamSynchronize(stream);
}

/* --------------------------------------------------- broken synchronisation: reported at once --
 */

__global__ void k_leaves_barrier(int *) {
    if (threadIdx.x < 128) __syncthreads();
}
__global__ void k_late_barrier(int *) {
    if (threadIdx.x != 77) __syncthreads();
    if (threadIdx.x == 77) return;
}
__global__ void k_barrier_after_exit(int *) { /* thread 0 is gone before anyone waits */
    if (threadIdx.x > 0) __syncthreads();
}
__global__ void k_two_barriers(int *) {
    if (threadIdx.x < 128)
        __syncthreads();
    else
        __syncthreads();
}
__global__ void k_deadlock(int *y) {
    if (threadIdx.x % 32 < 16) __syncthreads();
    y[threadIdx.x] = __shfl_xor_sync(FULL, 1, 1);
    if (threadIdx.x % 32 >= 16) __syncthreads();
}
__global__ void k_omits_caller(int *) {
    __syncwarp(0x0000ffffu);
}
__global__ void k_exited_lane(int *) {
    if (threadIdx.x == 9) return;
    __syncwarp();
}
__global__ void k_lane_gone(int *) {
    if (threadIdx.x == 0) return;
    __syncwarp();
}
__global__ void k_exits_while_awaited(int *) {
    if (threadIdx.x == 31) return;
    __syncwarp();
}
__global__ void k_no_such_lane(int *) {
    __syncwarp();
}
__global__ void k_other_mask(int *) {
    __syncwarp(threadIdx.x % 32 < 16 ? FULL : 0xffff0000u);
}
__global__ void k_other_collective(int *y) {
    if (threadIdx.x % 2)
        y[threadIdx.x] = __shfl_xor_sync(FULL, 1, 1);
    else
        __syncwarp();
}
__global__ void k_outside_mask(int *y) {
    if (threadIdx.x % 32 < 16) y[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1, 16);
}

static void broken(void (*kernel)(int *), int threads) {
    LAUNCH(kernel, 1, threads, 0, fresh<int>(THREADS));
    cudaStreamSynchronize(stream);
    puts("not seen");
}

/* --------------------------------------------------------------- memory: NaN, or a fault -- */

__global__ void k_copy(float *y, const float *x) {
    y[threadIdx.x] = x[threadIdx.x];
}
template <class T> /* as most kernels are: compilers treat their local variables differently */
__global__ void k_shared_unwritten(T *y) {
    __shared__ T s[64];
    GPU_DYN_SHARED(float, d);
    if (threadIdx.x == 0) s[0] = d[0] = 1;
    __syncthreads();
    y[blockIdx.x * 64 + threadIdx.x] = threadIdx.x < 32 ? s[threadIdx.x] : d[threadIdx.x];
}
__global__ void k_write(float *y, int i) {
    y[i] = 1;
}
__global__ void k_shared_write(float *y, int i) {
    __shared__ float s[64], other[64];
    s[threadIdx.x] = other[threadIdx.x] = 0;
    __syncthreads();
    float *volatile p = s; /* hides the array from UBSan: the red zone must see it */
    p[i] = 1;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x] + other[threadIdx.x];
}
__global__ void k_dynamic_write(float *y, int i) {
    GPU_DYN_SHARED(float, s);
    s[i] = 1;
    y[0] = s[i];
}

static void print_nans(const std::vector<float> &v) {
    int nans = 0;
    for (float f : v) nans += isnan(f);
    printf("%d NaN\n", nans);
}
static void unwritten() {
    float *y = fresh<float>(64);
    LAUNCH(k_copy, 1, 64, 0, y, fresh<float>(64));
    print_nans(host(y, 64));
}
static void unwritten_shared() {
    float *y = fresh<float>(128);
    LAUNCH(k_shared_unwritten<float>, 1, 64, 256, y);
    LAUNCH(k_shared_unwritten<float>, 2, 64, 256, y); /* an earlier block's values must be gone */
    print_nans(host(y, 128));
}
static void used_after_free() {
    float *y = fresh<float>(64), *x = device(std::vector<float>(64, 1.0f));
    cudaFree(x);
    LAUNCH(k_copy, 1, 64, 0, y, x);
}
static void host_argument() {
    float on_host[64];
    LAUNCH(k_copy, 1, 64, 0, fresh<float>(64), on_host);
}
static void host_touches() {
    volatile float *y = device(std::vector<float>(64, 1.0f));
    cudaStreamSynchronize(stream);
    printf("%g\n", (double)y[3]);
}
static void outside() {
    LAUNCH(k_write, 1, 1, 0, fresh<float>(64), 64);
    cudaStreamSynchronize(stream);
}
static void outside_shared() {
    LAUNCH(k_shared_write, 1, 64, 0, fresh<float>(64), 64);
    cudaStreamSynchronize(stream);
}
static void outside_dynamic() {
    LAUNCH(k_dynamic_write, 1, 1, 256, fresh<float>(64), 64);
    cudaStreamSynchronize(stream);
}

/* --------------------------------------------------------------------- host code's faults -- */

static void copy_too_long() {
    float *p = fresh<float>(64), out[65];
    cudaError_t long_by_one = cudaMemcpyAsync(out, p, 260, cudaMemcpyDeviceToHost, stream);
    cudaError_t wrong_kind = cudaMemcpyAsync(out, p, 256, cudaMemcpyHostToDevice, stream);
    cudaError_t in_bounds = cudaMemcpyAsync(out, p, 256, cudaMemcpyDeviceToHost, stream);
    printf("%d %d %d\n", long_by_one != cudaSuccess, wrong_kind != cudaSuccess,
           in_bounds != cudaSuccess);
}
static void refused_launches() {
    float *p = fresh<float>(64);
    LAUNCH(k_write, 0, 1, 0, p, 0);
    LAUNCH(k_write, 1, 1025, 0, p, 0);
    LAUNCH(k_write, 1, 1, (48 << 10) + 1, p, 0);
    cudaFuncSetAttribute((const void *)k_write, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         100 << 10);
    LAUNCH(k_write, 1, 1, 100 << 10, p, 0);
}
/* Pinned memory is read and written when the stream runs, not at the call. */
static void missing_wait() {
    void *pinned;
    cudaMallocHost(&pinned, 256);
    float *p = device(std::vector<float>(64, 1.0f)), before, after;
    cudaMemcpyAsync(pinned, p, 256, cudaMemcpyDeviceToHost, stream);
    memcpy(&before, pinned, 4);
    cudaStreamSynchronize(stream);
    memcpy(&after, pinned, 4);
    printf("before %g after %g\n", (double)fabsf(before), (double)after);
}
static void two_streams(bool with_event) {
    cudaStream_t first = stream, second;
    cudaEvent_t done;
    cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
    float *x = device(std::vector<float>(64, 1.0f)), *mid = fresh<float>(64);
    float *y = fresh<float>(64);
    LAUNCH(k_copy, 1, 64, 0, mid, x);
    if (with_event) cudaEventRecord(done, first), cudaStreamWaitEvent(second, done, 0);
    stream = second;
    LAUNCH(k_copy, 1, 64, 0, y, mid);
    print_nans(host(y, 64));
}

/* ---------------------------------------------------------------------------- the cases -- */

static const Case cases[] = {
    {"right", right, true, "0 wrong", "012345", "lazy", ANY_BUILD},
    {"right_eager", right, true, "0 wrong", "01", "eager", ANY_BUILD},
    {"right_random", right, true, "0 wrong", "1234", "random", ANY_BUILD},
    /* ascending order hides this one: what the random orders are for */
    {"no_barrier_hidden", [] { race(k_no_barrier); }, true, "0 wrong", "0", "lazy", NO_TSAN_BUILD},
    {"no_barrier", [] { race(k_no_barrier); }, true, "some wrong", "12345678", "lazy",
     NO_TSAN_BUILD},
    {"one_barrier", [] { race(k_one_barrier); }, true, "some wrong", "12345678", "lazy",
     NO_TSAN_BUILD},
    {"warp_ahead", [] { race(k_warp_ahead); }, true, "some wrong", "012345678", "lazy",
     NO_TSAN_BUILD},
    {"no_syncwarp", [] { race(k_no_syncwarp); }, true, "some wrong", "12345678", "lazy",
     NO_TSAN_BUILD},
    {"reports_no_barrier", [] { race(k_no_barrier); }, false, "data race", "01", "lazy",
     TSAN_BUILD},
    {"reports_one_barrier", [] { race(k_one_barrier); }, false, "data race", "01", "lazy",
     TSAN_BUILD},
    {"reports_warp_ahead", [] { race(k_warp_ahead); }, false, "data race", "01", "lazy",
     TSAN_BUILD},
    {"reports_no_syncwarp", [] { race(k_no_syncwarp); }, false, "data race", "01", "lazy",
     TSAN_BUILD},
    {"reports_shuffle", [] { race(k_shuffle_is_no_barrier); }, false, "data race", "01", "lazy",
     TSAN_BUILD},
    {"reports_blocks", race_of_blocks, false, "in k_blocks_overlap", "01", "lazy", TSAN_BUILD},
    {"leaves_barrier", [] { broken(k_leaves_barrier, 256); }, false,
     "thread (128,0,0): exits while 128 threads wait in __syncthreads", "0", "lazy", ANY_BUILD},
    {"leaves_barrier_any_order", [] { broken(k_leaves_barrier, 256); }, false, "__syncthreads",
     "123", "lazy", ANY_BUILD},
    {"late_barrier", [] { broken(k_late_barrier, 256); }, false,
     "thread (77,0,0): exits while 77 threads wait in __syncthreads", "0", "lazy", ANY_BUILD},
    {"barrier_after_exit", [] { broken(k_barrier_after_exit, 256); }, false,
     "after 1 threads have exited", "0", "lazy", ANY_BUILD},
    {"two_barriers", [] { broken(k_two_barriers, 256); }, false, "meets another one", "01", "lazy",
     ANY_BUILD},
    {"deadlock", [] { broken(k_deadlock, 64); }, false, "kernel: block (0,0,0)", "0", "lazy",
     ANY_BUILD},
    {"deadlock_report", [] { broken(k_deadlock, 64); }, false, "32 threads wait in __syncthreads",
     "01", "lazy", ANY_BUILD},
    {"omits_caller", [] { broken(k_omits_caller, 32); }, false,
     "lane 16 calls with mask 0000ffff, which omits it", "0", "lazy", ANY_BUILD},
    {"exited_lane", [] { broken(k_exited_lane, 32); }, false, "waits for it in __syncwarp", "0",
     "lazy", ANY_BUILD},
    {"exited_lane_any_order", [] { broken(k_exited_lane, 32); }, false, "exit", "123", "lazy",
     ANY_BUILD},
    {"lane_gone", [] { broken(k_lane_gone, 32); }, false, "lane 0, which has exited", "0", "lazy",
     ANY_BUILD},
    {"exits_while_awaited", [] { broken(k_exits_while_awaited, 32); }, false,
     "exits while lane 0 waits for it", "0", "lazy", ANY_BUILD},
    {"no_such_lane", [] { broken(k_no_such_lane, 16); }, false, "lane 16, which does not exist",
     "0", "lazy", ANY_BUILD},
    {"other_mask", [] { broken(k_other_mask, 32); }, false, "exits while lane 0 waits for it", "0",
     "lazy", ANY_BUILD},
    {"other_collective", [] { broken(k_other_collective, 32); }, false, "meets lane", "01", "lazy",
     ANY_BUILD},
    {"outside_mask", [] { broken(k_outside_mask, 32); }, false, "outside mask 0000ffff", "0",
     "lazy", ANY_BUILD},
    {"unwritten", unwritten, true, "64 NaN", "0", "lazy", ANY_BUILD},
    {"unwritten_shared", unwritten_shared, true, "126 NaN", "0", "lazy", ANY_BUILD},
    {"used_after_free", used_after_free, false, "argument 1 is not device memory", "0", "lazy",
     ANY_BUILD},
    {"host_argument", host_argument, false, "k_copy: argument 1 is not device memory", "0", "lazy",
     ANY_BUILD},
    {"host_touches", host_touches, false, "", "0", "lazy", ANY_BUILD},
    {"outside", outside, false, "use-after-poison", "0", "lazy", ASAN_BUILD},
    {"outside_shared", outside_shared, false, "global-buffer-overflow", "0", "lazy", ASAN_BUILD},
    {"outside_dynamic", outside_dynamic, false, "heap-buffer-overflow", "0", "lazy", ASAN_BUILD},
    {"copy_too_long", copy_too_long, true, "1 1 0", "0", "lazy", ANY_BUILD},
    {"refused_launches", refused_launches, true,
     "launch: cudaErrorInvalidConfiguration\nlaunch: cudaErrorInvalidConfiguration\n"
     "launch: cudaErrorInvalidValue\nend",
     "0", "lazy", ANY_BUILD},
    {"missing_wait", missing_wait, true, "before nan after 1", "0", "lazy", ANY_BUILD},
    {"missing_event", [] { two_streams(false); }, true, "64 NaN", "0", "lazy", ANY_BUILD},
    {"missing_event_hidden", [] { two_streams(false); }, true, "0 NaN", "0", "eager", ANY_BUILD},
    {"with_event", [] { two_streams(true); }, true, "0 NaN", "0", "lazy", ANY_BUILD},
};

int main(int argc, char **argv) {
    return run_cases("test_simt", cases, argc, argv);
}
