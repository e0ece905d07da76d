/* kvcache.c - the cache of keys and values that decoding reads. Contracts: ops.h. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/twin.h"

void TWIN(kv_put)(Exec *ex, store *kcache, store *vcache, const store *k, const store *v,
                  const int32_t *slot, const int32_t *pos, int N, int T, int W) {
    OP_GATE(ex);
    CHECK(N >= 0 && T > 0 && W > 0, "N=%d T=%d W=%d", N, T, W);
    for (int n = 0; n < N; n++) {
        CHECK(slot[n] >= 0 && pos[n] >= 0 && pos[n] < T, "row %d: slot %d, position %d of %d", n,
              slot[n], pos[n], T);
        size_t to = ((size_t)slot[n] * T + pos[n]) * W, from = (size_t)n * W;
        memcpy(elems(kcache) + to, elems_const(k) + from, W * sizeof(elem));
        memcpy(elems(vcache) + to, elems_const(v) + from, W * sizeof(elem));
    }
}

/* One query head of one row over keys and values `stride` apart. */
static void decode_head(elem *o, const elem *q, const elem *k, const elem *v, int first, int len,
                        size_t stride, AttnShape a) {
    float top = -INFINITY, sum = 0, acc[256] = {0};
    for (int t = first; t < len; t++) {
        const elem *kt = k + t * stride, *vt = v + t * stride;
        float s = 0;
#pragma omp simd reduction(+ : s)
        for (int e = 0; e < a.E; e++) s += elem_get(q[e]) * elem_get(kt[e]);
        s *= a.scale;
        if (a.cap > 0) s = a.cap * tanhf(s / a.cap);
        float next = fmaxf(top, s), shrink = expf(top - next), p = expf(s - next);
        sum = sum * shrink + p;
        for (int e = 0; e < a.E; e++) acc[e] = acc[e] * shrink + p * elem_get(vt[e]);
        top = next;
    }
    for (int e = 0; e < a.E; e++) o[e] = elem_put(acc[e] / sum);
}

void TWIN(attn_decode)(Exec *ex, store *o, const store *q, const store *kcache, const store *vcache,
                       const int32_t *slot, const int32_t *len, int N, int T, AttnShape a) {
    OP_GATE(ex);
    CHECK(N >= 0 && T > 0 && a.H % a.K == 0 && a.E >= 8 && a.E <= 256, "N=%d T=%d H=%d K=%d E=%d",
          N, T, a.H, a.K, a.E);
    size_t width = (size_t)a.K * a.E;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < N * a.H; i++) {
        int n = i / a.H, h = i % a.H, kv = h / (a.H / a.K);
        CHECK(slot[n] >= 0 && len[n] >= 1 && len[n] <= T, "row %d: slot %d, length %d of %d", n,
              slot[n], len[n], T);
        size_t base = (size_t)slot[n] * T * width + (size_t)kv * a.E, row = (size_t)i * a.E;
        int first = a.window > 0 && len[n] > a.window ? len[n] - a.window : 0;
        decode_head(elems(o) + row, elems_const(q) + row, elems_const(kcache) + base,
                    elems_const(vcache) + base, first, len[n], width, a);
    }
}
