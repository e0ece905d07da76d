/* Sampling against a reference that sorts and sums in double: the drawn token must be the one in
 * whose interval of the cumulative distribution the quantile lies. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/test.h"

/* Rows of several slices, which small ones have as well. */
static int wide(int V) {
    return test_brief() ? 9000 : V;
}

typedef struct Ranked {
    double z, p; /* p: of the kept set, sums to 1 */
    int token;
} Ranked;

static int by_rank(const void *a, const void *b) {
    const Ranked *p = a, *q = b;
    if (p->z != q->z) return p->z > q->z ? -1 : 1;
    return p->token - q->token;
}

/* How far probabilities may be off: f32 rounds the logit's difference to the largest, divided by
 * the temperature, and exp; weights are cut at 2^-40 of the largest. */
static double slack(const Ranked *r, int V, double temperature) {
    return 4 * 0x1p-24 * (1 + fmin(fabs(r[0].z - r[V - 1].z) / temperature, 30)) + V * 0x1p-40;
}

/* Computes p of the kept set of a ranked row; returns the set's size. `edge` (0 or the slack)
 * moves top_p, to find the smallest and the largest set that rounding may leave. */
static int ref_distribution(Ranked *r, int V, Sampling how, double edge) {
    int n = how.top_k > 0 && how.top_k < V ? how.top_k : V, kept = 0;
    double total = 0, sum = 0;
    for (int i = 0; i < n; i++) total += r[i].p = exp((r[i].z - r[0].z) / how.temperature);
    if (how.top_p < 1) {
        while (kept < n && (kept == 0 || sum < (how.top_p + edge) * total)) sum += r[kept++].p;
    } else {
        kept = n, sum = total;
    }
    for (int i = 0; i < kept; i++) r[i].p /= sum;
    return kept;
}

/* 1 if `token` is a right draw at quantile u. */
static int right_draw(const double *z, int V, Sampling how, double u, int token) {
    Ranked *r = malloc((size_t)V * sizeof *r);
    int ok = 0;
    for (int i = 0; i < V; i++) r[i] = (Ranked){z[i], 0, i};
    qsort(r, (size_t)V, sizeof *r, by_rank);
    double s = slack(r, V, how.temperature);
    for (int side = -1; side <= 1 && !ok; side++) { /* top_p may fall on an edge */
        double before = 0;
        int kept = ref_distribution(r, V, how, side * s);
        for (int i = 0; i < kept; i++) {
            if (r[i].token == token) ok = u >= before - s && u < before + r[i].p + s;
            before += r[i].p;
        }
    }
    free(r);
    return ok;
}

/* Checks all tokens of a batch; returns 1 if they are right. */
static int check_draws(const char *what, const double *z, const double *u, const int32_t *token,
                       int N, int V, Sampling how) {
    int bad = 0;
    for (int n = 0; n < N; n++) bad += !right_draw(z + (size_t)n * V, V, how, u[n], token[n]);
    if (bad && !test_quiet) printf("FAIL %s: %d of %d draws\n", what, bad, N), test_fail();
    return bad == 0;
}

static void test_draws(Exec *ex, int N, int V, double levels, float cap, Sampling how) {
    size_t n = (size_t)N * V;
    double *Z = test_noise_array(3, n, 8), *U = test_noise_array(4, N, 1);
    for (size_t i = 0; i < n && levels > 0; i++) Z[i] = round(Z[i] * levels) / levels; /* ties */
    for (int i = 0; i < N; i++) U[i] = i == 0 ? 0 : i == 1 ? 1 - 0x1p-24 : fabs(U[i]);
    float *z = test_f32(ex, Z, n), *u = test_f32(ex, U, N);
    int32_t *token = test_alloc(ex, N * 4), *id = malloc(((size_t)N + 1) * sizeof *id);
    ex->op->sample(ex, token, z, u, N, V, cap, how);
    exec_copy_out(ex, id, token, N * 4);
    double *left = test_get_f32(ex, z, n);
    char what[160];
    snprintf(what, sizeof what, "%s sample N=%d V=%d temperature=%g top_k=%d top_p=%g",
             ex->op->name, N, V, how.temperature, how.top_k, how.top_p);
    for (size_t i = 0; i < n && cap > 0; i++) Z[i] = cap * tanh(Z[i] / cap);
    test_close(what, left, Z, n, 0, 8 * 0x1p-24); /* scalar_softcap's 3.5 ulp */
    check_draws(what, left, U, id, N, V, how);
    if (N > 8 && V > 8) {
        int sharp = how.top_k == 1 || how.top_p < 0.1f || how.temperature < 0.1f;
        for (int i = 0; i < N; i++) U[i] = 1 - 0x1p-24 - U[i];
        if (!sharp) TEST_DETECTS(check_draws(what, left, U, id, N, V, how));
        for (int i = 0; i < N; i++) U[i] = 1 - 0x1p-24 - U[i];
        id[0] = (id[0] + 1) % V;
        TEST_DETECTS(check_draws(what, left, U, id, N, V, how));
    }
    test_free(ex, z), test_free(ex, u), test_free(ex, token);
    free(Z), free(U), free(left), free(id);
}

/* top_k among ties: exactly the first k in index order can come. */
static void test_tied_top_k(Exec *ex) {
    enum { N = 512, V = 100, K = 5 };
    double *Z = test_noise_array(5, N * V, 0), *U = test_noise_array(6, N, 1);
    for (int n = 0; n < N; n++) {
        U[n] = (n + 0.5) / N;
        for (int i = 0; i < V; i += 3) Z[n * V + i] = i % 2 ? 0.0 : -0.0; /* ties too */
        Z[n * V + 10] = 1;
    }
    float *z = test_f32(ex, Z, N * V), *u = test_f32(ex, U, N);
    int32_t *token = test_alloc(ex, N * 4), id[N], seen[V] = {0};
    ex->op->sample(ex, token, z, u, N, V, 0, (Sampling){1, 1, K});
    exec_copy_out(ex, id, token, sizeof id);
    for (int n = 0; n < N; n++) seen[id[n]]++;
    EXPECT(seen[10] > 0 && seen[0] && seen[1] && seen[2] && seen[3] &&
               seen[10] + seen[0] + seen[1] + seen[2] + seen[3] == N,
           "top_k=5 kept %d %d %d %d and %d of token 10", seen[0], seen[1], seen[2], seen[3],
           seen[10]);
    EXPECT(id[0] == 10 && id[N - 1] == 3, "falling order, then index order: %d .. %d", id[0],
           id[N - 1]);
    test_free(ex, z), test_free(ex, u), test_free(ex, token);
    free(Z), free(U);
}

/* Probabilities that sums reach exactly: eight equal logits and top_p = k/8 keep k tokens. */
static void test_exact_top_p(Exec *ex) {
    enum { N = 64, V = 8 };
    double Z[N * V] = {0}, U[N];
    for (int n = 0; n < N; n++) U[n] = (double)n / N;
    float *z = test_f32(ex, Z, N * V), *u = test_f32(ex, U, N);
    int32_t *token = test_alloc(ex, N * 4), id[N];
    for (int k = 1; k <= V; k++) {
        ex->op->sample(ex, token, z, u, N, V, 0, (Sampling){1, k / 8.0f, 0});
        exec_copy_out(ex, id, token, sizeof id);
        for (int n = 0; n < N; n++)
            EXPECT(id[n] == n * k / N, "top_p=%d/8 u=%g: %d, want %d", k, U[n], id[n], n * k / N);
    }
    test_free(ex, z), test_free(ex, u), test_free(ex, token);
}

static void test_greedy(Exec *ex, int N, int V) {
    size_t n = (size_t)N * V;
    double *Z = test_noise_array(7, n, 90);
    int32_t *want = calloc((size_t)N + 1, sizeof *want), *id = calloc((size_t)N + 1, sizeof *id);
    for (int i = 0; i < N; i++) { /* two equal largest, beyond the rest even when capped */
        want[i] = (i * 31) % V;
        Z[(size_t)i * V + want[i]] = 100;
        if (i % 2) Z[(size_t)i * V + V - 1] = 100;
    }
    float *z = test_f32(ex, Z, n);
    int32_t *token = test_alloc(ex, N * 4);
    ex->op->sample(ex, token, z, NULL, N, V, 30, (Sampling){0, 1, 0});
    exec_copy_out(ex, id, token, N * 4);
    for (int i = 0; i < N; i++)
        EXPECT(id[i] == want[i], "%s greedy row %d: %d, want %d", ex->op->name, i, id[i], want[i]);
    test_free(ex, z), test_free(ex, token);
    free(Z), free(want), free(id);
}

/* Tokens do not depend on threads or on the rows beside them. */
static void test_bits(Exec *ex, int N, int V) {
    size_t n = (size_t)N * V;
    Sampling how = {0.8f, 0.95f, 0};
    double *Z = test_noise_array(8, n, 10), *U = test_noise_array(9, N, 1);
    int32_t *first = malloc((size_t)N * 4), *id = malloc((size_t)N * 4);
    for (int i = 0; i < N; i++) U[i] = fabs(U[i]);
    float *z = test_f32(ex, Z, n), *u = test_f32(ex, U, N);
    int32_t *token = test_alloc(ex, N * 4);
    for (int threads = 1; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        ex->op->sample(ex, token, z, u, N, V, 0, how);
        exec_copy_out(ex, id, token, (size_t)N * 4);
        for (int i = 0; i < N; i++) {
            if (threads == 1) first[i] = id[i];
            EXPECT(id[i] == first[i], "row %d: %d with %d threads, %d with one", i, id[i], threads,
                   first[i]);
        }
        ex->op->sample(ex, token, z + (n - V), u + (N - 1), 1, V, 0, how);
        exec_copy_out(ex, id, token, 4);
        EXPECT(id[0] == first[N - 1], "the last row alone: %d, want %d", id[0], first[N - 1]);
    }
    test_free(ex, z), test_free(ex, u), test_free(ex, token);
    free(Z), free(U), free(first), free(id);
}

static void test_contract(Exec *ex) {
    double v[4] = {-INFINITY, -INFINITY, -INFINITY, 3};
    float *z = test_f32(ex, v, 4), *u = test_f32(ex, &(double){0.999}, 1);
    int32_t *token = test_alloc(ex, 4), id;
    ex->op->sample(ex, token, z, u, 1, 4, 0, (Sampling){1, 1, 0}); /* -infinity: never drawn */
    exec_copy_out(ex, &id, token, 4);
    EXPECT(id == 3, "drew %d", id);
    TEST_DIES(ex, ex->op->sample(ex, token, z, NULL, 1, 4, 0, (Sampling){1, 1, 0}));
    test_free(ex, z), test_free(ex, u), test_free(ex, token);
}

/* One row of three cannot be drawn from, for one logit of it; its neighbours can. */
static void test_undrawable(Exec *ex, int V, double value, float cap, Sampling how, int want) {
    double *Z = test_noise_array(11, 3 * (size_t)V, 1), U[3] = {0.1, 0.5, 0.9};
    Z[(size_t)V + V / 2] = value;
    for (int i = 0; i < V && value == -INFINITY; i++) Z[V + i] = value;
    float *z = test_f32(ex, Z, 3 * (size_t)V), *u = test_f32(ex, U, 3);
    int32_t *token = test_alloc(ex, 12), id[3];
    ex->op->sample(ex, token, z, how.temperature > 0 ? u : NULL, 3, V, cap, how);
    exec_copy_out(ex, id, token, 12);
    EXPECT(id[0] >= 0 && id[2] >= 0 && id[1] == want, "V=%d %g cap %g temperature %g: %d %d %d", V,
           value, cap, how.temperature, id[0], id[1], id[2]);
    test_free(ex, z), test_free(ex, u), test_free(ex, token);
    free(Z);
}

static void test_undrawables(Exec *ex) {
    static const double bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (int V = 5; V <= wide(70000); V += wide(70000) - 5)
        for (int i = 0; i < 4; i++)
            for (int temperature = 0; temperature < 2; temperature++) {
                Sampling how = {(float)temperature, 0.9f, 0};
                test_undrawable(ex, V, bad[i], 0, how, -1);
                if (i < 2) test_undrawable(ex, V, bad[i], 30, how, -1);
            }
    test_undrawable(ex, 9, INFINITY, 30, (Sampling){0, 1, 0}, 4); /* the cap makes it finite */
}

static void body(Exec *ex) {
    static const Sampling how[] = {
        {1, 1, 0},       {0.7f, 1, 0},  {2, 0.9f, 0},  {1, 1, 1},        {1, 1, 50},
        {0.7f, 0.9f, 7}, {1, 1e-9f, 0}, {50, 0.5f, 0}, {1e-3f, 0.9f, 9}, {1, 0.999f, 1000000}};
    for (size_t i = 0; i < sizeof how / sizeof how[0]; i++) {
        test_draws(ex, 0, 8, 0, 30, how[i]);
        test_draws(ex, 3, 1, 0, 30, how[i]);
        test_draws(ex, 50, 9, 0, 0, how[i]);
        test_draws(ex, test_brief() ? 9 : 64, 1000, 2, 30, how[i]); /* every logit many times */
        test_draws(ex, 3, wide(33000), 0, 30, how[i]);
    }
    test_draws(ex, 2, wide(256000), 0, 30, how[5]);
    test_tied_top_k(ex);
    test_exact_top_p(ex);
    test_greedy(ex, 0, 9);
    test_greedy(ex, 37, 500);
    test_greedy(ex, 3, wide(70000));
    test_contract(ex);
    test_undrawables(ex);
    test_bits(ex, 5, wide(70000));
    test_bits(ex, 300, 70);
}

int main(void) {
    test_each_exec(body);
    return test_done("test_sample");
}
