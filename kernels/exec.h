/* exec.h - where ops run: a device, a storage type, its memory and its order of work.
 *
 * One Exec is one stream of work on one device. Ops and copies run in call order; their results
 * are visible to the host after exec_sync() or exec_copy_out(), which waits by itself.
 *
 * Device memory is only for ops. On the CPU device it is plain memory, but host code that reads
 * it directly would break on a GPU; therefore with SAILS_STRICT=1 (all tests) the CPU device
 * keeps its memory inaccessible except while an op or a copy runs, and such code faults at once.
 * Strict mode also fills fresh memory with 0xff bytes, a NaN in f32 and bf16.
 *
 * Nothing here returns a failure but opening: running out of memory or losing the device after
 * start-up stops the process through die(). */
#ifndef SAILS_EXEC_H
#define SAILS_EXEC_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/choices.h"
#include "kernels/cpu_level.h"
#include "kernels/store.h"
#include "kernels/watch.h"

#ifdef __cplusplus
extern "C" {
#endif

struct Ops;
struct Device;
struct Comm;

#define DEVICE_KINDS(X) X(DEVICE_AUTO, "auto") X(DEVICE_CPU, "cpu") X(DEVICE_CUDA, "cuda")
enum DeviceKind { DEVICE_KINDS(CHOICE_ENUM) };

typedef struct Exec {
    const struct Ops *op;        /* the device's ops in this storage type: ex->op->rmsnorm_fwd */
    const struct Device *device; /* see device.h */
    enum Dtype dtype;
    struct Comm *comm; /* the job's other ranks (comm.h); NULL: alone. Set by who opens the Exec */
    void *state;       /* the device's own: stream, library handles, list of allocations */
    void *scratch;     /* workspace that ops may use while they run; grows, never shrinks */
    size_t scratch_bytes;
    size_t bytes_now, bytes_peak;   /* device memory held through exec_alloc, and its peak */
    struct Allocation *allocations; /* the blocks that make up bytes_now */
    OpWatch watch;
    bool sync_always; /* SAILS_SYNC=1: wait after every launch: a fault names its op */
} Exec;

/* Opens a device. DEVICE_AUTO takes CUDA when the plug-in loads and a GPU answers, else the CPU.
 * The plug-in is libsails_cuda.so beside the program, or the file that SAILS_CUDA_PLUGIN names.
 * Returns NULL, or one sentence that says why the device cannot be had (static storage). */
const char *exec_open(Exec *ex, enum DeviceKind kind, enum Dtype dtype);
const char *exec_open_cpu(Exec *ex, enum CpuLevel level, enum Dtype dtype); /* a given level */

/* Which of the cards in sight exec_open takes from now on: that of the rank among its machine's.
 * One that is the only one in sight is taken whatever the number. */
void exec_use_card(int card);
void exec_close(Exec *ex); /* frees the scratch; allocations must have been freed; zeroed: no-op */

/* Fresh device memory, 64-byte aligned; bytes may be 0. `what` names it in messages. */
void *exec_alloc(Exec *ex, size_t bytes, const char *what);
void exec_free(Exec *ex, void *p); /* NULL is allowed */

/* Can ops read this host memory (a mapped file) in place? Never on a GPU; on the CPU device if it
 * is aligned to 8 bytes. */
bool exec_reads(const Exec *ex, const void *p);

/* The bytes of the device's own memory that are available now, and all that it has. False, and
 * nothing is set, where it has none: ops then work in the host's. */
bool exec_memory(Exec *ex, size_t *available, size_t *all);

/* Bytes of the device's own memory that code takes, beside exec_alloc's, when ops are called for
 * the first time: `kernels` is an upper bound for the device's own, `libraries` an estimate for
 * those of the libraries that it calls (exec_cuda.c). Both are 0 where ops work in the host's
 * memory. */
void exec_lazy(const Exec *ex, size_t *kernels, size_t *libraries);

/* An estimate of those that the first moves take for each other rank of the same machine. */
size_t exec_lazy_peer(const Exec *ex);

/* copy_in has taken the host bytes when it returns: the caller may change them at once. */
void exec_copy_in(Exec *ex, void *device, const void *host, size_t bytes);
void exec_copy_out(Exec *ex, void *host, const void *device, size_t bytes);       /* waits */
void exec_copy(Exec *ex, void *to_device, const void *from_device, size_t bytes); /* disjoint */
void exec_zero(Exec *ex, void *device, size_t bytes);
void exec_sync(Exec *ex);

/* For op implementations: at least `bytes` of workspace, 64-byte aligned, contents undefined,
 * valid until the next call. It grows by doubling from SCRATCH_MIN on (a GPU has more from the
 * start), so that the first step leaves enough for later ones, whose packs may be a little larger.
 */
enum { SCRATCH_MIN = 1 << 20 };
void *exec_scratch(Exec *ex, size_t bytes);

/* What exec_open_cpu takes CPU_AUTO for; CPU_AUTO: no level of this build runs here. */
enum CpuLevel exec_cpu_level(void);

/* The file of the plug-in that the device came from, NULL for the CPU's, which is linked in. */
const char *exec_plugin(const Exec *ex);

/* A stopwatch: the seconds that the device needs for the work called between start and stop, by its
 * own clock where it has one. Starting does not wait; stopping waits until that work is done. */
void exec_timer_start(Exec *ex);
double exec_timer_stop(Exec *ex);

/* From now on each call of an op waits until the device has done it and then goes to the sink,
 * once: ops that an op calls are part of it. exec_count: ops check and price their arguments and
 * return; no tensor is read or written, no address followed but that of lengths which a price
 * depends on. */
void exec_watch(Exec *ex, op_sink *sink, void *context);
void exec_count(Exec *ex, op_sink *sink, void *context);
void exec_watch_end(Exec *ex);

/* Bytes of the device's last-level cache: what one op leaves there, the next need not fetch. */
size_t exec_cache(Exec *ex);

/* The card's name, borrowed from the device; NULL if this machine's processor does the work. */
const char *exec_card(Exec *ex);

/* Named ranges for profilers: NVTX in the domain "sails" on CUDA, nothing on the CPU. They nest,
 * and all are closed before the Exec. The name is a format as printf's, cut to 63 bytes.
 * SAILS_CAPTURE=first:last names two ranges. A profiler that waits for the program to say what is
 * of interest (cudaProfilerStart) then records from where the first of them first begins to where
 * the other, begun at or after that, first ends. */
__attribute__((format(printf, 2, 3))) void exec_range_push(Exec *ex, const char *name, ...);
void exec_range_pop(Exec *ex);

#ifdef __cplusplus
}
#endif
#endif
