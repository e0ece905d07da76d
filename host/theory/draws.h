/* draws.h - random numbers of one thing of a World, in order: its own stream of rng.h. */
#ifndef SAILS_THEORY_DRAWS_H
#define SAILS_THEORY_DRAWS_H

#include "data/base/rng.h"
#include "host/theory/world.h"

enum DrawOf {
    DRAW_TASK,
    DRAW_DIRECTION,
    DRAW_ERROR,
    DRAW_UNALIGNED, /* codes of a document */
    DRAW_ALIGNED,
    DRAW_SHARED, /* which of a pair's features have one value */
    DRAW_CHOICE,
    DRAW_NOISE, /* + the source */
    DRAW_NOISE_SUM = DRAW_NOISE + 3,
    DRAW_KINDS
};

typedef struct Draws {
    uint64_t seed, stream, index;
    double spare; /* of a pair of normals */
    bool has_spare;
} Draws;

enum { DRAWS_EACH = 1 << 20 }; /* numbers that one thing may use */

static inline Draws draws_of(const WorldShape *s, int what, uint64_t which) {
    return (Draws){.seed = s->seed,
                   .stream = (uint64_t)s->draw * DRAW_KINDS + (uint64_t)what,
                   .index = which * DRAWS_EACH};
}

static inline double draw_uniform(Draws *d) {
    return rng_uniform(d->seed, d->stream, d->index++);
}

/* Box-Muller, both numbers of it: noise is most of what documents cost. */
static inline double draw_normal(Draws *d) {
    d->has_spare = !d->has_spare;
    if (!d->has_spare) return d->spare;
    RngWords w = rng_words(d->seed, d->stream, d->index++);
    uint64_t a = (uint64_t)w.w[1] << 32 | w.w[0], b = (uint64_t)w.w[3] << 32 | w.w[2];
    double u = ((double)(a >> 11) + 1) * 0x1p-53, v = (double)(b >> 11) * 0x1p-53;
    double radius = sqrt(-2 * log(u)), angle = 6.283185307179586 * v;
    d->spare = radius * sin(angle);
    return radius * cos(angle);
}

#endif
