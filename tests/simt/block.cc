/* block.cc - runs the blocks of a grid one after another, each thread on a fiber of its own.
 *
 * A thread runs until it must wait at a barrier or a warp collective; then another ready thread
 * runs. The last thread to arrive does the collective's work for all and makes the others ready.
 * When a thread ends, its fiber goes on with a thread that has not started yet, so kernels that
 * never synchronise make no switch at all.
 *
 * Order: the lowest ready thread, so that the first warp runs ahead as far as it may; with a seed,
 * any ready lane of the warp that stands first in a random ranking, drawn anew now and then. A
 * fair order would keep all warps in step and hide most races between them. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "tests/simt/device.h"
#include "tests/simt/fiber.h"
#include "tests/simt/race.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

/* The section of all __shared__ variables; absent if no kernel has one. */
extern "C" __attribute__((weak)) char __start_simt_shared[], __stop_simt_shared[];

namespace simt {

enum { MAX_WARPS = MAX_THREADS / WARP_SIZE };
enum State { RUNNABLE, AT_BARRIER, IN_WARP, EXITED };

struct Thread {
    Fiber *fiber; /* NULL: not started */
    uint3 id;
    State state;
    const char *file; /* where it waits */
    int line;
    const char *what; /* IN_WARP: what it called, with whom, and what it hands over */
    unsigned mask;
    WarpWork *work;
    void *given;
    void *place; /* race.h's, of the __syncwarp */
};

static struct {
    const Grid *grid; /* NULL while no kernel runs */
    const std::function<void()> *body;
    Thread thread[MAX_THREADS];
    int threads, live, me;
    int at_barrier; /* threads that wait at the barrier at this place */
    const char *barrier_file;
    int barrier_line;
    uint32_t ready[MAX_WARPS];        /* lanes that can run */
    uint32_t in_warp[MAX_WARPS];      /* that are IN_WARP */
    uint32_t there[MAX_WARPS];        /* that exist and have not exited */
    unsigned char ranking[MAX_WARPS]; /* of the block's warps, first to last */
    Fiber *home;
    Fiber *idle[MAX_THREADS];
    int idle_count;
    Fiber *renewed[MAX_THREADS]; /* with RACES: thread i's of the last block that had one */
    char *dynamic;
    void *grid_start, *grid_end, *barrier; /* race.h's places */
} b;

/* ------------------------------------------------------------------------------ messages -- */

[[noreturn]] void fail(const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fflush(stdout);
    if (b.grid)
        fprintf(stderr, "simt: %s: block (%u,%u,%u) thread (%u,%u,%u): %s\n", b.grid->kernel,
                blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, text);
    else
        fprintf(stderr, "simt: %s\n", text);
    abort();
}

static bool same_wait(const Thread &t, const Thread &u) {
    return u.state == t.state && u.line == t.line && u.file == t.file &&
           (t.state == AT_BARRIER || u.mask == t.mask);
}

/* Nobody can run and not all have ended: who waits where. */
[[noreturn]] static void fail_deadlock() {
    char text[768] = "deadlock:";
    std::vector<bool> told(b.threads);
    for (int i = 0; i < b.threads; i++) {
        const Thread &t = b.thread[i];
        if (told[i] || t.state == EXITED) continue;
        int same = 0;
        for (int j = i; j < b.threads; j++)
            if (same_wait(t, b.thread[j])) told[j] = true, same++;
        size_t used = strlen(text);
        if (t.state == AT_BARRIER)
            snprintf(text + used, sizeof text - used, " %d threads wait in __syncthreads (%s:%d);",
                     same, t.file, t.line);
        else
            snprintf(text + used, sizeof text - used,
                     " %d threads wait in %s (%s:%d) with mask %08x;", same, t.what, t.file, t.line,
                     t.mask);
    }
    fail("%s %d have exited", text, b.threads - b.live);
}

/* ---------------------------------------------------------------------------- scheduling -- */

static void make_ready(int i) {
    b.thread[i].state = RUNNABLE;
    b.ready[i / WARP_SIZE] |= 1u << i % WARP_SIZE;
    b.in_warp[i / WARP_SIZE] &= ~(1u << i % WARP_SIZE);
}

static int warps() {
    return (b.threads + WARP_SIZE - 1) / WARP_SIZE;
}

static void rank_warps() {
    for (int i = warps() - 1; i > 0; i--)
        std::swap(b.ranking[i], b.ranking[random_below((unsigned)i + 1)]);
}

/* The lane of a non-empty mask that runs next. */
static int pick_lane(uint32_t lanes) {
    for (unsigned skip = random_below((unsigned)__builtin_popcount(lanes)); skip > 0; skip--)
        lanes &= lanes - 1;
    return __builtin_ctz(lanes);
}

/* Takes the thread that runs next and makes it the current one. */
static Thread *next_thread() {
    enum { STEPS = 64 }; /* between two rankings, on average */
    if (random_order() && random_below(STEPS) == 0) rank_warps();
    for (int i = 0; i < warps(); i++) {
        int warp = b.ranking[i];
        if (!b.ready[warp]) continue;
        int picked = pick_lane(b.ready[warp]);
        b.ready[warp] &= ~(1u << picked);
        b.me = warp * WARP_SIZE + picked;
        Thread *t = &b.thread[b.me];
        threadIdx = t->id;
        return t;
    }
    fail_deadlock();
}

static void fiber_body();

/* With RACES no two threads may share a stack: the second would seem to race with the first. */
static Fiber *fresh_fiber(int i) {
    if (b.renewed[i])
        fiber_renew(b.renewed[i]);
    else
        b.renewed[i] = fiber_new(fiber_body);
    return b.renewed[i];
}

static Fiber *fiber_for(Thread *t) {
    if (t->fiber) return t->fiber;
    if (RACES)
        t->fiber = fresh_fiber((int)(t - b.thread));
    else
        t->fiber = b.idle_count ? b.idle[--b.idle_count] : fiber_new(fiber_body);
    return t->fiber;
}

/* Leaves the current thread, which waits or is ready, for the next one. */
static void yield() {
    Thread *next = next_thread();
    Fiber *fiber = fiber_for(next);
    if (fiber != fiber_current()) fiber_switch(fiber);
}

static void check_exit() {
    const Thread &me = b.thread[b.me];
    async_exit();
    if (b.at_barrier > 0)
        fail("exits while %d threads wait in __syncthreads (%s:%d)", b.at_barrier, b.barrier_file,
             b.barrier_line);
    int base = b.me / WARP_SIZE * WARP_SIZE;
    for (int i = base; i < base + WARP_SIZE && i < b.threads; i++) {
        const Thread &t = b.thread[i];
        if (&t != &me && t.state == IN_WARP && t.mask >> lane() & 1)
            fail("exits while lane %d waits for it in %s (%s:%d)", i - base, t.what, t.file,
                 t.line);
    }
}

/* Runs threads for ever. When it has to wait for work it lies in b.idle, and is switched to as the
 * fiber of another thread. */
static void fiber_body() {
    for (;;) {
        race_acquire(b.grid_start);
        (*b.body)();
        race_release(b.grid_end);
        check_exit();
        Thread *me = &b.thread[b.me];
        me->state = EXITED;
        b.there[b.me / WARP_SIZE] &= ~(1u << lane());
        b.live--;
        Fiber *mine = me->fiber, *to = b.home;
        me->fiber = nullptr;
        if (b.live > 0) {
            Thread *next = next_thread();
            if (!next->fiber && !RACES) {
                next->fiber = mine;
                continue;
            }
            to = fiber_for(next);
        }
        if (!RACES) b.idle[b.idle_count++] = mine;
        fiber_switch(to);
    }
}

/* ----------------------------------------------------------------- barrier and collectives -- */

/* After a rendezvous that the caller completed. In ascending order it just goes on. */
static void go_on() {
    if (!random_order()) return;
    make_ready(b.me);
    yield();
}

void block_barrier(const char *file, int line) {
    Thread &me = b.thread[b.me];
    if (b.live != b.threads)
        fail("__syncthreads (%s:%d) after %d threads have exited", file, line, b.threads - b.live);
    if (b.at_barrier == 0)
        b.barrier_file = file, b.barrier_line = line, b.barrier = race_place();
    else if (b.barrier_line != line || strcmp(b.barrier_file, file) != 0)
        fail("__syncthreads (%s:%d) meets another one (%s:%d)", file, line, b.barrier_file,
             b.barrier_line);
    me.file = file, me.line = line;
    void *place = b.barrier;
    race_release(place);
    if (++b.at_barrier < b.live) {
        me.state = AT_BARRIER;
        yield();
    } else {
        b.at_barrier = 0;
        for (int i = 0; i < b.threads; i++)
            if (i != b.me) make_ready(i);
        go_on();
    }
    race_acquire(place);
}

unsigned lane() {
    return (unsigned)b.me % WARP_SIZE;
}

unsigned thread_index() {
    return (unsigned)b.me;
}

void *dynamic_shared() {
    return b.dynamic;
}

bool in_shared(const void *p, size_t bytes) {
    const char *c = (const char *)p;
    return (c >= b.dynamic && c + bytes <= b.dynamic + b.grid->shared_bytes) ||
           (c >= __start_simt_shared && c + bytes <= __stop_simt_shared);
}

/* Fails unless the caller fits a lane that waits in the same collective. */
static void check_fits(const Thread &me, int i, const Thread &t) {
    if (t.work != me.work || t.line != me.line)
        fail("%s (%s:%d) with mask %08x meets lane %d in %s (%s:%d)", me.what, me.file, me.line,
             me.mask, i, t.what, t.file, t.line);
}

/* True when every lane of the caller's mask has arrived. Fails if they do not fit together. */
static bool all_arrived(const Thread *warp, int lanes, const Thread &me) {
    int w = b.me / WARP_SIZE;
    uint32_t gone = me.mask & ~b.there[w], others = me.mask & b.in_warp[w] & ~(1u << lane());
    if (gone) {
        int i = __builtin_ctz(gone);
        fail("%s (%s:%d): mask %08x names lane %d, which %s", me.what, me.file, me.line, me.mask, i,
             i >= lanes ? "does not exist" : "has exited");
    }
    bool all = (me.mask & ~b.in_warp[w]) == 0;
    for (; others; others &= others - 1) {
        int i = __builtin_ctz(others);
        if (warp[i].mask != me.mask) {
            all = false; /* it waits for others first: with another mask, in another place */
            continue;
        }
        check_fits(me, i, warp[i]);
        if (!all) return false; /* those that wait with this mask fit each other */
    }
    return all;
}

/* A place that the lanes of one __syncwarp share: the first to arrive brings it. */
static void *syncwarp_place(const Thread *warp, const Thread &me) {
    for (int i = 0; i < WARP_SIZE; i++)
        if (me.mask >> i & 1 && &warp[i] != &me && warp[i].state == IN_WARP &&
            warp[i].mask == me.mask)
            return warp[i].place;
    return race_place();
}

/* Completes the collective of the caller's mask: all lanes of it are waiting. */
static void perform(Thread *warp, const Thread &me) {
    void *given[WARP_SIZE];
    for (int i = 0; i < WARP_SIZE; i++) given[i] = me.mask >> i & 1 ? warp[i].given : nullptr;
    if (me.work) me.work(given, me.mask);
    for (int i = 0; i < WARP_SIZE; i++)
        if (me.mask >> i & 1 && &warp[i] != &me) make_ready((int)(&warp[i] - b.thread));
}

void warp_together(const char *what, unsigned mask, WarpWork *work, void *given, const char *file,
                   int line) {
    Thread &me = b.thread[b.me], *warp = b.thread + b.me / WARP_SIZE * WARP_SIZE;
    me.what = what, me.mask = mask, me.work = work, me.given = given;
    me.file = file, me.line = line;
    if (!(mask >> lane() & 1))
        fail("%s (%s:%d): lane %u calls with mask %08x, which omits it", what, file, line, lane(),
             mask);
    me.state = IN_WARP;
    b.in_warp[b.me / WARP_SIZE] |= 1u << lane();
    bool all = all_arrived(warp, std::min(b.threads - (int)(warp - b.thread), (int)WARP_SIZE), me);
    void *place = me.place = RACES && !work ? syncwarp_place(warp, me) : nullptr;
    if (!work) race_release(place);
    if (all) {
        perform(warp, me);
        me.state = RUNNABLE;
        b.in_warp[b.me / WARP_SIZE] &= ~(1u << lane());
        go_on();
    } else {
        yield();
    }
    if (!work) race_acquire(place);
}

/* ------------------------------------------------------------------------- blocks and grid -- */

/* By hand: the section holds AddressSanitizer's red zones too, which memset would trip over. In
 * wide pieces: it holds the variables of all kernels, and every block finds it filled. */
__attribute__((no_sanitize("address"))) static void fill_static() {
    typedef uint64_t Piece __attribute__((vector_size(64), aligned(1), may_alias));
    size_t bytes = (size_t)(__stop_simt_shared - __start_simt_shared), at = 0;
    if (bytes == 0) return;
    race_forget(__start_simt_shared, bytes);
    volatile char *p = __start_simt_shared;
    for (; at + sizeof(Piece) <= bytes; at += sizeof(Piece)) *(volatile Piece *)(p + at) = ~Piece{};
    for (; at < bytes; at++) p[at] = (char)0xff;
}

/* Of the exact size, so that AddressSanitizer sees its end, and new for every block, so that
 * ThreadSanitizer knows of no accesses. */
static void allocate_dynamic() {
    RaceQuiet quiet;
    size_t bytes = b.grid->shared_bytes;
    void *p;
    free(b.dynamic);
    if (posix_memalign(&p, 128, bytes + !bytes) != 0) fail("no memory for dynamic shared memory");
    memset(p, 0xff, bytes);
    b.dynamic = (char *)p;
}

static void run_block(unsigned index) {
    const Grid &g = *b.grid;
    blockIdx.x = index % g.grid.x;
    blockIdx.y = index / g.grid.x % g.grid.y;
    blockIdx.z = index / g.grid.x / g.grid.y;
    fill_static();
    allocate_dynamic();
    b.live = b.threads, b.at_barrier = 0;
    for (int i = 0; i < MAX_WARPS; i++)
        b.ready[i] = b.in_warp[i] = b.there[i] = 0, b.ranking[i] = (unsigned char)i;
    for (int i = 0; i < b.threads; i++) {
        unsigned u = (unsigned)i;
        b.thread[i] = Thread();
        b.thread[i].id = {u % g.block.x, u / g.block.x % g.block.y, u / g.block.x / g.block.y};
        if (RACES) fiber_for(&b.thread[i]); /* here: what makes a context happens before it */
        make_ready(i);
        b.there[i / WARP_SIZE] |= 1u << i % WARP_SIZE;
    }
    if (random_order()) rank_warps();
    fiber_switch(fiber_for(next_thread()));
}

void run_grid(const Grid &grid, const std::function<void()> &body) {
    b.grid = &grid, b.body = &body, b.home = fiber_current();
    gridDim = grid.grid, blockDim = grid.block;
    b.threads = (int)(grid.block.x * grid.block.y * grid.block.z);
    unsigned blocks = grid.grid.x * grid.grid.y * grid.grid.z;
    std::vector<unsigned> order(blocks);
    for (unsigned i = 0; i < blocks; i++) order[i] = i;
    for (unsigned i = 0; random_order() && i < blocks; i++)
        std::swap(order[i], order[i + random_below(blocks - i)]);
    race_grid();
    b.grid_start = race_place(), b.grid_end = race_place();
    race_release(b.grid_start);
    for (unsigned i : order) run_block(i);
    race_acquire(b.grid_end);
    b.grid = nullptr;
}

/* -------------------------------------------------------------------------------- chance -- */

static uint64_t seed_of_environment() {
    const char *text = getenv("SIMT_SEED");
    return text ? strtoull(text, nullptr, 10) : 0;
}
static const uint64_t seed = seed_of_environment();

bool random_order() {
    return seed != 0;
}

unsigned random_below(unsigned n) {
    static uint64_t drawn;
    if (!random_order()) return 0;
    uint64_t z = seed * 0x9e3779b97f4a7c15u + ++drawn * 0xbf58476d1ce4e5b9u; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (unsigned)((z ^ (z >> 31)) % n);
}

}  // namespace simt
