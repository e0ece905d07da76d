#include "model/lora.h"

#include <math.h>
#include <string.h>

#include "host/base/mem.h"

const char *const proj_name[PROJ_COUNT] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                           "gate_proj", "up_proj", "down_proj"};
const char *const proj_path[PROJ_COUNT] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
const enum Proj group_first[GROUP_COUNT + 1] = {PROJ_Q, PROJ_O, PROJ_GATE, PROJ_DOWN, PROJ_COUNT};

/* Blocks within master start at multiples of this many elements: 16-byte bounds in any type. */
enum { BLOCK = 16 };

int proj_in(const Config *c, enum Proj p) {
    return p == PROJ_O ? c->H * c->E : p == PROJ_DOWN ? c->F : c->D;
}

int proj_out(const Config *c, enum Proj p) {
    switch (p) {
        case PROJ_Q:
            return c->H * c->E;
        case PROJ_K:
        case PROJ_V:
            return c->K * c->E;
        case PROJ_GATE:
        case PROJ_UP:
            return c->F;
        default:
            return c->D;
    }
}

Adapter *lora_at(const Lora *l, int layer, enum Proj p) {
    return &l->adapter[(size_t)layer * PROJ_COUNT + p];
}

LoraGroup lora_group(const Lora *l, int layer, enum Group g) {
    const Adapter *a = lora_at(l, layer, group_first[g]);
    LoraGroup s = {.a = a->a, .dA = a->dA};
    for (int i = 0; i < (int)group_first[g + 1] - (int)group_first[g]; i++) {
        s.R += a[i].R;
        s.train_A = s.train_A || a[i].train_A;
        s.train_any = s.train_any || a[i].train_A || a[i].train_B;
    }
    return s;
}

void lora_shape_init(LoraShape *s, const Config *c) {
    size_t n = (size_t)c->L * PROJ_COUNT;
    *s =
        (LoraShape){.rank = mem_array(n, sizeof *s->rank), .alpha = mem_array(n, sizeof *s->alpha)};
}

void lora_shape_free(LoraShape *s) {
    free(s->rank), free(s->alpha);
    memset(s, 0, sizeof *s);
}

static size_t take(size_t *used, size_t n) {
    size_t at = *used;
    *used += n;
    return at;
}

static void align(size_t *used) {
    *used = (*used + BLOCK - 1) / BLOCK * BLOCK;
}

/* Lays out one group: its A matrices without a gap, then every B at an aligned place. Without
 * memory it only counts. */
static void place_group(Lora *l, int layer, enum Group g, size_t *used) {
    Adapter *first = lora_at(l, layer, group_first[g]);
    int count = (int)group_first[g + 1] - (int)group_first[g], column = 0;
    for (int i = 0; i < 2 * count; i++) {
        bool is_A = i < count;
        Adapter *a = &first[i % count];
        if (!is_A || i == 0) align(used);
        size_t at = take(used, (size_t)a->R * (size_t)(is_A ? a->in : a->out));
        if (is_A) a->column = column, column += a->R;
        if (!l->master) continue;
        float *grad = l->grad ? l->grad + at : NULL;
        store *copy = store_at(l->ex->dtype, l->copy, at);
        if (is_A)
            a->A = l->master + at, a->a = copy, a->dA = grad;
        else
            a->B = l->master + at, a->b = copy, a->dB = grad;
    }
}

static size_t place_all(Lora *l) {
    size_t used = 0;
    for (int layer = 0; layer < l->c->L; layer++)
        for (int g = 0; g < GROUP_COUNT; g++) place_group(l, layer, (enum Group)g, &used);
    align(&used);
    return used;
}

static void allocate(Lora *l, bool training) {
    Arena *w = &l->weights, *g = &l->grads, *mo = &l->moments;
    arena_init(w, l->ex, l->ex->dtype, "adapters");
    arena_init(g, l->ex, l->ex->dtype, "adapter gradients");
    arena_init(mo, l->ex, l->ex->dtype, "optimiser");
    for (int pass = 0; pass < 2; pass++) {
        l->master = arena_f32(w, "master", l->n, 1);
        l->copy = arena_store(w, "copy", l->n, 1);
        if (training) {
            l->grad = arena_f32(g, "grad", l->n, 1);
            l->m = arena_f32(mo, "m", l->n, 1);
            l->v = arena_f32(mo, "v", l->n, 1);
        }
        if (pass == 0) arena_place(w), arena_place(g), arena_place(mo);
    }
    exec_zero(l->ex, w->base, w->size);
    exec_zero(l->ex, g->base, g->size);
    exec_zero(l->ex, mo->base, mo->size);
}

void lora_init(Lora *l, Exec *ex, const Config *c, const LoraShape *shape, bool training) {
    *l = (Lora){.ex = ex, .c = c, .rslora = shape->rslora};
    l->adapter = mem_array((size_t)c->L * PROJ_COUNT, sizeof *l->adapter);
    for (int i = 0; i < c->L * PROJ_COUNT; i++) {
        Adapter *a = &l->adapter[i];
        enum Proj p = (enum Proj)(i % PROJ_COUNT);
        a->R = shape->rank[i];
        CHECK(a->R >= 0, "expected a rank, got %d", a->R);
        a->in = proj_in(c, p), a->out = proj_out(c, p);
        a->alpha = shape->alpha[i];
        if (a->R > 0)
            a->scale = (float)(a->alpha / (shape->rslora ? sqrt((double)a->R) : (double)a->R));
        a->train_A = a->train_B = training && a->R > 0;
    }
    l->n = place_all(l);
    allocate(l, training);
    place_all(l);
}

void lora_free(Lora *l) {
    arena_free(&l->moments);
    arena_free(&l->grads);
    arena_free(&l->weights);
    free(l->adapter);
    memset(l, 0, sizeof *l);
}

void lora_sync(Lora *l) {
    l->ex->op->cast(l->ex, l->copy, l->master, l->n);
}

static size_t count(const Lora *l, bool trained) {
    size_t n = 0;
    for (int i = 0; i < l->c->L * PROJ_COUNT; i++) {
        const Adapter *a = &l->adapter[i];
        if (a->train_A || !trained) n += (size_t)a->R * (size_t)a->in;
        if (a->train_B || !trained) n += (size_t)a->R * (size_t)a->out;
    }
    return n;
}

size_t lora_parameters(const Lora *l) {
    return count(l, false);
}

size_t lora_trained(const Lora *l) {
    return count(l, true);
}
