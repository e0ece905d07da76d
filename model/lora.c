/* lora.c - adapters as Params. */
#include "model/lora.h"

#include <math.h>
#include <string.h>

#include "data/base/mem.h"

Adapter *lora_at(const Lora *l, int layer, enum Proj p) {
    return &l->adapter[(size_t)layer * PROJ_COUNT + p];
}

LoraGroup lora_group(const Lora *l, int layer, enum Group g) {
    LoraGroup s = {0};
    for (enum Proj p = group_first[g]; p < group_first[g + 1]; p++) {
        const Adapter *a = lora_at(l, layer, p);
        if (a->R == 0) continue;
        if (s.R == 0) s.a = a->A->copy, s.dA = a->A->grad;
        s.R += adapter_columns(a);
        s.train_A = s.train_A || a->A->trained;
        s.train_any = s.train_any || a->A->trained || a->B->trained;
    }
    return s;
}

void lora_shape_init(LoraShape *s, const Config *c) {
    size_t n = (size_t)c->L * PROJ_COUNT;
    *s = (LoraShape){.rank = mem_array(n, sizeof *s->rank),
                     .alpha = mem_array(n, sizeof *s->alpha),
                     .keep = mem_array(n, sizeof *s->keep)};
}

void lora_shape_free(LoraShape *s) {
    free(s->rank), free(s->alpha), free(s->keep);
    memset(s, 0, sizeof *s);
}

/* The factors of one group: its A matrices without a gap, each start's behind its own; then every
 * B. */
static void add_group(Lora *l, int layer, enum Group g, const LoraShape *shape) {
    static const char name[] = "base_model.model.%s.lora_%c.weight";
    static const char first[] = "base_model.model.%s.start_%c.weight";
    char module[MODULE_NAME];
    int column = 0;
    for (enum Proj p = group_first[g]; p < group_first[g + 1]; p++) {
        Adapter *a = lora_at(l, layer, p);
        a->column = column;
        if (a->R == 0) continue;
        proj_module(module, layer, p);
        a->A = params_add(&l->params, column == 0 ? PARAM_ALIGNED : PARAM_BEHIND, (size_t)a->R,
                          (size_t)a->in, name, module, 'A');
        if (shape->start)
            a->A0 = params_add(&l->params, PARAM_BEHIND, (size_t)a->R, (size_t)a->in, first, module,
                               'A');
        column += adapter_columns(a);
    }
    for (enum Proj p = group_first[g]; p < group_first[g + 1]; p++) {
        Adapter *a = lora_at(l, layer, p);
        if (a->R == 0) continue;
        proj_module(module, layer, p);
        a->B =
            params_add(&l->params, PARAM_ALIGNED, (size_t)a->out, (size_t)a->R, name, module, 'B');
        params_keep(a->B, shape->keep[(size_t)layer * PROJ_COUNT + p]);
        if (shape->start)
            a->B0 = params_add(&l->params, PARAM_ALIGNED, (size_t)a->out, (size_t)a->R, first,
                               module, 'B');
    }
}

void lora_declare(Lora *l, Exec *ex, const Config *c, const LoraShape *shape) {
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
    }
    params_init(&l->params, ex, 4 * c->L * PROJ_COUNT);
    for (int layer = 0; layer < c->L; layer++)
        for (int g = 0; g < GROUP_COUNT; g++) add_group(l, layer, (enum Group)g, shape);
}

void lora_alloc(Lora *l, Exec *ex, const Config *c, const LoraShape *shape, bool training) {
    lora_declare(l, ex, c, shape);
    params_allocate(&l->params, training);
    for (Adapter *a = l->adapter; a < l->adapter + c->L * PROJ_COUNT; a++)
        if (a->A0) a->A0->trained = a->B0->trained = false;
}

void lora_free(Lora *l) {
    params_free(&l->params);
    free(l->adapter);
    memset(l, 0, sizeof *l);
}
