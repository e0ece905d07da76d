/* kvcache.c - the cache of keys and values that decoding reads. Contracts: ops.h. */
#include <float.h>
#include <omp.h>
#include <string.h>

#include "kernels/cpu/twin.h"
#include "kernels/scalar.h"
#include "kernels/segments.h"

enum { SPAN = 64 }; /* keys between two looks at the maximum */

void TWIN(kv_put)(Exec *ex, store *kcache, store *vcache, const store *k, const store *v,
                  const int32_t *slot, const int32_t *pos, int N, int T, int W) {
    OP_BEGIN(ex, kv_put, N, T, W);
    for (int n = 0; n < N; n++) {
        CHECK(slot[n] >= 0 && pos[n] >= 0 && pos[n] < T, "row %d: slot %d, position %d of %d", n,
              slot[n], pos[n], T);
        size_t to = ((size_t)slot[n] * T + pos[n]) * W, from = (size_t)n * W;
        memcpy(elems(kcache) + to, elems_const(k) + from, W * sizeof(elem));
        memcpy(elems(vcache) + to, elems_const(v) + from, W * sizeof(elem));
    }
}

/* A query head on its way over the cache: the running softmax of forward attention. */
typedef struct Head {
    float top, sum, query[ATTN_E_MAX], out[ATTN_E_MAX];
} Head;

/* Scores of n keys, `stride` elements apart, become weights relative to the new maximum; the old
 * sums follow it. */
static void weigh(Head *h, float *w, const elem *k, int n, size_t stride, AttnShape a) {
    float next = h->top, sum = 0;
    for (int t = 0; t < n; t++) {
        const elem *key = k + t * stride;
        float s = 0;
#pragma omp simd reduction(+ : s)
        for (int e = 0; e < a.E; e++) s += h->query[e] * elem_get(key[e]);
        w[t] = s;
    }
    if (a.cap > 0)
        for (int t = 0; t < n; t++) w[t] = a.cap * scalar_tanh(w[t] / a.cap);
    for (int t = 0; t < n; t++) next = w[t] > next ? w[t] : next;
#pragma omp simd reduction(+ : sum)
    for (int t = 0; t < n; t++) sum += w[t] = scalar_exp(w[t] - next);
    float shrink = scalar_exp(h->top - next);
    for (int e = 0; e < a.E; e++) h->out[e] *= shrink;
    h->sum = h->sum * shrink + sum;
    h->top = next;
}

/* Four values a turn: `out` is then read and written a quarter as often. */
static void add_values(float *out, const float *w, const elem *v, int n, size_t stride, int E) {
    int t = 0;
    for (; t + 4 <= n; t += 4) {
        const elem *v0 = v + t * stride, *v1 = v0 + stride, *v2 = v1 + stride, *v3 = v2 + stride;
        for (int e = 0; e < E; e++)
            out[e] += (w[t] * elem_get(v0[e]) + w[t + 1] * elem_get(v1[e])) +
                      (w[t + 2] * elem_get(v2[e]) + w[t + 3] * elem_get(v3[e]));
    }
    for (; t < n; t++)
        for (int e = 0; e < E; e++) out[e] += w[t] * elem_get(v[t * stride + e]);
}

/* All `heads` query heads of one kv head of one row: the cache is read from memory once. */
static void decode(Head *head, int heads, elem *o, const elem *q, const elem *k, const elem *v,
                   int len, AttnShape a) {
    size_t stride = (size_t)a.K * a.E;
    for (int h = 0; h < heads; h++) {
        head[h].top = -FLT_MAX, head[h].sum = 0;
        for (int e = 0; e < a.E; e++) {
            head[h].query[e] = a.scale * elem_get(q[h * a.E + e]);
            head[h].out[e] = 0;
        }
    }
    int first = a.window > 0 && len > a.window ? len - a.window : 0;
    for (int t = first; t < len; t += SPAN) {
        int n = len - t < SPAN ? len - t : SPAN;
        for (int h = 0; h < heads; h++) {
            float w[SPAN];
            weigh(head + h, w, k + t * stride, n, stride, a);
            add_values(head[h].out, w, v + t * stride, n, stride, a.E);
        }
    }
    for (int h = 0; h < heads; h++)
        for (int e = 0; e < a.E; e++) o[h * a.E + e] = elem_put(head[h].out[e] / head[h].sum);
}

size_t TWIN(attn_decode_scratch)(Exec *ex, int N, int T, AttnShape a) {
    (void)ex, (void)N, (void)T;
    return (size_t)omp_get_max_threads() * (size_t)(a.H / a.K) * sizeof(Head);
}

void TWIN(attn_decode)(Exec *ex, store *o, const store *q, const store *kcache, const store *vcache,
                       const int32_t *slot, const int32_t *len, int N, int T, AttnShape a) {
    OP_BEGIN(ex, attn_decode, len, N, T, a);
    size_t width = (size_t)a.K * a.E;
    int heads = a.H / a.K;
    Head *scratch = exec_scratch(ex, TWIN(attn_decode_scratch)(ex, N, T, a));
    int64_t seen = 0; /* elements of the caches, once for every query head */
    for (int n = 0; n < N; n++)
        seen += (int64_t)(a.window > 0 && len[n] > a.window ? a.window : len[n]) * a.H * a.E;
#pragma omp parallel for schedule(dynamic) if (seen > OP_SMALL)
    for (int i = 0; i < N * a.K; i++) {
        int n = i / a.K, kv = i % a.K;
        CHECK(slot[n] >= 0 && len[n] >= 1 && len[n] <= T, "row %d: slot %d, length %d of %d", n,
              slot[n], len[n], T);
        size_t base = (size_t)slot[n] * T * width + (size_t)kv * a.E;
        size_t row = (size_t)i * heads * a.E;
        decode(scratch + omp_get_thread_num() * heads, heads, elems(o) + row, elems_const(q) + row,
               elems_const(kcache) + base, elems_const(vcache) + base, len[n], a);
    }
}
