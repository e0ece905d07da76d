/* loss.c - softcap, cross entropy and its gradient over long rows. Contract: ops.h.
 *
 * A row is worked on in chunks of fixed length, whose partial results are combined in order, so
 * the bits do not depend on which thread took which chunk. Rows are taken in groups: large enough
 * that every thread has work, small enough that a row is still in cache when it is read again. */
#include <math.h>
#include <omp.h>

#include "kernels/cpu/twin.h"
#include "kernels/scalar.h"

enum { CHUNK = 1 << 13, GROUP_ELEMENTS = 1 << 18 };

typedef struct Xent {
    store *dlogits;
    float *nll;
    const float *logits;
    const int32_t *target;
    int V, chunks;
    float cap, gscale;
    int32_t *max; /* (rows of a group, chunks) of the uncapped logits, as scalar_order */
    double *sum;  /* (rows of a group, chunks) of exp(z - max z) */
} Xent;

static float capped(float x, float cap) {
    return cap > 0 ? scalar_softcap(x, cap) : x;
}

static int chunk_len(const Xent *t, int c) {
    return t->V - c * CHUNK < CHUNK ? t->V - c * CHUNK : CHUNK;
}

static int32_t chunk_max(const float *x, int n) {
    int32_t m = INT32_MIN;
#pragma omp simd reduction(max : m)
    for (int i = 0; i < n; i++) {
        int32_t k = scalar_order(x[i]);
        m = k > m ? k : m;
    }
    return m;
}

static double chunk_sum(const float *x, int n, float cap, float zmax) {
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int i = 0; i < n; i++) s += (double)scalar_exp(capped(x[i], cap) - zmax);
    return s;
}

/* The row's largest z; capping is monotone, so it is the largest logit's. */
static float row_max(const Xent *t, int row) {
    int32_t m = INT32_MIN;
    for (int c = 0; c < t->chunks; c++) {
        int32_t k = t->max[(size_t)row * t->chunks + c];
        m = k > m ? k : m;
    }
    return capped(scalar_from_order(m), t->cap);
}

static double row_sum(const Xent *t, int row) {
    double s = 0;
    for (int c = 0; c < t->chunks; c++) s += t->sum[(size_t)row * t->chunks + c];
    return s;
}

static void chunk_grad(elem *d, const float *x, int n, float cap, float zmax, float scale) {
    float inv = cap > 0 ? 1 / cap : 0; /* no cap: derivative 1 */
#pragma omp simd
    for (int i = 0; i < n; i++) {
        float z = capped(x[i], cap), u = z * inv;
        d[i] = elem_put(scale * scalar_exp(z - zmax) * (1 - u * u));
    }
}

/* Rows n0 .. n0+rows-1, by all threads of the enclosing parallel region. */
static void group(const Xent *t, int n0, int rows) {
#pragma omp for collapse(2) schedule(static)
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < t->chunks; c++)
            t->max[(size_t)r * t->chunks + c] =
                chunk_max(t->logits + (size_t)(n0 + r) * t->V + c * CHUNK, chunk_len(t, c));
#pragma omp for collapse(2) schedule(static)
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < t->chunks; c++)
            t->sum[(size_t)r * t->chunks + c] =
                chunk_sum(t->logits + (size_t)(n0 + r) * t->V + c * CHUNK, chunk_len(t, c), t->cap,
                          row_max(t, r));
            /* Before the gradient, which may overwrite the logits. */
#pragma omp for schedule(static)
    for (int r = 0; r < rows; r++) {
        float z = capped(t->logits[(size_t)(n0 + r) * t->V + t->target[n0 + r]], t->cap);
        t->nll[n0 + r] = (float)(log(row_sum(t, r)) + ((double)row_max(t, r) - z));
    }
    if (!t->dlogits) return;
#pragma omp for collapse(2) schedule(static)
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < t->chunks; c++) {
            size_t at = (size_t)(n0 + r) * t->V + (size_t)c * CHUNK;
            int len = chunk_len(t, c), hit = t->target[n0 + r] - c * CHUNK;
            float scale = (float)(t->gscale / row_sum(t, r)), zmax = row_max(t, r);
            int here = hit >= 0 && hit < len;
            float z = here ? capped(t->logits[at + hit], t->cap) : 0;
            chunk_grad(elems(t->dlogits) + at, t->logits + at, len, t->cap, zmax, scale);
            if (here) {
                float u = t->cap > 0 ? z / t->cap : 0;
                double p = (double)scalar_exp(z - zmax) / row_sum(t, r);
                elems(t->dlogits)[at + hit] =
                    elem_put((float)(t->gscale * (p - 1) * (1 - (double)u * u)));
            }
        }
}

void TWIN(xent)(Exec *ex, store *dlogits, float *nll, const float *logits, const int32_t *target,
                int N, int V, float cap, float gscale) {
    OP_GATE(ex);
    CHECK(N >= 0 && V > 0 && cap >= 0, "N=%d V=%d cap=%g", N, V, cap);
    for (int n = 0; n < N; n++)
        CHECK(target[n] >= 0 && target[n] < V, "expected a target in [0,%d), target[%d] is %d", V,
              n, target[n]);
    int chunks = (V + CHUNK - 1) / CHUNK, threads = omp_get_max_threads();
    int rows = threads * (1 + GROUP_ELEMENTS / V);
    rows = rows < N ? rows : N;
    double *sum = exec_scratch(ex, (size_t)rows * chunks * (sizeof(double) + sizeof(int32_t)));
    Xent t = {dlogits, nll, logits, target,     V,
              chunks,  cap, gscale, .sum = sum, .max = (int32_t *)(sum + (size_t)rows * chunks)};
#pragma omp parallel if ((size_t)N * V > OP_SMALL)
    for (int n = 0; n < N; n += rows) group(&t, n, N - n < rows ? N - n : rows);
}
