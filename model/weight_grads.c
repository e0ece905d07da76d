/* weight_grads.c - gradients of frozen weights. */
#include "model/weight_grads.h"

#include <math.h>
#include <stdio.h>

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "kernels/comm.h"

static void carve(WeightGrads *g, const Config *c, const bool target[PROJ_COUNT]) {
    for (int layer = 0; layer < c->L; layer++) {
        arena_scope(&g->arena, "layer %d", layer);
        for (enum Proj p = 0; p < PROJ_COUNT; p++)
            if (target[p])
                g->of[layer * PROJ_COUNT + (int)p] = arena_f32(
                    &g->arena, proj_name[p], (size_t)proj_out(c, p), (size_t)proj_in(c, p));
    }
}

size_t weight_grads_bytes(const Config *c, const bool target[PROJ_COUNT]) {
    WeightGrads g = {.of = mem_array((size_t)c->L * PROJ_COUNT, sizeof *g.of)};
    arena_init(&g.arena, NULL, DTYPE_F32, "weight gradients");
    carve(&g, c, target);
    free(g.of);
    return g.arena.used;
}

/* The packs, and room for the largest of them. */
typedef struct Packs {
    int *of; /* (n) the pack of each document */
    int n, rows, labels, all_labels;
} Packs;

static Packs packs_of(const StartBatch *b) {
    Packs k = {.of = mem_array((size_t)b->n, sizeof *k.of)};
    int *length = mem_array((size_t)b->n, sizeof *length);
    for (int i = 0; i < b->n; i++) length[i] = b->doc[i]->n;
    k.n = batch_pack(k.of, length, b->n, b->pack_tokens);
    for (int p = 0; p < k.n; p++) {
        int rows = 0, labels = 0;
        for (int i = 0; i < b->n; i++)
            if (k.of[i] == p) rows += length[i], labels += doc_labels(b->doc[i]);
        if (rows > k.rows) k.rows = rows;
        if (labels > k.labels) k.labels = labels;
        k.all_labels += labels;
    }
    free(length);
    return k;
}

/* Pack number p, forward and back; what is added to is m->weight_grad. */
static bool run_pack(const Model *m, Acts *a, Pack *pack, const StartBatch *b, const Packs *k,
                     int p, float *nll, Err *err) {
    Objective sft = objective_sft((double)k->all_labels);
    pack_clear(pack);
    for (int i = 0; i < b->n; i++)
        if (k->of[i] == p) pack_add(pack, b->doc[i]->token, b->doc[i]->label, b->doc[i]->n, i);
    if (pack->nlabel == 0) return true;
    double loss = model_loss(m, a, pack, &sft, nll);
    if (!isfinite(loss))
        return err_set(err, EXIT_NUMBERS,
                       "the first batch, before training: loss %g; is the checkpoint sound?", loss);
    model_backward(m, a, pack);
    return true;
}

static bool run_packs(const Model *m, const StartBatch *b, Err *err) {
    Packs k = packs_of(b);
    int segs = b->n < k.rows ? b->n : k.rows;
    float *nll = mem_array((size_t)k.labels + 1, sizeof *nll);
    Acts *a = acts_create(m, k.rows, segs, k.labels, ACTS_TRAIN);
    Pack pack;
    bool ok = true;
    pack_init(&pack, k.rows, segs, k.labels);
    for (int p = 0; p < k.n && ok; p++) {
        ok = !interrupted(err) && run_pack(m, a, &pack, b, &k, p, nll, err);
        comm_beat(m->ex->comm);
    }
    pack_free(&pack);
    acts_destroy(a);
    free(nll), free(k.of);
    return ok;
}

static bool all_finite(const WeightGrads *g, const Model *m, Err *err) {
    Exec *ex = m->ex;
    int64_t at = -1, *bad = exec_alloc(ex, sizeof *bad, "first bad element");
    for (int i = 0; i < m->c.L * PROJ_COUNT && at < 0; i++) {
        enum Proj p = (enum Proj)(i % PROJ_COUNT);
        if (!g->of[i]) continue;
        size_t n = (size_t)proj_out(&m->c, p) * (size_t)proj_in(&m->c, p);
        ex->op->find_bad_f32(ex, bad, g->of[i], n);
        exec_copy_out(ex, &at, bad, sizeof at);
        if (at >= 0)
            err_set(err, EXIT_NUMBERS,
                    "layer %d, %s: the first batch's gradient is not finite at element %lld; is "
                    "the checkpoint sound?",
                    i / PROJ_COUNT, proj_name[p], (long long)at);
    }
    exec_free(ex, bad);
    return at < 0;
}

bool weight_grads_make(WeightGrads *g, const Model *m, const bool target[PROJ_COUNT],
                       const StartBatch *b, Err *err) {
    Model base = *m;
    *g = (WeightGrads){.of = mem_array((size_t)m->c.L * PROJ_COUNT, sizeof *g->of)};
    arena_init(&g->arena, m->ex, DTYPE_F32, "weight gradients");
    carve(g, &m->c, target);
    arena_place(&g->arena);
    carve(g, &m->c, target);
    exec_zero(m->ex, g->arena.base, g->arena.size);
    base.lora = NULL;
    base.weight_grad = g->of;
    if (run_packs(&base, b, err) && all_finite(g, m, err)) return true;
    weight_grads_free(g);
    return false;
}

void weight_grads_free(WeightGrads *g) {
    arena_free(&g->arena);
    free(g->of);
    *g = (WeightGrads){.of = NULL};
}
