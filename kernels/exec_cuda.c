/* exec_cuda.c - the CUDA device: one stream, and memory from cudaMalloc.
 *
 * Copies in go through two pinned buffers in turn, so that the caller's memory is free again at
 * return while the transfer of one buffer overlaps the filling of the other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda.h"
#include "kernels/device.h"

enum { MIN_CAPABILITY = 8 }; /* the first major version with bf16 arithmetic */

/* NULL if a usable GPU is there, or why not. Starts the driver. */
static const char *find_gpu(int card) {
    static char why[256];
    int count = 0, device = 0, major = 0, shared = 0;
    size_t available = 0, all, needed = (size_t)SCRATCH_BYTES + MATMUL_BYTES;
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e == cudaSuccess && count > 1 && card >= count) {
        snprintf(why, sizeof why,
                 "this machine shows %d GPUs, and rank %d of it wants one of its own; start fewer "
                 "ranks a machine",
                 count, card);
        return why;
    }
    if (e == cudaSuccess && count > 1 && card >= 0) e = cudaSetDevice(card);
    if (e == cudaSuccess && count > 0) e = cudaGetDevice(&device);
    if (e == cudaSuccess && count > 0)
        e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (e == cudaSuccess && count > 0)
        e = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (e == cudaSuccess && count > 0) e = cudaMemGetInfo(&available, &all);
    if (e != cudaSuccess)
        snprintf(why, sizeof why, "no GPU answers: %s (%s)", cudaGetErrorString(e),
                 cudaGetErrorName(e));
    else if (count == 0)
        snprintf(why, sizeof why, "no GPU answers: the driver knows none");
    else if (major < MIN_CAPABILITY)
        snprintf(why, sizeof why, "expected a GPU of compute capability %d or newer, got %d",
                 MIN_CAPABILITY, major);
    else if (shared < MIN_SHARED_KB << 10)
        snprintf(why, sizeof why, "expected a GPU with %d KB of shared memory for a block, got %d",
                 MIN_SHARED_KB, shared >> 10);
    else if (available < needed)
        snprintf(why, sizeof why,
                 "expected a GPU with %zu MB of free memory, got %zu: is it in use?", needed >> 20,
                 available >> 20);
    else
        return NULL;
    return why;
}

static const char *device_open(Exec *ex, int card) {
    const char *why = find_gpu(card);
    if (why) return why;
    CudaState *s = calloc(1, sizeof *s);
    CHECK(s, "out of memory");
    const char *strict = getenv("SAILS_STRICT");
    s->strict = strict && strcmp(strict, "1") == 0;
    CUDA_CHECK(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking));
    for (int i = 0; i < STAGES; i++) {
        CUDA_CHECK(cudaMallocHost(&s->stage[i], STAGE_BYTES));
        CUDA_CHECK(cudaEventCreateWithFlags(&s->stage_free[i], cudaEventDisableTiming));
    }
    for (int i = 0; i < 2; i++) CUDA_CHECK(cudaEventCreateWithFlags(&s->timer[i], 0));
    why = matmul_open(s);
    CHECK(!why, "%s", why);
    s->ranges = ranges_open();
    ex->state = s;
    return NULL;
}

/* Until all work so far is done. Among ranks no call of CUDA may wait: it would ask nobody. */
static void finish(CudaState *s) {
    if (s->ranks)
        ranks_wait(s);
    else
        CUDA_CHECK(cudaStreamSynchronize(s->stream));
}

static void finish_event(CudaState *s, cudaEvent_t event) {
    if (s->ranks)
        ranks_wait_event(s, event);
    else
        CUDA_CHECK(cudaEventSynchronize(event));
}

static void device_close(Exec *ex) {
    CudaState *s = cuda_state(ex);
    finish(s);
    ranges_close(s->ranges);
    linalg_close(s);
    matmul_close(s);
    for (int i = 0; i < STAGES; i++) {
        CUDA_CHECK(cudaEventDestroy(s->stage_free[i]));
        CUDA_CHECK(cudaFreeHost(s->stage[i]));
    }
    for (int i = 0; i < 2; i++) CUDA_CHECK(cudaEventDestroy(s->timer[i]));
    CUDA_CHECK(cudaStreamDestroy(s->stream));
    if (s->ranks) ranks_abandon(s);
    free(s);
}

static void *device_alloc(Exec *ex, size_t bytes) {
    CudaState *s = cuda_state(ex);
    void *p;
    cudaError_t e = cudaMalloc(&p, bytes);
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* or the next launch would report it again */
        return NULL;
    }
    CUDA_CHECK(e);
    if (s->strict) CUDA_CHECK(cudaMemsetAsync(p, 0xff, bytes, s->stream));
    return p;
}

static void device_free(Exec *ex, void *p) {
    CudaState *s = cuda_state(ex);
    if (s->ranks) ranks_wait(s); /* for work in flight, as cudaFree would */
    CUDA_CHECK(cudaFree(p));
}

static void device_copy_in(Exec *ex, void *device, const void *host, size_t bytes) {
    CudaState *s = cuda_state(ex);
    for (size_t done = 0; done < bytes;) {
        size_t n = bytes - done < STAGE_BYTES ? bytes - done : STAGE_BYTES;
        int i = s->next_stage;
        s->next_stage = (i + 1) % STAGES;
        finish_event(s, s->stage_free[i]); /* at once if never recorded */
        memcpy(s->stage[i], (const char *)host + done, n);
        CUDA_CHECK(cudaMemcpyAsync((char *)device + done, s->stage[i], n, cudaMemcpyHostToDevice,
                                   s->stream));
        CUDA_CHECK(cudaEventRecord(s->stage_free[i], s->stream));
        done += n;
    }
}

static void device_copy_out(Exec *ex, void *host, const void *device, size_t bytes) {
    CudaState *s = cuda_state(ex);
    if (s->ranks) ranks_wait(s); /* as the copy would: the host's memory is not pinned */
    CUDA_CHECK(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, s->stream));
    CUDA_CHECK(cudaStreamSynchronize(s->stream));
}

static void device_copy(Exec *ex, void *to, const void *from, size_t bytes) {
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda_state(ex)->stream));
}

static void device_zero(Exec *ex, void *p, size_t bytes) {
    CUDA_CHECK(cudaMemsetAsync(p, 0, bytes, cuda_state(ex)->stream));
}

static bool device_memory(Exec *ex, size_t *available, size_t *all) {
    (void)ex;
    CUDA_CHECK(cudaMemGetInfo(available, all));
    return true;
}

static void device_sync(Exec *ex) {
    finish(cuda_state(ex));
}

static void device_place(Exec *ex, char text[DEVICE_PLACE]) {
    int device;
    (void)ex;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetPCIBusId(text, DEVICE_PLACE, device));
}

static void device_timer_start(Exec *ex) {
    CudaState *s = cuda_state(ex);
    CUDA_CHECK(cudaEventRecord(s->timer[0], s->stream));
}

static double device_timer_stop(Exec *ex) {
    CudaState *s = cuda_state(ex);
    float ms;
    CUDA_CHECK(cudaEventRecord(s->timer[1], s->stream));
    finish_event(s, s->timer[1]);
    CUDA_CHECK(cudaEventElapsedTime(&ms, s->timer[0], s->timer[1]));
    return 1e-3 * (double)ms;
}

static size_t device_cache(Exec *ex) {
    int device, bytes;
    (void)ex;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, device));
    return (size_t)bytes;
}

static const char *device_card(Exec *ex) {
    CudaState *s = cuda_state(ex);
    struct cudaDeviceProp properties;
    int device;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
    snprintf(s->card, sizeof s->card, "%s", properties.name);
    return s->card;
}

/* Filled at the first call: ISO C has no constant initialiser from another file's constant. */
static Ops ops[DTYPE_COUNT] = {{.name = "cuda f32"}, {.name = "cuda bf16", .rounds = true}};

static const Device device_cuda = {
    .name = "cuda",
    .ops = {[DTYPE_F32] = &ops[DTYPE_F32], [DTYPE_BF16] = &ops[DTYPE_BF16]},
    .open = device_open,
    .close = device_close,
    .alloc = device_alloc,
    .free = device_free,
    .copy_in = device_copy_in,
    .copy_out = device_copy_out,
    .copy = device_copy,
    .zero = device_zero,
    .sync = device_sync,
    .move = ranks_move,
    .job_id = ranks_id,
    .join = ranks_join,
    .arrive = ranks_arrive,
    .part = ranks_part,
    .place = device_place,
    .card = device_card,
    .range_push = ranges_push,
    .range_pop = ranges_pop,
    .memory = device_memory,
    .timer_start = device_timer_start,
    .timer_stop = device_timer_stop,
    .cache = device_cache,
    .lazy_kernels = LAZY_KERNEL_BYTES,
    .lazy_libraries = LAZY_LIBRARY_BYTES,
    .lazy_peer = PEER_BYTES,
    .maps_host = false,
    .scratch = SCRATCH_BYTES,
};

__attribute__((visibility("default"))) sails_cuda_device_fn sails_cuda_device;

const Device *sails_cuda_device(int abi) {
    if (abi != DEVICE_ABI) return NULL;
    for (int t = 0; t < DTYPE_COUNT; t++) {
#define X(op) ops[t].op = cuda_##op[t];
        SAILS_TABLE(X)
#undef X
    }
    return &device_cuda;
}
