/* logit_lens.c - directions through the final norm's gain and the tied head. */
#include "model/logit_lens.h"

#include "data/base/mem.h"

/* (k,V) f32 in device memory, of rows (k,D) times 1 + w. */
static float *lens_logits(const Model *m, const double *rows, int k) {
    Exec *ex = m->ex;
    size_t D = (size_t)m->c.D, n = (size_t)k * D, most = n > D ? n : D;
    float *wide = exec_alloc(ex, most * sizeof *wide, "logit lens");
    float *host = mem_array(n, sizeof *host), *w = mem_array(D, sizeof *w);
    store *x = exec_alloc(ex, n * dtype_size(ex->dtype), "logit lens");
    float *logits = exec_alloc(ex, (size_t)k * (size_t)m->c.V * sizeof *logits, "logit lens");
    ex->op->uncast(ex, wide, m->final_norm, D);
    exec_copy_out(ex, w, wide, D * sizeof *w);
    for (size_t i = 0; i < n; i++) host[i] = (float)(rows[i] * (1 + (double)w[i % D]));
    exec_copy_in(ex, wide, host, n * sizeof *host);
    ex->op->cast(ex, x, wide, n);
    ex->op->gemm_f32(ex, logits, m->c.V, x, m->c.D, m->embed, m->c.D, k, m->c.V, m->c.D, GEMM_NT, 1,
                     0);
    exec_sync(ex);
    exec_free(ex, x), exec_free(ex, wide);
    free(host), free(w);
    return logits;
}

/* Keeps the n best of sign * logit; ids come rising, so that of equals the first stays in front. */
static void pick(int32_t *id, float *best, int n, const float *logits, int V, float sign) {
    int have = 0;
    for (int v = 0; v < V; v++) {
        int at = have;
        while (at > 0 && sign * logits[v] > sign * best[at - 1]) at--;
        if (at == n) continue;
        int behind = (have < n ? have : n - 1) - at;
        memmove(best + at + 1, best + at, (size_t)behind * sizeof *best);
        memmove(id + at + 1, id + at, (size_t)behind * sizeof *id);
        best[at] = logits[v], id[at] = v;
        if (have < n) have++;
    }
}

void logit_lens(LogitLens *to, const Model *m, const double *rows, int k, int n) {
    size_t V = (size_t)m->c.V, all = (size_t)k * (size_t)n;
    CHECK(n <= m->c.V, "%d tokens of %d", n, m->c.V);
    *to = (LogitLens){.top = mem_array(all, sizeof *to->top),
                      .bottom = mem_array(all, sizeof *to->bottom),
                      .top_logit = mem_array(all, sizeof *to->top_logit),
                      .bottom_logit = mem_array(all, sizeof *to->bottom_logit)};
    float *logits = lens_logits(m, rows, k), *host = mem_array(V, sizeof *host);
    for (int i = 0; i < k; i++) {
        size_t at = (size_t)i * (size_t)n;
        exec_copy_out(m->ex, host, logits + (size_t)i * V, V * sizeof *host);
        pick(to->top + at, to->top_logit + at, n, host, m->c.V, 1);
        pick(to->bottom + at, to->bottom_logit + at, n, host, m->c.V, -1);
    }
    exec_free(m->ex, logits);
    free(host);
}

void logit_lens_free(LogitLens *l) {
    free(l->top), free(l->bottom), free(l->top_logit), free(l->bottom_logit);
    *l = (LogitLens){0};
}
