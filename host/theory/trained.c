/* trained.c - a TopK sparse autoencoder, trained on documents. */
#include "host/theory/trained.h"

#include <math.h>

#include "data/base/mem.h"
#include "host/theory/draws.h"
#include "model/subspace.h"

enum { BATCH = 256 };
static const double RATE = 2e-3, DECAY = 0.3; /* share of the steps over which the rate falls */

static double dot(const double *a, const double *b, int H) {
    double sum = 0;
    for (int h = 0; h < H; h++) sum += a[h] * b[h];
    return sum;
}

static void unit_rows(double *rows, int n, int H) {
    for (int j = 0; j < n; j++) {
        double *row = rows + (size_t)j * H, length = sqrt(dot(row, row, H));
        for (int h = 0; h < H; h++) row[h] /= length;
    }
}

/* ---------------------------------------------------------------------------------- one vector
 * -- */

/* The places are sorted, the largest first. */
int trained_encode(int32_t *latent, double *z, const TrainedSae *s, const double *x) {
    int n = 0;
    double *pre = mem_array((size_t)s->n, sizeof *pre);
    memcpy(pre, s->bias, (size_t)s->n * sizeof *pre);
    for (int h = 0; h < s->H; h++) {
        const double *column = s->enc + (size_t)h * s->n, d = x[h] - s->centre[h];
        for (int j = 0; j < s->n; j++) pre[j] += d * column[j];
    }
    for (int j = 0; j < s->n; j++) {
        if (!(pre[j] > 0) || (n == s->k && pre[j] <= z[n - 1])) continue;
        int at = n < s->k ? n++ : n - 1;
        for (; at > 0 && z[at - 1] < pre[j]; at--) z[at] = z[at - 1], latent[at] = latent[at - 1];
        z[at] = pre[j], latent[at] = j;
    }
    free(pre);
    return n;
}

/* error (H) out: y - x. */
static double decode(double *error, const TrainedSae *s, const double *x, const int32_t *latent,
                     const double *z, int n) {
    for (int h = 0; h < s->H; h++) error[h] = s->centre[h] - x[h];
    for (int i = 0; i < n; i++) {
        const double *row = s->dec + (size_t)latent[i] * s->H;
        for (int h = 0; h < s->H; h++) error[h] += z[i] * row[h];
    }
    return dot(error, error, s->H);
}

/* What a vector gives: kept, so that vectors are encoded side by side and added in order. */
typedef struct Pass {
    int32_t *latent; /* (k) */
    double *z;       /* (k) */
    double *error;   /* (H) */
    double loss;
    int n;
} Pass;

static Pass pass_make(const TrainedSae *s) {
    return (Pass){mem_array((size_t)s->k, sizeof(int32_t)), mem_array((size_t)s->k, sizeof(double)),
                  mem_array((size_t)s->H, sizeof(double)), 0, 0};
}

static void pass_free(Pass *p) {
    free(p->latent), free(p->z), free(p->error);
}

static void run(Pass *p, const TrainedSae *s, const double *x) {
    p->n = trained_encode(p->latent, p->z, s, x);
    p->loss = decode(p->error, s, x, p->latent, p->z, p->n);
}

/* dL/dy = 2 error; dL/dz_j = 2 error . D_j; the centre is in y and, negated, in what E reads. */
static void add_gradients(TrainedGrads *g, const TrainedSae *s, const double *x, const Pass *p) {
    int H = s->H;
    for (int h = 0; h < H; h++) g->centre[h] += 2 * p->error[h];
    for (int i = 0; i < p->n; i++) {
        size_t j = (size_t)p->latent[i], at = j * (size_t)H;
        double dz = 2 * dot(p->error, s->dec + at, H);
        g->bias[j] += dz;
        for (int h = 0; h < H; h++) {
            g->dec[at + (size_t)h] += 2 * p->z[i] * p->error[h];
            g->enc[(size_t)h * s->n + j] += dz * (x[h] - s->centre[h]);
            g->centre[h] -= dz * s->enc[(size_t)h * s->n + j];
        }
    }
}

double trained_backward(TrainedGrads *g, const TrainedSae *s, const double *x) {
    Pass p = pass_make(s);
    run(&p, s, x);
    add_gradients(g, s, x, &p);
    pass_free(&p);
    return p.loss;
}

/* ------------------------------------------------------------------------------------ training
 * -- */

/* All parameters, their gradients and Adam's moments lie in one array each. */
typedef struct Trainer {
    TrainedGrads g;
    double *grad, *mean, *square;
    size_t size;
    int step;
} Trainer;

static void lay_out(TrainedSae *s, TrainedGrads *g, double *all, double *grad) {
    size_t rows = (size_t)s->n * (size_t)s->H, n = (size_t)s->n;
    s->enc = all, s->dec = all + rows, s->bias = all + 2 * rows, s->centre = all + 2 * rows + n;
    *g = (TrainedGrads){grad, grad + rows, grad + 2 * rows, grad + 2 * rows + n};
}

static void start(TrainedSae *s, const World *w) {
    Draws draws = draws_of(&w->s, DRAW_CHOICE, 1);
    size_t rows = (size_t)s->n * (size_t)s->H;
    for (size_t i = 0; i < rows; i++) s->dec[i] = draw_normal(&draws);
    unit_rows(s->dec, s->n, s->H);
    for (int j = 0; j < s->n; j++)
        for (int h = 0; h < s->H; h++) s->enc[(size_t)h * s->n + j] = s->dec[(size_t)j * s->H + h];
}

/* The parallel part of D's gradient would only change lengths, which are set. */
static void take_parallel_off(const TrainedSae *s, TrainedGrads *g) {
    for (int j = 0; j < s->n; j++) {
        const double *row = s->dec + (size_t)j * s->H;
        double *grad = g->dec + (size_t)j * s->H, along = dot(row, grad, s->H);
        for (int h = 0; h < s->H; h++) grad[h] -= along * row[h];
    }
}

static void adam(Trainer *t, double *all, double rate) {
    const double b1 = 0.9, b2 = 0.999, eps = 1e-8;
    double c1 = 1 - pow(b1, ++t->step), c2 = 1 - pow(b2, t->step);
    for (size_t i = 0; i < t->size; i++) {
        double g = t->grad[i] / BATCH;
        t->mean[i] = b1 * t->mean[i] + (1 - b1) * g;
        t->square[i] = b2 * t->square[i] + (1 - b2) * g * g;
        all[i] -= rate * (t->mean[i] / c1) / (sqrt(t->square[i] / c2) + eps);
    }
    memset(t->grad, 0, t->size * sizeof *t->grad);
}

/* Batch `step` of the documents: half of each corpus. */
static void read_batch(double *x, const World *w, int step) {
    int half = BATCH / 2;
    sample_documents(x, w, UNALIGNED, step * half, half);
    sample_documents(x + (size_t)half * (size_t)w->s.H, w, ALIGNED, step * half, half);
}

static void train_batch(TrainedSae *s, Trainer *t, Pass *pass, const double *x) {
#pragma omp parallel for schedule(static)
    for (int i = 0; i < BATCH; i++) run(&pass[i], s, x + (size_t)i * (size_t)s->H);
    for (int i = 0; i < BATCH; i++) add_gradients(&t->g, s, x + (size_t)i * (size_t)s->H, &pass[i]);
    take_parallel_off(s, &t->g);
}

static double rate_at(int step, int steps) {
    double left = (double)(steps - step) / (DECAY * steps);
    return RATE * fmin(left, 1);
}

void trained_make(TrainedSae *s, const World *w, int k, int documents) {
    int H = w->s.H, n = w->s.n, steps = documents / BATCH > 1 ? documents / BATCH : 1;
    size_t size = 2 * (size_t)n * (size_t)H + (size_t)n + (size_t)H;
    double *all = mem_array(size, sizeof *all),
           *x = mem_array((size_t)BATCH * (size_t)H, sizeof *x);
    Trainer t = {.grad = mem_array(size, sizeof(double)),
                 .mean = mem_array(size, sizeof(double)),
                 .square = mem_array(size, sizeof(double)),
                 .size = size};
    Pass pass[BATCH];
    *s = (TrainedSae){.H = H, .n = n, .k = k, .seen = steps * (BATCH / 2)};
    lay_out(s, &t.g, all, t.grad);
    start(s, w);
    for (int i = 0; i < BATCH; i++) pass[i] = pass_make(s);
    for (int step = 0; step < steps; step++) {
        read_batch(x, w, step);
        for (int i = 0; step == 0 && i < BATCH * H; i++) s->centre[i % H] += x[i] / BATCH;
        train_batch(s, &t, pass, x);
        adam(&t, all, rate_at(step, steps));
        unit_rows(s->dec, n, H);
    }
    for (int i = 0; i < BATCH; i++) pass_free(&pass[i]);
    free(t.grad), free(t.mean), free(t.square), free(x);
}

void trained_free(TrainedSae *s) {
    free(s->enc); /* and all behind it */
    *s = (TrainedSae){0};
}

/* -------------------------------------------------------------------------------- what it found
 * -- */

/* Sums over documents of a corpus, behind those that were trained on. */
typedef struct Sums {
    double *z, *fires; /* (n) of both corpora: z of the aligned ones less the others */
    double *x;         /* (H) */
    double square, loss;
} Sums;

static void add_corpus(Sums *sums, const World *w, const TrainedSae *s, enum Corpus corpus,
                       int documents) {
    int H = s->H;
    double *x = mem_array((size_t)H, sizeof *x);
    Pass p = pass_make(s);
    for (int i = 0; i < documents; i++) {
        sample_documents(x, w, corpus, s->seen + i, 1);
        run(&p, s, x);
        for (int a = 0; a < p.n; a++) {
            sums->z[p.latent[a]] += corpus == ALIGNED ? p.z[a] : -p.z[a];
            sums->fires[p.latent[a]]++;
        }
        for (int h = 0; h < H; h++) sums->x[h] += x[h];
        sums->square += dot(x, x, H);
        sums->loss += p.loss;
    }
    pass_free(&p);
    free(x);
}

/* The mean over features first .. last - 1 of the largest cosine with a row of D. */
static double cosine_of(const World *w, const TrainedSae *s, int last) {
    double sum = 0;
    for (int j = 0; j < last; j++) {
        double most = 0;
        for (int i = 0; i < s->n; i++)
            most = fmax(most, dot(w->d + (size_t)j * s->H, s->dec + (size_t)i * s->H, s->H));
        sum += most;
    }
    return sum / last;
}

TrainedFacts trained_facts(Exec *ex, const World *w, const TrainedSae *s, int documents) {
    Sums sums = {.z = mem_array((size_t)s->n, sizeof(double)),
                 .fires = mem_array((size_t)s->n, sizeof(double)),
                 .x = mem_array((size_t)s->H, sizeof(double))};
    for (int c = 0; c < 2; c++) add_corpus(&sums, w, s, (enum Corpus)c, documents);
    double all = 2.0 * documents, alive = 0;
    for (int j = 0; j < s->n; j++) alive += sums.fires[j] > 0;
    TrainedFacts f = {.unexplained = sums.loss / (sums.square - dot(sums.x, sums.x, s->H) / all),
                      .cosine = cosine_of(w, s, s->n),
                      .task_cosine = cosine_of(w, s, w->s.r),
                      .alive = alive / s->n,
                      .found = estimate_rows(ex, w, s->dec, sums.z, s->n)};
    free(sums.z), free(sums.fires), free(sums.x);
    return f;
}
