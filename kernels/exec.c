/* exec.c - exec.h's calls: bookkeeping here, the work in the device (device.h). */
#include "kernels/exec.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "kernels/device.h"

/* The plug-in stays open for the life of the process: CUDA libraries do not unload cleanly. */
static const Device *load_cuda(const char **why) {
    static char text[512];
    const char *path = getenv("SAILS_CUDA_PLUGIN");
    void *lib = dlopen(path ? path : "libsails_cuda.so", RTLD_NOW | RTLD_LOCAL);
    *why = text;
    if (!lib) {
        snprintf(text, sizeof text, "the CUDA plug-in does not load (%s)", dlerror());
        return NULL;
    }
    sails_cuda_device_fn *get;
    void *symbol = dlsym(lib, "sails_cuda_device");
    memcpy(&get, &symbol, sizeof get); /* ISO C has no cast from object to function pointer */
    const Device *d = get ? get(DEVICE_ABI) : NULL;
    if (!d) snprintf(text, sizeof text, "the CUDA plug-in is of another sails version");
    return d;
}

static const char *try_device(Exec *ex, const Device *d, enum Dtype dtype) {
    memset(ex, 0, sizeof *ex);
    ex->device = d;
    ex->dtype = dtype;
    ex->op = d->ops[dtype];
    const char *sync = getenv("SAILS_SYNC");
    ex->sync_always = sync && strcmp(sync, "1") == 0;
    return d->open(ex);
}

const char *exec_open(Exec *ex, enum DeviceKind kind, enum Dtype dtype) {
    if (kind != DEVICE_CPU) {
        const char *why;
        const Device *cuda = load_cuda(&why);
        if (cuda) why = try_device(ex, cuda, dtype);
        if (cuda && !why) return NULL;
        if (kind == DEVICE_CUDA) return why;
    }
    return try_device(ex, &device_cpu, dtype);
}

void exec_close(Exec *ex) {
    if (!ex->device) return;
    exec_free(ex, ex->scratch);
    ex->device->close(ex);
    memset(ex, 0, sizeof *ex);
}

/* Sizes of live allocations. They are kept here and not beside the memory, which the host
 * cannot reach on every device. */
typedef struct Allocation {
    void *p;
    size_t bytes;
    struct Allocation *next;
} Allocation;
static Allocation *allocations;

void *exec_alloc(Exec *ex, size_t bytes, const char *what) {
    void *p = ex->device->alloc(ex, bytes ? bytes : 1);
    CHECK(p, "%s: %zu bytes do not fit in %s memory beside the %zu already held", what, bytes,
          ex->device->name, ex->bytes_now);
    Allocation *a = malloc(sizeof *a);
    CHECK(a, "out of memory");
    *a = (Allocation){p, bytes, allocations};
    allocations = a;
    ex->bytes_now += bytes;
    if (ex->bytes_now > ex->bytes_peak) ex->bytes_peak = ex->bytes_now;
    return p;
}

void exec_free(Exec *ex, void *p) {
    if (!p) return;
    Allocation **link = &allocations;
    while (*link && (*link)->p != p) link = &(*link)->next;
    CHECK(*link, "expected memory from exec_alloc, got %p", p);
    Allocation *a = *link;
    *link = a->next;
    ex->bytes_now -= a->bytes;
    free(a);
    ex->device->free(ex, p);
}

const void *exec_map(Exec *ex, const void *p, size_t bytes, const char *what) {
    if (ex->device->maps_host && (uintptr_t)p % 16 == 0) return p;
    void *copy = exec_alloc(ex, bytes, what);
    exec_copy_in(ex, copy, p, bytes);
    return copy;
}

void exec_unmap(Exec *ex, const void *mapped, const void *p) {
    if (mapped != p) exec_free(ex, (void *)(uintptr_t)mapped);
}

void exec_copy_in(Exec *ex, void *device, const void *host, size_t bytes) {
    if (bytes) ex->device->copy_in(ex, device, host, bytes);
}
void exec_copy_out(Exec *ex, void *host, const void *device, size_t bytes) {
    if (bytes) ex->device->copy_out(ex, host, device, bytes);
}
void exec_copy(Exec *ex, void *to_device, const void *from_device, size_t bytes) {
    if (bytes) ex->device->copy(ex, to_device, from_device, bytes);
}
void exec_zero(Exec *ex, void *device, size_t bytes) {
    if (bytes) ex->device->zero(ex, device, bytes);
}
void exec_sync(Exec *ex) {
    ex->device->sync(ex);
}
void exec_range_push(Exec *ex, const char *name) {
    ex->device->range_push(ex, name);
}
void exec_range_pop(Exec *ex) {
    ex->device->range_pop(ex);
}

void *exec_scratch(Exec *ex, size_t bytes) {
    if (bytes > ex->scratch_bytes) {
        exec_sync(ex); /* earlier work may still use the old one */
        exec_free(ex, ex->scratch);
        ex->scratch = exec_alloc(ex, bytes, "scratch");
        ex->scratch_bytes = bytes;
    }
    return ex->scratch;
}
