/* exec_cpu.c - the CPU device: plain memory, work done at the call.
 *
 * Memory comes from mmap: fresh pages are zero, large blocks go back to the system at once, and
 * strict mode can shut them. Transparent huge pages are asked for, because GEMM over weights of
 * gigabytes is bound by address translation otherwise; and in strict mode, where an op would wait
 * for hundreds of small ones to be opened and shut. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/check.h"
#include "kernels/comm.h"
#include "kernels/cpu/gate.h"
#include "kernels/device.h"
#include "kernels/op_scope.h"
#include "kernels/ops.h"

typedef struct Block {
    void *p;
    size_t bytes; /* mapped: whole pages */
} Block;

typedef struct CpuState {
    Block *block;
    int n, capacity;
    double timer; /* when it was started */
    int depth;    /* nested open gates */
    bool strict;
} CpuState;

static CpuState *state_of(Exec *ex) {
    return ex->state;
}

static void protect_all(CpuState *s, int protection) {
    for (int i = 0; i < s->n; i++)
        CHECK(mprotect(s->block[i].p, s->block[i].bytes, protection) == 0, "mprotect failed");
}

Exec *gate_open(Exec *ex) {
    CpuState *s = state_of(ex);
    if (s->depth++ > 0) return ex;
    if (s->strict) protect_all(s, PROT_READ | PROT_WRITE);
    return ex;
}

void gate_close(Exec **opened) {
    CpuState *s = state_of(*opened);
    if (--s->depth > 0) return;
    if (s->strict) protect_all(s, PROT_NONE);
}

static const char *cpu_open(Exec *ex, int card) {
    (void)card;
    CpuState *s = calloc(1, sizeof *s);
    CHECK(s, "out of memory");
    const char *strict = getenv("SAILS_STRICT");
    s->strict = strict && strcmp(strict, "1") == 0;
    ex->state = s;
    return NULL;
}

static void cpu_close(Exec *ex) {
    CpuState *s = state_of(ex);
    CHECK(s->n == 0, "expected all device memory freed before close, %d blocks left", s->n);
    free(s->block);
    free(s);
}

/* NULL: there is no such room. */
static char *map_aligned(size_t bytes, size_t unit) {
    size_t room = bytes + unit;
    char *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t before = (unit - (uintptr_t)p % unit) % unit, behind = unit - before;
    CHECK(before == 0 || munmap(p, before) == 0, "munmap failed");
    CHECK(behind == 0 || munmap(p + before + bytes, behind) == 0, "munmap failed");
    return p + before;
}

static void *cpu_alloc(Exec *ex, size_t bytes) {
    enum { HUGE_PAGE = 2 << 20 };
    CpuState *s = state_of(ex);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t unit = s->strict && bytes >= HUGE_PAGE / 4 ? HUGE_PAGE : page;
    if (bytes > SIZE_MAX - 2 * unit) return NULL;
    size_t mapped = (bytes + unit - 1) / unit * unit;
    void *p = map_aligned(mapped, unit);
    if (!p) return NULL;
    if (!s->strict || unit == HUGE_PAGE)
        madvise(p, mapped, MADV_HUGEPAGE); /* a wish: failure changes nothing */
    if (s->n == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 64;
        s->block = realloc(s->block, (size_t)s->capacity * sizeof *s->block);
        CHECK(s->block, "out of memory");
    }
    s->block[s->n++] = (Block){p, mapped};
    if (s->strict) {
        memset(p, 0xff, mapped);
        if (s->depth == 0) CHECK(mprotect(p, mapped, PROT_NONE) == 0, "mprotect failed");
    }
    return p;
}

static void cpu_free(Exec *ex, void *p) {
    CpuState *s = state_of(ex);
    int i = 0;
    while (i < s->n && s->block[i].p != p) i++;
    CHECK(i < s->n, "expected memory of this device, got %p", p);
    CHECK(munmap(p, s->block[i].bytes) == 0, "munmap failed");
    s->block[i] = s->block[--s->n];
}

static void cpu_copy(Exec *ex, void *to, const void *from, size_t bytes) {
    OP_GATE(ex);
    memmove(to, from, bytes);
}

static void cpu_zero(Exec *ex, void *p, size_t bytes) {
    OP_GATE(ex);
    memset(p, 0, bytes);
}

static void cpu_move(Exec *ex, Comm *c, const Move *move, int n) {
    OP_GATE(ex);
    comm_carry(c, move, n);
}

static bool cpu_memory(Exec *ex, size_t *available, size_t *all) {
    (void)ex, (void)available, (void)all;
    return false;
}
static void cpu_sync(Exec *ex) {
    (void)ex;
}

static void cpu_timer_start(Exec *ex) {
    state_of(ex)->timer = op_clock();
}
static double cpu_timer_stop(Exec *ex) {
    return op_clock() - state_of(ex)->timer;
}

/* What the system says of processor 0's third-level cache; "" if nothing. */
static void cache_text(const char *what, char *text, int size) {
    char path[128];
    *text = 0;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index3/%s", what);
    FILE *f = fopen(path, "r");
    if (f && !fgets(text, size, f)) *text = 0;
    if (f) fclose(f);
}

/* Of all processors together. (sysconf's answer is of one cache, of all, or 0.) */
static size_t cpu_cache(Exec *ex) {
    const size_t unknown = (size_t)32 << 20;
    char text[512];
    (void)ex;
    cache_text("size", text, sizeof text);
    long kilobytes = strtol(text, NULL, 10), sharing = 0;
    cache_text("shared_cpu_map", text, sizeof text);
    for (const char *p = text; *p && *p != '\n'; p++) { /* hexadecimal digits, with commas */
        char digit[2] = {*p};
        sharing += __builtin_popcountl((unsigned long)strtol(digit, NULL, 16));
    }
    if (kilobytes <= 0 || sharing <= 0) return unknown;
    long caches = (sysconf(_SC_NPROCESSORS_ONLN) + sharing - 1) / sharing;
    return (size_t)kilobytes * 1024 * (size_t)caches;
}

/* A level that this build leaves out (SAILS_CPU_LEVELS in CMakeLists.txt) has no twins:
 * CPU_HAS_<id> is 0 or 1. */
#define DECLARE(value, name, id)                                  \
    extern const Ops cpu_##id##_f32_table, cpu_##id##_bf16_table; \
    extern const PeakLoops cpu_##id##_f32_peak, cpu_##id##_bf16_peak;
CPU_LEVELS(DECLARE)

#define IF_0(symbol) NULL
#define IF_1(symbol) &symbol
#define IF_HAS(has, symbol) IF_##has(symbol)
#define IF(has, symbol) IF_HAS(has, symbol)
#define ONE(id, dtype, what) IF(CPU_HAS_##id, cpu_##id##_##dtype##_##what)
#if defined __x86_64__
#define PEAKS(id) \
    { ONE(id, f32, peak), ONE(id, bf16, peak) }
#else
#define PEAKS(id) \
    { NULL } /* peak.c has none */
#endif
#define DEVICE(value, level_name, id)                              \
    [value] = {.name = "cpu",                                      \
               .ops = {ONE(id, f32, table), ONE(id, bf16, table)}, \
               .peak = PEAKS(id),                                  \
               .open = cpu_open,                                   \
               .close = cpu_close,                                 \
               .alloc = cpu_alloc,                                 \
               .free = cpu_free,                                   \
               .memory = cpu_memory,                               \
               .copy_in = cpu_copy,                                \
               .copy_out = cpu_copy,                               \
               .copy = cpu_copy,                                   \
               .zero = cpu_zero,                                   \
               .sync = cpu_sync,                                   \
               .move = cpu_move,                                   \
               .timer_start = cpu_timer_start,                     \
               .timer_stop = cpu_timer_stop,                       \
               .cache = cpu_cache,                                 \
               .maps_host = true},
static const Device devices[CPU_LEVEL_COUNT] = {CPU_LEVELS(DEVICE)};

enum CpuLevel exec_cpu_level(void) {
    unsigned built = 0;
    for (int l = CPU_LEAST; l < CPU_LEVEL_COUNT; l++)
        built |= (unsigned)(devices[l].ops[DTYPE_F32] != NULL) << l;
    return cpu_level_best(built);
}

const Device *device_cpu(enum CpuLevel level) {
    if (level == CPU_AUTO) level = exec_cpu_level();
    bool runs = level != CPU_AUTO && devices[level].ops[DTYPE_F32] && cpu_level_runs(level);
    return runs ? &devices[level] : NULL;
}
