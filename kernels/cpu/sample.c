/* sample.c - drawing the next token. Contract: ops.h. */
#include <math.h>
#include <stdlib.h>

#include "kernels/cpu/twin.h"
#include "kernels/scalar.h"

typedef struct Candidate {
    float z;
    int32_t token;
} Candidate;

static int by_falling_z(const void *a, const void *b) {
    const Candidate *p = a, *q = b;
    if (p->z != q->z) return p->z > q->z ? -1 : 1;
    return p->token < q->token ? -1 : p->token > q->token;
}

static int32_t draw(Candidate *c, const float *z, float u, int V, Sampling how) {
    for (int i = 0; i < V; i++) c[i] = (Candidate){z[i], i};
    qsort(c, (size_t)V, sizeof *c, by_falling_z);
    int n = how.top_k > 0 && how.top_k < V ? how.top_k : V;
    double total = 0, kept = 0, cumulative = 0;
    for (int i = 0; i < n; i++) total += exp(((double)c[i].z - c[0].z) / how.temperature);
    int m = 0;
    while (m < n && (m == 0 || kept < how.top_p * total))
        kept += exp(((double)c[m++].z - c[0].z) / how.temperature);
    for (int i = 0; i < m; i++) {
        cumulative += exp(((double)c[i].z - c[0].z) / how.temperature);
        if (cumulative > u * kept) return c[i].token;
    }
    return c[m - 1].token;
}

void TWIN(sample)(Exec *ex, int32_t *token, float *logits, const float *u, int N, int V, float cap,
                  Sampling how) {
    OP_GATE(ex);
    CHECK(N >= 0 && V > 0 && cap >= 0 && how.temperature >= 0 && how.top_k >= 0 && how.top_p > 0 &&
              how.top_p <= 1,
          "N=%d V=%d cap=%g temperature=%g top_k=%d top_p=%g", N, V, cap, how.temperature,
          how.top_k, how.top_p);
    CHECK(u || how.temperature == 0, "expected quantiles, got NULL");
    Candidate *all = exec_scratch(ex, (size_t)N * V * sizeof *all + 1);
#pragma omp parallel for if ((size_t)N * V > OP_SMALL)
    for (int n = 0; n < N; n++) {
        float *z = logits + (size_t)n * V;
        int best = 0;
        if (cap > 0)
            for (int i = 0; i < V; i++) z[i] = scalar_softcap(z[i], cap);
        for (int i = 1; i < V; i++)
            if (z[i] > z[best]) best = i;
        token[n] = how.temperature == 0 ? best : draw(all + (size_t)n * V, z, u[n], V, how);
    }
}
