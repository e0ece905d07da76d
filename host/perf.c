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

/* Pairs of positions that see each other, over all layers; in the last, those that labels see. */
static double pairs_of_layers(const Config *c, const Pack *p) {
    double all = 0, near = 0, pairs = 0; /* without and with the window */
    for (int i = 0; i < p->nseg; i++) {
        all += pairs_of(&p->seg[i], 0);
        near += pairs_of(&p->seg[i], c->window);
    }
    for (int l = 0; l + 1 < c->L; l++) pairs += c->sliding[l] ? near : all;
    for (int i = 0; i < p->nlabel; i++) {
        int seen = p->pos[p->label_row[i]] + 1;
        pairs += c->sliding[c->L - 1] && seen > c->window ? c->window : seen;
    }
    return pairs;
}

/* Multiply-adds of one group of projections: of the weights, forward and, when something below it
 * is trained, backward into its input; and of its adapters. */
static double group_madds(const Config *c, const Lora *lora, const Pack *pack, int l, enum Group g,
                          bool below) {
    double madds = 0;
    for (enum Proj p = group_first[g]; p < group_first[g + 1]; p++) {
        double in = proj_in(c, p), out = proj_out(c, p);
        bool all = l + 1 < c->L || p == PROJ_K || p == PROJ_V;
        const Adapter *a = lora_at(lora, l, p);
        int into_a = 1 + a->train_A + below, into_b = 1 + a->train_B + (a->train_A || below);
        madds += (in * out * (1 + below) + a->R * (in * into_a + out * into_b)) *
                 (all ? pack->N : pack->nlabel);
    }
    return madds;
}

double perf_flops(const Config *c, const Lora *lora, const Pack *p) {
    double madds = 0, attention = 2.0 * c->H * c->E * pairs_of_layers(c, p);
    bool below = false;
    for (int l = 0; l < c->L; l++)
        for (int g = 0; g < GROUP_COUNT; g++) {
            madds += group_madds(c, lora, p, l, (enum Group)g, below);
            below = below || lora_group(lora, l, (enum Group)g).train_any;
        }
    return 2 * (madds + 3 * attention + 2.0 * c->D * c->V * p->nlabel);
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
