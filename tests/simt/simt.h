/* simt.h - a simulated CUDA device: runs kernels that the host's compiler compiled. Tests only.
 *
 * The parts, from the bottom:
 *   fiber.*      stacks and switching between them
 *   block.cc     one block: a fiber per thread, barriers, warp collectives, their checks
 *   warp.cc      votes and shuffles
 *   tensor.cc    products of matrices in registers, and loads of them: kernels/ptx.h
 *   async.cc     copies to shared memory that the thread does not wait for: kernels/ptx.h
 *   race.*       tells ThreadSanitizer what orders memory accesses: the tsan build
 *   device.h     the device language on top of it: threadIdx, __syncthreads, shuffles, atomics
 *   memory.cc    device memory, shut while no device work runs
 *   stream.cc    streams and events: work is queued, and run as late as is legal
 *   launch.h     kernel launches: arguments checked and kept until the stream runs them
 *   cudart.cc    the runtime library's calls, as far as kernels/ uses them
 *   cublaslt.cc  the same for matrix products
 *   cusolver.cc  the same for factorisations
 *   nccl*        the same for what ranks exchange: nccl_comm.h
 *   nvtx.cc      a profiler, which writes down what it is told
 * The plug-in is linked with these in place of NVIDIA's libraries: kernels and host code are the
 * very files that run on a GPU.
 *
 * What it finds, each with file, line, kernel, block and thread, then abort():
 *   - a barrier that some threads leave out, reach at another line, or have exited before;
 *   - a collective whose mask omits the caller, names an exited lane, or is not what the others
 *     of the mask called; a shuffle from a lane outside its mask; any deadlock;
 *   - matrix loads and asynchronous copies with a wrong alignment or memory; a thread that ends
 *     with a copy in flight; operands of a tf32 product that were not rounded;
 *   - launches, copies and library calls with wrong sizes, kinds, memory or alignment.
 * What it makes visible as NaN: memory read before it was written, device and shared; work and
 * copies that a missing wait lets come too late. Host code that touches device memory faults at
 * once. What it cannot see: timing, races finer than from one synchronisation to the next (random
 * thread order finds many), rounding inside tensor cores, and anything about real hardware.
 *
 * Environment: SIMT_SEED=n shuffles warps, lanes and blocks (0, the default: lowest first).
 * SIMT_STREAMS=lazy (default) | eager | random.
 * SIMT_BLAS=empty: cublaslt.cc finds no algorithm.
 * SIMT_SHARED_KB: the shared memory that the device claims to grant a block; 163 without.
 * SIMT_NCCL_*, SAILS_NCCL_FAULT: nccl_comm.h, nccl_fault.cc.
 * NVTX_INJECTION64_PATH=the plug-in and SIMT_RANGES=file: nvtx.cc.
 * SIMT_MEMORY=n: the bytes that the device has. SIMT_MEMORY_LOG=file: memory.cc writes there at the
 * end how many allocations were made, and the most bytes that they held at once. */
#ifndef SIMT_H
#define SIMT_H

#include <driver_types.h>
#include <stddef.h>
#include <stdint.h>
#include <vector_types.h>

#include <functional>

namespace simt {

/* Prints "simt: ..." with the running kernel, block and thread, if any, then aborts. */
[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char *fmt, ...);

/* Random numbers of this process, from SIMT_SEED. below(n) is 0 while the seed is 0. */
unsigned random_below(unsigned n);
bool random_order();

/* ------------------------------------------------------------------------------ block.cc -- */

struct Grid {
    const char *kernel; /* its name, for messages */
    dim3 grid, block;
    size_t shared_bytes; /* dynamic shared memory */
};
void run_grid(const Grid &grid, const std::function<void()> &body);

/* What follows is for device.h and ptx.h: callable from kernels only. */
enum { WARP_SIZE = 32, MAX_THREADS = 1024 };

void block_barrier(const char *file, int line);

/* Waits for all lanes of the mask. The last to arrive calls work(lanes, mask), where lanes[i] is
 * what lane i has handed over, NULL for one outside the mask; then all go on. Without work it is
 * __syncwarp, which also orders their memory accesses. */
typedef void WarpWork(void *const lanes[WARP_SIZE], unsigned mask);
void warp_together(const char *what, unsigned mask, WarpWork *work, void *given, const char *file,
                   int line);
unsigned lane();
unsigned thread_index(); /* in its block */
void *dynamic_shared();
bool in_shared(const void *p, size_t bytes);

/* ------------------------------------------------------------------------------- warp.cc -- */

unsigned vote(unsigned mask, bool yes, const char *file, int line); /* the mask of those with yes */
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, const char *file, int line);

/* ----------------------------------------------------------------------------- tensor.cc -- */

/* A lane's fragments of M x N products: d [M][N][4], a [M][4], b [N][2]. */
enum MmaType { MMA_BF16, MMA_TF32 };
struct MmaTile {
    float *d;
    const uint32_t *a, *b;
    int M, N;
};
void mma(MmaType type, MmaTile tile, const char *file, int line);
void ldmatrix(uint32_t *result, const void *row, int count, bool trans, const char *file, int line);

/* ------------------------------------------------------------------------------ async.cc -- */

void async_copy(void *to, const void *from, int bytes, bool valid, const char *file, int line);
void async_commit();
void async_wait(int pending);
void async_exit(); /* fails if the ending thread has copies in flight */

/* ----------------------------------------------------------------------------- memory.cc -- */

void *memory_alloc(size_t bytes); /* NULL: full. Filled with 0xff: NaN in f32 and bf16. */
bool memory_free(void *p);        /* false: not the start of a live allocation */

struct MemoryUse {
    size_t available, all;
};
MemoryUse memory_use();

/* The driver takes some for itself, for ever. False: there is not so much. */
bool memory_take(size_t bytes);

/* A library works with the allocation that p lies in: it may not be freed. `what` is its call. */
void memory_pin(const void *p, const char *what);
void memory_unpin(const void *p, const char *what); /* does nothing if it is not pinned by that */
const char *memory_pinned(const void *p);           /* by what; NULL: it is not */
bool on_device(const void *p);                      /* in the device's address range, live or not */
/* [p, p + bytes) lies in one live allocation. */
bool live_range(const void *p, size_t bytes);

/* Device memory can be touched only while a Door exists. Doors nest. */
struct Door {
    Door();
    ~Door();
    Door(const Door &) = delete;
    Door &operator=(const Door &) = delete;
};

/* ----------------------------------------------------------------------------- stream.cc -- */

/* Appends work to a stream. It runs at the latest when something waits for it. */
void enqueue(cudaStream_t stream, std::function<void()> work);
/* It runs as early as it may: once all before it has. */
void enqueue_early(cudaStream_t stream, std::function<void()> work);
/* It is tried again and again until it returns true; in between the host and other streams run. */
void enqueue_attempt(cudaStream_t stream, std::function<bool()> attempt);
void drain(cudaStream_t stream);
void drain_all();
/* All had been done at the call. Runs what can run, so that asking again and again comes to an end.
 */
bool stream_query(cudaStream_t stream);
bool event_query(cudaEvent_t event);
void advance_all(); /* what can run without waiting */
bool host_waits();  /* it does nothing else until some work is done */
/* From now on to use the stream fails with `why` (static storage); NULL opens it. */
void stream_shut(cudaStream_t stream, const char *why);

cudaStream_t stream_create();
void stream_destroy(cudaStream_t stream);
cudaEvent_t event_create(bool timed);
void event_destroy(cudaEvent_t event);
void event_record(cudaEvent_t event, cudaStream_t stream);
void event_wait(cudaStream_t stream, cudaEvent_t event); /* the stream waits */
void event_synchronize(cudaEvent_t event);               /* the host waits */
cudaError_t event_elapsed(float *milliseconds, cudaEvent_t first, cudaEvent_t last);

/* ----------------------------------------------------------------------------- cudart.cc -- */

/* cudaSuccess, or what the runtime would return for such a launch. */
cudaError_t check_launch(const cudaLaunchConfig_t &config, const void *kernel);

/* ------------------------------------------------------------------------------- nvtx.cc -- */

extern bool profiler_records; /* between cudaProfilerStart and cudaProfilerStop */

}  // namespace simt

#endif
