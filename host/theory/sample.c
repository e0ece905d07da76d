/* sample.c - documents of the generative model: sparse codes, and sums over them. */
#include <math.h>

#include "data/base/mem.h"
#include "host/theory/draws.h"
#include "host/theory/world.h"

/* ------------------------------------------------------------------------------------- codes -- */

/* The features of a document that fire. */
typedef struct Code {
    int *feature;
    double *value;
    int n;
} Code;

static Code code_make(const World *w) {
    size_t n = 2 * (size_t)w->s.n; /* the difference of a pair has both documents' */
    return (Code){mem_array(n, sizeof(int)), mem_array(n, sizeof(double)), 0};
}

static void code_free(Code *c) {
    free(c->feature), free(c->value);
}

static void put(Code *c, int feature, double value) {
    c->feature[c->n] = feature;
    c->value[c->n++] = value;
}

static double amplitude(Draws *d) {
    return 0.5 - 0.5 * log(1 - draw_uniform(d));
}

/* Features first .. last-1 with one rate: how many are skipped before the next that fires is
 * geometric, so that a document costs what fires in it. */
static void fire(Code *c, Draws *d, int first, int last, double p, double loudness) {
    if (p >= 1) {
        for (int j = first; j < last; j++) put(c, j, loudness * amplitude(d));
        return;
    }
    double scale = 1 / log1p(-p);
    for (double j = first;; j++) {
        j += floor(log(1 - draw_uniform(d)) * scale);
        if (!(j < last)) return;
        put(c, (int)j, loudness * amplitude(d));
    }
}

/* The task's features come first. */
static void code_draw(Code *c, const World *w, enum Corpus corpus, int document) {
    const WorldShape *s = &w->s;
    Draws d = draws_of(s, corpus == ALIGNED ? DRAW_ALIGNED : DRAW_UNALIGNED, (uint64_t)document);
    int loud = s->r + s->loud;
    c->n = 0;
    fire(c, &d, 0, s->r, world_rate(s, corpus, 0), 1);
    if (s->loud) fire(c, &d, s->r, loud, s->p0, s->loudness);
    fire(c, &d, loud, s->n, s->p0, 1);
}

/* Of a pair: aligned minus unaligned. A shared feature has the unaligned document's value in both,
 * which leaves nothing of it. */
static void code_of_pair(Code *c, Code *other, const World *w, double shared, int document) {
    code_draw(other, w, UNALIGNED, document);
    code_draw(c, w, ALIGNED, document);
    for (int i = 0; i < other->n; i++) put(c, other->feature[i], -other->value[i]);
    int kept = 0;
    for (int i = 0; i < c->n; i++) {
        int j = c->feature[i];
        uint64_t at = (uint64_t)document * DRAWS_EACH + (uint64_t)j;
        Draws d = draws_of(&w->s, DRAW_SHARED, 0);
        if (j >= w->s.r && rng_uniform(d.seed, d.stream, at) < shared) continue;
        c->feature[kept] = j;
        c->value[kept++] = c->value[i];
    }
    c->n = kept;
}

/* ------------------------------------------------------------------------------------- means -- */

void tally_init(Tally *t, const World *w) {
    *t = (Tally){
        {mem_array((size_t)w->s.n, sizeof(double)), mem_array((size_t)w->s.n, sizeof(double))},
        mem_array((size_t)w->s.H, sizeof(double)),
        0};
}

void tally_extend(Tally *t, const World *w, int documents) {
    CHECK(documents >= t->documents, "%d documents, and %d are there", documents, t->documents);
    Code c = code_make(w);
    for (int corpus = 0; corpus < 2; corpus++)
        for (int i = t->documents; i < documents; i++) {
            code_draw(&c, w, corpus, i);
            for (int k = 0; k < c.n; k++) t->code[corpus][c.feature[k]] += c.value[k];
        }
    double scale = w->s.sigma * sqrt(2.0 * (documents - t->documents));
    Draws d = draws_of(&w->s, DRAW_NOISE_SUM, (uint64_t)t->documents);
    for (int h = 0; h < w->s.H; h++) t->noise[h] += scale * draw_normal(&d);
    t->documents = documents;
    code_free(&c);
}

void tally_free(Tally *t) {
    free(t->code[0]), free(t->code[1]), free(t->noise);
    memset(t, 0, sizeof *t);
}

/* ----------------------------------------------------------------------------------- moments -- */

enum { BLOCK = 512 /* documents drawn at once */, TILE = 8 /* rows of y y^T that share a pass */ };

void moments_init(Moments *m, const World *w) {
    size_t H = (size_t)w->s.H;
    *m = (Moments){mem_array(H, sizeof(double)), mem_array(H * H, sizeof(double)), 0};
}

/* y = sum z_j d_j + sigma xi; of a pair, xi is the difference of two. */
static void vector(double *y, Code c[2], const World *w, enum Source source, double shared,
                   int document) {
    int H = w->s.H;
    double sigma = source == OF_PAIRS ? w->s.sigma * sqrt(2) : w->s.sigma;
    Draws noise = draws_of(&w->s, DRAW_NOISE + (int)source, (uint64_t)document);
    for (int h = 0; h < H; h++) y[h] = sigma * draw_normal(&noise);
    if (source == OF_PAIRS)
        code_of_pair(&c[0], &c[1], w, shared, document);
    else
        code_draw(&c[0], w, source == OF_ALIGNED ? ALIGNED : UNALIGNED, document);
    for (int k = 0; k < c[0].n; k++) {
        const double *d = w->d + (size_t)c[0].feature[k] * H;
        double z = c[0].value[k];
        for (int h = 0; h < H; h++) y[h] += z * d[h];
    }
}

void sample_documents(double *x, const World *w, enum Corpus corpus, int first, int n) {
    enum Source source = corpus == ALIGNED ? OF_ALIGNED : OF_UNALIGNED;
#pragma omp parallel if (n > 1)
    {
        Code c[2] = {code_make(w), {0}};
#pragma omp for schedule(static)
        for (int i = 0; i < n; i++)
            vector(x + (size_t)i * (size_t)w->s.H, c, w, source, 0, first + i);
        code_free(&c[0]);
    }
}

/* Rows first .. of y y^T from the diagonal on: each element is one thread's, and adds documents in
 * order. */
static void add_squares(double *square, const double *y, int n, int H, int first) {
    for (int i = 0; i < n; i++) {
        const double *x = y + (size_t)i * H;
        for (int a = first; a < first + TILE && a < H; a++) {
            double *row = square + (size_t)a * H, z = x[a];
            for (int b = a; b < H; b++) row[b] += z * x[b];
        }
    }
}

static void add_block(Moments *m, double *y, const World *w, enum Source source, double shared,
                      int n) {
    int H = w->s.H;
#pragma omp parallel
    {
        Code c[2] = {code_make(w), code_make(w)};
#pragma omp for schedule(dynamic, 16)
        for (int i = 0; i < n; i++)
            vector(y + (size_t)i * H, c, w, source, shared, m->documents + i);
#pragma omp for schedule(dynamic, 1)
        for (int first = 0; first < H; first += TILE) add_squares(m->square, y, n, H, first);
        code_free(&c[0]), code_free(&c[1]);
    }
    for (int i = 0; i < n; i++)
        for (int h = 0; h < H; h++) m->sum[h] += y[(size_t)i * H + h];
    m->documents += n;
}

void moments_extend(Moments *m, const World *w, enum Source source, double shared, int documents) {
    CHECK(documents >= m->documents, "%d documents, and %d are there", documents, m->documents);
    int H = w->s.H;
    double *y = mem_array((size_t)BLOCK * (size_t)H, sizeof *y);
    while (m->documents < documents) {
        int left = documents - m->documents;
        add_block(m, y, w, source, shared, left < BLOCK ? left : BLOCK);
    }
    for (int a = 0; a < H; a++) /* below the diagonal: the same */
        for (int b = 0; b < a; b++) m->square[(size_t)a * H + b] = m->square[(size_t)b * H + a];
    free(y);
}

void moments_free(Moments *m) {
    free(m->sum), free(m->square);
    memset(m, 0, sizeof *m);
}
