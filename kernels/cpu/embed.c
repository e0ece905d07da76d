/* embed.c - rows by index: embedding lookup and its gradient, gather, scatter. Contracts: ops.h. */
#include <string.h>

#include "kernels/cpu/twin.h"

static void check_index(const char *op, const int32_t *index, int N, int limit) {
    for (int n = 0; n < N; n++)
        CHECK(index[n] >= 0 && index[n] < limit, "%s: expected an index in [0,%d), index[%d] is %d",
              op, limit, n, index[n]);
}

void TWIN(embed_fwd)(Exec *ex, store *y, const store *table, const int32_t *token, int N, int D,
                     int V, float scale) {
    OP_BEGIN(ex, embed_fwd, N, D, V);
    check_index("embed_fwd", token, N, V);
#pragma omp parallel for if ((size_t)N * D > OP_SMALL)
    for (int n = 0; n < N; n++) {
        const elem *t = elems_const(table) + (size_t)token[n] * D;
        elem *r = elems(y) + (size_t)n * D;
#pragma omp simd
        for (int i = 0; i < D; i++) r[i] = elem_put(elem_get(t[i]) * scale);
    }
}

/* to += scale (sum of dx[row[n]], from n = at on while their token is that of the first). */
static void token_bwd(float *to, const elem *dx, const int32_t *token, const int32_t *row, int at,
                      int N, int D, float scale) {
    enum { COLUMNS = 256 }; /* whose sums stay in the first cache */
    int end = at + 1;
    while (end < N && token[row[end]] == token[row[at]]) end++;
    for (int c = 0; c < D; c += COLUMNS) {
        float sum[COLUMNS] = {0};
        int n = D - c < COLUMNS ? D - c : COLUMNS;
        for (int i = at; i < end; i++) {
            const elem *r = dx + (size_t)row[i] * D + c;
#pragma omp simd
            for (int k = 0; k < n; k++) sum[k] += elem_get(r[k]);
        }
#pragma omp simd
        for (int k = 0; k < n; k++) to[c + k] += scale * sum[k];
    }
}

void TWIN(embed_bwd)(Exec *ex, float *dtable, const store *dx, const int32_t *token,
                     const int32_t *row, int N, int D, int V, float scale) {
    OP_BEGIN(ex, embed_bwd, N, D, V);
    check_index("embed_bwd", token, N, V);
    check_index("embed_bwd", row, N, N);
#pragma omp parallel for schedule(dynamic, 16) if ((size_t)N * D > OP_SMALL)
    for (int i = 0; i < N; i++) {
        int32_t id = token[row[i]];
        if (i > 0 && token[row[i - 1]] == id) continue; /* done with the first of them */
        token_bwd(dtable + (size_t)id * D, elems_const(dx), token, row, i, N, D, scale);
    }
}

void TWIN(gather_rows)(Exec *ex, store *y, const store *x, const int32_t *row, int N, int D) {
    OP_BEGIN(ex, gather_rows, N, D);
    check_index("gather_rows", row, N, INT32_MAX);
#pragma omp parallel for if ((size_t)N * D > OP_LIGHT)
    for (int n = 0; n < N; n++)
        memcpy(elems(y) + (size_t)n * D, elems_const(x) + (size_t)row[n] * D, D * sizeof(elem));
}

void TWIN(scatter_rows)(Exec *ex, store *y, const store *x, const int32_t *row, int N, int D) {
    OP_BEGIN(ex, scatter_rows, N, D);
    check_index("scatter_rows", row, N, INT32_MAX);
#pragma omp parallel for if ((size_t)N * D > OP_LIGHT)
    for (int n = 0; n < N; n++)
        memcpy(elems(y) + (size_t)row[n] * D, elems_const(x) + (size_t)n * D, D * sizeof(elem));
}
