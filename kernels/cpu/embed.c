/* embed.c - rows by index: embedding lookup, gather, scatter. Contracts: ops.h. */
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
