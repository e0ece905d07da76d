/* attention.c - attention over packed documents, forward and backward. Contracts: ops.h. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/twin.h"

enum { E_MAX = 256 };

/* The row of the key at position p of a segment. */
static int key_row(Segment s, int p) {
    return p < s.prefix_len ? s.prefix_row + p : s.row + p - s.prefix_len;
}

static float dot(const elem *a, const elem *b, int n) {
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (int i = 0; i < n; i++) s += elem_get(a[i]) * elem_get(b[i]);
    return s;
}

static float capped(float s, float cap) {
    return cap > 0 ? cap * tanhf(s / cap) : s;
}

static int first_key(AttnShape a, int pos) {
    return a.window > 0 && pos >= a.window ? pos - a.window + 1 : 0;
}

static void check_shape(AttnShape a, int N) {
    CHECK(N >= 0 && a.K > 0 && a.H % a.K == 0 && a.E % 8 == 0 && a.E >= 8 && a.E <= E_MAX,
          "N=%d H=%d K=%d E=%d", N, a.H, a.K, a.E);
}

static void row_fwd(elem *o, float *lse, const elem *q, const elem *k, const elem *v, Segment s,
                    int i, int kv, AttnShape a) {
    float top = -INFINITY, sum = 0, acc[E_MAX] = {0};
    int pos = s.prefix_len + i;
    for (int p = first_key(a, pos); p <= pos; p++) {
        size_t at = ((size_t)key_row(s, p) * a.K + kv) * a.E;
        float z = capped(a.scale * dot(q, k + at, a.E), a.cap);
        float next = fmaxf(top, z), shrink = expf(top - next), w = expf(z - next);
        sum = sum * shrink + w;
        for (int e = 0; e < a.E; e++) acc[e] = acc[e] * shrink + w * elem_get(v[at + e]);
        top = next;
    }
    *lse = top + logf(sum);
    for (int e = 0; e < a.E; e++) o[e] = elem_put(acc[e] / sum);
}

void TWIN(attn_fwd)(Exec *ex, store *o, float *lse, const store *q, const store *k, const store *v,
                    const Segment *seg, const Segment *host_seg, int nseg, int N, AttnShape a) {
    OP_GATE(ex);
    (void)host_seg;
    check_shape(a, N);
    for (int j = 0; j < nseg; j++) {
#pragma omp parallel for collapse(2) schedule(dynamic, 8)
        for (int i = 0; i < seg[j].len; i++)
            for (int h = 0; h < a.H; h++) {
                size_t at = (size_t)(seg[j].row + i) * a.H + h;
                row_fwd(elems(o) + at * a.E, lse + at, elems_const(q) + at * a.E, elems_const(k),
                        elems_const(v), seg[j], i, h / (a.H / a.K), a);
            }
    }
}

/* Adds one query row's part to its dq and to the dk, dv of its kv head, both f32. */
static void row_bwd(float *dq, float *dk, float *dv, const elem *d_o, const elem *q, const elem *k,
                    const elem *v, const elem *o, float lse, Segment s, int i, int kv,
                    AttnShape a) {
    int pos = s.prefix_len + i;
    float delta = dot(d_o, o, a.E);
    for (int p = first_key(a, pos); p <= pos; p++) {
        int row = key_row(s, p);
        size_t at = ((size_t)row * a.K + kv) * a.E;
        float z = capped(a.scale * dot(q, k + at, a.E), a.cap);
        float w = expf(z - lse);
        float ds = w * (dot(d_o, v + at, a.E) - delta) * a.scale;
        if (a.cap > 0) ds *= 1 - (z / a.cap) * (z / a.cap);
        float *dkr = dk + (size_t)row * a.E, *dvr = dv + (size_t)row * a.E;
        for (int e = 0; e < a.E; e++) {
            dvr[e] += w * elem_get(d_o[e]);
            dkr[e] += ds * elem_get(q[e]);
            dq[e] += ds * elem_get(k[at + e]);
        }
    }
}

void TWIN(attn_bwd)(Exec *ex, store *dq, store *dk, store *dv, const store *d_o, const store *q,
                    const store *k, const store *v, const store *o, const float *lse,
                    const Segment *seg, const Segment *host_seg, int nseg, int N, AttnShape a) {
    OP_GATE(ex);
    (void)host_seg;
    check_shape(a, N);
    size_t head = (size_t)N * a.E;
    float *acc = exec_scratch(ex, 2 * head * a.K * sizeof *acc);
    memset(acc, 0, 2 * head * a.K * sizeof *acc);
#pragma omp parallel for
    for (int kv = 0; kv < a.K; kv++) {
        float *dkh = acc + 2 * head * kv, *dvh = dkh + head;
        for (int j = 0; j < nseg; j++)
            for (int i = 0; i < seg[j].len; i++)
                for (int h = kv * (a.H / a.K); h < (kv + 1) * (a.H / a.K); h++) {
                    size_t at = (size_t)(seg[j].row + i) * a.H + h;
                    float dqr[E_MAX] = {0};
                    row_bwd(dqr, dkh, dvh, elems_const(d_o) + at * a.E, elems_const(q) + at * a.E,
                            elems_const(k), elems_const(v), elems_const(o) + at * a.E, lse[at],
                            seg[j], i, kv, a);
                    for (int e = 0; e < a.E; e++) elems(dq)[at * a.E + e] = elem_put(dqr[e]);
                }
        for (int n = 0; n < N; n++)
            for (int e = 0; e < a.E; e++) {
                size_t to = ((size_t)n * a.K + kv) * a.E + e;
                elems(dk)[to] = elem_put(dkh[(size_t)n * a.E + e]);
                elems(dv)[to] = elem_put(dvh[(size_t)n * a.E + e]);
            }
    }
}
