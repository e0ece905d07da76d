/* tokenizer_trie.c - a trie of added tokens, for leftmost-longest matching. */
#include "data/tokenizer_impl.h"

static int32_t new_node(Trie *trie, unsigned char byte) {
    trie->node = mem_grow(trie->node, &trie->capacity, trie->n + 1, sizeof *trie->node);
    trie->node[trie->n] = (TrieNode){.token = -1, .byte = byte};
    return (int32_t)trie->n++;
}

static int32_t child(const Trie *trie, int32_t at, unsigned char byte) {
    int32_t c = trie->node[at].child;
    while (c && trie->node[c].byte != byte) c = trie->node[c].sibling;
    return c;
}

void trie_add(Trie *trie, const char *s, size_t len, int32_t token) {
    if (trie->n == 0) new_node(trie, 0);
    int32_t at = 0;
    for (size_t i = 0; i < len; i++) {
        int32_t next = child(trie, at, (unsigned char)s[i]);
        if (!next) {
            next = new_node(trie, (unsigned char)s[i]);
            trie->node[next].sibling = trie->node[at].child;
            trie->node[at].child = next;
        }
        at = next;
    }
    if (trie->node[at].token < 0) trie->node[at].token = token; /* of equals the first counts */
    trie->starts[(unsigned char)s[0]] = true;
}

int32_t trie_longest(const Trie *trie, const char *s, size_t n, size_t *len) {
    int32_t best = -1;
    int32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        at = child(trie, at, (unsigned char)s[i]);
        if (!at) break;
        if (trie->node[at].token >= 0) best = trie->node[at].token, *len = i + 1;
    }
    return best;
}
