/* random.c - random numbers of the planted world. */
#include "data/base/rng.h"
#include "kernels/check.h"
#include "tools/planted/planted.h"

enum { SEED = 20 };

double noise(World *w) {
    return 2 * rng_uniform(SEED, 0, w->draws++) - 1;
}

int below(World *w, int n) {
    return (int)rng_below(SEED, 0, w->draws++, (unsigned)n);
}

void shuffle(World *w, int *x, int n) {
    for (int i = n - 1; i > 0; i--) {
        int j = below(w, i + 1), t = x[i];
        x[i] = x[j];
        x[j] = t;
    }
}

/* Gram-Schmidt, each row cleaned twice: once loses digits where rows are nearly parallel. */
void orthonormal(World *w, double *q, int rows, int n) {
    CHECK(rows <= n, "%d rows of %d", rows, n);
    for (int r = 0; r < rows; r++) {
        double *x = q + r * n;
        for (int i = 0; i < n; i++) x[i] = noise(w);
        for (int pass = 0; pass < 2; pass++) {
            for (int p = 0; p < r; p++) {
                double dot = 0;
                for (int i = 0; i < n; i++) dot += x[i] * q[p * n + i];
                for (int i = 0; i < n; i++) x[i] -= dot * q[p * n + i];
            }
            double norm = 0;
            for (int i = 0; i < n; i++) norm += x[i] * x[i];
            for (int i = 0; i < n; i++) x[i] /= sqrt(norm);
        }
    }
}
