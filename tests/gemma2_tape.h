/* gemma2_tape.h - Gemma-2's loss in double, one number after the other, from transformers'
 * equations alone, and its gradient by every weight, which is the tape's (tape.h). Slow, and shares
 * nothing with the ops but the angles of the rotary embedding, which transformers rounds. */
#ifndef SAILS_TEST_GEMMA2_TAPE_H
#define SAILS_TEST_GEMMA2_TAPE_H

#include "model/tensors.h"
#include "tests/golden.h"
#include "tests/tape.h"

/* All weights, tensor behind tensor in the order of tensors.h. */
typedef struct RefModel {
    const Config *c;
    size_t n, *at;          /* elements; (tensors) where each begins */
    double *weight, *slope; /* (n) slope: of the loss, after ref_loss */
    Tape tape;              /* its memory serves every ref_loss */
} RefModel;

static inline void ref_open(RefModel *r, const Config *c) {
    *r = (RefModel){.c = c, .at = mem_array(tensors_count(c), sizeof *r->at)};
    for (size_t i = 0; i < tensors_count(c); r->n += tensors_at(c, i).count, i++) r->at[i] = r->n;
    r->weight = mem_array(r->n, sizeof *r->weight);
    r->slope = mem_array(r->n, sizeof *r->slope);
}

static inline void ref_close(RefModel *r) {
    tape_free(&r->tape);
    free(r->slope), free(r->weight), free(r->at);
}

/* Opened with the weights of a folder's file. */
static inline void ref_read(RefModel *r, const Config *c, const char *folder) {
    StSet *set;
    Err err;
    ref_open(r, c);
    MUST(st_open_folder(&set, folder, "model", &err), err);
    for (size_t i = 0; i < tensors_count(c); i++) {
        Tensor t = tensors_at(c, i);
        const StTensor *from;
        MUST(st_need(set, &from, t.name, t.rank, t.dim, &err), err);
        double *w = golden_f64(from);
        memcpy(r->weight + r->at[i], w, t.count * sizeof *w);
        free(w);
    }
    st_close(set);
}

/* Where a tensor of a layer begins; on the tape the weights come first, at the same places. */
static inline int ref_proj(const RefModel *r, int layer, enum Proj p) {
    return (int)r->at[1 + (size_t)layer * (PROJ_COUNT + NORM_COUNT) + (size_t)p];
}
static inline int ref_norm(const RefModel *r, int layer, enum Norm n) {
    return (int)r->at[1 + (size_t)layer * (PROJ_COUNT + NORM_COUNT) + PROJ_COUNT + (size_t)n];
}

/* y (out) = W x, W (out,in) from place w on. */
static inline void ref_linear(Tape *t, int *y, int w, const int *x, int out, int in) {
    for (int o = 0; o < out; o++) {
        y[o] = tape_mul(t, w + o * in, x[0]);
        for (int i = 1; i < in; i++) y[o] = tape_mac(t, y[o], w + o * in + i, x[i]);
    }
}

/* y = x (mean(x^2) + eps)^-1/2 (1 + w); y may be x. */
static inline void ref_rmsnorm(const RefModel *r, Tape *t, int *y, const int *x, int w) {
    int D = r->c->D, sum = tape_mul(t, x[0], x[0]);
    for (int i = 1; i < D; i++) sum = tape_mac(t, sum, x[i], x[i]);
    double v = tape_value(t, sum) / D + r->c->eps, rstd = 1 / sqrt(v);
    int scale = tape_of(t, sum, rstd, -0.5 * rstd / v / D);
    for (int i = 0; i < D; i++) {
        int normed = tape_mul(t, x[i], scale);
        y[i] = tape_mac(t, normed, normed, w + i);
    }
}

static inline int ref_softcap(Tape *t, int a, double cap) {
    return cap > 0 ? tape_scale(t, tape_tanh(t, tape_scale(t, a, 1 / cap)), cap) : a;
}

static inline void ref_rope(const RefModel *r, Tape *t, int *x, int heads, int pos) {
    int E = r->c->E, half = E / 2;
    for (int i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)E;
        float frequency = 1 / (float)pow((double)(float)r->c->rope_theta, (double)exponent);
        float angle = frequency * (float)pos, c = (float)cos(angle), s = (float)sin(angle);
        for (int *h = x + i; h < x + heads * E; h += E) {
            int a = tape_scale(t, h[0], c), b = tape_scale(t, h[half], c);
            a = tape_add(t, a, tape_scale(t, h[half], -s));
            b = tape_add(t, b, tape_scale(t, h[0], s));
            h[0] = a, h[half] = b;
        }
    }
}

/* One head's output for row n: softmax of the capped scores of the rows that it sees. */
static inline void ref_head(const RefModel *r, Tape *t, int *o, const int *q, const int *k,
                            const int *v, int n, int layer) {
    const Config *c = r->c;
    int E = c->E, row = c->K * E, first = 0, sum = 0;
    int *e = mem_array((size_t)n + 1, sizeof *e);
    if (c->sliding[layer] && n >= c->window) first = n - c->window + 1;
    for (int j = first; j <= n; j++) {
        int s = tape_mul(t, q[0], k[j * row]);
        for (int i = 1; i < E; i++) s = tape_mac(t, s, q[i], k[j * row + i]);
        e[j] = tape_exp(t, ref_softcap(t, tape_scale(t, s, c->query_scale), c->attn_cap));
        sum = j == first ? e[j] : tape_add(t, sum, e[j]);
    }
    int inverse = tape_inverse(t, sum);
    for (int i = 0; i < E; i++) {
        int y = tape_mul(t, e[first], v[first * row + i]);
        for (int j = first + 1; j <= n; j++) y = tape_mac(t, y, e[j], v[j * row + i]);
        o[i] = tape_mul(t, y, inverse);
    }
    free(e);
}

/* x (N,D) += norm(attention(norm(x))) */
static inline void ref_attention(const RefModel *r, Tape *t, int *x, int N, int layer) {
    const Config *c = r->c;
    int D = c->D, Q = c->H * c->E, KV = c->K * c->E, group = c->H / c->K;
    int *h = mem_array((size_t)D, sizeof *h), *q = mem_array((size_t)(N * Q), sizeof *q);
    int *k = mem_array((size_t)(N * KV), sizeof *k), *v = mem_array((size_t)(N * KV), sizeof *v);
    int *o = mem_array((size_t)Q, sizeof *o);
    for (int n = 0; n < N; n++) {
        ref_rmsnorm(r, t, h, x + n * D, ref_norm(r, layer, NORM_INPUT));
        ref_linear(t, q + n * Q, ref_proj(r, layer, PROJ_Q), h, Q, D);
        ref_linear(t, k + n * KV, ref_proj(r, layer, PROJ_K), h, KV, D);
        ref_linear(t, v + n * KV, ref_proj(r, layer, PROJ_V), h, KV, D);
        ref_rope(r, t, q + n * Q, c->H, n);
        ref_rope(r, t, k + n * KV, c->K, n);
    }
    for (int n = 0; n < N; n++) {
        for (int i = 0; i < c->H; i++)
            ref_head(r, t, o + i * c->E, q + n * Q + i * c->E, k + i / group * c->E,
                     v + i / group * c->E, n, layer);
        ref_linear(t, h, ref_proj(r, layer, PROJ_O), o, D, Q);
        ref_rmsnorm(r, t, h, h, ref_norm(r, layer, NORM_POST_ATTN));
        for (int i = 0; i < D; i++) x[n * D + i] = tape_add(t, x[n * D + i], h[i]);
    }
    free(h), free(q), free(k), free(v), free(o);
}

/* 0.5 g (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3))) */
static inline int ref_gelu(Tape *t, int g) {
    double x = tape_value(t, g), s = sqrt(2 / acos(-1.0));
    int u =
        tape_tanh(t, tape_of(t, g, s * (x + 0.044715 * x * x * x), s * (1 + 3 * 0.044715 * x * x)));
    return tape_scale(t, tape_mac(t, g, g, u), 0.5);
}

/* x (D) += norm(mlp(norm(x))) */
static inline void ref_ffn(const RefModel *r, Tape *t, int *x, int layer) {
    int D = r->c->D, F = r->c->F;
    int *h = mem_array((size_t)D, sizeof *h), *gate = mem_array((size_t)F, sizeof *gate);
    int *up = mem_array((size_t)F, sizeof *up);
    ref_rmsnorm(r, t, h, x, ref_norm(r, layer, NORM_PRE_FFN));
    ref_linear(t, gate, ref_proj(r, layer, PROJ_GATE), h, F, D);
    ref_linear(t, up, ref_proj(r, layer, PROJ_UP), h, F, D);
    for (int i = 0; i < F; i++) gate[i] = tape_mul(t, ref_gelu(t, gate[i]), up[i]);
    ref_linear(t, h, ref_proj(r, layer, PROJ_DOWN), gate, D, F);
    ref_rmsnorm(r, t, h, h, ref_norm(r, layer, NORM_POST_FFN));
    for (int i = 0; i < D; i++) x[i] = tape_add(t, x[i], h[i]);
    free(h), free(gate), free(up);
}

/* -log p of the token that follows the row x (D), which the final norm has passed. */
static inline int ref_nll(const RefModel *r, Tape *t, const int *x, int target) {
    const Config *c = r->c;
    int *z = mem_array((size_t)c->V, sizeof *z), sum = 0;
    ref_linear(t, z, (int)r->at[0], x, c->V, c->D);
    for (int i = 0; i < c->V; i++) {
        z[i] = ref_softcap(t, z[i], c->final_cap);
        int e = tape_exp(t, z[i]);
        sum = i == 0 ? e : tape_add(t, sum, e);
    }
    int nll = tape_add(t, tape_log(t, sum), tape_scale(t, z[target], -1));
    free(z);
    return nll;
}

/* The sum of a document's losses added to `sum` (0: there is none yet). */
static inline int ref_document(const RefModel *r, Tape *t, const int32_t *token,
                               const uint8_t *label, int N, int sum) {
    const Config *c = r->c;
    int D = c->D, *x = mem_array((size_t)(N * D), sizeof *x);
    for (int n = 0; n < N; n++)
        for (int i = 0; i < D; i++)
            x[n * D + i] = tape_scale(t, (int)r->at[0] + token[n] * D + i, (float)sqrt(D));
    for (int l = 0; l < c->L; l++) {
        ref_attention(r, t, x, N, l);
        for (int n = 0; n < N; n++) ref_ffn(r, t, x + n * D, l);
    }
    int norm = (int)r->at[tensors_count(c) - 1];
    for (int n = 0; n + 1 < N; n++) {
        if (!label[n + 1]) continue;
        ref_rmsnorm(r, t, x + n * D, x + n * D, norm);
        int nll = ref_nll(r, t, x + n * D, token[n + 1]);
        sum = sum ? tape_add(t, sum, nll) : nll;
    }
    free(x);
    return sum;
}

/* The mean loss over all labels of the documents, and its slopes. */
static inline double ref_loss(RefModel *r, int32_t *const *token, uint8_t *const *label,
                              const int *n, int docs) {
    Tape *t = &r->tape;
    int sum = 0, labels = 0;
    t->n = 0;
    for (size_t i = 0; i < r->n; i++) tape_leaf(t, r->weight[i]);
    for (int d = 0; d < docs; d++) {
        sum = ref_document(r, t, token[d], label[d], n[d], sum);
        for (int i = 0; i < n[d]; i++) labels += label[d][i];
    }
    double loss = tape_value(t, tape_scale(t, sum, 1.0 / labels));
    tape_back(t);
    for (size_t i = 0; i < r->n; i++) r->slope[i] = t->node[i].slope;
    return loss;
}

#endif
