/* Activations that backward makes again: gradients with the bits of those that were kept, of
 * adapters and of all weights; less memory, as planned; and a search that still finds every name.
 */
#include "model/acts.h"
#include "tests/golden.h"

static const enum ActsUse uses[] = {ACTS_TRAIN, ACTS_RECOMPUTE};

/* The gradients of one pack of all documents, from malloc. */
static float *gradients(Golden *g, enum ActsUse use, float *nll) {
    Params *p = model_params(&g->m);
    Pack pack;
    Objective sft = objective_sft(50);
    golden_pack(g, &pack);
    size_t before = p->ex->bytes_now;
    Acts *a = acts_create(&g->m, pack.N, pack.nseg, pack.nlabel, use);
    size_t planned =
        acts_bytes(&g->m.c, g->m.lora, p->ex->dtype, pack.N, pack.nseg, pack.nlabel, use);
    EXPECT(p->ex->bytes_now - before == planned, "%zu bytes planned, %zu taken", planned,
           p->ex->bytes_now - before);
    exec_zero(p->ex, p->grad, p->size * sizeof *p->grad);
    model_loss(&g->m, a, &pack, &sft, nll);
    model_backward(&g->m, a, &pack);
    acts_destroy(a);
    pack_free(&pack);
    float *grad = mem_array(p->size, sizeof *grad);
    exec_copy_out(p->ex, grad, p->grad, p->size * sizeof *grad);
    return grad;
}

static void test_results(Golden *g, const char *what) {
    float *grad[2], nll[2][GOLDEN_ROWS] = {{0}};
    size_t n = model_params(&g->m)->size;
    for (int i = 0; i < 2; i++) grad[i] = gradients(g, uses[i], nll[i]);
    EXPECT(golden_norm(grad[0], NULL, n) > 0, "%s, %s: no gradient", g->folder, what);
    EXPECT(memcmp(nll[0], nll[1], sizeof nll[0]) == 0, "%s, %s: another loss", g->folder, what);
    EXPECT(memcmp(grad[0], grad[1], n * sizeof(float)) == 0, "%s, %s: other gradients", g->folder,
           what);
    for (int i = 0; i < 2; i++) free(grad[i]);
}

static void test_adapters(Exec *ex, const char *name) {
    Golden g;
    Lora l;
    golden_open(&g, ex, name);
    golden_adapter(&g, &l, "adapter", true);
    test_results(&g, "adapters");
    lora_free(&l);
    golden_close(&g);
}

static void test_all_weights(Exec *ex, const char *name) {
    Golden g;
    Full full;
    Err err;
    golden_open(&g, ex, name);
    model_close(&g.m);
    MUST(model_open_trained(&g.m, &full, ex, g.folder, 0, &err), err);
    test_results(&g, "all weights");
    golden_close(&g);
    full_free(&full);
}

/* Of a 9B layer's 21 widths of D and more the input alone stays. */
static void test_less(void) {
    const Config c = {.L = 42, .D = 3584, .F = 14336, .V = 256000, .H = 16, .K = 8, .E = 256};
    size_t kept = acts_bytes(&c, NULL, DTYPE_BF16, 8192, 1, 8192, ACTS_TRAIN);
    size_t again = acts_bytes(&c, NULL, DTYPE_BF16, 8192, 1, 8192, ACTS_RECOMPUTE);
    double inputs = 2.0 * 8192 * 3584 * 42, layer = (double)kept / 42;
    EXPECT((double)again < inputs + 4 * layer && (double)again < 0.25 * (double)kept,
           "%zu bytes of %zu", again, kept);
}

/* Every name of the last pass, by layer; each once. */
typedef struct Shown {
    int of_layer[8], all;
    int gates;
} Shown;

static void note(void *context, const Placed *t, int first) {
    Shown *s = context;
    int layer;
    (void)first;
    s->all++;
    s->gates += strstr(t->name, ": gate") != NULL && !strstr(t->name, "grad");
    if (sscanf(t->name, "layer %d:", &layer) == 1 && layer < 8) s->of_layer[layer]++;
}

/* A pass, its backward, which shows nothing again, and the pass looked at. */
static void test_names(Exec *ex) {
    Shown shown[2] = {{.all = 0}}, later = {.all = 0};
    for (int i = 0; i < 2; i++) {
        Golden g;
        Lora l;
        Pack pack;
        float nll[GOLDEN_ROWS];
        Objective sft = objective_sft(50);
        golden_open(&g, ex, "model_a");
        golden_adapter(&g, &l, "adapter", true);
        golden_pack(&g, &pack);
        Acts *a = acts_create(&g.m, pack.N, pack.nseg, pack.nlabel, uses[i]);
        model_loss(&g.m, a, &pack, &sft, nll);
        a->watch = note, a->watch_context = &later;
        model_backward(&g.m, a, &pack);
        EXPECT(later.gates == 0, "backward shows what forward has shown");
        model_again(&g.m, a, note, &shown[i]);
        acts_destroy(a);
        pack_free(&pack);
        lora_free(&l);
        golden_close(&g);
    }
    EXPECT(memcmp(&shown[0], &shown[1], sizeof shown[0]) == 0 && shown[0].of_layer[1] > 10,
           "%d names in all, %d of layer 1", shown[1].all, shown[1].of_layer[1]);
}

static void body(Exec *ex) {
    for (int i = 0; i < GOLDEN_MODELS; i++) {
        if (i > 0 && !test_on_cpu(ex)) return;
        test_adapters(ex, golden_models[i]);
        test_all_weights(ex, golden_models[i]);
    }
    test_names(ex);
}

int main(void) {
    test_less();
    test_each_exec(body);
    return test_done("test_recompute");
}
