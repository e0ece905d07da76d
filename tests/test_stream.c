/* Document vectors against every document run alone, and their moments against two passes over the
 * vectors in long double; the file, and what is refused. */
#include "model/stream.h"

#include <omp.h>

#include "model/stream_run.h"
#include "tests/files.h"
#include "tests/golden.h"

/* ------------------------------------------------------------------------------ the vectors -- */

enum { ITEMS = 9, LONGEST = 28, LAYERS = 2, TURNS = 5 };

typedef struct World {
    Model *m;
    int layer[LAYERS];
    int32_t token[ITEMS][2][LONGEST];
    uint8_t counted[ITEMS][2][LONGEST];
    PairItem item[ITEMS];
} World;

/* Long and short shared prefixes, none, a document that another begins with, documents alone;
 * tokens that count within the prefix, and none behind. */
static void world_open(World *u, Model *m) {
    static const int form[ITEMS][3] = {/* n0, n1, shared */
                                       {20, 25, 15}, {9, 9, 8},   {28, 8, 0},
                                       {6, 28, 6},   {11, 0, 0},  {0, 17, 0},
                                       {24, 22, 3},  {16, 10, 9}, {15, 18, 12}};
    *u = (World){.m = m, .layer = {0, m->c.L - 1}};
    for (int d = 0; d < ITEMS; d++)
        for (int c = 0; c < 2; c++) {
            u->item[d].n[c] = form[d][c];
            u->item[d].token[c] = u->token[d][c], u->item[d].counted[c] = u->counted[d][c];
            for (int t = 0; t < form[d][c]; t++) {
                uint64_t at = (uint64_t)((t < form[d][2] ? d : d * 2 + c + 100) * LONGEST + t);
                double v = (test_noise(50, at) + 1) / 2;
                u->token[d][c][t] = t == 0 ? 2 : 3 + (int32_t)(v * (m->c.V - 3));
                u->counted[d][c][t] =
                    (d % 3 == 0 ? t > 2 : t >= form[d][c] / 2) && (d % 2 || t + 2 < form[d][c]);
            }
        }
    u->counted[1][0][8] = u->counted[1][1][8] = 1;
}

typedef struct Grab {
    const World *u;
    const uint8_t *counted;
    double *mean, *size; /* (LAYERS,D): of the rows that count, and of their sizes */
} Grab;

static void grab(void *context, int layer, const store *x, int N) {
    Grab *g = context;
    int D = g->u->m->c.D, i = 0, n = 0;
    while (i < LAYERS && g->u->layer[i] != layer) i++;
    if (i == LAYERS) return;
    double *row = test_get_store(g->u->m->ex, x, (size_t)N * D);
    for (int t = 0; t < N; t++) n += g->counted[t];
    for (int t = 0; t < N; t++)
        for (int k = 0; k < D && g->counted[t]; k++) {
            g->mean[i * D + k] += row[t * D + k] / n;
            g->size[i * D + k] += fabs(row[t * D + k]) / n;
        }
    free(row);
}

/* Is `got` (LAYERS,D) the document's vector? In f32 a document that shares rows differs from one
 * alone by roundings of attention: 1e-5 is over a hundred of them; in bf16 each layer rounds the
 * stream to 2^-9. The sum over its tokens is off by as many roundings of f32. */
static int is_vector(const World *u, int d, int c, const double *got) {
    size_t n = (size_t)LAYERS * (size_t)u->m->c.D;
    Grab g = {u, u->counted[d][c], mem_array(n, sizeof(double)), mem_array(n, sizeof(double))};
    double error = u->m->ex->dtype == DTYPE_F32 ? 1e-5 : 0.02, largest = 0;
    golden_alone(u->m, u->token[d][c], u->item[d].n[c], grab, &g);
    for (size_t k = 0; k < n; k++) largest = fmax(largest, g.size[k]);
    for (size_t k = 0; k < n; k++) g.size[k] = error * largest + LONGEST * 0x1p-24 * g.size[k];
    int ok = test_close_each("document vector", got, g.mean, g.size, n);
    free(g.mean), free(g.size);
    return ok;
}

/* to (TURNS,ITEMS,2,LAYERS,D): all items, again and again, so that documents fill packs, too. */
static double *run(World *u, int max_rows) {
    size_t one = (size_t)LAYERS * (size_t)u->m->c.D;
    double *to = mem_array(2 * TURNS * ITEMS * one, sizeof *to);
    StreamRun *r = stream_run_open(u->m, u->layer, LAYERS, max_rows);
    for (int i = 0; i < TURNS * ITEMS; i++) {
        const PairItem *it = &u->item[i % ITEMS];
        double *at = to + 2 * (size_t)i * one;
        stream_run_add(r, it, (double *const[2]){it->n[0] ? at : NULL, it->n[1] ? at + one : NULL});
    }
    stream_run_finish(r);
    StreamWork w = stream_run_work(r);
    EXPECT(!stream_run_bad(r) && w.rows < w.tokens && w.counted > 0, "%lld rows of %lld tokens",
           (long long)w.rows, (long long)w.tokens);
    if (max_rows > 2 * LONGEST) /* the prefixes, and what is behind the last one that counts */
        EXPECT(w.rows <= w.tokens - TURNS * 53,
               /* 15 + 8 + 1 + 5 + 3 + 9 + 12 */ "prefixes are not shared: %lld rows of %lld",
               (long long)w.rows, (long long)w.tokens);
    stream_run_close(r);
    return to;
}

static void test_vectors(World *u) {
    size_t one = (size_t)LAYERS * (size_t)u->m->c.D;
    for (int way = 0; way < (test_on_cpu(u->m->ex) ? 2 : 1); way++) {
        double *to = run(u, way ? LONGEST : 1600);
        for (int i = 0; i < TURNS * ITEMS; i++)
            for (int c = 0; c < 2; c++) {
                int d = i % ITEMS;
                const double *got = to + (2 * (size_t)i + (size_t)c) * one;
                if (u->item[d].n[c] == 0 || (i >= ITEMS && i < (TURNS - 1) * ITEMS)) continue;
                EXPECT(is_vector(u, d, c, got), "item %d, corpus %d, of packs of %d", i, c,
                       way ? LONGEST : 1600);
                if (i >= ITEMS || u->m->ex->dtype != DTYPE_F32) continue;
                u->counted[d][c][1] ^= 1; /* another token */
                TEST_DETECTS(is_vector(u, d, c, got));
                u->counted[d][c][1] ^= 1;
            }
        free(to);
    }
    EXPECT(stream_run_bytes(&u->m->c, NULL, u->m->ex->dtype, 40) >
               acts_bytes(&u->m->c, NULL, u->m->ex->dtype, 40, 40, 0, ACTS_INFER),
           "the sums take no memory");
}

/* A stream that is not finite is noticed. */
static void test_bad(World *u) {
    Exec *ex = u->m->ex;
    double *to = mem_array(2 * (size_t)LAYERS * (size_t)u->m->c.D, sizeof *to);
    float bad = NAN, was;
    StreamRun *r = stream_run_open(u->m, u->layer, LAYERS, 64);
    exec_copy_out(ex, &was, u->m->cos, sizeof was);
    exec_copy_in(ex, u->m->cos, &bad, sizeof bad);
    stream_run_add(r, &u->item[4], (double *const[2]){to, NULL});
    stream_run_finish(r);
    EXPECT(stream_run_bad(r), "a bad stream was not noticed");
    exec_copy_in(ex, u->m->cos, &was, sizeof was);
    stream_run_close(r);
    free(to);
}

/* ------------------------------------------------------------------------------- the moments -- */

enum { N = 37, D = 19 };

/* v (N,2,LAYERS,D): vectors far from zero, the two of a pair alike. */
static double *vectors(const uint8_t *has) {
    double *v = test_noise_array(3, (size_t)N * 2 * LAYERS * D, 1);
    for (int i = 0; i < N; i++)
        for (int c = 0; c < 2; c++)
            for (int k = 0; k < LAYERS * D; k++) {
                double *x = &v[((size_t)i * 2 + (size_t)c) * LAYERS * D + (size_t)k];
                double common = test_noise(4, (uint64_t)(i * LAYERS * D + k));
                *x = has[i] >> c & 1 ? 5 + *x + 2 * common + c * (k % 3) : 0;
            }
    return v;
}

static StreamMoments moments(const uint8_t *has, const double *v, int step) {
    StreamMoments s;
    Err err;
    stream_init(&s, D, (int[]){3, 8}, LAYERS);
    for (int i = 0; i < N; i += step)
        stream_add(&s, has + i, v + (size_t)i * 2 * LAYERS * D, i + step < N ? step : N - i);
    MUST(stream_finish(&s, &err), err);
    return s;
}

/* The vectors of corpus c at a layer, of pairs their difference (c 2), as (n,D). */
static int gather(double *x, const uint8_t *has, const double *v, int layer, int c) {
    int n = 0;
    for (int i = 0; i < N; i++) {
        const double *v0 = v + ((size_t)i * 2 * LAYERS + (size_t)layer) * D;
        const double *v1 = v0 + LAYERS * D;
        if (c == 2 ? has[i] != 3 : !(has[i] >> c & 1)) continue;
        for (int k = 0; k < D; k++) x[n * D + k] = c == 2 ? v0[k] - v1[k] : c ? v1[k] : v0[k];
        n++;
    }
    return n;
}

/* Covariance of n vectors, or their second moment, in long double. */
static void covariance(long double *C, long double *mean, const double *x, int n, bool centred) {
    for (int k = 0; k < D; k++) mean[k] = 0;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < D; k++) mean[k] += (long double)x[i * D + k] / n;
    for (int a = 0; a < D; a++)
        for (int b = 0; b < D; b++) {
            C[a * D + b] = 0;
            for (int i = 0; i < n; i++)
                C[a * D + b] += (x[i * D + a] - (centred ? mean[a] : 0)) *
                                (x[i * D + b] - (centred ? mean[b] : 0)) / n;
        }
}

/* |got - want|, Euclidean, is within what the function says of itself, and that is of the order of
 * rounding: N 2^-51 of the vectors' squares, which are below 100 D. */
static int is_close(const double *got, const long double *want, int n, double said, double most) {
    long double sum = 0;
    for (int i = 0; i < n; i++) sum += (got[i] - want[i]) * (got[i] - want[i]);
    int ok = sqrtl(sum) <= said && said <= most;
    EXPECT(test_quiet || ok, "off by %Lg of %g of %g", sqrtl(sum), said, most);
    return ok;
}

static void test_layer(const StreamMoments *s, const uint8_t *has, const double *v, int layer) {
    double x[3][N * D], got[D * D], most = 2.0 * N * 0x1p-51 * 100 * D * 2;
    static long double C[3][D * D], raw[D * D], mean[3][D], want[D * D], tr[3] = {0};
    int n[3];
    for (int c = 0; c < 3; c++) {
        n[c] = gather(x[c], has, v, layer, c);
        covariance(C[c], mean[c], x[c], n[c], true);
        tr[c] = 0;
        for (int k = 0; k < D; k++) tr[c] += C[c][k * D + k];
    }
    for (int k = 0; k < D; k++) want[k] = mean[0][k] - mean[1][k];
    double said = stream_mean(got, s, layer);
    is_close(got, want, D, said, most);
    got[3] += 2 * said;
    TEST_DETECTS(is_close(got, want, D, said, most));
    for (int i = 0; i < D * D; i++) want[i] = C[0][i] - C[1][i];
    said = stream_covariance(got, s, layer);
    is_close(got, want, D * D, said, most);
    got[D] += 2 * said;
    TEST_DETECTS(is_close(got, want, D * D, said, most));
    double shared = stream_shared(s, layer);
    if (n[2] == 0) {
        EXPECT(isnan(shared) && s->pairs == 0, "pairs share %g", shared);
        return;
    }
    covariance(raw, mean[2], x[2], n[2], false);
    said = stream_pairs(got, s, layer);
    is_close(got, raw, D * D, said, most);
    EXPECT(fabsl(shared - (1 - tr[2] / (tr[0] + tr[1]))) <= most / (double)(tr[0] + tr[1]),
           "pairs share %g", shared);
    EXPECT(shared > 0.6 && shared < 0.9, "pairs share %g", shared);
}

static void test_moments(void) {
    uint8_t pairs[N], mixed[N];
    for (int i = 0; i < N; i++) pairs[i] = 3, mixed[i] = i < 15 ? 1 : 2;
    for (int way = 0; way < 2; way++) {
        const uint8_t *has = way ? mixed : pairs;
        double *v = vectors(has);
        StreamMoments s = moments(has, v, N), parts = moments(has, v, 5);
        EXPECT(s.documents[0] == (way ? 15 : N) && s.documents[1] == (way ? N - 15 : N) &&
                   s.pairs == (way ? 0 : N),
               "%lld, %lld, %lld", (long long)s.documents[0], (long long)s.documents[1],
               (long long)s.pairs);
        for (int l = 0; l < LAYERS; l++) {
            test_layer(&s, has, v, l);
            EXPECT(
                !memcmp(s.layer[l].sum, parts.layer[l].sum, sizeof(double) * 2 * D) &&
                    !memcmp(s.layer[l].square, parts.layer[l].square, sizeof(double) * 2 * D * D) &&
                    !memcmp(s.layer[l].difference, parts.layer[l].difference,
                            sizeof(double) * D * D),
                "other bits in parts");
        }
        stream_free(&s), stream_free(&parts);
        free(v);
    }
}

static void test_threads(void) {
    uint8_t has[N];
    int before = omp_get_max_threads();
    memset(has, 3, sizeof has);
    double *v = vectors(has);
    StreamMoments one, more;
    omp_set_num_threads(1);
    one = moments(has, v, N);
    for (int threads = 2; threads <= 4; threads += 2) {
        omp_set_num_threads(threads);
        more = moments(has, v, N);
        EXPECT(!memcmp(one.layer[1].square, more.layer[1].square, sizeof(double) * 2 * D * D),
               "other bits with %d threads", threads);
        stream_free(&more);
    }
    omp_set_num_threads(before);
    stream_free(&one);
    free(v);
}

/* ---------------------------------------------------------------------------------- the file -- */

static void expect_load_refused(const StreamMoments *s, const char *message) {
    StreamMoments back;
    Err err;
    MUST(stream_save(s, test_path("bad"), &err), err);
    EXPECT_REFUSED(stream_load(&back, test_path("bad"), &err), err, EXIT_INPUT, message);
    EXPECT(!back.layer && back.n == 0, "something was left behind");
}

static void test_file_kept(void) {
    uint8_t has[N];
    Err err;
    memset(has, 3, sizeof has);
    double *v = vectors(has);
    StreamMoments s = moments(has, v, N), back;
    stream_text(&s.counted, "reply");
    MUST(stream_save(&s, test_path("good"), &err), err);
    MUST(stream_load(&back, test_path("good"), &err), err);
    EXPECT(back.n == LAYERS && back.D == D && back.layer[1].layer == 8 && back.pairs == N &&
               back.documents[1] == N && strcmp(back.counted, "reply") == 0,
           "other facts");
    EXPECT(!memcmp(s.layer[1].square, back.layer[1].square, sizeof(double) * 2 * D * D) &&
               !memcmp(s.layer[0].sum, back.layer[0].sum, sizeof(double) * 2 * D) &&
               !memcmp(s.layer[1].difference, back.layer[1].difference, sizeof(double) * D * D),
           "other sums");
    stream_free(&back);
    s.pairs = N - 1;
    expect_load_refused(&s, "either all of them in pairs or none");
    s.pairs = 0, s.documents[1] = 1;
    expect_load_refused(&s, "two documents or more");
    s.documents[1] = N, s.layer[1].difference[7] = NAN;
    expect_load_refused(&s, "layer 8: expected finite sums");
    stream_free(&s);
    free(v);
}

static void test_refused(void) {
    StreamMoments s;
    Err err;
    double v[3 * 2 * D] = {0};
    stream_init(&s, D, (int[]){3}, 1);
    stream_add(&s, (uint8_t[]){1, 1, 2}, v, 3);
    EXPECT_REFUSED(stream_finish(&s, &err), err, EXIT_INPUT, "unaligned corpus has 1 documents");
    stream_add(&s, (uint8_t[]){2}, v, 1);
    EXPECT(stream_finish(&s, &err) && isnan(stream_shared(&s, 0)), "nothing but zeros");
    v[5] = INFINITY;
    stream_add(&s, (uint8_t[]){1}, v, 1);
    EXPECT_REFUSED(stream_finish(&s, &err), err, EXIT_NUMBERS, "layer 3: the stream is not finite");
    stream_free(&s);
}

static void body(Exec *ex) {
    Golden g;
    World u;
    golden_open(&g, ex, golden_models[0]);
    world_open(&u, &g.m);
    test_vectors(&u);
    if (test_on_cpu(ex)) test_bad(&u);
    golden_close(&g);
}

int main(void) {
    test_each_exec(body);
    test_moments();
    test_threads();
    test_file_kept();
    test_refused();
    return test_done("test_stream");
}
