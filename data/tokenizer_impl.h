/* tokenizer_impl.h - what the tokenizer's files share: the tables made from tokenizer.json.
 *
 *   tokenizer_load.c    JSON to tables: vocabulary, merges, added tokens
 *   tokenizer_parts.c   JSON to normalizer, pre_tokenizer and decoder; others are refused by name
 *   tokenizer_vocab.c   pieces to ids
 *   tokenizer_trie.c    leftmost-longest matching of added tokens
 *   tokenizer_bpe.c     one span: characters, bytes, merges
 *   tokenizer.c         text to spans to ids
 *   tokenizer_decode.c  ids to text */
#ifndef SAILS_TOKENIZER_IMPL_H
#define SAILS_TOKENIZER_IMPL_H

#include <jansson.h>

#include "data/tokenizer.h"

#define SPACE_MARK "\xe2\x96\x81" /* U+2581, what Gemma writes for a space */

enum {
    TOKENIZER_MAX_ID = (1 << 22) - 1, /* largest id accepted; tables of that size are 64 MB */
    TOKENIZER_MAX_ADDED_LEN = 4096,   /* bytes of one added token: matching costs text x this */
    TOKENIZER_MAX_TEXT = 1 << 30,     /* bytes per call: positions in a span are 32 bits wide */
    CACHE_SLOTS = 1 << 14,            /* 1 MB, about the words of a running text */
    CACHE_TEXT = 30,
    CACHE_IDS = 8
};

typedef struct Piece {
    size_t at;   /* in pool */
    int32_t len; /* -1: no such id */
    bool special;
} Piece;

typedef struct Replace { /* every occurrence of `from`, left to right, becomes `to` */
    char *from, *to;
    size_t from_len, to_len;
} Replace;

/* A trie over bytes; node 0 is the root. */
typedef struct TrieNode {
    int32_t child, sibling; /* 0: none */
    int32_t token;          /* index of the added token that ends here, -1: none */
    unsigned char byte;
} TrieNode;

typedef struct Trie {
    TrieNode *node;
    size_t n, capacity;
    bool starts[256]; /* some token starts with this byte */
} Trie;

typedef struct Added {
    int32_t id;
    bool lstrip, rstrip, normalized;
    char *content;
    size_t len;
} Added;

typedef struct VocabSlot {
    uint32_t tag; /* of the piece's hash, to pass by most others without a look */
    int32_t id;   /* -1: a free slot */
} VocabSlot;

typedef struct MergeSlot {
    uint64_t pair; /* left id << 32 | right id; EMPTY_PAIR: a free slot */
    uint32_t rank;
    int32_t id; /* of left and right together */
} MergeSlot;
#define EMPTY_PAIR UINT64_MAX

/* The ids of a short stretch of text met before. One cache line. */
typedef struct CacheSlot {
    uint8_t len, n; /* len 0: empty */
    char text[CACHE_TEXT];
    int32_t id[CACHE_IDS];
} CacheSlot;

typedef struct Symbol {
    int32_t id; /* -1: merged into the one before */
    int32_t prev, next;
} Symbol;

typedef struct HeapEntry {
    uint64_t key; /* rank << 32 | position: lowest rank first, then leftmost */
    int32_t id;   /* of the merged pair */
} HeapEntry;

struct Tokenizer {
    char *path;    /* for messages */
    char *no_text; /* ids only: why text is refused; else NULL */

    Buf pool; /* the pieces' bytes, each with a NUL behind */
    Piece *piece;
    int npieces;
    Added *added;
    int nadded;

    /* model */
    VocabSlot *vocab; /* hash table of the model's pieces */
    size_t vocab_mask;
    MergeSlot *merge;
    size_t merge_mask;
    int32_t ascii[128]; /* ids of one-byte pieces, -1: none */
    int32_t byte[256];  /* ids of <0x00> .. <0xFF>, -1: none */
    int32_t unk;        /* -1: none */
    bool fuse_unk, byte_fallback, ignore_merges;
    bool split_at_marks; /* no merge reaches across "x▁", so a span may be cut there: exact */

    /* pipeline */
    Replace *normalizer, *decoder;
    int nnormalizer, ndecoder;
    bool decode_bytes;
    char *split; /* spans are cut behind every occurrence; NULL: never */
    size_t split_len;
    Trie raw, normalized; /* added tokens matched before and after normalisation */

    /* scratch of encode */
    Buf text, text2;
    Symbol *symbol;
    size_t symbol_capacity;
    HeapEntry *heap;
    size_t heap_capacity;
    CacheSlot *cache;
};

static inline uint64_t tokenizer_mix(uint64_t h) {
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static inline uint64_t tokenizer_pair(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* Where the search for a pair begins. */
static inline MergeSlot *tokenizer_merge_home(const Tokenizer *t, uint64_t pair) {
    return &t->merge[tokenizer_mix(pair * 0xd6e8feb86659fd93u) & t->merge_mask];
}

/* The slot of a pair, or the free one where it belongs. */
static inline MergeSlot *tokenizer_merge_slot(const Tokenizer *t, uint64_t pair) {
    MergeSlot *m = tokenizer_merge_home(t, pair);
    while (m->pair != pair && m->pair != EMPTY_PAIR)
        m = m < t->merge + t->merge_mask ? m + 1 : t->merge;
    return m;
}

/* A power of two: slots for n entries, at most two thirds of them taken. */
size_t tokenizer_table_size(size_t n);

/* The table for n pieces; each is entered by its id once t->piece has it. */
void tokenizer_vocab_init(Tokenizer *t, size_t n);
void tokenizer_vocab_add(Tokenizer *t, int32_t id);

/* Id of a piece of the model's vocabulary, -1: none. */
int32_t tokenizer_vocab_find(const Tokenizer *t, const char *piece, size_t len);

/* Many at once, which is faster than one by one. */
typedef struct Lookup {
    const char *s;
    size_t n;
    uint64_t hash; /* scratch */
    int32_t id;    /* out */
} Lookup;
void tokenizer_vocab_find_all(const Tokenizer *t, Lookup *all, size_t n);

void trie_add(Trie *trie, const char *s, size_t len, int32_t token);

/* The longest token that is a prefix of s, -1: none; *len receives its length. */
int32_t trie_longest(const Trie *trie, const char *s, size_t n, size_t *len);

/* Appends the ids of one span, already normalised and cut. */
void tokenizer_bpe(Tokenizer *t, const char *s, size_t n, Ids *out);

/* to = from with every replacement of the list applied in turn. `spare` is overwritten. */
void tokenizer_replace(const Replace *list, int n, const char *from, size_t len, Buf *to,
                       Buf *spare);

/* Tables from a parsed tokenizer.json; `path` is for messages. */
bool tokenizer_load(Tokenizer **t, const json_t *root, const char *path, Err *err);

/* Of tokenizer_load: the parts between text and model. */
bool tokenizer_load_parts(Tokenizer *t, const json_t *root, Err *err);

/* False, with a message, if `object` is none or has a key that is not in the NULL-ended list. */
bool tokenizer_keys(const Tokenizer *t, const json_t *object, const char *where,
                    const char *const *known, Err *err);

#endif
