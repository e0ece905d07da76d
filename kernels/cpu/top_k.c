/* top_k.c - the k largest of n values. Contract: ops.h.
 *
 * One pass with a heap of the k best so far, whose root is the last of them; then the heap in
 * order. */
#include "kernels/cpu/twin.h"

/* Larger values first, then lower indices. */
static bool before(const double *value, int32_t a, int32_t b) {
    return value[a] > value[b] || (value[a] == value[b] && a < b);
}

static void swap(int32_t *a, int32_t *b) {
    int32_t was = *a;
    *a = *b;
    *b = was;
}

static void sift(int32_t *heap, int n, int i, const double *value) {
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(value, heap[child], heap[child + 1])) child++;
        if (!before(value, heap[i], heap[child])) return;
        swap(&heap[i], &heap[child]);
    }
}

size_t TWIN(top_k_scratch)(Exec *ex, int n) {
    (void)ex, (void)n;
    return 0;
}

void TWIN(top_k)(Exec *ex, int32_t *index, const double *value, int n, int k) {
    OP_BEGIN(ex, top_k, n, k);
    for (int32_t i = 0; i < k; i++) index[i] = i;
    for (int i = k / 2; i-- > 0;) sift(index, k, i, value);
    for (int32_t i = k; i < n; i++) {
        if (!before(value, i, index[0])) continue;
        index[0] = i;
        sift(index, k, 0, value);
    }
    for (int last = k; last-- > 1;) {
        swap(&index[0], &index[last]);
        sift(index, last, 0, value);
    }
}
