/* tokenizer.h - Gemma's byte-fallback BPE, read from a Hugging Face tokenizer.json.
 *
 * Ids are those of the `tokenizers` library for the same file. Added tokens are matched in the
 * raw text first; each span between them is normalised (" " -> "▁") and merged as a whole with a
 * priority queue, O(n log n). No BOS is added here: the chat template and callers place it. */
#ifndef SAILS_TOKENIZER_H
#define SAILS_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "host/base/err.h"

typedef struct Tokenizer Tokenizer;

typedef struct Ids { /* a growing array of token ids; zero-initialise, ids_free at the end */
    int32_t *id;
    size_t n, capacity;
} Ids;
void ids_add(Ids *ids, int32_t id);
void ids_free(Ids *ids);

/* `path` is a tokenizer.json or a folder that holds one. */
bool tokenizer_open(Tokenizer **t, const char *path, Err *err);
void tokenizer_close(Tokenizer *t); /* NULL is allowed */

int tokenizer_vocab(const Tokenizer *t);                     /* one more than the largest id */
int32_t tokenizer_id(const Tokenizer *t, const char *piece); /* -1: no such piece */
const char *tokenizer_piece(const Tokenizer *t, int32_t id,
                            size_t *len); /* as stored; NULL: none */

/* Appends the ids of `text`. Invalid UTF-8 is bad input: the message names the byte offset. */
bool tokenizer_encode(Tokenizer *t, const char *text, size_t len, Ids *out, Err *err);

/* Appends ids to text (malloc'd, NUL-terminated). Ids of special tokens are left out when
 * `skip_special`. Bytes that form no valid UTF-8 become U+FFFD, as in the `tokenizers` library. */
char *tokenizer_decode(const Tokenizer *t, const int32_t *id, size_t n, bool skip_special,
                       size_t *len);

#endif
