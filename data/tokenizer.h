/* tokenizer.h - Gemma's byte-fallback BPE, read from a Hugging Face tokenizer.json.
 *
 * Ids are those of the `tokenizers` library for the same file. Added tokens are matched in the
 * raw text first; each span between them is normalised (" " -> "▁") and merged as a whole with a
 * priority queue, O(n log n). No BOS is added here: the chat template and callers place it.
 *
 * What the file may hold: model BPE (byte_fallback, fuse_unk, unk_token and ignore_merges as set;
 * merges as "a b" or ["a","b"]); normalizer null, Replace of a string, or a Sequence of these;
 * pre_tokenizer null or Split on a string, MergedWithPrevious, or a Sequence of one; decoder
 * Replace, ByteFallback, Fuse or a Sequence of these; added tokens with all flags but single_word;
 * post_processor null or TemplateProcessing (its BOS is not added here). Any other component is
 * refused by name. `truncation` and `padding` are settings of the library's calls, and ignored. */
#ifndef SAILS_TOKENIZER_H
#define SAILS_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "data/buf.h"
#include "data/ids.h"
#include "data/base/err.h"

typedef struct Tokenizer Tokenizer;

/* `path` is a tokenizer.json or a folder that holds one. */
bool tokenizer_open(Tokenizer **t, const char *path, Err *err);
void tokenizer_close(Tokenizer *t); /* NULL is allowed */

/* For data that are ids already: `vocab` ids, among them <bos> (-1: there is none). It knows no
 * pieces; any text is bad input, and `why` (copied) the message. */
Tokenizer *tokenizer_ids_only(int vocab, int32_t bos, const char *why);

/* Can it encode text? False with the message when it is one of ids only. */
bool tokenizer_reads_text(const Tokenizer *t, Err *err);

int tokenizer_vocab(const Tokenizer *t);                     /* one more than the largest id */
int32_t tokenizer_id(const Tokenizer *t, const char *piece); /* -1: no such piece */

/* As stored, NUL-terminated; NULL: no such id. len may be NULL. */
const char *tokenizer_piece(const Tokenizer *t, int32_t id, size_t *len);

/* Appends the ids of `text`. Invalid UTF-8 is bad input: the message names the byte offset, from 0.
 * Uses scratch memory of `t`: one call at a time for each tokenizer. */
bool tokenizer_encode(Tokenizer *t, const char *text, size_t len, Ids *out, Err *err);

/* Ids to text (malloc'd, NUL-terminated). Ids of special tokens are left out when `skip_special`,
 * unknown ids always. Bytes that form no valid UTF-8 become U+FFFD, as in the library: one for
 * each byte of a run of <0xHH> pieces that is not valid as a whole. */
char *tokenizer_decode(const Tokenizer *t, const int32_t *id, size_t n, bool skip_special,
                       size_t *len);

/* The same, one id at a time: what decode_next appends to `out` is always complete UTF-8, and
 * after decode_finish all of it equals tokenizer_decode of all ids. A run of <0xHH> pieces is held
 * back until it ends, since its last byte decides what the first becomes. */
typedef struct DecodeStream {
    const Tokenizer *t; /* borrowed */
    bool skip_special;
    Buf wait, piece, spare;
} DecodeStream;
void decode_init(DecodeStream *d, const Tokenizer *t, bool skip_special);
void decode_next(DecodeStream *d, int32_t id, Buf *out);
void decode_finish(DecodeStream *d, Buf *out); /* d is then ready for another text */
void decode_free(DecodeStream *d);

#endif
