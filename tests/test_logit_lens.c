/* The logit lens of directions against doubles: which tokens come first and last, and by how much.
 */
#include "model/logit_lens.h"

#include "tests/golden.h"

enum { K = 3, N = 5 };

/* (d (1 + w)) . e, and what rounding d's row to the storage type and summing in f32 may change. */
static double logit(const Golden *g, const double *row, const double *w, const double *e,
                    double *slack) {
    double sum = 0, size = 0;
    int D = g->m.c.D;
    for (int d = 0; d < D; d++) sum += row[d] * (1 + w[d]) * e[d];
    for (int d = 0; d < D; d++) size += fabs(row[d] * (1 + w[d]) * e[d]);
    *slack = (test_roundoff(g->m.ex->dtype) + (D + 2) * 0x1p-24) * size;
    return sum;
}

/* Is the list of ids and logits that of the N largest of sign * logit? */
static bool lists(const Golden *g, const double *row, const double *w, const double *E,
                  const int32_t *id, const float *value, double sign) {
    int D = g->m.c.D, better = 0;
    double slack, most = 0;
    for (int j = 0; j < N; j++) {
        double ref = logit(g, row, w, E + (size_t)id[j] * (size_t)D, &slack);
        if (!(fabs(ref - value[j]) <= slack)) return false;
        if (j > 0 && sign * value[j] > sign * value[j - 1]) return false;
        for (int i = 0; i < j; i++)
            if (id[i] == id[j]) return false;
        most = fmax(most, slack);
    }
    for (int v = 0; v < g->m.c.V; v++) {
        double ref = logit(g, row, w, E + (size_t)v * (size_t)D, &slack);
        better += sign * ref > sign * value[N - 1] + slack + most;
    }
    return better < N;
}

static void test_all(Exec *ex) {
    Golden g;
    golden_open(&g, ex, "model_a");
    size_t D = (size_t)g.m.c.D, V = (size_t)g.m.c.V;
    double *rows = test_noise_array(3, K * D, 1);
    double *w = test_get_store(ex, g.m.final_norm, D), *E = test_get_store(ex, g.m.embed, V * D);
    LogitLens l;
    logit_lens(&l, &g.m, rows, K, N);
    for (int i = 0; i < K; i++) {
        const double *row = rows + (size_t)i * D;
        EXPECT(lists(&g, row, w, E, l.top + i * N, l.top_logit + i * N, 1), "%s: top of %d",
               ex->op->name, i);
        EXPECT(lists(&g, row, w, E, l.bottom + i * N, l.bottom_logit + i * N, -1),
               "%s: bottom of %d", ex->op->name, i);
        TEST_DETECTS(lists(&g, row, w, E, l.top + i * N, l.top_logit + i * N, -1));
    }
    logit_lens_free(&l);
    free(rows), free(w), free(E);
    golden_close(&g);
}

int main(void) {
    test_each_exec(test_all);
    return test_done("logit lens");
}
