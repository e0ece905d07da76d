/* race.h - tells ThreadSanitizer which CUDA thread runs and what orders its memory accesses, so
 * that it reports races between them. Empty in other builds (SIMT_TSAN).
 *
 * The kernels alone are instrumented; the device's own code is invisible to it. Every thread of
 * every block is a context of its own. What orders two contexts is the start and the end of the
 * grid, a barrier, a __syncwarp - and nothing else: blocks of a grid are not ordered, and shuffles,
 * votes and matrix steps do not order memory (CUDA C++ Programming Guide, "Warp Shuffle
 * Functions"). The runtime tells 256 contexts apart; of more, it may miss races
 * between blocks. Needs clang: gcc 12's runtime takes a millisecond to make a context. */
#ifndef SIMT_RACE_H
#define SIMT_RACE_H

#include <stddef.h>

namespace simt {

#ifdef SIMT_TSAN

enum { RACES = true };

void *race_context(); /* a new one; until destroyed */
void race_context_destroy(void *context);
void *race_current();
void race_switch(void *context);

/* What was done before a release happens before what is done after an acquire of the same place. A
 * place is fresh, and good until race_grid. */
void race_grid();
void *race_place();
void race_release(void *place);
void race_acquire(void *place);

/* Forgets all accesses to whole pages, whose contents are lost. */
void race_forget(void *pages, size_t bytes);

/* While one exists, neither accesses nor the malloc and free of the current context count. */
struct RaceQuiet {
    RaceQuiet();
    ~RaceQuiet();
    RaceQuiet(const RaceQuiet &) = delete;
    RaceQuiet &operator=(const RaceQuiet &) = delete;
};

#else

enum { RACES = false };

static inline void *race_context() {
    return nullptr;
}
static inline void race_context_destroy(void *) {}
static inline void *race_current() {
    return nullptr;
}
static inline void race_switch(void *) {}
static inline void race_grid() {}
static inline void *race_place() {
    return nullptr;
}
static inline void race_release(void *) {}
static inline void race_acquire(void *) {}
static inline void race_forget(void *, size_t) {}
struct RaceQuiet {
    RaceQuiet() {}
};

#endif

}  // namespace simt

#endif
