/* flops.c - operations of a pack, and the rate of a large product. */
#include "host/stage/flops.h"

#include <math.h>

#include "host/stage/noise.h"
#include "kernels/segments.h"

/* Pairs of positions that see each other, over all layers; in the last, those that labels see. */
static double pairs_of_layers(const Config *c, const Pack *p) {
    double all = segments_pairs(p->seg, p->nseg, 0),
           near = segments_pairs(p->seg, p->nseg, c->window);
    double pairs = 0;
    for (int l = 0; l + 1 < c->L; l++) pairs += c->sliding[l] ? near : all;
    for (int i = 0; i < p->nlabel; i++) {
        int seen = p->pos[p->label_row[i]] + 1;
        pairs += c->sliding[c->L - 1] && seen > c->window ? c->window : seen;
    }
    return pairs;
}

/* Multiply-adds of one group of projections: of the weights, forward, when something below it is
 * trained backward into its input, and for their gradient if they are trained; and of its adapters.
 */
static double group_madds(const Config *c, const Lora *lora, const Pack *pack, int l, enum Group g,
                          bool below) {
    double madds = 0;
    for (enum Proj p = group_first[g]; p < group_first[g + 1]; p++) {
        double in = proj_in(c, p), out = proj_out(c, p);
        bool all = l + 1 < c->L || p == PROJ_K || p == PROJ_V;
        double rows = all ? pack->N : pack->nlabel;
        const Adapter *a = lora ? lora_at(lora, l, p) : NULL;
        madds += in * out * (1 + below + !lora) * rows;
        if (!a || a->R == 0) continue;
        bool A = a->A->trained, B = a->B->trained;
        int into_a = 1 + A + below, into_b = 1 + B + (A || below);
        int start =
            adapter_columns(a) - a->R; /* runs along, and has no gradient of its own but dA */
        madds += a->R * (in * into_a + out * into_b) * rows;
        madds += start * (in * into_a + out * (1 + (A || below))) * rows;
    }
    return madds;
}

double flops_pack(const Config *c, const Lora *lora, const Pack *p) {
    double madds = 0, attention = 2.0 * c->H * c->E * pairs_of_layers(c, p);
    bool below = !lora; /* the embedding */
    for (int l = 0; l < c->L; l++)
        for (int g = 0; g < GROUP_COUNT; g++) {
            madds += group_madds(c, lora, p, l, (enum Group)g, below);
            below = below || lora_group(lora, l, (enum Group)g).train_any;
        }
    return 2 * (madds + 3 * attention + (lora ? 2.0 : 3.0) * c->D * c->V * p->nlabel);
}

/* Seconds of the fastest of some products of n x n matrices: s holds A and B and has room for C.
 * For long enough that the clock is up and another program's burst is over; a few, but on a device
 * that takes long over one. */
static double product_seconds(Exec *ex, store *s, int n) {
    enum { RUNS = 5 };
    const double long_enough = 0.05, too_long = 0.25;
    size_t size = (size_t)n * (size_t)n;
    store *b = store_at(ex->dtype, s, size), *c = store_at(ex->dtype, s, 2 * size);
    double best = INFINITY, spent = 0;
    for (int i = 0; spent < long_enough || (i < RUNS && spent < too_long); i++) {
        exec_timer_start(ex);
        ex->op->gemm(ex, c, n, s, n, b, n, n, n, n, GEMM_NT, 1, 0);
        double seconds = exec_timer_stop(ex);
        best = fmin(best, seconds);
        spent += seconds;
    }
    return best;
}

double flops_peak(Exec *ex) {
    enum { LEAST = 1024, MOST = 8192 };
    const double enough = 1e-3; /* seconds: a launch is then nothing beside it */
    double rate = 0;
    for (int n = LEAST; n <= MOST; n *= 2) {
        size_t bytes = 3 * (size_t)n * (size_t)n * dtype_size(ex->dtype);
        store *s = exec_alloc(ex, bytes, "peak measurement");
        noise_fill(ex, s, 2 * (size_t)n * (size_t)n, ex->dtype, 1);
        double seconds = product_seconds(ex, s, n);
        rate = fmax(rate, 2.0 * n * n * n / seconds);
        exec_free(ex, s);
        if (seconds >= enough) break;
    }
    return rate;
}
