/* world.c - directions, dictionaries and rates of the generative model. */
#include "host/theory/world.h"

#include <math.h>

#include "data/base/mem.h"
#include "host/theory/draws.h"
#include "model/subspace.h"

bool world_check(const WorldShape *s, Err *err) {
    int room = s->coherence > 0 ? s->H - 1 : s->H;
    if (s->r > room)
        return err_set(err, EXIT_USAGE,
                       "--rank %d: expected at most %d, as many directions as --width %d %s", s->r,
                       room, s->H, s->coherence > 0 ? "leaves to coherent ones" : "has");
    if (s->n <= s->r)
        return err_set(err, EXIT_USAGE,
                       "--features %d: expected more than the %d of the task (--rank)", s->n, s->r);
    if (s->loud > s->n - s->r)
        return err_set(err, EXIT_USAGE,
                       "--loud %d: expected at most %d, the features that are not the task's",
                       s->loud, s->n - s->r);
    if (s->p0 + s->delta > 1)
        return err_set(err, EXIT_USAGE,
                       "--delta %g: expected at most %g: with --rate %g the task's features would "
                       "fire more often than always",
                       s->delta, 1 - s->p0, s->p0);
    return true;
}

/* -------------------------------------------------------------------------------- directions -- */

static double dot(const double *a, const double *b, int H) {
    double sum = 0;
    for (int h = 0; h < H; h++) sum += a[h] * b[h];
    return sum;
}

static void unit(double *a, int H) {
    double length = sqrt(dot(a, a, H));
    for (int h = 0; h < H; h++) a[h] /= length;
}

static void random_unit(double *a, Draws *draws, int H) {
    for (int h = 0; h < H; h++) a[h] = draw_normal(draws);
    unit(a, H);
}

/* sqrt(1-c) q_j + sqrt(c) g of orthonormal q_1 .. q_r, g: unit, any two at cosine c. */
static void task_directions(World *w, Exec *ex) {
    int H = w->s.H, r = w->s.r, columns = r + (w->s.coherence > 0);
    double *q = mem_array((size_t)H * (size_t)columns, sizeof *q);
    Draws draws = draws_of(&w->s, DRAW_TASK, 0);
    for (int i = 0; i < H * columns; i++) q[i] = draw_normal(&draws);
    basis_orthonormalise(ex, q, H, columns);
    double own = sqrt(1 - w->s.coherence), common = sqrt(w->s.coherence);
    for (int j = 0; j < r; j++)
        for (int h = 0; h < H; h++) {
            double *at = &w->d[(size_t)j * H + h];
            *at = own * q[(size_t)h * columns + j];
            if (columns > r) *at += common * q[(size_t)h * columns + r];
            w->V[(size_t)h * r + j] = *at;
        }
    basis_orthonormalise(ex, w->V, H, r);
    free(q);
}

void world_build(World *w, Exec *ex, const WorldShape *s) {
    Err err;
    CHECK(world_check(s, &err), "%s", err.text);
    size_t H = (size_t)s->H;
    *w = (World){.s = *s,
                 .d = mem_array((size_t)s->n * H, sizeof *w->d),
                 .V = mem_array(H * (size_t)s->r, sizeof *w->V)};
    task_directions(w, ex);
    for (int j = s->r; j < s->n; j++) {
        Draws draws = draws_of(s, DRAW_DIRECTION, (uint64_t)j);
        random_unit(w->d + (size_t)j * H, &draws, s->H);
    }
}

void world_free(World *w) {
    free(w->d), free(w->V);
    memset(w, 0, sizeof *w);
}

void world_row(double *row, const World *w, int j, double eps, enum RowError error) {
    int H = w->s.H, others = w->s.n - w->s.r, other = w->s.r + j % others;
    const double *d = w->d + (size_t)j * H;
    Draws draws = draws_of(&w->s, DRAW_ERROR, (uint64_t)j);
    if (other == j) other = others > 1 ? w->s.r + (j + 1) % others : 0;
    if (error == ERROR_RANDOM)
        random_unit(row, &draws, H);
    else
        memcpy(row, w->d + (size_t)other * H, (size_t)H * sizeof *row);
    double along = dot(row, d, H);
    for (int h = 0; h < H; h++) row[h] -= along * d[h];
    unit(row, H); /* e_j */
    for (int h = 0; h < H; h++) row[h] = d[h] + eps * row[h];
    unit(row, H);
}

/* ------------------------------------------------------------------------------------- rates -- */

double world_rate(const WorldShape *s, enum Corpus c, int j) {
    return c == ALIGNED && j < s->r ? s->p0 + s->delta : s->p0;
}

static double loudness(const WorldShape *s, int j) {
    return j >= s->r && j < s->r + s->loud ? s->loudness : 1;
}

/* u = (1 + t)/2 with t ~ Exp(1): E u = 1, E u^2 = 5/4, E u^3 = 2, E u^4 = 65/16. */
double world_variance(const WorldShape *s, enum Corpus c, int j) {
    double p = world_rate(s, c, j), a = loudness(s, j);
    return a * a * (1.25 * p - p * p);
}

double world_cumulant(const WorldShape *s, enum Corpus c, int j) {
    double p = world_rate(s, c, j), a = loudness(s, j);
    double m1 = p, m2 = 1.25 * p, m3 = 2 * p, m4 = 65.0 / 16 * p;
    double k4 = m4 - 4 * m3 * m1 - 3 * m2 * m2 + 12 * m2 * m1 * m1 - 6 * m1 * m1 * m1 * m1;
    return a * a * a * a * k4;
}
