/* loss.c - softcap, cross entropy and its gradient over long rows. Contract: ops.h.
 *
 * A row is worked on in chunks of fixed length, whose partial results are combined in order, so
 * the bits do not depend on which thread took which chunk. Three passes: the largest logit; the
 * capped logits z, kept in scratch, and the sum of their exponentials; the gradient. With many rows
 * each thread does whole rows, which then stay in its cache; with few, threads share each row. */
#include <math.h>
#include <omp.h>

#include "kernels/cpu/twin.h"
#include "kernels/scalar.h"

enum { CHUNK = 1 << 13 };

typedef struct Xent {
    elem *dlogits;
    float *nll;
    const float *logits;
    const int32_t *target;
    const float *weight;
    int V, chunks;
    float cap;
    /* Scratch, by slot: a row that is being worked on. */
    double *sum;  /* (slots, chunks) of exp(z - zmax) */
    float *z;     /* (slots, V) */
    int32_t *max; /* (slots, chunks) of the uncapped logits, as scalar_order */
} Xent;

static int chunk_len(const Xent *t, int c) {
    return t->V - c * CHUNK < CHUNK ? t->V - c * CHUNK : CHUNK;
}

static inline float capped(float x, float cap) {
    return cap > 0 ? scalar_softcap(x, cap) : x;
}

static void chunk_max(const Xent *t, int slot, int row, int c) {
    const float *x = t->logits + (size_t)row * t->V + c * CHUNK;
    int n = chunk_len(t, c);
    int32_t m = INT32_MIN;
#pragma omp simd reduction(max : m)
    for (int i = 0; i < n; i++) {
        int32_t k = scalar_order(x[i]);
        m = k > m ? k : m;
    }
    t->max[(size_t)slot * t->chunks + c] = m;
}

/* The row's largest z; capping is monotone, so it is the largest logit's. */
static float row_max(const Xent *t, int slot) {
    const int32_t *max = t->max + (size_t)slot * t->chunks;
    int32_t m = max[0];
    for (int c = 1; c < t->chunks; c++) m = max[c] > m ? max[c] : m;
    return capped(scalar_from_order(m), t->cap);
}

static void chunk_sum(const Xent *t, int slot, int row, int c) {
    const float *x = t->logits + (size_t)row * t->V + c * CHUNK;
    float *z = t->z + (size_t)slot * t->V + c * CHUNK, cap = t->cap, zmax = row_max(t, slot);
    int n = chunk_len(t, c);
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int i = 0; i < n; i++) {
        z[i] = capped(x[i], cap);
        s += (double)scalar_exp(z[i] - zmax);
    }
    t->sum[(size_t)slot * t->chunks + c] = s;
}

static double row_sum(const Xent *t, int slot) {
    double s = 0;
    for (int c = 0; c < t->chunks; c++) s += t->sum[(size_t)slot * t->chunks + c];
    return s;
}

static void row_nll(const Xent *t, int slot, int row) {
    float z = t->z[(size_t)slot * t->V + t->target[row]];
    t->nll[row] = (float)(log(row_sum(t, slot)) + ((double)row_max(t, slot) - z));
}

/* (1 - (z/cap)^2), 1 where nothing is capped. */
static inline float slope(float z, float cap) {
    return cap > 0 ? scalar_softcap_grad(z, cap) : 1;
}

static void chunk_grad(const Xent *t, int slot, int row, int c) {
    elem *d = t->dlogits + (size_t)row * t->V + c * CHUNK;
    const float *z = t->z + (size_t)slot * t->V + c * CHUNK;
    float cap = t->cap, zmax = row_max(t, slot);
    double sum = row_sum(t, slot);
    float w = t->weight[row], scale = (float)(w / sum);
    int n = chunk_len(t, c), hit = t->target[row] - c * CHUNK;
#pragma omp simd
    for (int i = 0; i < n; i++) d[i] = elem_put(scale * scalar_exp(z[i] - zmax) * slope(z[i], cap));
    if (hit >= 0 && hit < n) { /* p - 1 in double: p may be close to 1 */
        double p = (double)scalar_exp(z[hit] - zmax) / sum;
        d[hit] = elem_put((float)(w * (p - 1) * slope(z[hit], cap)));
    }
}

static void whole_row(const Xent *t, int slot, int row) {
    for (int c = 0; c < t->chunks; c++) chunk_max(t, slot, row, c);
    for (int c = 0; c < t->chunks; c++) chunk_sum(t, slot, row, c);
    row_nll(t, slot, row);
    for (int c = 0; c < t->chunks && t->dlogits; c++) chunk_grad(t, slot, row, c);
}

static void shared_rows(const Xent *t, int N) {
#pragma omp parallel if ((size_t)N * t->V > OP_SMALL)
    {
#pragma omp for collapse(2)
        for (int n = 0; n < N; n++)
            for (int c = 0; c < t->chunks; c++) chunk_max(t, n, n, c);
#pragma omp for collapse(2)
        for (int n = 0; n < N; n++)
            for (int c = 0; c < t->chunks; c++) chunk_sum(t, n, n, c);
#pragma omp for
        for (int n = 0; n < N; n++) row_nll(t, n, n);
        if (t->dlogits) {
#pragma omp for collapse(2)
            for (int n = 0; n < N; n++)
                for (int c = 0; c < t->chunks; c++) chunk_grad(t, n, n, c);
        }
    }
}

static int chunks_of(int V) {
    return (V + CHUNK - 1) / CHUNK;
}

/* Do threads share rows? Then each row has a slot, else each thread. */
static bool shares_rows(int N) {
    return N < 4 * omp_get_max_threads();
}
static size_t slots_of(int N) {
    return (size_t)(shares_rows(N) ? N : omp_get_max_threads());
}

size_t TWIN(xent_scratch)(Exec *ex, int N, int V) {
    size_t slots = slots_of(N), parts = slots * (size_t)chunks_of(V);
    (void)ex;
    return parts * (sizeof(double) + sizeof(int32_t)) + slots * (size_t)V * sizeof(float);
}

void TWIN(xent)(Exec *ex, store *dlogits, float *nll, const float *logits, const int32_t *target,
                const float *weight, int N, int V, float cap) {
    OP_BEGIN(ex, xent, dlogits, N, V, cap);
    for (int n = 0; n < N; n++)
        CHECK(target[n] >= 0 && target[n] < V, "expected a target in [0,%d), target[%d] is %d", V,
              n, target[n]);
    Xent t = {elems(dlogits), nll, logits, target, weight, V, chunks_of(V), cap, NULL, NULL, NULL};
    t.sum = exec_scratch(ex, TWIN(xent_scratch)(ex, N, V));
    t.z = (float *)(t.sum + slots_of(N) * (size_t)t.chunks);
    t.max = (int32_t *)(t.z + slots_of(N) * (size_t)V);
    if (shares_rows(N)) {
        shared_rows(&t, N);
    } else {
#pragma omp parallel for if ((size_t)N * V > OP_SMALL)
        for (int n = 0; n < N; n++) whole_row(&t, omp_get_thread_num(), n);
    }
}
