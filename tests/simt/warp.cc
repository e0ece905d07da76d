/* warp.cc - what the lanes of a warp exchange: votes and shuffles. */
#include "tests/simt/simt.h"

namespace simt {

namespace {

struct Vote {
    unsigned yes; /* the lane's, then the mask of all */
};
void count_votes(void *const lanes[WARP_SIZE], unsigned mask) {
    unsigned all = 0;
    for (int i = 0; i < WARP_SIZE; i++)
        if (mask >> i & 1 && ((Vote *)lanes[i])->yes) all |= 1u << i;
    for (int i = 0; i < WARP_SIZE; i++)
        if (mask >> i & 1) ((Vote *)lanes[i])->yes = all;
}

struct Shuffle {
    uint64_t value, result;
    unsigned source;
    const char *file;
    int line;
};
void exchange(void *const lanes[WARP_SIZE], unsigned mask) {
    for (int i = 0; i < WARP_SIZE; i++) {
        if (!(mask >> i & 1)) continue;
        Shuffle *s = (Shuffle *)lanes[i];
        if (!(mask >> s->source & 1))
            fail("a shuffle (%s:%d): lane %d reads lane %u, outside mask %08x", s->file, s->line, i,
                 s->source, mask);
        s->result = ((Shuffle *)lanes[s->source])->value;
    }
}

}  // namespace

unsigned vote(unsigned mask, bool yes, const char *file, int line) {
    Vote v = {yes};
    warp_together("a ballot", mask, count_votes, &v, file, line);
    return v.yes;
}

uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, const char *file, int line) {
    Shuffle s = {value, 0, source, file, line};
    warp_together("a shuffle", mask, exchange, &s, file, line);
    return s.result;
}

}  // namespace simt
