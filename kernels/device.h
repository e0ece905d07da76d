/* device.h - what a device supplies behind exec.h. The CPU device is linked in; the CUDA device
 * is a plug-in, libsails_cuda.so, that exports one function: sails_cuda_device(). */
#ifndef SAILS_DEVICE_H
#define SAILS_DEVICE_H

#include "kernels/exec.h"
#include "kernels/transport.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Loops of nothing but a processor's multiplications, one call of which does `flops` on its thread:
 * in the storage type, as matrix products do, and in f32 by elements. run NULL: unknown. */
typedef struct PeakLoop {
    void (*run)(void);
    double flops;
} PeakLoop;
typedef struct PeakLoops {
    PeakLoop products, vectors;
} PeakLoops;

struct Comm;

/* The job as a device sees it that moves bytes behind the host's back: it calls `wait` again and
 * again while it waits, `fail` (which does not return) when it cannot go on, and `landed` when all
 * moves so far are done: for so many seconds since the last time its work stood still for them. */
enum { DEVICE_JOB_ID = 128, DEVICE_PLACE = 32 };
typedef struct DeviceJob {
    int rank, ranks;
    void (*wait)(void *context);
    void (*fail)(void *context, const char *why);
    void (*landed)(void *context, double stood);
    void *context;
} DeviceJob;

/* Every entry has the contract of the exec_ function with the same name. */
typedef struct Device {
    const char *name;                        /* "cpu", "cuda" */
    const struct Ops *ops[DTYPE_COUNT];      /* one table per storage type */
    const char *(*open)(Exec *ex, int card); /* NULL, or why not; card below 0: any */
    void (*close)(Exec *ex);
    void *(*alloc)(Exec *ex, size_t bytes); /* NULL when memory is short */
    void (*free)(Exec *ex, void *p);
    void (*copy_in)(Exec *ex, void *device, const void *host, size_t bytes);
    void (*copy_out)(Exec *ex, void *host, const void *device, size_t bytes);
    void (*copy)(Exec *ex, void *to_device, const void *from_device, size_t bytes);
    void (*zero)(Exec *ex, void *device, size_t bytes);
    void (*sync)(Exec *ex);
    /* Between the memories of the ranks' devices (comm.h), in the order of ex's other work; a
     * device that has `join` may only have it begun. NULL: this device works alone. */
    void (*move)(Exec *ex, struct Comm *c, const Move *move, int n);
    /* How devices meet that do not meet through their hosts (NULL: through them): rank 0 makes an
     * id, with which all join. Both return NULL, or why not. */
    const char *(*job_id)(char id[DEVICE_JOB_ID]);
    const char *(*join)(Exec *ex, const char id[DEVICE_JOB_ID], const DeviceJob *job);
    void (*arrive)(Exec *ex); /* ex's later work waits for the moves so far */
    void (*part)(Exec *ex);   /* all ranks, after their last move */
    void (*place)(Exec *ex, char text[DEVICE_PLACE]); /* which card of the machine it is */
    const char *(*card)(Exec *ex);                    /* NULL: there is none */
    void (*range_push)(Exec *ex, const char *name);   /* NULL: no profiler would see it */
    void (*range_pop)(Exec *ex);
    bool (*memory)(Exec *ex, size_t *available, size_t *all);
    void (*timer_start)(Exec *ex);
    double (*timer_stop)(Exec *ex);
    size_t (*cache)(Exec *ex);
    const PeakLoops *peak[DTYPE_COUNT];  /* NULL: what the ops themselves do */
    bool maps_host;                      /* ops can read mapped files in place */
    size_t lazy_kernels, lazy_libraries; /* bytes: exec_lazy */
    size_t lazy_peer;                    /* bytes: exec_lazy_peer */
    size_t scratch; /* workspace taken at opening: allocating later would hold up the stream */
} Device;

/* The CPU device at a level; CPU_AUTO: at the best. NULL: this build has no such level, or this
 * processor cannot run it. */
const Device *device_cpu(enum CpuLevel level);

/* The plug-in's export. `abi` is DEVICE_ABI of the caller; another value returns NULL. */
#define DEVICE_ABI 11
typedef const Device *sails_cuda_device_fn(int abi);

#ifdef __cplusplus
}
#endif
#endif
