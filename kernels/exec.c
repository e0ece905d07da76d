/* exec.c - exec.h's calls: bookkeeping here, the work in the device (device.h).
 *
 * The CUDA plug-in carries a second copy of this file, so nothing here may have static state. */
#include "kernels/exec.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "kernels/device.h"

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

void *exec_alloc(Exec *ex, size_t bytes, const char *what) {
    void *p = ex->device->alloc(ex, bytes ? bytes : 1);
    CHECK(p, "%s: %zu bytes do not fit in %s memory beside the %zu already held", what, bytes,
          ex->device->name, ex->bytes_now);
    Allocation *a = malloc(sizeof *a);
    CHECK(a, "out of memory");
    *a = (Allocation){p, bytes, ex->allocations};
    ex->allocations = a;
    ex->bytes_now += bytes;
    if (ex->bytes_now > ex->bytes_peak) ex->bytes_peak = ex->bytes_now;
    return p;
}

void exec_free(Exec *ex, void *p) {
    if (!p) return;
    Allocation **link = &ex->allocations;
    while (*link && (*link)->p != p) link = &(*link)->next;
    CHECK(*link, "expected memory from exec_alloc, got %p", p);
    Allocation *a = *link;
    *link = a->next;
    ex->bytes_now -= a->bytes;
    free(a);
    ex->device->free(ex, p);
}

bool exec_reads(const Exec *ex, const void *p) {
    return ex->device->maps_host && (uintptr_t)p % 8 == 0;
}

bool exec_memory(Exec *ex, size_t *available, size_t *all) {
    return ex->device->memory(ex, available, all);
}

void exec_lazy(const Exec *ex, size_t *kernels, size_t *libraries) {
    *kernels = ex->device->lazy_kernels, *libraries = ex->device->lazy_libraries;
}

size_t exec_lazy_peer(const Exec *ex) {
    return ex->device->lazy_peer;
}

void exec_copy_in(Exec *ex, void *device, const void *host, size_t bytes) {
    if (bytes) ex->device->copy_in(ex, device, host, bytes);
}
void exec_copy_out(Exec *ex, void *host, const void *device, size_t bytes) {
    if (bytes) ex->device->copy_out(ex, host, device, bytes);
}
void exec_copy(Exec *ex, void *to_device, const void *from_device, size_t bytes) {
    const char *to = to_device, *from = from_device;
    CHECK(to + bytes <= from || from + bytes <= to, "expected ranges that do not overlap");
    if (bytes) ex->device->copy(ex, to_device, from_device, bytes);
}
void exec_zero(Exec *ex, void *device, size_t bytes) {
    if (bytes) ex->device->zero(ex, device, bytes);
}
void exec_sync(Exec *ex) {
    ex->device->sync(ex);
}
void exec_timer_start(Exec *ex) {
    ex->device->timer_start(ex);
}
double exec_timer_stop(Exec *ex) {
    return ex->device->timer_stop(ex);
}
void exec_watch(Exec *ex, op_sink *sink, void *context) {
    ex->watch = (OpWatch){.sink = sink, .context = context};
}
void exec_count(Exec *ex, op_sink *sink, void *context) {
    ex->watch = (OpWatch){.sink = sink, .context = context, .count_only = true};
}
void exec_watch_end(Exec *ex) {
    ex->watch = (OpWatch){.sink = NULL};
}
size_t exec_cache(Exec *ex) {
    return ex->device->cache(ex);
}
const char *exec_card(Exec *ex) {
    return ex->device->card ? ex->device->card(ex) : NULL;
}
void exec_range_push(Exec *ex, const char *name, ...) {
    char text[64];
    va_list args;
    if (!ex->device->range_push) return;
    va_start(args, name);
    vsnprintf(text, sizeof text, name, args);
    va_end(args);
    ex->device->range_push(ex, text);
}
void exec_range_pop(Exec *ex) {
    if (ex->device->range_pop) ex->device->range_pop(ex);
}

void *exec_scratch(Exec *ex, size_t bytes) {
    if (bytes > ex->scratch_bytes) {
        exec_sync(ex); /* earlier work may still use the old one */
        exec_free(ex, ex->scratch);
        size_t room = SCRATCH_MIN;
        while (room < bytes && room <= SIZE_MAX / 2) room *= 2;
        ex->scratch = exec_alloc(ex, room, "scratch");
        ex->scratch_bytes = room;
    }
    return ex->scratch;
}
