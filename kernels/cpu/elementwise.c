/* elementwise.c - casts, sums and the search for bad numbers. Contracts: ops.h. */
#include "kernels/cpu/twin.h"
#include "kernels/scalar.h"

static void span_cast(elem *y, const float *x, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = elem_put(x[i]);
}

static void span_uncast(float *y, const elem *x, size_t n) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] = elem_get(x[i]);
}

static void span_add(float *y, const float *x, size_t n, float a) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] += a * x[i];
}

static double span_sumsq(const float *x, size_t n) {
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (size_t i = 0; i < n; i++) s += (double)x[i] * x[i];
    return s;
}

static int is_bad(float f) {
    return (scalar_bits(f) & 0x7f800000u) == 0x7f800000u;
}

static int span_bad(const elem *x, size_t n) {
    int bad = 0;
#pragma omp simd reduction(| : bad)
    for (size_t i = 0; i < n; i++) bad |= is_bad(elem_get(x[i]));
    return bad;
}

static int span_bad_f32(const float *x, size_t n) {
    int bad = 0;
#pragma omp simd reduction(| : bad)
    for (size_t i = 0; i < n; i++) bad |= is_bad(x[i]);
    return bad;
}

void TWIN(cast)(Exec *ex, store *y, const float *x, size_t n) {
    OP_BEGIN(ex, cast, n);
#pragma omp parallel for if (n > OP_LIGHT)
    for (size_t i = 0; i < n; i += OP_SPAN) span_cast(elems(y) + i, x + i, op_span(n, i));
}

void TWIN(uncast)(Exec *ex, float *y, const store *x, size_t n) {
    OP_BEGIN(ex, uncast, n);
#pragma omp parallel for if (n > OP_LIGHT)
    for (size_t i = 0; i < n; i += OP_SPAN) span_uncast(y + i, elems_const(x) + i, op_span(n, i));
}

void TWIN(add)(Exec *ex, float *y, const float *x, size_t n, float a) {
    OP_BEGIN(ex, add, n);
#pragma omp parallel for if (n > OP_LIGHT)
    for (size_t i = 0; i < n; i += OP_SPAN) span_add(y + i, x + i, op_span(n, i), a);
}

void TWIN(sumsq)(Exec *ex, double *sum, const float *x, const Span *span, int spans, size_t n) {
    OP_BEGIN(ex, sumsq, n);
#pragma omp parallel for if (n > OP_LIGHT)
    for (int i = 0; i < spans; i++) sum[i] = span_sumsq(x + span[i].at, span[i].n);
}

/* Spans are tested without a branch per element; only the first bad one is searched. */
void TWIN(find_bad)(Exec *ex, int64_t *index, const store *x, size_t n) {
    OP_BEGIN(ex, find_bad, n);
    const elem *e = elems_const(x);
    size_t first = n;
#pragma omp parallel for reduction(min : first) if (n > OP_SMALL)
    for (size_t i = 0; i < n; i += OP_SPAN)
        if (i < first && span_bad(e + i, op_span(n, i))) first = i;
    while (first < n && !is_bad(elem_get(e[first]))) first++;
    index[0] = first < n ? (int64_t)first : -1;
}

void TWIN(find_bad_f32)(Exec *ex, int64_t *index, const float *x, size_t n) {
    OP_BEGIN(ex, find_bad_f32, n);
    size_t first = n;
#pragma omp parallel for reduction(min : first) if (n > OP_SMALL)
    for (size_t i = 0; i < n; i += OP_SPAN)
        if (i < first && span_bad_f32(x + i, op_span(n, i))) first = i;
    while (first < n && !is_bad(x[first])) first++;
    index[0] = first < n ? (int64_t)first : -1;
}
