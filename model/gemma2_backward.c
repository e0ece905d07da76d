/* gemma2_backward.c - gemma2_forward.c in reverse, each call beside the line that it undoes.
 *
 * Where only adapters are trained, nothing is computed for its own sake below the lowest of them:
 * the pass ends in that layer, at that sub-layer. Where all weights are, it goes down to the
 * embedding; where single ones are asked for (weight_grads.h), down to the lowest of those. The
 * inputs of a sub-layer (h, g) are made again from what was saved, and only where a gradient of a
 * matrix that reads them is wanted. Above the attention of the last layer the rows are those that
 * have a label. */
#include <stdio.h>

#include "kernels/check.h"
#include "model/acts.h"
#include "model/linear.h"

/* A group of projections, in the order of the forward. */
typedef struct Place {
    int layer;
    enum Group group;
} Place;

/* Whether the pass goes on below `here`, given the lowest place that trains something. */
static bool goes_below(Place here, Place lowest) {
    return lowest.layer != here.layer ? lowest.layer < here.layer : lowest.group < here.group;
}

static LoraGroup lora_of(const Model *m, Place at) {
    return m->lora ? lora_group(m->lora, at.layer, at.group) : (LoraGroup){.R = 0};
}

/* What the gradient of a projection's weight is added to; NULL: it is not wanted. */
static float *weight_grad(const Model *m, int layer, enum Proj p) {
    if (m->full) return m->full->layer[layer].proj[p];
    return m->weight_grad ? m->weight_grad[layer * PROJ_COUNT + (int)p] : NULL;
}

/* Is one of the group's? */
static bool wants_weights(const Model *m, Place at) {
    bool any = false;
    for (enum Proj p = group_first[at.group]; p < group_first[at.group + 1]; p++)
        any = any || weight_grad(m, at.layer, p);
    return any;
}

/* The lowest place that trains something: above all of them if none does, below if the embedding is
 * trained. */
static Place lowest_trained(const Model *m) {
    Place at = {0, GROUP_QKV};
    if (m->full) return (Place){-1, GROUP_DOWN};
    while (at.layer < m->c.L && !lora_of(m, at).train_any && !wants_weights(m, at))
        at = at.group + 1 < GROUP_COUNT ? (Place){at.layer, at.group + 1}
                                        : (Place){at.layer + 1, GROUP_QKV};
    return at;
}

/* Is the input of the group's projections wanted again? */
static bool wants_input(const Model *m, Place at) {
    return lora_of(m, at).train_A || wants_weights(m, at);
}

/* dW += dy^T x of the projections of the group. */
static void weights_bwd(const Model *m, Place at, const store *const *dy, const store *x, int N) {
    int in = proj_in(&m->c, group_first[at.group]);
    for (enum Proj p = group_first[at.group]; p < group_first[at.group + 1]; p++, dy++) {
        int out = proj_out(&m->c, p);
        float *dW = weight_grad(m, at.layer, p);
        if (dW) linear_dw(m->ex, dW, (RowsIn){*dy, out}, (RowsIn){x, in}, N, out, in, 1);
    }
}

/* The gradient of the weight of the norm that reads layer l's x; l == L: of the final one. */
static float *input_norm_grad(const Model *m, int l) {
    return l < m->c.L ? m->full->layer[l].norm[NORM_INPUT] : m->full->final_norm;
}

/* d(xa) = scale dy B, side by side for the adapters of the group;  dB += scale dy^T xa. */
static void adapters_bwd(const Model *m, const Acts *a, Place at, const store *const *dy,
                         bool want_dxa, int N) {
    Exec *ex = m->ex;
    enum Group g = at.group;
    int R = lora_of(m, at).R;
    for (enum Proj p = group_first[g]; p < group_first[g + 1]; p++, dy++) {
        const Adapter *d = lora_at(m->lora, at.layer, p);
        if (d->R == 0) continue;
        RowsIn dy_rows = {*dy, d->out};
        RowsIn xa = {store_at_const(ex->dtype, a->layer[at.layer].xa[g], (size_t)d->column), R};
        Rows dxa = {store_at(ex->dtype, a->dxa, (size_t)d->column), R};
        if (d->B->trained) linear_dw(ex, d->B->grad, dy_rows, xa, N, d->out, d->R, d->scale);
        if (want_dxa) linear_dx(ex, dxa, dy_rows, acts_out(a, d), N, d->scale, SUM_SET);
    }
}

/* Undoes group_fwd:  dW += dy^T x or dA += d(xa)^T x;  dx = sum over the group of dy W, + d(xa) A.
 * dx NULL: the pass ends here. dx may alias x, which is read before. */
static void group_bwd(const Model *m, const Acts *a, Place at, store *dx, const store *const *dy,
                      const store *x, int N) {
    Exec *ex = m->ex;
    enum Group g = at.group;
    LoraGroup lora = lora_of(m, at);
    int in = proj_in(&m->c, group_first[g]), R = lora.R;
    if (wants_weights(m, at)) weights_bwd(m, at, dy, x, N);
    if (R > 0) adapters_bwd(m, a, at, dy, lora.train_A || dx, N);
    if (lora.train_A) linear_dw(ex, lora.dA, (RowsIn){a->dxa, R}, (RowsIn){x, in}, N, R, in, 1);
    if (!dx) return;
    for (enum Proj p = group_first[g]; p < group_first[g + 1]; p++, dy++) {
        Linear W = {m->layer[at.layer].proj[p], in, proj_out(&m->c, p)};
        linear_dx(ex, (Rows){dx, in}, (RowsIn){*dy, W.out}, W, N, 1,
                  p > group_first[g] ? SUM_ADD : SUM_SET);
    }
    if (R > 0)
        linear_dx(ex, (Rows){dx, in}, (RowsIn){a->dxa, R}, (Linear){lora.a, in, R}, N, 1, SUM_ADD);
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

/* From the rows that the last layer went on with to all: the others' gradients are zero. */
static void spread(const Model *m, const Acts *a, store *y, const store *x, int dim) {
    exec_zero(m->ex, y, (size_t)a->N * (size_t)dim * dtype_size(m->ex->dtype));
    m->ex->op->scatter_rows(m->ex, y, x, a->last, a->nlast, dim);
}

/* One layer, in two halves. On entry dx (a->last_x for the last layer, whose rows are fewer; a->dx)
 * and a->dh are the gradients of next->x on the residual stream and of its norm; on leaving a->dx
 * and a->dh are the same for this layer's x, unless the pass ends in it, at `lowest`. */
static void ffn_bwd(const Model *m, Acts *a, int l, Place lowest) {
    Exec *ex = m->ex;
    const struct Ops *op = ex->op;
    const Config *c = &m->c;
    const LayerWeights *w = &m->layer[l];
    const LayerActs *s = &a->layer[l], *next = s + 1;
    const store *next_norm = l + 1 < c->L ? m->layer[l + 1].norm[NORM_INPUT] : m->final_norm;
    bool last = l + 1 == c->L;
    int N = last ? a->nlast : a->N;
    size_t NF = (size_t)N * (size_t)c->F;
    const Place down = {l, GROUP_DOWN}, up = {l, GROUP_FFN};

    /* x = x2 + norm(m), h = norm(x) */
    op->residual_norm_bwd(ex, last ? a->last_x : a->dx, a->dp, a->dh, next->x, s->m,
                          w->norm[NORM_POST_FFN], next_norm, s->rm, next->rx, N, c->D);
    if (m->full) {
        op->rmsnorm_grad(ex, input_norm_grad(m, l + 1), a->dh, next->x, next->rx, N, c->D);
        full_end(m->full, l + 1);
        full_begin(m->full, l);
        full_ahead(m->full, l - 1);
        op->rmsnorm_grad(ex, m->full->layer[l].norm[NORM_POST_FFN], last ? a->last_x : a->dx, s->m,
                         s->rm, N, c->D);
    }
    /* m = g Wdown; g again, then its gradient in the same place */
    if (wants_input(m, down)) op->geglu_fwd(ex, a->g, s->gate, s->up, NF);
    bool below = goes_below(down, lowest);
    group_bwd(m, a, down, below ? a->g : NULL, (const store *[]){a->dp}, a->g, N);
    if (!below) return;
    /* g = gelu(gate) up */
    op->geglu_bwd(ex, s->gate, s->up, a->g, s->gate, s->up, NF);
    /* gate, up = h Wgate, h Wup */
    if (wants_input(m, up))
        op->rmsnorm_fwd(ex, a->h, s->rx2, s->x2, w->norm[NORM_PRE_FFN], N, c->D, c->eps);
    group_bwd(m, a, up, goes_below(up, lowest) ? a->dh : NULL, (const store *[]){s->gate, s->up},
              a->h, N);
}

static void attn_bwd(const Model *m, Acts *a, int l, const Segment *host_seg, Place lowest) {
    Exec *ex = m->ex;
    const struct Ops *op = ex->op;
    const Config *c = &m->c;
    const LayerWeights *w = &m->layer[l];
    const LayerActs *s = &a->layer[l];
    bool last = l + 1 == c->L;
    int N = last ? a->nlast : a->N, D = c->D;
    store *dx = last ? a->last_x : a->dx, *d_o = last ? a->last_o : a->d_o;
    const Place o = {l, GROUP_O}, qkv = {l, GROUP_QKV};

    /* x2 = x + norm(p), h = norm(x2) */
    op->residual_norm_bwd(ex, dx, a->dp, a->dh, s->x2, s->p, w->norm[NORM_POST_ATTN],
                          w->norm[NORM_PRE_FFN], s->rp, s->rx2, N, D);
    if (m->full) {
        float *const *dw = m->full->layer[l].norm;
        op->rmsnorm_grad(ex, dw[NORM_PRE_FFN], a->dh, s->x2, s->rx2, N, D);
        op->rmsnorm_grad(ex, dw[NORM_POST_ATTN], dx, s->p, s->rp, N, D);
    }
    /* p = o Wo */
    bool below = goes_below(o, lowest);
    group_bwd(m, a, o, below ? d_o : NULL, (const store *[]){a->dp}, last ? a->last_o : s->o, N);
    if (!below) return;
    if (last) spread(m, a, a->dx, dx, D), spread(m, a, a->d_o, d_o, c->H * c->E);
    /* o = attention(rope(q), rope(k), v) */
    attention_bwd(m, a, l, host_seg);
    /* q, k, v = h Wq, h Wk, h Wv */
    if (wants_input(m, qkv))
        op->rmsnorm_fwd(ex, a->h, s->rx, s->x, w->norm[NORM_INPUT], a->N, D, c->eps);
    group_bwd(m, a, qkv, goes_below(qkv, lowest) ? a->dh : NULL,
              (const store *[]){a->dq, a->dk, a->dv}, a->h, a->N);
}

static void layer_bwd(const Model *m, Acts *a, int l, const Segment *host_seg, Place lowest) {
    Exec *ex = m->ex;
    exec_range_push(ex, "layer %02d", l);
    if (m->full) full_need(m->full, l);
    if (a->use == ACTS_RECOMPUTE && l + 1 < m->c.L) acts_layer_again(m, a, l, host_seg);
    exec_range_push(ex, "ffn");
    ffn_bwd(m, a, l, lowest);
    exec_range_pop(ex);
    if (goes_below((Place){l, GROUP_FFN}, lowest)) {
        exec_range_push(ex, "attn");
        attn_bwd(m, a, l, host_seg, lowest);
        exec_range_pop(ex);
    }
    exec_range_pop(ex);
}

/* x = round(sqrt(D)) embed[token], h = norm(x) */
static void embed_bwd(const Model *m, Acts *a) {
    Exec *ex = m->ex;
    const struct Ops *op = ex->op;
    const Config *c = &m->c;
    const LayerActs *s = &a->layer[0];
    op->rmsnorm_grad(ex, input_norm_grad(m, 0), a->dh, s->x, s->rx, a->N, c->D);
    full_end(m->full, 0);
    op->rmsnorm_bwd(ex, a->dx, a->dh, s->x, m->layer[0].norm[NORM_INPUT], s->rx, a->N, c->D);
    op->embed_bwd(ex, m->full->embed, a->dx, a->token, a->by_token, a->N, c->D, c->V,
                  m->embed_scale);
    full_end(m->full, -1);
}

static void show_gradient(const Acts *a, const Param *t, const char *name) {
    Placed g = {.type = ARENA_F32, .rows = t->rows, .cols = t->cols, .data = t->grad};
    snprintf(g.name, sizeof g.name, "grad: %.88s", name);
    if (t->trained && t->grad) a->watch(a->watch_context, &g, 0);
}

/* Of this pack and those that were added before it; nothing of what ranks share out. */
static void show_gradients(const Model *m, const Acts *a) {
    for (int i = 0; m->full && i < m->full->params.n; i++)
        show_gradient(a, &m->full->params.param[i], m->full->params.param[i].name);
    for (int l = 0; m->lora && l < m->c.L; l++)
        for (enum Proj p = 0; p < PROJ_COUNT; p++) {
            const Adapter *d = lora_at(m->lora, l, p);
            for (int i = 0; d->R > 0 && i < 2; i++) {
                char name[80];
                snprintf(name, sizeof name, "layer %d: %s.lora_%c", l, proj_path[p], "AB"[i]);
                show_gradient(a, i == 0 ? d->A : d->B, name);
            }
        }
}

void model_backward(const Model *m, Acts *a, const Pack *pack) {
    CHECK(a->use != ACTS_INFER && a->complete && a->nlabel == pack->nlabel,
          "expected model_loss of this pack, once, with activations for training");
    a->complete = false; /* gate and up become their own gradients */
    if (a->nlabel == 0) return;
    exec_range_push(m->ex, "backward");
    exec_zero(m->ex, a->last_x, (size_t)a->nlast * (size_t)m->c.D * dtype_size(m->ex->dtype));
    Place lowest = lowest_trained(m);
    for (int l = m->c.L - 1; l >= 0 && l >= lowest.layer; l--)
        layer_bwd(m, a, l, pack->seg, lowest);
    if (m->full) embed_bwd(m, a);
    if (a->watch) show_gradients(m, a);
    exec_range_pop(m->ex);
}

void model_idle_backward(const Model *m) {
    for (int l = m->c.L - 1; m->full && l >= 0; l--) {
        full_need(m->full, l);
        full_end(m->full, l + 1);
        full_begin(m->full, l);
        full_ahead(m->full, l - 1);
    }
    for (int last = 0; m->full && last >= -1; last--) full_end(m->full, last);
}
