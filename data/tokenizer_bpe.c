/* tokenizer_bpe.c - one span of text to ids: characters and bytes first, then merges.
 *
 * A heap holds every mergeable pair of neighbours; the pair with the lowest rank, and among equals
 * the leftmost, is merged next. Each merge adds at most two pairs, so a span of n characters costs
 * O(n log n). Entries of pairs that are gone are recognised when they come up. */

#include "data/tokenizer_impl.h"
#include "data/utf8.h"

static const MergeSlot *find_merge(const Tokenizer *t, int32_t left, int32_t right) {
    const MergeSlot *m = tokenizer_merge_slot(t, tokenizer_pair(left, right));
    return m->pair == EMPTY_PAIR ? NULL : m;
}

static void heap_push(HeapEntry *heap, size_t *n, HeapEntry e) {
    size_t i = (*n)++;
    while (i > 0) {
        size_t up = (i - 1) / 2;
        if (heap[up].key <= e.key) break;
        heap[i] = heap[up];
        i = up;
    }
    heap[i] = e;
}

static HeapEntry heap_pop(HeapEntry *heap, size_t *n) {
    HeapEntry top = heap[0], e = heap[--*n];
    size_t i = 0;
    for (size_t down; (down = 2 * i + 1) < *n; i = down) {
        if (down + 1 < *n && heap[down + 1].key < heap[down].key) down++;
        if (e.key <= heap[down].key) break;
        heap[i] = heap[down];
    }
    heap[i] = e;
    return top;
}

typedef struct Word { /* the span being worked on: t->symbol[0 .. n) and t->heap[0 .. nheap) */
    Tokenizer *t;
    size_t n, nheap;
} Word;

static void add_symbol(Word *w, int32_t id) {
    Tokenizer *t = w->t;
    t->symbol = mem_grow(t->symbol, &t->symbol_capacity, w->n + 1, sizeof *t->symbol);
    t->symbol[w->n] = (Symbol){.id = id, .prev = (int32_t)w->n - 1, .next = (int32_t)w->n + 1};
    w->n++;
}

/* The character as its bytes' pieces, if there is one for each. */
static bool add_bytes(Word *w, const char *s, int len) {
    const Tokenizer *t = w->t;
    if (!t->byte_fallback) return false;
    for (int i = 0; i < len; i++)
        if (t->byte[(unsigned char)s[i]] < 0) return false;
    for (int i = 0; i < len; i++) add_symbol(w, t->byte[(unsigned char)s[i]]);
    return true;
}

/* One symbol per character. An unknown character waits: with fuse_unk its neighbours join it, and
 * only a known character (not one written as bytes) ends the wait, as in the `tokenizers` library.
 */
static void add_characters(Word *w, const char *s, size_t n) {
    const Tokenizer *t = w->t;
    bool waiting = false;
    for (size_t i = 0; i < n;) {
        int len = utf8_len(s[i]);
        int32_t id =
            len == 1 ? t->ascii[(unsigned char)s[i]] : tokenizer_vocab_find(t, s + i, (size_t)len);
        if (id >= 0) {
            if (waiting) add_symbol(w, t->unk);
            waiting = false;
            add_symbol(w, id);
        } else if (!add_bytes(w, s + i, len) && t->unk >= 0) {
            if (waiting && !t->fuse_unk) add_symbol(w, t->unk);
            waiting = true;
        }
        i += (size_t)len;
    }
    if (waiting) add_symbol(w, t->unk);
}

/* Queues the pair that starts at symbol `left`, if it merges. */
static void queue_pair(Word *w, int32_t left) {
    Tokenizer *t = w->t;
    int32_t right = t->symbol[left].next;
    if ((size_t)right >= w->n) return;
    const MergeSlot *m = find_merge(t, t->symbol[left].id, t->symbol[right].id);
    if (!m) return;
    t->heap = mem_grow(t->heap, &t->heap_capacity, w->nheap + 1, sizeof *t->heap);
    heap_push(t->heap, &w->nheap,
              (HeapEntry){.key = (uint64_t)m->rank << 32 | (uint32_t)left, .id = m->id});
}

static void merge_all(Word *w) {
    Tokenizer *t = w->t;
    for (size_t i = 0; i + 1 < w->n; i++) queue_pair(w, (int32_t)i);
    Symbol *symbol = t->symbol; /* no symbol is added any more */
    while (w->nheap > 0) {
        HeapEntry top = heap_pop(t->heap, &w->nheap);
        int32_t left = (int32_t)(top.key & UINT32_MAX);
        int32_t right = symbol[left].next;
        if (symbol[left].id < 0 || (size_t)right >= w->n) continue;
        const MergeSlot *m = find_merge(t, symbol[left].id, symbol[right].id);
        if (!m || m->id != top.id) continue; /* another pair stands here by now */
        int32_t after = symbol[right].next;
        symbol[left].id = m->id;
        symbol[left].next = after;
        symbol[right].id = -1;
        if ((size_t)after < w->n) symbol[after].prev = left;
        if (symbol[left].prev >= 0) queue_pair(w, symbol[left].prev);
        queue_pair(w, left);
    }
}

static void merge_span(Tokenizer *t, const char *s, size_t n, Ids *out) {
    Word w = {.t = t};
    add_characters(&w, s, n);
    merge_all(&w);
    for (size_t i = 0; i < w.n; i++)
        if (t->symbol[i].id >= 0) ids_add(out, t->symbol[i].id);
}

/* A segment has no merge with its neighbours, so its ids are a function of its text alone. */
static void segment_ids(Tokenizer *t, const char *s, size_t n, Ids *out) {
    if (n == 0 || n > CACHE_TEXT) {
        merge_span(t, s, n, out);
        return;
    }
    uint64_t word[4] = {0};
    memcpy(word, s, n);
    uint64_t h = tokenizer_mix(
        tokenizer_mix(tokenizer_mix(tokenizer_mix(word[0] + n) + word[1]) + word[2]) + word[3]);
    CacheSlot *slot = &t->cache[h % CACHE_SLOTS];
    if (slot->len != n || memcmp(slot->text, s, n) != 0) {
        size_t before = out->n;
        merge_span(t, s, n, out);
        size_t made = out->n - before;
        if (made > CACHE_IDS) return;
        slot->len = (uint8_t)n;
        slot->n = (uint8_t)made;
        memcpy(slot->text, s, n);
        if (made) memcpy(slot->id, out->id + before, made * sizeof *slot->id);
        return;
    }
    for (int i = 0; i < slot->n; i++) ids_add(out, slot->id[i]);
}

/* The next place from i on where a mark begins and the character before is no mark; else n. */
static size_t next_cut(const char *s, size_t n, size_t i) {
    enum { MARK = sizeof SPACE_MARK - 1 };
    while (i + MARK <= n) {
        const char *hit = memchr(s + i, SPACE_MARK[0], n - MARK + 1 - i);
        if (!hit) break;
        i = (size_t)(hit - s);
        bool mark = memcmp(hit, SPACE_MARK, MARK) == 0;
        bool after_mark = i >= MARK && memcmp(hit - MARK, SPACE_MARK, MARK) == 0;
        if (mark && !after_mark && i > 0) return i;
        i += mark ? MARK : 1;
    }
    return n;
}

void tokenizer_bpe(Tokenizer *t, const char *s, size_t n, Ids *out) {
    if (t->ignore_merges) {
        int32_t whole = tokenizer_vocab_find(t, s, n);
        if (whole >= 0) {
            ids_add(out, whole);
            return;
        }
    }
    if (!t->split_at_marks) {
        merge_span(t, s, n, out);
        return;
    }
    for (size_t from = 0; from < n;) {
        size_t to = next_cut(s, n, from ? from + 1 : 0);
        segment_ids(t, s + from, to - from, out);
        from = to;
    }
}
