/* head.c - tied head, final softcap and cross entropy, on label rows only and a chunk of logits at
 * a time:  z = cap tanh(h E^T / cap),  nll = log sum exp z - z[target],  dh = dz E and, where all
 * weights are trained, dE += dz^T h, where dz bears the weight that the objective gives to the
 * label.
 *
 * The full (N,V) logits never exist. */
#include "data/base/mem.h"
#include "model/acts.h"
#include "model/linear.h"

static const store *hidden_row(const Model *m, const Acts *a, int i) {
    return store_at_const(a->ex->dtype, a->h, (size_t)i * (size_t)m->c.D);
}

static store *label_row(const Acts *a, int D, int i) {
    return store_at(a->ex->dtype, a->label_h, (size_t)i * (size_t)D);
}

/* Logits, uncapped, in a->logits, of n hidden rows h, which are the head's rows `at` and so on. */
static void logits_fwd(const Model *m, const Acts *a, const store *h, int at, int n,
                       enum GemmForm form) {
    const Config *c = &m->c;
    m->ex->op->gemm_f32(m->ex, a->logits, c->V, h, c->D, m->embed, c->D, n, c->V, c->D, form, 1, 0);
    acts_show(a, "head", at, n, "logits");
}

/* Orders the labels so that the first of them have distinct rows, which host_last lists; host_row
 * says at which place there each label's row is. Two replies that branch off one prompt both have a
 * first token that the prompt's last row predicts. Returns how many rows are distinct. */
static int order_labels(Acts *a, const Pack *p) {
    memset(a->seen, 0, (size_t)p->N * sizeof *a->seen);
    int distinct = 0, end = p->nlabel;
    for (int i = 0; i < p->nlabel; i++) {
        int row = p->label_row[i];
        CHECK(row >= 0 && row < p->N, "label row %d of %d", row, p->N);
        CHECK(p->label_target[i] >= 0, "label target %d", p->label_target[i]);
        int to = a->seen[row] ? --end : distinct;
        if (to == distinct) a->host_last[distinct++] = row, a->seen[row] = distinct;
        a->host_row[to] = a->seen[row] - 1;
        a->host_target[to] = p->label_target[i];
        a->host_at[to] = i;
    }
    return distinct;
}

/* dh[row] = the gradients of the labels of this row. */
static void sum_gradients(const Model *m, Acts *a, int distinct) {
    Exec *ex = m->ex;
    int D = m->c.D;
    ex->op->gather_rows(ex, a->dh, a->label_h, a->row, distinct, D); /* whose places are 0, 1, .. */
    for (int i = distinct; i < a->nlabel; i++) { /* few: row += 1 x, as a product */
        store *row = store_at(ex->dtype, a->dh, (size_t)a->host_row[i] * (size_t)D);
        ex->op->gemm(ex, row, D, a->one, 1, label_row(a, D, i), D, 1, D, 1, GEMM_NN, 1, 1);
    }
}

/* Forward to the hidden states of the label rows, in a->label_h. Returns how many rows are
 * distinct.
 */
static int label_rows_fwd(const Model *m, Acts *a, const Pack *pack) {
    Exec *ex = m->ex;
    CHECK(pack->nlabel <= a->max_labels && pack->N <= a->max_rows,
          "expected at most %d labels and %d rows, got %d and %d", a->max_labels, a->max_rows,
          pack->nlabel, pack->N);
    size_t n = (size_t)pack->nlabel;
    int distinct = order_labels(a, pack);
    a->nlabel = pack->nlabel;
    model_forward_rows(m, a, pack, m->c.L, a->host_last, distinct, NULL, NULL);
    exec_copy_in(ex, a->row, a->host_row, n * sizeof *a->row);
    exec_copy_in(ex, a->target, a->host_target, n * sizeof *a->target);
    ex->op->gather_rows(ex, a->label_h, a->h, a->row, a->nlabel, m->c.D);
    acts_show(a, "head", 0, a->nlabel, "row target h");
    return distinct;
}

/* The chunk of labels from `at` on: logits, if they are not there yet, and when they are new what
 * they say; -log p; and, if wanted, the gradient of the hidden states in their place. */
enum ChunkLogits { LOGITS_NEW, LOGITS_AGAIN, LOGITS_THERE };
enum ChunkGradient { NLL_ALONE, NLL_AND_GRADIENT };
static void chunk_loss(const Model *m, Acts *a, int at, enum ChunkLogits logits,
                       enum ChunkGradient gradient) {
    const Config *c = &m->c;
    int n = a->nlabel - at < a->chunk ? a->nlabel - at : a->chunk;
    store *h = label_row(a, c->D, at), *dlogits = gradient == NLL_ALONE ? NULL : a->dlogits;
    if (logits != LOGITS_THERE) logits_fwd(m, a, h, at, n, GEMM_NT);
    if (logits == LOGITS_NEW && a->facts.entropy)
        m->ex->op->logit_facts(m->ex, a->fact[0] + at, a->fact[1] + at, a->fact[2] + at, a->logits,
                               a->target + at, n, c->V, c->final_cap);
    m->ex->op->xent(m->ex, dlogits, a->nll + at, a->logits, a->target + at, a->weight + at, n, c->V,
                    c->final_cap);
    if (!dlogits) return;
    RowsIn dz = {dlogits, c->V};
    if (m->full) linear_dw(m->ex, m->full->embed, dz, (RowsIn){h, c->D}, n, c->V, c->D, 1);
    linear_dx(m->ex, (Rows){h, c->D}, dz, (Linear){m->embed, c->D, c->V}, n, 1, SUM_SET);
}

/* A number of each label, in the pack's order. */
static void get_labels(const Acts *a, float *to, const float *from) {
    exec_copy_out(a->ex, a->host_label, from, (size_t)a->nlabel * sizeof *from);
    for (int i = 0; i < a->nlabel; i++) to[a->host_at[i]] = a->host_label[i];
}

static void get_nll(const Acts *a, float *nll) {
    acts_show(a, "head", 0, a->nlabel, "nll");
    get_labels(a, nll, a->nll);
    if (!a->facts.entropy) return;
    get_labels(a, a->facts.entropy, a->fact[0]);
    get_labels(a, a->facts.mean, a->fact[1]);
    get_labels(a, a->facts.hit, a->fact[2]);
}

static void put_weights(const Acts *a, const Objective *o, const Pack *pack, const float *nll) {
    o->weigh(o, pack, nll, a->host_weight);
    for (int i = 0; i < a->nlabel; i++) a->host_label[i] = a->host_weight[a->host_at[i]];
    exec_copy_in(a->ex, a->weight, a->host_label, (size_t)a->nlabel * sizeof *a->weight);
}

void model_nll(const Model *m, Acts *a, const Pack *pack, float *nll) {
    label_rows_fwd(m, a, pack);
    exec_range_push(m->ex, "head");
    for (int at = 0; at < a->nlabel; at += a->chunk) chunk_loss(m, a, at, LOGITS_NEW, NLL_ALONE);
    get_nll(a, nll);
    exec_range_pop(m->ex);
}

double model_loss(const Model *m, Acts *a, const Pack *pack, const Objective *o, float *nll) {
    CHECK(a->use != ACTS_INFER, "expected activations for training");
    int distinct = label_rows_fwd(m, a, pack), last = (a->nlabel - 1) / a->chunk * a->chunk;
    exec_range_push(m->ex, "head");
    if (o->ahead) put_weights(a, o, pack, NULL);
    for (int at = 0; at < a->nlabel; at += a->chunk)
        chunk_loss(m, a, at, LOGITS_NEW, o->ahead ? NLL_AND_GRADIENT : NLL_ALONE);
    get_nll(a, nll);
    if (!o->ahead) {
        put_weights(a, o, pack, nll);
        for (int at = last; at >= 0; at -= a->chunk) /* the last chunk's logits are still there */
            chunk_loss(m, a, at, at == last ? LOGITS_THERE : LOGITS_AGAIN, NLL_AND_GRADIENT);
    }
    sum_gradients(m, a, distinct);
    exec_range_pop(m->ex);
    return o->loss(o, pack, nll);
}

void head_sample(const Model *m, Acts *a, int32_t *token, int n, const float *u, Sampling how) {
    const Config *c = &m->c;
    CHECK(a->complete && n <= a->nlast, "expected a forward of all layers with %d rows before", n);
    exec_range_push(m->ex, "head");
    for (int at = 0; at < n; at += a->chunk) {
        int rows = n - at < a->chunk ? n - at : a->chunk;
        logits_fwd(m, a, hidden_row(m, a, at), at, rows, GEMM_NT_FEW);
        m->ex->op->sample(m->ex, token + at, a->logits, u ? u + at : NULL, rows, c->V, c->final_cap,
                          how);
    }
    exec_range_pop(m->ex);
}

void model_logits(const Model *m, Acts *a, const int32_t *row, int n, float *logits) {
    Exec *ex = m->ex;
    const Config *c = &m->c;
    CHECK(a->complete, "expected model_forward of all layers before");
    const Sampling greedy = {.temperature = 0, .top_p = 1};
    for (int at = 0; at < n; at += a->chunk) {
        int rows = n - at < a->chunk ? n - at : a->chunk;
        exec_copy_in(ex, a->row, row + at, (size_t)rows * sizeof *row);
        ex->op->gather_rows(ex, a->label_h, a->h, a->row, rows, c->D);
        logits_fwd(m, a, a->label_h, at, rows, GEMM_NT);
        ex->op->sample(ex, a->drawn, a->logits, NULL, rows, c->V, c->final_cap, greedy); /* caps */
        exec_copy_out(ex, logits + (size_t)at * (size_t)c->V, a->logits,
                      (size_t)rows * (size_t)c->V * sizeof *logits);
    }
}

void model_again(const Model *m, Acts *a, model_watch *watch, void *context) {
    if (a->layers == 0) { /* no pass has been */
        model_idle_forward(m);
        return;
    }
    Segment *seg = mem_array((size_t)a->nseg, sizeof *seg);
    exec_copy_out(a->ex, seg, a->seg, (size_t)a->nseg * sizeof *seg);
    a->watch = watch, a->watch_context = context;
    acts_layers(m, a, seg, a->layers, NULL, NULL);
    a->watch = NULL;
    free(seg);
}

void model_again_head(const Model *m, Acts *a, model_watch *watch, void *context) {
    a->watch = watch, a->watch_context = context;
    for (int at = 0; a->complete && at < a->nlast; at += a->chunk) {
        int n = a->nlast - at < a->chunk ? a->nlast - at : a->chunk;
        logits_fwd(m, a, hidden_row(m, a, at), at, n, GEMM_NT);
    }
    a->watch = NULL;
}
