/* A number that overflows is named by layer, tensor and row: whatever ran, whatever lies over what,
 * and however much of it backward has written over since. */
#include <float.h>

#include "host/stage/bad_tensor.h"
#include "host/stage/nll.h"
#include "model/acts.h"
#include "model/generate.h"
#include "tests/golden.h"
#include "tests/world.h"

typedef struct Run {
    Golden g;
    Pack p;
    Lora l;
    Acts *a;
    float nll[GOLDEN_ROWS];
} Run;

static void run_open(Run *r, Exec *ex, enum ActsUse use) {
    golden_open(&r->g, ex, "model_a");
    golden_adapter(&r->g, &r->l, "adapter", use == ACTS_TRAIN);
    golden_pack(&r->g, &r->p);
    r->a = acts_create(&r->g.m, r->p.N, r->p.nseg, r->p.nlabel, use);
}

static void run_close(Run *r) {
    acts_destroy(r->a);
    pack_free(&r->p);
    lora_free(&r->l);
    golden_close(&r->g);
}

static double loss_of(Run *r, enum ActsUse use) {
    Objective sft = objective_sft(r->p.nlabel);
    double sum = 0;
    if (use == ACTS_TRAIN) return model_loss(&r->g.m, r->a, &r->p, &sft, r->nll);
    model_nll(&r->g.m, r->a, &r->p, r->nll);
    for (int i = 0; i < r->p.nlabel; i++) sum += r->nll[i];
    return sum;
}

static void expect_named(Run *r, const char *part) {
    Err err = {.text = ""};
    bool ok = bad_tensor_find(&r->g.m, r->a, "step 1", &err);
    EXPECT(!ok && err.code == EXIT_NUMBERS && !strncmp(err.text, "step 1: ", 8) &&
               strstr(err.text, part),
           "expected \"%s\" in: %s", part, err.text);
}

static void ignore_reply(void *context, const GenReply *reply) {
    (void)context, (void)reply;
}

/* Masters, and what products read of them. */
static void fill(Run *r, Param *t, float value) {
    float *x = mem_array(t->n, sizeof *x);
    for (size_t i = 0; i < t->n; i++) x[i] = value;
    exec_copy_in(r->g.m.ex, t->master, x, t->n * sizeof *x);
    params_sync(&r->l.params);
    free(x);
}

/* An adapter whose factors are finite and whose product is not. */
static void test_adapter(Exec *ex, enum ActsUse use) {
    static const struct {
        int layer;
        enum Proj proj;
        const char *name;
    } places[] = {{0, PROJ_Q, "q"},   {1, PROJ_V, "v"},       {1, PROJ_O, "p"},
                  {1, PROJ_UP, "up"}, {2, PROJ_GATE, "gate"}, {2, PROJ_DOWN, "m"}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        Run r;
        char name[64];
        if (!test_on_cpu(ex) && places[i].layer != 1) continue;
        run_open(&r, ex, use);
        Adapter *d = lora_at(&r.l, places[i].layer, places[i].proj);
        CHECK(d->R > 0, "no adapter there");
        fill(&r, d->A, 1e4f), fill(&r, d->B, FLT_MAX / 4);
        EXPECT(!isfinite(loss_of(&r, use)), "%d: the loss is finite", (int)i);
        const Config *c = &r.g.m.c;
        int n = places[i].layer == c->L - 1 ? r.p.nlabel : r.p.N;
        snprintf(name, sizeof name, "tensor layer %d: %s (%d x %d), row ", places[i].layer,
                 places[i].name, n, d->out);
        expect_named(&r, name);
        run_close(&r);
    }
}

/* Rope's table bad at one position: the first row of the pack that is there. */
static void test_row(Exec *ex, enum ActsUse use) {
    enum { POSITION = 7 };
    Run r;
    char name[64];
    float bad = NAN;
    run_open(&r, ex, use);
    int row = 0;
    while (r.p.pos[row] != POSITION) row++;
    exec_copy_in(ex, r.g.m.cos + POSITION * r.g.m.c.E / 2, &bad, sizeof bad);
    EXPECT(!isfinite(loss_of(&r, use)), "the loss is finite");
    snprintf(name, sizeof name, "tensor layer 0: rope(q) (%d x %d), row %d,", r.p.N,
             r.g.m.c.H * r.g.m.c.E, row);
    expect_named(&r, name);
    run_close(&r);
}

/* The first tensor of all, what attention makes, and nothing at all. */
static void test_others(Exec *ex, enum ActsUse use) {
    Run r;
    run_open(&r, ex, use);
    const Config good = r.g.m.c;
    float scale = r.g.m.embed_scale;
    r.g.m.embed_scale = INFINITY, loss_of(&r, use), expect_named(&r, "tensor layer 0: x (");
    r.g.m.embed_scale = scale;
    r.g.m.c.query_scale = NAN, loss_of(&r, use), expect_named(&r, "tensor layer 0: lse (");
    r.g.m.c = good;
    EXPECT(isfinite(loss_of(&r, use)), "not as it was");
    expect_named(&r, "activations of the last pass and gradients are finite");
    run_close(&r);
}

/* What overflowed is made smaller by what there is: an adapter, all weights, or nothing. */
static void test_remedies(Exec *ex) {
    Run r;
    Full none = {0};
    float bad = NAN;
    run_open(&r, ex, ACTS_TRAIN);
    exec_copy_in(ex, r.g.m.cos, &bad, sizeof bad);
    loss_of(&r, ACTS_TRAIN);
    expect_named(&r, "overflowed; try a lower --lr, a weaker adapter or --dtype f32");
    r.g.m.lora = NULL, r.g.m.full = &none;
    expect_named(&r, "overflowed; try a lower --lr or --dtype f32");
    r.g.m.full = NULL;
    expect_named(&r, "overflowed; try --dtype f32 or another checkpoint");
    run_close(&r);
}

/* The first row, in the order of the head, whose logits are not all finite. */
static int bad_row(Run *r) {
    size_t V = (size_t)r->g.m.c.V, n = (size_t)r->p.nlabel * V, i = 0;
    int32_t *row = mem_array((size_t)r->p.nlabel, sizeof *row);
    float *z = mem_array(n, sizeof *z);
    for (int k = 0; k < r->p.nlabel; k++) row[k] = k;
    model_logits(&r->g.m, r->a, row, r->p.nlabel, z);
    while (i < n && isfinite(z[i])) i++;
    free(z), free(row);
    return (int)(i / V);
}

/* Embeddings so large that the head's products overflow, though the layers see them scaled back: by
 * little, so that the first chunk of logits is sound. */
static void test_head(Exec *ex, enum ActsUse use) {
    enum { CHUNK = 1 };
    Run r;
    run_open(&r, ex, use);
    const Model good = r.g.m;
    size_t n = (size_t)good.c.V * (size_t)good.c.D;
    int row = 0;
    r.g.m.embed_scale = 1e-37f, r.g.m.c.final_cap = 0;
    r.a->chunk = CHUNK;
    for (double size = FLT_MAX * 0.99; row == 0; size *= 0.97) {
        double *large = test_noise_array(3, n, size);
        store *embed = test_store(ex, large, n);
        r.g.m.embed = embed;
        bool finite_loss = isfinite(loss_of(&r, use));
        row = bad_row(&r);
        char part[96];
        snprintf(part, sizeof part, "tensor head: logits (%d x %d), row %d,", CHUNK, good.c.V, row);
        if (row > 0) {
            EXPECT(!finite_loss && row < r.p.nlabel, "the loss is finite");
            expect_named(&r, part);
        }
        test_free(ex, embed);
        free(large);
    }
    r.g.m = good;
    run_close(&r);
}

/* A sum of gradients of which each rank has parts: in the order of backward, the first element. */
static void test_shared_sum(Exec *ex) {
    Run r;
    Full full;
    Err err;
    const float bad[] = {1, NAN, INFINITY};
    char part[192];
    run_open(&r, ex, ACTS_TRAIN);
    const Model good = r.g.m;
    loss_of(&r, ACTS_TRAIN);
    full_alloc(&full, ex, &good.c, 1, 0);
    r.g.m.full = &full, r.g.m.lora = NULL;
    const Params *p = &full.params;
    const Param *low = &p->param[1], *high = &p->param[p->n / 2];
    exec_copy_in(ex, p->grad + low->at, bad, sizeof bad);
    exec_copy_in(ex, p->grad + high->at + 5, bad, sizeof bad);
    snprintf(part, sizeof part, "tensor %s gradient, element 6;", high->name);
    bad_tensor_find_together(&r.g.m, r.a, "step 1", &err);
    EXPECT(strstr(err.text, part), "expected \"%s\" in: %s", part, err.text);
    bad_tensor_find(&r.g.m, r.a, "step 1", &err); /* one rank alone does not look there */
    EXPECT(strcmp(err.text, "step 1; try a lower --lr or --dtype f32") == 0, "%s", err.text);
    store *weights = test_store(ex, (double[]){1, NAN}, 2);
    exec_copy(ex, store_at(ex->dtype, p->copy, low->at), weights, 2 * dtype_size(ex->dtype));
    snprintf(part, sizeof part, "tensor %s, element 1;", low->name);
    bad_tensor_find_together(&r.g.m, r.a, "step 1", &err);
    EXPECT(strstr(err.text, part), "expected \"%s\" in: %s", part, err.text);
    test_free(ex, weights);
    r.g.m = good;
    full_free(&full);
    run_close(&r);
}

/* A position that only replies get to, token by token. */
static void test_generated(Exec *ex) {
    enum { SLOTS = 2, PROMPT = 9, POSITION = 12 };
    Run r;
    Err err;
    float bad = NAN;
    run_open(&r, ex, ACTS_INFER);
    const GenOptions o = {.slots = SLOTS, .max_len = 32, .prefill_rows = 32, .how = {.top_p = 1}};
    const GenPrompt prompt = {r.g.token[2], PROMPT, 16, 0};
    exec_copy_in(ex, r.g.m.cos + POSITION * r.g.m.c.E / 2, &bad, sizeof bad);
    Generator *g = gen_create(&r.g.m, &o);
    CHECK(r.g.n[2] >= PROMPT, "the prompt is too short");
    EXPECT(gen_run(g, &prompt, 1, ignore_reply, NULL) == GEN_BAD_NUMBERS, "NaN was drawn");
    bad_tensor_find(&r.g.m, gen_acts(g), "reply", &err);
    EXPECT(strstr(err.text, "tensor layer 0: rope(q) (1 x "), "%s", err.text);
    gen_destroy(g);
    run_close(&r);
}

/* The document of the pack and its token. */
static void test_document(Exec *ex) {
    enum { POSITION = 20 };
    Run r;
    Err err;
    NllSum sum;
    float bad = NAN;
    char id[GOLDEN_DOCS][8];
    Record record[GOLDEN_DOCS] = {{0}};
    Doc doc[GOLDEN_DOCS] = {{0}};
    run_open(&r, ex, ACTS_INFER);
    for (int d = 0; d < GOLDEN_DOCS; d++) {
        snprintf(id[d], sizeof id[d], "d%d", d);
        record[d].id = id[d];
        doc[d] = (Doc){.token = r.g.token[d], .n = r.g.n[d], .record = &record[d]};
        doc[d].label = mem_array((size_t)doc[d].n, 1);
        doc_label_all(&doc[d]);
        CHECK((doc[d].n > POSITION + 1) == (d == 3), "another document gets there, too");
    }
    exec_copy_in(ex, r.g.m.cos + POSITION * r.g.m.c.E / 2, &bad, sizeof bad);
    bool ok = nll_sum(&sum, &r.g.m, doc, NULL, GOLDEN_DOCS, GOLDEN_ROWS, NULL, &err);
    int token = 0; /* on some devices a bad key reaches rows before it */
    EXPECT(!ok && err.code == EXIT_NUMBERS &&
               sscanf(err.text, "document d3: token %d has log-probability", &token) == 1 &&
               token >= 1 && token <= POSITION + 1 &&
               strstr(err.text, "nan: first bad tensor layer 0: rope(q) ("),
           "%s", ok ? "a sum" : err.text);
    for (int d = 0; d < GOLDEN_DOCS; d++) free(doc[d].label);
    run_close(&r);
}

/* Weights and adapters come first, gradients last, though backward leaves gate's and up's gradients
 * in their place. */
static void test_order(Exec *ex) {
    Run r;
    run_open(&r, ex, ACTS_TRAIN);
    Objective huge = objective_sft(FLT_MIN / 1e6);
    model_loss(&r.g.m, r.a, &r.p, &huge, r.nll);
    model_backward(&r.g.m, r.a, &r.p);
    expect_named(&r, " gradient, element ");
    Adapter *d = lora_at(&r.l, 1, PROJ_UP);
    fill(&r, d->A, 1e4f), fill(&r, d->B, FLT_MAX / 4);
    loss_of(&r, ACTS_TRAIN);
    expect_named(&r, "tensor layer 1: up (");
    fill(&r, lora_at(&r.l, 2, PROJ_Q)->A, NAN);
    expect_named(&r, "layers.2.self_attn.q_proj.lora_A.weight, element 0;");
    run_close(&r);
}

/* ---------------------------------------------------------------------- commands that run -- */

extern const Command cmd_logprob, cmd_generate, cmd_score, cmd_moments, cmd_inputs;

/* The adapter of a short training, with a product in layer 1 that overflows. */
static void write_adapter(void) {
    Err err;
    Exec ex;
    Model m;
    Lora l;
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no device");
    MUST(model_open(&m, &ex, in_world("model"), 0, &err), err);
    LoraShape shape;
    lora_shape_init(&shape, &m.c);
    shape.rank[PROJ_COUNT + PROJ_UP] = 4, shape.alpha[PROJ_COUNT + PROJ_UP] = 8;
    lora_alloc(&l, &ex, &m.c, &shape, false);
    const Adapter *d = lora_at(&l, 1, PROJ_UP);
    for (int i = 0; i < 2; i++) {
        const Param *t = i ? d->B : d->A;
        float *x = mem_array(t->n, sizeof *x);
        for (size_t j = 0; j < t->n; j++) x[j] = i ? FLT_MAX / 4 : 1e4f;
        exec_copy_in(&ex, t->master, x, t->n * sizeof *x);
        free(x);
    }
    MUST(lora_save(&l, in_world("adapter"), in_world("model"), &err), err);
    lora_shape_free(&shape), lora_free(&l);
    model_close(&m);
    exec_close(&ex);
}

static void expect_refused(const Command *c, const char *flags, const char *where) {
    Err err = {.text = ""};
    char line[2048];
    snprintf(line, sizeof line, "--model %s --dtype f32 --out %s --json %s", in_world("model"),
             in_world("out"), flags);
    bool ok = world_run(c, line, &err);
    EXPECT(!ok && err.code == EXIT_NUMBERS && strstr(err.text, where) &&
               strstr(err.text, "first bad tensor layer 1: up ("),
           "%s: %s", c->name, ok ? "it went on" : err.text);
    EXPECT(!files_exists(in_world("out")), "%s left its file", c->name);
}

/* The same in the model itself: sums over what it computes read no adapter. */
static void spoil_model(void) {
    StSet *set;
    Err err;
    char *file;
    size_t n;
    const char *path = in_world("model/model.safetensors");
    MUST(st_open(&set, path, &err) && files_read(&file, &n, path, 1 << 30, &err), err);
    const StTensor *t = st_find(set, "model.layers.1.mlp.up_proj.weight");
    char *at = t ? memmem(file, n, t->data, t->bytes) : NULL;
    CHECK(at, "%s: no such weight", path);
    for (size_t i = 0; i < t->count; i++)
        memcpy(at + i * sizeof(float), &(float){FLT_MAX / 4}, sizeof(float));
    st_close(set);
    MUST(files_write(path, file, n, &err), err);
    free(file);
}

static void test_commands(void) {
    char flags[2048], adapter[512], data[512];
    world_make();
    write_adapter();
    snprintf(adapter, sizeof adapter, "--adapter %s", in_world("adapter"));
    snprintf(data, sizeof data, "--data %s --max-length 128", in_world("pairs.jsonl"));
    snprintf(flags, sizeof flags, "%s %s", adapter, data);
    expect_refused(&cmd_logprob, flags, "document 1: token 1 has log-probability ");
    snprintf(flags, sizeof flags, "%s %s --sae %s --layers 1,2", adapter, data,
             in_world("sae/{layer}"));
    expect_refused(&cmd_score, flags, "the stream that the SAEs read is not finite");
    snprintf(flags, sizeof flags, "%s --prompts %s --max-new-tokens 3", adapter,
             in_world("prompts.jsonl"));
    expect_refused(&cmd_generate, flags, "a reply's logits are not finite");
    spoil_model();
    snprintf(flags, sizeof flags, "%s --layers 1", data);
    expect_refused(&cmd_moments, flags, "the stream that moments are taken of is not finite");
    snprintf(flags, sizeof flags, "%s --targets down --rank 4", data);
    expect_refused(&cmd_inputs, flags, "what the projections read is not finite");
    world_remove();
}

/* What the host's code alone decides is tried on the CPU device, where a pass takes no time. */
static void body(Exec *ex) {
    for (int use = ACTS_INFER; use <= ACTS_TRAIN; use++) {
        test_adapter(ex, (enum ActsUse)use);
        test_row(ex, (enum ActsUse)use);
        if (!test_on_cpu(ex)) continue;
        test_others(ex, (enum ActsUse)use);
        test_head(ex, (enum ActsUse)use);
    }
    test_order(ex);
    if (!test_on_cpu(ex)) return;
    test_remedies(ex);
    test_shared_sum(ex);
    test_generated(ex);
    test_document(ex);
    if (ex->dtype == DTYPE_F32) test_commands();
}

int main(void) {
    test_each_exec(body);
    return test_done("bad_tensor");
}
