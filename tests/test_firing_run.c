/* The pass that says where features fire, on a golden model, against each document's stream taken
 * out alone and SAEs in double: chosen columns of a JumpReLU SAE, and of a TopK one, of which only
 * all features together say which fire. */
#include "model/firing_run.h"

#include "tests/golden.h"

enum { S = 37, K0 = 4, K1 = 3 };

static const int32_t feature0[K0] = {36, 0, 17, 5}, feature1[K1] = {1, 30, 2};

typedef struct World {
    Golden g;
    Sae sae[2];
    double *w[2], *b[2], *threshold[2];
    double *x[2]; /* of the document that runs */
} World;

static void make_sae(World *u, int i, int layer, enum SaeAct act) {
    Exec *ex = u->g.m.ex;
    int D = u->g.m.c.D;
    Sae *s = &u->sae[i];
    u->w[i] = test_noise_array(20 + (uint64_t)i, (size_t)D * S, 1);
    u->b[i] = test_noise_array(30 + (uint64_t)i, S, 0.5);
    u->threshold[i] = test_noise_array(40 + (uint64_t)i, S, 1);
    for (int j = 0; j < S; j++) u->threshold[i][j] += 1;
    *s = (Sae){.layer = layer};
    s->w = test_f32(ex, u->w[i], (size_t)D * S);
    s->b = test_f32(ex, u->b[i], S);
    s->threshold = test_f32(ex, u->threshold[i], S);
    s->enc = (SaeEncoder){.w = s->w, .b = s->b, .D = D, .S = S, .act = act, .topk = 6};
    if (act == SAE_JUMPRELU) s->enc.threshold = s->threshold;
}

static void keep_stream(void *context, int layer, const store *x, int N) {
    World *u = context;
    for (int i = 0; i < 2; i++)
        if (u->sae[i].layer == layer)
            u->x[i] = test_get_store(u->g.m.ex, x, (size_t)N * (size_t)u->g.m.c.D);
}

/* pre (S) of a row, and how far a sum of D products in f32 may be from it. */
static double encode(double *pre, const World *u, int i, const double *x) {
    double most = 0;
    for (int s = 0; s < S; s++) {
        double sum = fabs(u->b[i][s]);
        pre[s] = u->b[i][s];
        for (int d = 0; d < u->g.m.c.D; d++)
            pre[s] += x[d] * u->w[i][d * S + s], sum += fabs(x[d] * u->w[i][d * S + s]);
        most = fmax(most, sum);
    }
    return (u->g.m.c.D + 2) * 0x1p-23 * most;
}

/* What feature f must be; within `slack` of where it begins to fire it may be either. */
static bool may_be(double got, const World *u, int i, const double *pre, int f, double slack) {
    int above = 0, near = 0;
    double on = fabs(got - pre[f]) <= slack;
    if (u->sae[i].enc.act == SAE_JUMPRELU) {
        double past = pre[f] - u->threshold[i][f];
        return past > slack ? on : past < -slack ? got == 0 : on || got == 0;
    }
    for (int s = 0; s < S; s++)
        if (s != f) above += pre[s] > pre[f] + slack, near += fabs(pre[s] - pre[f]) <= slack;
    bool sure = above + near < u->sae[i].enc.topk && pre[f] > slack;
    bool never = above >= u->sae[i].enc.topk || pre[f] < -slack;
    return sure ? on : never ? got == 0 : on || got == 0;
}

static void check_document(World *u, Acts *a, int d, const float *got) {
    Pack p;
    int n = u->g.n[d], D = u->g.m.c.D, fires = 0;
    double pre[S];
    pack_init(&p, n, 1, 0);
    pack_add(&p, u->g.token[d], NULL, n, 0);
    model_forward(&u->g.m, a, &p, u->g.m.c.L, keep_stream, u);
    for (int t = 0; t < n; t++)
        for (int i = 0; i < 2; i++) {
            double slack = encode(pre, u, i, u->x[i] + t * D);
            for (int j = 0; j < (i ? K1 : K0); j++) {
                double v = got[t * (K0 + K1) + (i ? K0 : 0) + j];
                int f = i ? feature1[j] : feature0[j];
                EXPECT(may_be(v, u, i, pre, f, slack),
                       "%s: document %d, token %d, SAE %d, feature %d: %g of %g +- %g",
                       u->g.m.ex->op->name, d, t, i, f, v, pre[f], slack);
                fires += v > 0;
            }
        }
    EXPECT(fires > 0 && fires < n * (K0 + K1), "%d of %d fire: nothing is tested", fires,
           n * (K0 + K1));
    free(u->x[0]), free(u->x[1]);
    pack_free(&p);
}

static void test_all(Exec *ex) {
    World u;
    float *to[GOLDEN_DOCS];
    golden_open(&u.g, ex, "model_a");
    make_sae(&u, 0, 0, SAE_JUMPRELU);
    make_sae(&u, 1, 1, SAE_TOPK);
    const FiringLayer layer[] = {{&u.sae[0], feature0, K0}, {&u.sae[1], feature1, K1}};
    int longest = 0;
    for (int d = 0; d < GOLDEN_DOCS; d++) longest = u.g.n[d] > longest ? u.g.n[d] : longest;
    FiringRun *r = firing_run_open(&u.g.m, layer, 2, longest + 5); /* several packs */
    for (int d = 0; d < GOLDEN_DOCS; d++) {
        to[d] = mem_array((size_t)u.g.n[d] * (K0 + K1), sizeof *to[d]);
        memset(to[d], 0xff, (size_t)u.g.n[d] * (K0 + K1) * sizeof *to[d]);
        firing_run_add(r, u.g.token[d], u.g.n[d], to[d]);
    }
    firing_run_finish(r);
    EXPECT(!firing_run_bad(r), "the stream is finite");
    Acts *a = acts_create(&u.g.m, longest, longest, 0, ACTS_INFER);
    for (int d = 0; d < GOLDEN_DOCS; d++) check_document(&u, a, d, to[d]);
    for (int d = 0; d < GOLDEN_DOCS; d++) free(to[d]);
    acts_destroy(a);
    firing_run_close(r);
    for (int i = 0; i < 2; i++) {
        test_free(ex, u.sae[i].w), test_free(ex, u.sae[i].b), test_free(ex, u.sae[i].threshold);
        free(u.w[i]), free(u.b[i]), free(u.threshold[i]);
    }
    golden_close(&u.g);
}

int main(void) {
    test_each_exec(test_all);
    return test_done("firing run");
}
