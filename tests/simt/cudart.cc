/* cudart.cc - the calls of the CUDA runtime library that kernels/ makes, under their real names and
 * prototypes. A call that is missing here is a link error: add it then.
 *
 * Copies follow the documented rules: from pageable memory the bytes are taken at the call, to
 * pageable memory the call waits, with pinned memory nothing is done until the stream runs. */
#include <cuda_profiler_api.h>
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>
#include <set>
#include <vector>

#include "tests/simt/simt.h"

using namespace simt;

enum { MAX_SHARED = 163 << 10 }; /* of a block of an A100; SIMT_SHARED_KB says another */
enum { L2_BYTES = 40 << 20 };    /* likewise */

static std::map<const char *, size_t> pinned;
static std::map<const void *, size_t> shared_limit; /* kernel -> opted-in dynamic shared memory */

/* Code is loaded when it is first launched. */
enum { CODE_BYTES = 64 << 10 };
static std::set<const void *> loaded;

static bool is_pinned(const void *p, size_t bytes) {
    auto it = pinned.upper_bound((const char *)p);
    if (it == pinned.begin()) return false;
    --it;
    size_t offset = (size_t)((const char *)p - it->first);
    return offset < it->second && bytes <= it->second - offset;
}

cudaError_t simt::check_launch(const cudaLaunchConfig_t &c, const void *kernel) {
    enum { MAX_Z = 64, MAX_YZ_GRID = 65535 };
    /* A kernel that did not ask has 48 KB, from which its static variables go. How much they take
     * is not known here; whoever comes close must ask. */
    enum { DEFAULT_SHARED = 47 << 10 };
    const dim3 &g = c.gridDim, &t = c.blockDim;
    auto it = shared_limit.find(kernel);
    size_t limit = it == shared_limit.end() ? (size_t)DEFAULT_SHARED : it->second;
    bool fits = g.x > 0 && g.y > 0 && g.z > 0 && g.x <= 0x7fffffff && g.y <= MAX_YZ_GRID &&
                g.z <= MAX_YZ_GRID && t.x > 0 && t.y > 0 && t.z > 0 && t.z <= MAX_Z &&
                (uint64_t)t.x * t.y * t.z <= MAX_THREADS;
    if (!fits) return cudaErrorInvalidConfiguration;
    if (c.dynamicSmemBytes > limit) return cudaErrorInvalidValue;
    if (!loaded.insert(kernel).second || memory_take(CODE_BYTES)) return cudaSuccess;
    return cudaErrorMemoryAllocation;
}

/* Device memory must be live over the whole range; host memory cannot be checked. */
static bool right_side(const void *p, size_t bytes, bool device) {
    return device ? live_range(p, bytes) : !on_device(p);
}

/* SIMT_GPUS: so many are in sight, 1 unless it is set. They are all alike. */
static int gpus() {
    const char *text = getenv("SIMT_GPUS");
    return text ? atoi(text) : 1;
}
static int current;

extern "C" {

cudaError_t cudaGetDeviceCount(int *count) {
    *count = gpus();
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= gpus()) return cudaErrorInvalidDevice;
    current = device;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *text, int room, int device) {
    if (device < 0 || device >= gpus()) return cudaErrorInvalidDevice;
    snprintf(text, (size_t)room, "0000:%02x:00.0", device);
    return cudaSuccess;
}
cudaError_t cudaProfilerStart() {
    profiler_records = true;
    return cudaSuccess;
}
cudaError_t cudaProfilerStop() {
    profiler_records = false;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) {
    *device = current;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int) {
    const char *shared_kb = getenv("SIMT_SHARED_KB");
    if (attribute == cudaDevAttrComputeCapabilityMajor)
        *value = 9;
    else if (attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin)
        *value = shared_kb ? atoi(shared_kb) << 10 : MAX_SHARED;
    else if (attribute == cudaDevAttrL2CacheSize)
        *value = L2_BYTES;
    else
        fail("device attribute %d is not simulated", (int)attribute);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "simulated");
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
    *p = bytes ? memory_alloc(bytes) : nullptr;
    return *p || !bytes ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void *p) {
    if (const char *what = memory_pinned(p)) fail("cudaFree: %s still uses the memory", what);
    drain_all();
    return !p || memory_free(p) ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaMemGetInfo(size_t *available, size_t *all) {
    simt::MemoryUse use = memory_use();
    *available = use.available;
    *all = use.all;
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t bytes) {
    *p = malloc(bytes);
    if (!*p) return cudaErrorMemoryAllocation;
    memset(*p, 0xff, bytes);
    pinned[(char *)*p] = bytes;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p) {
    drain_all();
    if (p && !pinned.erase((char *)p)) return cudaErrorInvalidValue;
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (!right_side(to, bytes, to_device) || !right_side(from, bytes, from_device))
        return cudaErrorInvalidValue;
    if (!from_device && !is_pinned(from, bytes)) {
        std::vector<char> taken((const char *)from, (const char *)from + bytes);
        enqueue(stream, [=] { memcpy(to, taken.data(), bytes); });
        return cudaSuccess;
    }
    enqueue(stream, [=] { memcpy(to, from, bytes); });
    if (!to_device && !is_pinned(to, bytes)) drain(stream);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream) {
    if (!right_side(p, bytes, true)) return cudaErrorInvalidValue;
    enqueue(stream, [=] { memset(p, value, bytes); });
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    *stream = stream_create();
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    stream_destroy(stream);
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    drain(stream);
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    return stream_query(stream) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    event_wait(stream, event);
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    *event = event_create(!(flags & cudaEventDisableTiming));
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    event_destroy(event);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    event_record(event, stream);
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    return event_query(event) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    event_synchronize(event);
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t first, cudaEvent_t last) {
    return event_elapsed(milliseconds, first, last);
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value > MAX_SHARED)
        return cudaErrorInvalidValue;
    shared_limit[kernel] = (size_t)value;
    return cudaSuccess;
}

/* Errors are returned by the call that meets them; none is kept for later. */
cudaError_t cudaGetLastError(void) {
    return cudaSuccess;
}
const char *cudaGetErrorName(cudaError_t e) {
    return e == cudaSuccess                     ? "cudaSuccess"
           : e == cudaErrorInvalidValue         ? "cudaErrorInvalidValue"
           : e == cudaErrorMemoryAllocation     ? "cudaErrorMemoryAllocation"
           : e == cudaErrorInvalidConfiguration ? "cudaErrorInvalidConfiguration"
           : e == cudaErrorNotReady             ? "cudaErrorNotReady"
                                                : "unknown error";
}
const char *cudaGetErrorString(cudaError_t e) {
    return e == cudaSuccess ? "no error" : "refused by the simulated device";
}

}  // extern "C"
