/* gemma2_backward.c - gemma2_forward.c in reverse, each call beside the line that it undoes.
 *
 * Only adapters are trained, so nothing is computed for its own sake below the lowest of them:
 * the pass ends in that layer, at that sub-layer. The inputs of a sub-layer (h, g) are made again
 * from what was saved, and only where a trained A needs them. Above the attention of the last layer
 * the rows are those that have a label. */
#include "kernels/check.h"
#include "model/acts.h"

static LoraGroup group_at(const Model *m, int l, enum Group g) {
    return m->lora ? lora_group(m->lora, l, g) : (LoraGroup){.R = 0};
}

/* d(xa) = scale dy B, side by side for the adapters of the group;  dB += scale dy^T xa. */
static void adapters_bwd(const Model *m, const Acts *a, int l, enum Group g, LoraGroup lora,
                         const store *const *dy, bool want_dxa, int N) {
    Exec *ex = m->ex;
    const struct Ops *op = ex->op;
    for (enum Proj p = group_first[g]; p < group_first[g + 1]; p++, dy++) {
        const Adapter *d = lora_at(m->lora, l, p);
        if (d->R == 0) continue;
        const store *xa = store_at_const(ex->dtype, a->layer[l].xa[g], (size_t)d->column);
        store *dxa = store_at(ex->dtype, a->dxa, (size_t)d->column);
        if (d->B->trained)
            op->gemm_grad(ex, d->B->grad, *dy, d->out, xa, lora.R, N, d->out, d->R, d->scale);
        if (want_dxa)
            op->gemm(ex, dxa, lora.R, *dy, d->out, d->B->copy, d->R, N, d->R, d->out, GEMM_NN,
                     d->scale, 0);
    }
}

/* Undoes group_fwd:  dA += d(xa)^T x;  dx = sum over the group of dy W, + d(xa) A.
 * dx NULL: the pass ends here. dx may alias x, which is read before. */
static void group_bwd(const Model *m, const Acts *a, int l, enum Group g, store *dx,
                      const store *const *dy, const store *x, int N) {
    Exec *ex = m->ex;
    const struct Ops *op = ex->op;
    LoraGroup lora = group_at(m, l, g);
    int in = proj_in(&m->c, group_first[g]);
    if (lora.R > 0) adapters_bwd(m, a, l, g, lora, dy, lora.train_A || dx, N);
    if (lora.train_A) op->gemm_grad(ex, lora.dA, a->dxa, lora.R, x, in, N, lora.R, in, 1);
    if (!dx) return;
    for (enum Proj p = group_first[g]; p < group_first[g + 1]; p++, dy++) {
        int out = proj_out(&m->c, p);
        op->gemm(ex, dx, in, *dy, out, m->layer[l].proj[p], in, N, in, out, GEMM_NN, 1,
                 p > group_first[g]);
    }
    if (lora.R > 0) op->gemm(ex, dx, in, a->dxa, lora.R, lora.a, in, N, in, lora.R, GEMM_NN, 1, 1);
}

/* d(o) -> d(q), d(k), d(v) as the projections made them. */
static void attention_bwd(const Model *m, const Acts *a, int l, const Segment *host_seg) {
    Exec *ex = m->ex;
    const struct Ops *op = ex->op;
    const Config *c = &m->c;
    const LayerActs *s = &a->layer[l];
    op->attn_bwd(ex, a->dq, a->dk, a->dv, a->d_o, s->q, s->k, s->v, s->o, s->lse, a->seg, host_seg,
                 a->nseg, a->N, config_attn(c, l));
    op->rope_bwd(ex, a->dq, m->cos, m->sin, a->pos, a->N, c->H, c->E);
    op->rope_bwd(ex, a->dk, m->cos, m->sin, a->pos, a->N, c->K, c->E);
}

/* The first (layer, group) in forward order that trains something, as layer * GROUP_COUNT + group;
 * L * GROUP_COUNT when nothing does. */
static int lowest_trained(const Model *m) {
    int at = 0, end = m->c.L * GROUP_COUNT;
    while (at < end && !group_at(m, at / GROUP_COUNT, (enum Group)(at % GROUP_COUNT)).train_any)
        at++;
    return at;
}

/* From the rows that the last layer went on with to all: the others' gradients are zero. */
static void spread(const Model *m, const Acts *a, store *y, const store *x, int dim) {
    exec_zero(m->ex, y, (size_t)a->N * (size_t)dim * dtype_size(m->ex->dtype));
    m->ex->op->scatter_rows(m->ex, y, x, a->last, a->nlast, dim);
}

/* One layer, in two halves. On entry dx (a->last_x for the last layer, whose rows are fewer; a->dx)
 * and a->dh are the gradients of next->x on the residual stream and of its norm; on leaving a->dx
 * and a->dh are the same for this layer's x. `first` is the group in which the pass ends, or less
 * than any group when it goes on below. */
static void ffn_bwd(const Model *m, Acts *a, int l, int first) {
    Exec *ex = m->ex;
    const struct Ops *op = ex->op;
    const Config *c = &m->c;
    const LayerWeights *w = &m->layer[l];
    const LayerActs *s = &a->layer[l], *next = s + 1;
    const store *next_norm = l + 1 < c->L ? m->layer[l + 1].norm[NORM_INPUT] : m->final_norm;
    bool last = l + 1 == c->L;
    int N = last ? a->nlast : a->N;
    size_t NF = (size_t)N * (size_t)c->F;

    /* x = x2 + norm(m), h = norm(x) */
    op->residual_norm_bwd(ex, last ? a->last_x : a->dx, a->dp, a->dh, next->x, s->m,
                          w->norm[NORM_POST_FFN], next_norm, s->rm, next->rx, N, c->D);
    /* m = g Wdown; g again, then its gradient in the same place */
    if (group_at(m, l, GROUP_DOWN).train_A) op->geglu_fwd(ex, a->g, s->gate, s->up, NF);
    group_bwd(m, a, l, GROUP_DOWN, first < GROUP_DOWN ? a->g : NULL, (const store *[]){a->dp}, a->g,
              N);
    if (first == GROUP_DOWN) return;
    /* g = gelu(gate) up */
    op->geglu_bwd(ex, s->gate, s->up, a->g, s->gate, s->up, NF);
    /* gate, up = h Wgate, h Wup */
    if (group_at(m, l, GROUP_FFN).train_A)
        op->rmsnorm_fwd(ex, a->h, s->rx2, s->x2, w->norm[NORM_PRE_FFN], N, c->D, c->eps);
    group_bwd(m, a, l, GROUP_FFN, first < GROUP_FFN ? a->dh : NULL,
              (const store *[]){s->gate, s->up}, a->h, N);
}

static void attn_bwd(const Model *m, Acts *a, int l, const Segment *host_seg, int first) {
    Exec *ex = m->ex;
    const struct Ops *op = ex->op;
    const Config *c = &m->c;
    const LayerWeights *w = &m->layer[l];
    const LayerActs *s = &a->layer[l];
    bool last = l + 1 == c->L;
    int N = last ? a->nlast : a->N, D = c->D;
    store *dx = last ? a->last_x : a->dx, *d_o = last ? a->last_o : a->d_o;

    /* x2 = x + norm(p), h = norm(x2) */
    op->residual_norm_bwd(ex, dx, a->dp, a->dh, s->x2, s->p, w->norm[NORM_POST_ATTN],
                          w->norm[NORM_PRE_FFN], s->rp, s->rx2, N, D);
    /* p = o Wo */
    group_bwd(m, a, l, GROUP_O, first < GROUP_O ? d_o : NULL, (const store *[]){a->dp},
              last ? a->last_o : s->o, N);
    if (first == GROUP_O) return;
    if (last) spread(m, a, a->dx, dx, D), spread(m, a, a->d_o, d_o, c->H * c->E);
    /* o = attention(rope(q), rope(k), v) */
    attention_bwd(m, a, l, host_seg);
    /* q, k, v = h Wq, h Wk, h Wv */
    if (group_at(m, l, GROUP_QKV).train_A)
        op->rmsnorm_fwd(ex, a->h, s->rx, s->x, w->norm[NORM_INPUT], a->N, D, c->eps);
    group_bwd(m, a, l, GROUP_QKV, first < GROUP_QKV ? a->dh : NULL,
              (const store *[]){a->dq, a->dk, a->dv}, a->h, a->N);
}

static void layer_bwd(const Model *m, Acts *a, int l, const Segment *host_seg, int first) {
    Exec *ex = m->ex;
    exec_range_push(ex, "layer %02d", l);
    exec_range_push(ex, "ffn");
    ffn_bwd(m, a, l, first);
    exec_range_pop(ex);
    if (first < GROUP_FFN) {
        exec_range_push(ex, "attn");
        attn_bwd(m, a, l, host_seg, first);
        exec_range_pop(ex);
    }
    exec_range_pop(ex);
}

void model_backward(const Model *m, Acts *a, const Pack *pack) {
    CHECK(a->use == ACTS_TRAIN && a->complete && a->nlabel == pack->nlabel,
          "expected model_loss of this pack, once, with activations for training");
    a->complete = false; /* gate and up become their own gradients */
    if (a->nlabel == 0) return;
    exec_range_push(m->ex, "backward");
    exec_zero(m->ex, a->last_x, (size_t)a->nlast * (size_t)m->c.D * dtype_size(m->ex->dtype));
    int lowest = lowest_trained(m);
    for (int l = m->c.L - 1; l >= 0 && l >= lowest / GROUP_COUNT; l--)
        layer_bwd(m, a, l, pack->seg, l == lowest / GROUP_COUNT ? lowest % GROUP_COUNT : -1);
    exec_range_pop(m->ex);
}
