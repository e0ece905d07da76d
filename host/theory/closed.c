/* closed.c - the experiment's closed forms. */
#include "host/theory/closed.h"

#include <math.h>

#include "data/base/mem.h"

/* -------------------------------------------------------------------- of the shape's numbers -- */

double closed_floor(int r) {
    return sqrt(r - 1);
}

/* tr G^-1 of G = (1-c) I + c 11'. */
static double inverse_trace(int r, double c) {
    return (r - 1) / (1 - c) + 1 / (1 - c + r * c);
}

double closed_sae(const WorldShape *s, double eps) {
    double outside = (double)(s->H - s->r) / (s->H - 1);
    return sqrt(2 * inverse_trace(s->r, s->coherence) * outside) * sin(atan(eps));
}

double closed_crossover(int r) {
    return sqrt((r - 1.0) / (r + 1.0));
}

double closed_other_k(int k, int r) {
    return sqrt(abs(k - r));
}

double closed_captured(int r, double error) {
    return 1 - error * error / (2 * r);
}

double closed_documents(const WorldShape *s) {
    double v0 = 1.25 * s->p0 - s->p0 * s->p0, v1 = world_variance(s, ALIGNED, 0);
    double noise = sqrt(4 * v0 * log(s->n)) + sqrt(2 * (v0 + v1) * log(s->r));
    return noise * noise / (s->delta * s->delta);
}

static double gaussian(double x) {
    return 0.5 * erfc(-x / sqrt(2));
}

/* Integrates over t, the largest |difference| of the others: its distribution times the probability
 * that each of the task's is above. */
double closed_selection(const WorldShape *s, int documents) {
    enum { STEPS = 4000 };
    double v0 = world_variance(s, UNALIGNED, 0), v1 = world_variance(s, ALIGNED, 0);
    double task = sqrt((v0 + v1) / documents), far = s->delta + 12 * task, sum = 0, below = 0;
    for (int i = 1; i <= STEPS; i++) {
        double t = far * i / STEPS, to = 1;
        for (int kind = 0; kind < 2; kind++) { /* quiet features, loud ones */
            double louder = kind ? s->loudness : 1, count = kind ? s->loud : s->n - s->r - s->loud;
            double sigma = louder * sqrt(2 * v0 / documents);
            to *= pow(2 * gaussian(t / sigma) - 1, count);
        }
        double middle = far * (i - 0.5) / STEPS;
        sum += (to - below) * pow(gaussian((s->delta - middle) / task), s->r);
        below = to;
    }
    return sum;
}

/* u = sin a has a density of cos(a)^(H-2) in a. */
double closed_unheard(const WorldShape *s) {
    enum { STEPS = 4000 };
    double edge = asin(1 / sqrt(s->r)), within = 0, all = 0;
    for (int i = 0; i < STEPS; i++) {
        double a = (i + 0.5) / STEPS, half = asin(1);
        within += edge * pow(cos(a * edge), s->H - 2);
        all += half * pow(cos(a * half), s->H - 2);
    }
    return pow(within / all, s->n - s->r);
}

double closed_heard(const World *w, int documents) {
    const WorldShape *s = &w->s;
    double own = 2 * world_variance(s, UNALIGNED, s->n - 1), whole = 2 * s->sigma * s->sigma * s->H;
    for (int c = 0; c < 2; c++)
        for (int j = 0; j < s->n; j++) whole += world_variance(s, (enum Corpus)c, j);
    double m = s->r * s->delta * s->delta + (whole - own) / documents;
    return sqrt(m / s->H + own / documents);
}

double closed_kept(int k, int r, double tau) {
    double m = ceil(tau * k - 1e-9);
    return m / k * (k < r ? (double)k / r : 1);
}

/* ---------------------------------------------------------------------------- of covariances -- */

static double dot(const double *a, const double *b, int H) {
    double sum = 0;
    for (int h = 0; h < H; h++) sum += a[h] * b[h];
    return sum;
}

/* x <- x - P x; returns the square of what is left. */
static double outside(double *x, const World *w) {
    int H = w->s.H, r = w->s.r;
    for (int j = 0; j < r; j++) {
        double along = 0;
        for (int h = 0; h < H; h++) along += w->V[(size_t)h * r + j] * x[h];
        for (int h = 0; h < H; h++) x[h] -= along * w->V[(size_t)h * r + j];
    }
    return dot(x, x, H);
}

/* |(I-P) d_j|^2 of all features. */
static double *all_outside(const World *w) {
    int H = w->s.H;
    double *square = mem_array((size_t)w->s.n, sizeof *square),
           *x = mem_array((size_t)H, sizeof *x);
    for (int j = w->s.r; j < w->s.n; j++) {
        memcpy(x, w->d + (size_t)j * H, (size_t)H * sizeof *x);
        square[j] = outside(x, w);
    }
    free(x);
    return square;
}

double closed_mean(const World *w, int documents) {
    const WorldShape *s = &w->s;
    double *square = all_outside(w), noise = s->sigma * s->sigma;
    double whole = 2 * noise * s->H, out = 2 * noise * (s->H - s->r);
    for (int c = 0; c < 2; c++)
        for (int j = 0; j < s->n; j++) {
            whole += world_variance(s, c, j);
            out += world_variance(s, c, j) * square[j];
        }
    free(square);
    double signal = s->delta * s->delta * s->r * (1 + (s->r - 1) * s->coherence);
    return sqrt(s->r - 1 + 2 * out / documents / (signal + whole / documents));
}

/* A = (D K D')^+ of the task's directions D (H,r) and K = a I + b 11': D G^-1 K^-1 G^-1 D', whose
 * middle is of the same form, u I + v 11'. */
typedef struct Inverse {
    double u, v;
    const World *w;
} Inverse;

static Inverse inverse_of(const World *w, double a, double b) {
    int r = w->s.r;
    double c = w->s.coherence;
    /* All three have 1 as an eigenvector and are multiples of I on the rest. */
    double rest = 1 / ((1 - c) * (1 - c) * a);
    double one = 1 / ((1 - c + r * c) * (1 - c + r * c) * (a + r * b));
    return (Inverse){rest, (one - rest) / r, w};
}

static void apply(double *out, const Inverse *A, const double *x) {
    int H = A->w->s.H, r = A->w->s.r;
    double sum = 0;
    memset(out, 0, (size_t)H * sizeof *out);
    for (int j = 0; j < r; j++) sum += dot(A->w->d + (size_t)j * H, x, H);
    for (int j = 0; j < r; j++) {
        const double *d = A->w->d + (size_t)j * H;
        double z = A->u * dot(d, x, H) + A->v * sum;
        for (int h = 0; h < H; h++) out[h] += z * d[h];
    }
}

/* Column j of V through A, into (H). */
static void apply_to_basis(double *out, double *x, const Inverse *A, int j) {
    int r = A->w->s.r;
    for (int h = 0; h < A->w->s.H; h++) x[h] = A->w->V[(size_t)h * r + j];
    apply(out, A, x);
}

/* N E ||(I-P) S A||^2 of a corpus's sample covariance S. With y a centred document it is
 *   E |A y|^2 |(I-P) y|^2 - ||(I-P) C A||^2
 * and of independent parts E (y'Ry)(y'Qy) = tr(RC) tr(QC) + 2 tr(RCQC) + sum_j k4_j d'Rd d'Qd. */
static double sampling(const Inverse *A, enum Corpus c, const double *square) {
    const World *w = A->w;
    const WorldShape *s = &w->s;
    int H = s->H, r = s->r;
    double *x = mem_array((size_t)H, sizeof *x), *y = mem_array((size_t)H, sizeof *y);
    double noise = s->sigma * s->sigma, within = 0, out = noise * (H - r), both = 0, mixed = 0;
    for (int j = 0; j < s->n; j++) {
        apply(x, A, w->d + (size_t)j * H);
        double a = dot(x, x, H);
        within += world_variance(s, c, j) * a;
        out += world_variance(s, c, j) * square[j];
        both += world_cumulant(s, c, j) * a * square[j];
    }
    for (int i = 0; i < r; i++) { /* (I-P) C A, a column of A's at a time */
        apply_to_basis(x, y, A, i);
        within += noise * dot(x, x, H);
        memset(y, 0, (size_t)H * sizeof *y); /* its noise, sigma^2 x, lies in P */
        for (int j = 0; j < s->n; j++) {
            const double *d = w->d + (size_t)j * H;
            double z = world_variance(s, c, j) * dot(d, x, H);
            for (int h = 0; h < H; h++) y[h] += z * d[h];
        }
        mixed += outside(y, w);
    }
    free(x), free(y);
    return within * out + mixed + both;
}

double closed_contrast(const World *w, int documents) {
    double gap = world_variance(&w->s, ALIGNED, 0) - world_variance(&w->s, UNALIGNED, 0);
    Inverse A = inverse_of(w, gap, 0);
    double *square = all_outside(w);
    double error = sampling(&A, ALIGNED, square) + sampling(&A, UNALIGNED, square);
    free(square);
    return sqrt(2 * error / documents);
}

/* The pair's difference has E z z' = s I + delta^2 (11' - I) in the task, s its mean square. */
static double pair_square(const WorldShape *s, int j) {
    double gap = world_rate(s, ALIGNED, j) - world_rate(s, UNALIGNED, j);
    return world_variance(s, ALIGNED, j) + world_variance(s, UNALIGNED, j) + gap * gap;
}

/* Outside the task there is noise alone, 2 sigma^2 in each direction, independent of the rest. */
double closed_matched(const World *w, int documents) {
    const WorldShape *s = &w->s;
    double square = s->delta * s->delta, noise = 2 * s->sigma * s->sigma, trace = 0, second = 0;
    Inverse A = inverse_of(w, pair_square(s, 0) - square, square);
    double *x = mem_array((size_t)s->H, sizeof *x), *y = mem_array((size_t)s->H, sizeof *y);
    for (int i = 0; i < s->r; i++) {
        apply_to_basis(x, y, &A, i);
        trace += dot(x, y, s->H); /* y is the column of V */
        second += dot(x, x, s->H);
    }
    free(x), free(y);
    return sqrt(2 * noise * (s->H - s->r) * (trace + noise * second) / documents);
}

Recovery closed_pairs(Exec *ex, const World *w, double shared) {
    const WorldShape *s = &w->s;
    int H = s->H;
    double *M = mem_array((size_t)H * (size_t)H, sizeof *M),
           *mean = mem_array((size_t)H, sizeof *mean);
    for (int j = 0; j < s->n; j++) {
        const double *d = w->d + (size_t)j * H;
        double square = s->delta * s->delta, z = pair_square(s, j);
        z = j < s->r ? z - square : (1 - shared) * z;
        for (int a = 0; a < H; a++) {
            if (j < s->r) mean[a] += s->delta * d[a];
            for (int b = 0; b < H; b++) M[(size_t)a * H + b] += z * d[a] * d[b];
        }
    }
    for (int a = 0; a < H; a++)
        for (int b = 0; b < H; b++) M[(size_t)a * H + b] += mean[a] * mean[b];
    Recovery found = estimate_leading(ex, w, M); /* 2 sigma^2 I moves no eigenvector */
    free(M), free(mean);
    return found;
}
