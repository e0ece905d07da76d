/* tokenizer_vocab.c - the hash table from pieces to ids, by open addressing. */
#include "data/tokenizer_impl.h"

static uint64_t hash_bytes(const char *s, size_t n) {
    uint64_t h = n * 0x9e3779b97f4a7c15u;
    while (n > 0) {
        uint64_t w = 0;
        size_t step = n < 8 ? n : 8;
        memcpy(&w, s, step);
        h = (h ^ w) * 0xd6e8feb86659fd93u;
        h ^= h >> 32;
        s += step, n -= step;
    }
    return h ^ h >> 29;
}

size_t tokenizer_table_size(size_t n) {
    size_t size = 16;
    while (size < n + n / 2) size *= 2;
    return size;
}

void tokenizer_vocab_init(Tokenizer *t, size_t n) {
    t->vocab_mask = tokenizer_table_size(n) - 1;
    t->vocab = mem_array(t->vocab_mask + 1, sizeof *t->vocab);
    for (size_t i = 0; i <= t->vocab_mask; i++) t->vocab[i].id = -1;
}

void tokenizer_vocab_add(Tokenizer *t, int32_t id) {
    const Piece *p = &t->piece[id];
    uint64_t h = hash_bytes(t->pool.p + p->at, (size_t)p->len);
    size_t i = h & t->vocab_mask;
    while (t->vocab[i].id >= 0) i = (i + 1) & t->vocab_mask;
    t->vocab[i] = (VocabSlot){.tag = (uint32_t)(h >> 32), .id = id};
}

static int32_t find(const Tokenizer *t, const char *s, size_t n, uint64_t h) {
    for (size_t i = h & t->vocab_mask;; i = (i + 1) & t->vocab_mask) {
        VocabSlot slot = t->vocab[i];
        if (slot.id < 0) return -1;
        if (slot.tag != (uint32_t)(h >> 32)) continue;
        const Piece *p = &t->piece[slot.id];
        if ((size_t)p->len == n && memcmp(t->pool.p + p->at, s, n) == 0) return slot.id;
    }
}

int32_t tokenizer_vocab_find(const Tokenizer *t, const char *piece, size_t len) {
    return find(t, piece, len, hash_bytes(piece, len));
}

/* Each search waits for three places in memory, one after the other: slot, piece and text. Taking
 * these steps for all searches together lets the waits overlap. */
void tokenizer_vocab_find_all(const Tokenizer *t, Lookup *all, size_t n) {
    for (Lookup *l = all; l < all + n; l++) {
        l->hash = hash_bytes(l->s, l->n);
        __builtin_prefetch(&t->vocab[l->hash & t->vocab_mask]);
    }
    for (Lookup *l = all; l < all + n; l++) {
        l->id = t->vocab[l->hash & t->vocab_mask].id;
        if (l->id >= 0) __builtin_prefetch(&t->piece[l->id]);
    }
    for (Lookup *l = all; l < all + n; l++)
        if (l->id >= 0) __builtin_prefetch(t->pool.p + t->piece[l->id].at);
    for (Lookup *l = all; l < all + n; l++) l->id = find(t, l->s, l->n, l->hash);
}
