/* gemma2_forward.c - the forward pass, one call per equation:
 *
 *   x  = round(sqrt(D)) embed[token]
 *   per layer   h = norm(x);  q, k, v = h Wq, h Wk, h Wv;  q, k = rope(q), rope(k)
 *               o = attention(q, k, v);  p = o Wo;  x2 = x + norm(p)
 *               h2 = norm(x2);  gate, up = h2 Wgate, h2 Wup;  g = gelu(gate) up
 *               m = g Wdown;  x = x2 + norm(m)
 *   h  = norm(x)
 *
 * A residual addition and the norm that reads its result are one op; the norm at a layer's end is
 * therefore the next layer's first, or the final one. Every W stands for W + scale (B A - B0 A0).
 *
 * acts_show names what a line above it has made, while it lasts: buffers have several uses in turn.
 */
#include <stdlib.h>

#include "kernels/check.h"
#include "model/acts.h"
#include "model/dump.h"
#include "model/linear.h"

/* y[p] = x W^T + scale (x A^T) B^T for the projections of group g, which all read x (N,in). */
static void group_fwd(const Model *m, const Acts *a, int l, enum Group g, store *const *y,
                      const store *x, int N) {
    Exec *ex = m->ex;
    int in = proj_in(&m->c, group_first[g]);
    store *xa = a->layer[l].xa[g];
    LoraGroup lora = m->lora ? lora_group(m->lora, l, g) : (LoraGroup){.R = 0};
    enum GemmForm form = a->decoding ? GEMM_NT_FEW : GEMM_NT;
    CHECK(lora.R <= a->max_R[g], "layer %d: expected rank <= %d, got %d", l, a->max_R[g], lora.R);
    if (a->reads) a->reads(a->reads_context, l, g, x, N);
    if (lora.R > 0)
        linear(ex, (Rows){xa, lora.R}, (RowsIn){x, in}, (Linear){lora.a, in, lora.R}, N, GEMM_NT, 1,
               SUM_SET);
    if (lora.R > 0) acts_show_xa(a, l, g, N, lora.R);
    for (enum Proj p = group_first[g]; p < group_first[g + 1]; p++, y++) {
        int out = proj_out(&m->c, p);
        Linear W = {m->layer[l].proj[p], in, out};
        linear(ex, (Rows){*y, out}, (RowsIn){x, in}, W, N, form, 1, SUM_SET);
        const Adapter *d = lora.R > 0 ? lora_at(m->lora, l, p) : NULL;
        if (!d || d->R == 0) continue;
        RowsIn mine = {store_at_const(ex->dtype, xa, (size_t)d->column), lora.R};
        linear(ex, (Rows){*y, out}, mine, acts_out(a, d), N, GEMM_NT, d->scale, SUM_ADD);
    }
}

static void attention_fwd(const Model *m, const Acts *a, int l, const Segment *host_seg) {
    Exec *ex = m->ex;
    const struct Ops *op = ex->op;
    const Config *c = &m->c;
    const LayerActs *s = &a->layer[l];
    AttnShape shape = config_attn(c, l);
    op->rope_fwd(ex, s->q, m->cos, m->sin, a->pos, a->N, c->H, c->E);
    op->rope_fwd(ex, s->k, m->cos, m->sin, a->pos, a->N, c->K, c->E);
    acts_show_layer(a, l, a->N, "rope(q) rope(k)");
    if (a->cache)
        op->kv_put(ex, a->cache->k[l], a->cache->v[l], s->k, s->v, a->slot, a->pos, a->N,
                   a->cache->T, c->K * c->E);
    if (a->decoding)
        op->attn_decode(ex, s->o, s->q, a->cache->k[l], a->cache->v[l], a->slot, a->len, a->N,
                        a->cache->T, shape);
    else
        op->attn_fwd(ex, s->o, s->lse, s->q, s->k, s->v, a->seg, host_seg, a->nseg, a->N, shape);
    acts_show_layer(a, l, a->N, a->decoding ? "o" : "lse o");
}

/* Layer l, from its x and h to the next one's. Returns the rows that it goes on with. */
static int layer_fwd(const Model *m, Acts *a, int l, const Segment *host_seg) {
    Exec *ex = m->ex;
    const struct Ops *op = ex->op;
    const Config *c = &m->c;
    int N = a->N, D = c->D;
    const LayerActs *s = &a->layer[l], *next = s + 1;
    const LayerWeights *w = &m->layer[l];
    const store *next_norm = l + 1 < c->L ? m->layer[l + 1].norm[NORM_INPUT] : m->final_norm;

    if (m->full) full_ahead(m->full, l + 1);
    exec_range_push(ex, "attn");
    acts_show_layer(a, l, N, "x rx h");
    group_fwd(m, a, l, GROUP_QKV, (store *[]){s->q, s->k, s->v}, a->h, N);
    acts_show_layer(a, l, N, "q k v");
    attention_fwd(m, a, l, host_seg);
    const store *x = s->x, *o = s->o;
    if (l + 1 == a->layers && a->picked) { /* nobody attends to what other rows become now */
        N = a->nlast;
        op->gather_rows(ex, a->last_x, s->x, a->last, N, D), x = a->last_x;
        op->gather_rows(ex, a->last_o, s->o, a->last, N, c->H * c->E), o = a->last_o;
    }
    group_fwd(m, a, l, GROUP_O, &s->p, o, N);
    op->residual_norm_fwd(ex, s->x2, a->h, s->rp, s->rx2, x, s->p, w->norm[NORM_POST_ATTN],
                          w->norm[NORM_PRE_FFN], N, D, c->eps);
    acts_show_layer(a, l, N, "p rp x2 rx2 h2");
    exec_range_pop(ex);
    exec_range_push(ex, "ffn");
    group_fwd(m, a, l, GROUP_FFN, (store *[]){s->gate, s->up}, a->h, N);
    acts_show_layer(a, l, N, "gate up");
    op->geglu_fwd(ex, a->g, s->gate, s->up, (size_t)N * (size_t)c->F);
    acts_show_layer(a, l, N, "g");
    group_fwd(m, a, l, GROUP_DOWN, &s->m, a->g, N);
    acts_show_layer(a, l, N, "m");
    if (m->full && l + 1 < c->L) full_need(m->full, l + 1); /* for its norm */
    op->residual_norm_fwd(ex, next->x, a->h, s->rm, next->rx, s->x2, s->m, w->norm[NORM_POST_FFN],
                          next_norm, N, D, c->eps);
    acts_show_layer(a, l, N, "rm");
    exec_range_pop(ex);
    return N;
}

/* What leaves layer l, changed, and its norm once more. */
static void edit_stream(const Model *m, const Acts *a, int l, int N) {
    const Config *c = &m->c;
    const LayerActs *s = &a->layer[l + 1];
    const store *norm = l + 1 < c->L ? m->layer[l + 1].norm[NORM_INPUT] : m->final_norm;
    if (a->edit(a->edit_context, l, s->x, s->rx, N))
        m->ex->op->rmsnorm_fwd(m->ex, a->h, s->rx, s->x, norm, N, c->D, c->eps);
}

void acts_edit(Acts *a, model_edit *edit, void *context) {
    CHECK(!edit || a->use == ACTS_INFER, "a stream that is changed has no backward");
    a->edit = edit, a->edit_context = context;
}

void acts_layers(const Model *m, Acts *a, const Segment *host_seg, int layers, model_tap *tap,
                 void *context) {
    Exec *ex = m->ex;
    const Config *c = &m->c;
    const LayerActs *s = a->layer;
    int N = a->N;
    a->layers = layers, a->complete = layers == c->L;

    exec_range_push(ex, "forward");
    if (m->full) full_need(m->full, 0);
    ex->op->embed_fwd(ex, s->x, m->embed, a->token, N, c->D, c->V, m->embed_scale);
    ex->op->rmsnorm_fwd(ex, a->h, s->rx, s->x, m->layer[0].norm[NORM_INPUT], N, c->D, c->eps);
    for (int l = 0; l < layers; l++) {
        exec_range_push(ex, "layer %02d", l);
        N = layer_fwd(m, a, l, host_seg);
        if (a->edit) edit_stream(m, a, l, N);
        if (tap) tap(context, l, a->layer[l + 1].x, N);
        exec_range_pop(ex);
    }
    if (a->complete)
        acts_show(a, "final", 0, N, "x rx h");
    else
        acts_show_layer(a, layers, N, "x rx h");
    exec_range_pop(ex);
}

void model_idle_forward(const Model *m) {
    if (m->full) full_need(m->full, 0);
    for (int l = 0; m->full && l < m->c.L; l++) {
        full_ahead(m->full, l + 1);
        if (l + 1 < m->c.L) full_need(m->full, l + 1);
    }
}

/* Not shown: that was done when it was made first. */
void acts_layer_again(const Model *m, Acts *a, int layer, const Segment *host_seg) {
    const Config *c = &m->c;
    const LayerActs *s = &a->layer[layer];
    model_watch *watch = a->watch;
    a->watch = NULL;
    exec_range_push(m->ex, "again");
    m->ex->op->rmsnorm_fwd(m->ex, a->h, s->rx, s->x, m->layer[layer].norm[NORM_INPUT], a->N, c->D,
                           c->eps);
    layer_fwd(m, a, layer, host_seg);
    exec_range_pop(m->ex);
    a->watch = watch;
}

/* A token or position out of range would read foreign memory in an op; the host can still see it.
 */
static void check_pack(const Model *m, const Acts *a, const Pack *p, int layers) {
    CHECK(p->N <= a->max_rows && p->nseg <= a->max_segs,
          "expected a pack of at most %d rows and %d segments, got %d and %d", a->max_rows,
          a->max_segs, p->N, p->nseg);
    CHECK(layers >= 0 && layers <= m->c.L, "layers %d of %d", layers, m->c.L);
    for (int i = 0; i < p->N; i++) {
        CHECK(p->token[i] >= 0 && p->token[i] < m->c.V, "token %d of a vocabulary of %d",
              p->token[i], m->c.V);
        CHECK(p->pos[i] >= 0 && p->pos[i] < m->c.max_positions, "position %d of %d", p->pos[i],
              m->c.max_positions);
    }
}

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The rows of one token in a row, in the order of the pack: so their gradients are added. */
static void put_order(const Model *m, Acts *a, const Pack *pack) {
    size_t n = (size_t)pack->N;
    for (size_t i = 0; i < n; i++) a->host_order[i] = (int64_t)pack->token[i] << 32 | (int64_t)i;
    qsort(a->host_order, n, sizeof *a->host_order, by_size);
    for (size_t i = 0; i < n; i++) a->seen[i] = (int32_t)(a->host_order[i] & INT32_MAX);
    exec_copy_in(m->ex, a->by_token, a->seen, n * sizeof *a->seen);
}

/* A pass begins. */
static void put_pack(const Model *m, Acts *a, const Pack *pack) {
    size_t rows = (size_t)pack->N * sizeof *pack->token;
    exec_copy_in(m->ex, a->token, pack->token, rows);
    exec_copy_in(m->ex, a->pos, pack->pos, rows);
    exec_copy_in(m->ex, a->seg, pack->seg, (size_t)pack->nseg * sizeof *pack->seg);
    if (m->full && a->use != ACTS_INFER) put_order(m, a, pack);
    a->watch = m->dump ? dump_pass(m->dump) : NULL, a->watch_context = m->dump;
    acts_show(a, "pack", 0, a->N, "tokens positions");
    acts_show(a, "pack", 0, a->nseg, "segments");
}

void model_forward(const Model *m, Acts *a, const Pack *pack, int layers, model_tap *tap,
                   void *context) {
    check_pack(m, a, pack, layers);
    CHECK(a->use == ACTS_INFER || pack->N <= a->max_last,
          "no room for every row of the last layer");
    a->N = a->nlast = pack->N, a->nseg = pack->nseg, a->picked = false;
    put_pack(m, a, pack);
    acts_layers(m, a, pack->seg, layers, tap, context);
}

void model_forward_reads(const Model *m, Acts *a, const Pack *pack, model_reads *reads,
                         void *context) {
    a->reads = reads, a->reads_context = context;
    model_forward(m, a, pack, m->c.L, NULL, NULL);
    a->reads = NULL;
}

void model_forward_rows(const Model *m, Acts *a, const Pack *pack, int layers, const int32_t *row,
                        int n, model_tap *tap, void *context) {
    check_pack(m, a, pack, layers);
    CHECK(n <= pack->N && n <= a->max_last, "%d rows of %d, room for %d", n, pack->N, a->max_last);
    for (int i = 0; i < n; i++)
        CHECK(row[i] >= 0 && row[i] < pack->N, "expected rows below %d, row %d is %d", pack->N, i,
              row[i]);
    a->N = pack->N, a->nlast = n, a->nseg = pack->nseg, a->picked = true;
    put_pack(m, a, pack);
    exec_copy_in(m->ex, a->last, row, (size_t)n * sizeof *row);
    acts_show(a, "pack", 0, n, "rows");
    acts_layers(m, a, pack->seg, layers, tap, context);
}
