/* golden.h - what the model tests share: a golden folder opened with its reference values, and
 * documents put into packs. See tools/make_golden_model.py for what the files hold. */
#ifndef SAILS_TEST_GOLDEN_H
#define SAILS_TEST_GOLDEN_H

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "data/base/mem.h"
#include "model/gemma2.h"
#include "tests/test.h"

static const char *const golden_models[] = {"model_a", "model_b", "model_c"};
enum { GOLDEN_MODELS = 3, GOLDEN_DOCS = 4, GOLDEN_ROWS = 96 };

typedef struct Golden {
    char folder[128];
    StSet *ref;
    Model m;
    int n[GOLDEN_DOCS];
    int32_t *token[GOLDEN_DOCS];
    uint8_t *label[GOLDEN_DOCS];
} Golden;

#define MUST(call, err) CHECK(call, "%s", (err).text)

__attribute__((format(printf, 2, 3))) static inline const StTensor *golden_ref(const Golden *g,
                                                                               const char *fmt,
                                                                               ...) {
    char name[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const StTensor *t = st_find(g->ref, name);
    CHECK(t, "%s: no tensor %s", g->folder, name);
    return t;
}

/* A float tensor of any stored type as doubles, from malloc. */
static inline double *golden_f64(const StTensor *t) {
    double *d = mem_array(t->count, sizeof *d);
    if (t->type == ST_F64) {
        memcpy(d, t->data, t->bytes);
        return d;
    }
    float *f = mem_array(t->count, sizeof *f);
    st_read_f32(t, f, 0, t->count);
    for (size_t i = 0; i < t->count; i++) d[i] = f[i];
    free(f);
    return d;
}

static inline int32_t *golden_i32(const StTensor *t) {
    CHECK(t->type == ST_I32, "%s: expected I32", t->name);
    int32_t *p = mem_array(t->count, sizeof *p);
    memcpy(p, t->data, t->bytes);
    return p;
}

static inline void golden_open(Golden *g, Exec *ex, const char *name) {
    memset(g, 0, sizeof *g);
    snprintf(g->folder, sizeof g->folder, "tests/golden/%s", name);
    Err err;
    MUST(st_open_folder(&g->ref, g->folder, "golden", &err), err);
    MUST(model_open(&g->m, ex, g->folder, 0, &err), err);
    for (int d = 0; d < GOLDEN_DOCS; d++) {
        const StTensor *t = golden_ref(g, "doc%d.tokens", d);
        g->n[d] = (int)t->count;
        g->token[d] = golden_i32(t);
        int32_t *label = golden_i32(golden_ref(g, "doc%d.labels", d));
        g->label[d] = mem_array(t->count, 1);
        for (size_t i = 0; i < t->count; i++) g->label[d][i] = label[i] != 0;
        free(label);
    }
}

static inline void golden_close(Golden *g) {
    for (int d = 0; d < GOLDEN_DOCS; d++) free(g->token[d]), free(g->label[d]);
    model_close(&g->m);
    st_close(g->ref);
}

/* A weight as the model holds it, from malloc. */
static inline double *golden_weight(const Golden *g, int layer, enum Proj p) {
    char module[MODULE_NAME], name[MODULE_NAME + 16];
    StSet *file;
    Err err;
    MUST(st_open_folder(&file, g->folder, "model", &err), err);
    proj_module(module, layer, p);
    snprintf(name, sizeof name, "%s.weight", module);
    const StTensor *t = st_find(file, name);
    CHECK(t, "no tensor %s", name);
    double *w = golden_f64(t);
    for (size_t i = 0; g->m.ex->dtype != DTYPE_F32 && i < t->count; i++)
        w[i] = bf16_to_f32(bf16_from_f32((float)w[i]));
    st_close(file);
    return w;
}

static inline void golden_adapter(Golden *g, Lora *l, const char *name, bool training) {
    char folder[192];
    snprintf(folder, sizeof folder, "%s/%s", g->folder, name);
    Err err;
    MUST(lora_load(l, g->m.ex, &g->m.c, folder, training, &err), err);
    g->m.lora = l;
}

/* Appends document d with its labels. */
static inline void golden_add(const Golden *g, Pack *p, int d) {
    pack_add(p, g->token[d], g->label[d], g->n[d], d);
}

static inline void golden_pack(const Golden *g, Pack *p) {
    pack_init(p, GOLDEN_ROWS, 16, GOLDEN_ROWS);
    for (int d = 0; d < GOLDEN_DOCS; d++) golden_add(g, p, d);
}

/* Capped logits of all rows of a pack, from malloc. */
static inline float *golden_logits(const Model *m, Acts *a, const Pack *p) {
    float *z = mem_array((size_t)p->N * (size_t)m->c.V, sizeof *z);
    int32_t *row = mem_array((size_t)p->N, sizeof *row);
    for (int i = 0; i < p->N; i++) row[i] = i;
    model_forward(m, a, p, m->c.L, NULL, NULL);
    model_logits(m, a, row, p->N, z);
    free(row);
    return z;
}

/* The pack of one document of n tokens alone, through all layers of m. */
static inline void golden_alone(const Model *m, const int32_t *token, int n, model_tap *tap,
                                void *context) {
    Pack p;
    pack_init(&p, n, 1, 0);
    pack_add(&p, token, NULL, n, 0);
    Acts *a = acts_create(m, n, 1, 0, ACTS_INFER);
    model_forward(m, a, &p, m->c.L, tap, context);
    acts_destroy(a);
    pack_free(&p);
}

/* Loss and gradients of an adapter that the model wears for this pack alone. */
static inline void golden_pass(Golden *g, Lora *l, const Pack *p) {
    g->m.lora = l;
    Acts *a = acts_create(&g->m, p->N, p->nseg, p->nlabel, ACTS_TRAIN);
    Objective sft = objective_sft((double)p->nlabel);
    float *nll = mem_array((size_t)p->nlabel, sizeof *nll);
    model_loss(&g->m, a, p, &sft, nll);
    model_backward(&g->m, a, p);
    free(nll);
    acts_destroy(a);
    g->m.lora = NULL;
}

/* |a - b|; b NULL: |a| */
static inline double golden_norm(const float *a, const float *b, size_t n) {
    double s = 0;
    for (size_t i = 0; i < n; i++) {
        double d = b ? (double)a[i] - b[i] : a[i];
        s += d * d;
    }
    return sqrt(s);
}

/* sqrt(mean((a - b)^2)) and max |a - b|; not finite where an input is not. */
static inline double rms_difference(const float *a, const double *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(sum / (double)(n ? n : 1));
}
static inline double max_difference(const float *a, const double *b, size_t n) {
    double max = 0;
    for (size_t i = 0; i < n; i++) {
        double e = fabs(a[i] - b[i]);
        if (!(e <= max)) max = isnan(e) ? INFINITY : e;
    }
    return max;
}

#endif
