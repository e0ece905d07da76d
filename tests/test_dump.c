/* What SAILS_DUMP leaves in its file: which tensors under which names, which rows, of which pass;
 * that layers which share buffers leave what layers with their own do; that nothing else changes.
 */
#include <fcntl.h>

#include "model/acts.h"
#include "tests/files.h"
#include "tests/golden.h"

enum { WHOLE = 1 << 20, PART = 5 }; /* label rows in a chunk of logits */

typedef struct Pass {
    Golden g;
    Pack p;
    Lora l;
    Acts *a;
    float nll[GOLDEN_ROWS];
} Pass;

static const char *dump_path(void) {
    static char path[1024];
    if (!*path) snprintf(path, sizeof path, "%s", test_path("dump.safetensors"));
    return path;
}

static bool written(void) {
    return access(dump_path(), F_OK) == 0;
}

/* A model that is asked for a dump, or with NULL for none. */
static void pass_open_to(Pass *r, Exec *ex, enum ActsUse use, const char *pattern,
                         const char *file) {
    remove(dump_path());
    setenv("SAILS_DUMP_FILE", file, 1);
    setenv("SAILS_DUMP", pattern ? pattern : "", 1);
    golden_open(&r->g, ex, "model_a");
    golden_adapter(&r->g, &r->l, "adapter_pattern", use == ACTS_TRAIN); /* of several ranks */
    golden_pack(&r->g, &r->p);
    r->a = acts_create(&r->g.m, r->p.N, r->p.nseg, r->p.nlabel, use);
}

static void pass_open(Pass *r, Exec *ex, enum ActsUse use, const char *pattern) {
    pass_open_to(r, ex, use, pattern, dump_path());
}

static void pass_close(Pass *r) {
    acts_destroy(r->a);
    pack_free(&r->p);
    lora_free(&r->l);
    golden_close(&r->g);
}

static StSet *opened(void) {
    StSet *set;
    Err err;
    MUST(st_open(&set, dump_path(), &err), err);
    return set;
}

/* What a pass over the labels of the golden pack leaves. */
static StSet *dumped(Exec *ex, enum ActsUse use, const char *pattern, int chunk) {
    Pass r;
    pass_open(&r, ex, use, pattern);
    if (chunk < r.a->chunk) r.a->chunk = chunk;
    model_nll(&r.g.m, r.a, &r.p, r.nll);
    EXPECT(!written(), "written before the pass was over");
    pass_close(&r);
    return opened();
}

/* The values of a tensor of this shape; NULL after a failure. */
static const void *values(const StSet *set, const char *name, int rows, int cols) {
    const StTensor *t = st_find(set, name);
    bool good = t && t->rank == 2 && t->dim[0] == (size_t)rows && t->dim[1] == (size_t)cols;
    EXPECT(good, "%s: expected (%d,%d), got (%zu,%zu)", name, rows, cols, t ? t->dim[0] : 0,
           t ? t->dim[1] : 0);
    return good ? t->data : NULL;
}

/* --------------------------------------------------------------------- names and rows -- */

/* Labels have distinct rows in the golden pack. */
static void check_pack(const StSet *set, const Pass *r) {
    const Pack *p = &r->p;
    const int32_t *token = values(set, "pack: tokens", p->N, 1);
    const int32_t *pos = values(set, "pack: positions", p->N, 1);
    const Segment *seg = values(set, "pack: segments", p->nseg, 4);
    const int32_t *row = values(set, "pack: rows", p->nlabel, 1);
    const int32_t *at = values(set, "head: row", p->nlabel, 1);
    const int32_t *target = values(set, "head: target", p->nlabel, 1);
    const float *nll = values(set, "head: nll", p->nlabel, 1);
    if (!token || !pos || !seg || !row || !at || !target || !nll) return;
    EXPECT(memcmp(token, p->token, (size_t)p->N * sizeof *token) == 0, "other tokens");
    EXPECT(memcmp(pos, p->pos, (size_t)p->N * sizeof *pos) == 0, "other positions");
    EXPECT(memcmp(seg, p->seg, (size_t)p->nseg * sizeof *seg) == 0, "other segments");
    for (int i = 0; i < p->nlabel; i++)
        EXPECT(
            row[at[i]] == p->label_row[i] && target[i] == p->label_target[i] && nll[i] == r->nll[i],
            "label %d: row %d, target %d, -log p %g, not %g", i, row[at[i]], target[i], nll[i],
            r->nll[i]);
}

/* Rows in use alone: all N up to the last layer's attention, above it those with labels. */
static void check_shapes(const StSet *set, const Pass *r) {
    const Config *c = &r->g.m.c;
    int N = r->p.N, n = r->p.nlabel, HE = c->H * c->E, KE = c->K * c->E, tensors = 0;
    for (int l = 0; l < c->L; l++) {
        int top = l + 1 < c->L ? N : n;
        const struct {
            const char *name;
            int rows, cols;
        } want[] = {{"x", N, c->D},    {"rx", N, 1},     {"h", N, c->D},     {"q", N, HE},
                    {"k", N, KE},      {"v", N, KE},     {"rope(q)", N, HE}, {"rope(k)", N, KE},
                    {"lse", N, c->H},  {"o", N, HE},     {"p", top, c->D},   {"rp", top, 1},
                    {"x2", top, c->D}, {"rx2", top, 1},  {"h2", top, c->D},  {"gate", top, c->F},
                    {"up", top, c->F}, {"g", top, c->F}, {"m", top, c->D},   {"rm", top, 1}};
        static const char *const xa[] = {"xa(q,k,v)", "xa(o)", "xa(gate,up)", "xa(down)"};
        char name[64];
        for (size_t i = 0; i < sizeof want / sizeof *want; i++, tensors++) {
            snprintf(name, sizeof name, "layer %d: %s", l, want[i].name);
            values(set, name, want[i].rows, want[i].cols);
        }
        for (int g = 0; g < GROUP_COUNT; g++) {
            int R = lora_group(&r->l, l, (enum Group)g).R;
            snprintf(name, sizeof name, "layer %d: %s", l, xa[g]);
            if (R > 0) values(set, name, g == GROUP_QKV ? N : top, R), tensors++;
            if (R == 0) EXPECT(!st_find(set, name), "%s is not computed", name);
        }
    }
    values(set, "final: x", n, c->D), values(set, "final: rx", n, 1);
    values(set, "final: h", n, c->D), values(set, "head: h", n, c->D);
    values(set, "head: logits", n, c->V);
    EXPECT(st_count(set) == (size_t)tensors + 12, "%zu tensors, not %d", st_count(set),
           tensors + 12); /* with those of check_pack */
}

/* Position 0 is where a document begins, and there alone rope turns nothing. */
static void check_rope(const StSet *set, const Pass *r) {
    int HE = r->g.m.c.H * r->g.m.c.E;
    size_t row = (size_t)HE * sizeof(float);
    const char *q = values(set, "layer 1: q", r->p.N, HE);
    const char *turned = values(set, "layer 1: rope(q)", r->p.N, HE);
    for (int i = 0; q && turned && i < r->p.N; i++) {
        bool same = memcmp(q + (size_t)i * row, turned + (size_t)i * row, row) == 0;
        EXPECT(same == (r->p.pos[i] == 0), "row %d, position %d", i, r->p.pos[i]);
    }
}

static int equal(const StSet *a, const StSet *b) {
    int differ = st_count(a) != st_count(b);
    for (size_t i = 0; i < st_count(a); i++) {
        const StTensor *x = st_at(a, i), *y = st_find(b, x->name);
        differ += !y || x->bytes != y->bytes || memcmp(x->data, y->data, x->bytes) != 0;
    }
    return differ == 0;
}

/* With ACTS_INFER x2 lies over x, m over p, g over gate, and every layer over the one before. */
static void test_names(const Pass *plain) {
    Exec *ex = plain->g.m.ex;
    CHECK(plain->p.nlabel > PART && plain->p.nlabel % PART && plain->p.nlabel < plain->p.N,
          "%d labels in %d rows hide something", plain->p.nlabel, plain->p.N);
    StSet *own = dumped(ex, ACTS_TRAIN, "*", WHOLE), *shared = dumped(ex, ACTS_INFER, "*", PART);
    check_pack(own, plain);
    check_shapes(own, plain);
    check_rope(own, plain);
    EXPECT(equal(own, shared), "layers that share buffers leave other tensors");
    st_close(shared);
    StSet *other = dumped(ex, ACTS_INFER, "*[!m]", WHOLE);
    TEST_DETECTS(equal(own, other));
    st_close(other), st_close(own);
}

/* The stream between layers is what a tap sees, and bf16 comes as F32 of the same values. */
typedef struct Tap {
    Pass *r;
    double *x; /* of layer 0's end */
} Tap;

static void keep(void *context, int layer, const store *x, int N) {
    Tap *t = context;
    if (layer == 0) t->x = test_get_store(t->r->g.m.ex, x, (size_t)N * (size_t)t->r->g.m.c.D);
}

static void test_values(Exec *ex) {
    Pass r;
    Tap t = {.r = &r};
    pass_open(&r, ex, ACTS_INFER, "layer 1: x");
    int N = r.p.N, D = r.g.m.c.D;
    model_forward(&r.g.m, r.a, &r.p, 1, keep, &t);
    pass_close(&r);
    StSet *set = opened();
    const float *x = values(set, "layer 1: x", N, D);
    for (int i = 0; x && i < N * D; i++) EXPECT(x[i] == t.x[i], "element %d", i);
    EXPECT(st_count(set) == 4, "%zu tensors", st_count(set)); /* and three of the pack */
    st_close(set);
    free(t.x);
}

/* ------------------------------------------------------------------------- which pass -- */

static void test_once(Exec *ex) {
    Pass r;
    pass_open(&r, ex, ACTS_INFER, "layer 0: x");
    int32_t first = r.p.token[3];
    model_nll(&r.g.m, r.a, &r.p, r.nll);
    r.p.token[3] = (first + 1) % r.g.m.c.V;
    model_nll(&r.g.m, r.a, &r.p, r.nll);
    EXPECT(written(), "the second pass began, and the first is not written");
    StSet *set = opened();
    const int32_t *token = values(set, "pack: tokens", r.p.N, 1);
    EXPECT(token && token[3] == first, "another pass than the first");
    st_close(set);
    remove(dump_path());
    model_nll(&r.g.m, r.a, &r.p, r.nll);
    pass_close(&r);
    EXPECT(!written(), "written twice");
    pass_open(&r, ex, ACTS_INFER, "*");
    float *z = mem_array((size_t)r.g.m.c.V, sizeof *z);
    Acts *other = acts_create(&r.g.m, r.p.N, r.p.nseg, r.p.nlabel, ACTS_INFER);
    model_forward(&r.g.m, r.a, &r.p, r.g.m.c.L, NULL, NULL);
    model_nll(&r.g.m, other, &r.p, r.nll); /* which ends the first pass, wherever that was */
    model_logits(&r.g.m, r.a, &(int32_t){0}, 1, z);
    acts_destroy(other);
    pass_close(&r);
    set = opened();
    EXPECT(!st_find(set, "head: logits") && st_find(set, "final: h"), "not the first pass alone");
    st_close(set);
    free(z);
}

/* Gradients are those of the pack, and a second way through the logits is not taken for more. */
static void sft_late_weigh(const Objective *o, const Pack *p, const float *nll, float *weight) {
    (void)nll;
    for (int i = 0; i < p->nlabel; i++) weight[i] = (float)(1 / o->denominator);
}

static void test_gradients(const Pass *plain) {
    Pass r;
    pass_open(&r, plain->g.m.ex, ACTS_TRAIN, "*[sB]");
    Objective late = objective_sft(r.p.nlabel);
    late.ahead = false, late.weigh = sft_late_weigh;
    r.a->chunk = PART;
    model_loss(&r.g.m, r.a, &r.p, &late, r.nll);
    model_backward(&r.g.m, r.a, &r.p);
    const Param *B = lora_at(&r.l, 0, PROJ_Q)->B;
    double *grad = test_get_f32(r.g.m.ex, B->grad, B->n);
    size_t rows = B->rows, cols = B->cols, seen = 0;
    for (int i = 0; i < r.l.params.n; i++)
        seen += r.l.params.param[i].name[strlen(r.l.params.param[i].name) - 8] == 'B';
    pass_close(&r);
    StSet *set = opened();
    const float *g = values(set, "grad: layer 0: self_attn.q_proj.lora_B", (int)rows, (int)cols);
    double largest = 0;
    for (size_t i = 0; g && i < rows * cols; i++) {
        EXPECT(g[i] == grad[i], "element %zu", i);
        if (fabs(grad[i]) > largest) largest = fabs(grad[i]);
    }
    EXPECT(largest > 0, "a gradient of zero shows nothing");
    values(set, "head: logits", plain->p.nlabel, plain->g.m.c.V);
    EXPECT(st_count(set) == seen + 7, "%zu tensors, not %zu", st_count(set), seen + 7);
    st_close(set);
    free(grad);
}

/* --------------------------------------------------------------------------- messages -- */

/* What closing the model writes to stderr, after a pass that was to be dumped. */
static char *said(Exec *ex, const char *pattern, const char *file) {
    Pass r;
    Err err;
    char *text;
    size_t n;
    const char *path = test_path("stderr");
    pass_open_to(&r, ex, ACTS_INFER, pattern, file);
    model_nll(&r.g.m, r.a, &r.p, r.nll);
    EXPECT(isfinite(r.nll[0]), "numbers do not go on");
    fflush(stderr);
    int kept = dup(STDERR_FILENO), to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(kept >= 0 && to >= 0 && dup2(to, STDERR_FILENO) >= 0, "stderr cannot be caught");
    pass_close(&r);
    CHECK(dup2(kept, STDERR_FILENO) >= 0, "stderr is lost");
    close(kept), close(to);
    MUST(files_read(&text, &n, path, 1 << 20, &err), err);
    return text;
}

static void test_messages(Exec *ex) {
    char *good = said(ex, "final: ?", dump_path());
    EXPECT(strstr(good, "sails: tensors of the first pass in") && strstr(good, dump_path()) &&
               strstr(good, ": 2\n"),
           "%s", good);
    EXPECT(written(), "no file");
    char *none = said(ex, "gates", dump_path());
    EXPECT(strstr(none, "SAILS_DUMP=gates matches no tensor") &&
               strstr(none, "\"layer 0: gate\"") && strstr(none, "\"head: logits\"") &&
               !strstr(none, "layer 1") && !strstr(none, "\"pack: rows\""),
           "%s", none);
    EXPECT(!written(), "a file without what was asked for");
    char *lost = said(ex, "*", "/dev/null/dump");
    EXPECT(strstr(lost, "sails: SAILS_DUMP: /dev/null/dump"), "%s", lost);
    free(good), free(none), free(lost);
}

static void body(Exec *ex) {
    Pass plain;
    pass_open(&plain, ex, ACTS_INFER, NULL);
    EXPECT(!plain.g.m.dump, "a dump that nobody asked for");
    model_nll(&plain.g.m, plain.a, &plain.p, plain.nll);
    test_names(&plain);
    test_gradients(&plain);
    pass_close(&plain);
    test_values(ex);
    test_once(ex);
    test_messages(ex);
}

int main(void) {
    test_each_exec(body);
    return test_done("dump");
}
