/* theory.h - how tests of the recovery experiment hold a mean of repeats against what it should be.
 *
 * Tolerances. A mean over repeats may be off by five of its standard errors. A value that was found
 * elsewhere is taken to be one draw: five standard deviations of a draw and of our mean, and half
 * of its last digit. Closed forms of first order may be off by the second order that is named
 * there. */
#ifndef SAILS_TEST_THEORY_H
#define SAILS_TEST_THEORY_H

#include <math.h>

#include "host/theory/closed.h"
#include "tests/test.h"

static const WorldShape USUAL = {
    .H = 128, .n = 512, .r = 8, .p0 = 0.05, .delta = 0.15, .sigma = 0.05, .loudness = 3, .seed = 1};
static Exec ex; /* the CPU device, opened by main */

typedef struct Stat {
    double sum, square;
    int n;
} Stat;

static inline void add(Stat *s, double v) {
    s->sum += v, s->square += v * v, s->n++;
}
static inline double mean(const Stat *s) {
    return s->sum / s->n;
}
static inline double deviation(const Stat *s) { /* of a draw */
    double v = (s->square - s->sum * s->sum / s->n) / (s->n - 1);
    return v > 0 ? sqrt(v) : 0;
}

/* The mean is the closed form's, but for its error and `order` of the closed form. */
static inline int is_closed(const char *what, const Stat *s, double closed, double order) {
    double tol = 5 * deviation(s) / sqrt(s->n) + order * closed + 1e-12;
    int ok = fabs(mean(s) - closed) <= tol;
    if (!test_quiet)
        EXPECT(ok, "%s: %.6g, by formula %.6g, may be off by %.2g", what, mean(s), closed, tol);
    return ok;
}

/* The mean is that of another program's one draw, given to so many decimals. */
static inline int is_found(const char *what, const Stat *s, double found, int decimals) {
    double tol = 5 * deviation(s) * sqrt(1 + 1.0 / s->n) + 0.5 * pow(10, -decimals);
    int ok = fabs(mean(s) - found) <= tol;
    if (!test_quiet)
        EXPECT(ok, "%s: %.6g, elsewhere %.6g, may be off by %.2g", what, mean(s), found, tol);
    return ok;
}

static inline World world_of(WorldShape s, int draw) {
    World w;
    s.draw = draw;
    world_build(&w, &ex, &s);
    return w;
}

#endif
