/* batch.c - a permutation by hashing, and first fit. */
#include "data/batch.h"

#include "data/base/mem.h"
#include "data/base/rng.h"

/* Keeps these numbers apart from other uses of the same seed. */
static const uint64_t ORDER_STREAM = 0x6f72646572000000u;

size_t batch_steps(size_t ndocs, int batch, double epochs) {
    CHECK(batch > 0 && epochs >= 0 && isfinite(epochs), "batch %d, epochs %g", batch, epochs);
    size_t per_epoch = (ndocs + (size_t)batch - 1) / (size_t)batch;
    return (size_t)ceil(epochs * (double)per_epoch);
}

int batch_docs(int *doc, size_t ndocs, int batch, uint64_t seed, size_t step) {
    CHECK(ndocs > 0 && ndocs <= INT32_MAX && batch > 0, "%zu documents, batch %d", ndocs, batch);
    size_t per_epoch = (ndocs + (size_t)batch - 1) / (size_t)batch;
    uint64_t epoch = step / per_epoch;
    size_t from = step % per_epoch * (size_t)batch;
    size_t to = from + (size_t)batch < ndocs ? from + (size_t)batch : ndocs;
    int *order = mem_array(ndocs, sizeof *order);
    for (size_t i = 0; i < ndocs; i++) order[i] = (int)i;
    for (size_t i = 0; i < to; i++) { /* Fisher-Yates; places behind `to` are not needed */
        size_t j = i + rng_below(seed, ORDER_STREAM + epoch, i, ndocs - i);
        int taken = order[j];
        order[j] = order[i], order[i] = taken;
    }
    memcpy(doc, order + from, (to - from) * sizeof *doc);
    free(order);
    return (int)(to - from);
}

typedef struct Item {
    int length, index;
} Item;

static int longest_first(const void *a, const void *b) {
    const Item *x = a, *y = b;
    return x->length != y->length ? (x->length < y->length) - (x->length > y->length)
                                  : (x->index > y->index) - (x->index < y->index);
}

/* room[] is a binary tree over packs: leaf `leaves + p` has the free rows of pack p, each inner
 * node the larger of its two. So the first pack with enough room is found in log n steps. */
static int first_fit(const int *room, int leaves, int length) {
    int at = 1;
    while (at < leaves) at = room[2 * at] >= length ? 2 * at : 2 * at + 1;
    return at - leaves;
}

static void take(int *room, int leaves, int pack, int length) {
    int at = leaves + pack;
    room[at] -= length;
    for (at /= 2; at >= 1; at /= 2)
        room[at] = room[2 * at] > room[2 * at + 1] ? room[2 * at] : room[2 * at + 1];
}

int batch_pack(int *pack_of, const int *length, int n, int pack_tokens) {
    CHECK(n >= 0 && n < 1 << 29, "%d documents", n);
    Item *item = mem_array((size_t)n, sizeof *item);
    for (int i = 0; i < n; i++) {
        CHECK(length[i] > 0 && length[i] <= pack_tokens, "expected 1 to %d tokens, got %d",
              pack_tokens, length[i]);
        item[i] = (Item){length[i], i};
    }
    qsort(item, (size_t)n, sizeof *item, longest_first);
    int leaves = 1;
    while (leaves < n) leaves *= 2;
    int *room = mem_array(2 * (size_t)leaves, sizeof *room);
    for (int i = 1; i < 2 * leaves; i++) room[i] = pack_tokens;
    int packs = 0;
    for (int i = 0; i < n; i++) {
        int pack = first_fit(room, leaves, item[i].length);
        take(room, leaves, pack, item[i].length);
        pack_of[item[i].index] = pack;
        if (pack >= packs) packs = pack + 1;
    }
    free(room), free(item);
    return packs;
}
