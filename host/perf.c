#include "host/perf.h"

#include <math.h>

#include "host/print.h"

static double pairs_of(const Segment *s, int window) {
    double pairs = 0;
    for (int i = 0; i < s->len; i++) { /* row i sees its prefix and itself, within the window */
        int seen = s->prefix_len + i + 1;
        pairs += window && seen > window ? window : seen;
    }
    return pairs;
}

double perf_flops(const Config *c, const Lora *lora, const Pack *p) {
    double body = 0, pairs = 0;
    for (int q = 0; q < PROJ_COUNT; q++)
        body += (double)proj_in(c, (enum Proj)q) * proj_out(c, (enum Proj)q) * c->L;
    double all = 0, near = 0; /* pairs with and without the window, shared by all such layers */
    for (int i = 0; i < p->nseg; i++) {
        all += pairs_of(&p->seg[i], 0);
        near += pairs_of(&p->seg[i], c->window);
    }
    for (int l = 0; l < c->L; l++) pairs += c->sliding[l] ? near : all;
    double linear = 2 * body * p->N, attention = 4.0 * c->H * c->E * pairs;
    double head = 2.0 * c->D * c->V * p->nlabel;
    if (!lora) return linear + attention + head;
    return 2 * linear + 3.5 * attention + 2 * head + 6.0 * (double)lora->n * p->N;
}

double perf_peak(Exec *ex) {
    enum { SIZE = 1024, RUNS = 5 };
    size_t n = (size_t)SIZE * SIZE;
    store *s = exec_alloc(ex, 3 * n * dtype_size(ex->dtype), "peak measurement");
    exec_zero(ex, s, 3 * n * dtype_size(ex->dtype));
    store *b = store_at(ex->dtype, s, n), *c = store_at(ex->dtype, s, 2 * n);
    double best = INFINITY;
    for (int i = 0; i < RUNS; i++) {
        double start = clock_seconds();
        ex->op->gemm(ex, c, SIZE, s, SIZE, b, SIZE, SIZE, SIZE, SIZE, GEMM_NT, 1, 0);
        exec_sync(ex);
        best = fmin(best, clock_seconds() - start);
    }
    exec_free(ex, s);
    return 2.0 * SIZE * SIZE * SIZE / best;
}
