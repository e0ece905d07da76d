#include "host/numbers.h"

#include <stdio.h>

/* Where the search looks next, and where it found something. */
typedef struct Hunt {
    Exec *ex;
    int64_t *index; /* (1) device */
    char name[128];
    int64_t at;
} Hunt;

static bool take(Hunt *h, const char *name, int layer, const char *what) {
    exec_copy_out(h->ex, &h->at, h->index, sizeof h->at);
    if (h->at < 0) return false;
    if (layer < 0)
        snprintf(h->name, sizeof h->name, "%s%s", name, what);
    else
        snprintf(h->name, sizeof h->name, "model.layers.%d.%s%s", layer, name, what);
    return true;
}

static bool bad_store(Hunt *h, const store *x, size_t n, const char *name, int layer) {
    h->ex->op->find_bad(h->ex, h->index, x, n);
    return take(h, name, layer, ".weight");
}

static bool bad_f32(Hunt *h, const float *x, size_t n, const char *name, int layer,
                    const char *what) {
    if (!x || !n) return false;
    h->ex->op->find_bad_f32(h->ex, h->index, x, n);
    return take(h, name, layer, what);
}

static bool bad_weights(Hunt *h, const Model *m) {
    const Config *c = &m->c;
    size_t D = (size_t)c->D;
    if (bad_store(h, m->embed, D * (size_t)c->V, "model.embed_tokens", -1)) return true;
    for (int l = 0; l < c->L; l++) {
        const LayerWeights *w = &m->layer[l];
        if (bad_store(h, w->input_norm, D, "input_layernorm", l) ||
            bad_store(h, w->post_attn_norm, D, "post_attention_layernorm", l) ||
            bad_store(h, w->pre_ffn_norm, D, "pre_feedforward_layernorm", l) ||
            bad_store(h, w->post_ffn_norm, D, "post_feedforward_layernorm", l))
            return true;
        for (int p = 0; p < PROJ_COUNT; p++) {
            size_t n = (size_t)proj_in(c, (enum Proj)p) * (size_t)proj_out(c, (enum Proj)p);
            if (bad_store(h, w->proj[p], n, proj_path[p], l)) return true;
        }
    }
    return bad_store(h, m->final_norm, D, "model.norm", -1);
}

static bool bad_adapters(Hunt *h, const Model *m, bool gradients) {
    for (int l = 0; l < m->c.L; l++)
        for (int p = 0; p < PROJ_COUNT; p++) {
            const Adapter *a = lora_at(m->lora, l, (enum Proj)p);
            size_t nA = (size_t)a->R * (size_t)a->in, nB = (size_t)a->R * (size_t)a->out;
            const float *A = gradients ? a->dA : a->A, *B = gradients ? a->dB : a->B;
            if (bad_f32(h, A, nA, proj_path[p], l, gradients ? ".lora_A gradient" : ".lora_A") ||
                bad_f32(h, B, nB, proj_path[p], l, gradients ? ".lora_B gradient" : ".lora_B"))
                return true;
        }
    return false;
}

bool numbers_went_bad(const Model *m, const char *where, Err *err) {
    Hunt h = {.ex = m->ex, .index = exec_alloc(m->ex, sizeof *h.index, "find_bad")};
    bool found = bad_weights(&h, m) ||
                 (m->lora && (bad_adapters(&h, m, false) || bad_adapters(&h, m, true)));
    exec_free(m->ex, h.index);
    const StTensor *weight = found ? st_find(m->file, h.name) : NULL;
    if (weight)
        return err_set(err, EXIT_NUMBERS,
                       "%s: first bad tensor %s, element %lld, in %s; use another checkpoint",
                       where, h.name, (long long)h.at, weight->file);
    if (found)
        return err_set(err, EXIT_NUMBERS,
                       "%s: first bad tensor %s, element %lld; try a lower --lr or --dtype f32",
                       where, h.name, (long long)h.at);
    return err_set(err, EXIT_NUMBERS,
                   "%s: weights, adapters and gradients are finite, so it overflowed in between; "
                   "try --dtype f32",
                   where);
}
