/* Order and packing of documents: every document once an epoch, packs that hold, the same for the
 * same seed, and packing against a plain first fit. */
#include "data/batch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

static void test_order(size_t ndocs, int batch, uint64_t seed) {
    size_t steps = batch_steps(ndocs, batch, 1);
    int *seen = calloc(ndocs * 2 + 1, sizeof *seen), *doc = calloc((size_t)batch, sizeof *doc);
    int *again = calloc((size_t)batch, sizeof *again);
    EXPECT(steps == (ndocs + (size_t)batch - 1) / (size_t)batch, "%zu steps", steps);
    for (size_t step = 0; step < 2 * steps; step++) {
        int n = batch_docs(doc, ndocs, batch, seed, step);
        bool last = step % steps == steps - 1;
        EXPECT(n == (last ? (int)(ndocs - (steps - 1) * (size_t)batch) : batch), "step %zu: %d",
               step, n);
        EXPECT(batch_docs(again, ndocs, batch, seed, step) == n &&
                   memcmp(doc, again, (size_t)n * sizeof *doc) == 0,
               "step %zu drawn twice", step);
        for (int i = 0; i < n; i++) {
            bool in = doc[i] >= 0 && (size_t)doc[i] < ndocs;
            EXPECT(in, "document %d", doc[i]);
            if (in) seen[step / steps * ndocs + (size_t)doc[i]]++;
        }
    }
    for (size_t i = 0; i < 2 * ndocs; i++)
        EXPECT(seen[i] == 1, "%zu/%d: document %zu came %d times", ndocs, batch, i, seen[i]);
    free(seen), free(doc), free(again);
}

/* Over many epochs each document comes first about equally often: chi-square with 9 degrees of
 * freedom exceeds 33.7 once in 10,000 seeds, and this seed is fixed. */
static void test_uniform(void) {
    enum { DOCS = 10, EPOCHS = 10000 };
    double chi = 0;
    int first[DOCS] = {0}, doc[DOCS], other[DOCS], same = 0;
    for (size_t e = 0; e < EPOCHS; e++) {
        batch_docs(doc, DOCS, DOCS, 1, e);
        batch_docs(other, DOCS, DOCS, 2, e);
        first[doc[0]]++;
        same += memcmp(doc, other, sizeof doc) == 0;
    }
    for (int i = 0; i < DOCS; i++) chi += pow(first[i] - EPOCHS / DOCS, 2) / (EPOCHS / DOCS);
    EXPECT(chi < 33.7, "chi-square %g", chi);
    EXPECT(same < 5, "two seeds gave the same order %d times", same);
}

static void test_steps(void) {
    EXPECT(batch_steps(10, 4, 1) == 3 && batch_steps(10, 4, 0.5) == 2 &&
               batch_steps(10, 4, 0) == 0 && batch_steps(10, 4, 2.5) == 8 &&
               batch_steps(0, 4, 3) == 0 && batch_steps(8, 8, 1) == 1,
           "steps");
}

/* First fit by falling length, as the header says, in O(n^2). */
static int plain_pack(int *pack_of, const int *length, int n, int pack_tokens) {
    int *left = calloc((size_t)n + 1, sizeof *left), packs = 0;
    for (int i = 0; i < n; i++) pack_of[i] = -1;
    for (int round = 0; round < n; round++) {
        int next = -1, p = 0;
        for (int i = 0; i < n; i++)
            if (pack_of[i] < 0 && (next < 0 || length[i] > length[next])) next = i;
        while (p < packs && left[p] < length[next]) p++;
        if (p == packs) left[packs++] = pack_tokens;
        left[p] -= length[next];
        pack_of[next] = p;
    }
    free(left);
    return packs;
}

static void test_pack(int n, int pack_tokens, int longest, uint64_t seed) {
    int *length = calloc((size_t)n + 1, sizeof *length),
        *pack = calloc((size_t)n + 1, sizeof *pack);
    int *want = calloc((size_t)n + 1, sizeof *want);
    for (int i = 0; i < n; i++)
        length[i] = 1 + (int)((test_noise(seed, (uint64_t)i) + 1) / 2 * longest);
    int packs = batch_pack(pack, length, n, pack_tokens);
    EXPECT(packs == plain_pack(want, length, n, pack_tokens), "n=%d: %d packs", n, packs);
    EXPECT(memcmp(pack, want, (size_t)n * sizeof *pack) == 0, "n=%d longest=%d", n, longest);
    free(length), free(pack), free(want);
}

int main(void) {
    test_order(1, 1, 0);
    test_order(1, 8, 0);
    test_order(7, 3, 1);
    test_order(64, 64, 2);
    test_order(2311, 64, 3);
    test_uniform();
    test_steps();
    test_pack(0, 8, 8, 1);
    test_pack(1, 8, 7, 1);
    test_pack(2, 1, 0, 1);
    for (int n = 3; n < 400; n = 2 * n + 1) {
        test_pack(n, 100, 99, (uint64_t)n);
        test_pack(n, 100, 20, (uint64_t)n);
    }
    return test_done("test_batch");
}
