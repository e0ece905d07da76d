/* elementwise.c - casts, sums and the search for bad numbers. Contracts: ops.h. */
#include "kernels/cpu/twin.h"
#include "kernels/scalar.h"

enum { CHUNK = 1 << 14 }; /* elements that are summed or searched as one */

void TWIN(cast)(Exec *ex, store *y, const float *x, size_t n) {
    OP_GATE(ex);
    elem *o = elems(y);
#pragma omp parallel for simd if (parallel : n > OP_SMALL)
    for (size_t i = 0; i < n; i++) o[i] = elem_put(x[i]);
}

void TWIN(uncast)(Exec *ex, float *y, const store *x, size_t n) {
    OP_GATE(ex);
    const elem *e = elems_const(x);
#pragma omp parallel for simd if (parallel : n > OP_SMALL)
    for (size_t i = 0; i < n; i++) y[i] = elem_get(e[i]);
}

void TWIN(add)(Exec *ex, float *y, const float *x, size_t n, float a) {
    OP_GATE(ex);
#pragma omp parallel for simd if (parallel : n > OP_SMALL)
    for (size_t i = 0; i < n; i++) y[i] += a * x[i];
}

static size_t chunks(size_t n) {
    return (n + CHUNK - 1) / CHUNK;
}
static size_t chunk_len(size_t n, size_t c) {
    return n - c * CHUNK < CHUNK ? n - c * CHUNK : CHUNK;
}

/* One double per chunk, whatever the number of threads, and the chunks added in order. */
void TWIN(sumsq)(Exec *ex, double *sum, const float *x, size_t n) {
    OP_GATE(ex);
    size_t C = chunks(n);
    double *part = exec_scratch(ex, C * sizeof *part);
#pragma omp parallel for if (n > OP_SMALL)
    for (size_t c = 0; c < C; c++) {
        const float *xc = x + c * CHUNK;
        size_t len = chunk_len(n, c);
        double s = 0;
#pragma omp simd reduction(+ : s)
        for (size_t i = 0; i < len; i++) s += (double)xc[i] * xc[i];
        part[c] = s;
    }
    double total = 0;
    for (size_t c = 0; c < C; c++) total += part[c];
    sum[0] += total;
}

static int f32_bad(float f) {
    return (scalar_bits(f) & 0x7f800000u) == 0x7f800000u;
}

/* Chunks are tested without a branch per element; only the first bad one is searched. */
void TWIN(find_bad)(Exec *ex, int64_t *index, const store *x, size_t n) {
    OP_GATE(ex);
    const elem *e = elems_const(x);
    size_t C = chunks(n), first = C;
#pragma omp parallel for reduction(min : first) if (n > OP_SMALL)
    for (size_t c = 0; c < C; c++) {
        size_t len = chunk_len(n, c);
        int bad = 0;
#pragma omp simd reduction(| : bad)
        for (size_t i = 0; i < len; i++) bad |= f32_bad(elem_get(e[c * CHUNK + i]));
        if (bad && c < first) first = c;
    }
    size_t i = first * CHUNK;
    while (i < n && !f32_bad(elem_get(e[i]))) i++;
    index[0] = i < n ? (int64_t)i : -1;
}

void TWIN(find_bad_f32)(Exec *ex, int64_t *index, const float *x, size_t n) {
    OP_GATE(ex);
    size_t C = chunks(n), first = C;
#pragma omp parallel for reduction(min : first) if (n > OP_SMALL)
    for (size_t c = 0; c < C; c++) {
        size_t len = chunk_len(n, c);
        int bad = 0;
#pragma omp simd reduction(| : bad)
        for (size_t i = 0; i < len; i++) bad |= f32_bad(x[c * CHUNK + i]);
        if (bad && c < first) first = c;
    }
    size_t i = first * CHUNK;
    while (i < n && !f32_bad(x[i])) i++;
    index[0] = i < n ? (int64_t)i : -1;
}
