/* The scoring pass on a golden model, against this: every document run alone, its residual stream
 * taken out, SAE and sums in double. Whatever sharing, packing or gathering does must not show. */
#include "model/score_run.h"

#include <omp.h>

#include "tests/golden.h"

enum { S = 70, DOCS = 12, LONGEST = 30 };

typedef struct World {
    Model *m;
    int nsae;
    Sae sae[2];
    double *w[2], *b[2], *threshold[2];
    int32_t token[DOCS][2][LONGEST];
    uint8_t counted[DOCS][2][LONGEST];
    PairItem item[DOCS];
    double *x[2][DOCS][2]; /* [SAE][document][corpus]: the stream when it runs alone, or NULL */
} World;

static void make_sae(World *u, int i, int layer, enum SaeAct act) {
    Exec *ex = u->m->ex;
    int D = u->m->c.D;
    Sae *s = &u->sae[i];
    u->w[i] = test_noise_array(20 + (uint64_t)i, (size_t)D * S, 1);
    u->b[i] = test_noise_array(30 + (uint64_t)i, S, 0.5);
    u->threshold[i] = test_noise_array(40 + (uint64_t)i, S, 1);
    for (int j = 0; j < S; j++) u->threshold[i][j] += 1;
    *s = (Sae){.layer = layer, .path = mem_string("p"), .id = mem_string(""), .file = NULL};
    s->w = test_f32(ex, u->w[i], (size_t)D * S);
    s->b = test_f32(ex, u->b[i], S);
    s->threshold = test_f32(ex, u->threshold[i], S);
    s->enc = (SaeEncoder){.w = s->w, .b = s->b, .D = D, .S = S, .act = act, .topk = 5};
    if (act == SAE_JUMPRELU) s->enc.threshold = s->threshold;
}

/* Pairs of every kind: long and short shared prefixes, none, replies of one token, one a prefix of
 * the other, equal documents, documents of one corpus alone, counted tokens inside the prefix. */
static void make_items(World *u) {
    static const int form[DOCS][3] = {/* n0, n1, shared */
                                      {20, 25, 15}, {9, 9, 8},   {30, 4, 0},  {6, 30, 6},
                                      {12, 12, 12}, {11, 0, 0},  {0, 17, 0},  {28, 28, 20},
                                      {2, 2, 1},    {24, 22, 3}, {16, 10, 9}, {15, 18, 12}};
    for (int d = 0; d < DOCS; d++) {
        PairItem *it = &u->item[d];
        for (int c = 0; c < 2; c++) {
            it->n[c] = form[d][c];
            it->token[c] = u->token[d][c];
            it->counted[c] = u->counted[d][c];
            for (int t = 0; t < it->n[c]; t++) {
                uint64_t at = (uint64_t)((t < form[d][2] ? d : d * 2 + c + 100) * LONGEST + t);
                double v = (test_noise(50, at) + 1) / 2;
                u->token[d][c][t] = t == 0 ? 2 : 3 + (int32_t)(v * (u->m->c.V - 3));
                u->counted[d][c][t] = t > 3 && (d % 3 == 0 || t >= it->n[c] / 2);
            }
        }
    }
    memset(u->counted[8][1], 0, LONGEST); /* a pair of which one side does not count */
    u->counted[8][0][1] = 1;
}

static void world_open(World *u, Model *m) {
    *u = (World){.m = m, .nsae = 2};
    make_sae(u, 0, 0, SAE_TOPK);
    make_sae(u, 1, 1, SAE_JUMPRELU);
    make_items(u);
}

static void world_close(World *u) {
    for (int i = 0; i < 2; i++) {
        Sae *s = &u->sae[i];
        test_free(u->m->ex, s->w), test_free(u->m->ex, s->b), test_free(u->m->ex, s->threshold);
        free(s->path), free(s->id), free(u->w[i]), free(u->b[i]), free(u->threshold[i]);
        for (int d = 0; d < 2 * DOCS; d++) free(u->x[i][d / 2][d % 2]);
    }
}

/* --------------------------------------------------------------------------------- reference */

/* The same statistics in double, and for each sum how far rounding may move it: `slack` counts
 * an activation whole where it lies within reach of its threshold. */
typedef struct Ref {
    double sum[2][SCORE_GROUPS][S], slack[2][SCORE_GROUPS][S];
    double fires[2][S], fires_slack[2][S], max[2][S], max_slack[2][S];
    int64_t tokens[2][SCORE_GROUPS], documents[2][SCORE_GROUPS];
} Ref;

typedef struct Grab {
    Exec *ex;
    int layer, D;
    double *x;
} Grab;

static void grab(void *context, int layer, const store *x, int N) {
    Grab *g = context;
    if (layer == g->layer) g->x = test_get_store(g->ex, x, (size_t)N * g->D);
}

static const double *alone(World *u, int i, int d, int c) {
    if (u->x[i][d][c]) return u->x[i][d][c];
    Grab g = {.ex = u->m->ex, .layer = u->sae[i].layer, .D = u->m->c.D};
    golden_alone(u->m, u->token[d][c], u->item[d].n[c], grab, &g);
    return u->x[i][d][c] = g.x;
}

/* Activations of one row, and how near each is to switching. `error`: relative, of x. */
static void encode(double *a, double *e, bool *near, const World *u, int i, const double *x,
                   double error) {
    int D = u->m->c.D;
    double pre[S], size[S];
    for (int s = 0; s < S; s++) {
        pre[s] = u->b[i][s], size[s] = fabs(pre[s]);
        for (int d = 0; d < D; d++) {
            pre[s] += x[d] * u->w[i][d * S + s];
            size[s] += fabs(x[d] * u->w[i][d * S + s]);
        }
        e[s] = error * size[s];
    }
    for (int s = 0; s < S; s++) {
        double level = u->threshold[i][s];
        if (u->sae[i].enc.act == SAE_TOPK) { /* the fifth largest of the others */
            double best[5];
            for (int k = 0; k < 5; k++) best[k] = -INFINITY;
            for (int t = 0; t < S; t++) {
                double v = t == s ? -INFINITY : pre[t];
                for (int k = 0; k < 5; k++)
                    if (v > best[k]) {
                        double swap = best[k];
                        best[k] = v, v = swap;
                    }
            }
            level = fmax(best[4], 0);
        }
        a[s] = pre[s] > level ? pre[s] : 0;
        near[s] = fabs(pre[s] - level) <= 2 * e[s];
        if (near[s]) e[s] += fabs(pre[s]);
    }
}

static void reference_document(Ref *r, World *u, int i, int d, int c, int group,
                               enum ScorePool pool, double error) {
    const PairItem *it = &u->item[d];
    int tokens = 0;
    for (int t = 0; t < it->n[c]; t++) tokens += it->counted[c][t];
    if (tokens == 0) return;
    const double *x = alone(u, i, d, c);
    double a[S], e[S];
    bool near[S];
    for (int t = 0; t < it->n[c]; t++) {
        if (!it->counted[c][t]) continue;
        encode(a, e, near, u, i, x + (size_t)t * u->m->c.D, error);
        double weight = pool == POOL_TOKEN ? 1 : 1.0 / tokens;
        for (int s = 0; s < S; s++) {
            r->sum[c][group][s] += weight * a[s];
            r->slack[c][group][s] += weight * (e[s] + a[s] * 1e-7);
            r->fires[c][s] += a[s] > 0;
            r->fires_slack[c][s] += near[s];
            r->max[c][s] = fmax(r->max[c][s], a[s]);
            r->max_slack[c][s] = fmax(r->max_slack[c][s], e[s]);
        }
    }
    r->tokens[c][group] += tokens;
    r->documents[c][group]++;
}

static Ref *reference(World *u, int i, enum ScorePool pool, double error) {
    Ref *r = mem_array(1, sizeof *r);
    for (int d = 0; d < DOCS; d++) {
        const PairItem *it = &u->item[d];
        int group = score_group(it->token[0], it->n[0], it->token[1], it->n[1]);
        for (int c = 0; c < 2; c++) reference_document(r, u, i, d, c, group, pool, error);
    }
    return r;
}

static int within(const double *slack, double got, double want) {
    return fabs(got - want) <= *slack;
}

static int matches(const Scores *s, int i, const Ref *r, int least) {
    const ScoreLayer *l = &s->layer[i];
    int bad = 0, live = 0;
    for (int c = 0; c < 2; c++)
        for (int j = 0; j < S; j++) {
            for (int g = 0; g < SCORE_GROUPS; g++) {
                double got = l->sum[(size_t)(c * SCORE_GROUPS + g) * S + j];
                bad += !within(&r->slack[c][g][j], got, r->sum[c][g][j]);
                live += r->sum[c][g][j] > 10 * r->slack[c][g][j];
            }
            bad += !within(&r->fires_slack[c][j], (double)l->fires[c * S + j], r->fires[c][j]);
            bad += !within(&r->max_slack[c][j], l->max[c * S + j], r->max[c][j]);
        }
    bad += memcmp(s->tokens, r->tokens, sizeof s->tokens) != 0;
    bad += memcmp(s->documents, r->documents, sizeof s->documents) != 0;
    if (!test_quiet)
        EXPECT(bad == 0 && live > least, "layer %d: %d differ, %d sums say something", l->layer,
               bad, live);
    return bad == 0;
}

/* ------------------------------------------------------------------------------------- tests */

static bool finish(ScoreRun *r, Scores *s, Err *err) {
    score_run_finish(r, s);
    if (scores_check(s, err)) return true;
    scores_free(s);
    return false;
}

static Scores run(World *u, int first, int end, int max_rows, enum ScorePool pool) {
    ScoreRun *r = score_run_open(u->m, u->sae, u->nsae, max_rows, pool);
    Scores s;
    Err err;
    for (int d = first; d < end; d++) score_run_add(r, &u->item[d]);
    CHECK(finish(r, &s, &err), "%s", err.text);
    ScoreWork w = score_run_work(r);
    EXPECT(w.rows <= w.tokens && w.counted > 0, "%lld rows of %lld tokens", (long long)w.rows,
           (long long)w.tokens);
    if (end - first == DOCS && max_rows >= 2 * LONGEST)
        EXPECT(w.rows < w.tokens - 60, "prefixes are not shared: %lld rows", (long long)w.rows);
    score_run_close(r);
    return s;
}

/* In f32 the shared and the separate forward may differ by roundings of attention: 1e-5 is over a
 * hundred of them; in bf16 every layer rounds the stream, to 2^-8, and the SAE reads all of it. */
static void test_parity(World *u) {
    bool f32 = u->m->ex->dtype == DTYPE_F32;
    double error = f32 ? 1e-5 : 0.02;
    int least = f32 ? 3 * S : 5; /* sums that stand out of the slack */
    for (int pool = 0; pool < 2; pool++)
        for (int i = 0; i < 2; i++) {
            Ref *ref = reference(u, i, (enum ScorePool)pool, error);
            Scores wide = run(u, 0, DOCS, 400, (enum ScorePool)pool);
            Scores tight = run(u, 0, DOCS, LONGEST, (enum ScorePool)pool);
            matches(&wide, i, ref, least);
            matches(&tight, i, ref, least);
            Ref *other = reference(u, 1 - i, (enum ScorePool)pool, error); /* the wrong layer */
            TEST_DETECTS(matches(&wide, i, other, least));
            u->counted[0][0][3] ^= 1; /* one token more */
            Ref *more = reference(u, i, (enum ScorePool)pool, error);
            TEST_DETECTS(matches(&wide, i, more, least));
            u->counted[0][0][3] ^= 1;
            free(ref), free(other), free(more);
            scores_free(&wide), scores_free(&tight);
        }
}

/* pre of one row without its bias, exact and with fast products, in double. */
static void both_products(double *exact, double *fast, const World *u, int i, const double *x) {
    int D = u->m->c.D;
    for (int s = 0; s < S; s++) {
        exact[s] = fast[s] = 0;
        for (int d = 0; d < D; d++) {
            double w = u->w[i][d * S + s];
            exact[s] += x[d] * w;
            fast[s] += (double)bf16_to_f32(bf16_from_f32((float)x[d])) *
                       bf16_to_f32(bf16_from_f32((float)w));
        }
    }
}

/* What ScoreWork should say of the first 64 rows of SAE 1, and how many of its decisions are too
 * near to tell. A stream that differs by `error` may also round otherwise, here and there. */
typedef struct Flips {
    int fires, flips, near;
} Flips;

static Flips count_flips(World *u, double error) {
    Flips f = {0, 0, 0};
    int rows = 0;
    for (int d = 0; d < DOCS; d++)
        for (int c = 0; c < 2; c++)
            for (int t = 0; t < u->item[d].n[c]; t++) {
                if (!u->counted[d][c][t] || rows++ >= 64) continue;
                const double *x = alone(u, 1, d, c) + (size_t)t * u->m->c.D;
                double exact[S], fast[S];
                both_products(exact, fast, u, 1, x);
                for (int s = 0; s < S; s++) {
                    double level = u->threshold[1][s] - u->b[1][s], size = fabs(u->b[1][s]);
                    for (int j = 0; j < u->m->c.D; j++) size += fabs(x[j] * u->w[1][j * S + s]);
                    f.fires += exact[s] > level;
                    f.flips += (exact[s] > level) != (fast[s] > level);
                    f.near += fabs(exact[s] - level) <= error * size ||
                              fabs(fast[s] - level) <= 10 * error * size;
                }
            }
    EXPECT(rows > 64, "%d rows: the sample takes all of them", rows);
    return f;
}

/* Biases put the thresholds of SAE 1 between what the first counted row has with exact and with
 * fast products: all its features flip. */
static void test_fast(World *u) {
    int t = 0;
    while (!u->counted[0][0][t]) t++;
    double exact[S], fast[S];
    both_products(exact, fast, u, 1, alone(u, 1, 0, 0) + (size_t)t * u->m->c.D);
    float b[S];
    for (int s = 0; s < S; s++)
        u->b[1][s] = b[s] = (float)(u->threshold[1][s] - (exact[s] + fast[s]) / 2);
    exec_copy_in(u->m->ex, u->sae[1].b, b, sizeof b);
    u->sae[1].enc.products = SAE_FAST;
    World one = *u; /* SAE 1 alone */
    one.sae[0] = one.sae[1], one.nsae = 1;
    ScoreRun *r = score_run_open(u->m, one.sae, 1, 400, POOL_TOKEN);
    Scores s;
    Err err;
    for (int d = 0; d < DOCS; d++) score_run_add(r, &u->item[d]);
    CHECK(finish(r, &s, &err), "%s", err.text);
    ScoreWork w = score_run_work(r);
    Flips f = count_flips(u, 1e-5);
    EXPECT(s.products == SAE_FAST, "scores of fast products say %d", s.products);
    EXPECT(llabs(w.fires - f.fires) <= f.near && llabs(w.flips - f.flips) <= f.near &&
               f.flips > S / 2 + f.near,
           "%lld firings, %lld flips; expected %d, %d, of which %d are near", (long long)w.fires,
           (long long)w.flips, f.fires, f.flips, f.near);
    scores_free(&s);
    score_run_close(r);
    u->sae[1].enc.products = SAE_EXACT;
}

static void swap_corpora(World *u) {
    for (int d = 0; d < DOCS; d++) {
        PairItem it = u->item[d];
        for (int c = 0; c < 2; c++) {
            u->item[d].token[c] = it.token[1 - c];
            u->item[d].counted[c] = it.counted[1 - c];
            u->item[d].n[c] = it.n[1 - c];
        }
    }
}

static void test_swapped(World *u) {
    Ref *ref = reference(u, 1, POOL_TOKEN, 1e-5);
    swap_corpora(u);
    Scores s = run(u, 0, DOCS, 400, POOL_TOKEN);
    TEST_DETECTS(matches(&s, 1, ref, 0));
    swap_corpora(u);
    scores_free(&s);
    free(ref);
}

/* Counts and maxima are equal, sums up to the rounding of adding in another order. */
static void expect_regrouped(const char *what, const Scores *got, const Scores *all) {
    char name[64];
    for (int i = 0; i < 2; i++) {
        const ScoreLayer *x = &got->layer[i], *y = &all->layer[i];
        snprintf(name, sizeof name, "%s: sums", what);
        test_close(name, x->sum, y->sum, 2 * SCORE_GROUPS * S, 0, 64 * 0x1p-53);
        test_close(name, x->sumsq, y->sumsq, 2 * S, 0, 256 * 0x1p-53);
        EXPECT(memcmp(x->fires, y->fires, 2 * S * sizeof *x->fires) == 0, "%s: fires", what);
        EXPECT(memcmp(x->max, y->max, 2 * S * sizeof *x->max) == 0, "%s: max", what);
    }
    EXPECT(memcmp(got->tokens, all->tokens, sizeof all->tokens) == 0, "%s: tokens", what);
}

/* score(A + B) = merge(score(A), score(B)). The cut changes which documents share a pack, so rows'
 * bits must not depend on their pack. */
static void test_merge(World *u) {
    Scores all = run(u, 0, DOCS, 120, POOL_TOKEN);
    for (int cut = 5; cut <= 7; cut++) { /* each part has both corpora */
        Scores a = run(u, 0, cut, 120, POOL_TOKEN), b = run(u, cut, DOCS, 120, POOL_TOKEN);
        Err err;
        CHECK(scores_merge(&a, &b, &err), "%s", err.text);
        expect_regrouped("merged", &a, &all);
        scores_free(&a), scores_free(&b);
    }
    scores_free(&all);
}

/* The order of the documents is none of the result. */
static void test_order(World *u) {
    Scores all = run(u, 0, DOCS, 120, POOL_TOKEN);
    for (int d = 0; d < DOCS / 2; d++) {
        PairItem swap = u->item[d];
        u->item[d] = u->item[DOCS - 1 - d];
        u->item[DOCS - 1 - d] = swap;
    }
    Scores back = run(u, 0, DOCS, 120, POOL_TOKEN);
    expect_regrouped("reversed", &back, &all);
    scores_free(&back), scores_free(&all);
}

static void test_threads(World *u) {
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    Scores one = run(u, 0, DOCS, 120, POOL_TOKEN);
    for (int threads = 2; threads <= 4; threads += 2) {
        omp_set_num_threads(threads);
        Scores more = run(u, 0, DOCS, 120, POOL_TOKEN);
        for (int i = 0; i < 2; i++) {
            const ScoreLayer *x = &one.layer[i], *y = &more.layer[i];
            EXPECT(memcmp(x->sum, y->sum, 2 * SCORE_GROUPS * S * sizeof *x->sum) == 0 &&
                       memcmp(x->sumsq, y->sumsq, 2 * S * sizeof *x->sumsq) == 0,
                   "layer %d: other bits with %d threads", x->layer, threads);
        }
        scores_free(&more);
    }
    omp_set_num_threads(before);
    scores_free(&one);
}

/* A run can be used again, and starts from nothing. */
static void test_again(World *u) {
    ScoreRun *r = score_run_open(u->m, u->sae, u->nsae, 100, POOL_TOKEN);
    Scores s[2];
    Err err;
    for (int turn = 0; turn < 2; turn++) {
        for (int d = 0; d < DOCS; d++) score_run_add(r, &u->item[d]);
        CHECK(finish(r, &s[turn], &err), "%s", err.text);
    }
    for (int i = 0; i < 2; i++)
        EXPECT(memcmp(s[0].layer[i].sum, s[1].layer[i].sum, 2 * SCORE_GROUPS * S * 8) == 0,
               "again");
    scores_free(&s[1]);
    score_run_add(r, &u->item[5]); /* corpus 0 alone */
    EXPECT(!finish(r, &s[1], &err) && strstr(err.text, "unaligned corpus has no token"), "%s",
           err.text);
    score_run_close(r);
    scores_free(&s[0]);
}

static void test_not_finite(World *u) {
    Err err;
    Scores s;
    float bad = NAN;
    exec_copy_in(u->m->ex, u->sae[1].b + 7, &bad, sizeof bad);
    ScoreRun *r = score_run_open(u->m, u->sae, u->nsae, 100, POOL_TOKEN);
    score_run_add(r, &u->item[0]);
    EXPECT(
        !finish(r, &s, &err) && err.code == EXIT_NUMBERS && strstr(err.text, "layer 1, feature 7"),
        "%s", err.text);
    score_run_close(r);
}

/* JumpReLU makes zeros of a stream of NaN: the sums alone look sound. */
static void test_bad_stream(World *u) {
    float scale = u->m->embed_scale;
    ScoreRun *r = score_run_open(u->m, u->sae, u->nsae, 100, POOL_TOKEN);
    u->m->embed_scale = NAN;
    score_run_add(r, &u->item[0]);
    EXPECT(!score_run_bad(r), "nothing has run yet");
    for (int d = 0; d < DOCS; d++) score_run_add(r, &u->item[d]);
    EXPECT(score_run_bad(r), "a pass over NaN was not noticed");
    u->m->embed_scale = scale;
    for (int d = 0; d < DOCS; d++) score_run_add(r, &u->item[d]);
    EXPECT(score_run_bad(r), "sound passes made up for it");
    score_run_close(r);
}

static void body(Exec *ex) {
    for (int i = 0; i < GOLDEN_MODELS; i++) {
        Golden g;
        World u;
        golden_open(&g, ex, golden_models[i]);
        world_open(&u, &g.m);
        if (ex->dtype == DTYPE_F32 || i == 0) test_parity(&u);
        if (i == 0) test_swapped(&u), test_again(&u);
        if (ex->dtype == DTYPE_F32) test_fast(&u);
        test_merge(&u);
        if (test_on_cpu(ex)) test_threads(&u);
        test_order(&u);
        test_bad_stream(&u);
        test_not_finite(&u);
        world_close(&u);
        golden_close(&g);
    }
}

int main(void) {
    test_each_exec(body);
    return test_done("test_score_run");
}
