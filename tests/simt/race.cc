/* race.cc - tells ThreadSanitizer which fiber runs, and what happens before what. */
#include "tests/simt/race.h"

#ifdef SIMT_TSAN

#include <sanitizer/tsan_interface.h>
#include <stdint.h>
#include <sys/mman.h>

#include "tests/simt/simt.h"

extern "C" {
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
}

namespace simt {

void *race_context() {
    return __tsan_create_fiber(0);
}
void race_context_destroy(void *context) {
    __tsan_destroy_fiber(context);
}
void *race_current() {
    return __tsan_get_current_fiber();
}
void race_switch(void *context) {
    __tsan_switch_to_fiber(context, __tsan_switch_to_fiber_no_sync);
}

RaceQuiet::RaceQuiet() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
RaceQuiet::~RaceQuiet() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

/* A mapping made while accesses do not count is memory that nobody has touched. */
void race_forget(void *pages, size_t bytes) {
    RaceQuiet quiet;
    void *p = mmap(pages, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (p == MAP_FAILED) fail("no memory to forget races in");
}

/* Places are addresses and nothing else: never written. */
enum { PLACES = 1 << 22 };
static uint64_t *places;
static size_t places_used;

void race_grid() {
    if (!places)
        places = (uint64_t *)mmap(nullptr, PLACES * sizeof *places, PROT_READ,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (places == MAP_FAILED) fail("no addresses for barriers");
    race_forget(places, PLACES * sizeof *places);
    places_used = 0;
}
void *race_place() {
    if (places_used == PLACES) fail("more than %d barriers in one grid", PLACES);
    return &places[places_used++];
}
void race_release(void *place) {
    __tsan_release(place);
}
void race_acquire(void *place) {
    __tsan_acquire(place);
}

}  // namespace simt

#endif
