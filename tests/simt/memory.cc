/* memory.cc - the simulated device's memory: one address range, shut while no device work runs.
 *
 * Host code that follows a device pointer therefore faults where it does so. Fresh and freed memory
 * is filled with 0xff. Under AddressSanitizer everything outside live allocations is poisoned. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <map>
#include <string>

#include "tests/simt/simt.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace simt {

static const size_t CAPACITY = (size_t)64 << 30; /* of addresses: pages come when written */

static size_t capacity() {
    static const char *const text = getenv("SIMT_MEMORY");
    static const size_t bytes = text ? strtoull(text, nullptr, 10) : CAPACITY;
    return bytes < CAPACITY ? bytes : CAPACITY;
}

enum { UNIT = 256, HUGE_PAGE = 2 << 20 }; /* cudaMalloc aligns to 256 bytes */

static char *arena;
static size_t used; /* of the arena, from its start */
static size_t held; /* by live allocations, and the most that was */
static size_t held_peak, allocations;
static size_t opened; /* how far a Door opens it */
static int doors;
static std::map<char *, size_t> live;           /* start -> bytes asked for */
static std::multimap<size_t, char *> idle;      /* footprint -> start */
static std::multimap<char *, std::string> pins; /* start -> who works with it */

/* What an allocation takes of the arena: whole units, and one more between it and the next. */
static size_t footprint(size_t bytes) {
    return (bytes + UNIT - 1) / UNIT * UNIT + UNIT;
}

static void protect(int protection) {
    if (opened && mprotect(arena, opened, protection) != 0) fail("mprotect of device memory");
}

Door::Door() {
    if (doors++ == 0) protect(PROT_READ | PROT_WRITE);
}
Door::~Door() {
    if (--doors == 0) protect(PROT_NONE);
}

/* The start of `size` bytes of the arena, or NULL. */
static char *place(size_t size) {
    auto it = idle.find(size);
    if (it != idle.end()) {
        char *p = it->second;
        idle.erase(it);
        return p;
    }
    if (!arena) {
        void *p =
            mmap(nullptr, CAPACITY, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) fail("no address range for device memory");
        arena = (char *)(((uintptr_t)p + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
        madvise(arena, CAPACITY, MADV_HUGEPAGE); /* a wish: a Door then costs little */
    }
    if (size > CAPACITY - used) return nullptr;
    char *p = arena + used;
    used += size;
    while (opened < used) opened = opened ? 2 * opened : (size_t)HUGE_PAGE;
    return p;
}

void *memory_alloc(size_t bytes) {
    if (bytes > capacity() || footprint(bytes) > capacity() - held) return nullptr;
    char *p = place(footprint(bytes));
    if (!p) return nullptr;
    live[p] = bytes;
    held += footprint(bytes);
    if (held > held_peak) held_peak = held;
    allocations++;
    Door door;
    protect(PROT_READ | PROT_WRITE); /* the arena may have grown behind an open door */
    ASAN_POISON_MEMORY_REGION(p, footprint(bytes));
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
    memset(p, 0xff, bytes);
    return p;
}

bool memory_free(void *p) {
    auto it = live.find((char *)p);
    if (it == live.end()) return false;
    Door door;
    memset(p, 0xff, it->second);
    ASAN_POISON_MEMORY_REGION(p, it->second);
    idle.insert({footprint(it->second), it->first});
    held -= footprint(it->second);
    live.erase(it);
    return true;
}

MemoryUse memory_use() {
    return {capacity() - held, capacity()};
}

bool memory_take(size_t bytes) {
    if (bytes > capacity() - held) return false;
    held += bytes;
    if (held > held_peak) held_peak = held;
    return true;
}

static struct MemoryLog {
    ~MemoryLog() {
        const char *path = getenv("SIMT_MEMORY_LOG");
        FILE *f = path ? fopen(path, "w") : nullptr;
        if (!f) return;
        fprintf(f, "%zu %zu\n", allocations, held_peak);
        fclose(f);
    }
} memory_log;

bool on_device(const void *p) {
    return arena && (const char *)p >= arena && (const char *)p < arena + CAPACITY;
}

/* The live allocation that p lies in or at the end of. */
static std::map<char *, size_t>::iterator allocation_of(const void *p) {
    auto it = live.upper_bound((char *)(uintptr_t)p);
    if (it == live.begin()) return live.end();
    --it;
    return (size_t)((const char *)p - it->first) <= it->second ? it : live.end();
}

bool live_range(const void *p, size_t bytes) {
    auto it = allocation_of(p);
    return it != live.end() && bytes <= it->second - (size_t)((const char *)p - it->first);
}

void memory_pin(const void *p, const char *what) {
    pins.insert({allocation_of(p)->first, what});
}

void memory_unpin(const void *p, const char *what) {
    auto range = pins.equal_range(allocation_of(p)->first);
    for (auto it = range.first; it != range.second; ++it)
        if (it->second == what) {
            pins.erase(it);
            return;
        }
}

const char *memory_pinned(const void *p) {
    auto it = pins.find((char *)(uintptr_t)p);
    return it == pins.end() ? nullptr : it->second.c_str();
}

}  // namespace simt
